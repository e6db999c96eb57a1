#!/usr/bin/env python3
"""Writes steelyard/schemas.py and steelyard/api.py from the node's OpenAPI document: its types, and a method for each public route that
reads.

    python cli/python/generate.py            writes the files
    python cli/python/generate.py --check    says whether they are what would be written
"""

import json
import keyword
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "node" / "src" / "api" / "openapi.json"
PACKAGE = HERE / "steelyard"
WIDTH = 120
# What the operator alone looks at, and what is for browsers of this description: no client of models needs them.
LEFT_OUT = ("/v1/openapi.json", "/v1/peers", "/v1/transfers", "/v1/workers", "/v1/pools", "/v1/pins", "/v1/mirror", "/v1/log/entries/")

MADE = "made by `cli/python/generate.py` from the node's OpenAPI document. Not to be changed by hand."
SCHEMAS = f'''"""What the node's public interface answers: {MADE}"""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, TypedDict, Union
'''
API = f'''"""The node's public interface: {MADE}"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional

from ._http import Transport, segment
'''


def name_of(reference):
    return reference.rsplit("/", 1)[1]


def kind(schema):
    """A schema as a type in Python."""
    if "$ref" in schema:
        return name_of(schema["$ref"])
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return union([kind(one) for one in schema[several]])
    if "enum" in schema:
        return f"Literal[{', '.join(json.dumps(one) for one in schema['enum'])}]"
    types = schema.get("type")
    if isinstance(types, list):
        return union([kind({**schema, "type": one}) for one in types])
    if types == "array":
        return f"List[{kind(schema['items'])}]" if "items" in schema else "List[Any]"
    if types == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"Dict[str, {kind(schema['additionalProperties'])}]"
    simple = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "object": "Dict[str, Any]"}
    return simple.get(types, "Any")


def union(kinds):
    kinds = list(dict.fromkeys(kinds))
    if "Any" in kinds:
        return "Any"
    some = [one for one in kinds if one != "None"]
    whole = some[0] if len(some) == 1 else f"Union[{', '.join(some)}]"
    return f"Optional[{whole}]" if "None" in kinds else whole


def references(value, found):
    """Every schema that `value` refers to, by name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                found.add(name_of(inner))
            else:
                references(inner, found)
    elif isinstance(value, list):
        for inner in value:
            references(inner, found)


def reachable(schemas, operations):
    found = {"Problem"}
    references([operation["responses"] for _, operation in operations], found)
    while True:
        more = set(found)
        references([schemas[name] for name in found], more)
        if more == found:
            return found
        found = more


def text(words, indent):
    lines = textwrap.wrap(words, WIDTH - indent - 6)
    return ('\n' + " " * indent).join(lines)


def described(schema, fallback):
    return schema.get("description", fallback).rstrip(".") + "."


def fields(properties, names, lines):
    """Each with its description behind it where a line holds both."""
    for name in names:
        words, line = properties[name].get("description", ""), f"    {name}: {kind(properties[name])}"
        if words and len(line) + len(words) + 4 <= WIDTH:
            line = f"{line}  # {words}"
        elif words:
            lines += [f"    # {one}" for one in textwrap.wrap(words, WIDTH - 6)]
        lines.append(line)


def typed(name, schema):
    """The declaration of one schema."""
    properties = schema.get("properties")
    if not properties:
        words = textwrap.wrap(schema.get("description", ""), WIDTH - 2)
        return "\n".join([f"# {line}" for line in words] + [f"{name} = {kind(schema)}"])
    needed = [one for one in properties if one in schema.get("required", [])]
    others = [one for one in properties if one not in needed]
    doc = f'    """{text(described(schema, name), 4)}"""'
    if any(keyword.iskeyword(one) or not one.isidentifier() for one in properties):
        pairs = ", ".join(f"{json.dumps(one)}: {json.dumps(kind(properties[one]))}" for one in properties)
        return f'{name} = TypedDict("{name}", {{{pairs}}}, total=False)'
    lines = []
    if needed and others:
        lines += [f"class _{name}(TypedDict):"]
        fields(properties, needed, lines)
        lines += ["", "", f"class {name}(_{name}, total=False):", doc, ""]
        fields(properties, others, lines)
    else:
        lines += [f"class {name}(TypedDict{'' if needed else ', total=False'}):", doc, ""]
        fields(properties, needed or others, lines)
    return "\n".join(lines)


def declarations(schemas, names):
    """Aliases last: they name classes where they stand."""
    structs = [name for name in schemas if name in names and schemas[name].get("properties")]
    simple = [name for name in schemas if name in names and name not in structs]
    first = [name for name in simple if not refers(schemas[name])]
    last = [name for name in simple if refers(schemas[name])]
    return [typed(name, schemas[name]) for name in first + structs + last]


def refers(schema):
    found = set()
    references(schema, found)
    return bool(found)


def method(path, operation):
    """A method that asks for one route."""
    arguments, query, place = ["self"], [], path.replace("{*", "{")
    for one in operation.get("parameters", []):
        name, inner = one["name"], kind(one["schema"])
        spelled = f"{name}_" if keyword.iskeyword(name) else name
        if one["in"] == "path":
            arguments.append(f"{spelled}: str")
            keep = ', keep="/"' if "{*" + name + "}" in path else ""
            place = place.replace("{" + name + "}", "{segment(" + spelled + keep.replace('"', "'") + ")}")
        elif one.get("required"):
            arguments.append(f"{spelled}: {inner}")
            query.append((name, spelled))
        else:
            arguments.append(f"{spelled}: Optional[{inner}] = None")
            query.append((name, spelled))
    (media, content), = operation["responses"]["200"]["content"].items()
    answer = kind(content.get("schema", {}))
    readers = {"application/json": ("json", answer), "text/event-stream": ("events", f"Iterator[{answer}]"),
               "text/plain": ("text", "str"), "application/octet-stream": ("bytes", "bytes")}
    reader, answer = readers[media]
    name = operation["operationId"].removeprefix("get_").lstrip("_")
    pairs = ", ".join(f"{json.dumps(key)}: {spelled}" for key, spelled in query)
    words = described(operation, name) if "description" in operation else ""
    doc = f"{operation['summary'].rstrip('.')}." + (f"\n\n        {text(words, 8)}\n        " if words else "")
    return "\n".join([
        f"    def {name}({', '.join(arguments)}) -> {answer}:",
        f'        """{doc}"""',
        f"        return self.transport.{reader}({'f' if '{' in place else ''}\"{place}\"{', {' + pairs + '}' if pairs else ''})",
    ])


def generated(document):
    operations = [
        (path, methods["get"]) for path, methods in document["paths"].items()
        if methods.get("get", {}).get("x-access") == "public" and not path.startswith(LEFT_OUT)
    ]
    schemas = document["components"]["schemas"]
    types = "\n\n\n".join([SCHEMAS.rstrip()] + declarations(schemas, reachable(schemas, operations))) + "\n"
    named = set()
    references([operation["responses"]["200"] for _, operation in operations], named)
    imports = textwrap.fill(", ".join(sorted(named)), WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
    methods = "\n\n".join(method(path, operation) for path, operation in operations)
    api = (
        f"{API}from .schemas import (\n{imports},\n)\n\n\n"
        'class Api:\n    """A method for each public route. What goes wrong is raised as a `NodeError`."""\n\n'
        "    def __init__(self, transport: Transport) -> None:\n        self.transport = transport\n\n" + methods + "\n"
    )
    return {PACKAGE / "schemas.py": types, PACKAGE / "api.py": api}


def main():
    for path, new in generated(json.loads(SOURCE.read_text("utf-8"))).items():
        if sys.argv[1:] != ["--check"]:
            path.write_text(new, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != new:
            sys.exit(f"{path} is not what {SOURCE} gives; run {Path(__file__).name}")


if __name__ == "__main__":
    main()
