"""Secrets taken out of a text before it is written, and as little else as can be: what decided must stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import re2

REDACTED = "[redacted]"
SHAPE = "shape"


def redact(text: str, patterns: Sequence[str]) -> str:
    """`text` with what the RE2 `patterns` match taken out.

    The whole match becomes ``[redacted]``; where the pattern has named groups, only what these caught does, so that the
    word "password" stays while the password goes. What a group named ``shape`` caught keeps its form: letters become
    x or X, digits 0, so that a rule that looks for such a key or number finds it in the record too.
    """
    # RE2 reads UTF-8, which has no lone surrogates.
    plain = text.encode("utf-8", "replace").decode("utf-8")
    for pattern in patterns:
        plain = _without(plain, _compiled(pattern))
    return plain


def redact_within(value: Any, patterns: Sequence[str]) -> Any:
    """A tool call's arguments likewise, at any depth; a value is read with its key before it (``password: ...``)."""
    if isinstance(value, dict):
        return {redact(str(key), patterns): _under(str(key), inner, patterns) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_within(inner, patterns) for inner in value]
    shown = redact(str(value), patterns)
    return value if shown == str(value) else shown


def _under(key: str, value: Any, patterns: Sequence[str]) -> Any:
    if isinstance(value, dict | list | tuple):
        inner = redact_within(value, patterns)
        return [_under(key, item, patterns) for item in inner] if isinstance(inner, list) else inner
    alone = redact_within(value, patterns)
    before = f"{key}: "
    named = redact(f"{before}{alone}", patterns)
    if named == f"{before}{alone}":
        return alone
    return named.removeprefix(before) if named.startswith(before) else REDACTED


def _without(text: str, pattern: re2._Regexp) -> str:
    named = sorted(pattern.groupindex.values()) or [0]
    shape = pattern.groupindex.get(SHAPE)
    kept, end = [], 0
    for match in pattern.finditer(text):
        for group in named:
            start, stop = match.span(group)
            if end <= start < stop:
                kept += [text[end:start], _form(text[start:stop]) if group == shape else REDACTED]
                end = stop
    return "".join((*kept, text[end:]))


def _form(secret: str) -> str:
    return "".join("0" if c.isdigit() else "X" if c.isupper() else "x" if c.isalpha() else c for c in secret)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re2._Regexp:
    return re2.compile(pattern)
