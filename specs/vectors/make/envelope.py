"""Document 02: names, times, keys and envelopes."""

import json

from common import (
    NOW,
    OUTSIDER,
    P,
    PAYLOAD_TYPE,
    RELEASE,
    RELEASE2,
    ROOT,
    THE_RELEASE,
    Key,
    b64,
    channel,
    compact,
    digest,
    envelope,
    pae,
    signed,
    vector,
    without,
)


def names():
    f = "02/names"
    good = {
        "nation": ["alba", "a", "north-sea-2", "a" * 32],
        "model-name": ["smollm2", "SmolLM2-135M", "a", "a.b_c-d", "a" * 96],
        "channel": ["stable", "beta-2", "Release_1.x", "a" * 64],
        "version": ["1.0.0", "1.0.0+q4", "2", "a" * 64],
    }
    bad = {
        "nation": {
            "empty": "", "upper case": "Alba", "33 bytes": "a" * 33, "leading hyphen": "-alba", "trailing hyphen": "alba-",
            "dot": "al.ba", "underscore": "al_ba", "space": "al ba", "not ASCII": "albä", "slash": "al/ba", "line feed": "alba\n",
            "NUL": "al\u0000ba",
        },
        "model-name": {
            "empty": "", "two dots": "a..b", "dots alone": "..", "97 bytes": "a" * 97, "leading dot": ".hidden",
            "trailing dot": "a.", "slash": "a/b", "colon": "a:b", "plus": "a+b", "space": "a b", "not ASCII": "modèle",
        },
        "channel": {"empty": "", "65 bytes": "a" * 65, "plus": "a+b", "at": "a@b", "two dots": "a..b", "leading hyphen": "-a"},
        "version": {"empty": "", "65 bytes": "1" * 65, "leading plus": "+1", "two dots": "1..2", "slash": "1/2", "space": "1 2"},
    }
    for what, texts in good.items():
        for text in texts:
            shown = text if len(text) < 30 else f"{len(text)} bytes"
            vector(f, f"{what}: {shown}", "name", "NAM-001", {"what": what, "text": text})
    for what, texts in bad.items():
        for defect, text in texts.items():
            vector(f, f"refused: {what}: {defect}", "name", "NAM-001", {"what": what, "text": text}, error="is not a")

    f = "02/references"
    for text, canonical in [
        ("alba/m", "alba/m:stable"), ("alba/m:beta", "alba/m:beta"), ("alba/SmolLM2-135M@1.0.0+q4",) * 2, (THE_RELEASE,) * 2,
    ]:
        vector(f, f"{text[:40]}", "reference", "NAM-002", {"text": text}, {"canonical": canonical})
    for defect, text in {
        "empty": "", "nation alone": "alba", "no name": "alba/", "no nation": "/m", "empty channel": "alba/m:",
        "empty version": "alba/m@", "channel and version": "alba/m:beta@1", "two slashes": "alba/a/b", "short digest": "b3:00",
        "upper case digest": "b3:" + "A" * 64, "digest of 65 digits": "b3:" + "a" * 65, "digest without prefix": "a" * 64,
        "SHA-256 prefix": "sha256:" + "a" * 64, "surrounding space": " alba/m", "traversal": "alba/../m",
    }.items():
        vector(f, f"refused: {defect}", "reference", "NAM-002", {"text": text}, error="is not a")

    f = "02/times"
    for text, unix in [(NOW, 1795435200), ("1970-01-01T00:00:00Z", 0), ("2028-02-29T23:59:59Z", 1835481599)]:
        vector(f, text, "timestamp", "NAM-003", {"text": text}, {"unix": unix})
    for defect, text in {
        "empty": "", "offset": "2026-11-23T12:00:00+00:00", "other offset": "2026-11-23T13:00:00+01:00", "lower-case t": "2026-11-23t12:00:00Z",
        "lower-case z": "2026-11-23T12:00:00z", "fraction": "2026-11-23T12:00:00.0Z", "space between": "2026-11-23 12:00:00Z", "no zone": "2026-11-23T12:00:00",
        "date alone": "2026-11-23", "13th month": "2026-13-01T00:00:00Z", "30 February": "2026-02-30T00:00:00Z", "25th hour": "2026-11-23T25:00:00Z",
        "leap second": "2026-12-31T23:59:60Z", "seconds since 1970": "1795435200", "trailing space": NOW + " ",
    }.items():
        vector(f, f"refused: {defect}", "timestamp", "NAM-003", {"text": text}, error="is not a timestamp")

    f = "02/keys"
    for key in (ROOT, RELEASE, OUTSIDER):
        vector(f, f"the key of seed {key.seed[0]}", "public-key", "KEY-001 KEY-002", {"public": key.hex}, {"id": key.id})
    small = {
        "small order 1": (1).to_bytes(32, "little"),
        "small order 2": (P - 1).to_bytes(32, "little"),
        "small order 4": bytes(32),
        "small order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        "small order 1, not canonical": (P + 1).to_bytes(32, "little"),
        "no point of the curve": (2).to_bytes(32, "little"),
    }
    for defect, public in small.items():
        vector(f, f"refused: {defect}", "public-key", "KEY-001", {"public": public.hex()}, error="is not an Ed25519 public key")
    for defect, text in {
        "31 bytes": ROOT.hex[2:], "33 bytes": ROOT.hex + "00", "upper case": ROOT.hex.upper(), "base64": b64(ROOT.public), "empty": "",
    }.items():
        vector(f, f"refused: {defect}", "public-key", "KEY-001", {"public": text}, error="is not an Ed25519 public key")


def envelopes():
    f = "02/envelope"
    payload = compact(channel())
    role = {"keys": [RELEASE.hex, RELEASE2.hex], "threshold": 1}
    two = {"keys": [RELEASE.hex, RELEASE2.hex], "threshold": 2}
    good = {"digest": digest(payload), "signers": [RELEASE.id]}
    both = {"digest": digest(payload), "signers": sorted([RELEASE.id, RELEASE2.id])}

    def add(name, requirements, text, role=role, ok=None, error=None, **more):
        vector(f, name, "envelope", requirements, {"signed": text, **role, **more}, ok, error)

    one = envelope(payload, RELEASE)
    add("one envelope in an array", "ENV-001 ENV-009 ENV-011 ENV-012", compact([one]), ok=good)
    add("a single envelope", "ENV-001", compact(one), ok=good)
    add("white space around", "ENV-001", "\n\t " + json.dumps([one], indent=2) + "\n", ok=good)
    many = [envelope(payload, Key(100 + i)) for i in range(31)]
    add("32 envelopes", "ENV-001", compact(many + [one]), ok=good)
    add("refused: no envelope", "ENV-001", "[]", error="1 to 32 envelopes")
    add("refused: 33 envelopes", "ENV-001", compact(many + [one, one]), error="1 to 32 envelopes")
    add("refused: a text", "ENV-001", compact("signed"), error="not a DSSE envelope")
    add("refused: empty", "ENV-001", "", error="not a DSSE envelope")
    add("refused: array of arrays", "ENV-001", compact([[one]]), error="not a DSSE envelope")
    add("refused: something follows", "ENV-001", compact([one]) + "[]", error="not a DSSE envelope")
    add("refused: cut off", "ENV-001", compact([one])[:-20], error="not a DSSE envelope")
    add("refused: payload missing", "ENV-001", compact([without(one, "payload")]), error="not a DSSE envelope")
    add("refused: payload twice", "ENV-001", compact([one])[:-2] + ',"payload":"e30="}]', error="not a DSSE envelope")
    add("refused: 48 MiB and a byte", "ENV-002", compact([one]) + f"@fill(20,{50331649 - len(compact([one]))})",
        error="over the limit of 50331648")
    for defect, text in {"another": "application/json", "empty": "", "in capitals": PAYLOAD_TYPE.upper(), "with a parameter": PAYLOAD_TYPE + ";v=1"}.items():
        add(f"refused: payload type: {defect}", "ENV-003", compact([{**one, "payloadType": text}]), error="payload type")
    add("refused: no signature", "ENV-004", compact([{**one, "signatures": []}]), error="exactly one signature")
    add("refused: two signatures", "ENV-004", compact([{**one, "signatures": one["signatures"] + envelope(payload, RELEASE2)["signatures"]}]),
        two, error="exactly one signature")
    padded = next(p for p in (compact(channel(reason="x" * n)) for n in range(3)) if b64(p.encode()).endswith("=="))
    p = envelope(padded, RELEASE)
    add("padding", "ENV-005", compact([p]), ok={"digest": digest(padded), "signers": [RELEASE.id]})
    for defect, text in {
        "no padding": p["payload"].rstrip("="),
        "unused bits are not zero": p["payload"][:-3] + chr(ord(p["payload"][-3]) + 1) + "==",
        "line feeds": p["payload"][:76] + "\n" + p["payload"][76:],
        "URL alphabet": p["payload"][:-4] + "-_-_",
        "hexadecimal": padded.encode().hex() + "!",
        "something follows the padding": p["payload"] + "AAAA",
    }.items():
        add(f"refused: payload: {defect}", "ENV-005", compact([{**p, "payload": text}]), error="base64")
    add("refused: a payload over 8 MiB", "ENV-006", compact([{**one, "payload": "@fill(41414141,2796203)"}]),
        error="over the limit of 8388608")
    signature = one["signatures"][0]
    for defect, change in {
        "signature of 63 bytes": {"sig": b64(bytes(63))}, "signature of 65 bytes": {"sig": b64(bytes(65))}, "signature in hexadecimal": {"sig": "00" * 64},
        "signature empty": {"sig": ""}, "key identifier short": {"keyid": signature["keyid"][2:]}, "key identifier in capitals": {"keyid": signature["keyid"].upper()},
        "key identifier empty": {"keyid": ""},
    }.items():
        add(f"refused: {defect}", "ENV-007", compact([{**one, "signatures": [{**signature, **change}]}]), error="not a DSSE envelope")
    add("refused: no key identifier", "ENV-007", compact([{**one, "signatures": [{"sig": signature["sig"]}]}]), error="not a DSSE envelope")
    other = envelope(compact(channel(sequence=2)), RELEASE2)
    add("refused: two payloads", "ENV-008", compact([one, other]), two, error="different payloads")
    spaced = envelope(json.dumps(channel()), RELEASE2)
    add("refused: equal JSON, other bytes", "ENV-008", compact([one, spaced]), two, error="different payloads")

    data = payload.encode()
    bad = "signature by key"
    add("refused: signature over the bare payload", "ENV-009", compact([envelope(payload, RELEASE, RELEASE.sign(data))]), error=bad)
    add("refused: signature under another payload type", "ENV-009", compact([envelope(payload, RELEASE, RELEASE.sign(pae(data, "text/plain")))]), error=bad)
    add("refused: signature over the base64 text", "ENV-009", compact([envelope(payload, RELEASE, RELEASE.sign(pae(b64(data).encode())))]), error=bad)
    add("refused: signature over a re-serialisation", "ENV-009", compact([envelope(json.dumps(channel()), RELEASE, RELEASE.sign(pae(data)))]), error=bad)
    altered = data.replace(b'"sequence":1', b'"sequence":2')
    add("refused: altered payload", "ENV-009", compact([envelope(altered, RELEASE, RELEASE.sign(pae(data)))]), error=bad)
    flipped = bytearray(RELEASE.sign(pae(data)))
    flipped[7] ^= 1
    add("refused: altered signature", "ENV-009", compact([envelope(payload, RELEASE, bytes(flipped))]), error=bad)
    add("refused: scalar not reduced", "ENV-010", compact([envelope(payload, RELEASE, RELEASE.sign_unreduced(pae(data)))]), error=bad)
    add("refused: R of small order", "ENV-010", compact([envelope(payload, RELEASE, RELEASE.sign_small_order(pae(data)))]), error=bad)
    add("refused: all zero", "ENV-010", compact([envelope(payload, RELEASE, bytes(64))]), error=bad)
    loose = json.dumps(channel(), indent=3) + "\n"
    add("the digest is that of the bytes received", "ENV-011", signed(loose, RELEASE), ok={"digest": digest(loose), "signers": [RELEASE.id]})

    add("two of two", "ENV-012", signed(payload, RELEASE, RELEASE2), two, ok=both)
    add("refused: one of two", "ENV-012", signed(payload, RELEASE), two, error="1 of the 2 signatures")
    add("refused: one key twice", "ENV-012", signed(payload, RELEASE, RELEASE), two, error="1 of the 2 signatures")
    add("refused: threshold 0", "ENV-012", signed(payload, OUTSIDER), {"keys": [RELEASE.hex], "threshold": 0}, error="signatures")
    add("a stranger beside", "ENV-013", signed(payload, OUTSIDER, RELEASE), ok=good)
    broken = envelope(payload, OUTSIDER, bytes(64))
    add("a stranger's invalid signature beside", "ENV-013", compact([broken, one]), ok=good)
    add("refused: strangers only", "ENV-013", signed(payload, OUTSIDER, Key(98)), error="0 of the 1 signatures")
    add("refused: a stranger fills the threshold", "ENV-013", signed(payload, RELEASE, OUTSIDER), two, error="1 of the 2 signatures")
    forged = envelope(payload, OUTSIDER, keyid=RELEASE2.id)
    add("refused: one of the role is invalid beside a valid one", "ENV-014", compact([one, forged]), error=bad)
    add("refused: a valid and an invalid one by one key", "ENV-014", compact([one, envelope(payload, RELEASE, bytes(64))]), error=bad)
