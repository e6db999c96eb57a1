"""Document 07: encoded chunks."""

import zstandard

from .basic import Refused, need

MAX_CHUNK = 1_048_576
WIDTHS = {2: 2, 3: 4, 4: 8}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        need(length <= len(self.data) - self.at, "truncated")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, width):
        return int.from_bytes(self.take(width), "little")

    def stream(self, length):
        """So many decoded bytes ([COD-020])."""
        encoded = self.number(4)
        need(encoded <= length, "stream")
        return self.take(length) if encoded == length else frame(self.take(encoded), length)


def frame(data, length):
    """One Zstandard frame that decodes to so many bytes."""
    need(data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 5 and data[4] & 0x3F == 0x20, "frame")
    # As a single segment the content's size has 1, 2, 4 or 8 bytes; that of 2 counts from 256.
    width = (1, 2, 4, 8)[data[4] >> 6]
    size = int.from_bytes(data[5 : 5 + width], "little") + (256 if width == 2 else 0)
    need(len(data) >= 5 + width and size == length, "frame-length")
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_CHUNK).decompressobj()
    try:
        out = decoder.decompress(data)
    except zstandard.ZstdError:
        raise Refused("frame") from None
    need(decoder.eof and not decoder.unused_data, "frame")
    need(len(out) == length, "frame-length")
    return out


def planes(read, width, length):
    count = length // width
    columns = [read.stream(count) for _ in range(width)]
    tail = read.take(length - count * width)
    bits, out = 8 * width, bytearray(count * width)
    for at, column in enumerate(columns):
        out[at::width] = column
    # Each word back to the right by one bit.
    for at in range(0, len(out), width):
        word = int.from_bytes(out[at : at + width], "little")
        out[at : at + width] = ((word >> 1) | ((word & 1) << (bits - 1))).to_bytes(width, "little")
    return bytes(out) + tail


def blocks(read, length):
    count = read.number(1)
    need(1 <= count <= 16, "fields")
    fields = [read.number(2) for _ in range(count)]
    phase, block = read.number(2), sum(fields)
    need(all(fields) and block <= 4096 and phase < block, "fields")
    need(length >= phase, "fields")
    whole = (length - phase) // block
    need(whole >= 1, "fields")
    streams = [read.stream(field * whole) for field in fields]
    head, tail = read.take(phase), read.take(length - phase - whole * block)
    out = bytearray(head)
    for at in range(whole):
        for field, stream in zip(fields, streams):
            out += stream[at * field : (at + 1) * field]
    return bytes(out) + tail


def decode(encoding, data, length):
    need(encoding <= 5, "encoding")
    need(1 <= length <= MAX_CHUNK, "length")
    if encoding == 0:
        need(len(data) == length, "length")
        return data
    need(len(data) < length, "length")
    if encoding == 1:
        return frame(data, length)
    read = Reader(data)
    out = blocks(read, length) if encoding == 5 else planes(read, WIDTHS[encoding], length)
    need(read.at == len(data), "behind")
    need(len(out) == length, "length")
    return out
