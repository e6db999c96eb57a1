"""Document 09: what the shipped rules decide, said in Python, and what other policies do, which are read as Cedar."""

from . import cedar
from .basic import timestamp

TAKES = ("admit", "mirror")
SERVES = ("admit", "mirror", "serve")
GIVES = ("admit", "mirror", "release")


class Facts:
    """The evidence of a case: what differs from a release of alba's for everybody that nothing speaks against."""

    def __init__(self, evidence):
        self.own, self.nation, self.now = evidence["own"], evidence["nation"], timestamp(evidence["now"])
        self.producer = evidence["model"].split("/")[0]
        self.standing = evidence.get("standing", "active")
        self.root_ends = timestamp(evidence["rootExpires"])
        self.admitted = evidence.get("admitted", False)
        self.to = evidence.get("releasableTo", "all")
        self.signed, self.threshold = len(set(evidence.get("signedBy", ["one"]))), evidence.get("threshold", 1)
        self.recalled = any(recall["binds"] for recall in evidence.get("recalls", []))
        self.unsafe, self.logged = evidence.get("unsafeFiles", []), evidence.get("logged")
        self.asked_witnesses = evidence.get("witnessesRequired", 0)
        self.asker = evidence.get("nationStanding", "active")
        self.bases = evidence.get("bases", [])
        self.evidence, self.digest, self.attestations = evidence, evidence.get("release", "b3:" + "0" * 64), evidence.get("attestations", [])
        self.recalls, self.lease_age = evidence.get("recalls", []), evidence.get("leaseAge")

    def lets_have(self, producer, to):
        return self.nation == producer or to == "all" or self.nation in to

    @property
    def witnesses(self):
        return len(set(self.logged["witnesses"]) - {self.producer}) if self.logged else 0

    @property
    def restricted_bases(self):
        mine = (None, self.nation, self.producer)
        return [one for one in self.bases if one.get("producer") not in mine and not self.lets_have(one["producer"], one["releasableTo"])]


def always(action, facts):
    """What is refused by whatever policy."""
    if not facts.lets_have(facts.producer, facts.to):
        yield "releasable-to-us"
    if facts.recalled:
        yield "not-recalled"
    if action in SERVES and facts.signed < facts.threshold:
        yield "signatures"


def shipped(action, facts):
    yield from always(action, facts)
    ally = facts.standing == "active" and facts.root_ends > facts.now
    if action in TAKES and not ally and not (facts.admitted and facts.standing in ("suspended", "departed")):
        yield "active-nation"
    if action == "release" and facts.asker in ("invited", "suspended", "departed"):
        yield "active-ally"
    if action in GIVES and facts.restricted_bases:
        yield "bases-releasable"
    logged = facts.logged is not None and facts.witnesses >= facts.asked_witnesses
    if action in SERVES and facts.asked_witnesses > 0 and facts.producer != facts.own and not logged:
        yield "logged"
    if action in SERVES and facts.unsafe:
        yield "safe-formats"


def refused_by(action, facts, policy=None, alone=False):
    if policy is None:
        return set(shipped(action, facts))
    return cedar.refused_by(action, facts, policy, alone) | set(always(action, facts))


def decision(request):
    refused = sorted(refused_by(request["action"], Facts(request["evidence"]), request.get("policy"), request.get("alone", False)))
    return {"allowed": not refused, "refusedBy": refused}


KINDS = {"decision": decision, **cedar.KINDS}
