"""Documents 06 and 08: what a node keeps of statements and logs, whom it tells of what, and how it appends and witnesses."""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from steelyard.core import log
from . import wire
from .basic import Refused, given, is_digest, need, timestamp
from steelyard.core.envelope import Signed
from steelyard.core.statement import Statement, ancestors_of, binds, may_have
from steelyard.core.trust import Trust

MAX_ENTRIES = 1_048_576


class Node:
    """A node of the first root's nation, with the roots pinned."""

    def __init__(self, roots, now):
        first = Statement(Signed(given(roots[0])).payload)
        self.own, self.now, self.trust = first.nation, now, Trust(first.nation)
        for root in roots:
            signed = Signed(given(root))
            self.trust.pin(signed, signed.digest, Statement(signed.payload).issued)
        self.kept = []

    def known(self, digest):
        return next((one for one in self.kept if one.digest == digest), None)

    def learn(self, signed):
        """Keeps a statement that is believed; whether it is new."""
        it = self.trust.verify(signed, self.now)
        if it.kind == "root":
            self.trust.rotate(signed, self.now)
        elif it.kind == "membership":
            self.trust.say(it)
        if self.known(it.digest) is not None:
            return False
        self.kept.append(it)
        return True

    # ------------------------------------------------------------------------------------------------ who is told

    def release(self, digest):
        it = self.known(digest)
        return it if it is not None and it.kind == "release" else None

    def ancestors(self, release):
        """Every release that it derives from, as far as that is known here, with its producer."""
        return ancestors_of(release, self.release)

    def may_learn(self, it, nation):
        """[SYN-003] and [ATT-014]; a nation that is no active member is told nothing ([MEM-008], [MEM-009])."""
        member = self.trust.members.get(nation)
        if member is not None and member.standing not in (None, "active"):
            return False
        if it.kind in ("recall", "root"):
            return True
        if it.kind == "membership":
            return nation == it.nation
        if it.kind == "release":
            return may_have(it, nation)
        if it.kind in ("channel", "attestation"):
            target = self.release(it.predicate["release"])
            return nation == it.nation or (target is not None and may_have(target, nation))
        return False

    def for_everybody(self, it):
        target = it if it.kind == "release" else self.release(it.predicate.get("release", ""))
        return target is not None and target.predicate["releasableTo"] == "all"


def node_of(request):
    node = Node(request["roots"], timestamp(request["now"]))
    for text in request["statements"]:
        node.learn(Signed(text.encode()))
    return node


def feed(request):
    node, page, at = node_of(request), [], int(request["after"])
    while at < len(node.kept) and len(page) < request["limit"]:
        it, at = node.kept[at], at + 1
        if node.may_learn(it, request["nation"]):
            page.append(it.digest)
    return {"digests": page, "next": at}


def permission(request):
    node = node_of(request)
    release = node.release(request["release"])
    if release is None or not may_have(release, request["nation"]):
        return {"answer": "not-found"}
    ancestors = node.ancestors(release)
    recalls = [one for one in node.kept if one.kind == "recall"]
    if any(binds(recall, node.own, release.nation, release.digest, ancestors) for recall in recalls):
        return {"answer": "recalled"}
    return {"answer": "opened"}


def announcement(request):
    node = node_of(request)
    it = node.known(request["announce"])
    hint = {"nation": it.nation}
    if node.for_everybody(it):
        hint["digest"] = it.digest
    return wire.gossip(wire.one_line({"version": 1, "hint": hint}).encode())


# ---------------------------------------------------------------------------------------------------------------- logs


def keys_of(root, role, kind, name):
    """A role's keys as verifier keys of notes."""
    return [log.verifier(name, kind, one) for one in (root.roles[role][0].values() if role in root.roles else [])]


class Log:
    """What a node has of one log."""

    def __init__(self):
        self.entries, self.lines, self.evidence, self.cosigned = [], set(), None, None
        self.settled, self.must_be = [], None

    def root(self, size):
        return log.root_of([log.leaf(entry) for entry in self.entries[:size]])


class Fork:
    """What evidence shows, whatever is signed beside it ([EVD-006])."""

    def __init__(self, size, one, other):
        self.size, self.roots = size, {one, other}

    def __eq__(self, other):
        return (self.size, self.roots) == (other.size, other.roots)


class Logs(Node):
    def __init__(self, roots, now):
        super().__init__(roots, now)
        self.logs, self.asked, self.longest = {}, False, 0

    def log(self, nation):
        return self.logs.setdefault(nation, Log())

    def log_keys(self, nation, all_roots=False):
        member = self.trust.members.get(nation)
        roots = [] if member is None else member.roots if all_roots else [member.newest]
        return [key for root in roots for key in keys_of(root, "log", 1, f"steelyard/{nation}")]

    def believed(self, nation, data):
        return log.believed(nation, self.log_keys(nation), data)

    def do(self, step):
        nation = step.get("nation", self.own)
        return getattr(self, "do_" + step["do"].replace("-", "_"))(step, nation)

    def do_put(self, step, _):
        return "kept" if self.learn(Signed(given(step["signed"]))) else "known"

    def do_size(self, _, nation):
        return str(len(self.log(nation).entries))

    def do_number(self, step, nation):
        need(is_digest(step["statement"]), "digest")
        entry, entries = log.entry_of(step["statement"]), self.log(nation).entries
        return str(entries.index(entry)) if entry in entries else "none"

    # Our own log.

    def state(self):
        if self.longest:
            return f"behind {self.longest}"
        return "confirmed" if self.asked else "unconfirmed"

    def do_confirm(self, *_):
        self.asked = True
        return self.state()

    def do_heard(self, step, _):
        checkpoint, _ = self.believed(self.own, given(step["bytes"]))
        mine = self.log(self.own)
        # Longer than what is here, or another one: what it signed then is missing.
        if checkpoint.size > len(mine.entries) or mine.root(checkpoint.size) != checkpoint.root:
            self.longest = max(self.longest, checkpoint.size)
        return self.state()

    def do_append(self, step, _):
        mine, secret = self.log(self.own), Ed25519PrivateKey.from_private_bytes(given(step["key"]))
        public = secret.public_key().public_bytes_raw()
        need(mine.evidence is None, "disputed")
        need(public in self.trust.members[self.own].newest.roles["log"][0].values(), "key")
        need(not self.longest, "behind")
        need(self.asked, "unconfirmed")
        waiting = [log.entry_of(it.digest) for it in self.kept if it.nation == self.own]
        waiting = [entry for entry in waiting if entry not in mine.entries]
        if not waiting:
            return "nothing"
        need(len(mine.entries) + len(waiting) <= MAX_ENTRIES, "too-long")
        mine.entries += waiting
        size, name = len(mine.entries), f"steelyard/{self.own}"
        text = f"{name}\n{size}\n{base64.b64encode(mine.root(size)).decode()}\n"
        return text + "\n" + signature_line(name, 1, public, secret.sign(text.encode()))

    # Every log.

    def do_extend(self, step, nation):
        checkpoint, note = self.believed(nation, given(step["bytes"]))
        it, entries = self.log(nation), [bytes.fromhex(one) for one in step["entries"]]
        need(it.evidence is None, "disputed")
        need(checkpoint.size <= MAX_ENTRIES, "too-long")
        have = len(it.entries)
        if checkpoint.size <= have:
            if it.root(checkpoint.size) != checkpoint.root:
                self.accuse(it, Fork(checkpoint.size, it.root(checkpoint.size), checkpoint.root))
                raise Refused(f"fork {checkpoint.size}")
            need(not entries, "entries")
            return "cosigned" if self.witnessed(it, note) else "known"
        grown = it.entries + entries
        need(len(grown) == checkpoint.size, "entries")
        leaves = [log.leaf(entry) for entry in grown]
        need(log.root_of(leaves) == checkpoint.root, "entries")
        if it.must_be is not None and checkpoint.size >= it.must_be[0]:
            # What was given up for the other history is not taken again ([EVD-007]).
            need(log.root_of(leaves[: it.must_be[0]]) == it.must_be[1], "entries")
            it.must_be = None
        it.entries, it.lines = grown, set()
        self.witnessed(it, note)
        if nation == self.own and checkpoint.size >= self.longest:
            # The end is here again, but nobody was asked since whether there is more.
            self.longest, self.asked = 0, False
        return f"grown {checkpoint.size}"

    def witnessed(self, it, note):
        """Takes the cosignatures by known keys; whether one is new."""
        known = {}
        for nation, member in self.trust.members.items():
            roles = member.newest.roles
            known[nation] = list(roles["witness"][0].values()) if "witness" in roles else []
        found = set(log.witnesses(note, None, known).items())
        new = found - it.lines
        it.lines |= found
        return bool(new)

    def do_dispute(self, step, _):
        data = given(step["bytes"])
        nation = log.read_json(data).get("nation")
        try:
            fork = log.evidence(self.log_keys(nation, True), data)
        except Refused:
            return "refused"
        shown = Fork(int(fork["size"]), bytes.fromhex(fork["one"]), bytes.fromhex(fork["other"]))
        return f"{'disputed' if self.accuse(self.log(nation), shown) else 'known'} {shown.size}"

    def accuse(self, it, fork):
        """Whether this fork stops the log, which it did not before."""
        if it.evidence is not None or fork in it.settled:
            return False
        it.evidence = fork
        return True

    def do_settle(self, _, nation):
        it = self.log(nation)
        if it.evidence is None:
            return "nothing"
        it.settled, it.evidence = [*it.settled, it.evidence], None
        return "settled"

    def do_settle_anew(self, step, nation):
        """Gives up what is here of the log, to follow the other history."""
        it, fork = self.log(nation), self.log(nation).evidence
        outcome = self.do_settle(step, nation)
        if fork is not None:
            others = fork.roots - ({it.root(fork.size)} if fork.size <= len(it.entries) else set())
            it.entries, it.lines, it.cosigned = [], set(), None
            if nation == self.own:
                it.must_be, self.longest = (fork.size, others.pop()), max(self.longest, fork.size)
        return outcome

    def do_cosign(self, step, _):
        data, secret = given(step["bytes"]), Ed25519PrivateKey.from_private_bytes(given(step["key"]))
        nation = log.witness_request(data)["nation"]
        need(nation != self.own and nation in self.trust.members, "404")
        it = self.log(nation)
        need(it.evidence is None, "disputed")
        found = log.witness(nation, self.log_keys(nation), it.cosigned, data)
        size = int(found["size"])
        last = it.cosigned["size"] if it.cosigned else 0
        need(size > len(it.entries) or it.root(size).hex() == found["root"], f"409 {last}")
        it.cosigned = found
        text, at = log.request(data)[2].decode().rsplit("\n\n", 1)[0] + "\n", timestamp(step["now"])
        signature = at.to_bytes(8, "big") + secret.sign(b"cosignature/v1\ntime %d\n" % at + text.encode())
        return signature_line(f"steelyard/{self.own}/witness", 4, secret.public_key().public_bytes_raw(), signature)


def signature_line(name, kind, public, signature):
    return f"\u2014 {name} {base64.b64encode(log.key_hash(name, kind, public) + signature).decode()}\n"


def log_node(request):
    node = Logs(request["roots"], timestamp(request["now"]))
    for at, step in enumerate(request["steps"]):
        try:
            outcome = node.do(step)
        except Refused as refused:
            outcome = str(refused)
        need(outcome == step["outcome"], f"step {at} was {outcome}")
    return {}


KINDS = {"feed": feed, "permission": permission, "announcement": announcement, "log-node": log_node}
