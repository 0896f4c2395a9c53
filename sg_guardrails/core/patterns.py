"""How a policy's words and patterns are found: plain search for whole words, and RE2 bounded in size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import re2

from sg_guardrails.core.fold import bare, lined, plain, readable, unmarked

MOST_STEPS = 20_000
"""Steps of a compiled pattern. RE2's time is the text's length times these at worst, so that a pattern of a million
would take minutes where one of a thousand takes a millisecond."""
_PROBE = "\u0e01\x07 \U0010ff00\n7q"
"""A text that no pattern means: one that finds something in it and in the empty text finds something everywhere."""


@lru_cache(maxsize=4096)
def compiled(pattern: str, *, folds: bool = False) -> re2._Regexp:
    """A policy's pattern, compiled once.

    Args:
        pattern: RE2 syntax.
        folds: Whether case doesn't count, unless the pattern says otherwise (``(?-i)``).

    Raises:
        ValueError: If it is not RE2, is too large, or can match no text at all; says which.
    """
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True  # only the whole match is ever asked for, and groups cost RE2 its fast engine
    try:
        made = re2.compile("(?i)" + pattern if folds else pattern, options=options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise ValueError(f"pattern {_short(pattern)} is not RE2: {reason}") from None
    if made.programsize > MOST_STEPS:
        raise ValueError(
            f"pattern {_short(pattern)} is too large: {made.programsize:,} steps, at most {MOST_STEPS:,}; "
            "make its repetitions shorter, or several patterns of it"
        )
    if made.programsize <= 1:
        raise ValueError(f"pattern {_short(pattern)} can match no text")
    return made


def sound(pattern: str) -> str:
    """The pattern as it is. Raises ValueError as `compiled` does."""
    compiled(pattern)
    return pattern


def telling(pattern: str) -> str:
    """A pattern to look for in a text. Raises ValueError as `compiled` does, or where every text holds a match."""
    if all(compiled(pattern).search(text) for text in ("", _PROBE)):
        raise ValueError(f"pattern {_short(pattern)} matches the empty text, and so is found in every text")
    return pattern


def narrowing(pattern: str) -> str:
    """A pattern for a whole value. Raises ValueError as `compiled` does, or where every value matches it."""
    if all(compiled(pattern).fullmatch(text) for text in ("", _PROBE)):
        raise ValueError(f"pattern {_short(pattern)} matches every value, and so rules nothing out")
    return pattern


def found(patterns: Iterable[str], text: str, *, folds: bool = False) -> bool:
    """Whether one of the patterns is found in the text, as it is written or as it reads. Raises as `compiled` does."""
    spelled = spellings(text)
    return any(compiled(pattern, folds=folds).search(spelling) for pattern in patterns for spelling in spelled)


def spellings(text: str) -> tuple[str, ...]:
    """As written; on one line and line by line as it reads; these with look-alike letters plain, and without marks."""
    if text.isascii():
        return tuple(dict.fromkeys((text, readable(text), lined(text))))
    whole = text.encode("utf-8", "replace").decode("utf-8")
    read = (readable(whole), lined(whole))
    return tuple(dict.fromkeys((whole, *read, *map(plain, read), *(unmarked(plain(line)) for line in read))))


def folded(text: str) -> str:
    """The text as words are compared: readable and bare."""
    return bare(readable(text))


def occurrences(text: str, words: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where the words stand in `text`, both folded, as ``(start, end)``.

    A word that begins or ends with an ASCII letter or digit is whole there: no letter or digit stands beside it.
    """
    for word in words:
        left, right = _is_plain(word[:1]), _is_plain(word[-1:])
        at = text.find(word)
        while at >= 0:
            end = at + len(word)
            if not (left and text[at - 1 : at].isalnum()) and not (right and text[end : end + 1].isalnum()):
                yield at, end
            at = text.find(word, at + 1)


def _is_plain(char: str) -> bool:
    return char.isascii() and char.isalnum()


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 60 else pattern[:57] + "...")
