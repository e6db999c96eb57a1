"""What every part needs, and bytes as the vectors write them."""

from steelyard.core.basic import (  # noqa: F401
    Refused, blake3, digest_of, is_digest, is_hex, is_int, is_model, is_name, need, no_constant, once, read_json, reference,
    time_text, timestamp, unbase64,
)

MAX_BYTES = 64 * 1024 * 1024


def given(value):
    """Bytes as the vectors write them."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    out = bytearray()
    for part in value:
        if "hex" in part:
            out += bytes.fromhex(part["hex"])
        elif "text" in part:
            out += part["text"].encode()
        elif "u32" in part:
            out += int(part["u32"]).to_bytes(4, "little")
        elif "u64" in part:
            out += int(part["u64"]).to_bytes(8, "little")
        else:
            out += bytes.fromhex(part["repeat"]) * int(part["times"])
        assert len(out) <= MAX_BYTES
    return bytes(out)
