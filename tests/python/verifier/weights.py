"""Document 01, sections 3 and 4: cuts by content, headers of safetensors and GGUF, kinds of files."""

import hashlib
import json
import re

from .basic import Refused, is_int, need, no_constant, once

KIB = 1024
# ---------------------------------------------------------------------------------------------------- cuts by content

GEAR = [int.from_bytes(hashlib.md5(bytes([value]) * 64).digest()[:8], "big") for value in range(256)]
SMALLEST, AVERAGE, LONGEST = 64 * KIB, 256 * KIB, 1024 * KIB
MASKS = (0x0000D91707537000, 0x0000D90703537000)


def split_mix(seed, size):
    """The bytes that a vector gives by their seed."""
    full, out = 2**64 - 1, bytearray()
    while len(out) < size:
        seed = (seed + 0x9E3779B97F4A7C15) & full
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & full
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & full
        out += (z ^ (z >> 31)).to_bytes(8, "little")
    return bytes(out[:size])


def chunk_length(data):
    """How long the first chunk of a span's rest is ([CUT-002])."""
    length = min(len(data), LONGEST)
    if length <= SMALLEST:
        return length
    h, full = 0, 2**64 - 1
    for at in range(SMALLEST, length - length % 2):
        h = (2 * h + GEAR[data[at]]) & full
        if h & MASKS[at >= AVERAGE] == 0:
            return at
    return length


def content_cuts(data):
    lengths, at = [], 0
    while at < len(data):
        lengths.append(chunk_length(data[at : at + LONGEST]))
        at += lengths[-1]
    return lengths


# --------------------------------------------------------------------------------------------------------- safetensors

MAX_HEADER, MAX_TENSORS, MAX_NAME, MAX_NAMES = 100_000_000, 262_144, 512, 32 * KIB * KIB
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
for bits, names in {
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ", 16: "I16 U16 F16 BF16", 32: "I32 U32 F32", 64: "C64 F64 I64 U64",
}.items():
    BITS.update(dict.fromkeys(names.split(), bits))


def integer(text):
    need(len(text) <= 32, "limit")
    return int(text)


def number(text):
    need(len(text) <= 32, "limit")
    return float(text)


def utf8(text):
    """A text's bytes; half a pair of surrogates has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("utf-8") from None


def no_longer(value):
    """Whether each text in the value is within the limit."""
    if isinstance(value, str):
        need(len(utf8(value)) <= 8 * KIB * KIB, "limit")
    elif isinstance(value, list):
        for one in value:
            no_longer(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            no_longer(key)
            no_longer(one)


def is_u64(value):
    return is_int(value) and 0 <= value < 2**64


def need_bits(shape, bits):
    """The bits of so many elements; no product on the way may be over 64 bits."""
    product = 1
    for one in shape:
        product *= one
        need(product < 2**64, "overflow")
    need(product * bits < 2**64, "overflow")
    return product * bits


def whole(spans, start, end):
    """Refuses spans that don't cover what lies between start and end, each byte once."""
    at = start
    for begin, finish in sorted(spans):
        need(begin == at, "gap")
        at = finish
    need(at == end, "gap")


def safetensors(data):
    need(len(data) >= 8, "truncated")
    length = int.from_bytes(data[:8], "little")
    need(length <= MAX_HEADER and 8 + length <= len(data), "header")
    text = data[8 : 8 + length]
    need(text[:1] == b"{", "json")
    try:
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=once, parse_constant=no_constant, parse_int=integer, parse_float=number
        )
    except (ValueError, RecursionError):
        raise Refused("json") from None
    no_longer(header)
    metadata = header.pop("__metadata__", None)
    need(metadata is None or isinstance(metadata, dict), "metadata")
    need(len(metadata or {}) <= 4096, "limit")
    for key, value in (metadata or {}).items():
        need(isinstance(value, str) and len(utf8(key)) <= 1024, "metadata")
    need(len(header) <= MAX_TENSORS, "limit")
    need(sum(len(utf8(name)) for name in header) <= MAX_NAMES, "limit")
    start, tensors = 8 + length, []
    for name, one in header.items():
        tensors.append(tensor(name, one, start))
    whole([(one[3], one[4]) for one in tensors], start, len(data))
    return {"header": start, "tensors": sorted(tensors, key=lambda one: (one[3], one[4]))}


def tensor(name, value, start):
    need(len(utf8(name)) <= MAX_NAME, "limit")
    need(isinstance(value, dict) and set(value) == {"dtype", "shape", "data_offsets"}, "fields")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    need(isinstance(kind, str) and kind in BITS, "dtype")
    need(isinstance(shape, list) and all(map(is_u64, shape)) and len(shape) <= 16, "shape")
    need(isinstance(offsets, list) and len(offsets) == 2 and all(map(is_u64, offsets)), "offsets")
    bits = need_bits(shape, BITS[kind])
    need(bits % 8 == 0 and offsets[0] + bits // 8 == offsets[1], "length")
    need(start + offsets[1] < 2**64, "overflow")
    return [name, kind, shape, start + offsets[0], start + offsets[1]]


# ---------------------------------------------------------------------------------------------------------------- GGUF

GGML = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}
# Bytes of a value of each type; 8 is a text, 9 an array.
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, ARRAY, U32 = 8, 9, 4


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        need(length <= len(self.data) - self.at, "truncated")
        self.at += length
        need(self.at <= 128 * KIB * KIB, "limit")
        return self.data[self.at - length : self.at]

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def text(self):
        return self.take(self.u64())

    def name(self, longest):
        length = self.u64()
        need(length <= longest, "limit")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("utf-8") from None

    def value(self, kind):
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            return self.array()
        need(kind in WIDTHS, "value-type")
        return self.take(WIDTHS[kind])

    def array(self):
        kind, count = self.u32(), self.u64()
        need(kind == TEXT or kind in WIDTHS, "value-type")
        need(count <= 16_777_216, "limit")
        if kind != TEXT:
            return self.take(count * WIDTHS[kind])
        need(count * 8 <= len(self.data) - self.at, "truncated")
        for _ in range(count):
            self.text()


def padded(at, alignment):
    return -(-at // alignment) * alignment


def gguf(data):
    read = Reader(data)
    need(read.take(4) == b"GGUF" and read.u32() in (2, 3), "magic")
    tensors, entries = read.u64(), read.u64()
    need(tensors <= MAX_TENSORS and entries <= 4096, "limit")
    keys, alignment = set(), 32
    for _ in range(entries):
        key = read.name(1024)
        need(key not in keys, "twice")
        keys.add(key)
        kind = read.u32()
        value = read.value(kind)
        if key == "general.alignment":
            need(kind == U32, "alignment")
            alignment = int.from_bytes(value, "little")
            need(8 <= alignment <= 65536 and alignment & (alignment - 1) == 0, "alignment")
    found = [described(read) for _ in range(tensors)]
    names = [one[0] for one in found]
    need(len(set(names)) == len(names), "twice")
    need(sum(len(name.encode()) for name in names) <= MAX_NAMES, "limit")
    if not found:
        need(len(data) <= padded(read.at, alignment), "gap")
        return {"header": len(data), "tensors": []}
    return placed(found, padded(read.at, alignment), alignment, len(data))


def described(read):
    """Name, type, shape, size in bytes and offset of a tensor."""
    name, dimensions = read.name(MAX_NAME), read.u32()
    need(dimensions <= 4, "dimensions")
    shape = [read.u64() for _ in range(dimensions)]
    kind, offset = read.u32(), read.u64()
    need(kind in GGML, "element-type")
    label, block, width = GGML[kind]
    need((shape[0] if shape else 1) % block == 0, "block")
    size = need_bits(shape, 1) // block * width
    need(size < 2**63, "overflow")
    return name, label, shape[::-1], size, offset


def placed(found, start, alignment, end):
    """The tensors by rising offset, when they cover the data but for the padding."""
    at, out = 0, []
    for name, label, shape, size, offset in sorted(found, key=lambda one: (one[4], one[3])):
        need(start + offset + size < 2**64, "overflow")
        need(offset % alignment == 0 and offset == padded(at, alignment), "gap")
        at = offset + size
        out.append([name, label, shape, start + offset, start + at])
    need(start + at <= end <= start + padded(at, alignment), "gap")
    return {"header": start, "tensors": out}


# ------------------------------------------------------------------------------------------------------ kinds of files

ENDINGS = {
    "safetensors": "safetensors sft",
    "gguf": "gguf",
    "json": "json jsonl webmanifest sig",
    "text": "txt md markdown rst jinja jinja2 j2 yaml yml toml csv tsv cfg ini bpe tiktoken vocab merges sha256",
    "sentencepiece": "model spm spiece",
    "image": "png jpg jpeg gif webp",
    "numpy": "npy",
    "pickle": "bin pt pth ptl pt2 pkl pickle ckpt joblib dill sav mar nemo torchscript pdparams skops",
    "hdf5": "h5 hdf5 keras",
    "graph": "pb meta savedmodel",
    "script": "py pyc pyw ipynb sh bash js mjs ts lua pl rb r bat cmd ps1 php pth-tar",
    "executable": "so dll dylib exe o a whl jar class wasm llamafile com node apk cubin engine plan",
    "markup": "html htm xhtml svg xml",
    "archive": "zip npz tar gz tgz bz2 xz zst 7z rar lz4",
}
KIND_OF = {ending: kind for kind, endings in ENDINGS.items() for ending in endings.split()}
RUNS_CODE = ("pickle", "numpy-objects", "hdf5", "graph", "script", "executable", "markup")
PLAIN = ("license", "licence", "copying", "notice", "readme", "authors", "changelog", "use_policy")
SEEN = 4096

STARTS = [
    (rb"GGUF", "gguf"), (rb"\x80[\x00-\x05]", "pickle"), (rb"PK[\x03\x05\x07][\x04\x06\x08]", "zip"), (rb"\x89HDF", "hdf5"),
    (rb"\x93NUMPY", "npy"),
    (rb"\x7fELF|MZ|\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba\xbe|\x00asm", "executable"), (rb"#!", "script"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP", "image"),
    (rb"\x1f\x8b|\x28\xb5\x2f\xfd|\xfd7zXZ|BZh[1-9]|7z\xbc\xaf", "archive"),
    (rb"\s*(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|<svg|<script|<\?xml)", "markup"),
]


def by_name(path):
    name = path.rsplit("/", 1)[-1].lower()
    if name in (".gitattributes", ".gitignore") or ("." not in name and name.startswith(PLAIN)):
        return "text"
    if re.search(r"\.model\.v[0-9]*$", name):
        return "sentencepiece"
    return KIND_OF.get(name.rsplit(".", 1)[1]) if "." in name else None


def by_bytes(head):
    if len(head) > 8 and int.from_bytes(head[:8], "little") <= MAX_HEADER and head[8:9] == b"{":
        return "safetensors"
    for pattern, kind in STARTS:
        if re.match(pattern, head, re.DOTALL):
            if kind == "zip":
                return "pickle" if b".pkl" in head else "archive"
            return numpy(head) if kind == "npy" else kind
    return None


def numpy(head):
    width = {1: 2, 2: 4, 3: 4}.get(head[6] if len(head) > 6 else 0)
    if width is None or len(head) < 8 + width:
        return "unknown"
    end = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if end > len(head):
        return "unknown"
    if re.search(rb"['\"][|<>=]O|['\"]O.", head[:end], re.DOTALL):
        return "numpy-objects"
    return "numpy" if b"'descr'" in head[:end] else "unknown"


def is_text(head):
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
        return True
    except UnicodeDecodeError as error:
        return len(head) == SEEN and error.reason == "unexpected end of data"


def looks(kind, head):
    """The kind of a file of that name whose bytes show none."""
    text = is_text(head)
    if kind == "archive" or (kind == "sentencepiece" and not text and head[:1] == b"\x0a"):
        return kind
    if kind in ("text", "sentencepiece") and text:
        return "script" if b"!!python/" in head else "text"
    if kind == "json" and text and re.match(rb"(\xef\xbb\xbf)?\s*[{\[\"\-0-9tfn]", head):
        return kind
    return "unknown"


def kind_of(path, data):
    head = data[:SEEN]
    named, shown = by_name(path), by_bytes(head)
    if shown in RUNS_CODE:
        return shown
    if named in RUNS_CODE:
        return named
    if shown is not None:
        return shown if named in (None, shown) else "unknown"
    return looks(named, head)


def safety(kind):
    return "may-run-code" if kind in RUNS_CODE else "unknown" if kind in ("archive", "unknown") else "safe"


def file_kind(path, data):
    kind = kind_of(path, data)
    return {"kind": kind, "safety": safety(kind)}
