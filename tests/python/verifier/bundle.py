"""Document 10: a bundle is read as a node reads it that has pinned these roots."""

import re

from steelyard.core import log, statement
from .basic import Refused, digest_of, given, is_digest, is_int, is_name, need, read_json, time_text, timestamp
from .chunks import Map
from steelyard.core.envelope import Signed
from .node import Node
from .policy import Facts, refused_by
from steelyard.core.statement import Statement, binds, may_have
from .weights import kind_of, safety

BLOCK = 512
AHEAD = 600
MAX_HEADER, MAX_STATEMENTS, MAX_STATEMENT_BYTES = 65_536, 32_768, 64 * 1024 * 1024
MAX_PROOF = 35_776
NAMES = re.compile(r"(?:(statements)/([0-9a-f]{64})\.json|(proofs|maps|blobs)/([0-9a-f]{64}))")


# -------------------------------------------------------------------------------------------------------------- the tar


def octal(field):
    text = field.rstrip(b"\0 ").lstrip(b" ")
    need(re.fullmatch(b"[0-7]*", text), "number")
    return int(text or b"0", 8)


def entries(data):
    """Name and content of each entry; plain files alone."""
    at, seen = 0, set()
    while at < len(data):
        head = data[at : at + BLOCK]
        need(len(head) == BLOCK, "truncated")
        if not any(head):
            return
        blank = head[:148] + b" " * 8 + head[156:]
        need(octal(head[148:156]) == sum(blank), "checksum")
        need(head[156:157] in (b"0", b"\0"), "not-plain")
        need(not head[345:500].rstrip(b"\0") or head[257:262] != b"ustar", "name")
        try:
            name = head[:100].rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("name") from None
        need(name not in seen, "twice")
        seen.add(name)
        size = octal(head[124:136])
        content = data[at + BLOCK : at + BLOCK + size]
        need(len(content) == size, "truncated")
        yield name, content
        at += BLOCK + -(-size // BLOCK) * BLOCK


def header(content, own):
    need(len(content) <= MAX_HEADER, "header")
    value = read_json(content)
    need(isinstance(value, dict) and value.get("format") == "steelyard-bundle", "header")
    version = value.get("version")
    need(is_int(version) and version in (1, 2), "version")
    need(is_digest(value.get("release")), "header")
    need(isinstance(value.get("part", False), bool), "header")
    if version == 2:
        need(is_name("nation", value.get("for")) and is_name("nation", value.get("by")), "header")
        value["made"] = timestamp(value.get("made"))
        need(value["for"] == own, "for-another")
    else:
        value["made"] = None
    return value


# ----------------------------------------------------------------------------------------------------------- the reader


class Reader(Node):
    """A node that reads bundles: what it kept of one is there when the next comes."""

    def __init__(self, request):
        super().__init__([request["ownRoot"]] + request["roots"], timestamp(request["now"]))
        self.max_age, self.asked, self.policy_asks = request.get("maxAge"), request.get("witnesses", 0), request.get("policyWitnesses", 0)
        self.policy, self.proved = request.get("policy"), {}
        self.maps, self.blobs, self.channels = {}, {}, {}

    @property
    def recalls(self):
        return [one for one in self.kept if one.kind == "recall"]

    def take(self, data):
        """What one bundle brings; where it is refused, recalls and roots of it alone are kept."""
        found = Found()
        try:
            self.read(data, found)
            self.decide(found)
            for signed in found.others:
                self.keep(signed, found)
            if found.witnesses is not None:
                self.proved[found.release.digest] = set(found.witnesses)
            self.maps.update(found.maps)
            self.blobs.update(found.blobs)
        finally:
            for signed in found.recalls:
                self.keep(signed, found)
        return found

    def read(self, data, found):
        total = 0
        for at, (name, content) in enumerate(entries(data)):
            if at == 0:
                need(name == "steelyard-bundle.json", "header")
                found.header = header(content, self.own)
                continue
            fits = NAMES.fullmatch(name)
            need(fits, "name")
            kind, hex_ = fits[1] or fits[3], fits[2] or fits[4]
            if kind in ("statements", "proofs"):
                need(not found.maps and not found.blobs, "order")
            if kind == "statements":
                total += len(content)
                need(len(found.statements) < MAX_STATEMENTS and total <= MAX_STATEMENT_BYTES, "limit")
                self.statement(Signed(content), hex_, found)
            elif kind == "proofs":
                need("b3:" + hex_ in found.statements, "order")
                need(0 < len(content) <= MAX_PROOF, "limit")
                log.proof_form(content)
                found.proofs["b3:" + hex_] = content
            else:
                self.content(kind, hex_, content, found)
        need(found.header is not None, "empty")

    def statement(self, signed, hex_, found):
        need(signed.digest == "b3:" + hex_, "digest")
        found.statements[signed.digest] = signed
        kind = Statement(signed.payload).kind
        if kind == "root":
            # At once: what follows is judged by the newest root.
            self.keep(signed, found)
        else:
            (found.recalls if kind == "recall" else found.others).append(signed)

    def keep(self, signed, found):
        """Keeps what is believed; the rest is passed over. A channel never goes back."""
        it = None
        try:
            it = self.trust.verify(signed, self.now)
            if it.kind == "channel":
                self.move(it)
            if self.learn(signed) and it.kind == "recall":
                found.kept_recalls += 1
        except Refused:
            found.skipped += 1
        return it

    def move(self, it):
        name, new = (it.predicate["model"], it.predicate["channel"]), (it.predicate["sequence"], it.predicate["release"])
        old = self.channels.get(name, (0, None))
        need(new[0] > old[0] or new == old, "downgrade")
        self.channels[name] = new

    # The release: believed and allowed before a byte of its content is looked at.

    def releases(self, found):
        if found.release is None:
            digest = found.header["release"]
            need(digest in found.statements, "lacks")
            it = self.trust.verify(found.statements[digest], self.now)
            need(it.kind == "release", "not-a-release")
            found.release, found.named = it, {}
            for file, (_, blake, _) in zip(it.predicate["files"], it.subjects):
                found.named.setdefault(blake, []).append(file)
            self.prove(found)
            self.allow(found, {})
        return found.release

    def allow(self, found, heads):
        it, known = found.release, self.ancestors(found.release)
        need(may_have(it, self.own), "refused")
        new = [Statement(signed.payload) for signed in found.recalls if self.believes(signed)]
        need(not any(binds(one, self.own, it.nation, it.digest, known) for one in self.recalls + new), "refused")
        need(all(safety(kind_of(path, head)) != "may-run-code" for path, head in heads.items()), "refused")
        # The rule `logged`, by what this bundle and those before it proved.
        witnessed = set(found.witnesses or ()) | self.proved.get(it.digest, set())
        need(it.nation == self.own or len(witnessed) >= self.policy_asks, "refused")
        if self.policy is not None:
            new = [Statement(signed.payload) for signed in found.others if self.believes(signed)]
            need(not refused_by("admit", self.facts(it, new), self.policy), "refused")

    def facts(self, it, new):
        """What a rule of one's own may ask about here: who vouches for the release."""
        said = statement.in_force([one for one in self.kept + new if one.kind == "attestation" and one.predicate["release"] == it.digest], self.now)
        told = [{"nation": one.nation, "suite": one.predicate["suite"]["name"], "verdict": one.predicate["verdict"]} for one in said]
        ends = time_text(self.trust.members[it.nation].newest.expires)
        return Facts({
            "own": self.own, "nation": self.own, "now": time_text(self.now), "model": it.predicate["model"], "rootExpires": ends,
            "release": it.digest, "attestations": told,
        })

    def believes(self, signed):
        try:
            self.trust.verify(signed, self.now)
            return True
        except Refused:
            return False

    def prove(self, found):
        """The proofs of the producer's statements, and the age."""
        producer, witnesses = found.release.nation, None
        known = {nation: witness_keys(member.newest) for nation, member in self.trust.members.items()}
        for digest, content in found.proofs.items():
            if Statement(found.statements[digest].payload).nation != producer:
                continue
            name = f"steelyard/{producer}"
            keys = [log.verifier(name, 1, one) for one in self.trust.members[producer].newest.roles["log"][0].values()]
            shown = log.proof({"nation": producer, "keys": keys, "statement": digest, "witnesses": known, "now": self.now}, content)
            if digest == found.release.digest:
                found.size, witnesses = int(shown["size"]), shown["witnesses"]
        found.witnesses = None if witnesses is None else sorted(witnesses)
        need(len(witnesses or {}) >= self.asked, "stale")
        if self.max_age is not None:
            made = found.header["made"]
            need(made is not None and made <= self.now + AHEAD, "stale")
            since = log.witnessed_since((witnesses or {}).values(), max(self.asked, self.policy_asks))
            need(self.now - min(made, made if since is None else since) <= self.max_age, "stale")

    # Maps and blobs.

    def content(self, kind, hex_, content, found):
        it = self.releases(found)
        need(digest_of(content) == "b3:" + hex_, "digest")
        if kind == "maps":
            files = [(file, blake) for file, (_, blake, _) in zip(it.predicate["files"], it.subjects) if file["chunkMap"] == "b3:" + hex_]
            need(files, "not-named")
            read = Map(content)
            need(all(read.blob.hex() == blake and read.size == file["size"] for file, blake in files), "map")
            found.maps[hex_] = content
        else:
            need(hex_ in found.named, "not-named")
            need(all(file["size"] == len(content) for file in found.named[hex_]), "length")
            found.blobs[hex_] = content

    def decide(self, found):
        it, part = self.releases(found), found.header.get("part", False)
        blobs, maps = {**self.blobs, **found.blobs}, {**self.maps, **found.maps}
        heads = {}
        for file, (_, blake, _) in zip(it.predicate["files"], it.subjects):
            need(file["chunkMap"][3:] in maps, "lacks")
            if blake in blobs:
                heads[file["path"]] = blobs[blake]
            else:
                need(part, "lacks")
                found.missing.append(file["path"])
        self.allow(found, heads)


class Found:
    """What was read of one bundle."""

    def __init__(self):
        self.header = self.release = self.size = self.witnesses = None
        self.statements, self.proofs, self.maps, self.blobs = {}, {}, {}, {}
        self.recalls, self.others, self.missing = [], [], []
        self.kept_recalls = self.skipped = 0


def witness_keys(root):
    name = f"steelyard/{root.nation}/witness"
    members = root.roles["witness"][0].values() if "witness" in root.roles else []
    return [log.verifier(name, 4, one) for one in members]


def shown(reader, found):
    return {
        "release": found.release.digest, "missing": sorted(found.missing), "newBytes": sum(map(len, found.blobs.values())),
        "recalls": found.kept_recalls, "skipped": found.skipped, "stable": reader.channels.get(("alba/smollm2", "stable"), (0, None))[1],
        "size": found.size, "witnesses": found.witnesses,
    }


def bundle(request):
    reader, refused, answer = Reader(request), None, {}
    if "before" in request:
        try:
            reader.take(given(request["before"]))
        except Refused:
            pass
    try:
        answer = shown(reader, reader.take(given(request["bundle"])))
    except Refused as error:
        refused = error
    kept = len(reader.recalls)
    if kept != request.get("recallsAfter", kept):
        # Whatever came of the bundle, this is wrong: neither the refusal nor the answer that is expected.
        return {"recalls": f"{kept} are kept"}
    if refused is not None:
        raise refused
    return answer


KINDS = {"bundle": bundle}
