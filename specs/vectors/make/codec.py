"""Document 07: encoded chunks. Frames of raw and repeated blocks are made by hand, compressed ones by `zstandard`."""

import random
import struct

import zstandard
from blake3 import blake3
from common import vector

RAW, ZSTD, PLANES2, PLANES4, PLANES8, BLOCKS = range(6)
MAGIC = bytes.fromhex("28b52ffd")


def u16(n):
    return struct.pack("<H", n)


def u32(n):
    return struct.pack("<I", n)


def header(size, low_bits=0x20, field=None):
    """A frame's header with the shortest content size, or one of `field` bytes."""
    field = field or (1 if size < 256 else 2 if size < 65792 else 4)
    flag = {1: 0, 2: 1, 4: 2, 8: 3}[field]
    return MAGIC + bytes([flag << 6 | low_bits]) + (size - (256 if field == 2 else 0)).to_bytes(field, "little")


def block(kind, size, content, last=True):
    return (int(last) | kind << 1 | size << 3).to_bytes(3, "little") + content


def stored(data):
    """A frame with one block as it is."""
    return header(len(data)) + block(0, len(data), data)


def repeated(byte, times, **changes):
    """A frame with one block of a byte many times."""
    return header(times, **changes) + block(1, times, bytes([byte]))


def compressed(data):
    """A frame with compressed blocks."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=20, write_content_size=1, write_checksum=0, write_dict_id=0
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    assert frame[4] & 0x3F == 0x20 and len(frame) < len(data)
    return frame


def damaged(frame):
    """The frame with the last byte changed that a decoder can tell."""
    for at in reversed(range(9, len(frame))):
        broken = frame[:at] + bytes([frame[at] ^ 0xFF]) + frame[at + 1 :]
        try:
            zstandard.ZstdDecompressor().decompress(broken)
        except zstandard.ZstdError:
            return broken
    raise AssertionError("no byte matters")


def stream(encoded):
    return u32(len(encoded)) + encoded


def planes(chunk, width):
    """The planes of a chunk and what is left at its end."""
    bits = 8 * width
    count = len(chunk) // width
    words = [int.from_bytes(chunk[i * width : (i + 1) * width], "little") for i in range(count)]
    rotated = [(word << 1 | word >> (bits - 1)) & ((1 << bits) - 1) for word in words]
    return [bytes(word >> 8 * i & 255 for word in rotated) for i in range(width)], chunk[count * width :]


def encoded_planes(chunk, width, coded):
    """The streams of these planes are frames, the others are as they are."""
    split, tail = planes(chunk, width)
    return b"".join(stream(compressed(p) if i in coded else p) for i, p in enumerate(split)) + tail


def encoded_blocks(chunk, fields, phase, coded):
    size = sum(fields)
    count = (len(chunk) - phase) // size
    whole = [chunk[phase + i * size : phase + (i + 1) * size] for i in range(count)]
    out, at = description(fields, phase), 0
    for i, length in enumerate(fields):
        data = b"".join(b[at : at + length] for b in whole)
        out += stream(compressed(data) if i in coded else data)
        at += length
    return out + chunk[:phase] + chunk[phase + count * size :]


def description(fields, phase, number=None):
    number = len(fields) if number is None else number
    return bytes([number]) + b"".join(map(u16, fields)) + u16(phase)


def weights(kind, count, seed):
    """Normally distributed numbers as BF16, F16 (`e`), F32 (`f`) or F64 (`d`)."""
    numbers = random.Random(seed)
    values = [numbers.gauss(0, 0.03) for _ in range(count)]
    if kind == "bf16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{count}{kind}", *values)


def q4_1(count, seed):
    """Blocks as Q4_1 has them: two scales, sixteen bytes of quants."""
    numbers = random.Random(seed)
    scale = lambda: struct.pack("<e", abs(numbers.gauss(0, 0.01)) + 0.01)
    return b"".join(scale() + scale() + numbers.randbytes(16) for _ in range(count))


def chunks():
    def chunk(title, identifiers, encoding, data, length, plain=None, error=None):
        given = {"encoding": encoding, "bytes": data.hex(), "length": length}
        ok = None if plain is None else {"blake3": "b3:" + blake3(plain).hexdigest()}
        assert plain is None or len(plain) == length
        vector("07/codec", title, "encoded-chunk", identifiers, given, ok, error)

    identifiers_and_raw(chunk)
    frames(chunk)
    planes_and_streams(chunk)
    blocks(chunk)


def identifiers_and_raw(chunk):
    chunk("raw", "COD-001 COD-003", RAW, b"steelyard", 9, b"steelyard")
    chunk("refused: identifier 6", "COD-001", 6, b"steelyard", 9, error="encoding")
    chunk("refused: identifier 255", "COD-001", 255, b"steelyard", 9, error="encoding")
    chunk("refused: raw, a byte short", "COD-002 COD-003", RAW, b"steelyar", 9, error="length")
    chunk("refused: raw, a byte more", "COD-002 COD-003", RAW, b"steelyards", 9, error="length")
    chunk("refused: raw, nothing", "COD-003", RAW, b"", 9, error="length")
    chunk("refused: a frame as long as the chunk", "COD-003", ZSTD, repeated(7, 10), 10, error="not-smaller")
    chunk("refused: a frame longer than the chunk", "COD-003", ZSTD, stored(b"a" * 40), 40, error="not-smaller")
    split = encoded_planes(weights("bf16", 40, 1), 2, ())
    chunk("refused: planes that save nothing", "COD-003", PLANES2, split, 80, error="not-smaller")
    chunk("refused: planes of no element", "COD-003 COD-030", PLANES4, u32(0) * 4 + b"abc", 3, error="not-smaller")


def frames(chunk):
    text = b"the Steelyard was the trading house of the league; " * 9
    size = len(text)
    good = compressed(text)
    chunk("zstd", "COD-010 COD-011", ZSTD, good, size, text)
    chunk("zstd, a repeated byte", "COD-010", ZSTD, repeated(7, 300), 300, b"\7" * 300)
    wide = repeated(7, 300, field=8)
    chunk("zstd, a content size of eight bytes", "COD-010 COD-011", ZSTD, wide, 300, b"\7" * 300)
    two = header(300) + block(1, 100, b"a", last=False) + block(1, 200, b"b")
    chunk("zstd, two blocks", "COD-010", ZSTD, two, 300, b"a" * 100 + b"b" * 200)
    full = header(1 << 20) + b"".join(block(1, 1 << 17, b"z", last=i == 7) for i in range(8))
    chunk("zstd, the longest chunk", "COD-002", ZSTD, full, 1 << 20, b"z" * (1 << 20))

    chunk("refused: another magic", "COD-010", ZSTD, b"\x27" + good[1:], size, error="frame")
    window = MAGIC + bytes([0x40, 0x50]) + u16(300 - 256) + block(1, 300, b"a")
    chunk("refused: a frame with a window", "COD-010", ZSTD, window, 300, error="frame")
    vast = MAGIC + bytes([0x80, 0xF8]) + u32(300) + block(1, 300, b"a")
    chunk("refused: a frame with a window of two tebibytes", "COD-010 COD-002", ZSTD, vast, 300, error="frame")
    unsized = MAGIC + bytes([0x00, 0x50]) + block(1, 300, b"a")
    chunk("refused: a frame without content size", "COD-010 COD-011", ZSTD, unsized, 300, error="frame")
    checked = repeated(7, 300, low_bits=0x24) + u32(0)
    chunk("refused: a checksum", "COD-010", ZSTD, checked, 300, error="frame")
    dictionary = MAGIC + bytes([0x61, 9]) + u16(300 - 256) + block(1, 300, b"a")
    chunk("refused: a dictionary", "COD-010", ZSTD, dictionary, 300, error="frame")
    chunk("refused: a reserved bit", "COD-010", ZSTD, repeated(7, 300, low_bits=0x28), 300, error="frame")
    chunk("refused: an unused bit", "COD-010", ZSTD, repeated(7, 300, low_bits=0x30), 300, error="frame")
    skipped = bytes.fromhex("502a4d18") + u32(4) + b"skip"
    chunk("refused: a skippable frame in front", "COD-010", ZSTD, skipped + good, size, error="frame")
    chunk("refused: a skippable frame behind", "COD-004 COD-012", ZSTD, good + skipped, size, error="trailing")
    chunk("refused: a byte behind the frame", "COD-004", ZSTD, good + b"\0", size, error="trailing")
    halves = repeated(7, 150) + repeated(7, 150)
    chunk("refused: two frames, together as long as the chunk", "COD-011 COD-012", ZSTD, halves, 300, error="content-size")
    chunk("refused: the same frame twice", "COD-012 COD-004", ZSTD, repeated(7, 300) * 2, 300, error="trailing")

    chunk("refused: a content size one lower", "COD-011", ZSTD, repeated(7, 299), 300, error="content-size")
    chunk("refused: a content size one higher", "COD-011 COD-002", ZSTD, repeated(7, 301), 300, error="content-size")
    bomb = header((1 << 64) - 1, field=8) + block(1, 300, b"a")
    chunk("refused: a content size of all ones", "COD-011 COD-002", ZSTD, bomb, 300, error="content-size")
    more = header(300) + block(1, 301, b"a")
    chunk("refused: blocks longer than the content size", "COD-002", ZSTD, more, 300, error="damaged")
    fewer = header(300) + block(1, 299, b"a")
    chunk("refused: blocks shorter than the content size", "COD-002", ZSTD, fewer, 300, error="damaged")
    endless = header(300) + block(1, 100, b"a", last=False)
    chunk("refused: no last block", "COD-012 COD-004", ZSTD, endless, 300, error="damaged")
    chunk("refused: a reserved type of block", "COD-012", ZSTD, header(300) + block(3, 1, b"a"), 300, error="damaged")
    huge = header(300) + block(1, (1 << 21) - 1, b"a")
    chunk("refused: a block of two mebibytes", "COD-002 COD-012", ZSTD, huge, 300, error="damaged")
    exponents = planes(weights("bf16", 600, 6), 2)[0][1]
    chunk("refused: damaged within a block", "COD-012", ZSTD, damaged(compressed(exponents)), 600, error="damaged")
    chunk("refused: a frame cut short", "COD-004 COD-012", ZSTD, good[:-1], size, error="damaged")
    chunk("refused: a frame cut in its header", "COD-004", ZSTD, good[:5], size, error="truncated")
    chunk("refused: no frame", "COD-004", ZSTD, b"", size, error="truncated")


def planes_and_streams(chunk):
    bf16 = weights("bf16", 600, 2)
    good = encoded_planes(bf16, 2, (1,))
    chunk("planes of BF16, the exponents coded", "COD-020 COD-030", PLANES2, good, 1200, bf16)
    odd = bf16 + b"\xfe"
    chunk("planes of BF16 and a byte", "COD-030", PLANES2, encoded_planes(odd, 2, (1,)), 1201, odd)
    zero = b"\0\x80" * 400
    both = stream(repeated(1, 400)) + stream(repeated(0, 400))
    chunk("planes of negative zeros", "COD-030", PLANES2, both, 800, zero)
    f32 = weights("f", 700, 3) + b"abc"
    chunk("planes of F32 and three bytes", "COD-030", PLANES4, encoded_planes(f32, 4, (3,)), 2803, f32)
    f64 = weights("d", 700, 4) + b"abcdefg"
    chunk("planes of F64 and seven bytes", "COD-030", PLANES8, encoded_planes(f64, 8, (7,)), 5607, f64)

    low, high = planes(bf16, 2)[0]
    exponents = compressed(high)
    long = stream(low + b"\0") + stream(exponents)
    chunk("refused: a plane with a byte too many", "COD-020", PLANES2, long, 1200, error="stream")
    short = stream(low[:-1]) + stream(exponents)
    chunk("refused: a plane with a byte too few", "COD-020 COD-010", PLANES2, short, 1200, error="frame")
    vast = stream(low) + u32(0xFFFFFFFF) + exponents
    chunk("refused: a plane of four gibibytes", "COD-020 COD-002", PLANES2, vast, 1200, error="stream")
    beyond = stream(low) + u32(599) + exponents
    chunk("refused: a plane that reaches beyond the end", "COD-020 COD-004", PLANES2, beyond, 1200, error="truncated")
    chunk("refused: one plane of two", "COD-004 COD-030", PLANES2, stream(low), 1200, error="truncated")
    chunk("refused: within a length", "COD-004 COD-020", PLANES2, stream(low) + b"\0\0", 1200, error="truncated")
    chunk("refused: an empty plane", "COD-020", PLANES2, stream(b"") + stream(exponents), 1200, error="truncated")
    chunk("refused: a byte behind the planes", "COD-004", PLANES2, good + b"\0", 1200, error="trailing")
    chunk("refused: no tail", "COD-004 COD-030", PLANES2, good, 1201, error="truncated")
    other = stream(low) + stream(compressed(high + b"\0"))
    chunk("refused: a plane whose frame decodes to more", "COD-011 COD-002", PLANES2, other, 1200, error="content-size")
    followed = stream(low) + stream(exponents + b"\0")
    chunk("refused: a byte behind a plane's frame", "COD-004 COD-012", PLANES2, followed, 1200, error="trailing")
    chunk("refused: planes of another width", "COD-030", PLANES4, good, 1200, error="stream")


def blocks(chunk):
    fields = [1, 1, 1, 1, 16]
    data = q4_1(200, 5)
    good = encoded_blocks(data, fields, 0, (1, 3))
    chunk("blocks of Q4_1", "COD-040 COD-020", BLOCKS, good, 4000, data)
    cut = data[7:-5]
    shifted = encoded_blocks(cut, fields, 13, (1, 3))
    chunk("blocks from within one to within one", "COD-040", BLOCKS, shifted, 3988, cut)
    one = b"\0" * 4096
    largest = description([4096], 0) + stream(repeated(0, 4096))
    chunk("one block of the greatest length", "COD-040 COD-041", BLOCKS, largest, 4096, one)
    sixteen = description([1] * 16, 0) + stream(repeated(9, 100)) * 16
    chunk("sixteen fields", "COD-041", BLOCKS, sixteen, 1600, b"\x09" * 1600)

    body = good[len(description(fields, 0)) :]
    many = description([1] * 17, 0) + stream(repeated(9, 100)) * 17
    chunk("refused: seventeen fields", "COD-041", BLOCKS, many, 1700, error="fields")
    chunk("refused: no fields", "COD-041", BLOCKS, description([], 0) + body, 4000, error="fields")
    chunk("refused: a field of length 0", "COD-041", BLOCKS, description([0] + fields, 0) + body, 4000, error="fields")
    over = description([4096, 1], 0) + stream(repeated(0, 4096)) + stream(b"\0")
    chunk("refused: a block of 4097 bytes", "COD-041", BLOCKS, over, 4097, error="fields")
    late = description(fields, 20) + body
    chunk("refused: a phase of a whole block", "COD-041", BLOCKS, late, 4000, error="fields")
    none = description([200], 100) + u32(0)
    chunk("refused: no whole block", "COD-041", BLOCKS, none, 299, error="fields")
    chunk("refused: fields cut short", "COD-004 COD-040", BLOCKS, description(fields, 0)[:6], 4000, error="truncated")
    chunk("refused: more fields than streams", "COD-004", BLOCKS, good[: len(good) - 3204], 4000, error="truncated")
    chunk("refused: nothing at all", "COD-004", BLOCKS, b"", 4000, error="truncated")
    chunk("refused: another phase", "COD-040 COD-020", BLOCKS, description(fields, 13) + body, 4000, error="stream")
    chunk("refused: a byte behind the blocks", "COD-004", BLOCKS, good + b"\0", 4000, error="trailing")
    chunk("refused: head and tail missing", "COD-004 COD-040", BLOCKS, shifted[:-28], 3988, error="truncated")
    big = description(fields, 0) + u32(201) + body[4:]
    chunk("refused: a field's stream too long", "COD-020", BLOCKS, big, 4000, error="stream")
