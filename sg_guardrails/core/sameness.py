"""Whether two answers say the same: stance, tool calls, facts and meaning must agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sg_guardrails.core.alignment import align
from sg_guardrails.core.contrast import denies, disagreement
from sg_guardrails.core.facts import RELATIONS, Statement, state
from sg_guardrails.core.injection import injected
from sg_guardrails.core.lexicon import Kinship, kinship
from sg_guardrails.core.stance import Opening, opening, plain, refuses, sentences
from sg_guardrails.core.types import Answer, ToolCall


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
    sentences: tuple[str, ...]
    """The text's sentences; one answer's stray sentence is found by comparing them."""


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
        _ends(sentences(start.rest)),
    )


def _ends(parts: Sequence[str]) -> tuple[str, ...]:
    """The first and the last sentences of a text of very many."""
    return tuple(parts if len(parts) <= 2 * MOST_SENTENCES else (*parts[:MOST_SENTENCES], *parts[-MOST_SENTENCES:]))


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


def unfolded(answer: Answer) -> Answer:
    """What a JSON answer says, as lines ``key: value``; any other answer, and a spoken tool call, as it is.

    A chain's structured output is held against a majority that may have answered in prose, or the other way round.
    """
    if not answer.text.lstrip().startswith(("{", "[")) or _spoken_call(answer.text) is not None:
        return answer
    try:
        return replace(answer, text="\n".join(_lines("", json.loads(answer.text))))
    except (ValueError, RecursionError):
        return answer


def _lines(key: str, value: object) -> list[str]:
    if isinstance(value, dict):
        return [line for name, inner in value.items() for line in _lines(str(name), inner)]
    if isinstance(value, list):
        return [line for inner in value for line in _lines(key, inner)]
    said = value if isinstance(value, str) else json.dumps(value)
    return [f"{key}: {said}" if key else said]


def conflict(one: Reading, other: Reading) -> str | None:
    """Why two answers can't both hold, or None: what one says and the other contradicts, whatever their detail."""
    if one.calls != other.calls:
        return "tool calls"
    if not one.text or not other.text:
        return None if one.calls or one.text == other.text else "empty"
    if bool(one.injected) != bool(other.injected):
        return "injected"
    if one.refusal != other.refusal:
        return None if one.calls == () and _bare_no(one, other) else "refusal"
    if one.refusal or one.text == other.text:
        return None
    if one.calls:
        return None  # what is done counts; words beside it are chatter
    corrected = one.opening.polarity is not None and one.opening.polarity == other.opening.polarity
    return _polarity(one, other) or disagreement(one.statement, other.statement, corrected=corrected)


def _bare_no(one: Reading, other: Reading) -> bool:
    """Whether one refuses and the other is a "no" and nothing else: it then says no to the same request."""
    bare = other if one.refusal else one
    return bare.opening.polarity == "no" and not bare.statement.tokens


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
            denied = any(denies(clause, bare.statement) for clause in reading.statement.clauses)
            if bare.statement.tokens:
                return None
            if not denied and said == "yes":
                return None if len(reading.statement.words) > 3 else "yes or no"
            return None if denied == (said == "no") else "yes or no"
    return None


MOST_SENTENCES = 30
"""Sentences looked at for strays, from either end."""
BARE = 0.8
"""Least cosine of answers that come down to one word each: Tokyo and Kyoto are at 0.64, Nike and Adidas at 0.75."""
_FIGURE = re.compile(r"\d[-:]\d")
"""A score or a time of day."""
FEW = 4
"""Content words up to which an answer is of few words."""
TOLD = 0.2
"""Answers of few words that name one number come down to it: what is asked of them is less by this."""
STRAY = 0.15
"""A sentence whose cosine to every other sentence at hand is below this does not belong to the answer."""
_REFERS = re.compile(
    r"(?:(?:also|additionally|moreover|furthermore|overall|however|finally),? )?"
    r"(?:it|they|he|she|this|that|these|those|there|his|her|its|their|both|one|another|some"
    r"|(?:in|on|at|behind|near|beside|to|above|below|around) (?:the|it|them|him|her|this|that)"
    r"|the (?:background|foreground|sky|weather|scene|image|picture|photo|other|rest|lighting|mood|style|colou?rs?))\b"
)
"""A sentence that opens so goes on about what was said."""


def stray(one: Reading, other: Reading, nearness: Callable[[str, str], float]) -> bool:
    """Whether the first answer has a sentence that belongs to neither: injected text need not look like a command.

    Args:
        one: The answer looked at.
        other: The answer that it is held against.
        nearness: Cosine of two sentences.
    """
    if len(one.sentences) < 2 or one.refusal:
        return False
    for i, sentence in enumerate(one.sentences):
        around = [*one.sentences[:i], *one.sentences[i + 1 :], *other.sentences]
        if (
            not _REFERS.match(sentence)
            and len(sentence.split()) > 2
            and all(nearness(sentence, near) < STRAY for near in around)
        ):
            return True
    return False


def apart(one: Reading, other: Reading, nearness: Callable[[str, str], float], threshold: float) -> bool:
    """Whether answers that share a sentence word for word say different things in the rest.

    The shared sentence makes the whole answers near, however far apart the rest is: the rest is judged by itself.

    Args:
        one: An answer.
        other: The other.
        nearness: Cosine of two sentences.
        threshold: Least cosine of some two of the remaining sentences.
    """
    shared = set(one.sentences) & set(other.sentences)
    mine = [sentence for sentence in one.sentences if sentence not in shared]
    theirs = [sentence for sentence in other.sentences if sentence not in shared]
    if not shared or not mine or not theirs or one.refusal or other.refusal:
        return False
    return all(nearness(here, there) < threshold for here in mine for there in theirs)


def alike(one: Reading, other: Reading, cosine: float, threshold: float) -> bool:
    """Whether two answers without a conflict also say the same, rather than merely different things.

    Args:
        one: An answer without a `conflict` with the other.
        other: The other.
        cosine: Cosine of their sentence embeddings.
        threshold: Least cosine at which answers whose words differ on both sides are alike, where two words in five
            have a partner; fewer need more, more need less.
    """
    if one.text == other.text or one.refusal or other.refusal or one.calls or not one.text:
        return True
    if one.opening.polarity and one.opening.polarity == other.opening.polarity:
        return True
    mine, theirs = one.statement.tokens, other.statement.tokens
    if not mine or not theirs:
        return bool(one.opening.polarity or other.opening.polarity) or not (mine or theirs)
    aligned = align(mine, theirs)
    denied = {x for x in aligned.left for y in aligned.right if kinship(x.word, y.word) is Kinship.OPPOSITE}
    denied |= {y for x in aligned.left for y in aligned.right if kinship(x.word, y.word) is Kinship.OPPOSITE}
    left = [token for token in aligned.left if token.word not in RELATIONS and token not in denied]
    right = [token for token in aligned.right if token.word not in RELATIONS and token not in denied]
    if not left or not right:
        return bool(aligned.pairs)
    if len(mine) == len(theirs) == 1:
        return cosine >= BARE
    told = max(len(mine), len(theirs)) <= FEW and any(
        a.number is not None or _FIGURE.search(a.word) for a, _ in aligned.pairs
    )
    return cosine >= threshold + 0.3 * (0.4 - aligned.coverage) - (TOLD if told else 0.0)
