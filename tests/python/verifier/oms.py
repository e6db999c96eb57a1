"""Document 11: Model Signing bundles and attachments."""

import base64
import binascii
import hashlib
import json
import re
import unicodedata

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .basic import Refused, is_hex, need, read_json, unbase64
from steelyard.core.envelope import PAYLOAD_TYPE, pae
from steelyard.core.statement import ATTACHMENTS, check_path, check_paths

LIMIT = 16_777_216
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def public_key(pem):
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:
        raise Refused("key") from None
    need(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1", "key")
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, hashlib.sha256(text).hexdigest()


def payload_of(data, key, identifier):
    need(len(data) <= LIMIT, "too-large")
    bundle = read_json(data)
    need(isinstance(bundle, dict), "malformed")
    need(bundle.get("mediaType") == MEDIA_TYPE, "type")
    material, envelope = bundle.get("verificationMaterial"), bundle.get("dsseEnvelope")
    need(isinstance(material, dict) and isinstance(envelope, dict), "malformed")
    need("certificate" not in material and "x509CertificateChain" not in material, "not-by-key")
    need(isinstance(material.get("publicKey"), dict), "not-by-key")
    hint = material["publicKey"].get("hint") or ""
    need(hint in ("", identifier), "other-key")
    need(envelope.get("payloadType") == PAYLOAD_TYPE, "type")
    signatures = envelope.get("signatures")
    need(isinstance(signatures, list), "malformed")
    need(len(signatures) == 1, "signature-count")
    need(isinstance(signatures[0], dict), "malformed")
    payload, signature = unbase64(envelope.get("payload")), unbase64(signatures[0].get("sig"))
    try:
        key.verify(signature, pae(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("bad-signature") from None
    return payload


def verify(data, pem):
    """Name, subject's digest, and the files of a bundle that the key signed."""
    key, identifier = public_key(pem)
    value = read_json(payload_of(data, key, identifier))
    need(isinstance(value, dict), "malformed")
    need(value.get("_type") == "https://in-toto.io/Statement/v1", "type")
    need(value.get("predicateType") == "https://model_signing/signature/v1.0", "type")
    predicate, subjects = value.get("predicate"), value.get("subject")
    need(isinstance(predicate, dict) and isinstance(subjects, list), "malformed")
    how, resources = predicate.get("serialization"), predicate.get("resources")
    need(isinstance(how, dict) and isinstance(resources, list), "malformed")
    need(how.get("method") == "files" and how.get("hash_type") == "sha256", "method")
    files = {}
    hasher = hashlib.sha256()
    need(1 <= len(resources) <= 16384, "files")
    for one in resources:
        need(isinstance(one, dict) and isinstance(one.get("name"), str), "malformed")
        need(one.get("algorithm") == "sha256", "method")
        need(is_hex(one.get("digest")), "malformed")
        need(one["name"] not in files, "files")
        files[one["name"]] = one["digest"]
        hasher.update(bytes.fromhex(one["digest"]))
    check_paths(list(files))
    ignored = how.get("ignore_paths", [])
    need(isinstance(ignored, list) and all(isinstance(path, str) for path in ignored), "malformed")
    need(len(ignored) <= 64, "files")
    for path in ignored:
        check_path(path)
        need(not any(file == path or file.startswith(path + "/") for file in files), "files")
    need(len(subjects) == 1 and isinstance(subjects[0], dict), "malformed")
    name, digest = subjects[0].get("name"), subjects[0].get("digest")
    need(isinstance(name, str) and isinstance(digest, dict) and is_hex(digest.get("sha256")), "malformed")
    need(1 <= len(name.encode()) <= 255 and not any(unicodedata.category(c) == "Cc" for c in name), "files")
    need(digest["sha256"] == hasher.hexdigest(), "root")
    return {"name": name, "root": digest["sha256"], "files": files, "signer": identifier}


def compare(files, folder, at):
    there = {path: digest for path, digest in folder.items() if path != at}
    need(there == files, "mismatch")


def folder_of(files):
    kept = [file for file in files if ATTACHMENTS.get(file["mediaType"]) != "import"]
    order = sorted((file["path"] for file in kept), key=str.encode)
    return {"folder": order, "listed": [path for path in order if path != "model.sig"]}


# ------------------------------------------------------------------------------------------------------ attachments

UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(text):
    text = "".join(c for c in UNSEEN.sub("", text) if unicodedata.category(c) != "Cc")
    return text if len(text) <= 200 else text[:200] + "…"


def at(value, *path):
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def text(value, *path):
    found = at(value, *path)
    return clean(found) if isinstance(found, str) else ""


def items(value, *path):
    found = at(value, *path)
    return found if isinstance(found, list) else []


def lenient(data):
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused("malformed") from None
    need(isinstance(value, dict), "malformed")
    return value


def statement_of(value):
    envelope = value.get("dsseEnvelope", value)
    if not isinstance(envelope, dict) or "payload" not in envelope:
        return value
    try:
        return json.loads(base64.b64decode(envelope["payload"], validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Refused("malformed") from None


def describe(kind, data, there):
    need(len(data) <= LIMIT, "too-large")
    value = lenient(data)
    if kind == "oms":
        statement = statement_of(value)
        files = items(statement, "predicate", "resources")
        return {
            "signer": text(value, "verificationMaterial", "publicKey", "hint"), "name": text(statement, "subject", 0, "name"),
            "files": len(files), "matching": sum(text(file, "digest") in there for file in files),
        }
    if kind == "slsa":
        return provenance(statement_of(value), there)
    if kind == "mlbom":
        return materials(value)
    return {name: text(value, name) for name in ("nation", "format", "signer", "name")}


def provenance(statement, there):
    subjects = items(statement, "subject")
    out = {"subjects": len(subjects), "matching": sum(text(one, "digest", "sha256") in there for one in subjects)}
    kind = text(statement, "predicateType")
    if kind == "https://slsa.dev/provenance/v1":
        definition = at(statement, "predicate", "buildDefinition")
        return {
            **out, "builder": text(statement, "predicate", "runDetails", "builder", "id"), "build_type": text(definition, "buildType"),
            "materials": len(items(definition, "resolvedDependencies")),
        }
    need(kind == "https://slsa.dev/provenance/v0.2", "malformed")
    predicate = at(statement, "predicate")
    return {
        **out, "builder": text(predicate, "builder", "id"), "build_type": text(predicate, "buildType"),
        "materials": len(items(predicate, "materials")),
    }


def materials(value):
    need(at(value, "bomFormat") == "CycloneDX", "malformed")
    subject = at(value, "metadata", "component")
    licences, components, models, left = set(), 0, 0, list(items(value, "components"))

    def collect(component):
        for one in items(component, "licenses"):
            found = text(one, "license", "id") or text(one, "expression") or text(one, "license", "name")
            if found:
                licences.add(found)

    collect(subject)
    while left:
        component = left.pop()
        components += 1
        need(components <= 100_000, "malformed")
        models += at(component, "type") in ("machine-learning-model", "data")
        collect(component)
        left += items(component, "components")
    return {
        "version": text(value, "specVersion"), "subject": text(subject, "name"), "components": components, "models": models,
        "licences": sorted(licences, key=str.encode)[:16],
    }
