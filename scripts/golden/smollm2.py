"""smollm2.py GGUF GOLDEN-FOLDER [FOLDER]: what transformers says on the dequantised weights of SmolLM2's GGUF file.

With FOLDER the dequantised model is written there as a folder of safetensors, tokenizer and all.
"""

import pathlib
import sys

import torch
from common import greedy, rounded, versions, write
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

# Tried in this order; kept are those whose closest choice is far enough from the second best for another engine, which
# rounds otherwise, to make the same ones.
PROMPTS = [
    "The capital of Italy is",
    "<|im_start|>user\nWhat is the capital of France? Answer in one sentence.<|im_end|>\n<|im_start|>assistant\n",
    "1, 2, 3, 4, 5, 6,",
    "Monday, Tuesday, Wednesday,",
    "<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n",
    "The opposite of hot is",
]
STEPS = 12
WIDE_MARGIN = 0.15
# Logits kept of each of the first steps: every 1024th.
EVERY = 1024
KEPT = 2


def main():
    weights, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32).eval()
    cases = []
    for text in PROMPTS:
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        tokens, steps, margin = greedy(model, prompt, STEPS, tokenizer.eos_token_id)
        print(f"{margin:.3f} {text!r}")
        if margin < WIDE_MARGIN:
            continue
        cases.append({
            "text": text, "prompt": prompt, "greedy": tokens, "answer": tokenizer.decode(tokens), "margin": round(margin, 4),
            "every": EVERY, "logits": [rounded(step[::EVERY]) for step in steps[:KEPT]],
        })
    write(target / "smollm2.json", {"made_by": versions(), "model": weights.name, "cases": cases})
    if len(sys.argv) > 3:
        folder = pathlib.Path(sys.argv[3])
        tokenizer.save_pretrained(folder)
        del model.config.quantization_config, model.config._model_name_or_path
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        tensors = {
            name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()
            if name != "lm_head.weight"
        }
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


main()
