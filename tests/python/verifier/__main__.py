"""Answers `steelyard conformance --against`: one JSON request a line, one answer a line."""

import hashlib
import json
import sys

from steelyard.core import ed25519, log, statement, trust
from . import basic, bundle, chunks, codec, hello, node, oms, policy, receipt, weights, wire
from .basic import Refused, digest_of, given, need, timestamp
from steelyard.core.envelope import Signed
from steelyard.core.statement import Statement


def name(request):
    need(basic.is_name(request["what"], request["text"]), "name")
    return {}


def digest_text(request):
    need(basic.is_digest(request["text"]), "text")
    return {"bytes": request["text"][3:]}


def sha256_text(request):
    need(basic.is_hex(request["text"]), "text")
    return {"bytes": request["text"]}


def content(request):
    data = given(request["bytes"])
    return {"blake3": digest_of(data), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def named_map(request):
    data = given(request["bytes"])
    need(digest_of(data) == request["digest"], "name")
    return chunks.Map(data).shown()


def chunk(request):
    chunks.Map(given(request["map"])).check_chunk(request["index"], given(request["bytes"]))
    return {}


def blob(request):
    chunks.Map(given(request["map"])).check_blob(given(request["bytes"]))
    return {}


def cuts(request):
    tensors = [int(one) for one in request.get("tensors", [])]
    return {"spans": chunks.spans(int(request["size"]), request.get("header"), tensors)}


def envelope(request):
    signed = Signed(given(request["signed"]))
    keys = [ed25519.read_key(key) for key in request["keys"]]
    Statement(signed.payload)
    signers = signed.verify({ed25519.key_id(key): key for key in keys}, request["threshold"])
    return {"digest": signed.digest, "signers": sorted(signers)}


def shown(it):
    return {"kind": it.kind, "nation": it.nation}


def pin(request):
    now, mine = timestamp(request["now"]), trust.Trust("borea")
    if "pinned" in request:
        before = Signed(given(request["pinned"]))
        mine.pin(before, before.digest, Statement(before.payload).issued)
    root = mine.pin(Signed(given(request["signed"])), request["fingerprint"], now)
    return {"nation": root.nation, "fingerprint": mine.members[root.nation].roots[0].digest}


def believe(request):
    now = timestamp(request["now"])
    mine = trust.trusting(given, request, now)
    return shown(mine.verify(Signed(given(request["signed"])), now, request.get("log")))


def kept(request):
    now = timestamp(request["now"])
    mine = trust.trusting(given, request, now)
    return shown(mine.verify(Signed(given(request["signed"])), now, request.get("log"), True, request["admitted"]))


def step(at, wanted, outcome):
    need(wanted == outcome, f"step {at} was {outcome}")


def attempt(work):
    try:
        return work()
    except Refused as refused:
        return str(refused)


def roots(request):
    now = timestamp(request["now"])
    mine = trust.trusting(given, request, now)
    good = ("taken", "known")
    for at, offer in enumerate(request["offers"]):
        outcome = attempt(lambda: good[not mine.rotate(Signed(given(offer["signed"])), now)])
        # A refusal's code is the implementation's own.
        need(outcome == offer["outcome"] or (outcome not in good and offer["outcome"] not in good), f"step {at} was {outcome}")
    need(outcome in good, outcome)
    newest = mine.members["alba"].newest
    return {"version": newest.predicate["version"], "newest": newest.digest}


def membership(request):
    now = timestamp(request["now"])
    mine = trust.trusting(given, request, now)
    for at, said in enumerate(request["said"]):
        outcome = attempt(lambda: mine.say(mine.verify(Signed(given(said["signed"])), now)) or "taken")
        need((outcome == "taken") == (said["outcome"] == "taken"), f"step {at} was {outcome}")
    need(outcome == "taken", outcome)
    member = mine.members["alba"]
    return {"standing": member.standing or "active", "sequence": member.said[0] if member.said else None}


def history(request):
    now = timestamp(request["now"])
    mine, versions, channels = trust.trusting(given, request, now), {}, {}
    for at, one in enumerate(request["statements"]):
        it = mine.verify(Signed(given(one["signed"])), now)
        step(at, one["outcome"], keep(it, versions, channels))
    return {"stable": channels.get(("alba/smollm2", "stable"), (0, None))[1]}


def keep(it, versions, channels):
    if it.kind == "release":
        known = versions.setdefault((it.predicate["model"], it.predicate["version"]), it.digest)
        return "kept" if known == it.digest else "version-conflict"
    if it.kind == "channel":
        key, new = (it.predicate["model"], it.predicate["channel"]), (it.predicate["sequence"], it.predicate["release"])
        old = channels.get(key, (0, None))
        if new[0] < old[0]:
            return "downgrade"
        if new[0] == old[0] and new[1] != old[1]:
            return "conflict"
        channels[key] = new
    return "kept"


def certificate(request):
    now = timestamp(request["now"])
    mine = trust.trusting(given, request, now)
    return {"nation": mine.certificate(Signed(given(request["signed"])), request["peer"], now).nation}


def path(request):
    statement.check_path(request["path"])
    return {}


def releasable(request):
    return {"releasable": statement.may_have(Statement(given(request["payload"])), request["nation"])}


def binds(request):
    recall = Statement(given(request["payload"]))
    return {"binds": statement.binds(recall, request["own"], request["producer"], request["release"], request["ancestors"])}


def key(request):
    return {"id": ed25519.key_id(ed25519.read_key(request["public"]))}


def model_signing(request):
    found = oms.verify(given(request["bundle"]), request["public"])
    return {**found, "files": len(found["files"])}


def folder(request):
    found = oms.verify(given(request["bundle"]), request["public"])
    oms.compare(found["files"], request["folder"], request["at"])
    return {}


def attachment_kind(request):
    need(request["mediaType"] in statement.ATTACHMENTS, "kind")
    return {"kind": statement.ATTACHMENTS[request["mediaType"]]}


def attestations(request):
    now, mine, believed = timestamp(request["now"]), trust.Trust("fara"), []
    for root in request["roots"]:
        signed = Signed(given(root))
        mine.pin(signed, signed.digest, Statement(signed.payload).issued)
    for text in request["statements"]:
        try:
            it = mine.verify(Signed(text.encode()), now)
        except Refused:
            continue
        if it.kind == "attestation" and it.predicate["release"] == request["release"]:
            believed.append(it)
    said = {}
    for it in statement.in_force(believed, now):
        said.setdefault(it.nation, set()).add(it.predicate["verdict"])
    failed = sorted(nation for nation, verdicts in said.items() if "fail" in verdicts)
    passed = sorted(n for n, v in said.items() if "fail" not in v and "pass" in v and n != request["producer"])
    neither = sorted(nation for nation, verdicts in said.items() if verdicts == {"inconclusive"})
    return {"passedBy": passed, "failedBy": failed, "inconclusiveBy": neither}


def lease(request):
    def moment(value):
        return int(value[0]), int(value[1])

    length, wanted, own = min(int(request["seconds"]), 366 * 86_400) * 1000, max(int(request["nations"]), 1), request["own"]
    if length == 0:
        return {"state": "not-needed"}
    heard = [moment(at) for nation, at in request["heard"].items() if nation != own and nation in request["known"]]
    left, now = None, moment(request["now"])
    if len(heard) >= wanted:
        # Each clock by itself: the one that says sooner that it has ended counts.
        left = min(sorted((at[clock] for at in heard), reverse=True)[wanted - 1] + length - now[clock] for clock in (0, 1))
    if left is not None and left > 0:
        return {"state": "held", "leftMs": left}
    inside = [at for at in heard if all(at[clock] + length > now[clock] for clock in (0, 1))]
    return {"state": "ended", "heard": len(inside)}


def log_entry(request):
    entry = bytes.fromhex(request["entry"])
    need(len(entry) == 33 and entry[0] == 1, "entry")
    return {"statement": "b3:" + entry[1:].hex()}


def log_root(request):
    return {"root": log.root_of([log.leaf(entry) for entry in log.example(request["count"])]).hex()}


def hashes(texts):
    return [bytes.fromhex(text) for text in texts]


def log_inclusion(request):
    entry, root = hashes([request["entry"], request["rootHash"]])
    log.inclusion(entry, int(request["index"]), int(request["size"]), hashes(request["proof"]), root)
    return {}


def log_consistency(request):
    old, new = hashes([request["oldRoot"], request["newRoot"]])
    log.consistency(int(request["old"]), int(request["new"]), hashes(request["proof"]), old, new)
    return {}


def note(request):
    found = log.Note(given(request["bytes"]))
    keys = [log.Key(text) for text in request["keys"]]
    signed = [one.kind == 1 and found.signed_by(one.name, one.public) for one in keys]
    return {"text": found.text, "lines": len(found.lines), "signed": signed}


def checkpoint(request):
    found, _ = log.believed(request["nation"], request["keys"], given(request["bytes"]))
    return {"size": str(found.size), "root": found.root.hex()}


def tile_path(request):
    level, index, width = log.tile_path(request["path"])
    return {"level": level, "index": str(index), "width": width}


def cosignatures(request):
    known = {}
    for text in request["roots"]:
        root = Statement(Signed(given(text)).payload)
        known[root.nation] = list(root.roles["witness"][0].values()) if "witness" in root.roles else []
    found = log.witnesses(log.Note(given(request["bytes"])), request["nation"], known)
    return {"witnesses": {nation: basic.time_text(at) for nation, at in found.items()}}


def log_proof(request):
    found = log.proof(request, given(request["bytes"]))
    times = sorted(found["witnesses"].values())
    return {**found, "witnesses": sorted(found["witnesses"]), "witnessed": basic.time_text(times[-1]) if times else None}


def encoded_chunk(request):
    return {"blake3": digest_of(codec.decode(request["encoding"], given(request["bytes"]), int(request["length"])))}


def content_cuts(request):
    return {"lengths": weights.content_cuts(weights.split_mix(int(request["seed"]), int(request["size"])))}


KINDS = {
    **wire.KINDS, **policy.KINDS, **node.KINDS, **bundle.KINDS,
    "safetensors": lambda request: weights.safetensors(given(request["bytes"])),
    "gguf": lambda request: weights.gguf(given(request["bytes"])),
    "file-kind": lambda request: weights.file_kind(request["name"], given(request["bytes"])),
    "content-cuts": content_cuts, "encoded-chunk": encoded_chunk,
    "attestations": attestations, "lease": lease,
    "log-entry": log_entry, "log-root": log_root, "log-inclusion": log_inclusion, "log-consistency": log_consistency, "note": note,
    "note-key": log.key, "checkpoint": checkpoint, "tile-path": tile_path,
    "tile": lambda request: {"bytes": log.tile(log.example(request["count"]), request["path"]).hex()}, "cosignatures": cosignatures,
    "witness-request": lambda request: log.witness_request(given(request["bytes"])),
    "witness": lambda request: log.witness(request["nation"], request["keys"], request["before"], given(request["bytes"])),
    "log-proof": log_proof, "fork-evidence": lambda request: log.evidence(request["keys"], given(request["bytes"])),
    "digest-text": digest_text, "sha256-text": sha256_text, "content": content,
    "chunk-map": lambda request: chunks.Map(given(request["bytes"])).shown(), "named-map": named_map, "chunk": chunk, "blob": blob, "cuts": cuts,
    "name": name, "reference": lambda request: {"canonical": basic.reference(request["text"])},
    "timestamp": lambda request: {"unix": timestamp(request["text"])}, "public-key": key,
    "envelope": envelope, "statement": lambda request: shown(Statement(given(request["payload"]))), "trust": believe, "kept": kept,
    "root": pin, "roots": roots, "membership": membership, "history": history, "node-certificate": certificate,
    "spoken": lambda request: {"digits": trust.spoken(request["fingerprint"])},
    "path": path, "releasable": releasable, "recall-binds": binds,
    "hello": hello.hello, "verdict": hello.verdict, "verdicts": hello.verdicts, "hello-answer": hello.answer,
    "model-signing": model_signing, "model-signing-folder": folder, "model-signing-release": lambda request: oms.folder_of(request["files"]),
    "attachment-kind": attachment_kind, "receipt": receipt.receipt,
    "attachment": lambda request: oms.describe(request["attachment"], given(request["bytes"]), request["files"]),
}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"id": request["id"]}
        run = KINDS.get(request["kind"])
        if run is None:
            answer["unsupported"] = True
        else:
            try:
                answer["ok"] = run(request["input"])
            except Refused as refused:
                answer["error"] = str(refused)
        print(json.dumps(answer), flush=True)


main()
