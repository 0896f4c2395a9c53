"""Whether two answers say the same: stance, tool calls, facts and meaning must agree; the first that differs is named."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sg_guardrails.core.facts import RELATIONS, Clause, Statement, Token, same_number, state
from sg_guardrails.core.lexicon import Kinship, is_known, kinship, lemmas
from sg_guardrails.core.stance import Opening, injected, opening, plain, refuses
from sg_guardrails.core.types import Answer, ToolCall

SHORT = 9
"""Content words up to which an answer is short: each of its words is then the answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer as the vote reads it."""

    text: str
    calls: tuple[str, ...]
    """Canonical tool calls, sorted: a multiset."""
    refusal: bool
    injected: frozenset[str]
    opening: Opening
    statement: Statement


def read(answer: Answer, refusal: float = 0.0) -> Reading:
    """Read an answer once; every comparison then works on the reading.

    Args:
        answer: The answer.
        refusal: The refusal scorer's probability for its text.
    """
    text, calls = plain(answer.text), answer.tool_calls
    if not calls and (spoken := _spoken_call(answer.text)) is not None:
        text, calls = "", (spoken,)
    start = opening(text)
    return Reading(
        text,
        tuple(sorted(call.canonical for call in calls)),
        refuses(text, refusal),
        injected(text),
        start,
        state(start.rest),
    )


def _spoken_call(text: str) -> ToolCall | None:
    """A tool call written as an answer's whole text, one JSON object with a name and arguments."""
    if not text.strip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("args", value.get("parameters")))
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None


def conflict(one: Reading, other: Reading) -> str | None:
    """Why two answers can't both hold, or None: what one says and the other contradicts, whatever their detail."""
    if one.calls != other.calls:
        return "tool calls"
    if not one.text or not other.text:
        return None if one.calls or one.text == other.text else "empty"
    if one.refusal != other.refusal:
        return "refusal"
    if bool(one.injected) != bool(other.injected):
        return "injected"
    if one.refusal:
        return None
    if one.text == other.text:
        return None
    if one.calls:  # what was done counts; words beside it are chatter unless they contradict outright
        return _facts(one.statement, other.statement)
    return _polarity(one, other) or _facts(one.statement, other.statement)


def _polarity(one: Reading, other: Reading) -> str | None:
    mine, theirs = one.opening.polarity, other.opening.polarity
    if one.opening.weak and one.statement.tokens:
        mine = None
    if other.opening.weak and other.statement.tokens:
        theirs = None
    if mine and theirs:
        return "yes or no" if mine != theirs else None
    if mine or theirs:
        said, reading, bare = (mine, other, one) if mine else (theirs, one, other)
        if not bare.statement.tokens or said == "no":
            denied = any(clause.denied for clause in reading.statement.clauses)
            if bare.statement.tokens:
                return None
            if not denied and said == "yes":
                return None if len(reading.statement.words) > 3 else "yes or no"
            return None if denied == (said == "no") else "yes or no"
    return None


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which content words of two statements name one thing."""

    pairs: tuple[tuple[Token, Token], ...]
    left: tuple[Token, ...]
    """Words of the first without a partner, relations left out."""
    right: tuple[Token, ...]

    @property
    def coverage(self) -> float:
        """Share of all words that have a partner, in [0, 1]."""
        matched = len({mine for mine, _ in self.pairs}) + len({theirs for _, theirs in self.pairs})
        total = matched + len(self.left) + len(self.right)
        return matched / total if total else 1.0


def align(mine: Sequence[Token], theirs: Sequence[Token]) -> Alignment:
    """Pair content words that name one thing."""
    pairs = [(a, b) for a in mine for b in theirs if _names_one(a, b)]
    exact = {id(a) for a, b in pairs if a.word == b.word} | {id(b) for a, b in pairs if a.word == b.word}
    pairs = [(a, b) for a, b in pairs if a.word == b.word or (id(a) not in exact and id(b) not in exact) or lemmas(a.word) & lemmas(b.word)]
    left, right = {id(a) for a, _ in pairs}, {id(b) for _, b in pairs}
    return Alignment(
        tuple(pairs),
        tuple(a for a in mine if id(a) not in left),
        tuple(b for b in theirs if id(b) not in right),
    )


def _names_one(a: Token, b: Token) -> bool:
    if a.number is not None or b.number is not None:
        return a.number is not None and b.number is not None and same_number(a.number, b.number)
    return kinship(a.word, b.word) is Kinship.SAME


def _facts(one: Statement, other: Statement) -> str | None:
    aligned = align(one.tokens, other.tokens)
    return (
        _denials(one, other)
        or _counts(one, other, aligned)
        or _contrasts(one, other, aligned)
        or _bindings(one, other, aligned)
        or _swaps(one, other, aligned)
        or _roles(one, other, aligned)
    )


def _denials(one: Statement, other: Statement) -> str | None:
    if len(one.clauses) == 1 and len(other.clauses) == 1:
        flipped = _opposites(one.clauses[0], other.clauses[0])
        return "negation" if one.clauses[0].denied != (other.clauses[0].denied ^ flipped) else None
    for mine, theirs in ((one, other), (other, one)):
        for clause in mine.clauses:
            if clause.denied and _affirmed(clause, mine, theirs):
                return "negation"
    return None


def _opposites(one: Clause, other: Clause) -> bool:
    """Whether an odd number of unmatched words are opposites: "not open" against "closed" denies nothing."""
    aligned = align(one.tokens, other.tokens)
    count = sum(kinship(a.word, b.word) is Kinship.OPPOSITE for a in aligned.left for b in aligned.right)
    return bool(count % 2)


def _affirmed(clause: Clause, mine: Statement, theirs: Statement) -> bool:
    """Whether the other answer affirms what this clause denies."""
    if re.search(r"\b(?:other|else|more)\b", clause.text):
        return False
    own = [token.word for other in mine.clauses if not other.denied for token in other.tokens]
    for noun in clause.denies:
        if any(kinship(noun, word) is Kinship.SAME for word in own):
            continue
        if any(kinship(noun, token.word) is Kinship.SAME for other in theirs.clauses if not other.denied for token in other.tokens):
            return True
    content = [token for token in clause.tokens if token.word not in RELATIONS]
    best, best_share = None, 0.0
    for other in theirs.clauses:
        aligned = align(content, other.tokens)
        share = len({id(a) for a, _ in aligned.pairs}) / len(content) if content else 0.0
        if share > best_share or (share == best_share and best is not None and best.denied != clause.denied and other.denied == clause.denied):
            best, best_share = other, share
    return best is not None and best_share >= 0.65 and not best.denied and not _opposites(clause, best)


_MANY = frozenset("several many numerous multiple few crowd group lots".split())


def _counts(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    short = max(len(one.tokens), len(other.tokens)) <= SHORT
    mine = [token for token in aligned.left if _numeral(token)]
    theirs = [token for token in aligned.right if _numeral(token)]
    if mine and theirs and (short or any(_same_slot(a, b, one, other, aligned) for a in mine for b in theirs)):
        return "number"
    for tokens, here, there, flip in ((mine, one, other, False), (theirs, other, one, True)):
        for token in tokens:
            noun = _next(token, here)
            if noun is None:
                continue
            for a, b in aligned.pairs:
                own, partner = (b, a) if flip else (a, b)
                if own is noun and _single(partner, there) and token.number is not None and token.number > 1 and _plural(noun):
                    return "number"
                if own is noun and token.number == 1 and any(word in _MANY for word in there.words[max(0, partner.place - 2) : partner.place]):
                    return "number"
    return None


def _numeral(token: Token) -> bool:
    return token.number is not None or token.word[0] == "#" or token.word[0].isdigit()


def _plural(token: Token) -> bool:
    return token.word.endswith("s") or token.word not in lemmas(token.word) or len(lemmas(token.word)) > 1


def _single(token: Token, statement: Statement) -> bool:
    before = statement.words[max(0, token.place - 2) : token.place]
    return any(word in {"a", "an", "1"} for word in before) and not token.word.endswith("s") and not set(before) & {"group", "crowd", "of"}


def _next(token: Token, statement: Statement) -> Token | None:
    later = [other for other in statement.tokens if other.place > token.place and other.clause == token.clause]
    return min(later, key=lambda other: other.place, default=None)


def _neighbours(token: Token, statement: Statement) -> tuple[Token | None, Token | None]:
    tokens = statement.tokens
    at = next(i for i, other in enumerate(tokens) if other is token)
    return (tokens[at - 1] if at else None, tokens[at + 1] if at + 1 < len(tokens) else None)


def _same_slot(a: Token, b: Token, one: Statement, other: Statement, aligned: Alignment) -> bool:
    """Whether the words before, or the words after, the two are partners."""
    partners = {(id(x), id(y)) for x, y in aligned.pairs}
    return any(
        (mine is None and theirs is None) or (id(mine), id(theirs)) in partners
        for mine, theirs in zip(_neighbours(a, one), _neighbours(b, other), strict=True)
    )


def _contrasts(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    short = max(len(one.tokens), len(other.tokens)) <= SHORT
    for a in aligned.left:
        for b in aligned.right:
            if _numeral(a) != _numeral(b):
                continue
            kin = kinship(a.word, b.word)
            if kin is Kinship.OPPOSITE and any(x.denied != y.denied for x in (one.clauses[a.clause],) for y in (other.clauses[b.clause],)):
                continue
            if kin in {Kinship.CONTRAST, Kinship.OPPOSITE} and (short or _same_slot(a, b, one, other, aligned)):
                return f"{a.word} or {b.word}"
    return None


def _bindings(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Attributes of one family on partners that differ: "red cube" against "blue cube" where both words stand on both sides."""
    for a, b in aligned.pairs:
        for x in _attributes(a, one):
            for y in _attributes(b, other):
                if kinship(x.word, y.word) in {Kinship.CONTRAST, Kinship.OPPOSITE} and not any(
                    kinship(x.word, z.word) is Kinship.SAME for z in _attributes(b, other)
                ):
                    return f"{x.word} or {y.word} {a.word}"
    return None


def _attributes(token: Token, statement: Statement) -> list[Token]:
    """The content words that directly precede the token in its noun phrase."""
    found: list[Token] = []
    at = token.place - 1
    by_place = {other.place: other for other in statement.tokens}
    while at in by_place and by_place[at].clause == token.clause and len(found) < 3:
        found.append(by_place[at])
        at -= 1
    return found


def _swaps(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Contrasting words that changed places: "rise until June, then fall" against "fall until June, then rise"."""
    partners = {(id(a), id(b)) for a, b in aligned.pairs}
    for a, x in aligned.pairs:
        for b, y in aligned.pairs:
            if kinship(a.word, b.word) not in {Kinship.CONTRAST, Kinship.OPPOSITE} or a.clause != b.clause:
                continue
            after, swapped, kept = _neighbours(a, one)[1], _neighbours(y, other)[1], _neighbours(x, other)[1]
            if after and swapped and (id(after), id(swapped)) in partners and (kept is None or (id(after), id(kept)) not in partners):
                return f"{a.word} or {b.word} {after.word}"
    return None


_SYMMETRIC = frozenset("beside near with and".split())


def _roles(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """Two partners that change places around one relation: "a dog chases a cat" against "a cat chases a dog"."""
    if ("by" in one.words) != ("by" in other.words):
        return None
    exact = [(a, b) for a, b in aligned.pairs if a.number is None]
    for relation, twin in exact:
        if relation.word in _SYMMETRIC:
            continue
        for a, x in exact:
            for b, y in exact:
                if a.word == b.word or kinship(a.word, b.word) is Kinship.SAME:
                    continue
                if a.clause == b.clause == relation.clause and x.clause == y.clause == twin.clause and (
                    a.place < relation.place < b.place and y.place < twin.place < x.place
                ):
                    between = [z for z in one.tokens if a.place < z.place < b.place and z is not relation]
                    beyond = [z for z in other.tokens if y.place < z.place < x.place and z is not twin]
                    if not between and not beyond:
                        return f"{a.word} {relation.word} {b.word}"
    return None


def alike(one: Reading, other: Reading, cosine: float, threshold: float) -> bool:
    """Whether two answers without a conflict also say the same, rather than merely different things.

    Args:
        one: An answer without a `conflict` with the other.
        other: The other.
        cosine: Cosine of their sentence embeddings.
        threshold: Least cosine at which answers whose words differ on both sides are alike.
    """
    if one.text == other.text or (one.refusal and other.refusal) or one.calls or not one.text:
        return True
    mine, theirs = one.statement.tokens, other.statement.tokens
    if not mine or not theirs:
        return True if (one.opening.polarity and other.opening.polarity) or not (mine or theirs) else bool(one.opening.polarity or other.opening.polarity)
    aligned = align(mine, theirs)
    denied = {x for x in aligned.left for y in aligned.right if kinship(x.word, y.word) is Kinship.OPPOSITE}
    denied |= {y for x in aligned.left for y in aligned.right if kinship(x.word, y.word) is Kinship.OPPOSITE}
    left = [token for token in aligned.left if token.word not in RELATIONS and token not in denied]
    right = [token for token in aligned.right if token.word not in RELATIONS and token not in denied]
    if not left or not right:
        return bool(aligned.pairs)
    if len(left) == 1 and len(right) == 1 and _same_slot(left[0], right[0], one.statement, other.statement, aligned):
        known = is_known(left[0].word) and is_known(right[0].word)
        if known:
            return False
    return cosine >= threshold


def verdict(one: Reading, other: Reading, cosine: float, threshold: float) -> str | None:
    """Why two answers are different, or None where they are the same."""
    reason = conflict(one, other)
    if reason is not None:
        return reason
    return None if alike(one, other, cosine, threshold) else "meaning"


def multiset(calls: Sequence[str]) -> Counter[str]:
    """Tool calls as a multiset: order does not count."""
    return Counter(calls)
