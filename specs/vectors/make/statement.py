"""Document 02: statements, roots, trust and node certificates."""

from blake3 import blake3

from common import (
    BOREA,
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
    about,
    channel,
    compact,
    digest,
    named,
    node,
    recall,
    release,
    root,
    signed,
    single_key_root,
    statement,
    vector,
    without,
)


def statements():
    f = "02/statement"

    def add(name, requirements, value, ok=None, error=None):
        vector(f, name, "statement", requirements, {"payload": value if isinstance(value, str) else compact(value)}, ok, error)

    for kind, value, what in [
        ("root", root(), "STM-002"), ("node", node(), "STM-002 CRT-001"), ("release", release(), "STM-002 REL-002"),
        ("channel", channel(), "STM-002"), ("recall", recall(), "STM-002"),
    ]:
        add(f"a {kind}", f"STM-001 STM-007 {what}", value, ok={"kind": kind, "nation": "alba"})
    malformed = "not an in-toto statement"
    add("refused: type of version 0.1", "STM-001", {**channel(), "_type": "https://in-toto.io/Statement/v0.1"}, error="statement type")
    add("refused: type empty", "STM-001", {**channel(), "_type": ""}, error="statement type")
    for defect, text in {"unknown": "urn:steelyard:decree:v1", "version 2": "urn:steelyard:channel:v2", "SLSA": "https://slsa.dev/provenance/v1", "in capitals": "URN:steelyard:channel:v1"}.items():
        add(f"refused: predicate: {defect}", "STM-002", {**channel(), "predicateType": text}, error="is unknown")
    add("an unknown field", "STM-003", channel(colour="green"), ok={"kind": "channel"})
    add("a known field is critical", "STM-003", channel(critical=["sequence", "release"]), ok={"kind": "channel"})
    for kind, value in [("channel", channel(critical=["embargo"], embargo=NOW)), ("release", release(critical=["sequence"])),
                        ("recall", recall(critical=["until"])), ("root", root(critical=["hsm"])), ("node", node(critical=["region"]))]:
        add(f"refused: {kind} with an unknown critical field", "STM-003", value, error="critical")
    add("refused: critical is no list", "STM-003 STM-005", channel(critical="embargo"), error=malformed)
    add("refused: 65 critical names", "STM-004", channel(critical=["model"] * 65), error="field-critical")
    text = compact(channel())
    for defect, value in {
        "empty": "", "no JSON": "yaml: yes", "cut off": text[:-5], "something follows": text + "{}", "an array": "[" + text + "]",
        "NUL follows": text + "\u0000", "sequence as text": compact(channel(sequence="1")), "sequence with a fraction": compact(channel(sequence=1.5)),
        "sequence negative": compact(channel(sequence=-1)), "sequence over 64 bits": compact(channel(sequence=2**64)),
        "release missing": compact(without(channel(), "predicate", "release")), "issued missing": compact(without(channel(), "predicate", "issued")),
        "predicate missing": compact(without(channel(), "predicate")), "subject missing": compact(without(channel(), "subject")),
        "sequence twice": text.replace('"sequence":1', '"sequence":1,"sequence":2'), "predicate twice": text[:-1] + ',"predicate":{}}',
        "predicate is null": compact({**channel(), "predicate": None}),
    }.items():
        add(f"refused: {defect}", "STM-005", value, error="malformed")
    add("refused: bad model in a channel", "STM-005 NAM-001", channel(model="alba/../x"), error="malformed")
    add("refused: bad time in a channel", "STM-005 NAM-003", channel(issued="2026-11-23T12:00:00+00:00"), error="malformed")
    add("4096 bytes of reason", "STM-006", channel(reason="ä" * 2048), ok={"kind": "channel"})
    add("lines and tabs in a reason", "STM-006", channel(reason="one\n\ttwo"), ok={"kind": "channel"})
    add("refused: 4097 bytes of reason", "STM-006", channel(reason="a" * 4097), error="field-reason")
    add("refused: 4097 bytes of licence", "STM-006", release(licence="a" * 4097), error="field-licence")
    for defect, value in {"escape": "\u001b[2J", "carriage return": "a\rb", "NUL": "a\u0000", "C1 control": "\u009b"}.items():
        add(f"refused: reason with {defect}", "STM-006", recall(reason=value), error="field-reason")
    mismatch = "do not match its predicate"
    add("refused: channel about another release", "STM-007", channel(subjects=about(OTHER_RELEASE)), error=mismatch)
    add("refused: channel with two subjects", "STM-007", channel(subjects=about(THE_RELEASE) * 2), error=mismatch)
    add("refused: channel without a subject", "STM-007", {**channel(), "subject": []}, error=mismatch)
    add("refused: channel whose subject's name is another's", "STM-007", channel(subjects=[{**about(THE_RELEASE)[0], "name": OTHER_RELEASE}]), error=mismatch)
    add("refused: recall about another release", "STM-007", recall(subjects=about(OTHER_RELEASE)), error=mismatch)
    add("refused: root of another nation", "STM-007", {**root(), "subject": named("borea")}, error=mismatch)
    add("refused: certificate of another peer", "STM-007", node(subjects=named(PEER[:-1] + "x")), error=mismatch)
    add("refused: subject without BLAKE3", "STM-007", {**channel(), "subject": [{"name": THE_RELEASE, "digest": {"sha256": "a" * 64}}]}, error=malformed)
    add("refused: subject's digest with a prefix", "STM-007", {**channel(), "subject": [{"name": THE_RELEASE, "digest": {"blake3": THE_RELEASE}}]}, error=malformed)

    f = "02/node-certificate"
    alba_root = signed(compact(root()), ROOT)
    text = compact(node())
    for defect, value in {"empty peer": node(peerId=""), "peer with a slash": node(peerId="/p2p/12D3"), "peer of 129 bytes": node(peerId="1" * 129), "peer not ASCII": node(peerId="12Dé")}.items():
        vector(f, f"refused: {defect}", "statement", "CRT-001", {"payload": compact(value)}, error="field-peerId")
    vector(f, "an unknown capability is ignored", "statement", "CRT-002", {"payload": compact(node(capabilities=["fetch", "fly"]))}, {"kind": "node"})
    vector(f, "refused: ends before it begins", "statement", "CRT-002", {"payload": compact(node(expires="2026-11-23T11:59:59Z"))}, error="field-expires")
    vector(f, "refused: ends when it begins", "statement", "CRT-002", {"payload": compact(node(expires=NOW))}, error="field-expires")
    vector(f, "refused: 17 capabilities", "statement", "CRT-002", {"payload": compact(node(capabilities=["fetch"] * 17))}, error="field-capabilities")

    def certificate(name, requirements, signed_text, peer=PEER, now=NOW, ok=None, error=None):
        vector(f, name, "node-certificate", requirements, {"root": alba_root, "signed": signed_text, "peer": peer, "now": now}, ok, error)

    certificate("a node of alba", "CRT-003", signed(text, NODE), ok={"nation": "alba"})
    certificate("its last second", "CRT-003", signed(text, NODE), now="2027-11-23T11:59:59Z", ok={"nation": "alba"})
    certificate("refused: another peer", "CRT-003", signed(text, NODE), peer=PEER[:-1] + "q", error="but the connection is with")
    certificate("refused: expired", "CRT-003", signed(text, NODE), now="2027-11-23T12:00:00Z", error="certificate-expired")
    certificate("refused: signed by the release role", "CRT-003 TRU-002", signed(text, RELEASE), error="0 of the 1 signatures")
    certificate("refused: a channel instead", "CRT-003", signed(compact(channel()), RELEASE), error="not a node certificate")
    certificate("refused: a nation that is not pinned", "CRT-003 TRU-001", signed(compact(node(nation="dora")), NODE), error="not pinned")


def trust():
    f = "02/root"

    def structure(name, requirements, value, ok=None, error=None):
        vector(f, name, "statement", requirements, {"payload": compact(value)}, ok, error)

    for role in ("root", "release", "attest", "recall", "log", "node"):
        structure(f"refused: no role {role}", "NRT-001", without(root(), "predicate", "roles", role), error="field-roles")
    extra = root()
    extra["predicate"]["roles"]["king"] = {"keys": [ROOT.id], "threshold": 1}
    structure("refused: a role that nobody knows", "NRT-001", extra, error="not an in-toto statement")
    swapped = root()
    keys = swapped["predicate"]["keys"]
    keys[ROOT.id], keys[RELEASE.id] = keys[RELEASE.id], keys[ROOT.id]
    structure("refused: keys under each other's identifier", "NRT-002 KEY-002", swapped, error="field-keys")
    for defect, identifier in {
        "that of the bare bytes": blake3(ROOT.public).hexdigest(), "in capitals": ROOT.id.upper(), "of its text": blake3(b"ed25519:" + ROOT.hex.encode()).hexdigest(),
        "with a prefix": "b3:" + ROOT.id,
    }.items():
        other = root()
        other["predicate"]["keys"] = {identifier if key == ROOT.id else key: entry for key, entry in other["predicate"]["keys"].items()}
        other["predicate"]["roles"]["root"]["keys"] = [identifier]
        structure(f"refused: a key's identifier {defect}", "NRT-002 KEY-002", other, error="field-keys" if len(identifier) == 64 and identifier.islower() else "malformed")
    weak = root()
    weak["predicate"]["keys"]["a" * 64] = {"algorithm": "ed25519", "public": "01" + "00" * 31}
    structure("refused: a key of small order", "NRT-002 KEY-001", weak, error="malformed")
    unknown = root()
    unknown["predicate"]["keys"]["a" * 64] = {"algorithm": "rot13", "public": "00"}
    structure("refused: unknown algorithm", "NRT-002", unknown, error="not an in-toto statement")
    crowd = [Key(100 + i) for i in range(129)]
    crowded = root()
    crowded["predicate"]["keys"] |= {k.id: {"algorithm": "ed25519", "public": k.hex} for k in crowd}
    structure("refused: 136 keys", "NRT-002", crowded, error="field-keys")

    def with_role(members, threshold):
        value = root()
        value["predicate"]["roles"]["release"] = {"keys": members, "threshold": threshold}
        return value

    structure("refused: a role names an unlisted key", "NRT-003", with_role([RELEASE.id, OUTSIDER.id], 1), error="field-roles")
    structure("refused: a role names a key twice", "NRT-003 ENV-012", with_role([RELEASE.id, RELEASE.id], 2), error="field-roles")
    big = root()
    big["predicate"]["keys"] |= {k.id: {"algorithm": "ed25519", "public": k.hex} for k in crowd[:33]}
    big["predicate"]["roles"]["release"] = {"keys": [k.id for k in crowd[:33]], "threshold": 1}
    structure("refused: a role of 33 keys", "NRT-003", big, error="field-roles")
    structure("refused: threshold 0", "NRT-004", with_role([RELEASE.id], 0), error="field-roles")
    structure("refused: threshold over the keys", "NRT-004", with_role([RELEASE.id, RELEASE2.id], 3), error="field-roles")
    structure("refused: a role without keys", "NRT-004", with_role([], 0), error="field-roles")
    structure("refused: threshold negative", "NRT-004", with_role([RELEASE.id], -1), error="not an in-toto statement")
    structure("version 2 with previous", "NRT-005", root(version=2, previous=THE_RELEASE), ok={"kind": "root"})
    structure("refused: version 0", "NRT-005", root(version=0), error="field-version")
    structure("refused: version 1 with previous", "NRT-005", root(previous=THE_RELEASE), error="field-version")
    structure("refused: version 2 without previous", "NRT-005", root(version=2), error="field-version")
    structure("refused: expires before issued", "NRT-006", root(expires="2026-10-31T23:59:59Z"), error="field-expires")
    structure("refused: expires when issued", "NRT-006", root(expires="2026-11-01T00:00:00Z"), error="field-expires")

    def pin(name, requirements, value, *keys, fingerprint=None, now=NOW, pinned=None, ok=None, error=None):
        text = compact(value)
        given = {"signed": signed(text, *keys), "fingerprint": fingerprint or digest(text), "now": now}
        if pinned:
            given["pinned"] = pinned
        vector(f, name, "root", requirements, given, ok, error)

    pin("a first root", "NRT-007 NRT-008", root(), ROOT, ok={"nation": "alba", "fingerprint": digest(compact(root()))})
    pin("its last second", "NRT-009", root(), ROOT, now="2028-10-31T23:59:59Z", ok={"nation": "alba"})
    pin("refused: signed by the release role", "NRT-007", root(), RELEASE, error="0 of the 1 signatures")
    pin("refused: signed by a stranger", "NRT-007", root(), OUTSIDER, error="0 of the 1 signatures")
    three = [ROOT, RELEASE, RELEASE2]
    roles = {name: (three, 1) for name in ("release", "attest", "recall", "log", "node")} | {"root": (three, 2)}
    pin("two of three", "NRT-007", root(keys=three, roles=roles), RELEASE, ROOT, ok={"nation": "alba"})
    pin("refused: one of three where two must sign", "NRT-007", root(keys=three, roles=roles), ROOT, error="1 of the 2 signatures")
    pin("refused: another fingerprint", "NRT-008", root(), ROOT, fingerprint=THE_RELEASE, error="has the fingerprint")
    pin("refused: version 2", "NRT-008", root(version=2, previous=THE_RELEASE), ROOT, error="this is version 2")
    pin("refused: a channel", "NRT-008", channel(), RELEASE, error="not a nation's root")
    pin("refused: expired", "NRT-009 TRU-003", root(), ROOT, now="2028-11-01T00:00:00Z", error="expired")
    pin("refused: from the future", "NRT-009", root(), ROOT, now="2026-10-31T23:49:59Z", error="future")
    pin("ten minutes ahead", "NRT-009 TRU-004", root(), ROOT, now="2026-10-31T23:50:00Z", ok={"nation": "alba"})
    first = signed(compact(root()), ROOT)
    pin("the same root again", "NRT-010", root(), ROOT, pinned=first, ok={"nation": "alba"})
    pin("refused: another root of a pinned nation", "NRT-010", single_key_root("alba", OUTSIDER), OUTSIDER, pinned=first, error="is pinned with the root")

    f = "02/trust"
    roots = [first, signed(compact(single_key_root("borea", BOREA)), BOREA)]

    def believe(name, requirements, value, *keys, now=NOW, ok=None, error=None):
        vector(f, name, "trust", requirements, {"roots": roots, "signed": signed(compact(value), *keys), "now": now}, ok, error)

    believe("a channel by a release key", "TRU-002", channel(), RELEASE, ok={"kind": "channel"})
    believe("a release by the other release key", "TRU-002", release(), RELEASE2, ok={"kind": "release"})
    believe("a recall by the recall key", "TRU-002 RCL-005", recall(), RECALL, ok={"kind": "recall"})
    believe("the pinned root itself", "TRU-002", root(), ROOT, ok={"kind": "root"})
    believe("refused: nation not pinned", "TRU-001", channel(model="dora/m"), RELEASE, error="not pinned")
    believe("refused: another nation's key", "TRU-002", channel(), BOREA, error="0 of the 1 signatures")
    believe("refused: borea speaks for alba's model", "TRU-002", release(), BOREA, error="0 of the 1 signatures")
    believe("refused: a release by the root key", "TRU-002", release(), ROOT, error="0 of the 1 signatures")
    believe("refused: a release by the recall key", "TRU-002", release(), RECALL, error="0 of the 1 signatures")
    believe("refused: a channel by the node key", "TRU-002", channel(), NODE, error="0 of the 1 signatures")
    believe("refused: another root", "TRU-002 NRT-010", root(expires="2029-01-01T00:00:00Z"), ROOT, error="is pinned with the root")
    late = "2028-11-01T00:00:00Z"
    believe("refused: a channel under an expired root", "TRU-003", channel(), RELEASE, now=late, error="expired")
    believe("refused: a release under an expired root", "TRU-003", release(), RELEASE, now=late, error="expired")
    believe("refused: a certificate under an expired root", "TRU-003", node(), NODE, now=late, error="expired")
    believe("the root's last second", "TRU-003", channel(), RELEASE, now="2028-10-31T23:59:59Z", ok={"kind": "channel"})
    believe("600 seconds ahead", "TRU-004", channel(issued="2026-11-23T12:10:00Z"), RELEASE, ok={"kind": "channel"})
    believe("refused: 601 seconds ahead", "TRU-004", channel(issued="2026-11-23T12:10:01Z"), RELEASE, error="future")
    believe("refused: a recall from the future", "TRU-004", recall(issued="2027-11-23T12:00:00Z"), RECALL, error="future")

    f = "04/recall"
    vectors = {"roots": roots, "signed": signed(compact(recall()), RECALL), "now": late}
    vector(f, "believed under an expired root", "trust", "RCL-007", vectors, {"kind": "recall"})
    for who, key in {"release": RELEASE, "root": ROOT, "node": NODE}.items():
        given = {"roots": roots, "signed": signed(compact(recall()), key), "now": NOW}
        vector(f, f"refused: signed by the {who} role", "trust", "RCL-005", given, error="0 of the 1 signatures")
        given = {"roots": roots, "signed": signed(compact(recall()), key), "now": late}
        vector(f, f"refused: signed by the {who} role, root expired", "trust", "RCL-005 RCL-007", given, error="0 of the 1 signatures")
