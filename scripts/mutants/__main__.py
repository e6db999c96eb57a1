#!/usr/bin/env python3
"""Puts all mutants of source files into one program, and looks which of them no test notices.

    python3 scripts/mutants registry/src/envelope.rs registry/src/trust -- --release --workspace --lib --test trust --test specs

FILE… are Rust files, folders of them, and Cedar policies; behind `--` stands what `cargo test` is told. cargo-mutants says
what is changed (`cargo install cargo-mutants --version 27.1.0 --locked`; or a list that it wrote before, by --list), and the
changes are made here: in a copy of the tree each changed place becomes `if is(7) { changed } else { as it was }`, so that one
build has all mutants and the number in $MUTANT chooses the one that lives. Each costs the time of the tests that reach it,
which are found first, the fastest first, and no more than one must notice.

The copy is --tree (kept, so that a second run builds little; its target folder may be given the dependencies beforehand).
What does not compile is left out and told. docs/mutants.md has the results and explains survivors. The exit code is 1 when
any survived. $MUTANTS_CARGO is run instead of cargo where it is set. Needs the Python packages `tree-sitter` and
`tree-sitter-rust`.
"""
import argparse
import concurrent.futures
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time

from schema import MODULE, Mutant, Source, cedar, offset

# A test that takes so many times as long as without a mutant, and at least so many seconds, hangs.
SLOWER, LEAST = 10, 20
# A mutant that takes memory without end is stopped before the machine is.
MEMORY = 12 << 30
# The test that noticed the last mutant of a file, and of a function in it.
NOTICED = {}
CARGO = os.environ.get("MUTANTS_CARGO", "cargo").split()


def files_of(paths):
    found = []
    for path in paths:
        if os.path.isdir(path):
            inside = [os.path.join(at, name) for at, _, names in os.walk(path) for name in names]
            found += sorted(name for name in inside if name.endswith((".rs", ".cedar")))
        else:
            found.append(path)
    return list(dict.fromkeys(file for file in found if not file.endswith("/tests.rs")))


def official(args, files):
    """The mutants that cargo-mutants names."""
    if args.list:
        with open(args.list) as file:
            listed = json.load(file)
    else:
        only = [word for file in files for word in ("-f", file)]
        command = ["cargo", "mutants", "--list", "--json", *only]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [one for one in listed if one["file"] in files]


def crate(file):
    return file.split("/src/")[0]


def write_tree(args, sources, mutants, texts):
    """Writes every changed file; those of an earlier run are as they were."""
    for source in sources.values():
        own = [mutant for mutant in mutants if mutant.file == source.file and mutant.outcome != "unviable"]
        text = source.write(own)
        replace(os.path.join(args.tree, source.file), text)
    for package in {crate(file) for file in [*sources, *texts]}:
        rust = MODULE + "const TEXTS: &[(&str, u32)] = &[" + ", ".join(f'("{file}", {first})' for file, first in texts.items()) + "];\n"
        replace(os.path.join(args.tree, package, "src/mutants_.rs"), rust.encode())


def replace(path, text):
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read() == text:
                return
        os.remove(path)
    with open(path, "wb") as file:
        file.write(text)


def build(args, cargo_args, mutants):
    """Builds the tests; what does not compile is left out, again and again. The test programs."""
    while True:
        command = [*CARGO, "test", *cargo_args, "--no-run", "--message-format=json"]
        env = dict(os.environ, RUST_TEST_THREADS="1")
        ran = subprocess.run(command, cwd=args.tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        messages = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        if ran.returncode == 0:
            programs = [one for one in messages if one.get("executable") and one["profile"]["test"]]
            return [(one["target"]["name"], one["executable"], os.path.dirname(one["manifest_path"])) for one in programs]
        errors = [one["message"] for one in messages if one["reason"] == "compiler-message" and one["message"]["level"] == "error"]
        left_out = blame(errors, mutants)
        if left_out:
            print(f"{len(left_out)} do not compile", flush=True)
        else:
            for error in errors[:5]:
                print(error["rendered"])
            left_out = nearby(errors, mutants)
            print(f"{len(left_out)} are left out, of which one or another is to blame for this", flush=True)
        for mutant in left_out:
            mutant.outcome = "unviable"
        write_report(args, mutants)
        if not left_out:
            sys.exit("mutants: the program does not compile, and no mutant is to blame")
        write_tree(args, args.sources, mutants, args.texts)


def blame(errors, mutants):
    """The mutants in whose bytes the errors lie."""
    found = set()
    for error in errors:
        spans = list(error["spans"])
        for child in error["children"]:
            spans += child["spans"]
        for primary in (True, False):
            hit = set()
            for span in spans:
                expanded = span
                while expanded.get("expansion"):
                    expanded = expanded["expansion"]["span"]
                for mutant in mutants:
                    if mutant.outcome != "unviable" and mutant.file == expanded["file_name"] and span["is_primary"] == primary:
                        if any(start <= expanded["byte_start"] < end for start, end in mutant.ranges):
                            hit.add(mutant)
            if hit:
                break
        found |= hit
    return found


def nearby(errors, mutants):
    """All mutants of the functions that do not compile for a reason that lies in no mutant's own bytes."""
    found = set()
    for error in errors:
        for span in error["spans"]:
            of = [one for one in mutants if one.outcome != "unviable" and one.file == span["file_name"] and one.ranges]
            if of and span["is_primary"]:
                nearest = min(of, key=lambda one: min(abs(start - span["byte_start"]) for start, _ in one.ranges))
                found |= {one for one in of if one.function == nearest.function}
    return found


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(5)


def run(program, tests, mutant, args, timeout, trace=None, text=None):
    """Whether these tests of a program pass."""
    _, path, folder = program
    env = dict(os.environ, MUTANT=str(mutant), RUST_BACKTRACE="0", CARGO_MANIFEST_DIR=folder)
    if trace:
        env["MUTANT_TRACE"] = trace
    if text:
        env["MUTANT_PATH"], env["MUTANT_TEXT"] = text
    command = [path, "--exact", "--test-threads", str(args.threads), *tests]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=limits, start_new_session=True, text=True)
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "timeout", ""
    failed = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. FAILED", out, re.M)
    return ("passed" if process.returncode == 0 else "failed"), (failed or [""])[0]


def look(args, program, name):
    """A test without any mutant: how long it takes, and what it reaches."""
    trace = os.path.join(args.tree, f"trace-{program[0]}-{name.replace('::', '-')}")
    if os.path.exists(trace):
        os.remove(trace)
    begun = time.monotonic()
    outcome, _ = run(program, [name], 0, args, 600, trace=trace)
    took = time.monotonic() - begun
    if outcome != "passed":
        sys.exit(f"mutants: {program[0]} {name} fails without any mutant")
    reached = set()
    if os.path.exists(trace):
        with open(trace) as file:
            reached = {int(line) for line in file}
        os.remove(trace)
    return took, program, name, reached


def survey(args, programs):
    """Each test: its program, its name, how long it takes, which mutants it reaches."""
    tests = []
    # A program that was not built anew reaches what it reached before.
    notes = os.path.join(args.tree, "survey.json")
    known = {}
    if os.path.exists(notes):
        with open(notes) as file:
            known = json.load(file)
    for program in programs:
        _, path, folder = program
        stamp = f"{path} {os.stat(path).st_mtime_ns}"
        if stamp in known:
            tests += [(took, program, name, set(reached)) for took, name, reached in known[stamp]]
            continue
        listed = subprocess.run([path, "--list", "--format", "terse"], cwd=folder, capture_output=True, text=True).stdout
        names = [name for name in re.findall(r"^(\S+): test$", listed, re.M) if not (args.skip and re.search(args.skip, name))]
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            mine = list(pool.map(lambda name: look(args, program, name), names))
        tests += mine
        known[stamp] = [(took, name, sorted(reached)) for took, _, name, reached in mine]
        with open(notes, "w") as file:
            json.dump(known, file)
    tests.sort(key=lambda test: test[0])
    return tests


def judge(mutant, args, tests, first_text):
    """Runs the tests that reach a mutant, few at first, until one notices."""
    reached = mutant.number if mutant.genre != "Cedar" else first_text[mutant.file]
    mine = [test for test in tests if reached in test[3]]
    if not mine:
        mutant.outcome = "unreached"
        return mutant
    text = None
    if mutant.genre == "Cedar":
        with open(mutant.file) as file:
            was = file.read()
        path = os.path.join(args.tree, f"mutant-{mutant.number}.cedar")
        with open(path, "w") as file:
            file.write(was[: mutant.start] + mutant.replacement + was[mutant.end :])
        text = (mutant.file, path)
    # What noticed another mutant of the same function, then of the same file, comes first.
    near = [NOTICED.get((mutant.file, mutant.function)), NOTICED.get((mutant.file, None))]
    mine.sort(key=lambda test: next((at for at, by in enumerate(near) if by == (test[1][0], test[2])), len(near)))
    size, at = 1, 0
    while at < len(mine):
        batch = mine[at : at + size]
        at, size = at + size, size * 2
        for program in {test[1] for test in batch}:
            own = [test for test in batch if test[1] == program]
            timeout = max(LEAST, SLOWER * sum(test[0] for test in own))
            outcome, by = run(program, [test[2] for test in own], mutant.number, args, timeout, text=text)
            if outcome != "passed":
                mutant.outcome, mutant.by = ("timeout" if outcome == "timeout" else "caught"), f"{program[0]} {by}".strip()
                NOTICED[mutant.file, mutant.function] = NOTICED[mutant.file, None] = (program[0], by)
                return mutant
    mutant.outcome, mutant.by = "survived", f"{len(mine)} tests reach it"
    return mutant


def prepare(args):
    """The mutants, numbered, and the sources that they are in."""
    files = files_of(args.files)
    mutants, sources, texts = [], {}, {}
    for one in official(args, [file for file in files if file.endswith(".rs")]):
        file = one["file"]
        if file not in sources:
            with open(file, "rb") as opened:
                sources[file] = Source(file, opened.read())
        source = sources[file]
        start, end = (offset(source.text, source.lines, one["span"][side]) for side in ("start", "end"))
        mutants.append(Mutant(len(mutants) + 1, file, one["name"], one["genre"], start, end, one["replacement"]))
        mutants[-1].function = (one["function"] or {}).get("function_name")
    for file in files:
        if file.endswith(".cedar"):
            with open(file) as opened:
                found = cedar(file, opened.read(), len(mutants) + 1)
            including(file, sources)
            texts[file] = len(mutants) + 1
            mutants += found
    for mutant in mutants:
        if mutant.genre != "Cedar" and not sources[mutant.file].places(mutant):
            mutant.outcome = "unviable"
    return mutants, sources, texts


def including(file, sources):
    """Finds the source that includes a text."""
    folder, name = os.path.split(file)
    for other in sorted(os.listdir(folder)):
        path = os.path.join(folder, other)
        if other.endswith(".rs"):
            with open(path, "rb") as opened:
                text = opened.read()
            match = re.search(rf'const (\w+): &str = include_str!\("{re.escape(name)}"\);', text.decode())
            if match:
                sources.setdefault(path, Source(path, text)).texts.append((file, match[1]))


def copy_tree(args):
    """Every tracked file as it is here, where it differs, so that little is built again."""
    tracked = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    roots = {f"{crate(file)}/src/lib.rs" for file in args.sources}
    for file in filter(None, tracked):
        if os.path.isfile(file) and not any(re.search(left, file) for left in args.leave):
            target = os.path.join(args.tree, file)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if file in args.sources:
                continue
            with open(file, "rb") as opened:
                text = opened.read()
            if file in roots:
                text += b"\n/// Mutants.\npub mod mutants_;\n"
            replace(target, text)
            shutil.copymode(file, target)


def main():
    if "--" not in sys.argv:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--list", help="a list that cargo-mutants wrote with --list --json")
    parser.add_argument("--tree", default=os.path.join(os.environ.get("TMPDIR", "/tmp"), "mutants"), help="where the copy is")
    parser.add_argument("--leave", action="append", default=[], help="tracked files (a pattern) that are not copied")
    parser.add_argument("--skip", help="tests (a pattern of names) that are not run")
    parser.add_argument("--only", help="mutants (a pattern of names) that are tried")
    parser.add_argument("--again", help="a report of an earlier run: what it says was noticed, or does not compile, is not tried again")
    parser.add_argument("--build", action="store_true", help="build alone; with --report and --again the tests run later")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time")
    parser.add_argument("--threads", type=int, default=2, help="threads of each test program")
    parser.add_argument("--report", help="where the outcome of each is written, as JSON")
    args = parser.parse_args(sys.argv[1:split])
    mutants, args.sources, args.texts = prepare(args)
    if args.again:
        with open(args.again) as file:
            before = {one["name"]: one for one in json.load(file)}
        for mutant in mutants:
            known = before.get(mutant.name, {})
            if mutant.outcome is None and known.get("outcome") in ("caught", "timeout", "unviable"):
                mutant.outcome, mutant.by = known["outcome"], known["by"]
    os.makedirs(args.tree, exist_ok=True)
    copy_tree(args)
    write_tree(args, args.sources, mutants, args.texts)
    programs = build(args, sys.argv[split + 1 :], mutants)
    write_report(args, mutants)
    if args.build:
        return
    tests = survey(args, programs)
    print(f"{len(mutants)} mutants, {len(tests)} tests, which take {sum(test[0] for test in tests):.0f} s", flush=True)
    todo = [mutant for mutant in mutants if mutant.outcome is None and (not args.only or re.search(args.only, mutant.name))]
    order = files_of(args.files)
    todo.sort(key=lambda mutant: order.index(mutant.file))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for mutant in pool.map(lambda mutant: judge(mutant, args, tests, args.texts), todo):
            if mutant.outcome in ("survived", "unreached"):
                print(f"{mutant.outcome}: {mutant.name}", flush=True)
            write_report(args, mutants)
    table(mutants)
    sys.exit(any(mutant.outcome in ("survived", "unreached") for mutant in mutants))


def write_report(args, mutants):
    if args.report:
        with open(args.report, "w") as file:
            json.dump([{"name": m.name, "file": m.file, "outcome": m.outcome, "by": m.by} for m in mutants], file, indent=1)


def table(mutants):
    print("| file | mutants | caught | never end | do not compile | survived |\n|---|---|---|---|---|---|")
    for name in dict.fromkeys(mutant.file for mutant in mutants):
        of = [mutant.outcome for mutant in mutants if mutant.file == name]
        survived = of.count("survived") + of.count("unreached")
        print(f"| `{name}` | {len(of)} | {of.count('caught')} | {of.count('timeout')} | {of.count('unviable')} | {survived} |")


main()
