"""Mutants in the text of a source: where each changes what, and the text that has them all."""
import re

MODULE = '''//! Which mutant lives.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::unwrap_used, clippy::expect_used)]
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
static LIVES: LazyLock<u32> = LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
static TRACE: LazyLock<Option<std::fs::File>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANT_TRACE")?;
    std::fs::OpenOptions::new().append(true).create(true).open(path).ok()
});
static SEEN: [AtomicBool; 65536] = [const { AtomicBool::new(false) }; 65536];
pub fn is(n: u32) -> bool {
    if let Some(mut file) = TRACE.as_ref() && !SEEN[n as usize].swap(true, Ordering::Relaxed) {
        let _ = file.write_all(format!("{n}\\n").as_bytes());
    }
    *LIVES == n
}
pub fn text(path: &str, was: &'static str) -> &'static str {
    static TEXT: LazyLock<Option<&'static str>> = LazyLock::new(|| {
        let text = std::fs::read_to_string(std::env::var_os("MUTANT_TEXT")?).unwrap();
        Some(Box::leak(text.into_boxed_str()))
    });
    is(TEXTS.iter().find(|(p, _)| *p == path).map_or(0, |(_, n)| *n));
    match *TEXT { Some(text) if std::env::var("MUTANT_PATH").is_ok_and(|p| p == path) => text, _ => was }
}
'''
IS = "crate::mutants_::is"


class Mutant:
    """One change. `start` and `end` are the bytes that it changes in `file`."""

    def __init__(self, number, file, name, genre, start, end, replacement):
        self.number, self.file, self.name, self.genre = number, file, name, genre
        self.start, self.end, self.replacement = start, end, replacement
        self.outcome, self.by, self.ranges, self.function = None, None, [], None


def offset(text, lines, place):
    """The byte of a place that is told as line and column in characters, both from 1."""
    begin = lines[place["line"] - 1]
    line = text[begin:].decode().split("\n", 1)[0]
    return begin + len(line[: place["column"] - 1].encode())


# Cedar: operators, each action of a scope, each standing of a list, and conditions that always or never hold.
CEDAR = [
    (re.compile(r" (&&) "), ["||"]), (re.compile(r" (\|\|) "), ["&&"]), (re.compile(r" (==) [^A]"), ["!="]),
    (re.compile(r" (>) "), [">=", "<", "=="]), (re.compile(r" (>=) "), [">", "<", "=="]),
    (re.compile(r'(Action::"\w+", )'), [""]), (re.compile(r'(, Action::"\w+")\]'), [""]),
    (re.compile(r'("\w+", )(?="\w+"[\],])'), [""]), (re.compile(r'"(, "\w+")\]'), [""]),
    (re.compile(r"^(unless)", re.M), ["when"]), (re.compile(r"^(when)", re.M), ["unless"]),
]


def cedar(file, text, number):
    found = []

    def add(start, end, other, name):
        line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
        found.append(Mutant(number + len(found), file, f"{file}:{line}:{column}: {name}", "Cedar", start, end, other))

    for pattern, others in CEDAR:
        for match in pattern.finditer(text):
            begin = text.rfind("\n", 0, match.start(1)) + 1
            if not text[begin:].startswith(("//", "@")):
                for other in others:
                    add(match.start(1), match.end(1), other, f"replace `{match[1]}` with `{other}`")
    for match in re.finditer(r"^(unless|when) (\{.*?\});", text, re.M | re.S):
        inner = match[2].count("\n")
        for truth in ("true", "false"):
            add(match.start(2), match.end(2), f"{{ {truth}{chr(10) * inner} }}", f"condition of `{match[1]}` is {truth}")
    return found


class Source:
    """A Rust file, and the places in it that are changed."""

    def __init__(self, file, text):
        import tree_sitter
        import tree_sitter_rust

        # Texts that the program includes and that are changed too: their file, and the constant's name.
        self.file, self.text, self.texts = file, text, []
        self.tree = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language())).parse(text)
        self.lines = [0]
        for at, byte in enumerate(text):
            if byte == 10:
                self.lines.append(at + 1)

    def above(self, start, end, kinds):
        """The innermost node of one of these kinds around the bytes."""
        node = self.tree.root_node.descendant_for_byte_range(start, max(start, end - 1))
        while node and node.type not in kinds:
            node = node.parent
        return node

    def uses(self, name):
        """Where functions of this file use a constant."""
        found, todo = [], [self.tree.root_node]
        while todo:
            node = todo.pop()
            if node.type in ("const_item", "static_item", "array_type", "use_declaration", "token_tree"):
                continue
            if node.type == "identifier" and self.text[node.start_byte : node.end_byte].decode() == name:
                if node.parent.type not in ("scoped_identifier", "match_pattern") and "pattern" not in node.parent.type:
                    found.append((node.start_byte, node.end_byte))
            todo += node.children
        return found

    def places(self, mutant):
        """What is to be done for a mutant: (kind, start, end, text) of each place; none when this form has no room for it."""
        item = self.above(mutant.start, mutant.end, ["const_item", "static_item", "function_item"])
        if item is not None and item.type == "const_item":
            piece = lambda node, start, end: self.text[start or node.start_byte : end or node.end_byte].decode()
            name, kind, value = (item.child_by_field_name(field) for field in ("name", "type", "value"))
            changed = piece(value, None, mutant.start) + mutant.replacement + piece(value, mutant.end, None)
            changed = f"{{ const C: {piece(kind, None, None)} = {changed}; C }}"
            return [("wrap", start, end, changed) for start, end in self.uses(piece(name, None, None))]
        place = self.place(mutant)
        return [place] if place else []

    def place(self, mutant):
        text, start, end = self.text, mutant.start, mutant.end
        if mutant.genre == "FnValue":
            function = self.above(start, end, ["function_item"])
            body = function and function.child_by_field_name("body")
            if body is None:
                return None
            if "iter::once(" in mutant.replacement:
                return None
            if "iter::empty()" in mutant.replacement:
                last = [child for child in body.named_children if "comment" not in child.type][-1]
                return ("filter", last.start_byte, last.end_byte, f".filter(|_| !{IS}({mutant.number}))")
            return ("insert", body.start_byte + 1, body.start_byte + 1, f" if {IS}({mutant.number}) {{ return {mutant.replacement}; }}")
        if mutant.genre == "MatchArm":
            arm = self.above(start, end, ["match_arm"])
            pattern = arm and arm.child_by_field_name("pattern")
            if pattern is None:
                return None
            condition = pattern.child_by_field_name("condition")
            if condition is None and re.fullmatch(rb"[a-z_]\w*", text[pattern.start_byte : pattern.end_byte]):
                # It takes what no other arm takes: without it the match is not exhaustive.
                return None
            if condition is None:
                return ("guard", pattern.end_byte, pattern.end_byte, f" if !{IS}({mutant.number})")
            return ("and", condition.start_byte, condition.end_byte, f" && !{IS}({mutant.number})")
        if mutant.genre == "MatchArmGuard":
            node = self.above(start, end, ["match_pattern"]).child_by_field_name("condition")
            return ("wrap", node.start_byte, node.end_byte, mutant.replacement)
        if mutant.genre in ("BinaryOperator", "UnaryOperator"):
            node = self.tree.root_node.descendant_for_byte_range(start, end - 1)
            kinds = {"BinaryOperator": ["binary_expression", "compound_assignment_expr"], "UnaryOperator": ["unary_expression"]}
            if node.type not in kinds[mutant.genre]:
                node = node.parent
            if node is None or node.type not in kinds[mutant.genre]:
                return None
            if mutant.genre == "UnaryOperator":
                return ("wrap", node.start_byte, node.end_byte, text[node.start_byte + 1 : node.end_byte].decode())
        else:
            node = self.above(start, end, ["struct_expression"])
            if node is None:
                return None
            if text[end : end + 1] == b",":
                end += 1
        changed = text[node.start_byte : start].decode() + mutant.replacement + text[end : node.end_byte].decode()
        return ("wrap", node.start_byte, node.end_byte, changed)

    def write(self, mutants):
        """The text with every mutant in it; notes in each which bytes are its own."""
        places = {}
        for mutant in mutants:
            mutant.ranges = []
            for kind, start, end, text in self.places(mutant):
                places.setdefault((start, -end, kind), []).append((mutant, text))
        for file, name in self.texts:
            for start, end in self.uses(name):
                places[(start, -end, "text")] = [(None, f'crate::mutants_::text("{file}", {name})')]
        constant = set()
        for (start, _, _) in places:
            function = self.above(start, start + 1, ["function_item"])
            for child in function.children if function else []:
                if child.type == "function_modifiers" and b"const" in self.text[child.start_byte : child.end_byte]:
                    at = self.text.index(b"const", child.start_byte)
                    constant.add((at, at + 6))
        out = bytearray()
        todo = sorted(places.items())
        todo += [((start, -end, ""), None) for start, end in constant]
        todo.sort(key=lambda one: one[0])

        def copy(start, end, at):
            """Writes the bytes from start to end, with the places from number `at` on that lie within; the next place."""
            while at < len(todo) and todo[at][0][0] < end:
                (begin, close, kind), alternatives = todo[at]
                close = -close
                out.extend(self.text[start:begin])
                at += 1
                if alternatives is None:
                    start = close
                    continue
                if kind == "text":
                    out.extend(alternatives[0][1].encode())
                elif kind == "wrap":
                    out.extend(b"(")
                    for mutant, text in alternatives:
                        mark = len(out)
                        out.extend(f"if {IS}({mutant.number}) {{ ({text}) }} else ".encode())
                        mutant.ranges.append((mark, len(out)))
                    out.extend(b"{ (")
                    at = copy(begin, close, at)
                    out.extend(b") })")
                else:
                    if close > begin:
                        bracket = kind == "filter" or b"let " not in self.text[begin:close]
                        out.extend(b"(" if bracket else b"")
                        at = copy(begin, close, at)
                        out.extend(b")" if bracket else b"")
                    for mutant, text in alternatives:
                        mark = len(out)
                        out.extend(text.encode())
                        mutant.ranges.append((mark, len(out)))
                start = close
            out.extend(self.text[start:end])
            return at

        copy(0, len(self.text), 0)
        return bytes(out)
