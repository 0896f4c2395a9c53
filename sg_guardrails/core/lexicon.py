"""How everyday words relate: same, opposite, contrasting or unknown, from WordNet and from hand-kept groups."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path

_WORDNET = Path(__file__).with_name("lexicon.txt.gz")
"""Everyday words from WordNet 3.0, made by ``training/lexicon.py``; the licence stands in the file."""
_CURATED = Path(__file__).with_name("words.txt")
"""Words for what pictures and sounds show, kept by hand."""


class Kinship(Enum):
    """How two words relate."""

    SAME = "same"
    """One thing: synonyms, a thing and its kind, or two forms of one word."""
    OPPOSITE = "opposite"
    """Each denies the other: open and closed."""
    CONTRAST = "contrast"
    """Two of a kind that exclude each other: red and blue, cat and dog."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One word's relations, each a set of words."""

    synonyms: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    opposites: frozenset[str] = frozenset()
    kin: frozenset[str] = frozenset()
    bases: frozenset[str] = frozenset()


@cache
def _table() -> dict[str, str]:
    with gzip.open(_WORDNET, "rt", encoding="utf-8") as file:
        return {word: rest for word, _, rest in (line.rstrip("\n").partition("|") for line in file) if word[:1] != "#"}


@lru_cache(maxsize=50_000)
def entry(word: str) -> Entry | None:
    """The word's relations, or None where it is not an everyday word."""
    line = _table().get(word)
    if line is None:
        return None
    parts = {part[0]: frozenset(part[1:].split()) for part in line.split("|") if part}
    return Entry(*(parts.get(mark, frozenset()) for mark in "=^!~+"))


@cache
def _curated(mark: str) -> tuple[frozenset[str], ...]:
    """The hand-kept groups of one mark: ``=`` one thing, ``!`` opposites, ``/`` exclusive."""
    lines = _CURATED.read_text(encoding="utf-8").splitlines()
    return tuple(frozenset(line[2:].split()) for line in lines if line.startswith(f"{mark} "))


@cache
def ordered(name: str) -> tuple[str, ...]:
    """A hand-kept list by its name."""
    lines = _CURATED.read_text(encoding="utf-8").splitlines()
    return tuple(word for line in lines if line.startswith(f"@ {name}: ") for word in line.partition(": ")[2].split())


@cache
def _kinds_of() -> tuple[tuple[str, frozenset[str]], ...]:
    lines = (line[2:].split(":") for line in _CURATED.read_text(encoding="utf-8").splitlines() if line.startswith("^ "))
    return tuple((kind.strip(), frozenset(members.split())) for kind, members in lines)


@cache
def _kept_words() -> frozenset[str]:
    """Every word of a hand-kept group: WordNet's everyday words lack some of them."""
    return frozenset().union(*_curated("="), *_curated("!"), *_curated("/"))


_ENDINGS = (
    ("'s", ""),
    ("ies", "y"),
    ("ves", "f"),
    ("es", ""),
    ("s", ""),
    ("ied", "y"),
    ("ed", "e"),
    ("ed", ""),
    ("ying", "ie"),
    ("ing", "e"),
    ("ing", ""),
    ("est", ""),
    ("est", "e"),
    ("er", ""),
    ("er", "e"),
)


@lru_cache(maxsize=50_000)
def lemmas(word: str) -> frozenset[str]:
    """The base forms that a token may stand for, itself included: "lying" is lie, "mice" mouse, "parked" park."""
    found = {word}
    known = entry(word)
    if known is not None:
        found |= known.bases
    for ending, base in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            stem = word[: len(word) - len(ending)] + base
            doubled = stem[:-1] if re.search(r"([bdgklmnprt])\1$", stem) else stem
            comparative = ending in {"er", "est"} and (known is not None)
            known_forms = {form for form in (stem, doubled) if entry(form) is not None or form in _kept_words()}
            found |= set() if comparative else known_forms
    if len(found) == 1 and word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        found.add(word[:-1])  # an unlisted plural
    return frozenset(found)


@lru_cache(maxsize=50_000)
def _groups(word: str) -> frozenset[int]:
    return frozenset(i for i, group in enumerate(_curated("=")) if not group.isdisjoint(lemmas(word)))


@lru_cache(maxsize=50_000)
def _kinds(word: str) -> tuple[frozenset[str], frozenset[str]]:
    """The curated kinds that the word is one of, and the curated members of the kind that it names."""
    forms = lemmas(word)
    above = frozenset(kind for kind, members in _kinds_of() if not members.isdisjoint(forms))
    below = frozenset().union(*(members for kind, members in _kinds_of() if kind in forms))
    return above, below


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(ordered("suffixes"))


def _derived(one: str, other: str) -> bool:
    """Whether one word is the other with a usual ending: wood and wooden, rain and rainy."""
    short, long = sorted((one, other), key=len)
    stem = short[:-1] if short.endswith(("e", "y")) and len(short) > 4 else short
    return len(stem) >= 4 and long.startswith(stem) and long[len(stem) :] in _suffixes() and is_known(short)


@lru_cache(maxsize=50_000)
def _opposed(word: str) -> frozenset[int]:
    return frozenset(i for i, group in enumerate(_curated("!")) if not group.isdisjoint(lemmas(word)))


@lru_cache(maxsize=50_000)
def _merged(word: str) -> Entry:
    """Relations of the word's base forms together."""
    entries = [known for form in lemmas(word) if (known := entry(form)) is not None]
    names = ("synonyms", "kinds", "opposites", "kin")
    return Entry(*(frozenset().union(*(getattr(known, name) for known in entries)) for name in names))


@lru_cache(maxsize=50_000)
def _contrasts(word: str) -> frozenset[int]:
    """The contrast sets that hold the word or its curated synonym."""
    forms = lemmas(word)
    return frozenset(i for i, group in enumerate(_curated("/")) if not group.isdisjoint(forms))


def is_known(word: str) -> bool:
    """Whether the lexicon knows any base form of the word."""
    return any(entry(form) is not None for form in lemmas(word))


@lru_cache(maxsize=200_000)
def kinship(one: str, other: str) -> Kinship:
    """How two tokens relate; symmetric."""
    if one > other:
        return kinship(other, one)
    mine, theirs = lemmas(one), lemmas(other)
    if mine & theirs:
        return Kinship.SAME
    if _derived(one, other) or _groups(one) & _groups(other) or _kinds(one)[0] & theirs or _kinds(other)[0] & mine:
        return Kinship.SAME
    if _opposed(one) & _opposed(other):
        return Kinship.OPPOSITE
    left, right = _merged(one), _merged(other)
    if left.opposites & theirs or right.opposites & mine:
        return Kinship.OPPOSITE
    if _contrasts(one) & _contrasts(other):
        return Kinship.CONTRAST
    related = left.synonyms | left.kinds | left.kin
    if related & theirs or (right.synonyms | right.kinds | right.kin) & mine:
        return Kinship.SAME
    return Kinship.UNKNOWN


def above(word: str) -> frozenset[str]:
    """The kinds that the word is one of: "animal" for "wolf"."""
    return _merged(word).kinds | _kinds(word)[0]


def is_kind(one: str, other: str) -> bool:
    """Whether one word names the other's kind and no closer bond is known: animal and dog."""
    if lemmas(one) & lemmas(other) or _groups(one) & _groups(other) or _derived(one, other):
        return False
    left, right = _merged(one), _merged(other)
    if left.synonyms & lemmas(other) or right.synonyms & lemmas(one):
        return False
    return kinship(one, other) is Kinship.SAME
