"""What is wrong with a policy, said precisely: file, line, path, and the nearest valid key or value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from sg_guardrails.core.layers import Keyed, Listed, Place

MOST = 20
"""Mistakes told at once."""
_DEEPEST = 8
"""Steps of a path that are shown."""
_PLAIN = {"extra_forbidden": "there is no such key", "missing": "this key is needed"}
Schema = Mapping[str, Any]


def told(error: ValidationError, data: object, schema: Schema, where: str) -> tuple[str, ...]:
    """Each mistake as one line, ``file:line: path: what is wrong (did you mean ...?)``.

    Args:
        error: What the validation found.
        data: The validated mapping; places are known where it came from `layers.merged`.
        schema: The policy's JSON Schema, for the keys that would have been valid.
        where: Names the source where no place is known.
    """
    lines = []
    # A list whose one item is wrong is not too short as well.
    found = [item for item in error.errors(include_url=False) if item["type"] != "too_short" or not item["input"]]
    for item in found[:MOST]:
        location = item["loc"]
        path, place = find(data, location, item.get("ctx", {}).get("path", ()))
        at = where if place is None else f"{place[0]}:{place[1]}"
        shown = ".".join(map(str, path[:_DEEPEST])) or "policy"
        problem = _PLAIN.get(item["type"], item["msg"].removeprefix("Value error, "))
        lines.append(f"{at}: {shown}{_of_rule(data, path)}: {problem}{_hint(item, path, schema)}")
    return tuple(lines)


def find(
    data: object, location: tuple[int | str, ...], below: tuple[int | str, ...] = ()
) -> tuple[tuple[int | str, ...], Place | None]:
    """The path as the file has it, and the place of its deepest part that exists.

    Pydantic names a condition's kind before the condition's keys: `rules.0.when.scorer.above` for `when: {above: ...}`.
    `below` leads on from there as the file has it.
    """
    path: list[int | str] = []
    place: Place | None = None
    at, above, kind = data, "", False
    for number, step in enumerate((*location, *below)):
        if number >= len(location):
            kind = False
        elif kind or (isinstance(at, list) and not isinstance(step, int)):
            kind = False
            continue
        path.append(step)
        place = (at.places if isinstance(at, Keyed | Listed) else {}).get(step, place)
        kind = step in ("when", "not") or (isinstance(step, int) and above in ("all", "any"))
        above = step if isinstance(step, str) else above
        if isinstance(at, dict):
            at = at.get(step)
        elif isinstance(at, list) and isinstance(step, int) and step < len(at):
            at = at[step]
    return tuple(path), place


def _of_rule(data: object, path: tuple[int | str, ...]) -> str:
    """The rule's id beside its number: after ``extends`` nobody counts."""
    rules = data.get("rules") if isinstance(data, Mapping) and path[:1] == ("rules",) else None
    number = path[1] if len(path) > 1 else None
    rule = rules[number] if isinstance(rules, list) and isinstance(number, int) and number < len(rules) else None
    name = rule.get("id") if isinstance(rule, Mapping) else None
    return f" (rule {name!r})" if isinstance(name, str) else ""


def _hint(item: Mapping[str, Any], path: tuple[int | str, ...], schema: Schema) -> str:
    if item["type"] == "extra_forbidden":
        return _near_key(str(path[-1]), path[:-1], schema)
    if item["type"] == "condition" and isinstance(item["input"], Mapping):
        unknown = [str(key) for key in item["input"] if str(key) not in _keys(path, schema)]
        return _near_key(unknown[0], path, schema) if unknown else ""
    if item["type"] == "literal_error":
        valid = re.findall(r"'([^']+)'", str(item.get("ctx", {}).get("expected", "")))
        return _suggest(get_close_matches(str(item["input"]), valid, n=1))
    return ""


def _near_key(key: str, parent: tuple[int | str, ...], schema: Schema) -> str:
    here = get_close_matches(key, _keys(parent, schema), n=1)
    # A key in the wrong section is as common as a misspelt one.
    elsewhere = [path for path in _paths(schema) if path.rpartition(".")[2] == key]
    return _suggest(here or elsewhere[:1])


def _suggest(found: list[str]) -> str:
    return f" (did you mean {found[0]!r}?)" if found else ""


def _keys(path: tuple[int | str, ...], schema: Schema) -> list[str]:
    """The keys that may stand at the path, over all alternatives there."""
    level = _alternatives(schema, schema)
    for step in path:
        level = [
            option
            for node in level
            if (inner := _step(node, step)) is not None
            for option in _alternatives(inner, schema)
        ]
    return sorted({key for node in level for key in node.get("properties", {})})


def _step(node: Schema, step: int | str) -> Schema | None:
    inner = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
    return inner if isinstance(inner, Mapping) else None


def _alternatives(node: Schema, schema: Schema) -> list[Schema]:
    """The node itself with ``$ref`` followed, or each branch of its ``anyOf`` and ``oneOf``."""
    if "$ref" in node:
        return _alternatives(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    branches = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    return [node] if not branches else [option for branch in branches for option in _alternatives(branch, schema)]


def _paths(schema: Schema) -> Iterator[str]:
    """Every key of the sections as a dotted path; rules are lists, and left out."""

    def walk(node: Schema, prefix: str) -> Iterator[str]:
        for option in _alternatives(node, schema):
            for key, inner in option.get("properties", {}).items():
                yield prefix + key
                yield from walk(inner, f"{prefix}{key}.")

    yield from walk(schema, "")
