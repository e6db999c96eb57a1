"""The steps. Each publishes what it serves, and asks the worker over HTTP as anybody does."""

import json
import math
import shutil
import time

import machine
import models
import peers

GOLDEN = machine.HERE.parent.parent / "inference/tests/golden"
# Architectures of the list that generate text, each with a small random model and its golden values.
ARCHITECTURES = ("llama", "llama3", "qwen2", "qwen3", "mistral")
# How far a likelihood may be from the reference's. On a GPU sums have another order, and its units round a product of two
# F32 numbers as F32 (the TensorFloat mode is off in both).
TOLERANCE = 2e-3
TOGETHER = {"cuda": (1, 8, 64), "cpu": (1, 2, 4)}
TOKENS = {"cuda": 64, "cpu": 8}


def golden(home, table, here):
    """Likelihoods of greedy answers beside the reference's: computed here by transformers where it is installed, else as
    recorded."""
    for name in ARCHITECTURES:
        folder = small(home, name)
        model = home.publish(folder, name)
        case = next(case for case in json.loads((GOLDEN / name / "golden.json").read_text())["cases"] if case.get("text"))
        count = len(case["greedy"])
        with home.serving(model) as worker:
            where = "cuda" if "CUDA" in worker.said["engine"] else "cpu"
            answer = worker.complete(prompt=case["text"], max_tokens=count, temperature=0, logprobs=1)
        if where != here.device:
            table.check(f"golden_{name}_ran_elsewhere", 1, 0)
            continue
        found = answer["choices"][0]["logprobs"]["token_logprobs"]
        steps = peers.logits(folder, case["prompt"], case["greedy"], here) or case["logits"]
        wanted = [likelihood(logits, token) for logits, token in zip(steps, case["greedy"])]
        worst = max(abs(mine - theirs) for mine, theirs in zip(found, wanted))
        table.check(f"golden_{name}", worst if len(found) == count else math.inf, TOLERANCE)


def small(home, name):
    folder = home.scratch / f"golden-{name}"
    shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("golden.json"))
    for shared in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / shared, folder / shared)
    return folder


def likelihood(logits, token):
    most = max(logits)
    return logits[token] - most - math.log(sum(math.exp(logit - most) for logit in logits))


def speed(home, table, here):
    """Tokens a second beside vLLM or, where it is absent, transformers and torch, on the same weights and device."""
    folder = models.shaped(home.scratch / "shaped", here, GOLDEN)
    model = home.publish(folder, "shaped")
    tokens = TOKENS[here.device]
    ours = {}
    with home.serving(model, "--context", "2048") as worker:
        worker.together(1, 2)
        for count in TOGETHER[here.device]:
            ours[count] = worker.together(count, tokens)
            table.figure(f"tokens_per_second_{count}", ours[count], "tokens/s")
    peer = peers.best(folder, here)
    if peer is None:
        return table.absent("tokens_per_second_beside_a_peer", "neither vllm nor transformers is installed")
    with peer:
        peer.together(1, 2)
        for count in TOGETHER[here.device]:
            theirs = peer.together(count, tokens)
            table.figure(f"{peer.name}_tokens_per_second_{count}", theirs, "tokens/s")
            table.bar(f"tokens_share_of_{peer.name}_{count}", ours[count] / theirs, 0.95)


def loading(home, table, here):
    """Bytes a second from the disk's cache to where they are computed with, hashed, beside what the bus moves at best."""
    folder = models.shaped(home.scratch / "shaped", here, GOLDEN)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    model = "alba/shaped"
    if home.run("show", model)[0] != 0:
        home.publish(folder, "shaped")
    begun = time.monotonic()
    with home.serving(model, "--context", "2048") as worker:
        whole = time.monotonic() - begun
        said = worker.said
    table.figure("start_seconds", whole, "s")
    moved = peers.bus(here)
    spent = sum(said.get(part) or 0 for part in ("verify_ms", "load_ms")) / 1000
    rate = size / spent if spent else size / whole
    table.figure("verified_loading", rate / 1e9, "GB/s")
    if moved is None:
        return table.absent("verified_loading_share_of_bus", "torch is not installed")
    table.figure("bus", moved / 1e9, "GB/s")
    table.bar("verified_loading_share_of_bus", rate / moved, 0.5)


def walls(home, table, here):
    """Attempts to break out of the worker that computes on the device; each must be refused."""
    model = "alba/llama"
    if home.run("show", model)[0] != 0:
        home.publish(small(home, "llama"), "llama")
    code, out, err = home.run("--json", "serve", model, "--prove-sealed")
    try:
        proof = json.loads(out)
    except ValueError:
        print(err.strip()[-2000:])
        return table.check("escapes", math.inf, 0)
    attempts = proof["attempts"]
    table.figure("escape_attempts", len(attempts), "attempts")
    escaped = [attempt for attempt in attempts if not attempt.get("refused")]
    for attempt in escaped:
        print(f"    not refused: {attempt}")
    table.check("escapes", len(escaped) if code in (0, 1) and attempts else math.inf, 0)


ALL = {"golden": golden, "speed": speed, "loading": loading, "walls": walls}
