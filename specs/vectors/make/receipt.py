"""Document 12: receipts."""

import json

from blake3 import blake3

from common import (
    ALL, BOREA, NODE, NOW, OUTSIDER, ROOT, THE_RELEASE, Key, b64, compact, envelope, named, node, root, signed, single_key_root, statement, vector,
)

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PEER_KEY = Key(41)
REQUEST = '{"model":"alba/smollm2","prompt":"Why is the sky blue?","temperature":0}'
RESPONSE = '{"choices":[{"text":"It scatters."}]}'
LATER = "2026-11-24T12:00:00Z"


def base58(data):
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def peer(key, prefix="002408011220"):
    return base58(bytes.fromhex(prefix) + key.public)


def b3(text):
    return "b3:" + blake3(text.encode()).hexdigest()


def predicate(**changes):
    out = {
        "release": THE_RELEASE, "model": "alba/smollm2", "version": "1.0.0", "request": b3(REQUEST), "response": b3(RESPONSE),
        "engine": "llama.cpp on CPU, 1 thread", "sampling": {"temperature": 0, "max_tokens": 16}, "nation": "alba", "node": peer(PEER_KEY),
        "issued": LATER,
    }
    out.update(changes)
    return {key: value for key, value in out.items() if value is not None}


def subjects(response):
    return [{"name": "response", "digest": {"blake3": response.removeprefix("b3:")}}]


def payload(given=None, about=None, **changes):
    given = given or predicate(**changes)
    return compact(statement("receipt", given, about if about is not None else subjects(given["response"])))


def certificate(key=NODE, peer_id=None, **changes):
    return signed(compact(node(peerId=peer_id or peer(PEER_KEY), **changes)), key)


def receipt(text=None, key=PEER_KEY, vouched=None, inner=None, **changes):
    inner = inner or compact(envelope(text or payload(**changes), key))
    return f'{{"receipt":{inner},"certificate":{vouched or certificate()}}}'


def case(title, identifiers, text, error=None, now="2026-11-24T12:00:00Z", roots=None, **more):
    roots = roots or [signed(compact(root()), ROOT)]
    given = {"roots": roots, "receipt": [{"text": text}], "now": now}
    for name, body in more.items():
        given[name] = [{"text": body}]
    ok = {"node": peer(PEER_KEY), "nation": "alba", "release": THE_RELEASE}
    vector("12/receipt", title, "receipt", identifiers, given, None if error else ok, error)


def shapes():
    case("A receipt", "RCP-001 RCP-002 RCP-003 RCP-004 RCP-007 RCP-008 RCP-009 RCP-010", receipt())
    case("With a lease and without sampling", "RCP-003 RCP-006", receipt(leaseEnds="2026-11-24T13:00:00Z", sampling=None))
    case("Unknown fields beside the known ones", "RCP-001 RCP-003", receipt(text=payload(predicate(colour="red"))).replace('{"receipt"', '{"more":1,"receipt"', 1))
    case("A critical field that is known", "RCP-003", receipt(text=payload(predicate(critical=["engine", "leaseEnds"]))))
    adapter = {"release": b3("adapter"), "model": "cora/legal", "version": "1.0.0"}
    case("With an adapter", "RCP-003 RCP-013", receipt(text=payload(predicate(adapter=adapter, critical=["adapter"]))))
    case("Refused: an adapter that is not critical", "RCP-013", receipt(text=payload(predicate(adapter=adapter))), "unfit")
    case("Refused: an adapter without a version", "RCP-003", receipt(text=payload(predicate(adapter={**adapter, "version": None}, critical=["adapter"]))), "malformed")
    case("Refused: too long", "RCP-001", receipt() + " " * 65_536, "too-large")
    case("Refused: no JSON", "RCP-001", "receipt", "malformed")
    case("Refused: a list", "RCP-001", f"[{receipt()}]", "malformed")
    case("Refused: no certificate", "RCP-001", f'{{"receipt":{compact(envelope(payload(), PEER_KEY))}}}', "malformed")
    case("Refused: no envelope", "RCP-001", f'{{"certificate":{certificate()}}}', "malformed")
    twice = receipt()[:-1] + f',"certificate":{certificate()}}}'
    case("Refused: the certificate twice", "RCP-001", twice, "malformed")
    one = compact(envelope(payload(), PEER_KEY))
    case("Refused: two envelopes", "RCP-002", receipt(inner=f"[{one},{compact(envelope(payload(), OUTSIDER))}]"), "malformed")
    case("Refused: no signature", "RCP-002", receipt(inner=compact({**json.loads(one), "signatures": []})), "envelope")
    case("Refused: two signatures", "RCP-002", receipt(inner=compact({**json.loads(one), "signatures": json.loads(one)["signatures"] * 2})), "envelope")
    case("Refused: another payload type", "RCP-002", receipt(inner=one.replace("vnd.in-toto+json", "json")), "envelope")
    case("Refused: a payload in lax base64", "RCP-002", receipt(inner=one.replace('{"payload":"', '{"payload":" ', 1)), "envelope")
    case("Refused: a certificate without envelopes", "RCP-002", receipt(vouched="[]"), "envelope")


def contents():
    case("Refused: a release in the place of a receipt", "RCP-003", receipt(text=payload().replace(":receipt:v1", ":release:v1")), "malformed")
    case("Refused: another version of receipts", "RCP-003", receipt(text=payload().replace(":receipt:v1", ":receipt:v2")), "malformed")
    case("Refused: another statement type", "RCP-003", receipt(text=payload().replace("Statement/v1", "Statement/v0.1")), "malformed")
    for field in ("release", "model", "version", "request", "engine", "nation", "node", "issued"):
        case(f"Refused: no {field}", "RCP-003", receipt(text=payload(predicate(**{field: None}))), "malformed")
    case("Refused: no response", "RCP-003", receipt(text=payload(predicate(response=None), subjects(b3(RESPONSE)))), "malformed")
    case("Refused: a release that is no digest", "RCP-003", receipt(release="b3:00"), "malformed")
    case("Refused: a model that is no name", "RCP-003", receipt(model="Alba/smollm2"), "malformed")
    case("Refused: a time that is none", "RCP-003", receipt(issued="yesterday"), "malformed")
    case("Refused: an unknown critical field", "RCP-003", receipt(text=payload(predicate(critical=["colour"]))), "critical")
    case("Refused: no subject", "RCP-004", receipt(text=payload(about=[])), "unfit")
    case("Refused: two subjects", "RCP-004", receipt(text=payload(about=subjects(b3(RESPONSE)) * 2)), "unfit")
    case("Refused: a subject of another name", "RCP-004", receipt(text=payload(about=named("request"))), "unfit")
    case("Refused: a subject of another digest", "RCP-004", receipt(text=payload(about=subjects(b3(REQUEST)))), "unfit")
    extra = subjects(b3(RESPONSE))
    extra[0]["digest"]["sha256"] = "0" * 64
    case("Refused: a subject with a second digest", "RCP-004", receipt(text=payload(about=extra)), "unfit")
    case("An engine's name of 200 bytes", "RCP-005", receipt(engine="x" * 200))
    case("Refused: an engine's name of 201 bytes", "RCP-005", receipt(engine="x" * 201), "unfit")
    case("Refused: a control character in the engine's name", "RCP-005", receipt(engine="llama\u001b[2J"), "unfit")
    case("Refused: 17 values of sampling", "RCP-005", receipt(sampling={f"v{i}": i for i in range(17)}), "unfit")
    case("Refused: sampling that is no number", "RCP-005", receipt(sampling={"stop": "now"}), "malformed")
    case("Refused: a long name in sampling", "RCP-005", receipt(sampling={"v" * 33: 1}), "unfit")
    case("Refused: a lease that had ended", "RCP-006", receipt(leaseEnds="2026-11-24T11:59:59Z"), "unfit")


def trust():
    stranger = [signed(compact(single_key_root("borea", BOREA)), BOREA)]
    for title, name in [
        ("a peer identifier in other letters", peer(PEER_KEY).replace("o", "0")),
        ("a peer identifier of another kind of key", peer(PEER_KEY, "002408021220")),
        ("a peer identifier with a zero before it", "1" + peer(PEER_KEY)),
        ("a peer identifier cut short", peer(PEER_KEY)[:-1]),
        ("no peer identifier", ""),
    ]:
        case(f"Refused: {title}", "RCP-007", receipt(node=name), "unfit")
    case("Refused: signed by another key", "RCP-008", receipt(key=OUTSIDER), "bad-signature")
    case("Refused: signed by another key in the node's name", "RCP-008", receipt(inner=compact(envelope(payload(), OUTSIDER, keyid=PEER_KEY.id))), "bad-signature")
    case("Refused: the node's signature under another key's name", "RCP-008", receipt(inner=compact(envelope(payload(), PEER_KEY, keyid=OUTSIDER.id))), "bad-signature")
    inner = json.loads(compact(envelope(payload(), PEER_KEY)))
    inner["payload"] = b64(payload(version="2.0.0").encode())
    case("Refused: altered after it was signed", "RCP-008", receipt(inner=compact(inner)), "bad-signature")
    from common import pae
    lax = PEER_KEY.sign_small_order(pae(payload().encode()))
    case("Refused: a signature that only a lax verifier takes", "RCP-008", receipt(inner=compact(envelope(payload(), PEER_KEY, signature=lax))), "bad-signature")
    case("Refused: the nation is not pinned", "RCP-009", receipt(), "not-vouched", roots=stranger)
    case("Refused: a certificate by another key", "RCP-009", receipt(vouched=certificate(OUTSIDER)), "not-vouched")
    case("Refused: a certificate of another node", "RCP-009", receipt(vouched=certificate(peer_id=peer(OUTSIDER))), "not-vouched")
    case("Refused: a certificate that had ended", "RCP-009", receipt(vouched=certificate(expires="2026-11-24T12:00:00Z")), "not-vouched")
    case("Refused: a statement that is no certificate", "RCP-009", receipt(vouched=signed(compact(root()), ROOT)), "not-vouched")
    case("Refused: another nation than vouches", "RCP-009", receipt(nation="borea"), "other-nation", roots=[signed(compact(root()), ROOT), *stranger])
    case("Kept after certificate and root have ended", "RCP-009 RCP-010", receipt(), now="2040-01-01T00:00:00Z")
    case("Refused: before the certificate", "RCP-010", receipt(issued="2026-11-23T11:59:59Z"), "before-certificate")
    case("Ten minutes in the future", "RCP-010", receipt(), now="2026-11-24T11:50:00Z")
    case("Refused: more than ten minutes in the future", "RCP-010", receipt(), "from-the-future", now="2026-11-24T11:49:59Z")


def answers():
    case("Of this request and this response", "RCP-011 RCP-012", receipt(), request=REQUEST, response=RESPONSE)
    case("Refused: another request", "RCP-011", receipt(), "other", request=REQUEST + " ")
    case("Refused: a request of nothing", "RCP-011", receipt(), "other", request="")
    case("Refused: another response", "RCP-012", receipt(), "other", response=RESPONSE.replace("It", "it"))
    stream = 'data: {"choices":[{"text":"It"}]}\n\ndata: {"choices":[{"text":" scatters."}]}\n\n'
    about = receipt(response=b3(stream))
    ending = f'data: {{"steelyard_receipt":{about},"choices":[]}}\n\ndata: [DONE]\n\n'
    case("Of a stream, without the event that carries it", "RCP-012", about, response=stream + ending)
    case("Refused: a stream with an event left out", "RCP-012", about, "other", response=stream.split("\n\n")[0] + "\n\n" + ending)
    case("Refused: a stream whose digest is of all of it", "RCP-012", receipt(response=b3(stream + ending)), "other", response=stream + ending)
    quoted = 'data: {"choices":[{"text":"data: {\\"steelyard_receipt\\":1}"}]}\n\n'
    about = receipt(response=b3(quoted))
    case("Of a stream whose text speaks of receipts", "RCP-012", about, response=quoted)
    early = 'data: {"steelyard_receipt":{}}\n\n' + stream
    about = receipt(response=b3(early))
    ending = f'data: {{"steelyard_receipt":{about},"choices":[]}}\n\ndata: [DONE]\n\n'
    case("Of a stream cut at the last such line", "RCP-012", about, response=early + ending)


def all():
    shapes()
    contents()
    trust()
    answers()
