"""Document 08: the tree, notes, checkpoints, tiles, proofs."""

import base64
import hashlib

from common import LOG, OUTSIDER, P, THE_RELEASE, Key, b64, vector

DASH = "\u2014"
NOTE, COSIGNATURE = 1, 4
TIME = 1795435200  # 2026-11-23T12:00:00Z
WITNESS = {name: Key(40 + i) for i, name in enumerate(["alba", "borea", "cora", "dora"])}

# ------------------------------------------------------------------------------------------------------------- the tree


def sha(data):
    return hashlib.sha256(data).digest()


def entry(i):
    """The entry that vectors mean by a number alone."""
    return b"\x01" + i.to_bytes(8, "big") + bytes(24)


def leaf(data):
    return sha(b"\0" + data)


def split(n):
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def tree(leaves):
    """RFC 6962, 2.1, by its recursive definition."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha(b"\1" + tree(leaves[:k]) + tree(leaves[k:]))


def path(m, leaves):
    """RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return path(m, leaves[:k]) + [tree(leaves[k:])]
    return path(m - k, leaves[k:]) + [tree(leaves[:k])]


def consistency(m, leaves, whole=True):
    """RFC 6962, 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if whole else [tree(leaves)]
    k = split(n)
    if m <= k:
        return consistency(m, leaves[:k], whole) + [tree(leaves[k:])]
    return consistency(m - k, leaves[k:], False) + [tree(leaves[:k])]


def leaves(n, start=0):
    return [leaf(entry(i)) for i in range(start, start + n)]


def forked(n):
    """The leaves of a log that differs in its last entry but one."""
    out = leaves(n)
    out[-2] = leaf(entry(1000))
    return out


# ------------------------------------------------------------------------------------------------------------- the notes


def key_hash(name, kind, public):
    return sha(name.encode() + b"\n" + bytes([kind]) + public)[:4]


def verifier(name, key, kind=NOTE):
    return f"{name}+{key_hash(name, kind, key.public).hex()}+{b64(bytes([kind]) + key.public)}"


def line(name, blob):
    return f"{DASH} {name} {b64(blob)}\n"


def sign(text, name, key, message=None, kind=NOTE):
    signature = key.sign((text if message is None else message).encode())
    return line(name, key_hash(name, kind, key.public) + signature)


def cosign(text, nation, time=TIME, key=None, name=None, kind=COSIGNATURE, message=None):
    key, name = key or WITNESS[nation], name or f"steelyard/{nation}/witness"
    message = f"cosignature/v1\ntime {time}\n{text}" if message is None else message
    return line(name, key_hash(name, kind, key.public) + time.to_bytes(8, "big") + key.sign(message.encode()))


def body(size, root, nation="alba", more=""):
    return f"steelyard/{nation}\n{size}\n{b64(root)}\n{more}"


def checkpoint(text, *lines, key=LOG, name="steelyard/alba"):
    return text + "\n" + sign(text, name, key) + "".join(lines)


def of(some, nation="alba", *lines, key=LOG):
    """The checkpoint of a log with these leaves."""
    return checkpoint(body(len(some), tree(some), nation), *lines, key=key, name=f"steelyard/{nation}")


def said(text):
    return [{"text": text}]


ALBA = verifier("steelyard/alba", LOG)
EMPTY = tree([])
THREE, FIVE = leaves(3), leaves(5)

# ------------------------------------------------------------------------------------------------------------- vectors


def entries():
    f = "08/entry"
    digest = bytes.fromhex(THE_RELEASE.removeprefix("b3:"))
    vector(f, "of a statement", "log-entry", "LOG-001", {"entry": "01" + digest.hex()}, {"statement": THE_RELEASE})
    for defect, data in {
        "algorithm 0": b"\0" + digest, "algorithm 2": b"\2" + digest, "the digest alone": digest, "a byte too many": b"\1" + digest + b"\0",
        "nothing": b"", "the text of the digest": THE_RELEASE.encode(),
    }.items():
        vector(f, f"refused: {defect}", "log-entry", "LOG-001", {"entry": data.hex()}, error="entry")


def trees():
    f = "08/root"
    for n in (0, 1, 2, 3, 7, 8, 255, 256, 257, 1000):
        vector(f, f"of {n} entries", "log-root", "LOG-002", {"count": n}, {"root": tree(leaves(n)).hex()})

    f = "08/inclusion"

    def inclusion(name, index, size, proof, root, data=None, error=None):
        given = {"entry": (data or entry(index)).hex(), "index": str(index), "size": str(size), "proof": [h.hex() for h in proof], "rootHash": root.hex()}
        vector(f, name, "log-inclusion", "LOG-003", given, error=error)

    for index, size in [(0, 1), (0, 2), (2, 3), (4, 7), (6, 7), (255, 256), (256, 257), (998, 1000)]:
        all_ = leaves(size)
        inclusion(f"entry {index} of {size}", index, size, path(index, all_), tree(all_))
    seven, top = leaves(7), tree(leaves(7))
    good = path(4, seven)
    inclusion("refused: another entry", 4, 7, good, top, data=entry(5), error="root")
    inclusion("refused: the entry's hash is hashed as a node", 0, 2, [], tree(leaves(2)), data=leaves(2)[0] + leaves(2)[1], error="length")
    inclusion("refused: a subtree passed off as an entry", 0, 2, [tree(leaves(4)[2:])], tree(leaves(4)), data=b"\1" + leaves(4)[0] + leaves(4)[1], error="root")
    inclusion("refused: the neighbour's number", 5, 7, good, top, data=entry(4), error="root")
    inclusion("refused: the number is the size", 7, 7, good, top, data=entry(4), error="outside")
    inclusion("refused: an empty tree", 0, 0, [], EMPTY, error="outside")
    inclusion("refused: a number of 64 bits", 2**64 - 1, 7, good, top, data=entry(4), error="outside")
    inclusion("refused: a hash is missing", 4, 7, good[:-1], top, error="length")
    inclusion("refused: a hash too many", 4, 7, good + [top], top, error="length")
    inclusion("refused: no hashes", 4, 7, [], top, error="length")
    inclusion("refused: a hash for the only entry", 0, 1, [top], leaves(1)[0], error="length")
    inclusion("refused: another size", 4, 6, good, top, error="length")
    inclusion("refused: hashes in another order", 4, 7, good[::-1], top, error="root")
    inclusion("refused: an altered hash", 4, 7, [good[0], bytes(32), *good[2:]], top, error="root")
    inclusion("refused: the root of a shorter log", 4, 7, good, tree(leaves(6)), error="root")

    f = "08/consistency"

    def continues(name, old, new, proof, old_root, new_root, error=None):
        given = {"old": str(old), "new": str(new), "proof": [h.hex() for h in proof], "oldRoot": old_root.hex(), "newRoot": new_root.hex()}
        vector(f, name, "log-consistency", "LOG-004", given, error=error)

    for old, new in [(1, 2), (2, 3), (3, 4), (3, 7), (4, 7), (6, 7), (7, 8), (255, 257), (256, 257), (333, 1000)]:
        all_ = leaves(new)
        continues(f"{old} to {new}", old, new, consistency(old, all_), tree(all_[:old]), tree(all_))
    continues("0 to 7", 0, 7, [], EMPTY, top)
    continues("7 to 7", 7, 7, [], top, top)
    good, old = consistency(3, seven), tree(seven[:3])
    continues("refused: backwards", 7, 3, good, top, old, "backwards")
    continues("refused: backwards to nothing", 7, 0, [], top, EMPTY, "backwards")
    continues("refused: from nothing with a hash", 0, 7, [top], EMPTY, top, "length")
    continues("refused: from nothing with another root", 0, 7, [], bytes(32), top, "root")
    continues("refused: from nothing to nothing with another root", 0, 0, [], bytes(32), bytes(32), "root")
    continues("refused: equal sizes, two roots", 7, 7, [], tree(forked(7)), top, "root")
    continues("refused: equal sizes with a hash", 7, 7, [top], top, top, "length")
    continues("refused: no hashes", 3, 7, [], old, top, "length")
    continues("refused: no hashes from a whole subtree", 4, 7, [], tree(seven[:4]), top, "length")
    continues("refused: a hash is missing", 3, 7, good[:-1], old, top, "length")
    continues("refused: a hash too many", 3, 7, good + [top], old, top, "length")
    continues("refused: a whole subtree proved with its own hash", 4, 7, [tree(seven[:4]), *consistency(4, seven)], tree(seven[:4]), top, "length")
    continues("refused: the old root is another", 3, 7, good, tree(forked(3)), top, "root")
    continues("refused: the new root is another", 3, 7, good, old, tree(forked(7)), "root")
    continues("refused: the old entries were rewritten", 3, 7, consistency(3, forked(3) + seven[3:]), old, tree(forked(3) + seven[3:]), "root")
    continues("refused: another old size", 2, 7, good, old, top, "length")
    continues("refused: hashes in another order", 3, 7, good[::-1], old, top, "root")


def notes():
    f = "08/note"
    text = body(3, tree(THREE))
    one = sign(text, "steelyard/alba", LOG)
    note = text + "\n" + one
    signature = base64.b64decode(one.split(" ")[2])

    def add(name, data, rules="LOG-005", keys=(ALBA,), ok=None, error=None):
        given = {"bytes": said(data) if isinstance(data, str) else data, "keys": list(keys)}
        vector(f, name, "note", rules, given, ok, error)

    add("one signature", note, "LOG-005 LOG-009", ok={"text": text, "lines": 1, "signed": [True]})
    add("two signatures", note + sign(text, "other.example/log", OUTSIDER), ok={"lines": 2, "signed": [True]})
    blank = "first\n\n\nlast\n"
    add("empty lines in the text", checkpoint(blank), ok={"text": blank, "lines": 1, "signed": [True]})
    wide = "ä €\u2014\U0001f512\n"
    add("text beyond ASCII", checkpoint(wide), ok={"text": wide, "signed": [True]})
    add("a dash line in the text", checkpoint(note), ok={"text": note, "lines": 1, "signed": [True]})
    for defect, data in {
        "nothing": "", "a text alone": text, "no signature": text + "\n", "no empty line": text + one, "the last line does not end": note[:-1],
        "something follows": note + "x", "an empty line at the end": note + "\n", "a hyphen instead of a dash": text + "\n" + one.replace(DASH, "-"),
        "no space behind the dash": text + "\n" + one.replace(DASH + " ", DASH), "two spaces behind the dash": text + "\n" + one.replace(DASH + " ", DASH + "  "),
        "two spaces behind the name": text + "\n" + one.replace("alba ", "alba  "), "a space at the end": text + "\n" + one[:-1] + " \n",
        "no name": text + "\n" + one.replace("steelyard/alba ", ""), "a carriage return": note.replace("\n", "\r\n"), "a tab in the text": checkpoint("a\tb\n"),
        "NUL in the text": checkpoint("a\0b\n"), "an escape in the text": checkpoint("a\x1b[2Jb\n"), "a C1 control in the text": checkpoint("a\x9bb\n"),
        "a signature without padding": text + "\n" + line("steelyard/alba", signature + b"\0")[:-1].rstrip("=") + "\n" if b64(signature + b"\0").endswith("=") else text + "\n" + f"{DASH} steelyard/alba AAAAAAA\n",
        "unused bits are not zero": text + "\n" + f"{DASH} steelyard/alba AAAAAAB=\n", "the URL alphabet": text + "\n" + f"{DASH} steelyard/alba ____AAAA\n",
        "a signature of a key hash alone": text + "\n" + line("steelyard/alba", signature[:4]), "a signature of three bytes": text + "\n" + line("steelyard/alba", signature[:3]),
        "an empty signature": text + "\n" + f"{DASH} steelyard/alba \n",
    }.items():
        add(f"refused: {defect}", data, error="note")
    add("refused: no UTF-8", [{"text": "a"}, {"hex": "ff"}, {"text": "\n\n" + one}], error="note")
    filler = len(note.encode())
    long = "x" * 1000 + "\n"
    fits = long * ((32768 - 2000) // 1001)
    rest = 32768 - len(checkpoint(fits).encode()) - 1
    add("32768 bytes", checkpoint(fits + "y" * rest + "\n"), "LOG-006", ok={"lines": 1, "signed": [True]})
    add("refused: 32769 bytes", checkpoint(fits + "y" * (rest + 1) + "\n"), "LOG-006", error="too-large")
    noise = [line("n", b"1234" + bytes([i])) for i in range(160)]
    add("160 lines", note + "".join(noise[:159]), "LOG-006", ok={"lines": 160, "signed": [True]})
    add("refused: 161 lines", note + "".join(noise), "LOG-006", error="too-many-signatures")
    assert filler < 32768
    unsigned = {"lines": 1, "signed": [False]}
    for defect, data in {
        "an altered text": note.replace("\n3\n", "\n4\n"), "another key under the name": text + "\n" + sign(text, "steelyard/alba", OUTSIDER),
        "another name": text + "\n" + sign(text, "steelyard/borea", LOG), "another key hash": text + "\n" + line("steelyard/alba", bytes(4) + signature[4:]),
        "a signature of 63 bytes": text + "\n" + line("steelyard/alba", signature[:-1]), "a signature of 65 bytes": text + "\n" + line("steelyard/alba", signature + b"\0"),
        "a signature of zeros": text + "\n" + line("steelyard/alba", signature[:4] + bytes(64)),
        "the text without its last line feed": text + "\n" + sign(text, "steelyard/alba", LOG, text[:-1]),
        "the text and the empty line": text + "\n" + sign(text, "steelyard/alba", LOG, text + "\n"),
        "a scalar that is not reduced": text + "\n" + line("steelyard/alba", signature[:4] + LOG.sign_unreduced(text.encode())),
        "R of small order": text + "\n" + line("steelyard/alba", signature[:4] + LOG.sign_small_order(text.encode())),
        "a cosignature in place of a signature": text + "\n" + cosign(text, "alba", key=LOG, name="steelyard/alba"),
        "a signature over a cosignature's message": text + "\n" + sign(text, "steelyard/alba", LOG, f"cosignature/v1\ntime {TIME}\n{text}"),
    }.items():
        add(f"not signed by {defect}" if defect.startswith("another key") else f"not signed: {defect}", data, "LOG-009", ok=unsigned)
    add("a forged line beside the good one", text + "\n" + line("steelyard/alba", signature[:4] + bytes(64)) + one, "LOG-009", ok={"lines": 2, "signed": [True]})

    f = "08/note-key"
    public = LOG.public

    def key(name, text, rules="LOG-008", ok=None, error=None):
        vector(f, name, "note-key", rules, {"text": text}, ok, error)

    def raw(name, blob, hashed=None):
        return f"{name}+{(hashed or sha(name.encode() + chr(10).encode() + blob)[:4]).hex()}+{b64(blob)}"

    key("of a log", ALBA, ok={"name": "steelyard/alba", "use": "note", "public": public.hex(), "hash": ALBA.split("+")[1]})
    key("of a witness", verifier("steelyard/borea/witness", WITNESS["borea"], COSIGNATURE), ok={"use": "cosignature", "public": WITNESS["borea"].public.hex()})
    key("a name of 256 bytes", verifier("n" * 256, LOG), "LOG-007", ok={"name": "n" * 256})
    key("a name beyond ASCII", verifier("büro", LOG), "LOG-007", ok={"name": "büro"})
    for defect, text in {
        "nothing": "", "a name alone": "steelyard/alba", "no key": ALBA.rsplit("+", 1)[0] if "+" not in ALBA.split("+", 2)[2] else "steelyard/alba+00000000",
        "another hash": ALBA.replace(ALBA.split("+")[1], "00000000"), "a hash in capitals": ALBA.replace(ALBA.split("+")[1], ALBA.split("+")[1].upper()),
        "a hash of three bytes": ALBA.replace("+" + ALBA.split("+")[1], "+" + ALBA.split("+")[1][:6]), "another name": ALBA.replace("alba", "borea"),
        "type 0": raw("steelyard/alba", b"\0" + public), "type 2": raw("steelyard/alba", b"\2" + public), "type 5": raw("steelyard/alba", b"\5" + public),
        "the key without a type": raw("steelyard/alba", public), "31 bytes of key": raw("steelyard/alba", b"\1" + public[1:]),
        "33 bytes of key": raw("steelyard/alba", b"\1" + public + b"\0"), "the key in hexadecimal": f"steelyard/alba+{ALBA.split('+')[1]}+01{public.hex()}",
        "a point of small order": raw("steelyard/alba", b"\1" + (1).to_bytes(32, "little")), "the zero point": raw("steelyard/alba", b"\1" + bytes(32)),
        "no point of the curve": raw("steelyard/alba", b"\1" + (2).to_bytes(32, "little")), "a point of small order that is not canonical": raw("steelyard/alba", b"\1" + (P + 1).to_bytes(32, "little")),
        "a space at the end": ALBA + " ", "a line feed at the end": ALBA + "\n",
    }.items():
        key(f"refused: {defect}", text, error="key")
    assert ALBA.split("+")[1] != ALBA.split("+")[1].upper()
    for defect, name in {
        "no name": "", "a space in the name": "steelyard alba", "a tab in the name": "a\tb", "a wide space in the name": "a\u3000b", "NUL in the name": "a\0b",
        "a C1 control in the name": "a\x9bb", "a name of 257 bytes": "n" * 257,
    }.items():
        key(f"refused: {defect}", verifier(name, LOG), "LOG-007", error="key")


def checkpoints():
    f = "08/checkpoint"
    root = tree(THREE)

    def add(name, note, rules="LOG-010", keys=(ALBA,), nation="alba", ok=None, error=None):
        vector(f, name, "checkpoint", rules, {"nation": nation, "keys": list(keys), "bytes": said(note)}, ok, error)

    good = {"size": "3", "root": root.hex()}
    add("of three entries", of(THREE), "LOG-010 LOG-011 LOG-012", ok=good)
    add("of no entries", of([]), "LOG-013", ok={"size": "0", "root": EMPTY.hex()})
    add("of 2^63-1 entries", checkpoint(body(2**63 - 1, root)), "LOG-013", ok={"size": str(2**63 - 1)})
    add("further lines", checkpoint(body(3, root, more="one\ntwo\n")), ok=good)
    add("16 further lines", checkpoint(body(3, root, more="x\n" * 16)), ok=good)
    for defect, text in {
        "no root": "steelyard/alba\n3\n", "the origin alone": "steelyard/alba\n", "an empty origin": f"\n3\n{b64(root)}\n",
        "17 further lines": body(3, root, more="x\n" * 17), "an empty line behind the root": body(3, root, more="\nx\n"), "an empty last line": body(3, root, more="\n"),
        "an empty size": f"steelyard/alba\n\n{b64(root)}\n", "a leading zero": body("03", root), "zero twice": body("00", EMPTY), "a sign": body("+3", root), "a negative size": body("-3", root),
        "hexadecimal": body("0x3", root), "a fraction": body("3.0", root), "a space before the size": body(" 3", root), "digits of another script": body("\u0663", root),
        "a root of 31 bytes": body(3, root[1:]), "a root of 33 bytes": body(3, root + b"\0"), "a root in hexadecimal": f"steelyard/alba\n3\n{root.hex()}\n",
        "a root without padding": f"steelyard/alba\n3\n{b64(root).rstrip('=')}\n", "a root whose unused bits are not zero": f"steelyard/alba\n3\n{'A' * 42}B=\n",
        "an empty root": "steelyard/alba\n3\n\n",
    }.items():
        add(f"refused: {defect}", checkpoint(text), error="checkpoint")
    add("refused: a size of 2^63", checkpoint(body(2**63, root)), "LOG-013", error="checkpoint")
    add("refused: a size of 65 bits", checkpoint(body(2**64, root)), "LOG-013", error="checkpoint")
    add("refused: no entries with another root", checkpoint(body(0, root)), "LOG-013", error="checkpoint")
    borea = verifier("steelyard/borea", LOG)
    for defect, origin in {
        "another nation's": "steelyard/borea", "in capitals": "Steelyard/alba", "a longer name": "steelyard/alba2", "a path behind": "steelyard/alba/", "a space before": " steelyard/alba",
        "no prefix": "alba", "the witness's name": "steelyard/alba/witness",
    }.items():
        add(f"refused: origin {defect}", checkpoint(f"{origin}\n3\n{b64(root)}\n"), "LOG-011", error="origin")
    add("refused: another nation's log under a key of both", of(THREE, "borea"), "LOG-011", keys=[ALBA, borea], error="origin")
    add("refused: no key known", of(THREE), "LOG-012", keys=[], error="unsigned")
    add("refused: signed by an outsider", of(THREE, key=OUTSIDER), "LOG-012", error="unsigned")
    text = body(3, root)
    add("refused: signed by the witness key alone", text + "\n" + cosign(text, "alba"), "LOG-012",
        keys=[ALBA, verifier("steelyard/alba/witness", WITNESS["alba"], COSIGNATURE)], error="unsigned")
    add("refused: signed under the witness's name", text + "\n" + sign(text, "steelyard/alba/witness", LOG), "LOG-012",
        keys=[verifier("steelyard/alba/witness", LOG)], error="unsigned")
    add("refused: the log's key as a cosignature", text + "\n" + cosign(text, "alba", key=LOG, name="steelyard/alba"), "LOG-012 LOG-020",
        keys=[verifier("steelyard/alba", LOG, COSIGNATURE)], error="unsigned")
    add("the second of two keys", of(THREE, key=OUTSIDER), "LOG-012", keys=[ALBA, verifier("steelyard/alba", OUTSIDER)], ok=good)
    add("refused: no note", text, "LOG-005", error="note")


def tiles():
    f = "08/tile"

    def add(name, path, level=None, index=None, width=256, rules="LOG-014", error=None):
        ok = None if error else {"level": level, "index": str(index), "width": width}
        vector(f"{f}-path", name, "tile-path", rules, {"path": path}, ok, error)

    add("the first hashes", "tile/0/000", 0, 0)
    add("level 7", "tile/7/001", 7, 1)
    add("a million and more", "tile/0/x001/x234/067", 0, 1234067)
    add("groups of zeros inside", "tile/1/x001/x000/000", 1, 1000000)
    add("a partial tile", "tile/0/x001/067.p/5", 0, 1067, 5)
    add("a width of 255", "tile/0/000.p/255", 0, 0, 255)
    add("entries", "tile/entries/003", None, 3)
    add("partial entries", "tile/entries/000.p/1", None, 0, 1)
    add("the last number", "tile/0/x036/x028/x797/x018/x963/967", 0, 2**55 - 1)
    for defect, text in {
        "empty": "", "no prefix": "0/000", "a slash before": "/tile/0/000", "level 8": "tile/8/000", "level of two digits": "tile/00/000", "level with a sign": "tile/+0/000", "a negative level": "tile/-1/000",
        "no level": "tile/000", "an empty level": "tile//000", "no number": "tile/0/", "two digits": "tile/0/00", "four digits": "tile/0/0000", "a letter": "tile/0/00a",
        "a group of zeros before": "tile/0/x000/001", "no x": "tile/0/001/067", "an x at the last group": "tile/0/x001", "an x at both": "tile/0/x001/x067", "a capital x": "tile/0/X001/067",
        "a slash behind": "tile/0/000/", "width 0": "tile/0/000.p/0", "width 256": "tile/0/000.p/256", "a width with a leading zero": "tile/0/000.p/05", "a width with a sign": "tile/0/000.p/+5",
        "no width": "tile/0/000.p/", "two widths": "tile/0/000.p/5.p/5", "a width as a file": "tile/0/000.p", "something behind the width": "tile/0/000.p/5/", "the old entries path": "tile/data/000",
        "traversal": "tile/0/../000", "number 2^55": "tile/0/x036/x028/x797/x018/x963/968", "a number of 64 bits": "tile/0/x018/x446/x744/x073/x709/x551/615",
        "a number over 64 bits": "tile/0/x999/x999/x999/x999/x999/x999/x999/999", "65 bytes": "tile/0/" + "x001/" * 11 + "067", "a query": "tile/0/000?x=1", "digits of another script": "tile/0/\u0660\u0660\u0660",
        "NUL": "tile/0/000\0",
    }.items():
        add(f"refused: {defect}", text, error="path")

    def tile(name, count, path, data=None, rules="LOG-015 LOG-016"):
        vector(f, name, "tile", rules, {"count": count, "path": path}, {"bytes": data.hex()} if data is not None else None, None if data is not None else "missing")

    def bundle(*numbers):
        return b"".join(b"\0\x21" + entry(i) for i in numbers)

    tile("hashes of three entries", 3, "tile/0/000.p/3", b"".join(leaves(3)))
    tile("a narrower one", 3, "tile/0/000.p/1", leaves(1)[0])
    tile("the second level", 600, "tile/1/000.p/2", tree(leaves(256)) + tree(leaves(256, 256)))
    tile("a whole one", 256, "tile/0/000", b"".join(leaves(256)))
    tile("the rest", 600, "tile/0/002.p/88", b"".join(leaves(88, 512)))
    tile("entries in a bundle", 3, "tile/entries/000.p/3", bundle(0, 1, 2))
    tile("the rest of the entries", 258, "tile/entries/001.p/2", bundle(256, 257))
    for defect, count, text in [
        ("one hash too many", 3, "tile/0/000.p/4"), ("a whole tile of a partial one", 255, "tile/0/000"), ("a tile behind the last", 256, "tile/0/001.p/1"), ("a subtree that is not whole", 255, "tile/1/000.p/1"),
        ("one subtree too many", 600, "tile/1/000.p/3"), ("an empty log", 0, "tile/0/000.p/1"), ("an empty log's entries", 0, "tile/entries/000.p/1"), ("one entry too many", 3, "tile/entries/000.p/4"),
        ("a level that the log has not reached", 600, "tile/2/000.p/1"), ("the highest level", 600, "tile/7/000.p/1"), ("the last number", 600, "tile/0/x036/x028/x797/x018/x963/967"),
    ]:
        tile(f"refused: {defect}", count, text, rules="LOG-015")
