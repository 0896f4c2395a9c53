"""Where two statements have the same words in other places: who does it to whom, what comes first, which is more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from sg_guardrails.core.alignment import EXCLUSIVE, SHORT, Alignment, one_thing, same, same_object
from sg_guardrails.core.facts import RELATIONS, Statement, Token
from sg_guardrails.core.lexicon import above, kinship, lemmas, ordered

_SYMMETRIC = frozenset(["beside", "near", "with", "and"])


def reordered(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """What changed places, unless a converse relation changed with it ("A behind B" and "B in front of A")."""
    converse = any(
        {a.word, b.word} <= RELATIONS and kinship(a.word, b.word) in EXCLUSIVE and not same_object(a, b, one, other)
        for a, b in product(aligned.left, aligned.right)
    )
    if converse:
        return None
    return (
        _swaps(one, other, aligned)
        or _roles(one, other, aligned)
        or _givers(one, other)
        or _turned(one, other)
        or _sequence(one, other)
        or _compared(one, other, aligned)
    )


def _swaps(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Contrasting words that changed places: "rise until June, then fall" against "fall until June, then rise"."""
    if _passive(one) != _passive(other):
        return None
    partners = {(id(a), id(b)) for a, b in aligned.pairs}
    for (a, x), (b, y) in product(aligned.pairs, repeat=2):
        if a.clause != b.clause or abs(a.place - b.place) <= 2 or kinship(a.word, b.word) not in EXCLUSIVE:
            continue  # two words apart at most are a list: "blue and yellow" is "yellow and blue"
        after, swapped, kept = one.neighbours(a)[1], other.neighbours(y)[1], other.neighbours(x)[1]
        if after and swapped and (id(after), id(swapped)) in partners and (id(after), id(kept)) not in partners:
            return f"{a.word} or {b.word} {after.word}"
    return None


def _roles(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Two partners that change sides of one relation: "a dog chases a cat" against "a cat chases a dog"."""
    partners = {(id(a), id(b)) for a, b in aligned.pairs}
    for relation, twin in aligned.pairs:
        (a, b), (x, y) = one.neighbours(relation), other.neighbours(twin)
        if relation.number is not None or relation.word in _SYMMETRIC or not (a and b and x and y):
            continue
        if (
            not a.clause == b.clause == relation.clause
            or not x.clause == y.clause == twin.clause
            or same(a.word, b.word)
        ):
            continue
        kept = {(id(a), id(x)), (id(b), id(y))} <= partners
        crossed = {(id(a), id(y)), (id(b), id(x))} <= partners
        rooted = not {(id(relation), id(x)), (id(relation), id(y))}.isdisjoint(partners)
        if (crossed or kept) and rooted:
            continue  # words of one root, "sleeping" and "bed", are partners all around
        passive = _by_follows(relation, one) != _by_follows(twin, other)
        if (kept if passive else crossed) and kept != crossed:
            return f"{a.word} {relation.word} {b.word}"
    return None


def _givers(one: Statement, other: Statement) -> str | None:
    """Giver and taker exchanged: "a man hands a guard his bag" against "a guard hands a man his bag"."""
    if _passive(one) or _passive(other):
        return None
    for verb, twin in product(one.tokens, other.tokens):
        if verb.word != twin.word or not _GIVES.match(verb.word):
            continue
        giver, taker = one.neighbours(verb)[0], other.neighbours(twin)[0]
        if not giver or not taker or giver.clause != verb.clause or taker.clause != twin.clause:
            continue
        after = [token for token in one.tokens if token.clause == verb.clause and token.place > verb.place]
        behind = [token for token in other.tokens if token.clause == twin.clause and token.place > twin.place]
        exact = any(taker.word == token.word for token in after) and any(giver.word == token.word for token in behind)
        if exact and giver.word != taker.word:
            return f"{giver.word} or {taker.word} {verb.word}"
    return None


def _turned(one: Statement, other: Statement) -> str | None:
    """Doer and done-to exchanged under another verb: "a guard stops a man" against "a man attacks a guard"."""
    if len(one.clauses) != 1 or len(other.clauses) != 1 or "by" in one.words or "by" in other.words:
        return None
    if min(len(one.tokens), len(other.tokens)) < 3 or max(len(one.tokens), len(other.tokens)) > SHORT:
        return None
    (a, *mine), (x, *theirs) = one.tokens, other.tokens
    alive = bool(_ALIVE & above(a.word)) and bool(_ALIVE & above(x.word))
    if not alive or same(a.word, x.word):
        return None
    verb, twin = mine[0], theirs[0]
    met = any(same(x.word, token.word) for token in mine[1:])
    met = met and any(same(a.word, token.word) for token in theirs[1:])
    converse = not {*lemmas(verb.word), *lemmas(twin.word)}.isdisjoint(_CONVERSE)
    return None if not met or converse or same(verb.word, twin.word) else f"{a.word} {verb.word} {x.word}"


_ALIVE = frozenset(["person", "animal", "people", "human", "worker", "adult"])
_CONVERSE = frozenset(ordered("converse"))
"""Words whose two sides may change places and say the same: one leads, the other follows."""
_GIVES = re.compile(
    r"(?:hand|give|gave|pass|throw|threw|toss|lend|lent|sell|sold|send|sent|show|offer|serve|teach|taught|tell|told|pay|paid"
    r"|read|bring|brought|feed|fed|kick|roll|deliver|return|lead|introduce|push|pull|carry|carries)(?:s|es|ed|ing)?$"
)
_SEQUENCE = re.compile(r"before|after|then|until|afterwards?|later")


def _sequence(one: Statement, other: Statement) -> str | None:
    """Two events in the other order: "tastes it before salting it" against "salts it and then tastes it"."""
    mine, theirs = _events(one), _events(other)
    if not mine or not theirs:
        return None
    kept = _shared(mine[0], theirs[0]) + _shared(mine[1], theirs[1])
    crossed = _shared(mine[0], theirs[1]) + _shared(mine[1], theirs[0])
    both = min(_shared(mine[0], theirs[1]), _shared(mine[1], theirs[0]))
    return "order of events" if both and crossed >= kept and not _shared(mine[1], theirs[1]) else None


def _compared(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """The two sides of a "than" exchanged: "more men than women" against "more women than men"."""
    if aligned.left or aligned.right or not one.words.count("than") == other.words.count("than") == 1:
        return None
    at, there = one.words.index("than"), other.words.index("than")
    after = next((token for token in one.tokens if token.place > at), None)
    behind = next((token for token in other.tokens if token.place > there), None)
    if after is None or behind is None or same(after.word, behind.word):
        return None
    crossed = any(same(after.word, token.word) for token in other.tokens if token.place < there)
    crossed = crossed and any(same(behind.word, token.word) for token in one.tokens if token.place < at)
    return f"{after.word} or {behind.word} than" if crossed else None


def _shared(one: Sequence[Token], other: Sequence[Token]) -> int:
    return len({id(a) for a, b in product(one, other) if one_thing(a, b)})


def _events(statement: Statement) -> tuple[list[Token], list[Token]] | None:
    """What comes first and what follows, where one word of order says so."""
    places = [i for i, word in enumerate(statement.words) if _SEQUENCE.fullmatch(word)]
    if len(places) != 1 or len(statement.sentences) > 2:
        return None
    at, word = places[0], statement.words[places[0]]
    split, leads = at, not any(token.place < at for token in statement.tokens)
    if leads:
        split = next((i for i in range(at, len(statement.words)) if statement.words[i] in {",", "."}), -1)
    before = [token for token in statement.tokens if token.place < split and token.place != at]
    behind = [token for token in statement.tokens if token.place > split and token.place != at]
    if not before or not behind:
        return None
    turned = (word == "after") != (leads and word in {"before", "after", "until"})
    return (behind, before) if turned else (before, behind)


def _by_follows(token: Token, statement: Statement) -> bool:
    """Whether the word may be a passive's participle: "chased by", "let in by", not "pays by" or "paying by"."""
    if token.word.endswith(("s", "ing")):
        return False
    before, after = statement.words[max(0, token.place - 2) : token.place], statement.words[token.place + 1 :]
    if after[:1] == ("by",) or (after[1:2] == ("by",) and after[0] in _PARTICLES):
        return True
    return after[:1] in {("in",), ("with",)} and bool(_COVERED.fullmatch(token.word)) and not _BE.isdisjoint(before)


_COVERED = re.compile(
    r"(?:cover|blanket|fill|coat|surround|lin|topp|pack|crowd|decorat|adorn|wrapp|shroud|load|litter|stain|flood)ed"
)
"""A passive may name its doer with "in" or "with" here: "covered in snow"."""
_BE = frozenset(["is", "are", "was", "were", "being"])
_PARTICLES = frozenset(["in", "out", "up", "down", "off", "on", "away", "over", "back"])


def _passive(statement: Statement) -> bool:
    return any(_by_follows(t, statement) and t.word.endswith(("ed", "en", "n", "t")) for t in statement.tokens)
