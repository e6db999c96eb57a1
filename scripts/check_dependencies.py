"""Checks licences, sources and bans of the dependencies against deny.toml, where cargo-deny is not installed.

It reads the same file with the same meaning, for the platforms named there; it does not know advisories.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict


def section(text, name):
    match = re.search(rf"^\[{name}\]$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    return match.group(1) if match else ""


def array(text, key):
    match = re.search(rf"^{key} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    return match.group(1) if match else ""


def satisfied(expression, allowed):
    """Evaluates an SPDX expression (`/` is the old way to write OR): true when what it demands is allowed."""
    tokens = re.findall(r"\(|\)|[^\s()/]+|/", expression.replace("/", " OR "))

    def alternatives(at):
        value, at = both(at)
        while at < len(tokens) and tokens[at] == "OR":
            right, at = both(at + 1)
            value = value or right
        return value, at

    def both(at):
        value, at = one(at)
        while at < len(tokens) and tokens[at] == "AND":
            right, at = one(at + 1)
            value = value and right
        return value, at

    def one(at):
        if tokens[at] == "(":
            value, at = alternatives(at + 1)
            return value, at + 1
        name, at = tokens[at], at + 1
        if at < len(tokens) and tokens[at] == "WITH":
            name, at = f"{name} WITH {tokens[at + 1]}", at + 2
        return name in allowed, at

    return alternatives(0)[0]


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    with open("deny.toml", encoding="utf-8") as file:
        rules = re.sub(r"^\s*#.*$", "", file.read(), flags=re.MULTILINE)
    allowed = set(re.findall(r'"([^"]+)"', array(section(rules, "licenses"), "allow")))
    excepted = dict(re.findall(r'\[\[licenses\.exceptions\]\]\s*crate = "([^"]+)"\s*allow = \["([^"]+)"\]', rules))
    ban = r'crate = "([^"]+)",(?: wrappers = \["([^"]+)"\],)? reason = "([^"]+)"'
    banned = {crate: (wrapper, why) for crate, wrapper, why in re.findall(ban, array(section(rules, "bans"), "deny"))}
    registries = re.findall(r'"([^"]+)"', array(section(rules, "sources"), "allow-registry"))
    targets = re.findall(r'"([^"]+)"', array(section(rules, "graph"), "targets"))
    if not (allowed and banned and registries and targets):
        sys.exit("deny: deny.toml could not be understood")
    # `cargo metadata` lists crates that no enabled feature links; `cargo tree` knows which ones are.
    linked = set()
    for target in targets:
        tree = ["tree", "--workspace", "--locked", "--target", target, "--edges", "normal,build", "--prefix", "none"]
        linked |= {tuple(line.split()[:2]) for line in cargo(*tree).splitlines() if line}
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--locked"))
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    users = defaultdict(set)
    for node in metadata["resolve"]["nodes"]:
        for dependency in node["deps"]:
            users[names[dependency["pkg"]]].add(names[node["id"]])
    problems, versions = [], defaultdict(set)
    for package in metadata["packages"]:
        if (package["name"], "v" + package["version"]) not in linked or package["source"] is None:
            continue
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].add(package["version"])
        may = allowed | {excepted[package["name"]]} if package["name"] in excepted else allowed
        if not package["license"] or not satisfied(package["license"], may):
            problems.append(f"{name}: licence `{package['license']}` is not allowed")
        if package["source"].removeprefix("registry+") not in registries:
            problems.append(f"{name}: source {package['source']} is not allowed")
        wrapper, why = banned.get(package["name"], (None, None))
        if why and users[package["name"]] != {wrapper}:
            problems.append(f"{name}: banned ({why})")
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            print(f"deny: note: {name} is here {len(found)} times: {', '.join(sorted(found))}")
    for problem in problems:
        print(f"deny: error: {problem}")
    print(f"deny: {len(versions)} crates, {len(problems)} problems (advisories are checked by cargo-deny only)")
    return 1 if problems else 0


sys.exit(main())
