"""Adapters as PEFT writes them for the small random models, with the reference's greedy tokens and logits.

lora.py FOLDER reads FOLDER/NAME and writes FOLDER/adapters/NAME-KIND/{adapter_config.json, adapter_model.safetensors, golden.json}.
"""

import json
import pathlib
import sys

import peft
import torch
from common import versions, write
from tiny import LENGTHS, cases, spoken
from transformers import AutoModelForCausalLM

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Every matrix of a layer; and some only, with the other way to reckon the strength, on heads wider than the hidden state.
KINDS = {
    "llama-all": ("llama", dict(r=4, lora_alpha=8, target_modules=ALL)),
    "llama-one": ("llama", dict(r=1, lora_alpha=1, target_modules=["gate_proj"])),
    "qwen2-some": ("qwen2", dict(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True)),
    "qwen3-some": ("qwen3", dict(r=2, lora_alpha=6, target_modules=["k_proj", "o_proj", "up_proj"])),
}


def randomise(model, seed):
    """Adapters are nothing before they are trained: numbers wide enough that each matters, exact in bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                value = noise * 0.8 / parameter.shape[-1] ** 0.5
                parameter.copy_(value.to(torch.bfloat16).float())
    return model.eval()


def adapter(folder, name, seed):
    base, settings = KINDS[name]
    model = AutoModelForCausalLM.from_pretrained(folder / base, dtype=torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.05, **settings)
    model = randomise(peft.get_peft_model(model, config), seed)
    out = folder / "adapters" / name
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    plain(out / "adapter_config.json", base)
    found = [cases(model, length) for length in LENGTHS]
    # One of them is asked through the interface, too.
    found += [spoken(model)] if name == "llama-all" else []
    made_by = {**versions(), "peft": peft.__version__}
    write(out / "golden.json", {"made_by": made_by, "base": base, "cases": found})


def plain(path, base):
    """As the library wrote it, but for the path of the base on this machine."""
    settings = json.loads(path.read_text())
    settings["base_model_name_or_path"] = base
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    for number, kind in enumerate(sorted(KINDS)):
        adapter(pathlib.Path(sys.argv[1]), kind, 100 + number)
