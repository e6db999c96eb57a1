"""Document 08: witnesses, portable proofs, evidence, and what a node does."""

import json

from common import LOG, NOW, OUTSIDER, PEER, ROOT, RELEASE, RECALL, Key, b64, channel, compact, digest, named, recall, root, release, signed, vector
from log import (
    ALBA, COSIGNATURE, DASH, EMPTY, FIVE, NOTE, THREE, TIME, WITNESS, body, checkpoint, consistency, cosign, entry, forked, key_hash, leaf, leaves, line, of,
    path, said, sha, sign, tree, verifier,
)

LAST = 253402300799  # 9999-12-31T23:59:59Z
LOGS = {"alba": LOG, "borea": Key(51), "cora": Key(52)}


def nation(name, log=None, witnesses=None):
    """A nation with a log key, and witness keys."""
    first, log = ROOT if name == "alba" else Key(60 + sorted(WITNESS).index(name)), log or LOGS.get(name, Key(59))
    witnesses = [WITNESS[name]] if witnesses is None else witnesses
    keys = [first, RELEASE, RECALL, log, *witnesses]
    roles = {"root": ([first], 1), "release": ([RELEASE], 1), "attest": ([first], 1), "recall": ([RECALL], 1), "log": ([log], 1), "node": ([first], 1)}
    if witnesses:
        roles["witness"] = (witnesses, 1)
    value = root(name, {key.id: key for key in keys}.values(), roles)
    return signed(compact(value), first)


ROOTS = [nation(name) for name in ("alba", "borea", "cora", "dora")]


def cosignatures():
    f = "08/cosignatures"
    text = body(3, tree(THREE))

    def add(name, lines, witnesses, rules, roots=None, note=None, log="alba"):
        ok = {"witnesses": witnesses}
        vector(f, name, "cosignatures", rules, {"roots": roots or ROOTS, "nation": log, "bytes": said(note or checkpoint(text, *lines))}, ok)

    at = NOW
    b, c = cosign(text, "borea"), cosign(text, "cora", TIME + 60)
    add("one ally", [b], {"borea": at}, "LOG-020 LOG-022")
    add("two allies", [b, c], {"borea": at, "cora": "2026-11-23T12:01:00Z"}, "LOG-020 LOG-023")
    add("nobody", [], {}, "LOG-023")
    add("the log's own nation does not count", [cosign(text, "alba"), b], {"borea": at}, "LOG-023")
    add("not counted: the log's own nation alone", [cosign(text, "alba")], {}, "LOG-023")
    other = body(3, tree(THREE), "borea")
    add("not counted: the own nation of another log", [], {"alba": at}, "LOG-023", note=checkpoint(other, cosign(other, "borea"), cosign(other, "alba"), key=LOGS["borea"], name="steelyard/borea"), log="borea")
    add("one nation twice counts once, with its latest time", [b, cosign(text, "borea", TIME + 5), cosign(text, "borea", TIME - 5)], {"borea": "2026-11-23T12:00:05Z"}, "LOG-021 LOG-023")
    second = Key(71)
    pair = [ROOTS[0], nation("borea", witnesses=[WITNESS["borea"], second]), *ROOTS[2:]]
    add("two keys of one nation count once", [b, cosign(text, "borea", TIME + 9, key=second)], {"borea": "2026-11-23T12:00:09Z"}, "LOG-022 LOG-023", roots=pair)
    add("the second key of a nation", [cosign(text, "borea", key=second)], {"borea": at}, "LOG-022", roots=pair)
    add("the time 0", [cosign(text, "borea", 0)], {"borea": "1970-01-01T00:00:00Z"}, "LOG-020")
    add("the last second of 9999", [cosign(text, "borea", LAST)], {"borea": "9999-12-31T23:59:59Z"}, "LOG-021")
    add("not counted: the year 10000", [cosign(text, "borea", LAST + 1)], {}, "LOG-021")
    add("not counted: a time of 2^63", [cosign(text, "borea", 2**63)], {}, "LOG-021")
    add("not counted: a time of all ones", [cosign(text, "borea", 2**64 - 1)], {}, "LOG-021")
    add("an absurd time beside a good one", [cosign(text, "borea", 2**64 - 1), b], {"borea": at}, "LOG-021")
    blob = key_hash("steelyard/borea/witness", COSIGNATURE, WITNESS["borea"].public) + TIME.to_bytes(8, "big")
    good = WITNESS["borea"].sign(f"cosignature/v1\ntime {TIME}\n{text}".encode())

    def raw(data, name="steelyard/borea/witness"):
        return line(name, data)

    for defect, one in {
        "another time in the line": raw(blob[:4] + (TIME + 1).to_bytes(8, "big") + good), "the time in little-endian order": raw(blob[:4] + TIME.to_bytes(8, "little") + good),
        "no time": raw(blob[:4] + good), "63 bytes of signature": raw(blob + good[:-1]), "65 bytes of signature": raw(blob + good + b"\0"), "all zero": raw(blob + bytes(64)),
        "the key hash alone": raw(blob), "the text alone is signed": cosign(text, "borea", message=text), "another version": cosign(text, "borea", message=f"cosignature/v2\ntime {TIME}\n{text}"),
        "no word before the time": cosign(text, "borea", message=f"cosignature/v1\n{TIME}\n{text}"), "the time with a leading zero": cosign(text, "borea", message=f"cosignature/v1\ntime 0{TIME}\n{text}"),
        "the whole note is signed": cosign(text, "borea", message=f"cosignature/v1\ntime {TIME}\n{checkpoint(text)}"),
        "another checkpoint is signed": cosign(text, "borea", message=f"cosignature/v1\ntime {TIME}\n{body(4, tree(THREE))}"),
        "the key hash of a log's key": cosign(text, "borea", kind=NOTE), "a plain signature by the witness key": sign(text, "steelyard/borea/witness", WITNESS["borea"]),
        "a plain signature with the key hash of a witness": sign(text, "steelyard/borea/witness", WITNESS["borea"], kind=COSIGNATURE),
        "a scalar that is not reduced": raw(blob + WITNESS["borea"].sign_unreduced(f"cosignature/v1\ntime {TIME}\n{text}".encode())),
        "R of small order": raw(blob + WITNESS["borea"].sign_small_order(f"cosignature/v1\ntime {TIME}\n{text}".encode())),
    }.items():
        add(f"not counted: {defect}", [one], {}, "LOG-020")
    for defect, one in {
        "an outsider's key under the witness's name": cosign(text, "borea", key=OUTSIDER), "the log key of the witness's nation": cosign(text, "borea", key=LOGS["borea"]),
        "the name of the nation's log": cosign(text, "borea", name="steelyard/borea"), "one nation's key under another's name": cosign(text, "cora", key=WITNESS["borea"]),
        "a nation that is not pinned": cosign(text, "mora", key=OUTSIDER, name="steelyard/mora/witness"), "another witness's name": cosign(text, "borea", name="borea.example/witness"),
    }.items():
        add(f"not counted: {defect}", [one], {}, "LOG-022")
    add("not counted: a nation whose root has no witness role", [b], {}, "LOG-022", roots=[ROOTS[0], nation("borea", witnesses=[]), *ROOTS[2:]])
    add("not counted: a nation that was unpinned", [b], {}, "LOG-022", roots=[ROOTS[0], *ROOTS[2:]])


def request(old, proof, note):
    return f"old {old}\n" + "".join(b64(h) + "\n" for h in proof) + "\n" + note


def witnessing():
    f = "08/request"
    note = of(FIVE)
    hashes = consistency(3, FIVE)
    good = request(3, hashes, note)

    def add(name, text, rules="WIT-001 WIT-002", ok=None):
        vector(f, name, "witness-request", rules, {"bytes": said(text) if isinstance(text, str) else text}, ok, None if ok else "400")

    add("from three to five", good, "WIT-001", ok={"old": "3", "proof": [h.hex() for h in hashes], "nation": "alba"})
    add("from nothing", request(0, [], note), "WIT-001", ok={"old": "0", "proof": []})
    add("63 hashes", request(3, [bytes(32)] * 63, note), "WIT-001", ok={"old": "3"})
    add("an old size of 64 bits", request(2**64 - 1, [], note), "WIT-001", ok={"old": str(2**64 - 1)})
    first = b64(hashes[0])
    for defect, text in {
        "nothing": "", "the note alone": note, "no empty line": good.replace("\n\n", "\n", 1).replace("\n\n", "\n"), "no old size": good.replace("old 3\n", "", 1), "an empty old size": good.replace("old 3", "old ", 1),
        "a leading zero": good.replace("old 3", "old 03", 1), "a sign": good.replace("old 3", "old +3", 1), "a negative size": good.replace("old 3", "old -3", 1), "two spaces": good.replace("old 3", "old  3", 1),
        "a space behind": good.replace("old 3", "old 3 ", 1), "in capitals": good.replace("old 3", "OLD 3", 1), "an old size of 65 bits": good.replace("old 3", f"old {2**64}", 1),
        "64 hashes": request(3, [bytes(32)] * 64, note), "a hash of 31 bytes": good.replace(first, b64(hashes[0][1:]), 1), "a hash of 33 bytes": good.replace(first, b64(hashes[0] + b"\0"), 1),
        "a hash in hexadecimal": good.replace(first, hashes[0].hex(), 1), "a hash without padding": good.replace(first, first.rstrip("="), 1), "a space behind a hash": good.replace(first, first + " ", 1),
        "a carriage return": good.replace("\n", "\r\n"), "an empty line among the hashes": good.replace(first, "\n" + first, 1), "no note": good.split("\n\n")[0] + "\n\n",
        "a note without signatures": request(3, hashes, body(5, tree(FIVE)) + "\n"), "no checkpoint": request(3, hashes, checkpoint("hello\n")), "something behind the note": good + "x",
        "a byte order mark": "\ufeff" + good,
    }.items():
        add(f"refused: {defect}", text)
    add("refused: no UTF-8", [{"text": "old 3\n"}, {"hex": "ff"}, {"text": "\n\n" + note}])
    add("refused: 35713 bytes", request(3, [bytes(32)] * 63, note + line("n", bytes(72)) * 300)[:35712] + "\n")

    f = "08/witness"
    three = {"size": "3", "root": tree(THREE).hex()}

    def decide(name, rules, text, before=three, log="alba", keys=(ALBA,), ok=None, error=None):
        vector(f, name, "witness", rules, {"nation": log, "keys": list(keys), "before": before, "bytes": said(text)}, ok, error)

    five = {"size": "5", "root": tree(FIVE).hex()}
    decide("it has grown", "WIT-008", good, ok=five)
    decide("seen for the first time", "WIT-008", request(0, [], note), None, ok=five)
    decide("seen for the first time, empty", "WIT-008", request(0, [], of([])), None, ok={"size": "0", "root": EMPTY.hex()})
    decide("the same again", "WIT-008", request(5, [], note), five, ok=five)
    decide("grown from nothing", "WIT-008", request(0, [], note), {"size": "0", "root": EMPTY.hex()}, ok=five)
    decide("refused: the old size is larger", "WIT-002", request(6, [], note), error="400")
    decide("refused: the old size is larger, and what was cosigned too", "WIT-002", request(6, [], note), {"size": "6", "root": tree(leaves(6)).hex()}, error="400")
    decide("refused: no checkpoint in the note", "WIT-002", request(3, hashes, checkpoint("hello\n")), error="400")
    decide("refused: another log", "WIT-003", request(3, hashes, of(FIVE, "borea", key=LOGS["borea"])), error="404")
    decide("refused: another log under the same key", "WIT-003", request(3, hashes, of(FIVE, "borea")), error="404")
    decide("refused: a log of no nation", "WIT-003", request(3, hashes, checkpoint(f"other.example/log\n5\n{b64(tree(FIVE))}\n", name="other.example/log")), error="404")
    decide("refused: an outsider signed", "WIT-004", request(3, hashes, of(FIVE, key=OUTSIDER)), error="403")
    decide("refused: the witness's own key signed", "WIT-004", request(3, hashes, body(5, tree(FIVE)) + "\n" + cosign(body(5, tree(FIVE)), "borea")),
           keys=[ALBA, verifier("steelyard/borea/witness", WITNESS["borea"], COSIGNATURE)], error="403")
    decide("refused: an altered size", "WIT-004", request(3, hashes, note.replace("\n5\n", "\n6\n")), error="403")
    decide("refused: signed badly and of another size", "WIT-004", request(4, hashes, of(FIVE, key=OUTSIDER)), error="403")
    decide("refused: it cosigned less", "WIT-005", request(4, consistency(4, FIVE), note), error="409 3")
    decide("refused: it cosigned more", "WIT-005", request(2, consistency(2, FIVE), note), error="409 3")
    decide("refused: it cosigned nothing", "WIT-005", good, None, error="409 0")
    decide("refused: from nothing, though it cosigned", "WIT-005", request(0, [], note), error="409 3")
    decide("refused: it cosigned more than that", "WIT-005", request(2, [], of(leaves(2))), error="409 3")
    decide("refused: the same size and another old size", "WIT-005", request(3, hashes, note), five, error="409 5")
    decide("refused: two faces of one size", "WIT-006", request(3, [], of(forked(3))), error="409 3")
    decide("refused: two faces of one size, with hashes", "WIT-006", request(3, hashes, of(forked(3))), error="409 3")
    for defect, proof in {"no hashes": [], "a hash is missing": hashes[:-1], "a hash too many": hashes + [bytes(32)], "altered": [bytes(32), *hashes[1:]], "hashes in another order": hashes[::-1]}.items():
        decide(f"refused: {defect}", "WIT-007", request(3, proof, note), error="422")
    rewritten = forked(3) + FIVE[3:]
    decide("refused: history was rewritten", "WIT-007", request(3, consistency(3, rewritten), of(rewritten)), error="422")
    decide("refused: from nothing with a hash", "WIT-007", request(0, [tree(FIVE)], note), None, error="422")
    decide("refused: the same size with a hash", "WIT-007", request(5, [tree(FIVE)], note), five, error="422")


def proofs():
    f = "08/proof"
    text, other = compact(release()), compact(release(version="2.0.0"))
    numbers = {2: text, 4: other}
    some = [leaf(b"\1" + bytes.fromhex(digest(numbers[i])[3:])) if i in numbers else leaf(entry(i)) for i in range(7)]
    base = body(7, tree(some))
    note = checkpoint(base, cosign(base, "borea"), cosign(base, "cora", TIME + 60), cosign(base, "alba"))
    witnesses = {n: [verifier(f"steelyard/{n}/witness", WITNESS[n], COSIGNATURE)] for n in ("alba", "borea", "cora")}

    def write(index=2, hashes=None, note=note, head="c2sp.org/tlog-proof@v1"):
        return f"{head}\nindex {index}\n" + "".join(b64(h) + "\n" for h in (path(2, some) if hashes is None else hashes)) + "\n" + note

    def add(name, data, rules="LOG-030", statement=text, log="alba", keys=(ALBA,), ok=None, error=None):
        given = {"statement": digest(statement), "nation": log, "keys": list(keys), "witnesses": witnesses, "bytes": said(data) if isinstance(data, str) else data}
        vector(f, name, "log-proof", rules, given, ok, error)

    good = {"index": "2", "size": "7", "witnesses": ["borea", "cora"], "witnessed": "2026-11-23T12:01:00Z"}
    add("witnessed by two", write(), "LOG-030 LOG-031", ok=good)
    add("witnessed by nobody", write(note=checkpoint(base)), "LOG-031", ok={"index": "2", "witnesses": [], "witnessed": None})
    add("witnessed by its own nation alone", write(note=checkpoint(base, cosign(base, "alba"))), "LOG-023 LOG-031", ok={"witnesses": [], "witnessed": None})
    alone = [leaf(b"\1" + bytes.fromhex(digest(text)[3:]))]
    add("of the only entry", write(0, [], of(alone)), "LOG-031", ok={"index": "0", "size": "1"})
    whole = write()
    first = b64(path(2, some)[0])
    for defect, data in {
        "nothing": "", "the checkpoint alone": note, "another first line": write(head="c2sp.org/tlog-proof@v2"), "no first line": whole.split("\n", 1)[1], "a space behind the first line": write(head="c2sp.org/tlog-proof@v1 "),
        "no index": whole.replace("index 2\n", ""), "an extra line": whole.replace("index 2\n", "extra AAAA\nindex 2\n"), "an empty index": write(""), "a leading zero": write("02"), "a sign": write("+2"), "a negative index": write("-2"), "an index of 65 bits": write(2**64),
        "65 hashes": write(2, [bytes(32)] * 65), "a hash of 31 bytes": whole.replace(first, b64(bytes(31))), "a hash of 33 bytes": whole.replace(first, b64(bytes(33))), "a hash in hexadecimal": whole.replace(first, "00" * 32),
        "a carriage return": whole.replace("\n", "\r\n"), "no empty line": whole.replace("\n\n", "\n"), "a byte order mark": "\ufeff" + whole,
    }.items():
        add(f"refused: {defect}", data, error="proof")
    add("refused: no UTF-8", [{"text": "c2sp.org/tlog-proof@v1\nindex 2\n"}, {"hex": "ff"}, {"text": "\n\n" + note}], error="proof")
    add("refused: 35777 bytes", (write() + line("n", bytes(1000)) * 40)[:35777], error="proof")
    add("refused: no note", write(note=""), error="note")
    add("refused: no checkpoint", write(note=checkpoint("hello\n")), error="checkpoint")
    for defect, (data, more, code) in {
        "another statement": (write(), {"statement": other}, "root"), "another statement's place": (write(4), {}, "root"), "its number is the size": (write(7), {}, "outside"),
        "a number of 64 bits": (write(2**64 - 1), {}, "outside"), "a hash is missing": (write(hashes=path(2, some)[:-1]), {}, "length"), "a hash too many": (write(hashes=path(2, some) + [bytes(32)]), {}, "length"),
        "64 hashes": (write(hashes=[bytes(32)] * 64), {}, "length"), "a longer log": (write(note=of(some + leaves(1))), {}, "root"), "another log's entries": (write(note=of(leaves(7))), {}, "root"),
        "an outsider signed": (write(note=of(some, key=OUTSIDER)), {}, "unsigned"), "no key of the log known": (write(), {"keys": []}, "unsigned"), "another nation's log": (write(), {"log": "borea"}, "origin"),
        "witnesses alone": (write(note=base + "\n" + cosign(base, "borea") + cosign(base, "cora")), {}, "unsigned"), "an altered size": (write(note=note.replace("\n7\n", "\n6\n")), {}, "unsigned"),
        "an empty log": (write(0, [], of([])), {}, "outside"),
    }.items():
        add(f"refused: {defect}", data, "LOG-031", error=code, **more)


def evidence():
    f = "08/evidence"

    def show(smaller, larger, prefix=None, proof=(), **more):
        value = {"version": 1, "nation": "alba", "smaller": smaller, "larger": larger}
        if prefix is not None:
            value["prefix"] = b64(prefix)
        if proof:
            value["proof"] = [b64(h) for h in proof]
        return {**value, **more}

    def add(name, rules, value, keys=(ALBA,), ok=None, error=None):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        vector(f, name, "fork-evidence", rules, {"keys": list(keys), "bytes": said(text)}, ok, error)

    three, two_faces = of(THREE), of(forked(3))
    equal = show(three, two_faces)
    add("two faces of one size", "EVD-001 EVD-003", equal, ok={"nation": "alba", "size": "3", "one": tree(THREE).hex(), "other": tree(forked(3)).hex()})
    rewritten = forked(3) + FIVE[3:]
    split = show(three, of(rewritten), tree(forked(3)), consistency(3, rewritten))
    found = {"nation": "alba", "size": "3", "one": tree(THREE).hex(), "other": tree(forked(3)).hex()}
    add("a larger log with another beginning", "EVD-001 EVD-004", split, ok=found)
    add("written with spaces", "EVD-001", json.dumps(split, indent=3) + "\n", ok=found)
    cosigned = three + cosign(body(3, tree(THREE)), "borea")
    add("with cosignatures", "EVD-002", show(cosigned, two_faces), ok={"size": "3"})
    second = verifier("steelyard/alba", OUTSIDER)
    add("signed by an earlier and a later log key", "EVD-002", show(three, of(forked(3), key=OUTSIDER)), keys=[ALBA, second], ok={"size": "3"})
    text = json.dumps(equal, ensure_ascii=False)
    add("163840 bytes", "EVD-001", text + " " * (163840 - len(text.encode())), ok={"size": "3"})
    add("refused: 64 hashes that prove nothing", "EVD-004", {**split, "proof": [b64(bytes(32))] * 64}, error="length")
    for defect, value in {
        "nothing": "", "no JSON": "fork: yes", "a list": f"[{text}]", "cut short": text[:-2], "something follows": text + "{}", "no version": {k: v for k, v in equal.items() if k != "version"},
        "version 0": {**equal, "version": 0}, "version 2": {**equal, "version": 2}, "version as text": {**equal, "version": "1"}, "no nation": {k: v for k, v in equal.items() if k != "nation"},
        "a nation that is no name": {**equal, "nation": "Al ba"}, "one checkpoint": {k: v for k, v in equal.items() if k != "larger"}, "an unknown field": {**equal, "because": "they lied"},
        "a field twice": text[:-1] + ',"version":1}', "a proof that is no list": {**split, "proof": "AAAA"}, "65 hashes": {**split, "proof": [b64(bytes(32))] * 65}, "a prefix of 31 bytes": {**split, "prefix": b64(bytes(31))},
        "a prefix in hexadecimal": {**split, "prefix": tree(THREE).hex()}, "a hash of 33 bytes": {**split, "proof": [b64(bytes(33))]}, "163841 bytes": text + " " * (163841 - len(text.encode())),
    }.items():
        add(f"refused: {defect}", "EVD-001", value, error="evidence")
    for defect, (value, keys, code) in {
        "an outsider signed one": (show(three, of(forked(3), key=OUTSIDER)), [ALBA], "unsigned"), "an outsider signed the other": (show(of(forked(3), key=OUTSIDER), three), [ALBA], "unsigned"),
        "no key of the log known": (equal, [], "unsigned"), "another nation's log": ({**equal, "nation": "borea"}, [ALBA], "origin"), "one is another log's": (show(three, of(forked(3), "borea")), [ALBA], "origin"),
        "one is no note": (show(three, "hello"), [ALBA], "note"), "one is no checkpoint": (show(three, checkpoint("hello\n")), [ALBA], "checkpoint"),
        "one was altered": (show(three, two_faces.replace("\n3\n", "\n4\n")), [ALBA], "unsigned"), "a witness's key signed one": (show(three, body(3, tree(forked(3))) + "\n" + cosign(body(3, tree(forked(3))), "alba")), [ALBA], "unsigned"),
    }.items():
        add(f"refused: {defect}", "EVD-002", value, keys, error=code)
    add("refused: the same checkpoint twice", "EVD-003", show(three, three), error="consistent")
    add("refused: one checkpoint with other cosignatures", "EVD-003", show(three, cosigned), error="consistent")
    add("refused: equal sizes with a prefix", "EVD-003", show(three, two_faces, tree(forked(3))), error="evidence")
    add("refused: equal sizes with a proof", "EVD-003", {**equal, "proof": [b64(bytes(32))]}, error="evidence")
    five = of(FIVE)
    add("refused: the log has grown", "EVD-004", show(three, five, tree(THREE), consistency(3, FIVE)), error="consistent")
    add("refused: the log has grown from nothing", "EVD-004", show(of([]), five, EMPTY), error="consistent")
    add("refused: a beginning that is not the larger log's", "EVD-004", show(three, five, tree(forked(3)), consistency(3, rewritten)), error="root")
    add("refused: an invented beginning", "EVD-004", show(three, five, bytes(32), consistency(3, FIVE)), error="root")
    add("refused: an invented beginning of nothing", "EVD-004", show(of([]), five, bytes(32)), error="root")
    add("refused: two sizes without a prefix", "EVD-004", show(three, of(rewritten)), error="evidence")
    add("refused: a prefix without a proof", "EVD-004", show(three, of(rewritten), tree(forked(3))), error="length")
    add("refused: a proof without a prefix", "EVD-004", {k: v for k, v in split.items() if k != "prefix"}, error="evidence")
    add("refused: the larger one first", "EVD-004", show(of(rewritten), three, tree(forked(3)), consistency(3, rewritten)), error="backwards")
