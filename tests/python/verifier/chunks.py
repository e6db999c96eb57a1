"""Document 01: chunk maps and spans."""

from .basic import blake3, digest_of, need

MAX_CHUNKS, MAX_CHUNK, SPAN = 2**22, 2**20, 64 * 1024


class Map:
    def __init__(self, data):
        need(data[:4] == b"SYCM", "magic")
        need(len(data) >= 52, "truncated")
        version = int.from_bytes(data[4:8], "little")
        need(version == 1, "version")
        self.blob, self.size = data[8:40], int.from_bytes(data[40:48], "little")
        count = int.from_bytes(data[48:52], "little")
        need(count <= MAX_CHUNKS, "count")
        need(len(data) == 52 + 36 * count, "length")
        entries = [data[at : at + 36] for at in range(52, len(data), 36)]
        self.chunks = [(entry[:32], int.from_bytes(entry[32:], "little")) for entry in entries]
        need(all(1 <= length <= MAX_CHUNK for _, length in self.chunks), "chunk-length")
        need(sum(length for _, length in self.chunks) == self.size, "size")
        if count == 0:
            need(self.blob == blake3(b"").digest(), "blob")
        if count == 1:
            need(self.blob == self.chunks[0][0], "blob")
        self.digest = digest_of(data)

    def shown(self):
        return {
            "blob": "b3:" + self.blob.hex(), "size": self.size, "digest": self.digest,
            "chunks": [["b3:" + digest.hex(), length] for digest, length in self.chunks],
        }

    def check_chunk(self, index, data):
        need(index < len(self.chunks), "no-such-chunk")
        digest, length = self.chunks[index]
        need(len(data) == length and blake3(data).digest() == digest, "chunk")

    def check_blob(self, data):
        need(len(data) == self.size and blake3(data).digest() == self.blob, "blob")


def spans(size, header=None, tensors=()):
    """The spans of a file ([CUT-001]): (kind, length)."""
    if header is None:
        return [["content", size]] if size else []
    need(header + sum(tensors) <= size, "layout")
    out = [["content", header]] if header else []
    small = 0
    for length in tensors:
        if length >= SPAN:
            if small:
                out.append(["even", small])
            out.append(["even", length])
            small = 0
        else:
            small += length
            if small >= SPAN:
                out.append(["even", small])
                small = 0
    if small:
        out.append(["even", small])
    return out
