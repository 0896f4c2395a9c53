"""Tool calls: what a policy says of them, whether they are in order, and all that their arguments say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sg_guardrails.core.patterns import compiled, folded, found
from sg_guardrails.core.section import Pattern, Section, Whole, Word, mistake
from sg_guardrails.core.types import ToolCall

ANY = "*"
"""In the place of a tool's or an argument's name: every one."""
_MOST_DECODED = 4
"""Times that a string in an argument is read as JSON: tools take JSON in strings, seldom JSON in JSON in strings."""


class Calls(Section):
    """What calls may be made. A call that breaks one of the rules is a finding."""

    allowed: tuple[Word, ...] | None = None
    """The only tools that may be called, by their exact names; None: any that is not denied."""
    denied: tuple[Word, ...] = ()
    """Tools that may not be called; case, accents and look-alike letters don't count."""
    arguments: dict[Word, dict[Word, Whole]] = Field(default_factory=dict)
    """By tool and argument, the RE2 pattern that the whole argument must match, case and all. Spellings of the two
    names that differ in case count as the same. An argument left out passes; what is no string is matched as JSON."""
    denied_arguments: dict[Word, dict[Word, Pattern]] = Field(default_factory=dict)
    """By tool and argument (``*``: any), an RE2 pattern that must be found nowhere in the argument: not in its strings,
    at whatever depth, nor in JSON within them. Case, accents and look-alike letters don't count but where the pattern
    says so (``(?-i)``)."""
    unanimous: bool = False
    """Calls pass only if every copy made the same ones: one copy without them, or with others, is a finding. Where no
    copy was asked (a review without media) there is nothing to compare."""

    @field_validator("denied")
    @classmethod
    def _not_both(cls, denied: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        allowed = {folded(name) for name in info.data.get("allowed") or ()}
        for index, name in enumerate(denied):
            if folded(name) in allowed:
                raise mistake(f"the tool {name!r} is both allowed and denied", index)
        return denied

    @field_validator("arguments", "denied_arguments")
    @classmethod
    def _of_callable_tools(cls, tools: dict[str, dict[str, str]], info: ValidationInfo) -> dict[str, dict[str, str]]:
        allowed, wild = info.data.get("allowed"), info.field_name == "denied_arguments"
        may = None if allowed is None else {folded(name) for name in allowed}
        for tool, patterns in tools.items():
            if not patterns:
                raise mistake(f"no argument of {tool!r} is named", tool)
            if not wild and ANY in (tool, *patterns):
                raise mistake("* stands for any in denied_arguments alone: name the tool and the argument", tool)
            if not (wild and tool == ANY) and may is not None and folded(tool) not in may:
                raise mistake(f"the tool {tool!r} is not among those allowed, and so is never looked at", tool)
        return tools

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.allowed is None and not (self.denied or self.arguments or self.denied_arguments or self.unanimous):
            raise ValueError("tool_calls needs allowed, denied, arguments, denied_arguments or unanimous")
        return self


def disorderly(calls: Sequence[ToolCall], rules: Calls) -> bool:
    """Whether a call is not allowed, is denied, or has an argument that is not as it must be."""
    return any(
        (rules.allowed is not None and call.name not in rules.allowed)
        or any(_same(name, call.name) for name in rules.denied)
        or any(not compiled(pattern).fullmatch(_text(value)) for pattern, value in _named(call, rules.arguments))
        or any(
            found([pattern], text, folds=True)
            for pattern, value in _named(call, rules.denied_arguments, wild=True)
            for text in (_text(value), *strings(value))
        )
        for call in calls
    )


def wording(call: ToolCall) -> Iterator[str]:
    """A call as text: its canonical line, and each string in it that this line spells otherwise or hides in JSON."""
    yield call.canonical
    for text in strings(call.arguments):
        if text not in call.canonical:
            yield text


def strings(value: object) -> Iterator[str]:
    """Every string in a value: keys and items at whatever depth, and those of the JSON that a string holds."""
    left: list[tuple[Any, int]] = [(value, 0)]
    while left:
        item, decoded = left.pop()
        if isinstance(item, str):
            yield item
            if decoded < _MOST_DECODED and (inner := _decoded(item)) is not None:
                left.append((inner, decoded + 1))
        elif isinstance(item, Mapping):
            left += [(part, decoded) for pair in item.items() for part in pair]
        elif isinstance(item, Sequence | set | frozenset) and not isinstance(item, bytes | bytearray):
            left += [(part, decoded) for part in item]


def _decoded(text: str) -> object:
    """The mapping, list or string that `text` is JSON of, or None."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _named(
    call: ToolCall, tools: Mapping[str, Mapping[str, str]], *, wild: bool = False
) -> Iterator[tuple[str, object]]:
    """Each pattern for an argument of this call with the argument."""
    for tool, patterns in tools.items():
        if (wild and tool == ANY) or _same(tool, call.name):
            for name, pattern in patterns.items():
                for given, value in call.arguments.items():
                    if (wild and name == ANY) or _same(name, str(given)):
                        yield pattern, value


def _same(name: str, other: str) -> bool:
    """Whether readers, and tools that take names in any case, would take the one for the other."""
    return folded(name) == folded(other)


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")
