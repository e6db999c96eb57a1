"""Document 10: bundles and leases."""

import base64
import hashlib
from datetime import datetime

from blake3 import blake3

from attestation import attestation
from common import (
    ATTEST,
    BOREA,
    LOG,
    Key,
    NOW,
    OUTSIDER,
    RECALL,
    RELEASE,
    RELEASE2,
    ROOT,
    channel,
    compact,
    digest,
    recall,
    release,
    root,
    signed,
    single_key_root,
    vector,
)

CONTENT = {"README.md": b"# A small model\n", "config.json": b'{"layers": 2}\n'}
HEADER = "steelyard-bundle.json"


def hexdigest(data):
    return blake3(data).hexdigest()


def chunk_map(content):
    """Document 01: one chunk, or none."""
    chunks = [content] if content else []
    out = b"SYCM" + (1).to_bytes(4, "little") + blake3(content).digest() + len(content).to_bytes(8, "little")
    out += len(chunks).to_bytes(4, "little")
    for chunk in chunks:
        out += blake3(chunk).digest() + len(chunk).to_bytes(4, "little")
    return out


MAPS = {path: chunk_map(content) for path, content in CONTENT.items()}


def the_release(content=CONTENT, crossed=False, **changes):
    """A release of these files; crossed, each names the other's chunk map."""
    files, subjects, made = [], [], sorted(content.items())
    for at, (path, content) in enumerate(made):
        described = chunk_map(made[at - 1][1] if crossed else content)
        files.append(
            {
                "path": path,
                "size": len(content),
                "mediaType": "text/plain",
                "chunkMap": "b3:" + hexdigest(described),
            }
        )
        subjects.append(
            {"name": path, "digest": {"blake3": hexdigest(content), "sha256": hashlib.sha256(content).hexdigest()}}
        )
    changes = {"format": "other", "derivedFrom": [], "files": files, **changes}
    return compact(release(subjects=subjects, **changes))


PAYLOAD = the_release()
DIGEST = "b3:" + hexdigest(PAYLOAD.encode())
ALBA_ROOT = compact(root())
BOREA_ROOT = signed(compact(single_key_root("borea", BOREA)), BOREA)


def entry(name, content, kind=b"0", size=None, link=""):
    """A header and the content of a tar archive, by the POSIX text."""
    name = name.encode() if isinstance(name, str) else name
    head = bytearray(512)
    head[0 : len(name)] = name
    head[100:108] = b"0000444\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = b"%011o\0" % (len(content) if size is None else size)
    head[136:148] = b"%011o\0" % 0
    head[148:156] = b" " * 8
    head[156:157] = kind
    head[157 : 157 + len(link)] = link.encode()
    head[257:263] = b"ustar\0"
    head[263:265] = b"00"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + b"\0" * (-len(content) % 512)


def header(**changes):
    fields = {
        "format": "steelyard-bundle",
        "version": 2,
        "release": DIGEST,
        "releasableTo": "borea, cora",
        "for": "borea",
        "by": "alba",
        "made": NOW,
        "part": False,
    }
    fields.update(changes)
    return entry(HEADER, compact({k: v for k, v in fields.items() if v is not None}).encode())


def stated(payload, *keys):
    return entry(f"statements/{hexdigest(payload.encode())}.json", signed(payload, *keys).encode())


def maps():
    return [entry(f"maps/{hexdigest(data)}", data) for data in MAPS.values()]


def blobs():
    return [entry(f"blobs/{hexdigest(data)}", data) for data in CONTENT.values()]


RELEASED = stated(PAYLOAD, RELEASE)
ROOTED = stated(ALBA_ROOT, ROOT)
END = b"\0" * 1024


def recalled(**changes):
    return compact(recall(target={"release": DIGEST}, **changes))


def moved(**changes):
    return compact(channel(release=DIGEST, **changes))


CORA = Key(33)
ROLES = ("root", "release", "attest", "recall", "log", "node", "witness")
CORA_ROOT = compact(root("cora", [CORA], {name: ([CORA], 1) for name in ROLES}))
DORA = Key(34)
DORA_ROOT = compact(root("dora", [DORA], {name: ([DORA], 1) for name in ROLES}))
OTHERS = [blake3(b"before").digest(), blake3(b"after").digest()]


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf(digest):
    return sha(b"\0", b"\1", digest)


def node(left, right):
    return sha(b"\1", left, right)


def line(name, kind, key, signature):
    """A signature line of a note: the key's hash is over its name, its kind and itself."""
    key_hash = sha(name.encode(), b"\n", kind, key.public)[:4]
    return f"\u2014 {name} {base64.b64encode(key_hash + signature).decode()}\n"


def unix(time):
    return int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp())


def cosigned(text, nation, key, time):
    seconds = unix(time)
    signature = key.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
    return line(f"steelyard/{nation}/witness", b"\x04", key, seconds.to_bytes(8, "big") + signature)


def log_proof(index=1, path=None, size=3, origin="steelyard/alba", root_hash=None, key=LOG, cosignatures=(), first="c2sp.org/tlog-proof@v1"):
    """The release is the second of three entries of alba's log."""
    before, ours, after = leaf(OTHERS[0]), leaf(bytes.fromhex(DIGEST[3:])), leaf(OTHERS[1])
    root_hash = root_hash or node(node(before, ours), after)
    path = [before, after] if path is None else path
    text = f"{origin}\n{size}\n{base64.b64encode(root_hash).decode()}\n"
    note = text + "\n" + (line(origin, b"\1", key, key.sign(text.encode())) if key else "")
    note += "".join(cosigned(text, *cosignature) for cosignature in cosignatures)
    hashes = "".join(base64.b64encode(hash).decode() + "\n" for hash in path)
    return f"{first}\nindex {index}\n{hashes}\n{note}".encode()


def proved(**changes):
    return entry(f"proofs/{DIGEST[3:]}", log_proof(**changes))


def runs(data):
    """Bytes as vectors write them, with what repeats written once: archives are mostly zeros."""
    parts, at = [], 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == data[at]:
            end += 1
        if end - at >= 24:
            parts.append({"repeat": f"{data[at]:02x}", "times": end - at})
            at = end
            continue
        stop = at
        while stop < len(data) and len(set(data[stop : stop + 24])) > 1:
            stop += 1
        stop = max(stop, at + 1)
        parts.append({"hex": data[at:stop].hex()})
        at = stop
    return parts


def bundles():
    def add(title, identifiers, entries, ok=None, error=None, now=NOW, pinned=True, **more):
        data = b"".join(entries) + END
        given = {
            "bundle": runs(data),
            "ownRoot": [{"text": BOREA_ROOT}],
            "roots": [signed(ALBA_ROOT, ROOT), signed(CORA_ROOT, CORA)] if pinned else [],
            "now": now,
            **more,
        }
        vector("10/bundle", title, "bundle", identifiers, given, ok, error)

    whole = [header(), ROOTED, RELEASED, *maps(), *blobs()]
    size = sum(map(len, CONTENT.values()))
    add("whole", "BDL-001 BDL-002 BDL-003 BDL-004 BDL-005 BDL-007 BDL-010 BDL-011", whole,
        ok={"release": DIGEST, "missing": [], "newBytes": size, "recalls": 0, "skipped": 0})
    old = header(version=1, **{"for": None, "by": None, "made": None, "part": None})
    add("of version 1", "BDL-002", [old, ROOTED, RELEASED, *maps(), *blobs()], ok={"release": DIGEST, "missing": []})
    part = [header(part=True), ROOTED, RELEASED, *maps()]
    add("a part without blobs", "BDL-011", part, ok={"missing": ["README.md", "config.json"], "newBytes": 0})
    add("a part with one blob", "BDL-011", [*part, blobs()[0]], ok={"missing": ["config.json"]})
    add("with a channel", "BDL-012", [header(), RELEASED, stated(moved(), RELEASE), *maps(), *blobs()], ok={"stable": DIGEST})

    f = "refused: "
    readme = CONTENT["README.md"]
    add(f + "a link", "BDL-001", [*whole, entry("blobs/x", b"", kind=b"2", link="/etc/passwd")], error="entry")
    add(f + "a hard link", "BDL-001", [*whole, entry("blobs/" + "a" * 64, b"", kind=b"1", link=HEADER)], error="entry")
    add(f + "a folder", "BDL-001", [header(), entry("statements/", b"", kind=b"5"), *whole[1:]], error="entry")
    add(f + "an extended header", "BDL-001", [header(), entry("x", b"20 path=blobs/../x1\n", kind=b"x"), *whole[1:]], error="entry")
    add(f + "a long name's header", "BDL-001", [header(), entry("././@LongLink", b"../../x\0", kind=b"L"), *whole[1:]], error="entry")
    add(f + "a device", "BDL-001", [header(), entry("blobs/x", b"", kind=b"3"), *whole[1:]], error="entry")
    for title, name in [("a name that climbs", "../x"), ("an absolute name", "/etc/x"), ("a name below", "blobs/../x"), ("an unknown folder", "keys/" + "a" * 64),
                        ("a digest in capitals", "blobs/" + hexdigest(readme).upper()), ("a digest with a prefix", "blobs/b3:" + hexdigest(readme)[:60]),
                        ("a statement without its ending", "statements/" + DIGEST[3:]), ("a name that is no UTF-8", b"blobs/\xff\xfe")]:
        add(f + title, "BDL-001 BDL-004", [header(), ROOTED, RELEASED, entry(name, readme)], error="entry")
    spoilt = bytearray(entry("blobs/" + hexdigest(readme), readme))
    spoilt[148] ^= 1
    add(f + "a header whose checksum is another", "BDL-001", [header(), ROOTED, RELEASED, *maps(), bytes(spoilt)], error="not-a-bundle")
    add(f + "a blob twice", "BDL-001", [*whole, blobs()[0]], error="entry")
    add(f + "a contiguous file", "BDL-001", [header(), ROOTED, RELEASED, *maps(), entry("blobs/" + hexdigest(readme), readme, kind=b"7")], error="entry")
    add(f + "a statement twice", "BDL-001", [header(), RELEASED, RELEASED], error="entry")
    add(f + "the header twice", "BDL-001 BDL-002", [header(), header(), *whole[1:]], error="entry")
    add(f + "an empty archive", "BDL-002", [], error="not-a-bundle")
    add(f + "no header", "BDL-002", whole[1:], error="not-a-bundle")
    add(f + "the header not first", "BDL-002", [ROOTED, header(), RELEASED, *maps(), *blobs()], error="not-a-bundle")
    add(f + "a header of 65,537 bytes", "BDL-002", [entry(HEADER, b" " * 65537), *whole[1:]], error="not-a-bundle")
    add(f + "a header that is no JSON", "BDL-002", [entry(HEADER, b"{"), *whole[1:]], error="not-a-bundle")
    add(f + "another format", "BDL-002", [header(format="steelyard-bundle2"), *whole[1:]], error="not-a-bundle")
    add(f + "version 3", "BDL-002", [header(version=3), *whole[1:]], error="version")
    add(f + "version 0", "BDL-002", [header(version=0), *whole[1:]], error="version")
    for field in ["for", "by", "made"]:
        add(f"{f}version 2 without {field}", "BDL-002", [header(**{field: None}), *whole[1:]], error="not-a-bundle")
    add(f + "a time that is none", "BDL-002", [header(made="yesterday"), *whole[1:]], error="not-a-bundle")
    add(f + "a part that is a text", "BDL-002", [header(part="true"), *whole[1:]], error="not-a-bundle")
    add(f + "a release that is no digest", "BDL-002", [header(release=DIGEST[3:]), *whole[1:]], error="not-a-bundle")
    add(f + "a version as text", "BDL-002", [header(version="2"), *whole[1:]], error="not-a-bundle")
    add(f + "made for cora", "BDL-003", [header(**{"for": "cora"}), *whole[1:]], error="for-another")
    add(f + "made for a nation in capitals", "BDL-003", [header(**{"for": "Borea"}), *whole[1:]], error="not-a-bundle")
    add(f + "a statement under another digest", "BDL-004", [header(), entry("statements/" + "a" * 64 + ".json", signed(PAYLOAD, RELEASE).encode())], error="entry")
    add(f + "a map under another digest", "BDL-004 BDL-010", [header(), ROOTED, RELEASED, entry("maps/" + hexdigest(MAPS["README.md"]), MAPS["config.json"])], error="entry")
    add(f + "a blob with a changed byte", "BDL-004 BDL-010", [header(), ROOTED, RELEASED, *maps(), entry("blobs/" + hexdigest(readme), b"#" * len(readme))], error="entry")
    add(f + "a blob that is too short", "BDL-010", [header(), ROOTED, RELEASED, *maps(), entry("blobs/" + hexdigest(readme), readme[:-1])], error="entry")
    add(f + "a blob that is too long", "BDL-010", [header(), ROOTED, RELEASED, *maps(), entry("blobs/" + hexdigest(readme), readme + b"x")], error="entry")
    add(f + "a blob that the release does not name", "BDL-010", [header(), ROOTED, RELEASED, *maps(), entry("blobs/" + hexdigest(b"x"), b"x")], error="entry")
    add(f + "a map that the release does not name", "BDL-010", [header(), ROOTED, RELEASED, entry("maps/" + hexdigest(chunk_map(b"x")), chunk_map(b"x"))], error="entry")
    crossed = the_release(crossed=True)
    add(f + "a map that the release names for another file", "BDL-010",
        [header(release="b3:" + hexdigest(crossed.encode())), ROOTED, stated(crossed, RELEASE), *maps(), *blobs()], error="entry")
    add(f + "a statement after a map", "BDL-005", [header(), ROOTED, RELEASED, maps()[0], stated(moved(), RELEASE)], error="entry")
    add(f + "a blob before the release", "BDL-005 BDL-007", [header(), ROOTED, blobs()[0], RELEASED], error="lacks")
    add(f + "no release", "BDL-007", [header(), ROOTED], error="lacks")
    add(f + "a channel in the release's place", "BDL-007", [header(release="b3:" + hexdigest(moved().encode())), stated(moved(), RELEASE)], error="admit")
    add(f + "a release signed by another key", "BDL-007", [header(), ROOTED, stated(PAYLOAD, OUTSIDER), *maps(), *blobs()], error="trust")
    add(f + "a release signed by the attest role", "BDL-007", [header(), ROOTED, stated(PAYLOAD, ATTEST), *maps(), *blobs()], error="trust")
    add(f + "a nation that is not pinned", "BDL-007", whole, error="not-pinned", pinned=False)
    false_root = compact(single_key_root("alba", OUTSIDER))
    add(f + "a root of its own for a pinned nation", "BDL-007", [header(), stated(false_root, OUTSIDER), stated(PAYLOAD, OUTSIDER), *maps(), *blobs()], error="trust")
    add("a statement that is not believed is passed over", "BDL-007", [header(), RELEASED, stated(moved(), OUTSIDER), *maps(), *blobs()], ok={"skipped": 1, "stable": None})
    add(f + "statements that are no envelopes", "BDL-007", [header(), entry(f"statements/{DIGEST[3:]}.json", b"[]")], error="envelope")

    closed = the_release(releasableTo=["cora"])
    name = "b3:" + hexdigest(closed.encode())
    add(f + "a release that is not releasable to us", "BDL-008", [header(release=name), ROOTED, stated(closed, RELEASE), *maps(), *blobs()], error="refused")
    pickled = {"README.md": CONTENT["README.md"], "config.json": b"\x80\x04N."}
    runs_code = the_release(content=pickled)
    add(f + "a file that runs code under a harmless name", "BDL-008",
        [header(release="b3:" + hexdigest(runs_code.encode())), ROOTED, stated(runs_code, RELEASE), *[entry(f"{kind}/{hexdigest(data)}", data) for kind, made in
         (("maps", map(chunk_map, pickled.values())), ("blobs", pickled.values())) for data in made]], error="refused")
    by_producer = stated(recalled(), RECALL)
    add(f + "a release that is recalled in it", "BDL-008 BDL-009", [header(), RELEASED, by_producer, *maps(), *blobs()], error="refused", recallsAfter=1)
    add(f + "recalled, and the content is damaged too", "BDL-008 BDL-009", [header(), RELEASED, by_producer, *maps(), entry("blobs/" + hexdigest(readme), b"#" * len(readme))], error="refused", recallsAfter=1)
    add(f + "recalled, and a part", "BDL-008 BDL-009", [header(part=True), RELEASED, by_producer, *maps()], error="refused", recallsAfter=1)
    add("a recall by another key counts for nothing", "BDL-008", [header(), RELEASED, stated(recalled(), RELEASE), *maps(), *blobs()], ok={"recalls": 0, "skipped": 1})
    other = compact(recall(target={"release": "b3:" + "c" * 64}))
    add("a recall of another release", "BDL-009", [header(), RELEASED, stated(other, RECALL), *maps(), *blobs()], ok={"recalls": 1})
    add(f + "a blob missing", "BDL-011", whole[:-1], error="lacks")
    add(f + "a map missing", "BDL-011", [header(), ROOTED, RELEASED, maps()[0], *blobs()], error="lacks")
    add(f + "a part without its maps", "BDL-011", [header(part=True), ROOTED, RELEASED], error="lacks")

    later = "2026-12-23T12:00:00Z"
    day = 86400
    add("thirty days old and allowed", "BDL-013", whole, ok={"release": DIGEST}, now=later, maxAge=31 * day)
    add("thirty days old and nothing asked", "BDL-013", whole, ok={"release": DIGEST}, now=later)
    add("to the second as old as allowed", "BDL-013", whole, ok={"release": DIGEST}, now=later, maxAge=30 * day)
    add(f + "a second too old", "BDL-013", whole, error="stale", now=later, maxAge=30 * day - 1)
    add("ten minutes in the future", "BDL-013", [header(made="2026-11-23T12:10:00Z"), *whole[1:]], ok={"release": DIGEST}, maxAge=day)
    add(f + "further in the future", "BDL-013", [header(made="2026-11-23T12:10:01Z"), *whole[1:]], error="stale", maxAge=day)
    add(f + "version 1 where an age is asked", "BDL-013", [old, RELEASED, *maps(), *blobs()], error="stale", maxAge=365 * day)
    add(f + "stale, and its recall is kept", "BDL-009 BDL-013", [header(), RELEASED, stated(other, RECALL), *maps(), *blobs()], error="stale", now=later, maxAge=day, recallsAfter=1)

    newer = [header(), RELEASED, stated(moved(sequence=2), RELEASE), *maps(), *blobs()]
    before = [header(part=True), RELEASED, stated(moved(sequence=1), RELEASE), *maps()]
    add("an older channel after a newer one", "BDL-012", before, ok={"skipped": 1, "stable": DIGEST}, before=runs(b"".join(newer) + END))
    recalling = [header(part=True), RELEASED, by_producer, *maps()]
    add(f + "an older bundle of what was recalled since", "BDL-012 BDL-008", whole, error="refused", before=runs(b"".join(recalling) + END), recallsAfter=1)
    many = [stated(recalled(sequence=n, reason=f"reason {n}"), RECALL) for n in range(1, 4)]
    add(f + "a release recalled three times", "BDL-008 BDL-009", [header(), RELEASED, *many, *maps()], error="refused", recallsAfter=3)
    proofs(add)
    successor = compact(root(version=2, previous=digest(ALBA_ROOT), issued="2026-11-10T00:00:00Z",
                             keys=[ROOT, RELEASE2, ATTEST, RECALL, LOG, CORA], roles={"root": ([ROOT], 1), "release": ([RELEASE2], 1), "attest": ([ATTEST], 1),
                                   "recall": ([RECALL], 1), "log": ([LOG], 1), "node": ([CORA], 1)}))
    second = stated(successor, ROOT)
    add("a release by a key that the bundle's later root names", "BDL-007 BDL-009", [header(), ROOTED, second, stated(PAYLOAD, RELEASE2), *maps(), *blobs()], ok={"release": DIGEST})
    add(f + "a release by a key that the bundle's later root took away", "BDL-007 BDL-009", [header(), ROOTED, second, RELEASED, *maps(), *blobs()], error="trust")
    add(f + "a release by that key, and the later root came in a bundle that was refused", "BDL-009", [header(), RELEASED, *maps(), *blobs()], error="trust",
        before=runs(b"".join([header(), ROOTED, second, RELEASED, *maps(), *blobs()]) + END))
    unsigned = stated(successor, RELEASE)
    add("a later root that the one before did not sign changes nothing", "BDL-007 BDL-009", [header(), ROOTED, unsigned, RELEASED, *maps(), *blobs()], ok={"release": DIGEST})
    add(f + "its producer's root has ended", "BDL-007 BDL-008", whole, error="trust", now="2028-11-01T00:00:00Z")
    add(f + "statements of 64 MiB and more", "BDL-006", [header(), entry("statements/" + "a" * 64 + ".json", b"", size=64 * 2**20 + 1)], error="entry")


def proofs(add):
    f = "refused: "
    by_cora = ("cora", CORA, NOW)
    day, month_ago = 86400, "2026-10-24T12:00:00Z"

    def with_proof(*more, **changes):
        return [header(), ROOTED, RELEASED, proved(**changes), *more, *maps(), *blobs()]

    add("a proof that nobody cosigned", "BDL-014", with_proof(), ok={"size": 3, "witnesses": []})
    add("a proof that cora cosigned", "BDL-014 BDL-015", with_proof(cosignatures=[by_cora]), ok={"size": 3, "witnesses": ["cora"]}, witnesses=1, maxAge=day)
    hashes = [leaf(OTHERS[0]), leaf(OTHERS[1])]
    defects = [
        ("another place", {"index": 0}), ("a place beyond the log", {"index": 3}), ("a hash changed", {"path": [hashes[0], leaf(b"x")]}),
        ("a hash missing", {"path": hashes[:1]}), ("a hash too many", {"path": [*hashes, hashes[0]]}), ("hashes in another order", {"path": hashes[::-1]}),
        ("another root hash", {"root_hash": leaf(b"x")}), ("another size", {"size": 2}), ("a larger size", {"size": 5}), ("signed by the release key", {"key": RELEASE}),
        ("signed by nobody", {"key": None, "cosignatures": [by_cora]}), ("cora's log", {"origin": "steelyard/cora"}), ("a log of nobody's", {"origin": "alba"}),
    ]
    for title, changes in defects:
        add(f"{f}a proof with {title}" if title[0] != "s" else f"{f}a proof {title}", "BDL-014", with_proof(**changes), error="proof")
    add(f + "a proof of another form", "BDL-014", with_proof(first="c2sp.org/tlog-proof@v2"), error="entry")
    add(f + "a proof with an index with a leading zero", "BDL-014", with_proof(index="01"), error="entry")
    add(f + "a proof that is empty", "BDL-014", [header(), RELEASED, entry(f"proofs/{DIGEST[3:]}", b"")], error="entry")
    add(f + "a proof before its statement", "BDL-014", [header(), proved(), RELEASED], error="entry")
    add(f + "a proof of what is not there", "BDL-014", [header(), RELEASED, entry("proofs/" + "a" * 64, log_proof())], error="entry")
    add(f + "a proof after a map", "BDL-005", [header(), RELEASED, maps()[0], proved()], error="entry")
    add(f + "a proof of a megabyte", "BDL-014", [header(), RELEASED, entry(f"proofs/{DIGEST[3:]}", b" " * 2**20)], error="entry")
    add(f + "a proof that is false, and its recall is kept", "BDL-009 BDL-014",
        [header(), RELEASED, stated(compact(recall(target={"release": "b3:" + "c" * 64})), RECALL), proved(index=0)], error="proof", recallsAfter=1)
    add(f + "made today, and witnessed a month ago", "BDL-015", with_proof(cosignatures=[("cora", CORA, month_ago)]), error="stale", maxAge=7 * day)
    add("the newest cosignature counts", "BDL-015", with_proof(cosignatures=[("cora", CORA, month_ago), by_cora]), ok={"witnesses": ["cora"]}, maxAge=day)
    add(f + "nobody cosigned it and one is asked for", "BDL-015", with_proof(), error="stale", witnesses=1)
    add(f + "no proof and a witness is asked for", "BDL-015", [header(), ROOTED, RELEASED, *maps(), *blobs()], error="stale", witnesses=1)
    add(f + "one cosigned it and two are asked for", "BDL-015", with_proof(cosignatures=[by_cora]), error="stale", witnesses=2)
    add(f + "the producer's own witness", "BDL-015", with_proof(cosignatures=[("alba", LOG, NOW)]), error="stale", witnesses=1)
    add(f + "a witness that is not pinned", "BDL-015", with_proof(cosignatures=[("zeta", OUTSIDER, NOW)]), error="stale", witnesses=1)
    add(f + "another's key under cora's name", "BDL-015", with_proof(cosignatures=[("cora", OUTSIDER, NOW)]), error="stale", witnesses=1)
    add(f + "cora's key under another name", "BDL-015", with_proof(cosignatures=[("borea", CORA, NOW)]), error="stale", witnesses=1)
    quorum(add, with_proof)
    judged(add, with_proof)


def quorum(add, with_proof):
    """Since when as many nations as are asked for had cosigned, by the reader's clock."""
    f = "refused: "
    day, month_ago, week_ago = 86400, "2026-10-24T12:00:00Z", "2026-11-16T12:00:00Z"

    def by(*times):
        return [(name, key, time) for (name, key), time in zip([("cora", CORA), ("dora", DORA)], times) if time]

    allies = [signed(ALBA_ROOT, ROOT), signed(CORA_ROOT, CORA), signed(DORA_ROOT, DORA)]
    edge, beyond = "2026-11-23T12:10:00Z", "2026-11-23T12:10:01Z"
    add("cosigned ten minutes ahead of this clock", "LOG-024", with_proof(cosignatures=by(edge)), ok={"witnesses": ["cora"]}, witnesses=1, maxAge=day)
    add(f + "cosigned further ahead of this clock", "LOG-024", with_proof(cosignatures=by(beyond)), error="stale", witnesses=1)
    add(f + "cosigned in the year 9999", "LOG-024", with_proof(cosignatures=by("9999-12-31T23:59:59Z")), error="stale", witnesses=1)
    add("cosigned now, and once more further ahead", "LOG-024", with_proof(cosignatures=[*by(beyond), *by(NOW)]), ok={"witnesses": ["cora"]}, witnesses=1, maxAge=day)
    add(f + "cosigned a month ago, and once more further ahead", "LOG-024 BDL-015", with_proof(cosignatures=[*by(beyond), *by(month_ago)]), error="stale", witnesses=1, maxAge=7 * day)
    add(f + "one of two cosigned further ahead", "LOG-024 LOG-025", with_proof(cosignatures=by(NOW, beyond)), error="stale", witnesses=2, roots=allies)
    add("two cosigned, and two are asked for", "LOG-025 BDL-015", with_proof(cosignatures=by(week_ago, NOW)), ok={"witnesses": ["cora", "dora"]}, witnesses=2, maxAge=7 * day, roots=allies)
    add(f + "two are asked for, and one of two cosigned a month ago", "LOG-025 BDL-015", with_proof(cosignatures=by(month_ago, NOW)), error="stale", witnesses=2, maxAge=7 * day, roots=allies)
    add("one is asked for, and one of two cosigned a month ago", "LOG-025 BDL-015", with_proof(cosignatures=by(month_ago, NOW)), ok={"witnesses": ["cora", "dora"]}, witnesses=1, maxAge=7 * day, roots=allies)
    add(f + "the policy asks for two, and one of two cosigned a month ago", "LOG-025 BDL-015", with_proof(cosignatures=by(month_ago, NOW)), error="stale", policyWitnesses=2, maxAge=7 * day, roots=allies)


def judged(add, with_proof):
    """The policy is asked with what the bundle brings."""
    f = "refused: "
    by_cora, bare = [("cora", CORA, NOW)], [header(), ROOTED, RELEASED, *maps(), *blobs()]
    add("witnessed as the policy asks", "BDL-016", with_proof(cosignatures=by_cora), ok={"release": DIGEST, "witnesses": ["cora"]}, policyWitnesses=1)
    add(f + "the policy asks for a witness and there is no proof", "BDL-016", bare, error="refused", policyWitnesses=1)
    add(f + "the policy asks for a witness and nobody cosigned", "BDL-016", with_proof(), error="refused", policyWitnesses=1)
    add(f + "the policy asks for a witness and only the producer cosigned", "BDL-016", with_proof(cosignatures=[("alba", LOG, NOW)]), error="refused", policyWitnesses=1)
    add(f + "the policy asks for two witnesses and one cosigned", "BDL-016", with_proof(cosignatures=by_cora), error="refused", policyWitnesses=2)
    add(f + "the policy asks for a witness, and the one there is is from the future", "BDL-016 LOG-024", with_proof(cosignatures=[("cora", CORA, "2026-11-24T12:00:00Z")]), error="refused", policyWitnesses=1)
    rule = '@id("vouched")\n@reason("{passes} nations vouch")\n@advice("ask one")\nforbid (principal, action == Action::"admit", resource)\nunless { context.passes >= 1 && context.fails == 0 };'
    passed, failed = (compact(attestation(nation="cora", release=DIGEST, verdict=verdict)) for verdict in ["pass", "fail"])
    with_pass = [header(), ROOTED, RELEASED, stated(passed, CORA), *maps(), *blobs()]
    add("attested as a rule asks", "BDL-016", with_pass, ok={"release": DIGEST, "skipped": 0}, policy=rule)
    add(f + "a rule asks for an attestation and there is none", "BDL-016", bare, error="refused", policy=rule)
    add(f + "an attestation by another key", "BDL-016", [header(), ROOTED, RELEASED, stated(passed, OUTSIDER), *maps(), *blobs()], error="refused", policy=rule)
    add(f + "an attestation that advises against it", "BDL-016", [header(), ROOTED, RELEASED, stated(failed, CORA), *maps(), *blobs()], error="refused", policy=rule)
    add("the same again, attested in the bundle before", "BDL-016", bare, ok={"release": DIGEST}, policy=rule, before=runs(b"".join(with_pass) + END))
    add("the same again, proved in the bundle before", "BDL-016", bare, ok={"release": DIGEST}, policyWitnesses=1, before=runs(b"".join(with_proof(cosignatures=by_cora)) + END))
    spoilt = b"".join([*with_proof(cosignatures=by_cora)[:-1], entry("blobs/" + hexdigest(CONTENT["config.json"]), b"#" * len(CONTENT["config.json"]))]) + END
    add(f + "proved in a bundle that was refused", "BDL-016 BDL-009", bare, error="refused", policyWitnesses=1, before=runs(spoilt))


def leases():
    def add(title, identifiers, heard, now, ok, seconds=10, nations=1, pinned=None):
        given = {
            "own": "borea",
            "seconds": seconds,
            "nations": nations,
            "known": sorted(pinned if pinned is not None else set(heard) | {"borea"}),
            "heard": {name: list(moment) if isinstance(moment, tuple) else [moment, moment] for name, moment in heard.items()},
            "now": list(now) if isinstance(now, tuple) else [now, now],
        }
        vector("10/lease", title, "lease", identifiers, given, ok)

    def held(left):
        return {"state": "held", "leftMs": left}

    def ended(heard=0):
        return {"state": "ended", "heard": heard}

    add("just heard", "LSE-001", {"alba": 5000}, 5000, held(10000))
    add("a millisecond is left", "LSE-001", {"alba": 5000}, 14999, held(1))
    add("it has ended", "LSE-001", {"alba": 5000}, 15000, ended())
    add("nobody was heard", "LSE-001", {}, 5000, ended())
    add("the second newest of three counts where two are asked", "LSE-001", {"alba": 1000, "cora": 5000, "dora": 9000}, 10000, held(5000), nations=2)
    add("one of two is too few", "LSE-001", {"alba": 5000}, 5001, ended(1), nations=2)
    add("two heard, one of them too long ago", "LSE-001", {"alba": 1000, "cora": 9000}, 11000, ended(1), nations=2)
    add("three asked and two heard", "LSE-001", {"alba": 9000, "cora": 9000}, 9000, ended(2), nations=3)
    add("our own nation does not count", "LSE-002", {"borea": 9000}, 9000, ended())
    add("our own nation is no second one", "LSE-002", {"alba": 9000, "borea": 9000}, 9000, ended(1), nations=2)
    add("a nation that is not pinned does not count", "LSE-002", {"zeta": 9000}, 9000, ended(), pinned=["alba", "borea"])
    add("a nation that was let go does not count", "LSE-002", {"alba": 1000, "cora": 9000}, 9500, held(1500), pinned=["alba", "borea"])
    add("the wall clock went on while the machine slept", "LSE-003", {"alba": (5000, 100000)}, (5001, 110000), ended())
    add("the wall clock was set back", "LSE-003", {"alba": (5000, 100000)}, (14000, 20000), held(1000))
    add("the wall clock was set back, and the steady one has ended", "LSE-003", {"alba": (5000, 100000)}, (15000, 20000), ended())
    add("the wall clock was set forward", "LSE-003", {"alba": (5000, 100000)}, (6000, 200000), ended())
    add("each clock takes its own second newest", "LSE-003", {"alba": (1000, 9000), "cora": (5000, 2000)}, (5000, 9000), held(3000), nations=2)
    year = 366 * 86_400_000
    add("the last millisecond of a lease of two years, which is one of 366 days", "LSE-001", {"alba": 5000}, 5000 + year - 1, held(1), seconds=2 * year // 1000)
    add("a lease of two years ends after 366 days", "LSE-001", {"alba": 5000}, 5000 + year, ended(), seconds=2 * year // 1000)
    add("a lease that asks for no nations asks for one", "LSE-001", {}, 5000, ended(), nations=0)
    add("one nation is enough where none is asked for", "LSE-001", {"alba": 5000}, 5000, held(10000), nations=0)
    add("our own nation is not the one", "LSE-002", {"borea": 5000}, 5000, ended(), nations=0)
    add("no lease is needed", "LSE-004", {}, 10**12, {"state": "not-needed"}, seconds=0)
    add("no lease is needed, however many nations are asked", "LSE-004", {}, 5, {"state": "not-needed"}, seconds=0, nations=3)
