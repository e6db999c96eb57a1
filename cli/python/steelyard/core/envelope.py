"""Document 02: envelopes and the one threshold check."""

from . import ed25519
from .basic import Refused, digest_of, is_hex, need, read_json, unbase64

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_SIGNED = 50_331_648
MAX_PAYLOAD = 8_388_608


def pae(payload):
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


class Signed:
    """A payload and the signatures over it, as (key identifier, signature)."""

    def __init__(self, data):
        need(len(data) <= MAX_SIGNED, "too-large")
        value = read_json(data)
        envelopes = value if isinstance(value, list) else [value]
        need(1 <= len(envelopes) <= 32, "envelope-count")
        self.signatures, payloads = [], set()
        for envelope in envelopes:
            need(isinstance(envelope, dict), "not-dsse")
            need(isinstance(envelope.get("payloadType"), str), "not-dsse")
            need(envelope["payloadType"] == PAYLOAD_TYPE, "payload-type")
            signatures = envelope.get("signatures")
            need(isinstance(signatures, list), "not-dsse")
            need(len(signatures) == 1, "signature-count")
            one = signatures[0]
            need(isinstance(one, dict) and is_hex(one.get("keyid")), "not-dsse")
            payload, signature = unbase64(envelope.get("payload")), unbase64(one.get("sig"))
            need(len(payload) <= MAX_PAYLOAD, "too-large")
            need(len(signature) == 64, "not-dsse")
            payloads.add(payload)
            self.signatures.append((one["keyid"], signature))
        need(len(payloads) == 1, "different-payloads")
        self.payload = payloads.pop()
        self.digest = digest_of(self.payload)

    def verify(self, keys, threshold):
        """The signers that count; `keys` are those of the role, by identifier."""
        message, valid = pae(self.payload), set()
        for identifier, signature in self.signatures:
            if identifier in keys:
                need(ed25519.verify(keys[identifier], message, signature), "bad-signature")
                valid.add(identifier)
        need(threshold >= 1 and len(valid) >= threshold, "threshold")
        return valid

    def satisfies(self, keys, threshold):
        try:
            self.verify(keys, threshold)
            return True
        except Refused:
            return False
