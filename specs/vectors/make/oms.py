"""Document 11: Model Signing bundles and attachments."""

import base64
import copy
import hashlib
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from common import PAYLOAD_TYPE, b64, compact, files, pae, release, vector

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Signer:
    """ECDSA P-256 whose nonce follows from key and message, so that the vectors are made alike each time."""

    def __init__(self, secret):
        self.key = ec.derive_private_key(secret, ec.SECP256R1())
        public = self.key.public_key()
        self.pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        self.hint = hashlib.sha256(self.pem.encode()).hexdigest()

    def sign(self, message):
        return self.key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


ALBA, OTHER = Signer(7), Signer(8)
SHA = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.txt", "sub/b.txt", "c.txt", "extra")}


def root_of(resources):
    return hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()


def statement(resources=None, **changes):
    if resources is None:
        resources = [{"name": n, "algorithm": "sha256", "digest": SHA[n]} for n in ("a.txt", "sub/b.txt")]
    value = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": root_of(resources)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": ["model.sig", ".git"]},
            "resources": resources,
        },
    }
    value.update(changes)
    return value


def bundle(payload=None, signer=ALBA, signature=None, **changes):
    payload = compact(statement()) if payload is None else payload
    payload = payload if isinstance(payload, (str, bytes)) else compact(payload)
    data = payload.encode() if isinstance(payload, str) else payload
    value = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": signer.hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": b64(data), "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64(signature or signer.sign(pae(data))), "keyid": ""}],
        },
    }
    value.update(changes)
    return value


def resource(name, algorithm="sha256", digest=None):
    return {"name": name, "algorithm": algorithm, "digest": digest or hashlib.sha256(name.encode()).hexdigest()}


def bundles():
    f = "11/oms"
    good = {"name": "model", "root": root_of(statement()["predicate"]["resources"]), "files": 2, "signer": ALBA.hint}

    def add(title, ids, value, ok=None, error=None, public=ALBA.pem):
        text = value if isinstance(value, (str, list)) else compact(value)
        given = [{"text": text}] if isinstance(text, str) else text
        vector(f, title, "model-signing", ids, {"bundle": given, "public": public}, ok, error)

    def predicate(**changes):
        value = statement()
        value["predicate"] = {**value["predicate"], **changes}
        return value

    def serialised(**changes):
        value = statement()
        value["predicate"]["serialization"].update(changes)
        return value

    add("as the client writes it", "OMS-001 OMS-002 OMS-003 OMS-006 OMS-010", bundle(), good)
    add("with white space, as older clients write it", "OMS-001", json.dumps(bundle(json.dumps(statement(), indent=2)), indent=2), good)
    add("fields that nobody knows", "OMS-001", {**bundle(), "later": {"mediaType": 1}}, good)
    add("without a hint", "OMS-005", bundle(verificationMaterial={"publicKey": {}, "tlogEntries": []}), good)
    add("an empty hint", "OMS-005", bundle(verificationMaterial={"publicKey": {"hint": ""}}), good)
    add("without ignored paths", "OMS-011", bundle({**statement(), "predicate": {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": True},
        "resources": statement()["predicate"]["resources"]}}), good)

    text = compact(bundle())
    add("refused: no bytes", "OMS-001", "", error="malformed")
    add("refused: a list", "OMS-001", [{"text": "[" + text + "]"}], error="malformed")
    add("refused: cut off", "OMS-001", text[:-1], error="malformed")
    add("refused: something follows", "OMS-001", text + "{}", error="malformed")
    add("refused: a byte over 16 MiB", "OMS-001", [{"text": text}, {"repeat": "20", "times": 16777217 - len(text)}], error="too-large")
    add("refused: the media type twice", "OMS-001", '{"mediaType":"x",' + text[1:], error="malformed")
    add("refused: the envelope twice", "OMS-001", text[:-1] + ',"dsseEnvelope":{"payload":"","payloadType":"","signatures":[]}}', error="malformed")
    inner = compact(statement())
    add("refused: the predicate twice", "OMS-001", bundle(inner[:-1] + ',"predicate":' + compact(predicate(resources=[resource("evil")])["predicate"]) + "}"), error="malformed")
    add("refused: the resources twice", "OMS-001", bundle(inner[:-2] + ',"resources":[]}}'), error="malformed")
    add("refused: no envelope", "OMS-001", {k: v for k, v in bundle().items() if k != "dsseEnvelope"}, error="malformed")
    add("refused: a payload that is no JSON", "OMS-001", bundle("model"), error="malformed")
    add("refused: a payload with something behind", "OMS-001", bundle(inner + " {}"), error="malformed")

    add("refused: media type of version 0.2", "OMS-002", bundle(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"), error="type")
    one = bundle()
    one["dsseEnvelope"]["payloadType"] = "application/json"
    add("refused: another payload type", "OMS-002", one, error="type")
    add("refused: another statement type", "OMS-002", bundle(statement(_type="https://in-toto.io/Statement/v0.1")), error="type")
    add("refused: the predicate of clients before 1.0", "OMS-002", bundle(statement(predicateType="https://model_signing/Digests/v0.1")), error="type")
    add("refused: SLSA provenance", "OMS-002", bundle(statement(predicateType="https://slsa.dev/provenance/v1")), error="type")

    add("refused: a certificate", "OMS-003", bundle(verificationMaterial={"certificate": {"rawBytes": ""}}), error="not-by-key")
    add("refused: a certificate beside the key", "OMS-003", bundle(verificationMaterial={"publicKey": {"hint": ALBA.hint}, "certificate": {"rawBytes": ""}}), error="not-by-key")
    add("refused: a chain of certificates", "OMS-003", bundle(verificationMaterial={"x509CertificateChain": {"certificates": []}}), error="not-by-key")
    add("refused: neither key nor certificate", "OMS-003", bundle(verificationMaterial={"tlogEntries": []}), error="not-by-key")

    none = bundle()
    none["dsseEnvelope"]["signatures"] = []
    add("refused: no signature", "OMS-004", none, error="signature-count")
    two = bundle()
    two["dsseEnvelope"]["signatures"] *= 2
    add("refused: one signature twice", "OMS-004", two, error="signature-count")
    second = bundle()
    second["dsseEnvelope"]["signatures"] += bundle(signer=OTHER)["dsseEnvelope"]["signatures"]
    add("refused: a second signature by another key", "OMS-004", second, error="signature-count")

    add("refused: signed by another key", "OMS-005", bundle(signer=OTHER), error="other-key")
    add("refused: the hint of another key", "OMS-005", bundle(verificationMaterial={"publicKey": {"hint": OTHER.hint}}), error="other-key")
    add("refused: a hint in capitals", "OMS-005", bundle(verificationMaterial={"publicKey": {"hint": ALBA.hint.upper()}}), error="other-key")
    p384 = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    pem384 = p384.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    add("refused: a key of P-384", "OMS-005", bundle(), error="key", public=pem384)
    add("refused: a key that is no PEM", "OMS-005", bundle(), error="key", public=ALBA.hint)

    data = inner.encode()
    add("refused: another key under our hint", "OMS-006", bundle(signature=OTHER.sign(pae(data))), error="bad-signature")
    add("refused: signed without the pre-authentication encoding", "OMS-006", bundle(signature=ALBA.sign(data)), error="bad-signature")
    compat = f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(data)} {data}".encode()
    add("refused: the encoding that clients before 1.0 signed", "OMS-006", bundle(signature=ALBA.sign(compat)), error="bad-signature")
    r, s = decode_dss_signature(ALBA.sign(pae(data)))
    add("the other of the two signatures that one makes", "OMS-006", bundle(signature=encode_dss_signature(r, ORDER - s)), good)
    add("refused: r and s without DER", "OMS-006", bundle(signature=r.to_bytes(32, "big") + s.to_bytes(32, "big")), error="bad-signature")
    add("refused: a byte behind the DER", "OMS-006", bundle(signature=ALBA.sign(pae(data)) + b"\0"), error="bad-signature")
    add("refused: s of zero", "OMS-006", bundle(signature=encode_dss_signature(r, 0)), error="bad-signature")
    add("refused: s above the order", "OMS-006", bundle(signature=encode_dss_signature(r, s + ORDER)), error="bad-signature")
    altered = bundle(inner.replace(SHA["a.txt"], SHA["extra"]), signature=ALBA.sign(pae(data)))
    add("refused: an altered payload", "OMS-006", altered, error="bad-signature")

    lax = bundle()
    lax["dsseEnvelope"]["payload"] = lax["dsseEnvelope"]["payload"].rstrip("=") + "\n"
    add("refused: a line feed in the payload's base64", "OMS-007", lax, error="malformed")
    lax = bundle()
    lax["dsseEnvelope"]["signatures"][0]["sig"] = ALBA.sign(pae(data)).hex()
    add("refused: a signature in hexadecimal", "OMS-007", lax, error="malformed")

    add("refused: shards", "OMS-008", bundle(serialised(method="shards", shard_size=1000000000)), error="method")
    add("refused: BLAKE3", "OMS-008", bundle(serialised(hash_type="blake3")), error="method")
    add("refused: a hash type in capitals", "OMS-008", bundle(serialised(hash_type="SHA256")), error="method")
    add("refused: one file by another algorithm", "OMS-008", bundle(statement([resource("a.txt"), resource("sub/b.txt", "blake2b")])), error="method")
    add("refused: a digest of 63 digits", "OMS-008", bundle(predicate(resources=[resource("a.txt", digest="0" * 63)])), error="malformed")

    for title, names in {
        "no files": [], "a name twice": ["a.txt", "a.txt"], "a name that climbs": ["../a.txt"], "a name that climbs inside": ["sub/../../a.txt"],
        "an absolute name": ["/etc/passwd"], "a name with a backslash": ["sub\\a.txt"], "a name with a line feed": ["a\n.txt"], "an empty name": [""],
        "names that differ in case": ["a.txt", "A.txt"], "a file that is another's folder": ["sub", "sub/b.txt"], "a name with a dot alone": ["./a.txt"],
        "a name of 513 bytes": ["a/" * 5 + "b" * 250 + "/" + "c" * 252],
    }.items():
        add(f"refused: {title}", "OMS-009", bundle(statement([resource(n) for n in names])), error="files")

    subject = statement()["subject"]
    add("refused: no subject", "OMS-010", bundle(statement(subject=[])), error="malformed")
    add("refused: two subjects", "OMS-010", bundle(statement(subject=subject * 2)), error="malformed")
    add("refused: the digest of another list", "OMS-010", bundle(statement(subject=[{"name": "model", "digest": {"sha256": SHA["extra"]}}])), error="root")
    swapped = statement([resource("sub/b.txt"), resource("a.txt")])
    add("another order, with its digest", "OMS-010", bundle(swapped), {**good, "root": swapped["subject"][0]["digest"]["sha256"]})
    add("refused: another order, with the first one's digest", "OMS-010", bundle(statement([resource("sub/b.txt"), resource("a.txt")], subject=subject)), error="root")
    add("refused: a subject without sha256", "OMS-010", bundle(statement(subject=[{"name": "model", "digest": {"sha512": "00"}}])), error="malformed")
    for title, name in {"an empty name of the model": "", "a model's name of 256 bytes": "a" * 256, "a model's name with an escape": "a\u001b[2J"}.items():
        add(f"refused: {title}", "OMS-010", bundle(statement(subject=[{**subject[0], "name": name}])), error="files")

    add("64 ignored paths", "OMS-011", bundle(serialised(ignore_paths=[f"x{i}" for i in range(64)])), good)
    add("refused: 65 ignored paths", "OMS-011", bundle(serialised(ignore_paths=[f"x{i}" for i in range(65)])), error="files")
    for title, path in {"an ignored path that climbs": "../model", "an ignored absolute path": "/", "everything ignored": ".", "a listed file ignored": "a.txt", "a listed file's folder ignored": "sub"}.items():
        add(f"refused: {title}", "OMS-011", bundle(serialised(ignore_paths=[path])), error="files")
    add("refused: ignored paths that are no list", "OMS-011", bundle(serialised(ignore_paths="model.sig")), error="malformed")


def folders():
    f = "11/folder"

    def add(title, ids, folder, error=None, value=None, at="model.sig"):
        given = {"bundle": [{"text": compact(value or bundle())}], "public": ALBA.pem, "at": at, "folder": folder}
        vector(f, title, "model-signing-folder", ids, given, {} if error is None else None, error)

    whole = {"a.txt": SHA["a.txt"], "sub/b.txt": SHA["sub/b.txt"]}
    add("what was signed", "OMS-012", whole)
    add("with the bundle in it", "OMS-012", {**whole, "model.sig": SHA["extra"]})
    add("with the bundle in it under another name", "OMS-012", {**whole, "signatures/theirs.json": SHA["extra"]}, at="signatures/theirs.json")
    add("refused: another file's content", "OMS-012", {**whole, "a.txt": SHA["extra"]}, "mismatch")
    add("refused: contents swapped", "OMS-012", {"a.txt": SHA["sub/b.txt"], "sub/b.txt": SHA["a.txt"]}, "mismatch")
    add("refused: a file is missing", "OMS-012", {"a.txt": SHA["a.txt"]}, "mismatch")
    add("refused: nothing is there", "OMS-012", {}, "mismatch")
    add("refused: a file that was not signed", "OMS-012", {**whole, "extra": SHA["extra"]}, "mismatch")
    add("refused: a file that was left out of the signature", "OMS-012", {**whole, ".git/config": SHA["extra"]}, "mismatch")
    add("refused: a file in another case", "OMS-012", {"A.txt": SHA["a.txt"], "sub/b.txt": SHA["sub/b.txt"]}, "mismatch")
    add("refused: a bundle under the default name that is not the one read", "OMS-012", {**whole, "model.sig": SHA["extra"], "x.sig": SHA["c.txt"]}, "mismatch", at="x.sig")
    add("refused: a folder that fits with a bundle that does not", "OMS-012", whole, "other-key", bundle(signer=OTHER))


def written():
    """What a release's folder holds, and what its own bundle lists."""
    f = "11/written"
    octets, oms, record = "application/octet-stream", "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.steelyard.import+json"

    def add(title, ids, paths, ok):
        given = {"files": [{"path": p, "mediaType": m} for p, m in paths]}
        vector(f, title, "model-signing-release", ids, given, ok)

    add("plain files", "OMS-014", [("b.txt", octets), ("a.txt", octets), ("Z.txt", octets)], {"folder": ["Z.txt", "a.txt", "b.txt"], "listed": ["Z.txt", "a.txt", "b.txt"]})
    add("with its own bundle", "OMS-014", [("a.txt", octets), ("model.sig", oms)], {"folder": ["a.txt", "model.sig"], "listed": ["a.txt"]})
    add("an attachment is listed", "OMS-014", [("a.txt", octets), ("attachments/p.json", "application/vnd.in-toto.provenance+json")],
        {"folder": ["a.txt", "attachments/p.json"], "listed": ["a.txt", "attachments/p.json"]})
    add("the record of an import stays out", "OMS-013 OMS-014", [("a.txt", octets), ("attachments/import.json", record), ("model.sig", oms)],
        {"folder": ["a.txt", "model.sig"], "listed": ["a.txt"]})
    add("a file called like a record of an import is a file", "OMS-013 ATC-001", [("a.txt", octets), ("attachments/import.json", "application/json")],
        {"folder": ["a.txt", "attachments/import.json"], "listed": ["a.txt", "attachments/import.json"]})


def attachments():
    f = "11/attachment"

    for media, kind in {
        "application/vnd.dev.sigstore.bundle.v0.3+json": "oms", "application/vnd.in-toto.provenance+json": "slsa",
        "application/vnd.cyclonedx+json": "mlbom", "application/vnd.steelyard.import+json": "import",
    }.items():
        vector(f, f"media type of {kind}", "attachment-kind", "ATC-001", {"mediaType": media}, {"kind": kind})
    for title, media in {
        "JSON": "application/json", "of a later bundle": "application/vnd.dev.sigstore.bundle.v0.4+json", "in capitals": "APPLICATION/VND.CYCLONEDX+JSON",
        "with a parameter": "application/vnd.cyclonedx+json;version=1.6", "of XML": "application/vnd.cyclonedx+xml",
    }.items():
        vector(f, f"refused: media type {title}", "attachment-kind", "ATC-001", {"mediaType": media}, error="kind")

    def attached(count):
        value = release(paths=[f"f{i}" for i in range(17)] + ["README.md"])
        for entry in value["predicate"]["files"][:count]:
            entry["mediaType"] = "application/vnd.cyclonedx+json"
        return compact(value)

    vector(f, "16 attachments", "statement", "ATC-002", {"payload": attached(16)}, {"kind": "release", "nation": "alba"})
    vector(f, "refused: 17 attachments", "statement", "ATC-002", {"payload": attached(17)}, error="field-files")

    def show(title, ids, kind, value, ok=None, error=None):
        text = value if isinstance(value, list) else [{"text": value if isinstance(value, str) else compact(value)}]
        given = {"attachment": kind, "bytes": text, "files": [SHA["a.txt"], SHA["sub/b.txt"], SHA["c.txt"]]}
        vector(f, title, "attachment", ids, given, ok, error)

    v1 = {
        "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "a.txt", "digest": {"sha256": SHA["a.txt"]}}, {"name": "x", "digest": {"sha256": SHA["extra"]}}],
        "predicate": {"buildDefinition": {"buildType": "https://example.org/train/v1", "resolvedDependencies": [{"uri": "a"}, {"uri": "b"}, {"uri": "c"}]},
                      "runDetails": {"builder": {"id": "https://example.org/builder"}}},
    }
    shown = {"builder": "https://example.org/builder", "build_type": "https://example.org/train/v1", "materials": 3, "subjects": 2, "matching": 1}
    show("slsa version 1", "ATC-003", "slsa", v1, shown)
    show("slsa in an envelope", "ATC-003", "slsa", {"payloadType": PAYLOAD_TYPE, "payload": b64(compact(v1).encode()), "signatures": []}, shown)
    show("slsa in a bundle", "ATC-003", "slsa", {"mediaType": "x", "dsseEnvelope": {"payload": b64(compact(v1).encode()), "signatures": []}}, shown)
    v02 = {"predicateType": "https://slsa.dev/provenance/v0.2", "subject": [], "predicate": {"builder": {"id": "b"}, "buildType": "t", "materials": [{}]}}
    show("slsa version 0.2", "ATC-003", "slsa", v02, {"builder": "b", "build_type": "t", "materials": 1, "subjects": 0, "matching": 0})
    show("slsa without anything", "ATC-003", "slsa", {"predicateType": "https://slsa.dev/provenance/v1"}, {"builder": "", "build_type": "", "materials": 0, "subjects": 0, "matching": 0})
    show("slsa with fields of other types", "ATC-003", "slsa", {**v1, "subject": "a", "predicate": 3}, {"builder": "", "build_type": "", "materials": 0, "subjects": 0, "matching": 0})
    show("refused: slsa of an unknown version", "ATC-003", "slsa", {**v1, "predicateType": "https://slsa.dev/provenance/v9"}, error="malformed")
    show("refused: slsa that is no JSON", "ATC-003", "slsa", "provenance", error="malformed")
    show("refused: slsa in an envelope that is no base64", "ATC-003", "slsa", {"payload": "?"}, error="malformed")
    show("refused: a list", "ATC-003", "slsa", [{"text": "[]"}], error="malformed")
    show("refused: more than 16 MiB", "ATC-003", "slsa", [{"text": compact(v1)}, {"repeat": "20", "times": 16777217 - len(compact(v1))}], error="too-large")

    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": {"name": "smollm2", "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": [
            {"type": "machine-learning-model", "name": "base", "licenses": [{"expression": "MIT OR Apache-2.0"}]},
            {"type": "library", "name": "torch", "licenses": [{"license": {"name": "Something"}}], "components": [{"type": "data", "name": "set", "licenses": [{"license": {"id": "Apache-2.0"}}]}]},
        ],
    }
    show("mlbom", "ATC-003", "mlbom", bom, {"version": "1.6", "subject": "smollm2", "components": 3, "models": 2, "licences": ["Apache-2.0", "MIT OR Apache-2.0", "Something"]})
    show("mlbom without anything", "ATC-003", "mlbom", {"bomFormat": "CycloneDX"}, {"version": "", "subject": "", "components": 0, "models": 0, "licences": []})
    show("refused: mlbom of another format", "ATC-003", "mlbom", {**bom, "bomFormat": "SPDX"}, error="malformed")
    nested = {"type": "data"}
    for _ in range(50):
        nested = {"type": "data", "components": [nested]}
    show("mlbom nested deep", "ATC-003", "mlbom", {"bomFormat": "CycloneDX", "components": [nested]}, {"components": 51, "models": 51})
    many = {"bomFormat": "CycloneDX", "components": [{"type": "data", "licenses": [{"license": {"id": f"L-{i:02}"}}]} for i in range(20)]}
    show("mlbom with 20 licences", "ATC-003", "mlbom", many, {"components": 20, "licences": [f"L-{i:02}" for i in range(16)]})

    dirty = copy.deepcopy(v1)
    dirty["predicate"]["runDetails"]["builder"]["id"] = "a\u001b[31m\u0007b\n\u202ec\u200bd\u2066e\ufeff\u009b"
    show("control characters", "ATC-004", "slsa", dirty, {"builder": "a[31mbcde"})
    for title, text, cut in [("200 characters", "é" * 200, "é" * 200), ("201 characters", "é" * 201, "é" * 200 + "…"), ("control characters beyond the 200th", "x" * 200 + "\n\n", "x" * 200)]:
        dirty["predicate"]["runDetails"]["builder"]["id"] = text
        show(title, "ATC-004", "slsa", dirty, {"builder": cut})

    show("oms", "ATC-003", "oms", bundle(), {"signer": ALBA.hint, "name": "model", "files": 2, "matching": 2})
    show("import", "ATC-003", "import", {"nation": "borea", "format": "openssf-model-signing/v1.0", "signer": ALBA.hint, "name": "model"},
         {"nation": "borea", "format": "openssf-model-signing/v1.0", "signer": ALBA.hint, "name": "model"})
    # Whether a release is admissible does not depend on what is attached to it, however bad that is.
    for title, kind in {"a recall in an attachment": "slsa", "an unreadable attachment": "mlbom"}.items():
        show(f"refused: {title} is not shown, and nothing else follows", "ATC-005", kind, {"predicateType": "urn:steelyard:recall:v1"}, error="malformed")


def all():
    bundles()
    folders()
    written()
    attachments()
