"""Policy files on disk: shipped names, strict YAML, and ``extends``, which lays one file over another."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sg_guardrails.core.errors import PolicyError

MOST_BYTES = 1_000_000
"""A policy file larger than this is refused before it is parsed."""
_MOST_DIGITS = 40
"""Characters of a number. YAML 1.1 reads ``1:1:1:...`` in base 60, whose cost grows with the square of its length."""
_SURROGATE = re.compile("[\ud800-\udfff]")
Place = tuple[str, int]
"""A file, and a line in it counted from 1."""


class Keyed(dict[Any, Any]):
    """A mapping that remembers where each of its keys stands."""

    def __init__(self, content: Mapping[Any, Any] | None = None, places: Mapping[Any, Place] | None = None) -> None:
        super().__init__(content or {})
        self.places: dict[Any, Place] = dict(places or {})


class Listed(list[Any]):
    """A list that remembers where each of its items stands."""

    def __init__(self, content: list[Any], places: list[Place]) -> None:
        super().__init__(content)
        self.places: dict[Any, Place] = dict(enumerate(places))


def shipped() -> Path:
    """The folder of the shipped policies: package data in a wheel, the top-level folder in a checkout."""
    packaged = Path(str(importlib.resources.files("sg_guardrails"))) / "policies"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "policies"


def locate(source: str | Path) -> Path:
    """The file behind a shipped name or a path.

    Raises:
        PolicyError: If there is none.
    """
    text = str(source)
    names = sorted(file.stem for file in shipped().glob("*.yaml"))
    if text in names:
        return shipped() / f"{text}.yaml"
    path = Path(text)
    if not path.is_file():
        raise PolicyError(f"no policy {text!r}: it is neither a file nor a shipped name ({', '.join(names)})")
    return path


def merged(path: Path) -> Keyed:
    """The file's mapping laid over the one that it extends, section by section; ``rules`` merge by id.

    Raises:
        PolicyError: If a file cannot be read or is not YAML, or if ``extends`` leaves its folder or runs in a circle.
    """
    data = Keyed()
    for _, content in reversed(chain(path)):
        data = _overlay(data, content)
    return data


def chain(path: Path) -> list[tuple[Path, Keyed]]:
    """The files that `path` is made of with their contents: itself, what it extends, and so on. Raises as `merged`."""
    files: list[tuple[Path, Keyed]] = []
    at: Path | None = path
    while at is not None:
        data = read(at)
        files.append((at, data))
        at = _extended(at, data)
        if at is not None and any(at.resolve() == before.resolve() for before, _ in files):
            raise PolicyError(f"{_at(data, 'extends')}: extends: {data['extends']!r} runs in a circle")
    return files


def _at(data: Keyed, key: str) -> str:
    return "{}:{}".format(*data.places[key])


def _extended(path: Path, data: Keyed) -> Path | None:
    base = data.get("extends")
    if base is None:
        return None
    where = _at(data, "extends")
    if not isinstance(base, str) or "\0" in base:
        raise PolicyError(f"{where}: extends: a shipped name or a file name beside this file")
    target = path.parent / base if (path.parent / base).is_file() else shipped() / f"{base}.yaml"
    inside = any(target.resolve().is_relative_to(root.resolve()) for root in (path.parent, shipped()))
    if not inside or not target.is_file():
        raise PolicyError(f"{where}: extends: {base!r} is neither a file inside this folder nor a shipped policy")
    return target


class _Strict(yaml.SafeLoader):
    """SafeLoader that refuses what hides or hangs, and remembers where things stand."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # so in the stubs
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed: a few lines of them can stand for gigabytes", mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _SURROGATE.search(value):
            raise yaml.constructor.ConstructorError(None, None, "half of a character (a surrogate)", node.start_mark)
        return value


def _place(node: yaml.Node) -> Place:
    return node.start_mark.name, node.start_mark.line + 1


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Keyed:
    loader.flatten_mapping(node)
    pairs = Keyed()
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in pairs:
            # YAML would silently keep the last, and a rule would be gone.
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        pairs[key] = loader.construct_object(value_node, deep=True)
        pairs.places[key] = _place(key_node)
    return pairs


def _sequence(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> Listed:
    items = [loader.construct_object(item, deep=True) for item in node.value]
    return Listed(items, [_place(item) for item in node.value])


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    if len(node.value) > _MOST_DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of more than {_MOST_DIGITS} characters", node.start_mark
        )
    whole = node.tag.endswith(":int")
    number: int | float = loader.construct_yaml_int(node) if whole else loader.construct_yaml_float(node)
    return number


def _refused(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    loader.construct_undefined(node)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG, _sequence)
for _tag in ("binary", "set", "omap", "pairs"):  # their values would pass for texts and lists
    _Strict.add_constructor(f"tag:yaml.org,2002:{_tag}", _refused)
_Strict.add_constructor("tag:yaml.org,2002:int", _number)
_Strict.add_constructor("tag:yaml.org,2002:float", _number)


def read(path: Path) -> Keyed:
    """One strict YAML file whose top level is a mapping.

    Raises:
        PolicyError: If it cannot be read, is too large, or is not such YAML; names the file and the line.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise PolicyError(f"{path}: larger than {MOST_BYTES:,} bytes")
        loader = _Strict(raw)
        loader.name = str(path)
        data = loader.get_single_data()
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error
    except yaml.MarkedYAMLError as error:
        raise PolicyError(_told(path, error)) from None
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        # What PyYAML raises beside its own errors on text like `2020-13-45`, `? [a]` or a thousand brackets.
        raise PolicyError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(data, Keyed):
        raise PolicyError(f"{path}: the top level of the file is not a mapping")
    return data


def _told(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = str(path) if mark is None else f"{path}:{mark.line + 1}"
    problem = " ".join(part for part in (error.context, error.problem) if part)
    return f"{where}: not valid YAML: {problem[:300]}"


def _overlay(base: Keyed, top: Keyed) -> Keyed:
    laid = Keyed(base, {**base.places, **top.places})
    for key, value in top.items():
        below = laid.get(key)
        if key == "rules" and isinstance(below, Listed) and isinstance(value, Listed):
            laid[key] = _overlay_rules(below, value)
        elif key == "audio" and isinstance(value, dict):
            laid[key] = value  # sigma and snr_db exclude each other: a new choice replaces the old one
        elif key != "when" and isinstance(below, Keyed) and isinstance(value, Keyed):
            laid[key] = _overlay(below, value)
        else:
            laid[key] = value
    return laid


_GOVERNED = {
    "rewrite": ("action", ("rewrite",)),
    "text": ("action", ("rewrite", "block", "raise")),
    "over": ("where", ("clusters",)),
    "share": ("where", ("answer", "winner", "clusters", "any", "tools")),
}
"""Keys of a rule that mean something under some values of another key alone."""


def _overlay_rule(base: Keyed, top: Keyed) -> Keyed:
    """A rule laid over one of its id. What `top` makes meaningless of the base's keys goes with what it replaces."""
    gone = {
        key
        for key, (governor, values) in _GOVERNED.items()
        if governor in top and top[governor] not in values and key not in top
    }
    return _overlay(Keyed({key: value for key, value in base.items() if key not in gone}, base.places), top)


def _overlay_rules(base: Listed, top: Listed) -> Listed:
    """Rules of the same id are laid over each other, new ones follow. A base's rule can't vanish silently."""
    changes: dict[str, Any] = {}
    for rule in top:
        if isinstance(rule, Keyed) and "id" in rule:
            if str(rule["id"]) in changes:
                raise PolicyError(f"{_at(rule, 'id')}: rules: id {rule['id']!r} stands twice")
            changes[str(rule["id"])] = rule
    kept = [
        _overlay_rule(rule, changes.pop(str(rule["id"])))
        if isinstance(rule, Keyed) and str(rule.get("id")) in changes
        else rule
        for rule in base
    ]
    new = [
        (rule, top.places[index])
        for index, rule in enumerate(top)
        if not isinstance(rule, Keyed) or "id" not in rule or str(rule["id"]) in changes
    ]
    places = [*base.places.values(), *(place for _, place in new)]
    return Listed([*kept, *(rule for rule, _ in new)], places)
