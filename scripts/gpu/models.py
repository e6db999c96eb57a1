"""A random model of a realistic shape, in safetensors, written with torch where it is installed and without where not."""

import array
import json
import random
import shutil
import struct

# Llama 3.1 8B; and the same family, tiny. The heads of the tiny one are as wide as every engine supports.
SHAPES = {
    "cuda": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                 num_key_value_heads=8, head_dim=128, vocab_size=128256, max_position_embeddings=8192),
    "cpu": dict(hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, head_dim=32, vocab_size=264, max_position_embeddings=2048),
}
SPREAD = 0.02


def config(shape):
    return dict(
        shape, architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", rms_norm_eps=1e-5,
        rope_theta=500000.0, tie_word_embeddings=False, attention_bias=False, mlp_bias=False, bos_token_id=256,
        # No token ends an answer: all are as long as was asked for.
        eos_token_id=[], torch_dtype="bfloat16", initializer_range=SPREAD,
    )


def tensors(shape):
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    queries = shape["num_attention_heads"] * shape["head_dim"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]
    yield "model.embed_tokens.weight", (shape["vocab_size"], hidden)
    for layer in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        yield f"{prefix}.self_attn.q_proj.weight", (queries, hidden)
        yield f"{prefix}.self_attn.k_proj.weight", (keys, hidden)
        yield f"{prefix}.self_attn.v_proj.weight", (keys, hidden)
        yield f"{prefix}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
        yield f"{prefix}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{prefix}.mlp.up_proj.weight", (inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (shape["vocab_size"], hidden)


def shaped(folder, here, golden):
    """The folder, made once."""
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(exist_ok=True)
    shape = SHAPES[here.device]
    (folder / "config.json").write_text(json.dumps(config(shape)))
    for shared in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(golden / shared, folder / shared)
    write(folder / "model.safetensors", list(tensors(shape)), here)
    return folder


def write(path, wanted, here):
    """One file in BF16, written tensor by tensor so that memory holds one at a time."""
    header, end = {}, 0
    for name, dims in wanted:
        size = 2
        for dim in dims:
            size *= dim
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    make = by_torch(here) if here.torch else plainly
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, dims in wanted:
            file.write(make(dims))


def by_torch(here):
    torch = here.torch
    generator = torch.Generator(device=here.device).manual_seed(1)

    def make(dims):
        if len(dims) == 1:
            values = torch.ones(dims, dtype=torch.bfloat16)
        else:
            values = torch.empty(dims, device=here.device).normal_(0, SPREAD, generator=generator).to(torch.bfloat16)
        return values.cpu().view(torch.uint8).numpy().tobytes()

    return make


GENERATOR = random.Random(1)


def plainly(dims):
    count = 1
    for dim in dims:
        count *= dim
    values = array.array("f", (1.0 if len(dims) == 1 else GENERATOR.gauss(0, SPREAD) for _ in range(count)))
    # The upper half of a little-endian F32 number is the number in BF16, rounded towards zero.
    return b"".join(values.tobytes()[at + 2 : at + 4] for at in range(0, 4 * count, 4)) if count < 4096 else halves(values)


def halves(values):
    raw = values.tobytes()
    out = bytearray(len(raw) // 2)
    out[0::2], out[1::2] = raw[2::4], raw[3::4]
    return bytes(out)
