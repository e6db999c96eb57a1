"""What all documents' vectors are made of: keys, signatures, statements, and the writing of files."""

import base64
import copy
import hashlib
import json
import pathlib
import re

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = pathlib.Path(__file__).parent.parent
PAYLOAD_TYPE = "application/vnd.in-toto+json"
NOW = "2026-11-23T12:00:00Z"
L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19

ALL = {}


# A part of the reason for people, and the code of the defect.
CODES = {
    "is not a": "name", "is not a timestamp": "time", "is not an Ed25519 public key": "key",
    "1 to 32 envelopes": "envelope-count", "not a DSSE envelope": "not-dsse", "base64": "not-dsse", "over the limit of 50331648": "too-large",
    "over the limit of 8388608": "too-large", "payload type": "payload-type", "exactly one signature": "signature-count",
    "different payloads": "different-payloads", "signature by key": "bad-signature", "of the": "threshold", "signatures": "threshold",
    "statement type": "type", "is unknown": "predicate", "critical": "critical", "not an in-toto statement": "malformed", "": "malformed",
    "do not match its predicate": "subject", "not pinned": "not-pinned", "has the fingerprint": "fingerprint", "this is version 2": "not-the-first",
    "not a nation's root": "not-a-root", "is pinned with the root": "other-root", "not a node certificate": "not-a-certificate",
    "but the connection is with": "other-peer", "future": "from-the-future", "expired": "root-expired", "is refused": "unfit",
}


def vector(file, title, kind, identifiers, given, ok=None, error=None):
    """One vector: `ok` is what must come out, `error` the code of the defect (or the part of the reason that stands for it)."""
    folder, topic = file.split("/")
    if error is not None:
        error = "threshold" if re.match(r"\d of the \d signatures", error) else CODES.get(error, error)
    given = {key: parts(value) if key in ("signed", "payload", "root", "pinned") else value for key, value in given.items()}
    if "roots" in given:
        given["roots"] = [parts(root) for root in given["roots"]]
    words = re.sub(r"[^a-z0-9]+", "-", title.lower().removeprefix("refused: ")).strip("-")
    path = HERE / folder / f"{topic}-{words}.json"
    assert path not in ALL, path
    ALL[path] = {
        "identifiers": identifiers.split(), "title": title[0].upper() + title[1:], "kind": kind, "input": given,
        "expect": {"ok": {} if ok is None else ok} if error is None else {"error": error},
    }


def parts(value):
    """Bytes as the vectors write them: a list of parts. `@fill(hex,times)` stands for many repeated bytes."""
    out = []
    for i, piece in enumerate(re.split(r"@fill\((\w+,\d+)\)", value)):
        if i % 2:
            repeated, times = piece.split(",")
            out.append({"repeat": repeated, "times": int(times)})
        elif piece:
            out.append({"text": piece})
    return out


# ---------------------------------------------------------------------------------------------- keys and signatures


class Key:
    def __init__(self, seed):
        self.seed = bytes([seed]) * 32
        self.private = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = self.private.public_key().public_bytes_raw()
        self.hex = self.public.hex()
        self.id = blake3(b"ed25519:" + self.public).hexdigest()
        digest = bytearray(hashlib.sha512(self.seed).digest()[:32])
        digest[0] &= 248
        digest[31] = digest[31] & 63 | 64
        self.scalar = int.from_bytes(digest, "little")

    def sign(self, message):
        return self.private.sign(message)

    def sign_small_order(self, message):
        """Valid for a lax verifier: R is the neutral element, so S alone answers for the whole."""
        r = (1).to_bytes(32, "little")
        k = int.from_bytes(hashlib.sha512(r + self.public + message).digest(), "little") % L
        return r + (k * self.scalar % L).to_bytes(32, "little")

    def sign_unreduced(self, message):
        signature = self.sign(message)
        s = int.from_bytes(signature[32:], "little") + L
        return signature[:32] + s.to_bytes(32, "little")


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def pae(payload, payload_type=PAYLOAD_TYPE):
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def b64(data):
    return base64.b64encode(data).decode()


def envelope(payload, key, signature=None, keyid=None):
    payload = payload.encode() if isinstance(payload, str) else payload
    return {
        "payload": b64(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keyid or key.id, "sig": b64(signature or key.sign(pae(payload)))}],
    }


def signed(payload, *keys):
    return compact([envelope(payload, key) for key in keys])


def digest(payload):
    return "b3:" + blake3(payload.encode()).hexdigest()


ROOT, RELEASE, RELEASE2, ATTEST, RECALL, LOG, NODE = (Key(seed) for seed in range(1, 8))
OUTSIDER = Key(99)
BOREA = Key(17)

# ------------------------------------------------------------------------------------------------------- statements


def statement(kind, predicate, subjects):
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": f"urn:steelyard:{kind}:v1",
        "predicate": predicate,
    }


def named(name):
    return [{"name": name, "digest": {"blake3": blake3(name.encode()).hexdigest()}}]


def about(release):
    return [{"name": release, "digest": {"blake3": release.removeprefix("b3:")}}]


def root(nation="alba", keys=None, roles=None, **changes):
    if keys is None:
        keys = [ROOT, RELEASE, RELEASE2, ATTEST, RECALL, LOG, NODE]
        roles = {
            "root": ([ROOT], 1),
            "release": ([RELEASE, RELEASE2], 1),
            "attest": ([ATTEST], 1),
            "recall": ([RECALL], 1),
            "log": ([LOG], 1),
            "node": ([NODE], 1),
        }
    predicate = {
        "nation": nation,
        "version": 1,
        "issued": "2026-11-01T00:00:00Z",
        "expires": "2028-11-01T00:00:00Z",
        "keys": {key.id: {"algorithm": "ed25519", "public": key.hex} for key in keys},
        "roles": {
            name: {"keys": [key.id for key in members], "threshold": threshold}
            for name, (members, threshold) in roles.items()
        },
    }
    predicate.update(changes)
    return statement("root", {k: v for k, v in predicate.items() if v is not None}, named(nation))


def single_key_root(nation, key):
    roles = {name: ([key], 1) for name in ("root", "release", "attest", "recall", "log", "node")}
    return root(nation, [key], roles)


def files(*paths):
    out = []
    for path in paths:
        content = path.encode()
        out.append(
            {
                "path": path,
                "size": len(content),
                "mediaType": "application/octet-stream",
                "chunkMap": "b3:" + blake3(b"map of " + content).hexdigest(),
            }
        )
    return out


def release(paths=("model.gguf", "README.md"), subjects=None, **changes):
    predicate = {
        "model": "alba/smollm2",
        "version": "1.0.0",
        "format": "gguf",
        "licence": "Apache-2.0",
        "derivedFrom": [{"release": "b3:" + "a" * 64, "relation": "quantisation"}],
        "releasableTo": ["borea", "cora"],
        "modelCard": "README.md",
        "issued": NOW,
        "files": files(*paths),
    }
    predicate.update(changes)
    if subjects is None:
        subjects = [
            {
                "name": path,
                "digest": {
                    "blake3": blake3(path.encode()).hexdigest(),
                    "sha256": hashlib.sha256(path.encode()).hexdigest(),
                },
            }
            for path in paths
        ]
    return statement("release", {k: v for k, v in predicate.items() if v is not None}, subjects)


THE_RELEASE = digest(compact(release()))
OTHER_RELEASE = digest(compact(release(version="2.0.0")))


def channel(subjects=None, **changes):
    predicate = {
        "model": "alba/smollm2",
        "channel": "stable",
        "sequence": 1,
        "release": THE_RELEASE,
        "reason": "",
        "issued": NOW,
    }
    predicate.update(changes)
    return statement("channel", predicate, subjects or about(predicate["release"]))


def recall(subjects=None, **changes):
    predicate = {
        "nation": "alba",
        "target": {"release": THE_RELEASE},
        "reason": "leaks its system prompt",
        "severity": "high",
        "sequence": 1,
        "issued": NOW,
    }
    predicate.update(changes)
    if subjects is None:
        subjects = about(next(iter(predicate["target"].values())))
    return statement("recall", predicate, subjects)


PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


def node(subjects=None, **changes):
    predicate = {
        "nation": "alba",
        "peerId": PEER,
        "capabilities": ["fetch", "serve"],
        "issued": NOW,
        "expires": "2027-11-23T12:00:00Z",
    }
    predicate.update(changes)
    return statement("node", predicate, subjects or named(predicate["peerId"]))


def without(value, *path):
    value = copy.deepcopy(value)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return value


def write():
    for folder in sorted({path.parent for path in ALL}):
        folder.mkdir(exist_ok=True)
        # The first vectors of document 01 were written by hand.
        for old in [] if folder.name == "01" else folder.glob("*.json"):
            old.unlink()
    for path, entry in ALL.items():
        path.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n")
    print(len(ALL), "vectors,", sum("error" in entry["expect"] for entry in ALL.values()), "negative")
