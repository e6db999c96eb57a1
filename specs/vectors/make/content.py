"""Document 01: kinds of files, and headers and cuts that a second reading of the rules asked for. The others were written by hand."""

import hashlib
import struct

from common import vector


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return u64(len(value)) + value


def given(data):
    return [{"hex": data.hex()}]


def kinds():
    def add(title, name, data, kind, safety):
        vector("01/file-kind", title, "file-kind", "FMT-020", {"name": name, "bytes": given(data)}, {"kind": kind, "safety": safety})

    runs, safe, unknown = "may-run-code", "safe", "unknown"
    add("a pickle's name in capitals", "weights/MODEL.PKL", b"{}", "pickle", runs)
    add("a pickle called model signing bundle", "model.sig", b"\x80\x04.", "pickle", runs)
    add("a folder's name does not count", "weights.bin/config.json", b"{}", "json", safe)
    add("a checkpoint", "model.ckpt", b"", "pickle", runs)
    add("a keras file", "model.keras", b"PK\x03\x04", "hdf5", runs)
    add("a graph", "saved_model.pb", b"\x08\x01", "graph", runs)
    add("a notebook", "demo.ipynb", b"{}", "script", runs)
    add("a library", "kernel.so", b"", "executable", runs)
    add("a Windows program called text", "notes.txt", b"MZ\x90\x00", "executable", runs)
    add("a Mach-O program called text", "notes.txt", b"\xcf\xfa\xed\xfe", "executable", runs)
    add("WebAssembly called SentencePiece", "tokenizer.model", b"\x00asm\x01\x00\x00\x00", "executable", runs)
    add("a vector picture", "logo.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "markup", runs)
    add("markup behind a byte order mark", "README.md", b"\xef\xbb\xbf \n<SCRIPT>", "markup", runs)
    add("an XML declaration called JSON", "config.json", b"<?xml version='1.0'?>", "markup", runs)
    add("gzip called text", "merges.txt", b"\x1f\x8b\x08\x00", unknown, unknown)
    add("Zstandard without a name", "weights", b"\x28\xb5\x2f\xfd", "archive", unknown)
    add("a zip archive called JSON", "config.json", b"PK\x03\x04", unknown, unknown)
    add("a zip archive with nothing of a pickle, called PyTorch", "model.pt", b"PK\x03\x04", "pickle", runs)
    add("a picture called JSON", "config.json", b"\x89PNG\r\n\x1a\n", unknown, unknown)
    add("a picture in WebP", "logo.webp", b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image", safe)
    add("a sound in RIFF called picture", "logo.webp", b"RIFF\x10\x00\x00\x00WAVEfmt ", unknown, unknown)
    add("a SentencePiece tokeniser", "tokenizer.model", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02", "sentencepiece", safe)
    add("a numbered tokeniser", "tokenizer.model.v3", b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02", "sentencepiece", safe)
    add("a tokeniser in text", "tokenizer.model", b"IQ== 0\nIg== 1\n", "text", safe)
    add("a tokeniser that is neither", "tokenizer.model", b"\x00\x01", unknown, unknown)
    add("a licence without an ending", "LICENSE", b"Apache License", "text", safe)
    add("a licence with bytes that are no text", "LICENSE", b"\xff\xfe", unknown, unknown)
    add("an ending that nobody knows", "model.onnx", b"\x08\x08", unknown, unknown)
    add("a text called JSON", "config.json", b"hello", unknown, unknown)
    add("JSON behind a byte order mark", "config.json", b"\xef\xbb\xbf {}", "json", safe)
    add("an empty file called JSON", "config.json", b"", unknown, unknown)
    add("an empty text", "notes.txt", b"", "text", safe)
    add("a character cut off in a short text", "notes.txt", b"a\xc3", unknown, unknown)
    add("a character cut off where the reading ends", "notes.txt", b"a" * 4095 + "é".encode(), "text", safe)
    add("Python objects asked for by a template", "chat_template.jinja", b"!!python/name:os.system", "script", runs)
    add("safetensors whose length is over the limit, without a name", "weights", u64(100_000_001) + b"{", unknown, unknown)

    def array(description, version=1):
        length = struct.pack("<H" if version == 1 else "<I", len(description))
        return b"\x93NUMPY" + bytes([version, 0]) + length + description

    fields = b"{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (1,), }\n"
    add("an array with objects in one field", "a.npy", array(fields), "numpy-objects", runs)
    add("an array of version 2 with objects", "a.npy", array(fields, 2), "numpy-objects", runs)
    add("an array of version 9", "a.npy", array(b"{'descr': '<f4'}", 9), unknown, unknown)
    add("an array whose description is cut off", "a.npy", array(fields)[:40], unknown, unknown)
    add("an array of objects called JSON", "a.json", array(b"{'descr': 'O', }"), "numpy-objects", runs)


def headers():
    def tensors(title, rules, header, data=b"", error=None, ok=None):
        header = header.encode() if isinstance(header, str) else header
        vector("01/safetensors", title, "safetensors", rules, {"bytes": given(u64(len(header)) + header + data)}, ok, error)

    f = "refused: "
    one = '{"%s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    tensors(f + "half a pair of surrogates as a name", "FMT-002", one % "\\ud800", b"x", error="malformed")
    tensors(f + "a control character in a name", "FMT-002", one % "a\n", b"x", error="malformed")
    tensors(f + "a comma behind the last member", "FMT-002", one[:-1] % "a" + ",}", b"x", error="malformed")
    tensors(f + "not a number as an offset", "FMT-002 FMT-004", (one % "a").replace("[0,1]", "[0,NaN]"), b"x", error="malformed")
    tensors(f + "a dimension as true", "FMT-004", (one % "a").replace("[1]", "[true]"), b"x", error="malformed")
    tensors(f + "a dimension as text", "FMT-004", (one % "a").replace("[1]", '["1"]'), b"x", error="malformed")
    tensors(f + "metadata as a list", "FMT-004", '{"__metadata__":[]}', error="malformed")
    tensors(f + "a tensor that is null", "FMT-004", '{"a":null}', error="malformed")
    tensors(f + "four bits and a half byte over", "FMT-005", '{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}', b"xx", error="shape")
    tensors("six bits, four of them", "FMT-005", '{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}', b"xxx", ok={"header": 66, "tensors": [["a", "F6_E2M3", [4], 66, 69]]})

    def gguf(title, rules, metadata=(), infos=(), data=b"", error=None, ok=None, version=3):
        head = b"GGUF" + u32(version) + u64(len(infos)) + u64(len(metadata)) + b"".join(metadata) + b"".join(infos)
        pad = -len(head) % 32 if infos else 0
        vector("01/gguf", title, "gguf", rules, {"bytes": given(head + bytes(pad) + data)}, ok, error)

    def info(name, offset=0, shape=(1,), kind=24):
        return text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(offset)

    gguf("a file that ends with its last tensor", "FMT-016", infos=[info("t")], data=b"x", ok={"header": 64, "tensors": [["t", "I8", [1], 64, 65]]})
    gguf("a part of the padding behind the last tensor", "FMT-016", infos=[info("t")], data=b"x" + bytes(5), ok={"header": 64})
    gguf("a header with a part of the padding behind it", "FMT-016", data=bytes(3), ok={"header": 27, "tensors": []})
    gguf(f + "a byte behind the padding of the header", "FMT-016", data=bytes(9), error="gap")
    gguf(f + "a byte behind the padding of the last tensor", "FMT-016", infos=[info("t")], data=b"x" + bytes(32), error="gap")
    gguf(f + "a tensor name that is not UTF-8", "FMT-012", infos=[info(b"\xff")], data=b"x", error="malformed")
    gguf(f + "a tensor's element type that is none", "FMT-015", infos=[info("t", kind=43)], data=b"x", error="dtype")
    gguf("a tensor without dimensions", "FMT-015", infos=[info("t", shape=())], data=b"x", ok={"tensors": [["t", "I8", [], 64, 65]]})
    gguf(f + "an array whose length overflows in bytes", "FMT-011", [text("a") + u32(9) + u32(12) + u64(2**61 + 1)], error="limit")
    gguf(f + "an array of texts longer than the file", "FMT-011", [text("a") + u32(9) + u32(8) + u64(16_777_216)], error="truncated")
    gguf(f + "a value cut short", "FMT-011 FMT-013", [text("a") + u32(12) + b"1234"], error="truncated")
    gguf(f + "an alignment twice", "FMT-012 FMT-014", [text("general.alignment") + u32(4) + u32(32), text("general.alignment") + u32(4) + u32(64)], error="duplicate")
    gguf(f + "an alignment as a text", "FMT-014", [text("general.alignment") + u32(8) + text("32")], error="value-type")


GEAR = [int.from_bytes(hashlib.md5(bytes([value]) * 64).digest()[:8], "big") for value in range(256)]


def split_mix(seed, size):
    out, mask = bytearray(), 2**64 - 1
    for step in range(1, -(-size // 8) + 1):
        z = seed + step * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        out += struct.pack("<Q", z ^ z >> 31)
    return bytes(out[:size])


def chunks(data):
    """By the rule's prose: the first 64 KiB are passed over, two bytes are looked at together, the mask changes at 256 KiB."""
    at, lengths = 0, []
    while at < len(data):
        chunk, h = data[at : at + 2**20], 0
        length = len(chunk)
        for i in range(2**16, len(chunk) // 2 * 2):
            h = h * 2 + GEAR[chunk[i]] & 2**64 - 1
            if not h & (0x0000D91707537000 if i < 2**18 else 0x0000D90703537000):
                length = i
                break
        lengths.append(length)
        at += length
    return lengths


def cuts():
    for seed, size in ((3, 0), (3, 1), (3, 65_537), (3, 262_145), (4, 1_500_001), (5, 2_999_999)):
        lengths = chunks(split_mix(seed, size))
        vector("01/content-cuts", f"seed {seed}, {size} bytes", "content-cuts", "CUT-002", {"seed": seed, "size": size}, {"lengths": lengths})


def maps():
    one = hashlib.sha256(b"").digest()

    def chunk_map(title, rules, magic=b"SYCM", error=None, **more):
        data = magic + u32(1) + one + u64(0) + u32(0)
        vector("01/chunk-map", title, "chunk-map", rules, {"bytes": given(data)}, error=error, **more)

    for title, magic in {"in lower case": b"sycm", "the other way round": b"MCYS", "of a hello": b"SYHL", "of four zeros": bytes(4)}.items():
        chunk_map(f"refused: the magic {title}", "MAP-002", magic, error="magic")


def all_of_it():
    kinds()
    headers()
    cuts()
    maps()
