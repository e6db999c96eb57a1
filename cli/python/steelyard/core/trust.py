"""Document 02: who is believed. Roots and their rotation, the log's order, memberships, certificates."""

from blake3 import blake3

from .basic import Refused, need
from .envelope import Signed
from .statement import Statement

AHEAD = 600
STEPS = {
    None: ("invited", "suspended", "departed"),
    "invited": ("active", "departed"),
    "active": ("suspended", "departed"),
    "suspended": ("active", "departed"),
    "departed": ("invited",),
}
ROLE_OF = {"root": "root", "node": "node", "release": "release", "channel": "release", "recall": "recall", "attestation": "attest"}


def role_of(statement):
    if statement.kind == "membership":
        return "root" if statement.predicate["standing"] in ("invited", "active") else "recall"
    return ROLE_OF[statement.kind]


class Member:
    def __init__(self, root):
        self.roots, self.standing, self.said = [root], None, None

    @property
    def newest(self):
        return self.roots[-1]


class Trust:
    def __init__(self, own):
        self.own, self.members = own, {}

    def pin(self, signed, fingerprint, now):
        root = Statement(signed.payload)
        need(root.kind == "root", "not-a-root")
        need(signed.digest == fingerprint, "fingerprint")
        need(root.predicate["version"] == 1, "not-the-first")
        signed.verify(*root.roles["root"])
        need(root.expires > now, "root-expired")
        need(root.issued <= now + AHEAD, "from-the-future")
        known = self.members.get(root.nation)
        need(known is None or known.roots[0].digest == root.digest, "other-root")
        if known is None:
            self.members[root.nation] = Member(root)
        return root

    def member(self, nation):
        need(nation in self.members, "not-pinned")
        return self.members[nation]

    def next_root(self, member, signed, root, now):
        """Whether it is new; refused when it is not the next one of the chain."""
        if any(known.digest == root.digest for known in member.roots):
            return False
        version = root.predicate["version"]
        before = next((known for known in member.roots if known.predicate["version"] == version - 1), None)
        need(before is not None, "root-skipped")
        need(root.predicate["previous"] == before.digest, "root-previous")
        signed.verify(*before.roles["root"])
        signed.verify(*root.roles["root"])
        need(before is member.newest, "root-conflict")
        need(len(member.roots) < 128, "too-many-roots")
        need(root.issued <= now + AHEAD, "from-the-future")
        return True

    def rotate(self, signed, now):
        root = Statement(signed.payload)
        need(root.kind == "root", "not-a-root")
        member = self.member(root.nation)
        new = self.next_root(member, signed, root, now)
        if new:
            member.roots.append(root)
        return new

    def by_roots(self, member, signed, statement, log):
        """The threshold check against the newest root, else by the order of the log."""
        role = role_of(statement)
        newest = member.newest.roles[role]
        try:
            signed.verify(*newest)
            return
        except Refused as refused:
            first = refused
        for at in range(len(member.roots) - 2, -1, -1):
            if signed.satisfies(*member.roots[at].roles[role]):
                taken = log.get(member.roots[at + 1].digest)
                mine = log.get(statement.digest)
                need(taken is not None and mine is not None, "unordered")
                need(mine < taken, "superseded")
                return
        raise first

    def verify(self, signed, now, log=None, kept=False, admitted=False):
        """Believes a statement, newly or (kept) once more."""
        log = log or {}
        statement = Statement(signed.payload)
        member = self.member(statement.nation)
        need(member.standing != "invited", "not-active")
        if not kept:
            need(statement.issued <= now + AHEAD, "from-the-future")
        if statement.kind == "root":
            self.next_root(member, signed, statement, now)
            return statement
        lets_in = statement.kind == "recall" or member.standing in (None, "active")
        expires = statement.kind != "recall"
        if kept and member.standing in ("suspended", "departed"):
            lets_in, expires = True, False
        need(lets_in, "not-active")
        if expires:
            need(member.newest.expires > now, "root-expired")
        if statement.kind == "node":
            signed.verify(*member.newest.roles["node"])
            return statement
        try:
            self.by_roots(member, signed, statement, log)
        except Refused as refused:
            if not (kept and admitted and str(refused) == "unordered"):
                raise
        if statement.kind == "membership":
            need(statement.nation == self.own, "foreign")
        return statement

    def certificate(self, signed, peer, now):
        statement = Statement(signed.payload)
        need(statement.kind == "node", "not-a-certificate")
        statement = self.verify(signed, now)
        need(statement.predicate["peerId"] == peer, "other-peer")
        need(statement.expires > now, "certificate-expired")
        return statement

    def say(self, statement):
        """Takes a membership statement of our own nation."""
        said = statement.predicate
        member = self.member(said["member"])
        before, standing = member.said, said["standing"]
        if before is not None:
            if statement.digest == before[1]:
                return
            need(said["sequence"] >= before[0], "downgrade")
            need(said["sequence"] != before[0], "membership-conflict")
        if said["fingerprint"] != member.roots[0].digest:
            need(standing in ("suspended", "departed"), "fingerprint")
        if said["sequence"] == (before[0] if before else 0) + 1:
            need(standing in STEPS[member.standing], "step")
        member.said, member.standing = (said["sequence"], statement.digest), standing


def trusting(given_bytes, request, now):
    """The trust of borea with the vector's roots, later roots and memberships."""
    trust = Trust("borea")
    firsts = ([request["root"]] if "root" in request else []) + request.get("roots", [])
    for first in firsts:
        signed = Signed(given_bytes(first))
        root = Statement(signed.payload)
        trust.pin(signed, signed.digest, root.issued)
    for later in request.get("later", []):
        trust.rotate(Signed(given_bytes(later)), now)
    for said in request.get("memberships", []):
        trust.say(trust.verify(Signed(given_bytes(said)), now))
    return trust


def spoken(fingerprint):
    """Eight groups of five digits ([NRT-018])."""
    context = "steelyard 2026-11-25 fingerprint read aloud v1"
    derived = blake3(bytes.fromhex(fingerprint[3:]), derive_key_context=context).digest(length=40)
    groups = [int.from_bytes(derived[at : at + 5], "big") % 100_000 for at in range(0, 40, 5)]
    return " ".join(f"{group:05}" for group in groups)
