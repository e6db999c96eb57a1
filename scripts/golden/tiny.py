"""Small random models of every listed architecture, with the reference's greedy tokens and logits.

tiny.py FOLDER writes FOLDER/NAME/{config.json, model*.safetensors, golden.json} and FOLDER/tokenizer.json.
"""

import json
import pathlib
import random
import sys

import torch
from common import MARGIN, greedy, rounded, versions, write
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 264
COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, bos_token_id=256, eos_token_id=257, hidden_act="silu",
)
# Tokens generated, and prompts by their length: one token, a few, and more than a window or a scaled period.
STEPS = 16
LENGTHS = (1, 7, 61)
# Steps of which all logits are kept.
KEPT = 2

MODELS = {
    # Grouped queries, an output of its own, bfloat16.
    "llama": (LlamaForCausalLM, LlamaConfig(
        **COMMON, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}), torch.bfloat16, 1),
    # Llama 3's scaled rotation with its period inside the prompt, tied, float16, two shards.
    "llama3": (LlamaForCausalLM, LlamaConfig(
        **COMMON, rms_norm_eps=1e-5, tie_word_embeddings=True, rope_parameters={
            "rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}), torch.float16, 2),
    # Biases on queries, keys and values, tied.
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(
        **COMMON, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), torch.bfloat16, 1),
    # Norms on queries and keys, heads wider than hidden / heads.
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        **COMMON, head_dim=24, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), torch.bfloat16, 1),
    # A window of eight tokens, shorter than the prompts; heads wider than hidden / heads.
    "mistral": (MistralForCausalLM, MistralConfig(
        **COMMON, head_dim=32, sliding_window=8, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}), torch.bfloat16, 1),
}


def randomise(model, seed, dtype):
    """Weights wide enough that every part matters, exact in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                value = 1 + 0.2 * noise
            elif parameter.dim() == 1:
                value = 0.3 * noise
            else:
                value = noise * 1.4 / parameter.shape[-1] ** 0.5
            parameter.copy_(value.to(dtype).float())
    return model.float().eval()


def save(model, folder, dtype, shards, tied):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    tensors = {
        name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight") and not name.endswith("position_ids")
    }
    if shards == 1:
        return save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    names, index = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index.update({name: file for name in part})
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def cases(model, length):
    """The first random prompt of this length whose greedy tokens are far enough from the second best."""
    for seed in range(1000):
        chooser = random.Random(f"{length}/{seed}")
        prompt = [chooser.randrange(256) for _ in range(length)]
        tokens, steps, margin = greedy(model, prompt, STEPS)
        if margin > MARGIN:
            logits = [rounded(step) for step in steps[:KEPT]]
            return {"prompt": prompt, "greedy": tokens, "margin": round(margin, 4), "logits": logits}
    raise SystemExit("no prompt has a safe margin")


def spoken(model):
    """A prompt that can be written as text, for the way through the interface; each letter is one token."""
    for text in ("Only what was admitted runs.", "A scale for weights.", "Two nations, one log.", "It cannot call out.", "No."):
        prompt = list(text.encode())
        tokens, steps, margin = greedy(model, prompt, STEPS)
        if margin > MARGIN and not {257, 259} & set(tokens):
            logits = [rounded(step) for step in steps[:KEPT]]
            return {"text": text, "prompt": prompt, "greedy": tokens, "margin": round(margin, 4), "logits": logits}
    raise SystemExit("no text has a safe margin")


def decoder(name, folder, seed):
    kind, config, dtype, shards = MODELS[name]
    torch.manual_seed(seed)
    config.architectures = [kind.__name__]
    model = randomise(kind(config), seed, dtype)
    save(model, folder, dtype, shards, config.tie_word_embeddings)
    published(config, dtype, folder)
    found = [cases(model, length) for length in LENGTHS] + [spoken(model)]
    write(folder / "golden.json", {"made_by": versions(), "architecture": kind.__name__, "cases": found})


def published(config, dtype, folder):
    """config.json as the library itself publishes it."""
    config.dtype = dtype
    config.save_pretrained(folder)


def bert(folder, seed):
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, type_vocab_size=2, hidden_act="gelu", architectures=["BertModel"])
    model = randomise(BertModel(config, add_pooling_layer=False), seed, torch.float16)
    save(model, folder, torch.float16, 1, False)
    published(config, torch.float16, folder)
    write(folder / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}])
    write(folder / "1_Pooling/config.json", {
        "word_embedding_dimension": 48, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False})
    found = []
    for length in (1, 7, 60):
        chooser = random.Random(f"bert/{length}")
        prompt = [chooser.randrange(256) for _ in range(length)]
        with torch.no_grad():
            hidden = model(torch.tensor([prompt])).last_hidden_state[0]
        embedding = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        found.append({"prompt": prompt, "embedding": rounded(embedding.tolist())})
    write(folder / "golden.json", {"made_by": versions(), "architecture": "BertModel", "cases": found})


def tokenizer(folder):
    """Bytes as GPT-2 writes them, one merge, and special tokens, as the library's own class saves it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: list(bytes_of()).index(letter))
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    specials = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    vocabulary.update({text: 256 + number for number, text in enumerate(specials)})
    vocabulary["he"] = 260
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e")]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    built.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<tool_call>", "</tool_call>")])
    built.save(str(folder / "tokenizer.json"), pretty=False)


def bytes_of():
    """GPT-2's letter of each byte, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = 0
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(256 + hidden)
            hidden += 1


def main():
    target = pathlib.Path(sys.argv[1])
    for seed, name in enumerate(MODELS):
        decoder(name, target / name, seed + 1)
    bert(target / "bert", 99)
    tokenizer(target)
    (target / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "chat_template": "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
                         "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"}, indent=1) + "\n")


main()
