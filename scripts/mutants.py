#!/usr/bin/env python3
"""Changes one operator of a source file at a time, and looks whether a test notices.

    scripts/mutants.py registry/src/log/tree.rs -- cargo test -p registry --no-default-features --test log

Each mutant is tried in a copy of the tree under $TMPDIR with a target folder of its own, so the first takes as long as a
build. It is caught when the command fails, does not compile (and so counts for nothing), or does not end in time. What is
missed is printed; the exit code is 1 when anything is. docs/mutants.md has the results and explains survivors.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

OPERATORS = {
    "==": ["!="], "!=": ["=="], "<": ["==", ">", "<="], ">": ["==", "<", ">="], "<=": [">", "<"], ">=": ["<", ">"],
    "&&": ["||"], "||": ["&&"], "+": ["-", "*"], "-": ["+", "/"], "<<": [">>"], ">>": ["<<"], "&": ["|", "^"],
    "+=": ["-="], ">>=": ["<<="],
}
OPERATOR = re.compile(r"(?<=[\w)\]] )(" + "|".join(sorted(map(re.escape, OPERATORS), key=len, reverse=True)) + r")(?= [\w(*&!\[])")
NOT = re.compile(r"(?:if |&& |\|\| |\()(!)(?=[\w(])")
GUARD = re.compile(r"\s*if (?!let)(.+) \{")
# A test that takes longer than this hangs.
TIMEOUT = 300


def mutants(source):
    """(line, what, start, end, replacement) of each mutant, tests and comments left out."""
    at = 0
    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip()
        if text == "#[cfg(test)]":
            return
        if not text.startswith(("//", "#[", "const", "pub const", "impl")):
            for match in OPERATOR.finditer(line):
                if line.count('"', 0, match.start()) % 2 == 0:
                    for other in OPERATORS[match[1]]:
                        yield number, f"{match[1]} -> {other}", at + match.start(1), at + match.end(1), other
            for match in NOT.finditer(line):
                yield number, "! left out", at + match.start(1), at + match.end(1), ""
            match = GUARD.match(line)
            if match and "&& let" not in line:
                yield number, "condition -> false", at + match.start(1), at + match.end(1), "false"
        at += len(line) + 1


def outcome(command, tree):
    build = subprocess.run([*command, "--no-run"], cwd=tree, capture_output=True)
    if build.returncode:
        return "does not compile"
    try:
        return "caught" if subprocess.run(command, cwd=tree, capture_output=True, timeout=TIMEOUT).returncode else "missed"
    except subprocess.TimeoutExpired:
        return "caught"


def main():
    if "--" not in sys.argv:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    files, command = sys.argv[1:split], sys.argv[split + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, "tree")
        shutil.copytree(".", tree, ignore=shutil.ignore_patterns("target", ".git"))
        if outcome(command, tree) != "missed":
            sys.exit("mutants: the command fails without any change")
        counts = {}
        for file in files:
            with open(file) as source:
                original = source.read()
            for line, what, start, end, other in mutants(original):
                with open(os.path.join(tree, file), "w") as changed:
                    changed.write(original[:start] + other + original[end:])
                found = outcome(command, tree)
                counts[found] = counts.get(found, 0) + 1
                if found == "missed":
                    print(f"missed: {file}:{line} {what}", flush=True)
            with open(os.path.join(tree, file), "w") as back:
                back.write(original)
    print(", ".join(f"{count} {found}" for found, count in sorted(counts.items())))
    sys.exit(1 if counts.get("missed") else 0)


main()
