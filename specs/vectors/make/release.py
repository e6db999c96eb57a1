"""Documents 03 and 04: releases, channels and recalls."""

from common import (
    NOW,
    OTHER_RELEASE,
    RELEASE,
    ROOT,
    THE_RELEASE,
    about,
    channel,
    compact,
    digest,
    files,
    named,
    recall,
    release,
    parts,
    root,
    signed,
    statement,
    vector,
    without,
)


def releases():
    f = "03/path"
    good = ["model.gguf", "model-00001-of-00002.safetensors", "onnx/ö/model.onnx", "a", ".gitattributes", "a b/c d", "/".join("a" * 16),
            "a" * 255, "a/" + "b" * 255 + "/" + "c" * 254, "…/x", "日本/語"]
    for path in good:
        shown = path if len(path) < 40 else f"{len(path.encode())} bytes"
        vector(f, shown, "path", "PTH-001", {"path": path})
    bad = {
        "PTH-001": {"empty": "", "513 bytes": "a" * 255 + "/" + "b" * 255 + "/c", "17 components": "/".join("a" * 17), "component of 256 bytes": "a" * 256,
                     "component of 256 bytes, not ASCII": "ö" * 128},
        "PTH-002": {"absolute": "/etc/passwd", "parent first": "../x", "parent inside": "a/../b", "parent last": "a/..", "parent alone": "..", "current first": "./a",
                     "current last": "a/.", "current alone": ".", "two slashes": "a//b", "trailing slash": "a/", "slash alone": "/"},
        "PTH-003": {"backslash": "a\\b", "backslash traversal": "..\\..\\x", "drive": "C:x", "alternate stream": "model.gguf:x", "NUL": "a\u0000b", "line feed": "a\nb",
                     "escape": "a\u001b[2J", "delete": "a\u007f", "C1 control": "a\u009b", "star": "con*", "question mark": "a?", "quote": 'a"b', "less": "a<b", "greater": "a>b", "pipe": "a|b"},
        "PTH-004": {"trailing dot": "a.", "trailing dot inside": "a./b", "three dots": "...", "trailing space": "a ", "leading space": " a", "leading space inside": "a/ b"},
    }
    for requirement, paths in bad.items():
        for defect, path in paths.items():
            vector(f, f"refused: {defect}", "path", requirement, {"path": path}, error="is refused")

    f = "03/release"

    def add(name, requirements, value, ok=None, error=None, **more):
        vector(f, name, "statement", requirements, {"payload": compact(value), **more}, ok, error)

    add("two files", "REL-001 REL-002", release(), ok={"kind": "release", "nation": "alba"})
    add("refused: no files", "REL-001", release(paths=(), modelCard=None), error="field-files")
    mismatch = "do not match its predicate"
    subjects = release()["subject"]
    add("refused: a subject missing", "REL-002 STM-007", release(subjects=subjects[:1]), error=mismatch)
    add("refused: a subject too many", "REL-002 STM-007", release(subjects=subjects + subjects[:1]), error=mismatch)
    add("refused: subjects in another order", "REL-002 STM-007", release(subjects=subjects[::-1]), error=mismatch)
    add("refused: a subject of another name", "REL-002", release(subjects=[{**subjects[0], "name": "other.gguf"}, subjects[1]]), error=mismatch)
    bare = [without(subject, "digest", "sha256") for subject in subjects]
    add("refused: subjects without SHA-256", "REL-002", release(subjects=bare), error=mismatch)
    for requirement, defect, path in [("REL-003 PTH-002", "traversal", "../../etc/cron.d/x"), ("REL-003 PTH-002", "absolute path", "/etc/passwd"),
                                      ("REL-003 PTH-003", "backslash traversal", "..\\x"), ("REL-003 PTH-003", "NUL in a path", "a\u0000.gguf")]:
        add(f"refused: {defect}", requirement, release(paths=("model.gguf", path), modelCard=None), error="field-files")
    for defect, paths in {"the same path twice": ("a.gguf", "a.gguf"), "paths that differ in case": ("README.md", "readme.md"), "a file as a folder": ("a", "a/b"),
                          "a file as a folder in another case": ("A", "a/b"), "a folder far above": ("a/b/c/d", "a/b"), "case beyond ASCII": ("Ö", "ö")}.items():
        add(f"refused: {defect}", "REL-004", release(paths=paths, modelCard=None), error="field-files")
    add("neighbours are no collision", "REL-004", release(paths=("a/b", "a/c", "ab"), modelCard=None), ok={"kind": "release"})

    def sized(size):
        value = release()
        value["predicate"]["files"][0]["size"] = size
        return value

    add("4 TiB", "REL-005", sized(1 << 42), ok={"kind": "release"})
    add("refused: 4 TiB and a byte", "REL-005", sized((1 << 42) + 1), error="field-files")
    add("refused: negative size", "REL-005", sized(-1), error="not an in-toto statement")
    for defect, card in {"a folder of the files": "docs", "a name in another case": "readme.md", "empty": "", "a path that climbs": "../README.md"}.items():
        add(f"refused: the card is {defect}", "REL-006", release(modelCard=card, paths=("README.md", "docs/a.md")), error="field-modelCard")
    add("refused: the card is a number", "REL-006 STM-005", release(modelCard=7), error="malformed")
    add("no model card", "REL-006", release(modelCard=None), ok={"kind": "release"})
    add("refused: the card is not among the files", "REL-006", release(modelCard="CARD.md"), error="field-modelCard")
    base = {"release": "b3:" + "a" * 64, "relation": "merge"}
    add("64 bases", "REL-007", release(derivedFrom=[base] * 64), ok={"kind": "release"})
    add("no base", "REL-007", release(derivedFrom=None), ok={"kind": "release"})
    add("refused: 65 bases", "REL-007", release(derivedFrom=[base] * 65), error="field-derivedFrom")
    add("refused: unknown relation", "REL-007", release(derivedFrom=[{**base, "relation": "inspiration"}]), error="not an in-toto statement")
    for relation in ("fine-tune", "quantisation", "merge", "adapter", "distillation"):
        add(f"relation {relation}", "REL-007", release(derivedFrom=[{**base, "relation": relation}]), ok={"kind": "release"})
    for defect, value in {"another word": "everybody", "null": None, "true": True, "a nation alone": "borea"}.items():
        bad_release = release()
        bad_release["predicate"]["releasableTo"] = value
        add(f"refused: releasable to {defect}", "REL-008", bad_release, error="")
    add("refused: a nation twice", "REL-008", release(releasableTo=["borea", "borea"]), error="malformed")
    add("refused: 257 nations", "REL-008", release(releasableTo=[f"n{i}" for i in range(257)]), error="malformed")
    add("refused: a nation that is no name", "REL-008 NAM-001", release(releasableTo=["Borea"]), error="")
    add("256 nations", "REL-008", release(releasableTo=[f"n{i}" for i in range(256)]), ok={"kind": "release"})
    for field in ("format", "mediaType"):
        for defect, value in {"empty": "", "129 bytes": "a" * 129, "space": "a b", "line feed": "a\n", "not ASCII": "gguﬀ"}.items():
            changed = release()
            target = changed["predicate"] if field == "format" else changed["predicate"]["files"][0]
            target[field] = value
            add(f"refused: {field}: {defect}", "REL-009", changed, error=f"field-{field}")

    f = "03/releasable"
    for name, to, nation, allowed in [
        ("its publisher, though nobody is named", [], "alba", True), ("nobody else", [], "borea", False), ("everybody", "all", "zeta", True),
        ("named", ["borea"], "borea", True), ("not named", ["borea"], "cora", False), ("its publisher, though others are named", ["borea"], "alba", True),
        ("the beginning of a name", ["borealis"], "borea", False),
    ]:
        vector(f, name, "releasable", "REL-010", {"payload": compact(release(releasableTo=to)), "nation": nation}, {"releasable": allowed})

    f = "03/channel"
    vector(f, "refused: sequence 0", "statement", "CHN-001", {"payload": compact(channel(sequence=0))}, error="field-sequence")
    for defect, sequence in {"negative": -1, "a fraction": 1.5, "a text": "1", "over 64 bits": 2**64, "null": None}.items():
        vector(f, f"refused: sequence {defect}", "statement", "CHN-001 STM-005", {"payload": compact(channel(sequence=sequence))}, error="malformed")
    vector(f, "the highest sequence of 64 bits", "statement", "CHN-001", {"payload": compact(channel(sequence=2**64 - 1))}, {"kind": "channel"})
    root_text = signed(compact(root()), ROOT)

    def history(file, name, requirements, steps, current):
        given = [{"signed": parts(signed(compact(value), RELEASE)), "outcome": outcome} for value, outcome in steps]
        vector(file, name, "history", requirements, {"root": root_text, "now": NOW, "statements": given}, {"stable": current})

    first, other = channel(), channel(sequence=2, release=OTHER_RELEASE)
    back = channel(sequence=3, reason="2.0.0 is slow")
    history(f, "forward", "CHN-002", [(first, "kept"), (other, "kept")], OTHER_RELEASE)
    history(f, "sequences may be left out", "CHN-002", [(first, "kept"), (channel(sequence=900, release=OTHER_RELEASE), "kept")], OTHER_RELEASE)
    history(f, "refused: a lower sequence", "CHN-002", [(other, "kept"), (first, "downgrade")], OTHER_RELEASE)
    history(f, "refused: a lower sequence, issued later", "CHN-002", [(other, "kept"), (channel(issued="2026-11-23T12:05:00Z"), "downgrade")], OTHER_RELEASE)
    history(f, "channels do not touch each other", "CHN-002", [(other, "kept"), (channel(channel="beta"), "kept")], OTHER_RELEASE)
    history(f, "the same statement twice", "CHN-002", [(first, "kept"), (first, "kept")], THE_RELEASE)
    history(f, "the same said again", "CHN-003", [(first, "kept"), (channel(reason="once more"), "kept")], THE_RELEASE)
    history(f, "refused: an equal sequence for another release", "CHN-003", [(first, "kept"), (channel(release=OTHER_RELEASE), "conflict")], THE_RELEASE)
    history(f, "refused: an equal sequence for another release, issued later", "CHN-003",
            [(first, "kept"), (channel(release=OTHER_RELEASE, issued="2026-11-23T12:05:00Z"), "conflict"), (other, "kept")], OTHER_RELEASE)
    history(f, "a rollback is seen", "CHN-004", [(first, "kept"), (other, "kept"), (back, "kept")], THE_RELEASE)
    again = channel(sequence=2, release=OTHER_RELEASE, reason="again")
    history(f, "refused: forward by an old sequence after a rollback", "CHN-002 CHN-004", [(first, "kept"), (other, "kept"), (back, "kept"), (again, "downgrade")], THE_RELEASE)

    f = "03/version"
    history(f, "two versions", "REL-011", [(release(), "kept"), (release(version="2.0.0"), "kept"), (first, "kept")], THE_RELEASE)
    history(f, "the same release twice", "REL-011", [(release(), "kept"), (release(), "kept"), (first, "kept")], THE_RELEASE)
    history(f, "refused: a version used again", "REL-011", [(release(), "kept"), (release(licence="MIT"), "version-conflict"), (first, "kept")], THE_RELEASE)
    history(f, "refused: a version used again, issued later", "REL-011", [(release(), "kept"), (release(issued="2026-11-23T12:05:00Z"), "version-conflict"), (first, "kept")], THE_RELEASE)


def recalls():
    f = "04/recall"

    def add(name, requirements, value, ok=None, error=None):
        vector(f, name, "statement", requirements, {"payload": compact(value)}, ok, error)

    add("of a release", "RCL-001 RCL-004", recall(), ok={"kind": "recall", "nation": "alba"})
    add("of a lineage", "RCL-004", recall(target={"lineage": THE_RELEASE}), ok={"kind": "recall"})
    add("refused: sequence 0", "RCL-001", recall(sequence=0), error="field-sequence")
    add("refused: sequence missing", "RCL-001 STM-005", without(recall(), "predicate", "sequence"), error="not an in-toto statement")
    for defect, reason in {"empty": "", "white space": " \n\t "}.items():
        add(f"refused: reason {defect}", "RCL-002", recall(reason=reason), error="field-reason")
    add("refused: reason missing", "RCL-002", without(recall(), "predicate", "reason"), error="not an in-toto statement")
    for severity in ("low", "medium", "high", "critical"):
        add(f"severity {severity}", "RCL-003", recall(severity=severity), ok={"kind": "recall"})
    for defect, severity in {"unknown": "catastrophic", "in capitals": "High", "a number": 3}.items():
        add(f"refused: severity {defect}", "RCL-003", recall(severity=severity), error="not an in-toto statement")
    for defect, target in {"both": {"release": THE_RELEASE, "lineage": THE_RELEASE}, "neither": {}, "unknown": {"nation": "alba"}, "a text": THE_RELEASE,
                           "digest without prefix": {"release": THE_RELEASE[3:]}}.items():
        add(f"refused: target: {defect}", "RCL-004", recall(subjects=about(THE_RELEASE), target=target), error="not an in-toto statement")

    f = "04/binds"
    base, middle, leaf = ("b3:" + c * 64 for c in "abc")

    def binds(name, nation, target, own, producer, expected, ancestors=None, release=leaf):
        given = {"payload": compact(recall(nation=nation, target=target)), "own": own, "producer": producer, "release": release, "ancestors": ancestors or {}}
        vector(f, name, "recall-binds", "RCL-006", given, {"binds": expected})

    binds("its producer recalls it", "alba", {"release": leaf}, "cora", "alba", True)
    binds("we recall another's for ourselves", "cora", {"release": leaf}, "cora", "alba", True)
    binds("not bound: a third nation recalls it", "borea", {"release": leaf}, "cora", "alba", False)
    binds("not bound: its producer recalls another", "alba", {"release": base}, "cora", "alba", False)
    line = {base: "alba", middle: "borea"}
    binds("the base's producer recalls the lineage", "alba", {"lineage": base}, "cora", "dora", True, line)
    binds("the middle's producer recalls the lineage", "borea", {"lineage": middle}, "cora", "dora", True, line)
    binds("we recall the lineage for ourselves", "cora", {"lineage": base}, "cora", "dora", True, line)
    binds("a lineage recall hits the release named too", "dora", {"lineage": leaf}, "cora", "dora", True, line)
    binds("not bound: the base alone is recalled", "alba", {"release": base}, "cora", "dora", False, line)
    binds("not bound: a third nation recalls the lineage", "zeta", {"lineage": base}, "cora", "dora", False, line)
    binds("not bound: the leaf's producer recalls another's lineage", "dora", {"lineage": base}, "cora", "dora", False, line)
    binds("not bound: the middle's producer recalls the base's lineage", "borea", {"lineage": base}, "cora", "dora", False, line)
    binds("not bound: an ancestor whose producer is unknown", "alba", {"lineage": base}, "cora", "dora", False, {base: None})
    binds("we recall for ourselves, producer unknown", "cora", {"lineage": base}, "cora", "dora", True, {base: None})
    binds("not bound: no ancestor", "alba", {"lineage": base}, "cora", "dora", False, {middle: "borea"})
