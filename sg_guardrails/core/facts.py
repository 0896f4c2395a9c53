"""What an answer states, as words: clauses of content words, which are denied, numbers, and what modifies what."""
# ruff: noqa: E501 - a pattern broken over lines is harder to read than a long one

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from sg_guardrails.core.lexicon import entry, lemmas, ordered
from sg_guardrails.core.stance import sentences
from sg_guardrails.core.wording import numbered, reworded

_TOKEN = re.compile(
    r"\d{1,2}:\d{2}|(?<![\w.])\d+(?:[-/]\d+)+|(?<![\w-])-\d+(?:\.\d+)?|\d+(?:\.\d+)?(?:st|nd|rd|th)?|@\w+|[^\W\d_]+(?:'[^\W\d_]+)?|[.,;:!?]|[^\w\s]",
    re.UNICODE,
)

NEGATORS = frozenset(ordered("negators"))
_IMPLIED = {
    "empty": None,
    "blank": None,
    "vacant": None,
    "unoccupied": None,
    "deserted": "person",
    "absent": None,
    "bald": "hair",
    "bare": None,
    "stationary": "move",
    "motionless": "move",
    "harmless": "dangerous",
    "missing": None,
    "vegetarian": "meat",
    "vegan": "meat",
}
"""Words that deny without a "not", and what they deny; none of it where the other answer says the same word."""
_FUNCTION = frozenset(ordered("function"))
"""Words of grammar."""
_FRAME = frozenset(ordered("frame"))
"""Words that frame an answer and state nothing about its subject."""
RELATIONS = frozenset(ordered("relations"))
"""Words that relate two things in space or direction."""


@dataclass(frozen=True, slots=True)
class Token:
    """One content word of an answer."""

    word: str
    """The word; for a number its value as text, for an ordinal ``#n``."""
    clause: int
    """Which clause of the answer it stands in."""
    place: int
    """Its place among all tokens of the answer, function words counted."""
    number: float | None = None
    """The value, where it is a number."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause: its content words, and whether it denies them."""

    tokens: tuple[Token, ...]
    denials: int
    """Negators in it."""
    implied: tuple[str, ...]
    """Words that deny by themselves, as written: "empty", "unhappy". They count where the other answer has none of their kind."""
    denies: frozenset[str]
    """The nouns that a "no", "without" or "lacks" denies outright."""
    text: str


@dataclass(frozen=True)
class Statement:
    """What an answer states."""

    clauses: tuple[Clause, ...]
    words: tuple[str, ...]
    """Every token of the text in order, function words and frame included."""
    sentences: tuple[tuple[str, ...], ...]
    """The words by sentence, without punctuation."""

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The content words in order."""
        return tuple(token for clause in self.clauses for token in clause.tokens)

    @cached_property
    def by_place(self) -> dict[int, Token]:
        """The content words by their place."""
        return {token.place: token for token in self.tokens}

    @cached_property
    def _at(self) -> dict[int, int]:
        return {id(token): i for i, token in enumerate(self.tokens)}

    def neighbours(self, token: Token) -> tuple[Token | None, Token | None]:
        """The content words before and after one of this statement's."""
        at = self._at[id(token)]
        return (self.tokens[at - 1] if at else None, self.tokens[at + 1] if at + 1 < len(self.tokens) else None)


MOST = 4_000
"""Characters of an answer that are compared word by word: the time grows with the product of two answers' lengths."""
_MOST_CLAUSES = 80
_MOST_SENTENCES = 40
_MOST_WORDS = 120
"""Words of one sentence."""


@lru_cache(maxsize=1024)
def state(text: str) -> Statement:
    """Read a plain text (`stance.plain`) as clauses of content words, its first `MOST` characters."""
    text = reworded(text[:MOST])
    clauses: list[Clause] = []
    words: list[str] = []
    spans: list[tuple[str, ...]] = []
    for sentence in sentences(text):
        start = len(words)
        for part in _clauses(sentence):
            clauses.append(_clause(part, len(clauses), words))
        spans.append(tuple(word for word in words[start:] if word[0].isalnum() or word[0] in "#-"))
    return Statement(
        tuple(clauses[:_MOST_CLAUSES]), tuple(words), tuple(span[:_MOST_WORDS] for span in spans[:_MOST_SENTENCES])
    )


def is_content(word: str) -> bool:
    """Whether a word states something: no function word, no frame, no negator."""
    return (
        word not in _FUNCTION and word not in _FRAME and word not in NEGATORS and (word[0].isalnum() or word[0] in "#-")
    )


_CLAUSE_BREAK = re.compile(
    r"[,;:] |\.\.\.| - | (?:but|while|whereas|although|though|because|which|who) "
    r"| and (?=(?:(?:the|a|an|his|her|their|its|this|that|there|it|he|she|they|\w+)\s+){0,4}(?:is|are|was|were|has|have|does|do|no|not|without)\b)"
)


def _clauses(sentence: str) -> list[str]:
    return [part for part in _CLAUSE_BREAK.split(sentence) if part.strip()] or [sentence]


def _clause(text: str, index: int, words: list[str]) -> Clause:
    raw = numbered(_TOKEN.findall(text))
    denials, denied_nouns, tokens, implied = 0, [], [], []
    open_denial = False
    for word, number in raw:
        place = len(words)
        opposed = _prefixed(word)
        words.append(word)
        if number == 0:
            denials, open_denial = denials + 1, True
            continue
        if opposed or word in _IMPLIED:
            implied.append(word)
            kept = opposed or _IMPLIED[word]
            tokens += [Token(kept, index, place)] if kept else []
            continue
        if word in NEGATORS:
            denials += 1
            open_denial = word in {"no", "without", "lack", "lacks", "lacking", "none", "nor", "neither"}
            if word == "nobody":
                tokens.append(Token("person", index, place))
                denied_nouns.append("person")
            continue
        if number is None and (word in _FUNCTION or (not word[0].isalnum() and word[0] != "#")):
            open_denial = open_denial and word in {"of", "the", "any", "a", "an", "single"}
            continue
        if number is None and word in _FRAME:
            open_denial = open_denial and word in {"sign", "evidence", "visible", "part"}
            continue
        tokens.append(Token(word, index, place, number))
        if open_denial and number is None:
            denied_nouns.append(word)
            open_denial = False
    return Clause(tuple(tokens), denials, tuple(implied), frozenset(denied_nouns), text.strip())


def _prefixed(word: str) -> str | None:
    """The word that an "un-", "in-" or "dis-" denies, where the lexicon calls the two opposites: unhappy is not happy."""
    if word.endswith("less") and len(word) > 6:
        base = word[:-4].rstrip("-")
        return base if len(lemmas(base)) > 1 or entry(base) is not None else None
    for prefix in ("un", "in", "im", "ir", "dis", "non"):
        if word.startswith(prefix) and len(word) > len(prefix) + 3:
            base = word[len(prefix) :].lstrip("-")
            known = entry(word)
            if (known is not None and base in known.opposites) or (
                prefix == "un" and len(base) >= 4 and (entry(base) is not None or len(lemmas(base)) > 1)
            ):
                return base
    return None
