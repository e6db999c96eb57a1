"""Document 06: the frames of `/steelyard/log/1` and what is gossiped about logs."""

from common import compact, vector
from wire import frame, u16, u64

SOME = bytes(range(33))


def exchange():
    requests()
    answers()
    gossip()


def requests():
    f = "06/log-request"

    def request(name, identifiers, data, ok=None, error=None):
        vector(f, name, "log-request", identifiers, {"bytes": data.hex()}, ok, error)

    def span(kind, low, high, nation=b"alba"):
        return frame(kind, u64(low) + u64(high) + nation)

    request("heads", "LGP-005 FRM-001", frame(0x21), {"request": "heads"})
    request("refused: heads with a body", "FRM-001", frame(0x21, b"a"), error="length")
    request("a checkpoint", "LGP-001", frame(0x22, b"alba"), {"request": "checkpoint", "nation": "alba"})
    longest = b"a" * 32
    request("a checkpoint of the longest name", "LGP-001", frame(0x22, longest), {"request": "checkpoint", "nation": longest.decode()})
    for name, text in (
        ("no name", b""), ("a name too long", b"a" * 33), ("a name in capitals", b"Alba"), ("a name that leads elsewhere", b"../alba"),
        ("a name with a zero byte behind it", b"alba\0"), ("a name that is no UTF-8", b"\xff\xfe"), ("a name that begins with a hyphen", b"-alba"),
    ):
        request(f"refused: a checkpoint of {name}", "LGP-001", frame(0x22, text), error="value")
        request(f"refused: entries of {name}", "LGP-001", span(0x23, 0, 1, text), error="value")
    request("refused: a name over the limit of a request", "FRM-002 LGP-001", frame(0x22, b"a" * 65), error="too-large")
    request("entries", "LGP-002", span(0x23, 3, 9), {"request": "entries", "nation": "alba", "from": 3, "to": 9})
    request("the first entry", "LGP-002", span(0x23, 0, 1), {"request": "entries", "nation": "alba", "from": 0, "to": 1})
    request("refused: entries from one to itself", "LGP-002", span(0x23, 3, 3), error="value")
    request("refused: entries backwards", "LGP-002", span(0x23, 9, 3), error="value")
    request("refused: entries cut short in the second number", "FRM-001", frame(0x23, u64(3) + u64(9)[:7]), error="truncated")
    request("a proof", "LGP-003", span(0x24, 1, 2), {"request": "proof", "nation": "alba", "old": 1, "new": 2})
    request("refused: a proof from nothing", "LGP-003", span(0x24, 0, 2), error="value")
    request("refused: a proof from a size to itself", "LGP-003", span(0x24, 2, 2), error="value")
    request("refused: a proof backwards", "LGP-003", span(0x24, 2, 1), error="value")
    request("refused: a proof without a name", "LGP-001", span(0x24, 1, 2, b""), error="value")
    request("a cosignature asked for", "LGP-004", frame(0x25, b"old 0"), {"request": "cosign", "length": 5})
    request("the longest request for a cosignature", "LGP-004", frame(0x25, b"a" * 35712), {"request": "cosign", "length": 35712})
    request("refused: a cosignature for nothing", "LGP-004", frame(0x25), error="length")
    request("refused: a cosignature asked for with a byte too many", "LGP-004 FRM-002", frame(0x25, b"a" * 35713), error="too-large")
    for kind in (0x20, 0x26, 0xA1):
        request(f"refused: type {kind:#04x}", "FRM-003", frame(kind), error="type")


def answers():
    f = "06/log-answer"

    def answer(name, identifiers, data, ok=None, error=None):
        vector(f, name, "log-answer", identifiers, {"bytes": data.hex() if isinstance(data, bytes) else data}, ok, error)

    answer("no heads", "LGP-005", frame(0xA1, u16(0)), {"answer": "heads", "count": 0})
    answer("as many heads as there may be", "LGP-005", frame(0xA1, u16(1024)), {"answer": "heads", "count": 1024})
    answer("refused: a head too many", "LGP-005", frame(0xA1, u16(1025)), error="value")
    answer("refused: heads without their number", "FRM-001", frame(0xA1), error="truncated")
    answer("refused: heads with a byte too many", "FRM-002", frame(0xA1, u16(1) + b"\0"), error="too-large")
    for kind, name, limit in ((0xA2, "checkpoint", 32768), (0xA3, "evidence", 163840)):
        answer(f"a {name}", "LGP-005", frame(kind, b"note"), {"answer": name, "length": 4})
        answer(f"refused: an empty {name}", "LGP-005", frame(kind), error="length")
        big = [{"hex": frame(kind, b"", limit + 1).hex()}, {"repeat": "61", "times": limit + 1}]
        answer(f"refused: a {name} a byte too long", "LGP-005 FRM-002", big, error="too-large")
    answer("entries", "LGP-002", frame(0xA4, u64(7) + SOME * 2), {"answer": "entries", "from": 7, "entries": [SOME.hex()] * 2})
    answer("refused: no entries", "LGP-002", frame(0xA4, u64(7)), error="length")
    answer("refused: an entry cut short", "LGP-002", frame(0xA4, u64(7) + SOME[:32]), error="length")
    answer("refused: a byte behind the last entry", "LGP-002", frame(0xA4, u64(7) + SOME + b"\0"), error="length")
    answer("refused: entries without their number", "FRM-001", frame(0xA4, u64(7)[:5]), error="truncated")
    many = [{"hex": frame(0xA4, b"", 8 + 8192 * 33).hex()}, {"u64": 7}, {"repeat": SOME.hex(), "times": 8192}]
    answer("as many entries as there may be", "LGP-002", many, {"answer": "entries", "from": 7})
    many = [{"hex": frame(0xA4, b"", 8 + 8193 * 33).hex()}, {"u64": 7}, {"repeat": SOME.hex(), "times": 8193}]
    answer("refused: an entry too many", "LGP-002", many, error="too-large")
    answer("a proof", "LGP-003", frame(0xA5, b"\2" * 32 + b"\1" * 64), {"answer": "proof", "root": "02" * 32, "hashes": ["01" * 32] * 2})
    answer("a proof without hashes", "LGP-003", frame(0xA5, b"\2" * 32), {"answer": "proof", "root": "02" * 32, "hashes": []})
    answer("as many hashes as a proof may have", "LGP-003", frame(0xA5, b"\2" * 32 + b"\1" * 2048), {"answer": "proof", "root": "02" * 32})
    answer("refused: a proof without a root", "LGP-003", frame(0xA5), error="truncated")
    answer("refused: half a hash", "LGP-003", frame(0xA5, b"\2" * 32 + b"\1" * 48), error="length")
    answer("refused: a hash too many", "LGP-003", frame(0xA5, b"\2" * 32 + b"\1" * 32 * 65), error="too-large")
    answer("cosignatures", "LGP-004", frame(0xA6, b"line"), {"answer": "cosignatures", "length": 4})
    answer("refused: no cosignatures", "LGP-004", frame(0xA6), error="length")
    answer("refused: cosignatures a byte too long", "LGP-004", frame(0xA6, b"a" * 16385), error="too-large")
    names = ["unknown", "bad-signature", "conflict", "bad-proof", "busy", "no-witness", "disputed", "malformed"]
    for why, name in enumerate(names, 1):
        answer(f"refused as {name}", "LGP-006", frame(0xAF, bytes([why]) + u64(0)), {"answer": "refused", "why": name, "size": 0})
        if name != "conflict":
            answer(f"refused: {name} with a size", "LGP-006", frame(0xAF, bytes([why]) + u64(9)), error="value")
    answer("a conflict with its size", "LGP-006", frame(0xAF, b"\3" + u64(9)), {"answer": "refused", "why": "conflict", "size": 9})
    for why in (0, 9, 255):
        answer(f"refused: refusal {why}", "LGP-006", frame(0xAF, bytes([why]) + u64(0)), error="value")
    answer("refused: a refusal without a size", "FRM-001", frame(0xAF, b"\1"), error="truncated")
    for kind in (0xA0, 0xA7, 0x21):
        answer(f"refused: type {kind:#04x}", "FRM-003", frame(kind), error="type")


def gossip():
    f = "06/log-gossip"

    def message(name, identifiers, text, ok=None, error=None):
        vector(f, name, "gossip", identifiers, {"bytes": text.encode().hex()}, ok, error)

    size = compact({"version": 1, "log": {"nation": "alba", "size": 17}})
    message("a log's new size", "GSP-001", size, {"log": "alba", "size": 17, "cosigned": 0})
    size = compact({"version": 1, "log": {"nation": "alba", "size": 17, "cosigned": 2}})
    message("a log's new size cosigned by two", "GSP-001", size, {"log": "alba", "size": 17, "cosigned": 2})
    message("evidence", "GSP-001", '{"version":1,"evidence":{"a":1}}', {"evidence": '{"a":1}'})
    message("refused: a size without a nation", "GSP-001", '{"version":1,"log":{"size":1}}', error="gossip")
    message("refused: a size that is none", "GSP-001", '{"version":1,"log":{"nation":"alba","size":-1}}', error="gossip")
    message("refused: a nation without a size", "GSP-001", '{"version":1,"log":{"nation":"alba"}}', error="gossip")
    message("refused: a hint beside a log", "GSP-001", '{"version":1,"hint":{"nation":"alba"},"log":{"nation":"alba","size":1}}', error="gossip")
    message("refused: a recall beside evidence", "GSP-001", '{"version":1,"recall":[],"evidence":{}}', error="gossip")
