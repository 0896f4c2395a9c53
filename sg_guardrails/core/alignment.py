"""Which words of two statements name one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sg_guardrails.core.facts import Statement, Token
from sg_guardrails.core.lexicon import Kinship, is_kind, kinship, lemmas
from sg_guardrails.core.wording import same_number

SHORT = 9
"""Content words up to which an answer is short: each of its words is then the answer."""
EXCLUSIVE = frozenset({Kinship.CONTRAST, Kinship.OPPOSITE})
"""Kinships whose two words can't both be true of one thing."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which content words of two statements name one thing."""

    pairs: tuple[tuple[Token, Token], ...]
    left: tuple[Token, ...]
    """Words of the first without a partner."""
    right: tuple[Token, ...]
    """Words of the second without a partner."""

    @property
    def coverage(self) -> float:
        """Share of all words that have a partner, in [0, 1]."""
        matched = len({mine for mine, _ in self.pairs}) + len({theirs for _, theirs in self.pairs})
        total = matched + len(self.left) + len(self.right)
        return matched / total if total else 1.0

    def loose(self) -> list[tuple[Token, Token]]:
        """Pairs that only a thing and its kind make, where the thing has no closer partner: "dog" and "animal"."""
        kinds = {pair for pair in self.pairs if pair[0].number is None and is_kind(pair[0].word, pair[1].word)}
        firm = {token for pair in self.pairs if pair not in kinds for token in pair}
        return [pair for pair in self.pairs if pair in kinds and not firm & set(pair)]


def align(mine: Sequence[Token], theirs: Sequence[Token]) -> Alignment:
    """Pair content words that name one thing; a word written the same on both sides has no other partners."""
    pairs = [(a, b) for a in mine for b in theirs if one_thing(a, b)]
    exact = {id(token) for a, b in pairs if a.word == b.word for token in (a, b)}
    kept = [(a, b) for a, b in pairs if not exact & {id(a), id(b)} or lemmas(a.word) & lemmas(b.word)]
    left, right = {id(a) for a, _ in kept}, {id(b) for _, b in kept}
    return Alignment(
        tuple(kept),
        tuple(a for a in mine if id(a) not in left),
        tuple(b for b in theirs if id(b) not in right),
    )


def same(one: str, other: str) -> bool:
    """Whether two words name one thing."""
    return kinship(one, other) is Kinship.SAME


def one_thing(a: Token, b: Token) -> bool:
    """Whether two content words name one thing: equal values, or words that are `same`."""
    if a.number is not None or b.number is not None:
        return a.number is not None and b.number is not None and same_number(a.number, b.number)
    return same(a.word, b.word)


def numeral(token: Token) -> bool:
    """Whether a content word is a number, an ordinal or a time."""
    return token.number is not None or token.word[0] == "#" or token.word[0].isdigit()


def same_object(a: Token, b: Token, one: Statement, other: Statement) -> bool:
    """Whether two relations have one object: "on the bed", "under the bed"; not "A left of B", "B right of A"."""
    after = [token for token in one.tokens if token.place > a.place and token.clause == a.clause]
    behind = [token for token in other.tokens if token.place > b.place and token.clause == b.clause]
    ahead = [token for token in other.tokens if token.place < b.place and token.clause == b.clause]
    if not after or not behind:
        return True
    straight, crossed = len(align(after, behind).pairs), len(align(after, ahead).pairs)
    return straight > crossed or (straight == crossed > 0 and after[0].word == behind[0].word)
