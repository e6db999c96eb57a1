"""What the golden scripts share: the reference's steps, and how they are written down."""

import json
import pathlib

import torch
import transformers

# How far a greedy choice must be from the second best, so that another order of additions can't turn it.
MARGIN = 2e-2


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__, "computed_in": "float32 on CPU"}


def rounded(values):
    return [float(f"{value:.7g}") for value in values]


@torch.no_grad()
def greedy(model, prompt, count, end=None):
    """Up to `count` greedy tokens after `prompt` and before `end`, the logits that each was chosen from, and the smallest
    margin over the second best."""
    tokens, steps, margin = list(prompt), [], float("inf")
    for _ in range(count):
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
        best = logits.topk(2).values
        if int(logits.argmax()) == end:
            break
        margin = min(margin, (best[0] - best[1]).item())
        steps.append(logits.tolist())
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt):], steps, margin


def write(path, value):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=None, separators=(",", ":")) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")
