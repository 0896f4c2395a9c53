"""Policy files on disk: shipped names, strict YAML, and ``extends``, which lays one file over another."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sg_guardrails.core.errors import PolicyError

MOST_BYTES = 1_000_000
"""A policy file larger than this is refused before it is parsed."""


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


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: YAML would silently keep the last, and a rule would be gone."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    pairs: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in pairs:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        pairs[key] = loader.construct_object(value_node, deep=True)
    return pairs


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def merged(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's mapping laid over the one that it extends, section by section; ``rules`` merge by id."""
    here = path.resolve()
    if here in above:
        raise PolicyError(f"{path}: extends runs in a circle")
    data = _read(path)
    base = data.get("extends")
    if base is None:
        return data
    if not isinstance(base, str):
        raise PolicyError(f"{path}: extends: a shipped name or a file name beside this file")
    target = path.parent / base if (path.parent / base).is_file() else shipped() / f"{base}.yaml"
    inside = any(target.resolve().is_relative_to(root.resolve()) for root in (path.parent, shipped()))
    if not inside or not target.is_file():
        raise PolicyError(f"{path}: extends: {base!r} is neither a file inside this folder nor a shipped policy")
    return _overlay(merged(target, (*above, here)), data)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise PolicyError(f"{path}: larger than {MOST_BYTES:,} bytes")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(raw, Loader=yaml.SafeLoader)):
            raise PolicyError(f"{path}: aliases are not allowed: a few lines of them can stand for gigabytes")
        data = yaml.load(raw, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader that also refuses doubled keys
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as error:
        raise PolicyError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise PolicyError(f"{path}: a policy is a mapping at its top level")
    return data


def _overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if key == "rules" and isinstance(below, list) and isinstance(value, list):
            merged[key] = _overlay_rules(below, value)
        elif key == "audio" and isinstance(value, dict):
            merged[key] = value  # sigma and snr_db exclude each other: a new choice replaces the old one
        elif key != "when" and isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _overlay(below, value)
        else:
            merged[key] = value
    return merged


def _overlay_rules(base: list[Any], top: list[Any]) -> list[Any]:
    """Rules of the same id are laid over each other, new ones follow. A base's rule can't vanish silently."""
    changes: dict[str, Any] = {}
    for rule in top:
        if isinstance(rule, dict) and "id" in rule:
            if str(rule["id"]) in changes:
                raise PolicyError(f"rules: id {rule['id']!r} stands twice")
            changes[str(rule["id"])] = rule
    kept = [
        _overlay(rule, changes.pop(str(rule["id"])))
        if isinstance(rule, dict) and str(rule.get("id")) in changes
        else rule
        for rule in base
    ]
    new = [rule for rule in top if not isinstance(rule, dict) or "id" not in rule or str(rule["id"]) in changes]
    return kept + new
