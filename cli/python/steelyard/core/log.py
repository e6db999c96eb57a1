"""Document 08: the tree, its proofs, notes, checkpoints, tiles, witnesses, portable proofs, evidence of a fork."""

import base64
import hashlib
import re
import unicodedata

from . import ed25519
from .basic import Refused, is_name, need, read_json, unbase64

MAX_SIZE = 2**63 - 1
LATEST = 253402300799
AHEAD = 600
EMPTY = hashlib.sha256(b"").digest()


# ------------------------------------------------------------------------------------------------------------ the tree


def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaves):
    """The root hash over hashes of entries or, from level to level, of whole subtrees."""
    if not leaves:
        return EMPTY
    stack = []
    for at, one in enumerate(leaves):
        while at & 1:
            one, at = node(stack.pop(), one), at >> 1
        stack.append(one)
    found = stack.pop()
    while stack:
        found = node(stack.pop(), found)
    return found


def inclusion(entry, index, size, proof, root):
    need(0 <= index < size, "index")
    fn, sn, found = index, size - 1, leaf(entry)
    for one in proof:
        need(sn != 0, "length")
        if fn & 1 or fn == sn:
            found = node(one, found)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = node(found, one)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "length")
    need(found == root, "root")


def consistency(old, new, proof, old_root, new_root):
    need(old <= new, "smaller")
    if old == 0 or old == new:
        need(not proof, "length")
        need(old_root == (EMPTY if old == 0 else new_root), "root")
        need(new != 0 or new_root == EMPTY, "root")
        return
    fn, sn, proof = old - 1, new - 1, list(proof)
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    if fn == 0:
        proof.insert(0, old_root)
    need(proof, "length")
    one, two = proof[0], proof[0]
    for hash_ in proof[1:]:
        need(sn != 0, "length")
        if fn & 1 or fn == sn:
            one, two = node(hash_, one), node(hash_, two)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            two = node(two, hash_)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "length")
    need(one == old_root and two == new_root, "root")


def entry_of(digest):
    return b"\1" + bytes.fromhex(digest[3:])


def example(count):
    return [b"\1" + number.to_bytes(8, "big") + bytes(24) for number in range(count)]


# --------------------------------------------------------------------------------------------------- notes and keys


def is_control(text):
    return any(unicodedata.category(c) == "Cc" for c in text)


def is_key_name(name):
    return 1 <= len(name.encode()) <= 256 and not is_control(name) and "+" not in name and not any(c.isspace() for c in name)


def key_hash(name, kind, public):
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


class Key:
    def __init__(self, text):
        parts = text.split("+", 2)
        need(len(parts) == 3 and is_key_name(parts[0]), "key")
        self.name, data = parts[0], unbase64(parts[2])
        need(len(data) == 33 and data[0] in (1, 4), "key")
        self.kind, self.public = data[0], data[1:]
        ed25519.read_key(self.public.hex())
        self.hash = key_hash(self.name, self.kind, self.public)
        need(parts[1] == self.hash.hex(), "key")


def verifier(name, kind, public):
    """The text of a verifier key."""
    return f"{name}+{key_hash(name, kind, public).hex()}+{base64.b64encode(bytes([kind]) + public).decode()}"


def key(request):
    it = Key(request["text"])
    return {"name": it.name, "use": "note" if it.kind == 1 else "cosignature", "public": it.public.hex(), "hash": it.hash.hex()}


class Note:
    def __init__(self, data):
        need(len(data) <= 32768, "too-long")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("note") from None
        at = text.rfind("\n\n")
        need(at >= 0, "note")
        self.text, below = text[: at + 1], text[at + 2 :]
        need(not is_control(self.text.replace("\n", "")), "note")
        need(below.endswith("\n"), "note")
        lines = below[:-1].split("\n")
        need(1 <= len(lines) <= 160, "too-many")
        self.lines = [self.line(line) for line in lines]

    @staticmethod
    def line(line):
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014" and is_key_name(parts[1]), "note")
        data = unbase64(parts[2])
        need(len(data) >= 5, "note")
        return parts[1], data[:4], data[4:]

    def signed_by(self, name, public):
        """Whether the key signed the note itself."""
        mine = (name, key_hash(name, 1, public))
        return any(
            (of, hash_) == mine and len(signature) == 64 and ed25519.verify(public, self.text.encode(), signature)
            for of, hash_, signature in self.lines
        )

    def cosigned_at(self, name, public, clock=None):
        """The latest time at which the key cosigned it, or nothing; what is further ahead of the clock is ignored ([LOG-024])."""
        mine, times = (name, key_hash(name, 4, public)), []
        for of, hash_, signature in self.lines:
            if (of, hash_) == mine and len(signature) == 72:
                at = int.from_bytes(signature[:8], "big")
                message = b"cosignature/v1\ntime %d\n" % at + self.text.encode()
                ahead = clock is not None and at > clock + AHEAD
                if at <= LATEST and not ahead and ed25519.verify(public, message, signature[8:]):
                    times.append(at)
        return max(times, default=None)


def number(text, longest=MAX_SIZE):
    need(re.fullmatch("0|[1-9][0-9]{0,19}", text) and int(text) <= longest, "number")
    return int(text)


def hash_of(text):
    data = unbase64(text)
    need(len(data) == 32, "hash")
    return data


class Checkpoint:
    def __init__(self, text):
        need(text.endswith("\n"), "checkpoint")
        lines = text[:-1].split("\n")
        need(len(lines) >= 3 and all(lines) and len(lines) <= 19, "checkpoint")
        self.origin, self.size, self.root = lines[0], number(lines[1]), hash_of(lines[2])
        need(self.size or self.root == EMPTY, "checkpoint")


def believed(nation, keys, data):
    """The checkpoint of the nation's log, and its note."""
    note = Note(data)
    checkpoint = Checkpoint(note.text)
    need(checkpoint.origin == f"steelyard/{nation}", "origin")
    need(any(note.signed_by(checkpoint.origin, public) for public in of_note(keys, checkpoint.origin)), "unsigned")
    return checkpoint, note


def of_note(keys, name):
    read = [Key(text) for text in keys]
    return [one.public for one in read if one.kind == 1 and one.name == name]


def witnesses(note, nation, by_nation, clock=None):
    """Each nation that cosigned, but the log's own, with the time; `by_nation` are the public keys of each."""
    found = {}
    for witness, publics in by_nation.items():
        times = [note.cosigned_at(f"steelyard/{witness}/witness", public, clock) for public in publics]
        times = [at for at in times if at is not None]
        if witness != nation and times:
            found[witness] = max(times)
    return found


def witnessed_since(times, asked):
    """When the last of as many as are asked for, at least one, had cosigned; nothing while fewer have ([LOG-025])."""
    newest = sorted(times, reverse=True)
    return newest[max(asked, 1) - 1] if len(newest) >= max(asked, 1) else None


# ------------------------------------------------------------------------------------------------------------- tiles


def tile_path(path):
    need(len(path) <= 64 and path.startswith("tile/"), "path")
    level, _, rest = path[5:].partition("/")
    need(level == "entries" or re.fullmatch("[0-7]", level), "path")
    width = 256
    if ".p/" in rest:
        rest, _, text = rest.partition(".p/")
        need(re.fullmatch("[1-9][0-9]{0,2}", text) and int(text) <= 255, "path")
        width = int(text)
    need(re.fullmatch("(x[0-9]{3}/)*[0-9]{3}", rest), "path")
    groups = rest.replace("x", "").split("/")
    need(len(groups) == 1 or groups[0] != "000", "path")
    index = int("".join(groups))
    need(index < 2**55, "path")
    return (None if level == "entries" else int(level)), index, width


def tile(entries, path):
    level, index, width = tile_path(path)
    span = 256 ** (level or 0)
    need((index * 256 + width) * span <= len(entries), "missing")
    if level is None:
        found = entries[index * 256 : index * 256 + width]
        return b"".join(len(entry).to_bytes(2, "big") + entry for entry in found)
    numbers = range(index * 256, index * 256 + width)
    leaves = [leaf(entry) for entry in entries]
    return b"".join(root_of(leaves[one * span : (one + 1) * span]) for one in numbers)


# ------------------------------------------------------------------------------------- witnesses, proofs, evidence


def lines_and_note(data, longest):
    need(len(data) <= longest, "too-long")
    head, separator, note = data.partition(b"\n\n")
    need(separator, "form")
    try:
        return head.decode("ascii").split("\n"), note
    except UnicodeDecodeError:
        raise Refused("form") from None


def request(data):
    """Old size, hashes, the note and its checkpoint."""
    lines, note = lines_and_note(data, 35712)
    need(lines[0].startswith("old ") and len(lines) <= 64, "form")
    old = number(lines[0][4:], 2**64 - 1)
    hashes = [hash_of(line) for line in lines[1:]]
    checkpoint = Checkpoint(Note(note).text)
    return old, hashes, note, checkpoint


def nation_of(origin):
    nation = origin.removeprefix("steelyard/")
    return nation if origin == f"steelyard/{nation}" and is_name("nation", nation) else None


def witness_request(given):
    try:
        old, hashes, _, checkpoint = request(given)
    except Refused:
        raise Refused("400") from None
    need(nation_of(checkpoint.origin) is not None, "404")
    return {"old": str(old), "proof": [one.hex() for one in hashes], "nation": nation_of(checkpoint.origin)}


def witness(nation, keys, before, data):
    """What a witness that knows this log alone answers."""
    try:
        old, hashes, note, checkpoint = request(data)
    except Refused:
        raise Refused("400") from None
    need(old <= checkpoint.size, "400")
    need(nation_of(checkpoint.origin) == nation, "404")
    try:
        believed(nation, keys, note)
    except Refused:
        raise Refused("403") from None
    size, root = (int(before["size"]), bytes.fromhex(before["root"])) if before else (0, EMPTY)
    need(old == size, f"409 {size}")
    need(checkpoint.size != size or checkpoint.root == root, f"409 {size}")
    try:
        consistency(old, checkpoint.size, hashes, root, checkpoint.root)
    except Refused:
        raise Refused("422") from None
    return {"size": str(checkpoint.size), "root": checkpoint.root.hex()}


def proof_form(data):
    """Index, hashes and note of a portable proof."""
    lines, note = lines_and_note(data, 35776)
    need(lines[0] == "c2sp.org/tlog-proof@v1" and 2 <= len(lines) <= 66 and lines[1].startswith("index "), "form")
    return number(lines[1][6:]), [hash_of(line) for line in lines[2:]], note


def proof(given, data):
    index, hashes, note = proof_form(data)
    checkpoint, note = believed(given["nation"], given["keys"], note)
    inclusion(entry_of(given["statement"]), index, checkpoint.size, hashes, checkpoint.root)
    known = {nation: [one.public for one in map(Key, keys) if one.kind == 4] for nation, keys in given["witnesses"].items()}
    found = witnesses(note, given["nation"], known, given.get("now"))
    return {"index": str(index), "size": str(checkpoint.size), "witnesses": found}


def evidence(keys, data):
    need(len(data) <= 163840, "too-long")
    value = read_json(data)
    need(isinstance(value, dict) and set(value) <= {"version", "nation", "smaller", "larger", "prefix", "proof"}, "form")
    need(value.get("version") == 1 and value["version"] is not True, "form")
    nation, smaller, larger = value.get("nation"), value.get("smaller"), value.get("larger")
    need(is_name("nation", nation) and isinstance(smaller, str) and isinstance(larger, str), "form")
    one, _ = believed(nation, keys, smaller.encode())
    two, _ = believed(nation, keys, larger.encode())
    prefix, hashes = value.get("prefix"), value.get("proof")
    need(hashes is None or (isinstance(hashes, list) and len(hashes) <= 64), "form")
    if one.size == two.size:
        need(prefix is None and hashes is None, "form")
        other = two.root
    else:
        need(one.size < two.size and prefix is not None and hashes is not None, "form")
        other = hash_of(prefix)
        consistency(one.size, two.size, [hash_of(text) for text in hashes], other, two.root)
    need(other != one.root, "same")
    return {"nation": nation, "size": str(one.size), "one": one.root.hex(), "other": other.hex()}
