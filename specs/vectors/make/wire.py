"""Documents 05 and 06: what is said on a connection, and what travels over it."""

import struct

from blake3 import blake3
from common import (
    BOREA,
    Key,
    NODE,
    NOW,
    RECALL,
    RELEASE,
    ROOT,
    channel,
    compact,
    digest,
    named,
    node,
    recall,
    release,
    root,
    signed,
    single_key_root,
    statement,
    vector,
)
from statement import PEER


def u16(n):
    return struct.pack("<H", n)


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def frame(kind, body=b"", length=None):
    return bytes([kind]) + u32(len(body) if length is None else length) + body


ALBA_ROOT = signed(compact(root()), ROOT)
BOREA_ROOT = signed(compact(single_key_root("borea", BOREA)), BOREA)
CORA = Key(18)
CORA_ROOT = signed(compact(single_key_root("cora", CORA)), CORA)


def identity():
    f = "05/hello"

    def hello(name, identifiers, data, ok=None, error=None):
        vector(f, name, "hello", identifiers, {"bytes": data.hex()}, ok, error)

    good = b"SYHL" + u32(1) + u32(2) + b"[]"
    hello("a hello", "HEL-001", good, ok={"length": 2})
    hello("the longest certificate", "HEL-003", b"SYHL" + u32(1) + u32(65536) + b" " * 65536, ok={"length": 65536})
    hello("refused: nothing", "HEL-001", b"", error="truncated")
    hello("refused: another magic", "HEL-001", b"SYCM" + good[4:], error="value")
    hello("refused: lower case", "HEL-001", b"syhl" + good[4:], error="value")
    hello("refused: the header is cut short", "HEL-001", good[:11], error="truncated")
    hello("refused: the certificate is cut short", "HEL-001", good[:-1], error="truncated")
    hello("refused: a byte behind the certificate", "HEL-001", good + b"\0", error="length")
    for version in (0, 2, 1 << 24):
        hello(f"refused: version {version}", "HEL-002", b"SYHL" + u32(version) + good[8:], error="value")
    hello("refused: no certificate", "HEL-003", b"SYHL" + u32(1) + u32(0), error="length")
    hello("refused: a byte over the limit, announced", "HEL-003", b"SYHL" + u32(1) + u32(65537), error="too-large")
    hello("refused: 4 GiB announced", "HEL-003", b"SYHL" + u32(1) + u32(2**32 - 1), error="too-large")
    hello("refused: a length in big-endian order", "HEL-003", b"SYHL" + u32(1) + struct.pack(">I", 2) + b"[]", error="too-large")

    f = "05/verdict"
    names = ["accepted", "not-pinned", "root-expired", "certificate-expired", "other-peer", "bad-signature", "malformed", "clock"]
    for byte, name in enumerate(names):
        vector(f, f"{byte} is {name}", "verdict", "HEL-004", {"byte": byte}, {"name": name})
    for byte in (8, 128, 255):
        vector(f, f"refused: {byte}", "verdict", "HEL-004", {"byte": byte}, error="value")

    f = "05/answer"
    text = compact(node())

    def answer(name, signed_text, verdict, peer=PEER, now=NOW, roots=(ALBA_ROOT,)):
        given = {"roots": list(roots), "signed": signed_text, "peer": peer, "now": now}
        vector(f, name, "hello-answer", "HEL-004 HEL-005", given, {"verdict": verdict, "name": names[verdict]})

    answer("a node of a pinned nation", signed(text, NODE), 0)
    answer("a nation that is not pinned", signed(text, NODE), 1, roots=[BOREA_ROOT])
    ended = signed(compact(root(expires="2026-11-23T12:00:00Z")), ROOT)
    answer("a root that has ended", signed(text, NODE), 2, roots=[ended])
    answer("a certificate that has ended", signed(text, NODE), 3, now="2027-11-23T12:00:00Z")
    answer("the last second of a certificate", signed(text, NODE), 0, now="2027-11-23T11:59:59Z")
    answer("another peer", signed(text, NODE), 4, peer=PEER[:-1] + "q")
    answer("signed by the release role", signed(text, RELEASE), 5)
    altered = signed(text, NODE)
    at = altered.index('"sig":"') + 8
    answer("an altered signature", altered[:at] + ("A" if altered[at] != "A" else "B") + altered[at + 1 :], 5)
    answer("no JSON", "certificate", 6)
    answer("a release", signed(compact(release()), RELEASE), 6)
    answer("a root", ALBA_ROOT, 6)
    answer("issued eleven minutes ahead", signed(text, NODE), 7, now="2026-11-23T11:49:00Z")
    answer("issued ten minutes ahead", signed(text, NODE), 0, now="2026-11-23T11:50:00Z")

    f = "05/admission"
    for sent, received in ((0, 0), (0, 1), (1, 0), (3, 5), (0, 7)):
        admitted = sent == received == 0
        vector(f, f"sent {sent}, received {received}", "verdicts", "HEL-006", {"sent": sent, "received": received}, {"admitted": admitted})

    f = "05/opener"
    for transport in ("tcp", "quic", "circuit"):
        for dialled, tls in ((True, "client"), (False, "server"), (True, "server")):
            if (transport, dialled, tls) == ("circuit", True, "server"):
                continue  # No hole is punched through a relay.
            part = {(True, "client"): "who dialled", (False, "server"): "who was dialled"}.get((dialled, tls), "who dialled for a hole as the server of TLS")
            given = {"transport": transport, "dialled": dialled, "tls": tls}
            vector(f, f"{transport}, {part}", "hello-opener", "HEL-007", given, {"opens": tls == "client"})


def frames():
    f = "06/frame"

    def one(name, identifiers, data, limit=64, ok=None, error=None):
        vector(f, name, "frame", identifiers, {"bytes": data.hex(), "limit": limit}, ok, error)

    one("an empty body", "FRM-001", frame(1), ok={"type": 1, "length": 0})
    one("a body at the limit", "FRM-001 FRM-002", frame(0x92, bytes(64)), ok={"type": 0x92, "length": 64})
    one("refused: nothing", "FRM-001", b"", error="truncated")
    one("refused: the header is cut short", "FRM-001", frame(1)[:4], error="truncated")
    one("refused: the body is cut short", "FRM-001", frame(1, b"abc", 4), error="truncated")
    one("refused: a byte behind the body", "FRM-001", frame(1, b"abc", 2), error="length")
    one("refused: a byte over the limit", "FRM-002", frame(1, bytes(65)), error="too-large")
    one("refused: 4 GiB announced and nothing sent", "FRM-002", frame(1, b"", 2**32 - 1), error="too-large")

    f = "06/request"
    release_digest = bytes(range(32))

    def request(name, identifiers, data, ok=None, error=None):
        vector(f, name, "blob-request", identifiers, {"bytes": data.hex()}, ok, error)

    chunks = lambda file, first, count: frame(4, u32(file) + u32(first) + u32(count))
    request("an open", "FRM-001", frame(1, release_digest), ok={"request": "open", "release": "b3:" + release_digest.hex()})
    request("a map", "FRM-001", frame(2, u32(7)), ok={"request": "map", "file": 7})
    request("a watch", "FRM-001 BLB-008", frame(3), ok={"request": "watch"})
    request("refused: a watch with a file", "FRM-001 BLB-008", frame(3, u32(0)), error="length")
    cancel = lambda first, count: frame(5, u32(1) + u32(first) + u32(count))
    request("a cancel", "BLB-011", cancel(2, 3), ok={"request": "cancel", "file": 1, "first": 2, "count": 3})
    request("refused: a cancel of 257 chunks", "BLB-011 BLB-004", cancel(0, 257), error="value")
    request("refused: a cancel that overflows", "BLB-011 BLB-004", cancel(2**32 - 1, 2), error="value")
    request("refused: a cancel of no chunks", "BLB-011 BLB-004", cancel(2, 0), error="value")
    request("refused: a cancel without a count", "FRM-001", frame(5, u32(1) + u32(2)), error="truncated")
    encoded = lambda first, count: frame(6, u32(1) + u32(first) + u32(count))
    request("chunks that may come encoded", "BLB-004", encoded(2, 3), ok={"request": "encoded-chunks", "file": 1, "first": 2, "count": 3})
    request("refused: too many chunks that may come encoded", "BLB-004", encoded(0, 257), error="value")
    request("chunks", "BLB-004", chunks(1, 2, 3), ok={"request": "chunks", "file": 1, "first": 2, "count": 3})
    request("as many chunks as the limit", "BLB-004", chunks(0, 0, 256), ok={"request": "chunks", "count": 256})
    request("refused: no chunks", "BLB-004", chunks(0, 0, 0), error="value")
    request("refused: a chunk over the limit", "BLB-004", chunks(0, 0, 257), error="value")
    request("refused: as many chunks as 32 bits hold", "BLB-004", chunks(0, 0, 2**32 - 1), error="value")
    request("refused: a range that overflows", "BLB-004", chunks(0, 2**32 - 1, 2), error="value")
    request("refused: an open of 31 bytes", "FRM-001", frame(1, release_digest[:-1]), error="truncated")
    request("refused: an open of 33 bytes", "FRM-001", frame(1, release_digest + b"\0"), error="length")
    request("refused: a map without a file", "FRM-001", frame(2), error="truncated")
    request("refused: a map with two files", "FRM-001", frame(2, u32(1) + u32(2)), error="length")
    request("refused: chunks without a count", "FRM-001", frame(4, u32(1) + u32(2)), error="truncated")
    request("refused: a body over the limit", "FRM-002", frame(1, bytes(65)), error="too-large")
    for kind in (0, 7, 0x11, 0x81, 0xFF):
        request(f"refused: type {kind:#04x}", "FRM-003", frame(kind), error="type")

    f = "06/order"

    def order(name, requests, ok=None, error=None, more=""):
        vector(f, name, "blob-order", f"BLB-001 {more}".strip(), {"requests": [r.hex() for r in requests]}, ok, error)

    first = frame(1, release_digest)
    order("an open and what follows", [first, frame(2, u32(0)), chunks(0, 0, 1), cancel(0, 1)], ok={})
    order("a watch comes last", [first, frame(2, u32(0)), frame(3)], ok={})
    order("refused: chunks before an open", [chunks(0, 0, 1)], error="value")
    order("refused: a map before an open", [frame(2, u32(0)), first], error="value")
    order("refused: two opens", [first, first], error="value")
    order("refused: a watch before an open", [frame(3), first], error="value")
    order("refused: chunks after a watch", [first, frame(3), chunks(0, 0, 1)], error="value", more="BLB-008")
    order("refused: two watches", [first, frame(3), frame(3)], error="value", more="BLB-008")
    order("refused: another open later", [first, chunks(0, 0, 1), frame(1, bytes(32))], error="value")

    f = "06/answer"

    def answer(name, identifiers, data, ok=None, error=None):
        vector(f, name, "blob-answer", identifiers, {"bytes": data.hex()}, ok, error)

    answer("opened, complete", "BLB-007", frame(0x81, b"\1"), ok={"answer": "opened", "complete": True})
    answer("opened, not complete", "BLB-007", frame(0x81, b"\0"), ok={"answer": "opened", "complete": False})
    answer("refused: complete is 2", "BLB-007", frame(0x81, b"\2"), error="value")
    answer("refused: opened without a body", "FRM-001", frame(0x81), error="length")
    answer("refused: opened with two bytes", "FRM-001", frame(0x81, b"\1\1"), error="too-large")
    answer("the head of a map", "FRM-001", frame(0x82, b"", 136), ok={"answer": "map", "length": 136})
    answer("the head of data", "FRM-001", frame(0x84, b"", 1 << 20), ok={"answer": "data", "length": 1 << 20})
    news = lambda file, replaces, have: frame(0x83, u32(file) + bytes([replaces]) + have)
    told = lambda file, replaces, have: {"answer": "have", "file": file, "replaces": replaces, "have": have}
    every = 2**32 - 1
    answer("nothing is there", "BLB-007 BLB-009", news(every, 1, b"\0"), ok=told(None, True, "nothing"))
    answer("everything is there", "BLB-007 BLB-009", news(every, 0, b"\1"), ok=told(None, False, "everything"))
    answer("a whole file is there", "BLB-007 BLB-009", news(3, 0, b"\1"), ok=told(3, False, "everything"))
    answer("some are there", "BLB-007", news(0, 1, b"\2\5"), ok=told(0, True, "05"))
    answer("two runs are there", "BLB-010", news(7, 0, b"\3" + u32(0) + u32(2) + u32(9) + u32(1)), ok=told(7, False, [[0, 2], [9, 1]]))
    answer("no runs", "BLB-010", news(7, 0, b"\3"), ok=told(7, False, []))
    answer("as many runs as the limit", "BLB-010", news(7, 0, b"\3" + (u32(1) + u32(1)) * 1024), ok={"answer": "have"})
    answer("refused: a run over the limit", "BLB-010", news(7, 0, b"\3" + (u32(1) + u32(1)) * 1025), error="too-large")
    answer("refused: half a run", "FRM-001", news(7, 0, b"\3" + u32(1)), error="truncated")
    answer("refused: availability 4", "BLB-007", news(0, 0, b"\4"), error="value")
    answer("refused: replaces is 2", "BLB-009", news(0, 2, b"\1"), error="value")
    answer("refused: a bitmap of all files", "BLB-009", news(every, 0, b"\2\5"), error="value")
    answer("refused: runs of all files", "BLB-009", news(every, 0, b"\3" + u32(0) + u32(1)), error="value")
    answer("refused: availability without a body", "FRM-001", frame(0x83), error="length")
    answer("refused: availability without a file", "FRM-001", frame(0x83, b"\1"), error="truncated")
    answer("refused: everything and a bitmap", "FRM-001", news(0, 0, b"\1\5"), error="length")
    answer("refused: a bitmap over the limit", "FRM-002", frame(0x83, b"\0\0\0\0\0\2", (1 << 19) + 7), error="too-large")
    chunk = lambda encoding, length: frame(0x85, bytes([encoding]), length)
    answer("the head of an encoded chunk", "BLB-012", chunk(2, 1001), ok={"answer": "encoded", "encoding": 2, "length": 1000})
    answer("the head of the longest encoded chunk", "BLB-012", chunk(1, (1 << 20) + 1), ok={"answer": "encoded", "length": 1 << 20})
    answer("refused: a longer encoded chunk", "BLB-012", chunk(1, (1 << 20) + 2), error="too-large")
    answer("refused: an encoded chunk of nothing", "BLB-012", chunk(1, 1), error="length")
    answer("refused: an encoded chunk without its encoding", "BLB-012", frame(0x85), error="length")
    for code, name in enumerate(("not-found", "recalled", "busy", "missing", "not-allowed", "cancelled"), 1):
        answer(f"refusal {code} is {name}", "BLB-003", frame(0xFF, bytes([code])), ok={"answer": "refused", "why": name})
    for code in (0, 7, 255):
        answer(f"refused: refusal {code}", "BLB-003", frame(0xFF, bytes([code])), error="value")
    answer("refused: a refusal of two bytes", "FRM-001", frame(0xFF, b"\1\1"), error="too-large")
    for kind in (0, 1, 0x80, 0x86, 0x91):
        answer(f"refused: type {kind:#04x}", "FRM-003", frame(kind), error="type")

    f = "06/availability"

    def available(name, data, chunks, ok=None, error=None, rules="BLB-005"):
        given = {"bytes": frame(0x83, u32(0) + b"\1" + data).hex(), "chunks": chunks}
        vector(f, name, "availability", rules, given, ok, error)

    available("the lowest bit is the first chunk", b"\2\1", 8, ok={"has": [0]})
    available("the ninth chunk is in the second byte", b"\2\x80\1", 9, ok={"has": [7, 8]})
    available("runs", b"\3" + u32(1) + u32(2) + u32(8) + u32(1), 9, ok={"has": [1, 2, 8]})
    available("refused: the second run leaves the file", b"\3" + u32(0) + u32(1) + u32(2) + u32(2), 3, error="value", rules="BLB-010")
    available("refused: a run of an empty file", b"\3" + u32(0) + u32(1), 0, error="value", rules="BLB-010")
    available("refused: the second run is of nothing", b"\3" + u32(0) + u32(1) + u32(1) + u32(0), 3, error="value", rules="BLB-010")
    available("refused: a run that leaves the file", b"\3" + u32(1) + u32(3), 3, error="value")
    available("refused: a run of nothing", b"\3" + u32(1) + u32(0), 3, error="value")
    available("refused: a run that overflows", b"\3" + u32(2**32 - 1) + u32(2), 3, error="value")
    available("everything", b"\1", 3, ok={"has": [0, 1, 2]})
    available("nothing", b"\0", 3, ok={"has": []})
    available("no chunks at all", b"\2", 0, ok={"has": []})
    available("refused: a byte too few", b"\2\1", 9, error="length")
    available("refused: a byte too many", b"\2\1\0", 8, error="length")
    available("refused: a bit beyond the last chunk", b"\2\x10", 4, error="value")

    f = "06/range"
    mib = 1 << 20

    def span(name, lens, first, count, ok=None, error=None):
        vector(f, name, "chunk-range", "BLB-004", {"lengths": lens, "first": first, "count": count}, ok, error)

    span("the first chunk", [5, 7], 0, 1, ok={"start": 0, "end": 5})
    span("both chunks", [5, 7], 0, 2, ok={"start": 0, "end": 12})
    span("the last chunk", [5, 7], 1, 1, ok={"start": 5, "end": 12})
    span("4 MiB", [mib] * 5, 1, 4, ok={"start": mib, "end": 5 * mib})
    span("refused: a byte over 4 MiB", [mib] * 4 + [1], 0, 5, error="too-large")
    span("refused: a chunk that is not there", [5, 7], 2, 1, error="value")
    span("refused: a range that leaves the file", [5, 7], 1, 2, error="value")
    span("refused: an empty file", [], 0, 1, error="value")
    span("refused: no chunks", [5, 7], 0, 0, error="value")

    f = "06/map"
    for size, chunks_allowed in ((0, 4096), (1, 4096), (4096, 4097), (1 << 30, 4096 + (1 << 18)), (1 << 44, 1 << 22)):
        vector(f, f"at most {chunks_allowed} chunks for {size} bytes", "map-limit", "BLB-006", {"size": size}, {"bytes": 52 + 36 * chunks_allowed})


def exchange():
    f = "06/permission"
    open_release, secret = release(releasableTo="all"), release(version="2.0.0", releasableTo=["borea"])
    nobody = release(version="3.0.0", releasableTo=[])
    text = {name: compact(value) for name, value in (("open", open_release), ("secret", secret), ("nobody", nobody))}

    def permission(name, which, nation, answer, statements=None, roots=(BOREA_ROOT, ALBA_ROOT)):
        given = {
            "roots": list(roots),
            "now": NOW,
            "statements": [signed(text[which], RELEASE)] if statements is None else statements,
            "release": digest(text[which]),
            "nation": nation,
        }
        vector(f, name, "permission", "BLB-002", given, {"answer": answer})

    permission("for everybody", "open", "cora", "opened")
    permission("for a nation that is named", "secret", "borea", "opened")
    permission("for its publisher", "secret", "alba", "opened")
    permission("not for a nation that is not named", "secret", "cora", "not-found")
    permission("not known at all", "secret", "borea", "not-found", [])
    permission("for nobody else", "nobody", "borea", "not-found")
    by_alba = signed(compact(recall(target={"release": digest(text["open"])})), RECALL)
    permission("recalled by its producer", "open", "cora", "recalled", [signed(text["open"], RELEASE), by_alba])
    by_own = signed(compact(recall(nation="borea", target={"release": digest(text["open"])})), BOREA)
    permission("recalled by the server's own nation", "open", "cora", "recalled", [signed(text["open"], RELEASE), by_own])
    permission("recalled by another nation", "open", "cora", "opened", [signed(text["open"], RELEASE), by_own], [CORA_ROOT, ALBA_ROOT, BOREA_ROOT])
    of_secret = signed(compact(recall(target={"release": digest(text["secret"])})), RECALL)
    permission("recalled and not for the asker", "secret", "cora", "not-found", [signed(text["secret"], RELEASE), of_secret])

    f = "06/feed"
    to_open = compact(channel(release=digest(text["open"])))
    to_secret = compact(channel(channel="beta", release=digest(text["secret"])))
    everything = [(text["open"], RELEASE), (text["secret"], RELEASE), (to_open, RELEASE), (to_secret, RELEASE), (compact(recall(target={"release": digest(text["secret"])})), RECALL)]

    def feed(name, nation, expected, after=0, statements=everything, next=None):
        given = {"roots": [BOREA_ROOT, ALBA_ROOT], "now": NOW, "statements": [signed(t, k) for t, k in statements], "nation": nation, "after": after, "limit": 256}
        ok = {"digests": [digest(statements[i][0]) for i in expected], "next": len(statements) if next is None else next}
        vector(f, name, "feed", "SYN-003", given, ok)

    feed("a nation that may have everything", "borea", [0, 1, 2, 3, 4])
    feed("the publisher", "alba", [0, 1, 2, 3, 4])
    feed("a nation that may not have one of them", "cora", [0, 2, 4])
    feed("after what was read", "cora", [4], after=3)
    feed("nothing new", "cora", [], after=5)
    unknown = [(to_secret, RELEASE), (text["open"], RELEASE)]
    feed("a channel to a release that is not known", "cora", [1], statements=unknown)
    feed("the same for the channel's own nation", "alba", [0, 1], statements=unknown)
    first = compact(root())
    second = compact(root(version=2, previous=digest(first), expires="2029-11-01T00:00:00Z"))
    about_alba = {"nation": "borea", "member": "alba", "fingerprint": digest(first), "standing": "suspended", "sequence": 1, "reason": "", "issued": NOW}
    said = [(second, ROOT), (compact(statement("membership", about_alba, named("alba"))), BOREA)]
    feed("a root for everybody, a membership statement for nobody else", "cora", [0], statements=said)
    feed("a membership statement is not for its member", "alba", [], statements=said)
    feed("a membership statement for the own nation", "borea", [0, 1], statements=said)

    f = "06/feed-request"

    def request(name, identifiers, data, ok=None, error=None):
        vector(f, name, "feed-request", identifiers, {"bytes": data.hex()}, ok, error)

    request("from the beginning", "SYN-001", frame(0x11, u64(0) + u16(256)), ok={"after": 0, "limit": 256})
    request("after the last number", "SYN-001", frame(0x11, u64(2**53) + u16(1)), ok={"after": 2**53, "limit": 1})
    request("refused: no statements wanted", "SYN-001", frame(0x11, u64(0) + u16(0)), error="value")
    request("refused: one over the limit", "SYN-001", frame(0x11, u64(0) + u16(257)), error="value")
    request("refused: cut short", "FRM-001", frame(0x11, u64(0)), error="truncated")
    request("refused: something follows", "FRM-001", frame(0x11, u64(0) + u16(1) + b"\0"), error="length")
    request("refused: type 0x01", "FRM-003", frame(0x01, u64(0) + u16(1)), error="type")

    f = "06/feed-page"
    epoch = bytes(range(16))

    def page(name, identifiers, data, ok=None, error=None):
        vector(f, name, "feed-page", identifiers, {"bytes": data.hex()}, ok, error)

    page("an empty page", "SYN-002", frame(0x91, epoch + u64(9) + b"\0" + u16(0)), ok={"epoch": epoch.hex(), "next": 9, "more": False, "count": 0})
    page("a full page", "SYN-002", frame(0x91, epoch + u64(256) + b"\1" + u16(256)), ok={"more": True, "count": 256})
    page("refused: one statement over the limit", "SYN-002", frame(0x91, epoch + u64(257) + b"\1" + u16(257)), error="value")
    page("refused: more is 2", "SYN-002", frame(0x91, epoch + u64(0) + b"\2" + u16(0)), error="value")
    page("refused: a page cut short", "FRM-001", frame(0x91, epoch + u64(0) + b"\0"), error="truncated")
    page("refused: something behind a page", "FRM-001", frame(0x91, epoch + u64(0) + b"\0" + u16(0) + b"\0"), error="length")
    page("refused: type 0x92", "FRM-003", frame(0x92, epoch + u64(0) + b"\0" + u16(0)), error="type")


def announcements():
    f = "06/gossip"

    def gossip(name, identifiers, text, ok=None, error=None):
        data = text if isinstance(text, list) else [{"text": text}]
        vector(f, name, "gossip", identifiers, {"bytes": data}, ok, error)

    some = "b3:" + "0" * 64
    gossip("a hint with a digest", "GSP-001 GSP-002", compact({"version": 1, "hint": {"nation": "alba", "digest": some}}), {"hint": "alba", "digest": some})
    gossip("a hint without one", "GSP-002", compact({"version": 1, "hint": {"nation": "alba"}}), {"hint": "alba", "digest": None})
    gossip("a recall", "GSP-001", '{"version":1,"recall":[{"payload":""}]}', {"recall": '[{"payload":""}]'})
    gossip("an unknown field", "GSP-001", '{"version":1,"hint":{"nation":"alba","x":1},"y":2}', {"hint": "alba"})
    gossip("refused: version 2", "GSP-001", '{"version":2,"hint":{"nation":"alba"}}', error="gossip")
    gossip("refused: no version", "GSP-001", '{"hint":{"nation":"alba"}}', error="gossip")
    gossip("refused: neither", "GSP-001", '{"version":1}', error="gossip")
    gossip("refused: both", "GSP-001", '{"version":1,"hint":{"nation":"alba"},"recall":[]}', error="gossip")
    gossip("refused: no nation", "GSP-002", '{"version":1,"hint":{}}', error="gossip")
    gossip("refused: a nation that is no name", "GSP-002", '{"version":1,"hint":{"nation":"../alba"}}', error="gossip")
    gossip("refused: a digest that is none", "GSP-002", '{"version":1,"hint":{"nation":"alba","digest":"b3:00"}}', error="gossip")
    gossip("refused: nothing", "GSP-003", "", error="gossip")
    gossip("refused: no JSON", "GSP-003", "hint", error="gossip")
    gossip("refused: cut short", "GSP-003", '{"version":1,"hint":{"nation":"alba"}', error="gossip")
    gossip("refused: no UTF-8", "GSP-003", [{"hex": "7bff7d"}], error="gossip")
    hint = '{"version":1,"hint":{"nation":"alba"}}'
    gossip("at the limit", "GSP-003", [{"text": hint}, {"repeat": "20", "times": 49152 - len(hint)}], {"hint": "alba"})
    gossip("refused: a byte over the limit", "GSP-003", [{"text": hint}, {"repeat": "20", "times": 49153 - len(hint)}], error="gossip")

    f = "06/announcement"
    open_release, secret = compact(release(releasableTo="all")), compact(release(version="2.0.0", releasableTo=["borea"]))

    def announce(name, statements, which, ok):
        given = {"roots": [ALBA_ROOT], "now": NOW, "statements": [signed(t, k) for t, k in statements], "announce": digest(statements[which][0])}
        vector(f, name, "announcement", "GSP-002", given, ok)

    announce("a release for everybody is named", [(open_release, RELEASE)], 0, {"hint": "alba", "digest": digest(open_release)})
    announce("a release for some is not named", [(secret, RELEASE)], 0, {"hint": "alba", "digest": None})
    pointer = compact(channel(release=digest(secret)))
    announce("a channel to a release for some is not named", [(secret, RELEASE), (pointer, RELEASE)], 1, {"hint": "alba", "digest": None})
    pointer = compact(channel(release=digest(open_release)))
    announce("a channel to a release for everybody is named", [(open_release, RELEASE), (pointer, RELEASE)], 1, {"hint": "alba", "digest": digest(pointer)})

    f = "06/provider"
    for text in ("", "steelyard", "a release"):
        name = blake3(text.encode()).digest()
        key = blake3(b"steelyard-provider" + name).hexdigest()
        vector(f, f"the key of BLAKE3 of {text!r}", "provider-key", "DSC-001", {"release": "b3:" + name.hex()}, {"key": key})
