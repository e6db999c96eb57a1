"""Document 09: policies in the Cedar language. cedarpy reads and evaluates them, which is Cedar's own library of an earlier version; what
a policy is told, which rules are refused when it is loaded, in which line, and what an answer means, is written here from the document."""

import json
import pathlib
import re

import cedarpy

from .basic import Refused, given, timestamp

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "registry/src/policy"
SCHEMA = (FOLDER / "steelyard.cedarschema").read_text()
SHIPPED = (FOLDER / "default.cedar").read_text()
MAX_BYTES, MAX_RULES, MAX_SIGNS = 262_144, 256, 2000
ANNOTATIONS = {"id", "passed", "reason", "advice"}
ACTIONS = ("admit", "mirror", "serve", "release")
# What a sentence may speak of.
WORDS = set((
    "producer nation own model version release format licence standing nation-standing root-expires root-ends admitted-before "
    "signers threshold signed-by releasable-to restricted-bases recall recalled-by unsafe-files logged witnesses-required "
    "passes passed-by fails failed-by lease-age"
).split())
SIGN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|[A-Za-z0-9_]+|\s+|.', re.S)


# -------------------------------------------------------------------------------------------------------- the policy file


def rules_of(text):
    """Where each rule begins and ends, and how many words and signs it has, told without understanding it."""
    found, begin, signs = [], None, 0
    for match in SIGN.finditer(text):
        sign = match.group()
        if sign.isspace() or sign.startswith("//"):
            continue
        if begin is None:
            begin, signs = match.start(), 0
        if sign == ";":
            found.append((begin, match.end(), signs))
            begin = None
        else:
            signs += 2 if sign.startswith('"') else sign not in (",", ":")
    return found + ([(begin, len(text), signs)] if begin is not None else [])


def line(text, at):
    return text.count("\n", 0, at) + 1


def refuse(text, at):
    raise Refused(f"line-{line(text, at)}")


def parsed(text):
    return json.loads(cedarpy.policies_to_json_str(text))


def error_of(text):
    """What the parser says of a text; nothing where it reads it."""
    errors = [str(error) for error in cedarpy.validate_policies(text, SCHEMA).errors]
    return next((error for error in errors if "parse error" in error), None)


def where_it_does_not_read(text):
    """The end of the text where more is awaited, else the first line with which it is beyond help."""
    if "end of input" in error_of(text):
        return len(text)
    ends = [match.end() for match in re.finditer("\n|$", text)]
    beyond = (end for end in ends if (error_of(text[:end]) or "end of input").find("end of input") < 0)
    return next(beyond, len(text)) - 1


def sentence_fits(sentence):
    braces = re.sub(r"\{([^{}]*)\}", lambda match: "" if match[1] in WORDS else "{", sentence)
    return len(sentence.encode()) <= 1024 and sentence.isprintable() and not set(braces) & set("{}")


def never_applies(rule):
    literal = {"when": False, "unless": True}
    return any(clause["body"].get("Value") is literal[clause["kind"]] for clause in rule["conditions"])


def read(text, shipped):
    """The rules of one file by their names, after those in `shipped`."""
    if len(text.encode()) > MAX_BYTES:
        refuse(text, 0)
    places = rules_of(text)
    for begin, _, signs in places:
        if signs > MAX_SIGNS:
            refuse(text, begin)
    if error_of(text):
        refuse(text, where_it_does_not_read(text))
    found = parsed(text)
    if found["templates"] or len(found["staticPolicies"]) + len(shipped) > MAX_RULES:
        refuse(text, 0)
    rules = dict(shipped)
    for number, (begin, _, _) in enumerate(places):
        rule = found["staticPolicies"][f"policy{number}"]
        said = {key: value or "" for key, value in rule.get("annotations", {}).items()}
        name, forbids = said.get("id", ""), rule["effect"] == "forbid"
        if not re.fullmatch("[a-z0-9-]{1,64}", name) or set(said) - ANNOTATIONS or not all(map(sentence_fits, said.values())):
            refuse(text, begin)
        if forbids and not (said.get("reason", "").strip() and said.get("advice", "").strip()):
            refuse(text, begin)
        if name in rules:
            refuse(text, text.find(f'"{name}"'))
        rules[name] = rule
    validate(text, places, found)
    return rules


def validate(text, places, found):
    for number, (begin, _, _) in enumerate(places):
        if never_applies(found["staticPolicies"][f"policy{number}"]):
            refuse(text, begin)
    for error in map(str, cedarpy.validate_policies(text, SCHEMA).errors):
        begin, end, _ = places[int(re.search(r"\[policy(\d+)\]", error)[1])]
        clause = re.compile(r"\b(when|unless)\s*\{").search(text, begin, end)
        # What is wrong with the scope is told where the rule begins. cedarpy doesn't tell places: one clause a rule is enough here.
        in_scope = re.search("unrecognized|scope", error) or clause is None
        refuse(text, begin if in_scope else clause.start())


def policy_file(request):
    text = given(request["payload"]).decode()
    return {"rules": len(read(text, {} if request["alone"] else read(SHIPPED, {})))}


# ----------------------------------------------------------------------------------------------------------- the decision


def nation(name):
    return {"__entity": {"type": "Nation", "id": name}}


def release(digest):
    return {"__entity": {"type": "Release", "id": digest}}


def entities(facts):
    it, own = facts.evidence, facts.own
    bases, producers = facts.bases, sorted({base["producer"] for base in facts.bases if base.get("producer")})
    nations = {facts.nation: (facts.asker, 0)}
    nations[facts.producer] = (facts.standing, facts.root_ends)
    uid = lambda kind, name: {"type": kind, "id": name}  # noqa: E731
    told = [
        {"uid": uid("Nation", name), "attrs": {"standing": standing or "unknown", "own": name == own, "rootExpires": ends}, "parents": []}
        for name, (standing, ends) in nations.items()
    ]
    found = facts.attestations
    issued = timestamp(it["issued"]) if "issued" in it else facts.now
    told.append({
        "uid": uid("Release", facts.digest),
        "attrs": {
            "model": it["model"], "version": it.get("version", "1"), "producer": nation(facts.producer), "format": it.get("format", "gguf"),
            "licence": it.get("licence", "Apache-2.0"), "size": it.get("size", 100_000_000), "files": it.get("files", 1), "issued": issued,
            "releasableToAll": facts.to == "all", "releasableTo": [] if facts.to == "all" else [nation(name) for name in facts.to],
            "bases": [release(base["release"]) for base in bases], "baseProducers": [nation(name) for name in producers],
            "basesUnknown": any(not base.get("producer") for base in bases),
        },
        "parents": [uid("Release", base["release"]) for base in bases] + [uid("Nation", name) for name in {facts.producer, *producers}],
        "tags": {
            f"{one['nation']} {one['suite']}": {"verdict": one["verdict"], "issued": at, "age": max(facts.now - at, 0)}
            for one in found for at in [timestamp(one["issued"]) if "issued" in one else facts.now - 86_400]
        },
    })
    return told


def context(facts):
    said = {}
    for one in facts.attestations:
        said.setdefault(one["nation"], set()).add(one["verdict"])
    failed = [name for name, verdicts in said.items() if "fail" in verdicts]
    passed = [name for name, verdicts in said.items() if "pass" in verdicts and name not in failed and name != facts.producer]
    neither = [name for name, verdicts in said.items() if verdicts == {"inconclusive"}]
    witnesses = sorted(set(facts.logged["witnesses"]) - {facts.producer}) if facts.logged else []
    told = {
        "now": facts.now, "signers": facts.signed, "threshold": facts.threshold, "recalled": facts.recalled,
        "recalledBy": [nation(name) for name in sorted({recall["nation"] for recall in facts.recalls})],
        "restrictedBases": [release(base["release"]) for base in facts.restricted_bases],
        "unsafeFiles": [one["path"] if isinstance(one, dict) else one for one in facts.unsafe], "logged": facts.logged is not None,
        "witnesses": len(witnesses), "witnessedBy": [nation(name) for name in witnesses], "witnessesRequired": facts.asked_witnesses,
        "passes": len(passed), "passedBy": [nation(name) for name in passed], "fails": len(failed),
        "failedBy": [nation(name) for name in failed], "inconclusiveBy": [nation(name) for name in neither], "admitted": facts.admitted,
    }
    if facts.logged and facts.logged.get("witnessed"):
        told["witnessedAge"] = max(facts.now - timestamp(facts.logged["witnessed"]), 0)
    if facts.lease_age is not None:
        told["leaseAge"] = facts.lease_age
    return told


def about(rule, action):
    scope = rule["action"]
    if scope["op"] == "All":
        return True
    named = scope.get("entities") or [scope["entity"]]
    return action in [one.get("id", one.get("__entity", {}).get("id")) for one in named]


def refused_by(action, facts, text, alone):
    """The names of the rules of a policy that refuse, without the three refusals that hold whatever it says."""
    rules = read(text, {} if alone else read(SHIPPED, {}))
    whole = text if alone else SHIPPED + "\n" + text
    question = {
        "principal": f'Nation::"{facts.nation}"', "action": f'Action::"{action}"', "resource": f'Release::"{facts.digest}"',
        "context": context(facts),
    }
    answer = cedarpy.is_authorized(question, whole, entities(facts), schema=None)
    names = list(rules)
    name = lambda told: names[int(re.search(r"policy(\d+)", told)[1])]  # noqa: E731
    # A rule that can't be evaluated refuses, whichever it is.
    refused = {name(str(error)) for error in answer.diagnostics.errors if about(rules[name(str(error))], action)}
    if answer.decision != cedarpy.Decision.Allow:
        refused |= {name(reason) for reason in answer.diagnostics.reasons if rules[name(reason)]["effect"] == "forbid"}
        refused = refused or {"permitted"}
    return refused


KINDS = {"policy-file": policy_file}
