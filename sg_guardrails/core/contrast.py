"""Where two statements can't both hold: denied, counted otherwise, exchanged, bound or ordered otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import product

from sg_guardrails.core.alignment import EXCLUSIVE, SHORT, Alignment, align, numeral, one_thing, same, same_object
from sg_guardrails.core.facts import RELATIONS, Clause, Statement, Token, is_content
from sg_guardrails.core.lexicon import Kinship, above, kinship, lemmas, ordered
from sg_guardrails.core.orders import reordered

COPY = 0.6
"""Share of common words, in order, from which two sentences are one, edited: what was exchanged is the difference."""
COVERED = 0.65
"""Share of a denied clause's words that an affirming clause must have to contradict it."""
PARALLEL = 0.7
"""Coverage from which two clauses are about the same thing."""
_MANY = frozenset(ordered("many"))


def disagreement(one: Statement, other: Statement, *, corrected: bool = False) -> str | None:
    """Why two statements can't both hold, or None.

    Args:
        one: A statement.
        other: The other.
        corrected: Both answers open with the same yes or no, so that one may deny what the other replaces.
    """
    aligned = align(one.tokens, other.tokens)
    return (
        _denials(one, other, corrected=corrected)
        or _counts(one, other, aligned)
        or _contrasts(one, other, aligned)
        or _edits(one, other)
        or _bindings(one, other, aligned)
        or _exchanged(one, other)
        or reordered(one, other, aligned)
    )


def denies(clause: Clause, other: Statement) -> bool:
    """Whether the clause denies, read beside the other: "empty" denies nothing where that says "deserted"."""
    implied = [word for word in clause.implied if not any(same(word, twin) for twin in other.words)]
    return bool((clause.denials + len(implied)) % 2)


def _denials(one: Statement, other: Statement, *, corrected: bool) -> str | None:
    if len(one.clauses) == len(other.clauses) == 1 and not corrected:
        mine, theirs = one.clauses[0], other.clauses[0]
        return "negation" if denies(mine, other) != (denies(theirs, one) ^ _opposed(mine, theirs)) else None
    for said, answer in ((one, other), (other, one)):
        if any(denies(clause, answer) and _affirmed(clause, said, answer) for clause in said.clauses):
            return "negation"
    return None


def _opposed(one: Clause, other: Clause) -> bool:
    """Whether an odd number of unmatched words are opposites: "not open" against "closed" denies nothing."""
    aligned = align(one.tokens, other.tokens)
    places = RELATIONS - {"on", "off"}
    opposites = [
        (a, b)
        for a, b in product(aligned.left, aligned.right)
        if kinship(a.word, b.word) is Kinship.OPPOSITE and not {a.word, b.word} <= places
    ]
    return bool(len(opposites) % 2)


def _affirmed(clause: Clause, mine: Statement, theirs: Statement) -> bool:
    """Whether the other answer affirms what this clause denies."""
    if re.search(r"\b(?:other|else|more)\b", clause.text):
        return False  # "no other shapes" denies none of those named
    own = [token.word for twin in mine.clauses if not denies(twin, theirs) for token in twin.tokens]
    affirmed = [token.word for twin in theirs.clauses if not denies(twin, mine) for token in twin.tokens]
    for noun in clause.denies:
        named = [word for word in affirmed if not _kind_of(word, noun)]
        if any(same(noun, word) for word in named) and not any(same(noun, word) for word in own):
            return True
    content = [token for token in clause.tokens if token.word not in RELATIONS]
    best: tuple[float, bool] = (0.0, True)
    for twin in theirs.clauses:
        pairs = align(content, twin.tokens).pairs
        share = len({id(a) for a, b in pairs if not _kind_of(b.word, a.word)}) / len(content) if content else 0.0
        best = max(best, (share, denies(twin, mine) or _opposed(clause, twin)))
    return best[0] >= COVERED and not best[1]


def _kind_of(kind: str, word: str) -> bool:
    """Whether the first names the second's kind alone: "no wolf" leaves it an animal."""
    return not lemmas(kind) & lemmas(word) and bool(lemmas(kind) & above(word))


def _counts(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    mine = [token for token in aligned.left if numeral(token)]
    theirs = [token for token in aligned.right if numeral(token)]
    if any(_is_short(one, other) or _same_slot(a, b, one, other, aligned) for a, b in product(mine, theirs)):
        return "number"
    if any(
        _part(token, here) and "all" in there.words and "all" not in here.words
        for tokens, here, there in ((mine, one, other), (theirs, other, one))
        for token in tokens
    ):
        return "number"
    mirrored = tuple((b, a) for a, b in aligned.pairs)
    for tokens, here, there, pairs in ((mine, one, other, aligned.pairs), (theirs, other, one, mirrored)):
        for token in tokens:
            noun = here.neighbours(token)[1]
            if any(own is noun and _otherwise_many(token, own, partner, there) for own, partner in pairs):
                return "number"
    return None


def _part(number: Token, statement: Statement) -> bool:
    """Whether a number names some of more: "one of the lamps"."""
    return number.number is not None and statement.words[number.place + 1 : number.place + 2] == ("of",)


def _otherwise_many(number: Token, noun: Token, partner: Token, there: Statement) -> bool:
    """Whether the partner's phrase says one where the number says more, or many where it says one."""
    before = there.words[max(0, partner.place - 2) : partner.place]
    if number.number == 1:
        return not _MANY.isdisjoint(before)
    plural = noun.word.endswith("s") or len(lemmas(noun.word)) > 1
    return number.number is not None and number.number > 1 and plural and _single(partner, there)


def _single(token: Token, statement: Statement) -> bool:
    before = set(statement.words[max(0, token.place - 2) : token.place])
    if sum(bool(lemmas(token.word) & lemmas(twin.word)) for twin in statement.tokens) > 1:
        return False  # "a brown horse and a white horse" are two
    return bool(before & {"a", "an", "1"}) and not before & {"group", "crowd", "of"} and not token.word.endswith("s")


def _is_short(one: Statement, other: Statement) -> bool:
    return max(len(one.tokens), len(other.tokens)) <= SHORT


def _same_slot(a: Token, b: Token, one: Statement, other: Statement, aligned: Alignment) -> bool:
    """Whether the words before, or the words after, the two are partners."""
    partners = {(id(x), id(y)) for x, y in aligned.pairs}
    return any(
        (mine is None and theirs is None) or (id(mine), id(theirs)) in partners
        for mine, theirs in zip(one.neighbours(a), other.neighbours(b), strict=True)
    )


def _contrasts(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Unmatched words that exclude each other in one slot: red and blue, on and under, wet and dry."""
    loose = aligned.loose()
    left, right = (*aligned.left, *(a for a, _ in loose)), (*aligned.right, *(b for _, b in loose))
    for a, b in product(left, right):
        kin = Kinship.UNKNOWN if numeral(a) or numeral(b) else kinship(a.word, b.word)
        if kin not in EXCLUSIVE or ({a.word, b.word} <= RELATIONS and not same_object(a, b, one, other)):
            continue
        if kin is Kinship.OPPOSITE and denies(one.clauses[a.clause], other) != denies(other.clauses[b.clause], one):
            continue  # "not open" and "closed"
        if _is_short(one, other) or _same_slot(a, b, one, other, aligned):
            return f"{a.word} or {b.word}"
    return None


def _edits(one: Statement, other: Statement) -> str | None:
    """Content words exchanged for others in what is otherwise one sentence."""
    single = len(one.clauses) == len(other.clauses) == 1
    denied = single and denies(one.clauses[0], other) != denies(other.clauses[0], one)
    spared = RELATIONS.union(*(clause.implied for statement in (one, other) for clause in statement.clauses))
    for mine, theirs, replaced in _copies(one, other):
        for i, j, k, end in replaced:
            left = [word for word in mine[i:j] if is_content(word) and word not in spared and word not in theirs]
            right = [word for word in theirs[k:end] if is_content(word) and word not in spared and word not in mine]
            x = [word for word in left if not any(_akin(word, twin, denied=denied) for twin in right)]
            y = [word for word in right if not any(_akin(word, twin, denied=denied) for twin in left)]
            if x and y:
                return f"{x[0]} or {y[0]}"
    return None


def _copies(
    one: Statement, other: Statement
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], list[tuple[int, int, int, int]]]]:
    """Sentences that are edits of each other, with the spans that were replaced."""
    for mine in one.sentences:
        matchers = [(SequenceMatcher(None, mine, theirs, autojunk=False), theirs) for theirs in other.sentences]
        if not matchers:
            return
        matcher, theirs = max(matchers, key=lambda found: found[0].ratio())
        if matcher.ratio() >= COPY:
            yield mine, theirs, [(i, j, k, end) for kind, i, j, k, end in matcher.get_opcodes() if kind == "replace"]


def _akin(one: str, other: str, *, denied: bool) -> bool:
    kin = kinship(one, other)
    return kin is Kinship.SAME or (denied and kin is Kinship.OPPOSITE)


def _bindings(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Attributes of one family that differ on partners: "red cube" and "blue cube", "two cats" and "three cats"."""
    for a, b in aligned.pairs:
        own, twins = _attributes(a, one), _attributes(b, other)
        if not own or not twins:
            continue
        mine = [x for twin, y in aligned.pairs if y is b for x in _attributes(twin, one)]
        theirs = [y for x, twin in aligned.pairs if x is a for y in _attributes(twin, other)]
        for x, y in product(own, twins):
            exclusive = (numeral(x) and numeral(y)) or kinship(x.word, y.word) in EXCLUSIVE
            if exclusive and not any(one_thing(x, z) for z in theirs) and not any(one_thing(z, y) for z in mine):
                return f"{x.word} or {y.word} {a.word}"
    return None


def _attributes(token: Token, statement: Statement) -> list[Token]:
    """The content words that directly precede the token in its noun phrase; "blue and yellow" are two."""
    found: list[Token] = []
    here = statement.by_place
    at = token.place - 1
    while len(found) < 3:
        if found and at - 1 in here and statement.words[at] == "and":
            at -= kinship(here[at - 1].word, found[-1].word) is Kinship.CONTRAST
        if at not in here or here[at].clause != token.clause:
            break
        found.append(here[at])
        at -= 1
    return found


def _exchanged(one: Statement, other: Statement) -> str | None:
    """Contrasting words in two clauses that otherwise match: "on the left a suit" against "on the right a suit"."""
    if min(len(one.clauses), len(other.clauses)) < 2:
        return None
    for clause in one.clauses:
        best = max((align(clause.tokens, twin.tokens) for twin in other.clauses), key=lambda found: found.coverage)
        if len(clause.tokens) < 3 or best.coverage < PARALLEL:
            continue
        for a, b in product(best.left, best.right):
            placed = {a.word, b.word} <= RELATIONS and not same_object(a, b, one, other)
            if not placed and not numeral(a) and not numeral(b) and kinship(a.word, b.word) in EXCLUSIVE:
                return f"{a.word} or {b.word}"
    return None
