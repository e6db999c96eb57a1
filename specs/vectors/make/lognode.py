"""Document 08: what a node does with its own log and those that it follows."""

import json

from common import LOG, NOW, OUTSIDER, RECALL, RELEASE, b64, channel, compact, digest, recall, release, signed, vector
from log import FIVE, THREE, TIME, WITNESS, body, checkpoint, consistency, cosign, entry, forked, leaf, leaves, of, said, tree
from witness import LOGS, ROOTS, request

STATEMENTS = [(compact(release()), RELEASE), (compact(channel()), RELEASE), (compact(recall()), RECALL), (compact(release(version="2.0.0")), RELEASE)]


def logged(payload):
    return b"\1" + bytes.fromhex(digest(payload)[3:])


def node():
    f = "08/node"
    home = {"roots": ROOTS, "now": NOW}

    def run(name, rules, steps, own=0):
        """The first root is this node's own nation's."""
        roots = [ROOTS[own], *(r for r in ROOTS if r != ROOTS[own])]
        vector(f, name, "log-node", rules, {**home, "roots": roots, "steps": steps})

    def step(do, outcome, **more):
        return {"do": do, **more, "outcome": outcome}

    def put(i):
        return step("put", "kept", signed=said(signed(*STATEMENTS[i])))

    def append(size, key=LOG, outcome=None):
        """Appending makes exactly this checkpoint."""
        note = of([leaf(logged(text)) for text, _ in STATEMENTS[:size]])
        return step("append", outcome or note, key=key.seed.hex())

    confirm = step("confirm", "confirmed")
    nothing = "nothing"

    # Our own log.
    run("everything that was kept is appended", "LOG-040 LOG-041", [confirm, put(0), put(1), put(2), append(3), append(0, outcome=nothing)])
    run("later statements follow the earlier", "LOG-040 LOG-041", [put(0), confirm, append(1), put(1), put(2), append(3), put(3), append(4)])
    run("a statement that came again is not appended again", "LOG-040", [confirm, put(0), append(1), step("put", "known", signed=said(signed(*STATEMENTS[0]))), append(0, outcome=nothing)])
    first = STATEMENTS[0][0]
    run("a statement's number is its place", "LOG-045", [confirm, put(0), put(1), append(2), step("number", "0", statement=digest(first)), step("number", "1", statement=digest(STATEMENTS[1][0])), step("number", "none", statement=digest(STATEMENTS[2][0]))])
    run("refused: no ally was asked", "LOG-042", [put(0), append(0, outcome="unconfirmed"), confirm, append(1)])
    run("refused: an ally knows nothing of it yet, and nobody asked the others", "LOG-042", [put(0), step("heard", "unconfirmed", bytes=said(of([]))), append(0, outcome="unconfirmed"), step("size", "0")])
    ours = compact(release(model="cora/m", releasableTo="all"))
    run("refused: another nation's statement is not ours to log", "LOG-040", [confirm, step("put", "kept", signed=said(signed(ours, RELEASE))), append(0, outcome=nothing), step("size", "0")])
    run("refused: a key that is not the log's", "LOG-012 LOG-040", [confirm, put(0), append(0, key=OUTSIDER, outcome="key"), append(0, key=RELEASE, outcome="key"), append(1)])
    earlier = [logged(text) for text, _ in STATEMENTS[:2]]
    lost = of([leaf(e) for e in earlier])
    run("refused: an ally knows a longer log", "LOG-043", [put(0), step("heard", "behind 2", bytes=said(lost)), append(0, outcome="behind"), step("confirm", "behind 2"), append(0, outcome="behind")])
    run("refused: an ally knows another log of this size", "LOG-043", [confirm, put(0), append(1), step("heard", "behind 1", bytes=said(of(leaves(1)))), put(1), append(0, outcome="behind")])
    run("an ally knows a part of it", "LOG-043", [confirm, put(0), put(1), append(2), step("heard", "confirmed", bytes=said(of([leaf(earlier[0])]))), put(2), append(3)])
    run("what an ally knows is fetched, then the log goes on", "LOG-042 LOG-043 LOG-044",
        [put(0), put(1), put(2), step("heard", "behind 2", bytes=said(lost)), step("extend", "grown 2", bytes=said(lost), entries=[e.hex() for e in earlier]), append(0, outcome="unconfirmed"), confirm, append(3)])
    run("refused: a part of what an ally knows is fetched", "LOG-043",
        [put(0), step("heard", "behind 2", bytes=said(lost)), step("extend", "grown 1", bytes=said(of([leaf(earlier[0])])), entries=[earlier[0].hex()]), step("confirm", "behind 2"), append(0, outcome="behind")])

    # The logs of others, as borea sees them.
    def extend(some, outcome, entries, note=None, log="alba"):
        return step("extend", outcome, bytes=said(note or of(some)), nation=log, entries=[e.hex() for e in entries])

    three, rest = [entry(i) for i in range(3)], [entry(3), entry(4)]
    grown = extend(THREE, "grown 3", three)
    text = body(3, tree(THREE))
    follow = {
        "a log from its first entry on": [grown, extend(FIVE, "grown 5", rest)],
        "the same checkpoint again": [grown, extend(THREE, "known", [])],
        "a new cosignature": [grown, extend(THREE, "cosigned", [], of(THREE, "alba", cosign(text, "cora"))), extend(THREE, "known", [], of(THREE, "alba", cosign(text, "cora")))],
        "noise under a checkpoint": [grown, extend(THREE, "known", [], of(THREE, "alba", cosign(text, "cora", key=OUTSIDER)))],
        "refused: an entry is missing": [extend(THREE, "entries", three[:2]), grown],
        "refused: an entry too many": [extend(THREE, "entries", [*three, entry(3)]), grown],
        "refused: no entries": [extend(THREE, "entries", [])],
        "refused: another entry": [extend(THREE, "entries", [*three[:2], entry(9)]), grown],
        "refused: entries in another order": [extend(THREE, "entries", three[::-1]), grown],
        "refused: entries from the first on, though they are here": [grown, extend(FIVE, "entries", three + rest)],
        "refused: an outsider's checkpoint": [extend(THREE, "unsigned", three, of(THREE, key=OUTSIDER))],
    }
    for name, steps in follow.items():
        run(name, "LOG-044", steps, 1)
    twice = [entry(0), entry(1), entry(0)]
    run("the first of two equal entries", "LOG-045", [extend([leaf(e) for e in twice], "grown 3", twice), step("number", "0", nation="alba", statement="b3:" + entry(0)[1:].hex())], 1)
    run("an entry of another algorithm names nothing", "LOG-001 LOG-045", [extend([leaf(b"\2" + bytes(32))], "grown 1", [b"\2" + bytes(32)]), step("number", "none", nation="alba", statement="b3:" + "00" * 32)], 1)
    long = checkpoint(body(2**20 + 1, tree(THREE)))
    run("refused: more entries than are followed", "LOG-046", [extend(THREE, "too-long", three, long)], 1)

    longest = checkpoint(body(2**63 - 1, tree(THREE)))
    run("refused: as many entries as 63 bits hold", "LOG-046", [extend(THREE, "too-long", three, longest), step("size", "0", nation="alba")], 1)
    run("refused: more entries than are followed, of a log that is followed", "LOG-046", [grown, extend(THREE, "too-long", rest, long), extend(FIVE, "grown 5", rest)], 1)

    # Forks.
    def shown(smaller, larger, prefix=None, proof=()):
        value = {"version": 1, "nation": "alba", "smaller": smaller, "larger": larger}
        if prefix is not None:
            value |= {"prefix": b64(prefix), "proof": [b64(h) for h in proof]}
        return said(json.dumps(value, ensure_ascii=False))

    faces, rewritten = forked(3), forked(3) + FIVE[3:]
    equal = shown(of(THREE), of(faces))
    run("two faces of one size", "EVD-003 EVD-005", [grown, extend(faces, "fork 3", [])], 1)
    run("a face from earlier", "EVD-004 EVD-005", [grown, extend(FIVE, "grown 5", rest), extend(faces, "fork 3", [])], 1)
    dispute = step("dispute", "disputed 3", bytes=equal)
    ask = step("cosign", "disputed", bytes=said(request(0, [], of(THREE))), key=WITNESS["borea"].seed.hex(), now=NOW)
    run("nothing more is taken of a log that lied", "EVD-005", [grown, dispute, extend(FIVE, "disputed", rest), extend(THREE, "disputed", []), step("dispute", "known 3", bytes=equal), step("size", "3", nation="alba")], 1)
    run("a log that lied is not witnessed", "EVD-005", [dispute, ask], 1)
    again = [step("dispute", "known 3", bytes=equal), extend(FIVE, "grown 5", rest)]
    run("a settled fork stays settled", "EVD-006", [grown, dispute, step("settle", "settled", nation="alba"), *again], 1)
    told = shown(of(THREE, "alba", cosign(text, "cora")), of(faces))
    run("a settled fork, told with another cosignature", "EVD-006", [grown, dispute, step("settle", "settled", nation="alba"), step("dispute", "known 3", bytes=told), *again], 1)
    run("a settled fork, told the other way round", "EVD-006", [grown, dispute, step("settle", "settled", nation="alba"), step("dispute", "known 3", bytes=shown(of(faces), of(THREE))), *again], 1)
    longer = shown(of(THREE), of(rewritten), tree(faces), consistency(3, rewritten))
    run("a settled fork, proved by a larger checkpoint", "EVD-006", [grown, dispute, step("settle", "settled", nation="alba"), step("dispute", "known 3", bytes=longer), *again], 1)
    third = [*leaves(2), leaf(entry(9))]
    another = step("dispute", "disputed 3", bytes=shown(of(faces), of(third)))
    run("refused: another fork than the one that was settled", "EVD-006", [grown, dispute, step("settle", "settled", nation="alba"), another, extend(FIVE, "disputed", rest)], 1)
    # Giving up a history.
    anew, gone = step("settle-anew", "settled", nation="alba"), step("size", "0", nation="alba")
    their = [entry(0), entry(1000), entry(2)]
    run("the other history is followed from its first entry", "EVD-007", [grown, dispute, anew, gone, extend(faces, "grown 3", their)], 1)
    run("what was given up is cosigned no more than any other", "EVD-007 WIT-008", [grown, ask | {"outcome": cosign(text, "borea", TIME)}, dispute, anew, extend(faces, "grown 3", their), ask | {"outcome": "409 0"}], 1)
    run("refused: what was given up, after the other history came", "EVD-007", [grown, dispute, anew, extend(faces, "grown 3", their), extend(THREE, "fork 3", [])], 1)
    own_two = of([leaf(e) for e in earlier])
    lies = step("dispute", "disputed 2", bytes=shown(own_two, of(leaves(2))))
    given_up = [confirm, put(0), put(1), append(2), lies, step("settle-anew", "settled"), step("confirm", "behind 2"), append(0, outcome="behind")]
    two = [entry(0), entry(1)]
    joined = of([*leaves(2), *(leaf(e) for e in earlier)])
    run("our own history is given up for the one that allies have", "EVD-007",
        [*given_up, extend(leaves(2), "grown 2", two), confirm, append(0, outcome=joined), append(0, outcome=nothing), step("number", "2", statement=digest(STATEMENTS[0][0]))])
    run("refused: our own history again after it was given up", "EVD-007", [*given_up, extend([leaf(e) for e in earlier], "entries", earlier), append(0, outcome="behind")])
    run("refused: a third history of ours", "EVD-007", [*given_up, extend([*leaves(1), leaf(entry(9))], "entries", [entry(0), entry(9)]), append(0, outcome="behind")])
    run("a person settles it", "EVD-005", [grown, dispute, step("settle", "settled", nation="alba"), step("settle", "nothing", nation="alba"), extend(FIVE, "grown 5", rest)], 1)
    run("evidence of two sizes", "EVD-004 EVD-005", [step("dispute", "disputed 3", bytes=shown(of(THREE), of(rewritten), tree(faces), consistency(3, rewritten))), extend(THREE, "disputed", three)], 1)
    run("refused: evidence that proves nothing", "EVD-005", [grown, step("dispute", "refused", bytes=shown(of(THREE), of(FIVE), tree(THREE), consistency(3, FIVE))), extend(FIVE, "grown 5", rest)], 1)
    run("refused: evidence by an outsider", "EVD-002 EVD-005", [grown, step("dispute", "refused", bytes=shown(of(THREE), of(faces, key=OUTSIDER))), extend(FIVE, "grown 5", rest)], 1)
    run("our own log lied: nothing is appended", "EVD-005", [confirm, put(0), append(1), step("dispute", "disputed 3", bytes=equal), put(1), append(0, outcome="disputed"), step("settle", "settled"), append(2)])
    other = said(json.dumps({"version": 1, "nation": "cora", "smaller": of(THREE, "cora", key=LOGS["cora"]), "larger": of(faces, "cora", key=LOGS["cora"])}, ensure_ascii=False))
    run("a dispute with one nation leaves the others alone", "EVD-005", [step("dispute", "disputed 3", bytes=other), grown, extend(FIVE, "grown 5", rest)], 1)

    # Witnessing.
    def cosigns(old, proof, some, outcome=None, log="alba", key=LOG, at=NOW):
        text = body(len(some), tree(some), log)
        unix = TIME + {NOW: 0, "2026-11-23T12:00:30Z": 30}[at]
        return step("cosign", outcome or cosign(text, "borea", unix), bytes=said(request(old, proof, of(some, log, key=key))), key=WITNESS["borea"].seed.hex(), now=at)

    run("it cosigns what has grown", "WIT-008 LOG-020", [cosigns(0, [], THREE), cosigns(3, consistency(3, FIVE), FIVE, at="2026-11-23T12:00:30Z")], 1)
    run("refused: two logs from one old size", "WIT-005 WIT-008", [cosigns(0, [], THREE), cosigns(0, [], faces, "409 3"), cosigns(3, [], faces, "409 3"), cosigns(3, [], THREE)], 1)
    run("refused: what was refused is not kept", "WIT-007 WIT-008", [cosigns(0, [], THREE), cosigns(3, [], FIVE, "422"), cosigns(3, consistency(3, FIVE), FIVE)], 1)
    run("refused: its own nation's log", "WIT-003", [cosigns(0, [], THREE, "404", "borea", LOGS["borea"])], 1)
    run("refused: the log of a nation that is not pinned", "WIT-003", [cosigns(0, [], THREE, "404", "mora", OUTSIDER)], 1)
    run("refused: it follows another log", "WIT-009", [grown, cosigns(0, [], faces, "409 0"), cosigns(0, [], THREE)], 1)
    run("refused: the beginning of another log", "WIT-009", [grown, cosigns(0, [], [*leaves(1), leaf(entry(9))], "409 0"), cosigns(0, [], THREE)], 1)
    elsewhere = [*THREE, leaf(entry(9))]
    run("refused: another log from where it cosigned last", "WIT-009 WIT-005", [extend(FIVE, "grown 5", three + rest), cosigns(0, [], THREE), cosigns(3, consistency(3, elsewhere), elsewhere, "409 3"), cosigns(3, consistency(3, FIVE), FIVE)], 1)
