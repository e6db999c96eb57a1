"""The requests of llama.cpp's `-hf MODEL[:TAG]`, one after the other, as its sources make them (common/hf-cache.cpp and
common/download.cpp of November 2026): python llama_cpp.py ENDPOINT MODEL TAG CACHE [TOKEN]. Writes the files as JSON, in the order in which
they were fetched, with how many attempts each took.

The program itself is not run. What it checks of an answer before it uses it is checked here too, so that an answer that it would pass
over fails.
"""

import http.client
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

AGENT = {"User-Agent": "llama-cpp/b0-replay"}
ATTEMPTS = 3
BASE = re.compile(r"[A-Za-z0-9_]+([/.-][A-Za-z0-9_]+)*")
TOKEN = re.compile(r"hf_[A-Za-z0-9]{34,253}")


def request(method, url, headers):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, path, headers={**AGENT, **headers})
    return connection, connection.getresponse()


def api(url, token):
    headers = {"Accept": "application/json"}
    if TOKEN.fullmatch(token):
        headers["Authorization"] = f"Bearer {token}"
    connection, answer = request("GET", url, headers)
    body = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"GET failed ({answer.status}): {json.loads(body)['error']}")
    return json.loads(body)


def commit_of(endpoint, model, token):
    branches = api(f"{endpoint}api/models/{model}/refs", token)["branches"]
    good = [one for one in branches if re.fullmatch("[0-9a-f]{40}", one["targetCommit"])]
    named = [one for one in good if one["name"] == "main"] or good
    return named[0]["targetCommit"]


def files_of(endpoint, model, commit, token):
    found = []
    for entry in api(f"{endpoint}api/models/{model}/tree/{commit}?recursive=true", token):
        if entry["type"] != "file":
            continue
        oid = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        assert re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", oid), entry
        # Not escaped: the path goes into the address as it is.
        found.append((entry["path"], oid, entry["size"], f"{endpoint}{model}/resolve/{commit}/{entry['path']}"))
    return found


def chosen(files, tag):
    """The first shard whose name ends with the tag, all shards with it, and a projector if there is one."""
    models = [one for one in files if one[0].endswith(".gguf") and "mmproj" not in one[0]]
    first = next(one for one in models if re.search(rf"[-.]{tag}(-00001-of-[0-9]{{5}})?\.gguf$", one[0], re.I))
    split = re.fullmatch(r"(.+)-00001-of-([0-9]{5})\.gguf", first[0])
    mine = [first] if not split else [one for one in models if one[0].startswith(split[1] + "-") and one[0].endswith(f"-of-{split[2]}.gguf")]
    return mine + [one for one in files if re.search(r"mmproj[^/]*\.gguf$", one[0])][:1]


def download(url, place, token):
    """A HEAD, then GETs that go on where the one before broke off; the attempts that it took."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection, head = request("HEAD", url, headers)
    head.read()
    connection.close()
    assert 200 <= head.status < 300, head.status
    total, etag = int(head.headers["Content-Length"]), head.headers["ETag"]
    assert etag and head.headers["Accept-Ranges"] != "none"
    part = place.with_name(place.name + ".downloadInProgress")
    for attempt in range(1, ATTEMPTS + 1):
        have = part.stat().st_size if part.exists() else 0
        connection, answer = request("GET", url, {**headers, **({"Range": f"bytes={have}-"} if have else {})})
        assert answer.status == (206 if have else 200), answer.status
        with open(part, "ab") as file:
            try:
                while block := answer.read(65536):
                    file.write(block)
                whole = file.tell() == total
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.IncompleteRead):
                    file.write(error.partial)
                whole = False
        connection.close()
        if whole:
            os.rename(part, place)
            place.with_name(place.name + ".etag").write_text(etag)
            return attempt
    sys.exit(f"{url}: not whole after {ATTEMPTS} attempts")


def main():
    endpoint, model, tag, cache, *token = sys.argv[1:]
    endpoint, token = endpoint.rstrip("/") + "/", token[0] if token else ""
    assert BASE.fullmatch(model) and model.count("/") == 1
    assert not token or TOKEN.fullmatch(token), "llama.cpp takes it for no token"
    commit = commit_of(endpoint, model, token)
    done, top = [], Path(cache) / f"models--{model.replace('/', '--')}"
    for path, oid, size, url in chosen(files_of(endpoint, model, commit, token), tag):
        blob, final = top / "blobs" / oid, top / "snapshots" / commit / path
        blob.parent.mkdir(parents=True, exist_ok=True)
        attempts = download(url, blob, token)
        assert blob.stat().st_size == size
        final.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(blob, final.parent), final)
        done.append({"path": path, "at": str(final), "attempts": attempts})
    print(json.dumps(done))


main()
