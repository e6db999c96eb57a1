"""Measures other ways to make chunks smaller, for `make bench-codec`.

    codec_peers.py RUNS FILE LENGTHS KIND [FILE LENGTHS KIND]...

LENGTHS is a JSON list of the chunks' lengths, KIND one of bf16, f16, f32, gguf. Each line of the answer is JSON: the file, the way, its
share of the raw bytes, and GB/s of CPU for encoding and decoding (the best of the runs, as for ours). Every chunk is decoded and compared.
"""

import json
import sys
import time


def zstd(level):
    import zstandard

    encoder, decoder = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    return encoder.compress, lambda data, length: decoder.decompress(data)


def bg4_lz4():
    """Bytes grouped by four, then LZ4, as Xet does it whatever the element type."""
    import lz4.block
    import numpy

    def encode(chunk):
        whole = len(chunk) // 4 * 4
        grouped = numpy.frombuffer(chunk[:whole], numpy.uint8).reshape(-1, 4).T.tobytes()
        return lz4.block.compress(grouped + chunk[whole:], store_size=False)

    def decode(data, length):
        grouped = lz4.block.decompress(data, uncompressed_size=length)
        whole = length // 4 * 4
        return numpy.frombuffer(grouped[:whole], numpy.uint8).reshape(4, -1).T.tobytes() + grouped[whole:]

    return encode, decode


def zipnn(kind):
    """ZipNN's core with the parameters that its Python front passes for this element type."""
    import zipnn_core

    # Number of planes, whether the sign is moved, and the order of bytes.
    planes, bits, order = {"bf16": (2, 1, 10), "f16": (2, 0, 10), "f32": (4, 1, 220)}[kind]
    piece, threshold, check_after, threads = 256 * 1024, 0.95, 10, 1

    def encode(chunk):
        # It works in place.
        head, body = bytearray(32), bytearray(chunk)
        return zipnn_core.zipnn_core(head, body, planes, bits, order, 0, piece, threshold, check_after, threads)

    def decode(data, length):
        return zipnn_core.combine_dtype(memoryview(data)[32:], planes, bits, order, piece, length, threads)

    return encode, decode


WAYS = {
    "zstd -1": lambda kind: zstd(1),
    "zstd -3": lambda kind: zstd(3),
    "BG4-LZ4": lambda kind: bg4_lz4(),
    "ZipNN": zipnn,
}


def measure(chunks, encode, decode, multiple):
    """Share of raw, and CPU seconds for both ways. Chunks whose length the way can't take stay as they are."""
    raw = coded = 0
    seconds = [0.0, 0.0]
    for chunk in chunks:
        raw += len(chunk)
        if len(chunk) % multiple:
            coded += len(chunk)
            continue
        start = time.process_time()
        data = encode(chunk)
        seconds[0] += time.process_time() - start
        start = time.process_time()
        back = decode(data, len(chunk))
        seconds[1] += time.process_time() - start
        assert bytes(back) == chunk
        coded += min(len(data), len(chunk))
    return coded / raw, raw / seconds[0] / 1e9, raw / seconds[1] / 1e9


def main():
    runs = int(sys.argv[1])
    for path, lengths, kind in zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3]):
        data, chunks, at = open(path, "rb").read(), [], 0
        for length in json.load(open(lengths)):
            chunks.append(data[at : at + length])
            at += length
        for name, make in WAYS.items():
            try:
                encode, decode = make(kind)
            except (ImportError, KeyError):
                continue
            found = [measure(chunks, encode, decode, 4 if name == "ZipNN" else 1) for _ in range(runs)]
            best = {"share": found[0][0], "encode": max(f[1] for f in found), "decode": max(f[2] for f in found)}
            print(json.dumps({"file": path, "way": name} | best), flush=True)


main()
