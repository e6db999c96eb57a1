"""Document 12: receipts."""

import json
import unicodedata

from steelyard.core import ed25519
from .basic import Refused, digest_of, given, is_digest, is_model, is_name, need, read_json, timestamp
from steelyard.core.envelope import Signed
from steelyard.core.statement import Statement
from steelyard.core.trust import trusting

MAX_RECEIPT = 65_536
KNOWN = "release model version request response engine sampling nation node issued leaseEnds adapter critical".split()
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PEER = bytes.fromhex("002408011220")
CARRIER = b'data: {"steelyard_receipt":'


def named(code, work, *arguments):
    """What `work` refuses is refused as `code`."""
    try:
        return work(*arguments)
    except Refused:
        raise Refused(code) from None


def public_key(peer):
    """The Ed25519 key that a peer identifier holds."""
    number = 0
    need(len(peer) <= 128 and all(letter in BASE58 for letter in peer), "unfit")
    for letter in peer:
        number = number * 58 + BASE58.index(letter)
    zeros = len(peer) - len(peer.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    need(len(data) == 38 and data[:6] == PEER, "unfit")
    return data[6:]


class Claim:
    """A payload that was understood."""

    def __init__(self, payload):
        value = named("malformed", read_json, payload)
        need(isinstance(value, dict) and value.get("_type") == "https://in-toto.io/Statement/v1", "malformed")
        need(value.get("predicateType") == "urn:steelyard:receipt:v1", "malformed")
        it, subjects = value.get("predicate"), value.get("subject")
        need(isinstance(it, dict) and isinstance(subjects, list), "malformed")
        critical = it.get("critical", [])
        need(isinstance(critical, list) and all(name in KNOWN for name in critical), "critical")
        for name in ("release", "request", "response"):
            need(is_digest(it.get(name)), "malformed")
        need(is_model(it.get("model")) and is_name("version", it.get("version")), "malformed")
        need(is_name("nation", it.get("nation")), "malformed")
        need(isinstance(it.get("engine"), str) and isinstance(it.get("node"), str), "malformed")
        self.issued = named("malformed", timestamp, it.get("issued"))
        sampling = it.get("sampling", {})
        need(isinstance(sampling, dict), "malformed")
        numbers = (type(number) in (int, float) for number in sampling.values())
        need(all(numbers), "malformed")
        adapter = it.get("adapter")
        if adapter is not None:
            need(isinstance(adapter, dict) and is_digest(adapter.get("release")), "malformed")
            need(is_model(adapter.get("model")) and is_name("version", adapter.get("version")), "malformed")
            need("adapter" in it.get("critical", []), "unfit")
        self.fields = it
        self.fit(subjects, sampling)

    def fit(self, subjects, sampling):
        it = self.fields
        response = {"blake3": it["response"][3:]}
        need(len(subjects) == 1 and isinstance(subjects[0], dict), "unfit")
        need(subjects[0].get("name") == "response" and subjects[0].get("digest") == response, "unfit")
        engine = it["engine"]
        need(len(engine.encode()) <= 200 and all(unicodedata.category(c) != "Cc" for c in engine), "unfit")
        need(len(sampling) <= 16 and all(len(name.encode()) <= 32 for name in sampling), "unfit")
        if "leaseEnds" in it:
            need(named("malformed", timestamp, it["leaseEnds"]) >= self.issued, "unfit")


def certified(request, claim, certificate):
    """The certificate's statement, believed at the moment of the answer."""
    signed = named("envelope", Signed, certificate)
    mine = named("not-vouched", trusting, given, request, claim.issued)
    it = named("not-vouched", mine.certificate, signed, claim.fields["node"], claim.issued)
    need(it.nation == claim.fields["nation"], "other-nation")
    return it


def without_receipt(body):
    """A response's body without the event that carries the receipt."""
    lines = body.split(b"\n")
    starts = [at for at, line in enumerate(lines) if line.startswith(CARRIER)]
    return body[:sum(len(line) + 1 for line in lines[:starts[-1]])] if starts else body


def receipt(request):
    data, now = given(request["receipt"]), timestamp(request["now"])
    need(len(data) <= MAX_RECEIPT, "too-large")
    value = named("malformed", read_json, data)
    need(isinstance(value, dict) and isinstance(value.get("receipt"), dict) and "certificate" in value, "malformed")
    signed = named("envelope", Signed, json.dumps(value["receipt"]).encode())
    claim = Claim(signed.payload)
    key = public_key(claim.fields["node"])
    named("bad-signature", signed.verify, {ed25519.key_id(key): key}, 1)
    need(claim.issued <= now + 600, "from-the-future")
    certificate = certified(request, claim, json.dumps(value["certificate"]).encode())
    need(claim.issued >= certificate.issued, "before-certificate")
    if "request" in request:
        need(digest_of(given(request["request"])) == claim.fields["request"], "other")
    if "response" in request:
        need(digest_of(without_receipt(given(request["response"]))) == claim.fields["response"], "other")
    return {name: claim.fields[name] for name in ("node", "nation", "release")}
