"""Documents 02 to 04: statements and every rule that needs no keys."""

import unicodedata

from . import ed25519
from .basic import blake3, digest_of, is_digest, is_hex, is_int, is_model, is_name, need, read_json, timestamp

ROLES = ("root", "release", "attest", "recall", "log", "node")
RELATIONS = ("fine-tune", "quantisation", "merge", "adapter", "distillation")
ATTACHMENTS = {
    "application/vnd.dev.sigstore.bundle.v0.3+json": "oms", "application/vnd.in-toto.provenance+json": "slsa",
    "application/vnd.cyclonedx+json": "mlbom", "application/vnd.steelyard.import+json": "import",
}
FIELDS = {
    "root": "nation version previous issued expires keys roles",
    "node": "nation peerId capabilities issued expires",
    "release": "model version format licence derivedFrom releasableTo modelCard issued files",
    "channel": "model channel sequence release reason issued",
    "recall": "nation target reason severity sequence issued",
    "attestation": "nation release suite results verdict summary issued validUntil",
    "membership": "nation member fingerprint standing sequence reason issued",
}


class Statement:
    """A payload that was understood: kind, nation, and the predicate's fields."""

    def __init__(self, payload):
        value = read_json(payload)
        need(isinstance(value, dict), "malformed")
        need(isinstance(value.get("_type"), str) and isinstance(value.get("predicateType"), str), "malformed")
        need(value["_type"] == "https://in-toto.io/Statement/v1", "type")
        kind = value["predicateType"].removeprefix("urn:steelyard:").removesuffix(":v1")
        need(kind in FIELDS and value["predicateType"] == f"urn:steelyard:{kind}:v1", "predicate")
        predicate, subjects = value.get("predicate"), value.get("subject")
        need(isinstance(predicate, dict) and isinstance(subjects, list), "malformed")
        self.kind, self.predicate, self.digest = kind, predicate, digest_of(payload)
        self.subjects = [subject(one) for one in subjects]
        critical = predicate.get("critical", [])
        need(isinstance(critical, list) and all(isinstance(name, str) for name in critical), "malformed")
        need(len(critical) <= 64, "critical")
        known = FIELDS[kind].split() + ["critical"]
        need(all(name in known for name in critical), "critical")
        self.issued = timestamp(self.field("issued", str))
        CHECKS[kind](self)

    def field(self, name, kind):
        value = self.predicate.get(name)
        need(isinstance(value, kind) and (kind is not int or is_int(value)), "malformed")
        if kind is int:
            need(0 <= value < 2**64, "malformed")
        return value

    def text(self, name):
        need(is_free(self.field(name, str)), "field")
        return self.predicate[name]

    @property
    def nation(self):
        return self.predicate["model"].split("/")[0] if "model" in self.predicate and self.kind in ("release", "channel") else self.predicate["nation"]

    def about(self, name, digest):
        need(len(self.subjects) == 1 and self.subjects[0][:2] == (name, digest), "subject")


def subject(value):
    need(isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("digest"), dict), "malformed")
    blake, sha = value["digest"].get("blake3"), value["digest"].get("sha256")
    need(is_hex(blake) and (sha is None or is_hex(sha)), "malformed")
    return value["name"], blake, sha


def is_free(text):
    return len(text.encode()) <= 4096 and all(unicodedata.category(c) != "Cc" or c in "\n\t" for c in text)


def of_name(text):
    return blake3(text.encode()).hexdigest()


def root(it):
    nation = it.field("nation", str)
    need(is_name("nation", nation), "name")
    it.about(nation, of_name(nation))
    version, previous = it.field("version", int), it.predicate.get("previous")
    need(version >= 1, "field")
    need(previous is None or is_digest(previous), "malformed")
    need((version == 1) == (previous is None), "field")
    it.expires = timestamp(it.field("expires", str))
    need(it.expires > it.issued, "field")
    keys, roles = it.field("keys", dict), it.field("roles", dict)
    need(len(keys) <= 128, "field")
    it.keys = {}
    for identifier, entry in keys.items():
        need(is_hex(identifier) and isinstance(entry, dict) and entry.get("algorithm") == "ed25519", "field")
        it.keys[identifier] = ed25519.read_key(entry.get("public"))
        need(ed25519.key_id(it.keys[identifier]) == identifier, "field")
    need(all(name in roles for name in ROLES) and all(name in ROLES + ("witness",) for name in roles), "field")
    it.roles = {}
    for name, role in roles.items():
        need(isinstance(role, dict), "malformed")
        members, threshold = role.get("keys"), role.get("threshold")
        need(isinstance(members, list) and is_int(threshold), "malformed")
        need(all(isinstance(member, str) and member in it.keys for member in members), "field")
        need(len(members) <= 32 and len(set(members)) == len(members), "field")
        need(1 <= threshold <= len(members), "field")
        it.roles[name] = ({member: it.keys[member] for member in members}, threshold)


def node(it):
    need(is_name("nation", it.field("nation", str)), "name")
    peer, capabilities = it.field("peerId", str), it.field("capabilities", list)
    need(1 <= len(peer) <= 128 and peer.isascii() and peer.isalnum(), "field")
    need(len(capabilities) <= 16 and all(isinstance(one, str) for one in capabilities), "field")
    it.expires = timestamp(it.field("expires", str))
    need(it.expires > it.issued, "field")
    it.about(peer, of_name(peer))


def is_label(text):
    return isinstance(text, str) and 1 <= len(text) <= 128 and all("!" <= c <= "~" for c in text)


def release(it):
    need(is_model(it.field("model", str)) and is_name("version", it.field("version", str)), "name")
    need(is_label(it.field("format", str)), "field")
    it.text("licence")
    bases = it.predicate.get("derivedFrom", [])
    need(isinstance(bases, list) and len(bases) <= 64, "field")
    for base in bases:
        need(isinstance(base, dict) and is_digest(base.get("release")) and base.get("relation") in RELATIONS, "malformed")
    allowed = it.predicate.get("releasableTo")
    if allowed != "all":
        need(isinstance(allowed, list) and len(allowed) <= 256, "malformed")
        need(all(is_name("nation", nation) for nation in allowed) and len(set(allowed)) == len(allowed), "malformed")
    files = it.field("files", list)
    need(1 <= len(files) <= 16384, "field")
    need(len(it.subjects) == len(files), "subject")
    attached = 0
    for file, (name, _, sha) in zip(files, it.subjects):
        need(isinstance(file, dict) and isinstance(file.get("path"), str) and is_int(file.get("size")), "malformed")
        need(0 <= file["size"] <= 4_398_046_511_104, "field")
        need(is_label(file.get("mediaType")) and is_digest(file.get("chunkMap")), "field")
        need(name == file["path"] and sha is not None, "subject")
        attached += file["mediaType"] in ATTACHMENTS
    need(attached <= 16, "field")
    check_paths([file["path"] for file in files])
    card = it.predicate.get("modelCard")
    need(card is None or any(file["path"] == card for file in files), "field")


def may_have(it, nation):
    allowed = it.predicate["releasableTo"]
    return nation == it.nation or allowed == "all" or nation in allowed


def check_path(path):
    need(1 <= len(path.encode()) <= 512, "unfit")
    need(not any(unicodedata.category(c) == "Cc" or c in '\\:*?"<>|' for c in path), "unfit")
    components = path.split("/")
    need(len(components) <= 16, "unfit")
    for one in components:
        need(one not in ("", ".", "..") and len(one.encode()) <= 255, "unfit")
        need(one[0] != " " and one[-1] not in " .", "unfit")


def check_paths(paths):
    seen = set()
    for path in paths:
        check_path(path)
        need(path.lower() not in seen, "collision")
        seen.add(path.lower())
    for path in seen:
        at = path.find("/")
        while at >= 0:
            need(path[:at] not in seen, "collision")
            at = path.find("/", at + 1)


def channel(it):
    need(is_model(it.field("model", str)) and is_name("channel", it.field("channel", str)), "name")
    need(it.field("sequence", int) >= 1, "field")
    target = it.field("release", str)
    need(is_digest(target), "malformed")
    it.text("reason")
    it.about(target, target[3:])


def recall(it):
    need(is_name("nation", it.field("nation", str)), "name")
    need(it.field("sequence", int) >= 1, "field")
    need(it.text("reason").strip() != "", "field")
    need(it.predicate.get("severity") in ("low", "medium", "high", "critical"), "malformed")
    target = it.field("target", dict)
    need(len(target) == 1 and set(target) <= {"release", "lineage"}, "malformed")
    (it.scope, it.target), = target.items()
    need(is_digest(it.target), "malformed")
    it.about(it.target, it.target[3:])


def membership(it):
    need(is_name("nation", it.field("nation", str)) and is_name("nation", it.field("member", str)), "name")
    need(it.predicate["member"] != it.predicate["nation"], "field")
    need(is_digest(it.field("fingerprint", str)), "malformed")
    need(it.predicate.get("standing") in ("invited", "active", "suspended", "departed"), "malformed")
    need(it.field("sequence", int) >= 1, "field")
    it.text("reason")
    it.about(it.predicate["member"], of_name(it.predicate["member"]))


def is_short(text):
    return (
        isinstance(text, str) and 1 <= len(text.encode()) <= 256 and text.strip() != ""
        and not any(unicodedata.category(c) == "Cc" for c in text)
    )


def attestation(it):
    need(is_name("nation", it.field("nation", str)), "name")
    target, suite, results = it.field("release", str), it.field("suite", dict), it.predicate.get("results", [])
    need(is_digest(target) and isinstance(results, list), "malformed")
    need(isinstance(suite.get("name"), str), "malformed")
    need(is_short(suite["name"]), "field")
    need(suite.get("digest") is None or is_digest(suite["digest"]), "malformed")
    need(len(results) <= 1024, "field")
    for result in results:
        need(isinstance(result, dict) and isinstance(result.get("name"), str) and isinstance(result.get("value"), str), "malformed")
        need(is_short(result["name"]) and is_short(result["value"]), "field")
    need(it.predicate.get("verdict") in ("pass", "inconclusive", "fail"), "malformed")
    it.until = timestamp(it.field("validUntil", str))
    need(it.until > it.issued, "field")
    summary = it.predicate.get("summary", "")
    need(isinstance(summary, str) and is_free(summary), "field")
    it.about(target, target[3:])


CHECKS = {
    "attestation": attestation,
    "root": root, "node": node, "release": release, "channel": channel, "recall": recall, "membership": membership,
}


def binds(it, own, producer, digest, ancestors):
    """Whether a recall binds a node of `own` for a release of `producer` ([RCL-006])."""
    hits = it.target == digest or (it.scope == "lineage" and it.target in ancestors)
    produced = producer if it.target == digest else ancestors.get(it.target)
    return hits and (it.nation == own or it.nation == produced)


def in_force(attestations, now):
    """Of each nation with each suite the last one; of two of one second the more cautious, then the one that ends sooner."""
    latest = {}
    for it in attestations:
        caution = ("pass", "inconclusive", "fail").index(it.predicate["verdict"])
        by, order = (it.nation, it.predicate["suite"]["name"]), (it.issued, caution, -it.until)
        latest[by] = max(latest.get(by, (order, it)), (order, it), key=lambda one: one[0])
    return [it for _, it in latest.values() if it.until > now]


def ancestors_of(release, find):
    """Every release that it derives from, as far as `find` knows them, with its producer."""
    found, todo = {}, [base["release"] for base in release.predicate.get("derivedFrom", [])]
    while todo:
        digest = todo.pop()
        if digest not in found:
            base = find(digest)
            found[digest] = base.nation if base else None
            todo += [one["release"] for one in base.predicate.get("derivedFrom", [])] if base else []
    return found
