"""Documents 05 and 06: frames, requests and answers, availability, gossip, keys of providers, who opens the hello."""

import json

from .basic import blake3, given, is_digest, is_int, is_name, need, read_json

MIB = 1_048_576
MOST_CHUNKS = 2**22
ALL_FILES = 2**32 - 1
REFUSALS = {1: "not-found", 2: "recalled", 3: "busy", 4: "missing", 5: "not-allowed", 6: "cancelled"}
LOG_REFUSALS = {
    1: "unknown", 2: "bad-signature", 3: "conflict", 4: "bad-proof", 5: "busy", 6: "no-witness", 7: "disputed", 8: "malformed",
}


class Body:
    """A frame's body, read to its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        need(length <= len(self.data) - self.at, "truncated")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, width):
        return int.from_bytes(self.take(width), "little")

    def rest(self):
        return self.take(len(self.data) - self.at)

    def flag(self):
        value = self.number(1)
        need(value in (0, 1), "value")
        return value == 1

    def end(self):
        need(self.at == len(self.data), "length")


def split(data, limit):
    """Type and body of a frame whose body may have so many bytes."""
    need(len(data) >= 5, "truncated")
    kind, length = data[0], int.from_bytes(data[1:5], "little")
    need(length <= limit, "too-large")
    need(len(data) == 5 + length, "length")
    return kind, Body(data[5:])


def frame(request):
    kind, body = split(given(request["bytes"]), request["limit"])
    return {"type": kind, "length": len(body.data)}


# ---------------------------------------------------------------------------------------------------- content


def asked(data):
    kind, body = split(data, 64)
    if kind == 0x01:
        found = {"request": "open", "release": "b3:" + body.take(32).hex()}
    elif kind == 0x02:
        found = {"request": "map", "file": body.number(4)}
    elif kind == 0x03:
        found = {"request": "watch"}
    else:
        need(kind in (0x04, 0x05, 0x06), "type")
        found = {"request": {4: "chunks", 5: "cancel", 6: "encoded-chunks"}[kind]}
        found.update((name, body.number(4)) for name in ("file", "first", "count"))
        need(1 <= found["count"] <= 256 and found["first"] + found["count"] < 2**32, "value")
    body.end()
    return found


def blob_order(request):
    names = [asked(given(one))["request"] for one in request["requests"]]
    need(names[:1] == ["open"] and "open" not in names[1:], "order")
    need("watch" not in names[:-1], "order")
    return {}


def availability_of(body):
    file, replaces, kind = body.number(4), body.flag(), body.number(1)
    need(kind <= 3, "value")
    need(file != ALL_FILES or kind <= 1, "value")
    if kind < 2:
        have = ("nothing", "everything")[kind]
    elif kind == 2:
        have = body.rest().hex()
    else:
        have = runs(body)
    return {"answer": "have", "file": None if file == ALL_FILES else file, "replaces": replaces, "have": have}


def runs(body):
    found = []
    while body.at < len(body.data):
        need(len(found) < 1024, "limit")
        found.append([body.number(4), body.number(4)])
        need(found[-1][1] >= 1, "value")
    return found


def headed(data):
    """A map's or data's frame, of which the header alone is there, or an encoded chunk's, with its encoding."""
    kind, length = data[0], int.from_bytes(data[1:5], "little")
    if kind == 0x85:
        need(2 <= length <= 1 + MIB and len(data) == 6, "length")
        return {"answer": "encoded", "encoding": data[5], "length": length - 1}
    need(len(data) == 5, "length")
    need(length <= (52 + 36 * MOST_CHUNKS if kind == 0x82 else 4 * MIB), "too-large")
    return {"answer": "map" if kind == 0x82 else "data", "length": length}


# Longest bodies: those of availability are a bitmap for the longest map, or 1,024 runs.
ANSWERS = {0x81: 1, 0x83: 6 + MOST_CHUNKS // 8, 0xFF: 1}


def blob_answer(request):
    data = given(request["bytes"])
    need(len(data) >= 5, "truncated")
    if data[0] in (0x82, 0x84, 0x85):
        return headed(data)
    need(data[0] in ANSWERS, "type")
    kind, body = split(data, ANSWERS[data[0]])
    if kind == 0x81:
        found = {"answer": "opened", "complete": body.flag()}
    elif kind == 0x83:
        found = availability_of(body)
    else:
        why = body.number(1)
        need(why in REFUSALS, "value")
        found = {"answer": "refused", "why": REFUSALS[why]}
    body.end()
    return found


def availability(request):
    have, chunks = blob_answer(request)["have"], request["chunks"]
    if isinstance(have, list):
        need(all(first + count <= chunks for first, count in have), "value")
        return {"has": sorted({at for first, count in have for at in range(first, first + count)})}
    if have in ("nothing", "everything"):
        return {"has": list(range(chunks)) if have == "everything" else []}
    bits = bytes.fromhex(have)
    need(len(bits) == -(-chunks // 8), "length")
    has = [at for at in range(8 * len(bits)) if bits[at // 8] >> (at % 8) & 1]
    need(not has or has[-1] < chunks, "value")
    return {"has": has}


def chunk_range(request):
    lengths, first, count = request["lengths"], request["first"], request["count"]
    need(1 <= count <= 256 and first + count <= len(lengths), "value")
    start, end = sum(lengths[:first]), sum(lengths[: first + count])
    need(count == 1 or end - start <= 4 * MIB, "too-large")
    return {"start": start, "end": end}


def map_limit(request):
    return {"bytes": 52 + 36 * min(4096 + int(request["size"]) // 4096, MOST_CHUNKS)}


# ------------------------------------------------------------------------------------------------- statements, logs


def feed_request(request):
    kind, body = split(given(request["bytes"]), 64)
    need(kind == 0x11, "type")
    found = {"after": body.number(8), "limit": body.number(2)}
    body.end()
    need(1 <= found["limit"] <= 256, "value")
    return found


def feed_page(request):
    kind, body = split(given(request["bytes"]), 64)
    need(kind == 0x91, "type")
    found = {"epoch": body.take(16).hex(), "next": body.number(8), "more": body.flag(), "count": body.number(2)}
    body.end()
    need(found["count"] <= 256, "value")
    return found


def nation_of(body):
    name = body.rest().decode("utf-8", "replace")
    need(is_name("nation", name), "value")
    return name


def log_request(request):
    data = given(request["bytes"])
    kind, body = split(data, 35_712 if data[:1] == b"\x25" else 64)
    if kind == 0x21:
        found = {"request": "heads"}
    elif kind == 0x22:
        found = {"request": "checkpoint", "nation": nation_of(body)}
    elif kind == 0x23:
        found = {"request": "entries", "from": body.number(8), "to": body.number(8), "nation": nation_of(body)}
        need(found["from"] < found["to"], "value")
    elif kind == 0x24:
        found = {"request": "proof", "old": body.number(8), "new": body.number(8), "nation": nation_of(body)}
        need(1 <= found["old"] < found["new"], "value")
    else:
        need(kind == 0x25, "type")
        found = {"request": "cosign", "length": len(body.rest())}
        need(found["length"] >= 1, "length")
    body.end()
    return found


LOG_ANSWERS = {0xA1: 2, 0xA2: 32_768, 0xA3: 163_840, 0xA4: 8 + 8192 * 33, 0xA5: 65 * 32, 0xA6: 16_384, 0xAF: 9}


def pieces(body, width):
    rest = body.rest()
    need(len(rest) % width == 0, "length")
    return [rest[at : at + width].hex() for at in range(0, len(rest), width)]


def log_answer(request):
    data = given(request["bytes"])
    need(data[:1] and data[0] in LOG_ANSWERS, "type")
    kind, body = split(data, LOG_ANSWERS[data[0]])
    if kind == 0xA1:
        found = {"answer": "heads", "count": body.number(2)}
        need(found["count"] <= 1024, "value")
    elif kind == 0xA4:
        found = {"answer": "entries", "from": body.number(8), "entries": pieces(body, 33)}
        need(found["entries"], "length")
    elif kind == 0xA5:
        found = {"answer": "proof", "root": body.take(32).hex(), "hashes": pieces(body, 32)}
    elif kind == 0xAF:
        why, size = body.number(1), body.number(8)
        need(why in LOG_REFUSALS and (why == 3 or size == 0), "value")
        found = {"answer": "refused", "why": LOG_REFUSALS[why], "size": size}
    else:
        name = {0xA2: "checkpoint", 0xA3: "evidence", 0xA6: "cosignatures"}[kind]
        found = {"answer": name, "length": len(body.rest())}
        need(found["length"] >= 1, "length")
    body.end()
    return found


# ------------------------------------------------------------------------------------- gossip, providers, the opener


def one_line(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def gossip(data):
    need(len(data) <= 49_152, "limit")
    value = read_json(data)
    need(isinstance(value, dict) and is_int(value.get("version")) and value["version"] == 1, "version")
    said = {name: value[name] for name in ("hint", "recall", "log", "evidence") if value.get(name) is not None}
    need(len(said) == 1, "one")
    (name, it), = said.items()
    if name == "hint":
        need(isinstance(it, dict) and is_name("nation", it.get("nation")), "hint")
        need(it.get("digest") is None or is_digest(it["digest"]), "hint")
        return {"hint": it["nation"], "digest": it.get("digest")}
    if name == "log":
        need(isinstance(it, dict) and is_name("nation", it.get("nation")), "log")
        size, cosigned = it.get("size"), it.get("cosigned", 0)
        need(all(is_int(one) and 0 <= one < 2**64 for one in (size, cosigned)), "log")
        return {"log": it["nation"], "size": size, "cosigned": cosigned}
    return {name: one_line(it)}


def provider_key(request):
    release = request["release"]
    need(is_digest(release), "digest")
    return {"key": blake3(b"steelyard-provider" + bytes.fromhex(release[3:])).hexdigest()}


def hello_opener(request):
    # Who dialled and by what does not matter: the client of TLS opens ([HEL-007]).
    return {"opens": request["tls"] == "client"}


KINDS = {
    "frame": frame, "blob-request": lambda request: asked(given(request["bytes"])), "blob-order": blob_order, "blob-answer": blob_answer,
    "availability": availability, "chunk-range": chunk_range, "map-limit": map_limit, "feed-request": feed_request, "feed-page": feed_page,
    "log-request": log_request, "log-answer": log_answer, "gossip": lambda request: gossip(given(request["bytes"])),
    "provider-key": provider_key, "hello-opener": hello_opener,
}
