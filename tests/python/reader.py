"""What a program reads of a node by the Python client: python reader.py URL MODEL RELEASE, with `steelyard` in the path.

Writes a line when it has read everything, then follows recalls until it hears of the release's, and writes that.
"""

import json
import sys

import steelyard

url, model, release = sys.argv[1:]
node = steelyard.Node(url)
nation, name = model.split("/")

status = node.status()
assert status["running"] and status["nation"]
assert node.readyz()["status"]
assert any(one["model"] == model for one in node.models())
assert node.models_nation_name(nation, name)["releases"][0]["release"] == release
assert node.resolve(model)["release"] == release
detail = node.releases_digest(release)
assert detail["model"] == model and detail["file_list"] and not detail["recalled"]
assert {one["nation"] for one in node.nations()} >= {nation, status["nation"]}
assert node.log_checkpoint(nation).startswith(f"steelyard/{nation}\n")
assert len(node.log_tile(nation, "0/000.p/1")) == 32
evidence = node.evidence(model)
assert evidence.release == release and len(evidence.of_kind("release")) == 1
assert evidence.of_kind("root") and evidence.of_kind("channel")
try:
    node.releases_digest("b3:" + "0" * 64)
    raise AssertionError("an unknown release is known")
except steelyard.NodeError as error:
    assert error.status == 404 and error.problem["code"] == "not_found", error
try:
    steelyard.Node("http://127.0.0.1:1").status()
    raise AssertionError("nobody answers")
except steelyard.NodeError as error:
    assert error.status is None, error
for wrong in ("127.0.0.1:4800", "ftp://x", "http://"):
    try:
        steelyard.Node(wrong)
        raise AssertionError(wrong)
    except ValueError:
        pass

feed = node.recall_feed()
print("ready", flush=True)
for recall in feed:
    print(json.dumps(recall), flush=True)
    if recall["release"] == release:
        break
