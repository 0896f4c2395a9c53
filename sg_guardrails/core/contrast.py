"""Where two statements can't both hold: denied, counted otherwise, exchanged, bound or ordered otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import product

from sg_guardrails.core.facts import RELATIONS, Clause, Statement, Token, is_content, same_number
from sg_guardrails.core.lexicon import Kinship, above, is_kind, kinship, lemmas, ordered

SHORT = 9
"""Content words up to which an answer is short: each of its words is then the answer."""
COPY = 0.6
"""Share of common words, in order, from which two sentences are one, edited: what was exchanged is the difference."""
COVERED = 0.65
"""Share of a denied clause's words that an affirming clause must have to contradict it."""
PARALLEL = 0.7
"""Coverage from which two clauses are about the same thing."""
_EXCLUSIVE = frozenset({Kinship.CONTRAST, Kinship.OPPOSITE})
_MANY = frozenset(ordered("many"))
_SYMMETRIC = frozenset(["beside", "near", "with", "and"])


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
    pairs = [(a, b) for a in mine for b in theirs if _one_thing(a, b)]
    exact = {id(token) for a, b in pairs if a.word == b.word for token in (a, b)}
    kept = [(a, b) for a, b in pairs if not exact & {id(a), id(b)} or lemmas(a.word) & lemmas(b.word)]
    left, right = {id(a) for a, _ in kept}, {id(b) for _, b in kept}
    return Alignment(
        tuple(kept),
        tuple(a for a in mine if id(a) not in left),
        tuple(b for b in theirs if id(b) not in right),
    )


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
        or _orders(one, other, aligned)
    )


def denies(clause: Clause, other: Statement) -> bool:
    """Whether the clause denies, read beside the other: "empty" denies nothing where that says "deserted"."""
    implied = [word for word in clause.implied if not any(_same(word, twin) for twin in other.words)]
    return bool((clause.denials + len(implied)) % 2)


def _same(one: str, other: str) -> bool:
    return kinship(one, other) is Kinship.SAME


def _one_thing(a: Token, b: Token) -> bool:
    if a.number is not None or b.number is not None:
        return a.number is not None and b.number is not None and same_number(a.number, b.number)
    return _same(a.word, b.word)


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
        if any(_same(noun, word) for word in named) and not any(_same(noun, word) for word in own):
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
    mine = [token for token in aligned.left if _numeral(token)]
    theirs = [token for token in aligned.right if _numeral(token)]
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


def _numeral(token: Token) -> bool:
    return token.number is not None or token.word[0] == "#" or token.word[0].isdigit()


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
        kin = Kinship.UNKNOWN if _numeral(a) or _numeral(b) else kinship(a.word, b.word)
        if kin not in _EXCLUSIVE or ({a.word, b.word} <= RELATIONS and not _same_object(a, b, one, other)):
            continue
        if kin is Kinship.OPPOSITE and denies(one.clauses[a.clause], other) != denies(other.clauses[b.clause], one):
            continue  # "not open" and "closed"
        if _is_short(one, other) or _same_slot(a, b, one, other, aligned):
            return f"{a.word} or {b.word}"
    return None


def _same_object(a: Token, b: Token, one: Statement, other: Statement) -> bool:
    """Whether two relations have one object: "on the bed", "under the bed"; not "A left of B", "B right of A"."""
    after = [token for token in one.tokens if token.place > a.place and token.clause == a.clause]
    behind = [token for token in other.tokens if token.place > b.place and token.clause == b.clause]
    ahead = [token for token in other.tokens if token.place < b.place and token.clause == b.clause]
    if not after or not behind:
        return True
    same, crossed = len(align(after, behind).pairs), len(align(after, ahead).pairs)
    return same > crossed or (same == crossed > 0 and after[0].word == behind[0].word)


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
            exclusive = (_numeral(x) and _numeral(y)) or kinship(x.word, y.word) in _EXCLUSIVE
            if exclusive and not any(_one_thing(x, z) for z in theirs) and not any(_one_thing(z, y) for z in mine):
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
            placed = {a.word, b.word} <= RELATIONS and not _same_object(a, b, one, other)
            if not placed and not _numeral(a) and not _numeral(b) and kinship(a.word, b.word) in _EXCLUSIVE:
                return f"{a.word} or {b.word}"
    return None


def _orders(one: Statement, other: Statement, aligned: Alignment) -> str | None:
    """What changed places, unless a converse relation changed with it ("A behind B" and "B in front of A")."""
    converse = any(
        {a.word, b.word} <= RELATIONS and kinship(a.word, b.word) in _EXCLUSIVE and not _same_object(a, b, one, other)
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
        if a.clause != b.clause or abs(a.place - b.place) <= 2 or kinship(a.word, b.word) not in _EXCLUSIVE:
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
            or _same(a.word, b.word)
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
    if not alive or _same(a.word, x.word):
        return None
    verb, twin = mine[0], theirs[0]
    met = any(_same(x.word, token.word) for token in mine[1:])
    met = met and any(_same(a.word, token.word) for token in theirs[1:])
    converse = not {*lemmas(verb.word), *lemmas(twin.word)}.isdisjoint(_CONVERSE)
    return None if not met or converse or _same(verb.word, twin.word) else f"{a.word} {verb.word} {x.word}"


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
    if after is None or behind is None or _same(after.word, behind.word):
        return None
    crossed = any(_same(after.word, token.word) for token in other.tokens if token.place < there)
    crossed = crossed and any(_same(behind.word, token.word) for token in one.tokens if token.place < at)
    return f"{after.word} or {behind.word} than" if crossed else None


def _shared(one: Sequence[Token], other: Sequence[Token]) -> int:
    return len({id(a) for a, b in product(one, other) if _one_thing(a, b)})


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
