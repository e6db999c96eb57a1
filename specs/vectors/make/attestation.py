"""Document 09: attestations, what they come to, and policies."""

from common import (
    ATTEST,
    BOREA,
    NODE,
    NOW,
    OTHER_RELEASE,
    RECALL,
    RELEASE,
    RELEASE2,
    ROOT,
    THE_RELEASE,
    Key,
    about,
    compact,
    release,
    root,
    signed,
    single_key_root,
    statement,
    vector,
    without,
)

CORA, DORA = Key(18), Key(19)
LATER = "2027-11-23T12:00:00Z"


def attestation(subjects=None, **changes):
    predicate = {
        "nation": "borea",
        "release": THE_RELEASE,
        "suite": {"name": "mmlu", "digest": "b3:" + "d" * 64},
        "results": [{"name": "accuracy", "value": "0.7130"}],
        "verdict": "pass",
        "summary": "as good as they say",
        "issued": NOW,
        "validUntil": LATER,
    }
    predicate.update(changes)
    return statement("attestation", predicate, subjects or about(predicate["release"]))


def structure():
    f = "09/attestation"

    def add(name, requirements, value, ok=None, error=None):
        vector(f, name, "statement", requirements, {"payload": value if isinstance(value, str) else compact(value)}, ok, error)

    fine = {"kind": "attestation", "nation": "borea"}
    add("an attestation", "ATT-001 ATT-002 ATT-004 ATT-005", attestation(), ok=fine)
    for field in ("results", "summary"):
        add(f"without {field}", "ATT-003 ATT-006", without(attestation(), "predicate", field), ok=fine)
    add("a suite without a digest", "ATT-002", attestation(suite={"name": "red-team/2026-11"}), ok=fine)
    add("by the producer itself", "ATT-001", attestation(nation="alba"), ok={"kind": "attestation", "nation": "alba"})
    for verdict in ("pass", "inconclusive", "fail"):
        add(f"verdict {verdict}", "ATT-004", attestation(verdict=verdict), ok=fine)
    for defect, verdict in {"unknown": "excellent", "in capitals": "PASS", "empty": "", "a number": 1, "null": None, "true": True}.items():
        add(f"refused: verdict {defect}", "ATT-004", attestation(verdict=verdict), error="malformed")
    add("refused: verdict missing", "ATT-004", without(attestation(), "predicate", "verdict"), error="malformed")
    add("refused: about another release", "ATT-001", attestation(subjects=about(OTHER_RELEASE)), error="subject")
    add("refused: two subjects", "ATT-001", attestation(subjects=about(THE_RELEASE) + about(OTHER_RELEASE)), error="subject")
    add("refused: no subject", "ATT-001", {**attestation(), "subject": []}, error="subject")
    add("refused: a release without a prefix", "ATT-001", attestation(subjects=about(THE_RELEASE), release="c" * 64), error="malformed")
    add("refused: a nation that is no name", "ATT-001", attestation(nation="Borea"), error="malformed")
    for defect, name in {"empty": "", "white space": " \t", "257 bytes": "a" * 257, "a line feed": "a\nb", "escape": "a\u001b[2J", "C1 control": "a\u009bb"}.items():
        add(f"refused: suite's name {defect}", "ATT-002", attestation(suite={"name": name}), error="field-suite")
        add(f"refused: result's name {defect}", "ATT-002", attestation(results=[{"name": name, "value": "1"}]), error="field-results")
        add(f"refused: result's value {defect}", "ATT-002", attestation(results=[{"name": "accuracy", "value": name}]), error="field-results")
    add("a suite's name of 256 bytes", "ATT-002", attestation(suite={"name": "ä" * 128}), ok=fine)
    add("refused: suite missing", "ATT-002", without(attestation(), "predicate", "suite"), error="malformed")
    add("refused: a result's value as a number", "ATT-002", attestation(results=[{"name": "accuracy", "value": 0.713}]), error="malformed")
    results = [{"name": f"task {n}", "value": str(n)} for n in range(1025)]
    add("1024 results", "ATT-003", attestation(results=results[:1024]), ok=fine)
    add("refused: 1025 results", "ATT-003", attestation(results=results), error="field-results")
    add("refused: ends before it begins", "ATT-005", attestation(validUntil="2026-11-23T11:59:59Z"), error="field-validUntil")
    add("refused: ends when it begins", "ATT-005", attestation(validUntil=NOW), error="field-validUntil")
    add("refused: without an end", "ATT-005", without(attestation(), "predicate", "validUntil"), error="malformed")
    add("4096 bytes of summary", "ATT-006", attestation(summary="a" * 4096), ok=fine)
    add("refused: 4097 bytes of summary", "ATT-006", attestation(summary="a" * 4097), error="field-summary")
    add("refused: summary with escape", "ATT-006", attestation(summary="\u001b]0;owned\u0007"), error="field-summary")
    add("refused: an unknown critical field", "STM-003", attestation(critical=["embargo"]), error="critical")


ALBA = signed(compact(root()), ROOT)
NATIONS = {"borea": BOREA, "cora": CORA, "dora": DORA}
ROOTS = [ALBA] + [signed(compact(single_key_root(name, key)), key) for name, key in NATIONS.items()]


def by(nation, suite="mmlu", verdict="pass", issued=NOW, until=LATER, release=THE_RELEASE, key=None):
    key = key or NATIONS.get(nation, ATTEST)
    value = attestation(nation=nation, suite={"name": suite}, verdict=verdict, issued=issued, validUntil=until, release=release)
    return signed(compact(value), key)


def counting():
    f = "09/attest-role"

    def believe(name, value, *keys, ok=None, error=None):
        vector(f, name, "trust", "ATT-007 TRU-002", {"roots": ROOTS, "signed": signed(compact(value), *keys), "now": NOW}, ok, error)

    own = attestation(nation="alba")
    believe("signed by the attest role", own, ATTEST, ok={"kind": "attestation", "nation": "alba"})
    for who, key in {"release": RELEASE, "root": ROOT, "recall": RECALL, "node": NODE}.items():
        believe(f"refused: signed by the {who} role", own, key, error="0 of the 1 signatures")
    believe("refused: signed by another nation", own, BOREA, error="0 of the 1 signatures")

    f = "09/tally"
    before, after = "2026-11-22T12:00:00Z", "2026-11-24T12:00:00Z"
    then = "2026-12-01T00:00:00Z"

    def tally(name, requirements, statements, passed=(), failed=(), inconclusive=(), now=then, roots=ROOTS):
        given = {"roots": roots, "statements": statements, "release": THE_RELEASE, "producer": "alba", "now": now}
        vector(f, name, "attestations", requirements, given, {"passedBy": list(passed), "failedBy": list(failed), "inconclusiveBy": list(inconclusive)})

    tally("nobody", "ATT-010", [])
    tally("two nations vouch", "ATT-010", [by("borea"), by("cora")], ["borea", "cora"])
    tally("one nation with three suites counts once", "ATT-010", [by("borea"), by("borea", "gsm8k"), by("borea", "red-team")], ["borea"])
    tally("the same statement twice counts once", "ATT-010", [by("borea"), by("borea")], ["borea"])
    tally("refused: the producer does not vouch for itself", "ATT-010", [by("alba"), by("borea")], ["borea"])
    tally("a producer that warns of its own release", "ATT-011", [by("alba", verdict="fail")], failed=["alba"])
    tally("refused: passes don't outweigh a fail", "ATT-011", [by("borea"), by("borea", "gsm8k"), by("borea", "red-team", "fail")], failed=["borea"])
    tally("one vouches, one advises against it", "ATT-010 ATT-011", [by("borea"), by("cora", verdict="fail")], ["borea"], ["cora"])
    tally("inconclusive is neither", "ATT-010 ATT-011", [by("borea", verdict="inconclusive")], inconclusive=["borea"])
    tally("a pass beside something inconclusive", "ATT-010", [by("borea", verdict="inconclusive"), by("borea", "gsm8k")], ["borea"])
    tally("refused: a pass that was replaced by a fail", "ATT-008", [by("borea", issued=before), by("borea", verdict="fail")], failed=["borea"])
    tally("refused: a replaced pass that arrives late", "ATT-008", [by("borea", verdict="fail"), by("borea", issued=before)], failed=["borea"])
    tally("a fail that was replaced by a pass", "ATT-008", [by("borea", verdict="fail", issued=before), by("borea")], ["borea"])
    tally("refused: a pass and a fail of the same second", "ATT-008", [by("borea", verdict="fail"), by("borea")], failed=["borea"])
    tally("refused: the same second, arrived the other way round", "ATT-008", [by("borea"), by("borea", verdict="fail")], failed=["borea"])
    tally("refused: the same second, a pass and something inconclusive", "ATT-008", [by("borea"), by("borea", verdict="inconclusive")], inconclusive=["borea"])
    tally("refused: the same second and verdict, one has ended", "ATT-008 ATT-009", [by("borea"), by("borea", until=after)])
    tally("another suite replaces nothing", "ATT-008", [by("borea", "gsm8k", issued=before), by("borea", "mmlu", "inconclusive")], ["borea"])
    tally("suites are told apart by their whole name", "ATT-008", [by("borea", "red-team/1"), by("borea", "red-team/2", "inconclusive")], ["borea"])
    tally("another nation replaces nothing", "ATT-008", [by("borea", issued=before), by("cora", verdict="fail")], ["borea"], ["cora"])
    tally("its last second", "ATT-009", [by("borea", until=then)], ["borea"], now="2026-11-30T23:59:59Z")
    tally("refused: it has ended", "ATT-009", [by("borea", until=then)])
    tally("refused: what was replaced does not come back", "ATT-009", [by("borea", issued=before), by("borea", until=after)])
    tally("refused: a fail that has ended counts no more either", "ATT-009 ATT-011", [by("borea", verdict="fail", until=after), by("borea", "gsm8k")], ["borea"])
    tally("refused: about another release", "ATT-012", [by("borea", release=OTHER_RELEASE)])
    tally("refused: about its base", "ATT-012", [by("borea", release="b3:" + "a" * 64), by("cora")], ["cora"])
    tally("refused: of a nation that is not pinned", "ATT-013", [by("borea"), by("cora")], ["cora"], roots=[ROOTS[0], ROOTS[2]])
    tally("refused: signed by another nation", "ATT-013 ATT-007", [by("borea", key=CORA), by("cora")], ["cora"])
    tally("refused: signed by the release role", "ATT-013 ATT-007", [by("alba", verdict="fail", key=RELEASE)])
    tally("refused: from the future", "ATT-013 TRU-004", [by("borea", issued="2026-12-01T00:10:01Z")])
    tally("refused: under a root that has ended", "ATT-013 TRU-003", [by("borea", until="2030-01-01T00:00:00Z")], now="2028-11-01T00:00:00Z")

    f = "09/feed"
    open_release = compact(release(releasableTo="all"))
    known = [signed(compact(release()), RELEASE), signed(open_release, RELEASE)]
    from common import digest

    told = {name: digest(compact(attestation(nation="alba", release=about_it, suite={"name": name}))) for name, about_it in {"restricted": THE_RELEASE, "open": digest(open_release), "unknown": "b3:" + "9" * 64}.items()}
    statements = [known[0]] + [
        signed(compact(attestation(nation="alba", release=about_it, suite={"name": name})), ATTEST)
        for name, about_it in {"restricted": THE_RELEASE, "unknown": "b3:" + "9" * 64}.items()
    ]

    def feed(name, nation, expected):
        given = {"roots": ROOTS, "now": NOW, "statements": statements, "nation": nation, "after": 0, "limit": 10}
        vector(f, name, "feed", "ATT-014", given, {"digests": expected, "next": 3})

    feed("told to whom the release is told", "borea", [THE_RELEASE, told["restricted"]])
    feed("refused: not told to others", "dora", [])
    feed("its own nation's attestations are told to it", "alba", [THE_RELEASE, told["restricted"], told["unknown"]])


GOOD = {"own": "cora", "nation": "cora", "now": NOW, "model": "alba/smollm2", "rootExpires": LATER, "release": THE_RELEASE}
OWN_RULE = '@id("{id}")\n@reason("seen")\n@advice("do")\nforbid (principal, action, resource)\nwhen {{ {when} }};\n'
LAX = '@id("all")\npermit (principal, action, resource);\n'
ACTIONS = ("admit", "mirror", "serve", "release")


def deciding():
    f = "09/decision"

    def decide(name, requirements, refused, policy=None, alone=False, actions=("admit",), **changes):
        for action in actions:
            rules = refused.get(action, []) if isinstance(refused, dict) else refused
            given = {"action": action, "evidence": {**GOOD, **changes}}
            if policy:
                given |= {"policy": policy, "alone": alone}
            named = name if len(actions) == 1 else f"{name}: {action}"
            vector(f, named, "decision", requirements, given, {"allowed": not rules, "refusedBy": sorted(rules)})

    borea_only = ["borea"]
    decide("nothing speaks against it", "POL-004 POL-010 POL-011 POL-012", [], actions=ACTIONS)
    decide("refused: not releasable to us", "POL-001", ["releasable-to-us"], actions=ACTIONS, releasableTo=borea_only)
    decide("refused: not releasable, whatever the policy", "POL-001", ["releasable-to-us"], LAX, True, actions=ACTIONS, releasableTo=borea_only)
    decide("releasable to its producer though nobody is named", "POL-001", [], actions=("release",), nation="alba", releasableTo=[])
    decide("refused: releasable to the beginning of a name", "POL-001", ["releasable-to-us"], actions=("release",), nation="boreas", releasableTo=borea_only)
    bound = [{"nation": "alba", "binds": True, "reason": "leaks"}]
    loose = [{"nation": "borea", "binds": False, "reason": "against our law"}]
    decide("refused: recalled", "POL-002", ["not-recalled"], actions=ACTIONS, recalls=bound)
    decide("refused: recalled, whatever the policy", "POL-002", ["not-recalled"], LAX, True, actions=ACTIONS, recalls=bound)
    decide("a recall that does not bind", "POL-002 POL-008", [], recalls=loose)
    obey = OWN_RULE.format(id="obey-borea", when='context.recalledBy.contains(Nation::"borea")')
    decide("refused: an ally's recall that a rule obeys", "POL-008", ["obey-borea"], obey, recalls=loose)
    decide("a third nation's recall that no rule obeys", "POL-008", [], obey, recalls=[{"nation": "dora", "binds": False}])
    several = [{"nation": "dora", "binds": False}, {"nation": "borea", "binds": False}]
    decide("refused: an ally's recall behind another's", "POL-008", ["obey-borea"], obey, recalls=several)
    decide("refused: a recall that a rule obeys, and one that binds", "POL-002 POL-008", ["not-recalled", "obey-borea"], obey, recalls=[*bound, *loose])
    few = {"admit": ["signatures"], "mirror": ["signatures"], "serve": ["signatures"]}
    decide("refused: too few signatures", "POL-003", few, actions=ACTIONS, signedBy=["a"], threshold=2)
    decide("refused: too few signatures, whatever the policy", "POL-003", few, LAX, True, actions=ACTIONS, signedBy=[], threshold=1)
    decide("two of two signatures", "POL-003", [], signedBy=["a", "b"], threshold=2)
    only = '@id("ours")\npermit (principal, action == Action::"admit", resource in Nation::"alba");\n'
    decide("what a rule permits", "POL-004", [], only, True)
    decide("refused: what no rule permits", "POL-004", ["permitted"], only, True, model="borea/m")
    decide("refused: an action that no rule permits", "POL-004", ["permitted"], only, True, actions=("serve",))
    never = '@id("never")\n@reason("r")\n@advice("a")\nforbid (principal, action, resource);\n'
    decide("refused: one forbids, two permit", "POL-004", ["never"], LAX + never)
    overflow = OWN_RULE.format(id="sum", when="resource.size + 9223372036854775807 < 0")
    decide("refused: a rule that overflows", "POL-005", ["sum"], overflow)
    permit_overflow = LAX + '@id("sum")\npermit (principal, action, resource)\nwhen { resource.size + 9223372036854775807 < 0 };\n'
    decide("refused: a permit that overflows", "POL-005", ["sum"], permit_overflow, True)

    def logged(*witnesses):
        return {"index": 7, "size": 9, "witnesses": list(witnesses), "witnessed": NOW}

    unlogged = {action: ["logged"] for action in ACTIONS[:3]}
    decide("refused: not logged", "POL-006", unlogged, actions=ACTIONS, witnessesRequired=1)
    decide("refused: logged but not witnessed", "POL-006", ["logged"], witnessesRequired=1, logged=logged())
    decide("refused: witnessed by its producer alone", "POL-006", ["logged"], witnessesRequired=1, logged=logged("alba"))
    decide("refused: its producer is no second witness", "POL-006", ["logged"], witnessesRequired=2, logged=logged("alba", "borea"))
    decide("refused: witnessed by one where two are asked for", "POL-006", ["logged"], witnessesRequired=2, logged=logged("borea"))
    decide("witnessed by one other", "POL-006", [], witnessesRequired=1, logged=logged("borea"))
    decide("witnessed by ourselves and one other", "POL-006", [], witnessesRequired=2, logged=logged("borea", "cora"))
    decide("our own needs no witness", "POL-006", [], witnessesRequired=2, own="alba", nation="alba")
    decide("no log is asked for", "POL-006", [], witnessesRequired=0)

    def base(producer, to, release="b3:" + "a" * 64):
        return {"release": release, "producer": producer, "releasableTo": to}

    kept = {action: ["bases-releasable"] for action in ("admit", "mirror", "release")}
    decide("refused: of a base that is kept from us", "POL-007", kept, actions=ACTIONS, bases=[base("borea", ["alba"])])
    decide("refused: of two bases, one kept from us", "POL-007", ["bases-releasable"], bases=[base("dora", "all"), base("borea", [], "b3:" + "b" * 64)])
    decide("of a base that is for everybody", "POL-007", [], bases=[base("borea", "all")])
    decide("of a base that names us", "POL-007", [], bases=[base("borea", ["cora"])])
    decide("of a base that we made", "POL-007", [], bases=[base("cora", [])])
    decide("of a base that its own producer made", "POL-007", [], bases=[base("alba", [])])
    decide("of a base that is not known", "POL-007", [], bases=[{"release": "b3:" + "a" * 64}])
    decide("refused: passed on to a nation that the base does not name", "POL-007", ["bases-releasable"], actions=("release",), nation="dora", bases=[base("borea", ["cora"])])
    lineage = '@id("no-dora")\n@reason("r")\n@advice("a")\nforbid (principal, action, resource in Nation::"dora");\n'
    decide("refused: made by a nation that a rule shuns", "POL-009", ["no-dora"], lineage, model="dora/m")
    decide("refused: made of what that nation made", "POL-009", ["no-dora"], lineage, bases=[base("dora", "all")])
    decide("made by others", "POL-009", [], lineage, bases=[base("borea", "all")])
    by_base = OWN_RULE.format(id="no-base", when='resource in Release::"b3:' + "a" * 64 + '"')
    decide("refused: made of a release that a rule shuns", "POL-009", ["no-base"], by_base, bases=[base("borea", "all")])
    inactive = {action: ["active-nation"] for action in ("admit", "mirror")}
    for standing in ("invited", "suspended", "departed"):
        decide(f"refused: its producer is {standing}", "POL-010", inactive, actions=ACTIONS, standing=standing)
    for standing in ("suspended", "departed"):
        decide(f"admitted before its producer was {standing}", "POL-010", [], actions=ACTIONS, standing=standing, admitted=True)
    decide("refused: admitted, and its producer is only invited", "POL-010", inactive, actions=ACTIONS, standing="invited", admitted=True)
    decide("refused: admitted, and its producer's root has ended", "POL-010", inactive, actions=ACTIONS, rootExpires=NOW, admitted=True)
    decide("refused: its producer is not pinned", "POL-010", inactive, actions=ACTIONS, standing=None)
    decide("refused: its producer's root has ended", "POL-010", inactive, actions=ACTIONS, rootExpires=NOW)
    for standing in ("invited", "suspended", "departed"):
        decide(f"refused: to a nation that is {standing}", "POL-011", ["active-ally"], actions=("release",), nation="dora", nationStanding=standing)
    unsafe = {action: ["safe-formats"] for action in ACTIONS[:3]}
    decide("refused: a file that runs code", "POL-012", unsafe, actions=ACTIONS, unsafeFiles=[{"path": "m.bin", "why": "a pickle"}])
    decide("refused: for three reasons at once", "POL-001 POL-002 POL-012", ["not-recalled", "releasable-to-us", "safe-formats"], releasableTo=[], recalls=bound, unsafeFiles=[{"path": "m.bin", "why": "a pickle"}])
    two = OWN_RULE.format(id="two-vouch", when="context.passes < 2 || context.fails > 0")

    def found(nation, verdict="pass", suite="mmlu"):
        return {"nation": nation, "suite": suite, "verdict": verdict}

    decide("two nations vouch, as a rule asks", "ATT-010", [], two, attestations=[found("borea"), found("dora")])
    decide("refused: one nation vouches twice", "ATT-010", ["two-vouch"], two, attestations=[found("borea"), found("borea", suite="gsm8k")])
    decide("refused: one of the two is the producer", "ATT-010", ["two-vouch"], two, attestations=[found("borea"), found("alba")])
    decide("refused: a third advises against it", "ATT-011", ["two-vouch"], two, attestations=[found("borea"), found("dora"), found("fara", "fail")])


def files():
    f = "09/policy-file"

    def read(name, requirements, text, ok=None, error=None, alone=True):
        vector(f, name, "policy-file", requirements, {"payload": text, "alone": alone}, ok, error)

    mine = '// a rule of our own\n@id("mine")\n@reason("{producer} made it")\n@advice("ask {nation}")\n'
    body = "forbid (principal, action, resource)"
    read("one rule", "POL-013", mine + body + ";", ok={"rules": 1})
    read("beside the shipped ones", "POL-013", mine + body + ";", ok={"rules": 10}, alone=False)
    read("no rules", "POL-013", "// nothing\n", ok={"rules": 0})
    refused = {
        "an attribute that is not there": (mine + body + "\nwhen { resource.colour == \"red\" };", "line-6"),
        "a misspelt attribute": (mine + body + "\nwhen { context.witneses < 1 };", "line-6"),
        "a number compared with a text": (mine + body + '\nwhen { resource.size < "1" };', "line-6"),
        "what may be missing, without asking": (mine + body + "\nwhen { context.leaseAge > 1 };", "line-6"),
        "an attestation that may be missing": (mine + body + '\nwhen { resource.getTag("borea mmlu").age > 1 };', "line-6"),
        "an action that is not there": (mine + 'forbid (principal, action == Action::"fly", resource);', "line-2"),
        "an entity type that is not there": (mine + 'forbid (principal == User::"ada", action, resource);', "line-2"),
        "a rule that can never apply": (mine + body + "\nwhen { false };", "line-2"),
        "a template": (mine + "forbid (principal == ?principal, action, resource);", "line-1"),
        "no name": ('@reason("r") @advice("a")\n' + body + ";", "line-1"),
        "a name with blanks": ('\n@id("my rule") @reason("r") @advice("a")\n' + body + ";", "line-2"),
        "a name of 65 bytes": (f'@id("{"a" * 65}") @reason("r") @advice("a")\n' + body + ";", "line-1"),
        "a name twice": (mine + body + ";\n" + mine + body + ";", "line-2"),
        "no reason": ('@id("x") @advice("a")\n' + body + ";", "line-1"),
        "no advice": ('@id("x") @reason("r")\n' + body + ";", "line-1"),
        "an unknown annotation": (mine + '@colour("red")\n' + body + ";", "line-2"),
        "an unknown word in braces": ('@id("x") @reason("{king}") @advice("a")\n' + body + ";", "line-1"),
        "a brace that does not close": ('@id("x") @reason("{producer") @advice("a")\n' + body + ";", "line-1"),
        "cut short": (mine + body + "\nwhen { context.recalled", "line-6"),
        "no semicolon": (mine + body, "line-5"),
        "something else": ("allow all", "line-1"),
    }
    for defect, (text, error) in refused.items():
        read(f"refused: {defect}", "POL-013", text, error=error)
    read("refused: the name of a shipped rule", "POL-013", mine.replace("mine", "logged") + body + ";", error="line-2", alone=False)
    permit = '@id("r%d") permit (principal, action, resource);\n'
    read("256 rules", "POL-014", "".join(permit % n for n in range(256)), ok={"rules": 256})
    read("refused: 257 rules", "POL-014", "".join(permit % n for n in range(257)), error="line-1")
    comment = "//"
    rest = 262_144 - len(permit % 0) - len(comment) - 1
    read("262,144 bytes", "POL-014", f"{comment}@fill(61,{rest})\n" + permit % 0, ok={"rules": 1})
    read("refused: 262,145 bytes", "POL-014", f"{comment}@fill(61,{rest + 1})\n" + permit % 0, error="line-1")
    # Cedar's own limits are not met by a list, which does not nest.
    names = ", ".join(f'Nation::"n{n}"' for n in range(600))
    read("a list of 600 nations", "POL-014", mine + body + f"\nwhen {{ [{names}].contains(principal) }};", ok={"rules": 1})
    read("refused: nested 1,000 deep", "POL-014", mine + body + "\nwhen { " + "(" * 1000 + "true" + ")" * 1000 + " };", error="line-2")
    read("refused: a sum of 1,000", "POL-014", mine + body + "\nwhen { " + "1 + " * 1000 + "1 > 0 };", error="line-2")


def all_of_it():
    structure()
    counting()
    deciding()
    files()
