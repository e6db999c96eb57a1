"""Document 02: a nation's later roots, what older keys still say, and the standing in which nations hold each other."""

from blake3 import blake3

from common import (
    ATTEST,
    BOREA,
    LOG,
    NODE,
    NOW,
    OTHER_RELEASE,
    OUTSIDER,
    PEER,
    RECALL,
    RELEASE,
    RELEASE2,
    ROOT,
    THE_RELEASE,
    Key,
    channel,
    compact,
    digest,
    named,
    node,
    parts,
    recall,
    release,
    root,
    signed,
    single_key_root,
    statement,
    vector,
    without,
)

NEW_ROOT, NEW_RELEASE, NEW_NODE, NEW_RECALL = (Key(seed) for seed in range(41, 45))
KEYS = [ROOT, RELEASE, RELEASE2, ATTEST, RECALL, LOG, NODE]
FIRST = compact(root())


def follow(before, version, **roles):
    """The next root: as the first one, but for the keys of these roles and what else is given."""
    changes = {name: roles.pop(name) for name in list(roles) if name in ("expires", "issued", "previous", "nation")}
    names = {"root": ([ROOT], 1), "release": ([RELEASE, RELEASE2], 1), "attest": ([ATTEST], 1), "recall": ([RECALL], 1),
             "log": ([LOG], 1), "node": ([NODE], 1)} | roles
    keys = {key.id: key for members, _ in names.values() for key in members}
    changes = {"previous": digest(before), "issued": "2026-11-10T00:00:00Z"} | changes
    return compact(root(keys=list(keys.values()), roles=names, version=version, **changes))


# The release role's keys are replaced; then the root's.
SECOND = follow(FIRST, 2, release=([NEW_RELEASE], 1))
THIRD = follow(SECOND, 3, release=([NEW_RELEASE], 1), root=([NEW_ROOT], 1))
SECOND_SIGNED = signed(SECOND, ROOT)
THIRD_SIGNED = signed(THIRD, ROOT, NEW_ROOT)


def chains():
    f = "02/rotation"

    def offers(name, requirements, steps, version, newest, now=NOW, first=signed(FIRST, ROOT)):
        given = {"root": first, "now": now, "offers": [{"signed": parts(text), "outcome": outcome} for text, outcome in steps]}
        refusal = steps[-1][1] not in ("taken", "known")
        vector(f, name, "roots", requirements, given, *((None, steps[-1][1]) if refusal else ({"version": version, "newest": digest(newest)},)))

    def refused(name, requirements, text, error, now=NOW):
        """One root that is refused leaves the first one in place."""
        offers(f"refused: {name}", requirements, [(text, error)], 1, FIRST, now)

    offers("a second root with other release keys", "NRT-011 NRT-012", [(SECOND_SIGNED, "taken")], 2, SECOND)
    offers("a third root with another root key", "NRT-011 NRT-012", [(SECOND_SIGNED, "taken"), (THIRD_SIGNED, "taken")], 3, THIRD)
    more = follow(FIRST, 2, root=([ROOT, NEW_ROOT, OUTSIDER], 2))
    offers("a higher threshold of which both have signed", "NRT-012", [(signed(more, ROOT, NEW_ROOT), "taken")], 2, more)
    offers("a signer that counts for neither", "NRT-012", [(signed(SECOND, OUTSIDER, ROOT), "taken")], 2, SECOND)
    swap = follow(FIRST, 2, root=([NEW_ROOT], 1))
    refused("signed by the new root key alone", "NRT-012", signed(swap, NEW_ROOT), "threshold")
    refused("signed by the old root key alone", "NRT-012", signed(swap, ROOT), "threshold")
    refused("the new threshold is not met", "NRT-012", signed(more, ROOT), "threshold")
    refused("the new threshold is met without the old key", "NRT-012", signed(more, NEW_ROOT, OUTSIDER), "threshold")
    refused("signed by the release key that it brings", "NRT-012", signed(SECOND, NEW_RELEASE), "threshold")
    refused("signed by the recall role", "NRT-012 TRU-002", signed(SECOND, RECALL), "threshold")
    refused("signed by a stranger", "NRT-012", signed(SECOND, OUTSIDER), "threshold")
    refused("signed by the same old key twice where two must sign", "NRT-012 ENV-012", signed(more, ROOT, ROOT), "threshold")
    altered = signed(SECOND, ROOT).replace(signed(SECOND, ROOT)[-40:-30], signed(THIRD, ROOT)[-40:-30])
    assert altered != SECOND_SIGNED
    refused("an altered signature", "NRT-012 ENV-014", altered, "bad-signature")
    skipped = follow(SECOND, 3, release=([NEW_RELEASE], 1))
    refused("version 3 behind version 1", "NRT-011", signed(skipped, ROOT), "root-skipped")
    far = follow(FIRST, 2**63, release=([NEW_RELEASE], 1))
    refused("version 2^63", "NRT-011", signed(far, ROOT), "root-skipped")
    refused("it follows another root", "NRT-011", signed(follow(FIRST, 2, previous=THE_RELEASE), ROOT), "root-previous")
    refused("it follows itself as far as it can", "NRT-011", signed(follow(SECOND, 2), ROOT), "root-previous")
    other = follow(FIRST, 2, release=([OUTSIDER], 1))
    both = [(SECOND_SIGNED, "taken"), (signed(other, ROOT), "root-conflict")]
    offers("refused: two second roots", "NRT-013", both, 2, SECOND)
    offers("refused: two second roots, after a third", "NRT-013", both[:1] + [(THIRD_SIGNED, "taken")] + both[1:], 3, THIRD)
    offers("refused: another second root that nobody signed is no conflict", "NRT-013", both[:1] + [(signed(other, OUTSIDER), "threshold")], 2, SECOND)
    offers("refused: another second root signed by what it brings is no conflict", "NRT-013 NRT-012",
           both[:1] + [(signed(follow(FIRST, 2, root=([OUTSIDER], 1)), OUTSIDER), "threshold")], 2, SECOND)
    offers("refused: another second root of another chain is no conflict", "NRT-013 NRT-011",
           both[:1] + [(signed(follow(THIRD, 2, release=([OUTSIDER], 1)), ROOT), "root-previous")], 2, SECOND)
    offers("the same root again", "NRT-016", [(SECOND_SIGNED, "taken"), (SECOND_SIGNED, "known")], 2, SECOND)
    replay = [(SECOND_SIGNED, "taken"), (THIRD_SIGNED, "taken"), (SECOND_SIGNED, "known"), (signed(FIRST, ROOT), "known")]
    offers("older roots are played again", "NRT-016", replay, 3, THIRD)
    offers("refused: another first root", "NRT-010", [(signed(compact(single_key_root("alba", OUTSIDER)), OUTSIDER), "other-root")], 1, FIRST)
    offers("refused: a third root signed by the root key that it took away", "NRT-012 NRT-014",
           [(SECOND_SIGNED, "taken"), (THIRD_SIGNED, "taken"), (signed(follow(THIRD, 4, root=([ROOT], 1)), ROOT), "threshold")], 3, THIRD)
    refused("from the future", "TRU-004 NRT-011", signed(follow(FIRST, 2, issued="2026-11-23T12:10:01Z"), ROOT), "from-the-future")
    late = "2028-12-01T00:00:00Z"
    renewed = follow(FIRST, 2, issued="2028-11-20T00:00:00Z", expires="2030-11-20T00:00:00Z")
    offers("the first root has ended, the second has not", "NRT-015", [(signed(renewed, ROOT), "taken")], 2, renewed, now=late)
    ended = follow(FIRST, 2, expires="2028-11-10T00:00:00Z")
    after = follow(ended, 3, issued="2028-11-20T00:00:00Z", expires="2030-11-20T00:00:00Z")
    offers("a second root that has ended leads to a third", "NRT-015", [(signed(ended, ROOT), "taken"), (signed(after, ROOT), "taken")], 3, after, now=late)
    offers("refused: a release instead", "NRT-011", [(signed(compact(release()), RELEASE), "not-a-root")], 1, FIRST)
    offers("refused: another nation's root", "NRT-011", [(signed(follow(FIRST, 2, nation="dora").replace('"name":"alba"', '"name":"dora"').replace(
        blake3(b"alba").hexdigest(), blake3(b"dora").hexdigest()), ROOT), "not-pinned")], 1, FIRST)
    text, steps = FIRST, []
    for version in range(2, 130):
        text = follow(text, version)
        steps.append((signed(text, ROOT), "taken" if version <= 128 else "too-many-roots"))
    given = {"root": signed(FIRST, ROOT), "now": NOW, "offers": [{"signed": parts(text), "outcome": outcome} for text, outcome in steps]}
    vector(f, "refused: root 129", "roots", "NRT-017", given, error="too-many-roots")
    given = given | {"offers": given["offers"][:-1]}
    vector(f, "root 128", "roots", "NRT-017", given, {"version": 128})

    f = "02/fingerprint-aloud"
    for text in (digest(FIRST), THE_RELEASE, "b3:" + "0" * 64, "b3:" + "f" * 64):
        hasher = blake3(bytes.fromhex(text[3:]), derive_key_context="steelyard 2026-11-25 fingerprint read aloud v1")
        out = hasher.digest(length=40)
        groups = [f"{int.from_bytes(out[i:i + 5], 'big') % 100000:05}" for i in range(0, 40, 5)]
        vector(f, text[:12], "spoken", "NRT-018", {"fingerprint": text}, {"digits": " ".join(groups)})


def order():
    f = "02/log-order"
    roots = [signed(FIRST, ROOT), signed(compact(single_key_root("borea", BOREA)), BOREA)]
    old, new = signed(compact(release()), RELEASE), signed(compact(release()), NEW_RELEASE)
    log = {digest(SECOND): 10, digest(THIRD): 20}

    def believe(name, requirements, text, log, later=(SECOND_SIGNED,), now=NOW, kind="trust", ok=None, error=None, **more):
        given = {"roots": roots, "later": [parts(root) for root in later], "signed": text, "now": now, "log": log} | more
        vector(f, name, kind, requirements, given, ok, error)

    ok = {"kind": "release", "nation": "alba"}
    believe("a release by the new key", "NRT-014 TRU-002", new, {}, ok=ok)
    believe("a release by the old key, logged before", "TRU-005", old, log | {THE_RELEASE: 9}, ok=ok)
    believe("the first entry of the log", "TRU-005", old, log | {THE_RELEASE: 0}, ok=ok)
    believe("refused: a release by the old key, logged behind the root", "TRU-005", old, log | {THE_RELEASE: 11}, error="superseded")
    believe("refused: a release by the old key at the root's own place", "TRU-005", old, log | {THE_RELEASE: 10}, error="superseded")
    believe("refused: a release by the old key that is not logged", "TRU-005 NRT-014", old, log, error="superseded")
    believe("refused: the root is not logged", "TRU-006", old, {THE_RELEASE: 9}, error="unordered")
    believe("refused: nothing is logged", "TRU-006 NRT-014", old, {}, error="unordered")
    third = (SECOND_SIGNED, THIRD_SIGNED)
    believe("a key that the second of three roots took away, logged before that", "TRU-005", old, log | {THE_RELEASE: 9}, third, ok=ok)
    believe("refused: logged between the root that took the key away and the newest", "TRU-005", old, log | {THE_RELEASE: 15}, third, error="superseded")
    believe("refused: the root that took the key away is not logged, a later one is", "TRU-006", old, {digest(THIRD): 20, THE_RELEASE: 9}, third, error="unordered")
    believe("refused: by a stranger, logged before", "TRU-005 TRU-002", signed(compact(release()), OUTSIDER), log | {THE_RELEASE: 1}, error="threshold")
    believe("refused: by the old recall key, logged before", "TRU-005 TRU-002", signed(compact(release()), RECALL), log | {THE_RELEASE: 1}, error="threshold")
    broken = old.replace(old[-30:-24], "AAAAAA")
    believe("refused: an altered signature of an old key", "TRU-005 ENV-014", broken, log | {THE_RELEASE: 1}, error="bad-signature")
    stays = follow(FIRST, 2, node=([NEW_NODE], 1))
    believe("a key that stayed needs no log", "NRT-014 TRU-005", old, {}, (signed(stays, ROOT),), ok=ok)
    strict = follow(FIRST, 2, release=([RELEASE, RELEASE2], 2))
    believe("refused: one signature where two are needed now", "TRU-005", old, log, (signed(strict, ROOT),), error="unordered")
    believe("one signature from before two were needed", "TRU-005", old, {digest(strict): 10, THE_RELEASE: 3}, (signed(strict, ROOT),), ok=ok)
    taken = follow(FIRST, 2, recall=([NEW_RECALL], 1))
    back = follow(taken, 3, recall=([RECALL], 1))
    call = signed(compact(recall()), RECALL)
    at = {digest(taken): 10, digest(back): 20}
    name = digest(compact(recall()))
    believe("refused: a recall by a stolen recall key", "TRU-005 RCL-005", call, at | {name: 12}, (signed(taken, ROOT),), error="superseded")
    believe("a recall from before its key was taken away", "TRU-005 RCL-005", call, at | {name: 2}, (signed(taken, ROOT),), ok={"kind": "recall"})
    believe("a key that came back needs no log", "NRT-014", call, at, (signed(taken, ROOT), signed(back, ROOT)), ok={"kind": "recall"})
    believe("the newest root alone decides about its end", "NRT-015 TRU-003", new, {}, (signed(follow(FIRST, 2, release=([NEW_RELEASE], 1), expires="2026-11-23T12:00:01Z"), ROOT),), ok=ok)
    believe("refused: the newest root has ended, the first has not", "NRT-015 TRU-003", new, {}, (signed(follow(FIRST, 2, release=([NEW_RELEASE], 1), expires=NOW), ROOT),), error="root-expired")

    kept = lambda *args, **more: believe(*args, kind="kept", **more)
    kept("what was admitted stays until the log shows the order", "TRU-006", old, {}, admitted=True, ok=ok)
    kept("refused: what was not admitted waits for the log", "TRU-006", old, {}, admitted=False, error="unordered")
    kept("refused: what was admitted and came behind the root", "TRU-006 TRU-005", old, log | {THE_RELEASE: 11}, admitted=True, error="superseded")
    kept("what was admitted and came before the root", "TRU-005", old, log | {THE_RELEASE: 3}, admitted=False, ok=ok)

    f = "02/node-certificate"
    text = compact(node())
    node_root = signed(follow(FIRST, 2, node=([NEW_NODE], 1)), ROOT)
    def certificate(name, requirements, signed_text, later, ok=None, error=None):
        given = {"root": roots[0], "later": [parts(root) for root in later], "signed": signed_text, "peer": PEER, "now": NOW}
        vector(f, name, "node-certificate", requirements, given, ok, error)

    certificate("by the node key of the second root", "TRU-007 NRT-014", signed(text, NEW_NODE), [node_root], ok={"nation": "alba"})
    certificate("refused: by the node key that the second root took away", "TRU-007 NRT-014", signed(text, NODE), [node_root], error="unordered")
    certificate("refused: by the release key that both roots have", "TRU-007 TRU-002", signed(text, RELEASE), [node_root], error="0 of the 1 signatures")
    certificate("by a node key that stayed", "TRU-007", signed(text, NODE), [SECOND_SIGNED], ok={"nation": "alba"})


BOREA_RECALL = Key(18)
BOREA_ROOT = compact(root("borea", [BOREA, BOREA_RECALL], {name: ([BOREA], 1) for name in ("root", "release", "attest", "log", "node")} | {"recall": ([BOREA_RECALL], 1)},
                          expires="2030-11-01T00:00:00Z"))


def membership(standing="suspended", sequence=1, subjects=None, **changes):
    predicate = {"nation": "borea", "member": "alba", "fingerprint": digest(FIRST), "standing": standing, "sequence": sequence,
                 "reason": "as agreed", "issued": NOW} | changes
    return statement("membership", predicate, subjects or named(predicate["member"]))


def say(standing, sequence=1, key=None, **changes):
    key = key or (BOREA if standing in ("invited", "active") else BOREA_RECALL)
    return signed(compact(membership(standing, sequence, **changes)), key)


def standings():
    f = "02/membership"

    def structure(name, requirements, value, ok=None, error=None):
        vector(f, name, "statement", requirements, {"payload": compact(value)}, ok, error)

    structure("a membership statement", "MEM-001 STM-002", membership(), ok={"kind": "membership", "nation": "borea"})
    structure("refused: sequence 0", "MEM-001", membership(sequence=0), error="field-sequence")
    structure("refused: a nation about itself", "MEM-001", membership(member="borea"), error="field-member")
    structure("refused: an unknown standing", "MEM-001", membership("honorary"), error="malformed")
    structure("refused: a standing in capitals", "MEM-001", membership("Active"), error="malformed")
    structure("refused: no fingerprint", "MEM-001", without(membership(), "predicate", "fingerprint"), error="malformed")
    structure("refused: its subject is another nation", "MEM-001 STM-007", membership(subjects=named("cora")), error="subject")
    structure("refused: an unknown critical field", "STM-003", membership(critical=["until"]), error="critical")

    roots = [signed(FIRST, ROOT), signed(BOREA_ROOT, BOREA)]

    def said(name, requirements, steps, standing, sequence):
        given = {"roots": [parts(text) for text in roots], "now": NOW, "said": [{"signed": parts(text), "outcome": outcome} for text, outcome in steps]}
        given["roots"] = roots
        refusal = steps[-1][1] != "taken"
        vector(f, name, "membership", requirements, given, *((None, steps[-1][1]) if refusal else ({"standing": standing, "sequence": sequence},)))

    taken = lambda *standings: [(say(standing, at + 1), "taken") for at, standing in enumerate(standings)]
    for way in [("invited", "active"), ("invited", "active", "suspended"), ("invited", "active", "suspended", "active"), ("invited", "active", "departed"),
                ("invited", "active", "suspended", "departed"), ("invited", "departed"), ("suspended",), ("departed",), ("departed", "invited", "active")]:
        said(" then ".join(way), "MEM-004", taken(*way), way[-1], len(way))
    for way, wrong in [((), "active"), (("invited",), "invited"), (("invited",), "suspended"), (("suspended",), "invited"), (("suspended",), "suspended"),
                       (("departed",), "active"), (("departed",), "suspended"), (("departed",), "departed"), (("invited", "active"), "invited"), (("invited", "active"), "active")]:
        before = way[-1] if way else "active"
        said(f"refused: {wrong} after {' and '.join(way) or 'nothing'}", "MEM-004", taken(*way) + [(say(wrong, len(way) + 1), "step")], before, len(way) or None)
    said("refused: an older statement", "MEM-005", [(say("suspended", 3), "taken"), (say("departed", 2), "downgrade")], "suspended", 3)
    said("refused: two statements of one sequence", "MEM-005", [(say("suspended", 3), "taken"), (say("departed", 3), "membership-conflict")], "suspended", 3)
    said("refused: an old one played again", "MEM-005", taken("suspended", "active") + [(say("suspended", 1), "downgrade")], "active", 2)
    said("the same statement again", "MEM-005", taken("suspended") + taken("suspended"), "suspended", 1)
    said("one was left out", "MEM-006", [(say("suspended", 1), "taken"), (say("invited", 3), "taken")], "invited", 3)
    said("the first that is heard is the ninth", "MEM-006", [(say("active", 9), "taken")], "active", 9)
    for standing, key in [("invited", BOREA_RECALL), ("suspended", BOREA), ("departed", BOREA)]:
        said(f"refused: {standing} by the other role", "MEM-002 TRU-002", [(say(standing, key=key), "threshold")], "active", None)
    said("refused: active by the recall role", "MEM-002", taken("suspended") + [(say("active", 2, key=BOREA_RECALL), "threshold")], "suspended", 1)
    said("refused: by a stranger", "MEM-002 TRU-002", [(say("suspended", key=OUTSIDER), "threshold")], "active", None)
    alba = compact(membership("suspended", nation="alba", member="borea", fingerprint=digest(BOREA_ROOT)))
    said("refused: what another nation says of us", "MEM-003", [(signed(alba, RECALL), "foreign")], "active", None)
    elsewhere = compact(membership("departed", nation="alba", member="cora"))
    said("refused: what another nation says of a third", "MEM-003", [(signed(elsewhere, RECALL), "foreign")], "active", None)
    said("refused: an invitation of another fingerprint", "MEM-007", [(say("invited", fingerprint=THE_RELEASE), "fingerprint")], "active", None)
    said("refused: another fingerprint becomes active", "MEM-007", taken("suspended") + [(say("active", 2, fingerprint=THE_RELEASE), "fingerprint")], "suspended", 1)
    said("another fingerprint is suspended all the same", "MEM-007", [(say("suspended", fingerprint=THE_RELEASE), "taken")], "suspended", 1)

    f = "02/standing"

    def believe(name, requirements, way, text, now=NOW, kind="trust", ok=None, error=None, **more):
        given = {"roots": roots, "memberships": [parts(text) for text, _ in taken(*way)], "signed": text, "now": now} | more
        vector(f, name, kind, requirements, given, ok, error)

    new = signed(compact(release()), RELEASE)
    call = signed(compact(recall()), RECALL)
    moved = signed(compact(channel()), RELEASE)
    believe("active: a release", "MEM-008", ("invited", "active"), new, ok={"kind": "release"})
    for what, text in [("a release", new), ("a channel", moved), ("a recall", call), ("a root", SECOND_SIGNED), ("a certificate", signed(compact(node()), NODE))]:
        believe(f"refused: invited: {what}", "MEM-008", ("invited",), text, error="not-active")
    for way in [("suspended",), ("departed",)]:
        for what, text in [("a release", new), ("a channel", moved), ("a certificate", signed(compact(node()), NODE))]:
            believe(f"refused: {way[0]}: {what}", "MEM-009", way, text, error="not-active")
        believe(f"{way[0]}: a recall", "MEM-009", way, call, ok={"kind": "recall"})
        believe(f"{way[0]}: the next root", "MEM-009", way, SECOND_SIGNED, ok={"kind": "root"})
        believe(f"refused: {way[0]}: a recall by the release key", "MEM-009 RCL-005", way, signed(compact(recall()), RELEASE), error="threshold")
    believe("active again: a release", "MEM-008", ("suspended", "active"), new, ok={"kind": "release"})
    believe("refused: invited again: a release", "MEM-008", ("departed", "invited"), new, error="not-active")

    late = "2028-11-01T00:00:00Z"
    for way in [("suspended",), ("departed",)]:
        believe(f"{way[0]}: a release that was kept", "MEM-010", way, new, kind="kept", admitted=True, ok={"kind": "release"})
        believe(f"{way[0]}: a release that was kept, its root has ended", "MEM-010", way, new, kind="kept", admitted=True, now=late, ok={"kind": "release"})
        believe(f"refused: {way[0]}: a kept release with an altered signature", "MEM-010 ENV-014", way, new.replace(new[-30:-24], "AAAAAA"), kind="kept", admitted=True, error="bad-signature")
    believe("refused: active: a release that was kept, its root has ended", "MEM-010 TRU-003", (), new, kind="kept", admitted=True, now=late, error="root-expired")
    believe("refused: invited: a release that was kept", "MEM-008", ("departed", "invited"), new, kind="kept", admitted=True, error="not-active")
