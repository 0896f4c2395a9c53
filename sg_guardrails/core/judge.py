"""The judge: Vote and answers against the policy's rules. The winning cluster is judged by the share that violates."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import and_, or_
from typing import Literal

import numpy as np
import re2
from numpy.typing import NDArray

from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import (
    AgreementBelow,
    All,
    AnyOf,
    Condition,
    Disagrees,
    Not,
    Regex,
    Rule,
    Scored,
    Words,
)
from sg_guardrails.core.types import ACTIONS, Action, Answer, Finding, Scorer, Status, Verdict, Vote

Bools = NDArray[np.bool_]
_INVISIBLE = frozenset("\u034f\u115f\u1160\u3164\uffa0") | frozenset(map(chr, range(0xFE00, 0xFE10)))
"""Letters and marks by category that show nothing; format characters (Cf) are told by theirs."""
STATUS: dict[Action, Status] = {
    "allow": "passed",
    "flag": "flagged",
    "rewrite": "rewritten",
    "block": "blocked",
    "raise": "blocked",
}


@dataclass(frozen=True, slots=True)
class Case:
    """All that the rules may look at."""

    asked: Sequence[str] = ()
    """The text of each user turn."""
    answers: Sequence[Answer] = ()
    vote: Vote | None = None
    """Over `answers`; None where nothing was sampled."""
    candidate: Answer | None = None
    """The answer under review, where someone else produced it."""
    clean: Answer | None = None
    """The answer to the unperturbed prompt, where there are others beside it."""
    disagrees: Callable[[Literal["candidate", "clean"]], bool] = lambda _kind: False
    """Whether that answer contradicts the majority. Called only for rules that ask."""
    scorers: Mapping[str, Scorer] = field(default_factory=dict)


def judge(policy: Policy, case: Case) -> Verdict:
    """Hold the case against every rule; the strictest enforced finding decides.

    Raises:
        PolicyError: If a rule names a scorer that `case` does not hold.
    """
    findings = tuple(finding for rule in policy.rules for finding in _findings(rule, policy, case))
    acting = [finding.action for finding in findings if not finding.observed]
    watching = [finding.action for finding in findings if finding.observed]
    action: Action = max(acting, key=ACTIONS.index, default="allow")
    would: Action = max(watching, key=ACTIONS.index, default="allow")
    stricter = ACTIONS.index(would) > ACTIONS.index(action)
    return Verdict(action, findings, would_have=would if stricter else None)


def hand_on(policy: Policy, verdict: Verdict, case: Case) -> tuple[Status, Answer | None, str]:
    """What the verdict makes of the case: the status, the answer handed on (None: the policy's text), and the text."""
    elected = _spokesman(policy, case)
    unchanged = case.candidate or elected
    if policy.mode == "observe" and case.candidate is None and case.clean is not None:
        unchanged = case.clean  # observing changes nothing: the model's own answer goes on
    if verdict.action in ("allow", "flag"):
        if unchanged is None:
            raise GuardError("there is nothing to hand on: no answer of the majority passes every rule")
        return STATUS[verdict.action], unchanged, unchanged.text
    if verdict.action == "rewrite" and elected is not None and _representable(policy, verdict, case.vote):
        return "rewritten", elected, elected.text
    deciding = next(item for item in verdict.findings if item.action == verdict.action and not item.observed)
    return STATUS[verdict.action], None, _text(policy, deciding, case.vote)


def _spokesman(policy: Policy, case: Case) -> Answer | None:
    """The representative, or where it breaks an acting rule itself the first member of its cluster that breaks none.

    A cluster passes by the share of its members; what goes out is one text, and that one must be sound.
    """
    if case.vote is None:
        return None
    order = dict.fromkeys((case.vote.choice, *case.vote.members))
    texts = {index: judged_text(case.answers[index]) for index in order}
    acting = [
        rule
        for rule in policy.rules
        if "observe" not in (policy.mode, rule.mode)
        and rule.where in ("answer", "winner", "any")
        and rule.action not in ("allow", "flag")
        and any(isinstance(part, Words | Regex | Scored) and not _of_user(part) for part in _parts(rule.when))
    ]
    for index, text in texts.items():
        if not any(_matches(rule.when, [text], case)[0] for rule in acting):
            return case.answers[index]
    return None


def _of_user(part: Condition) -> bool:
    return isinstance(part, Scored) and part.of == "user"


def _representable(policy: Policy, verdict: Verdict, vote: Vote | None) -> bool:
    """Whether the majority may stand in: every acting rule says so, and none found fault with the majority itself."""
    rules = {rule.id: rule for rule in policy.rules}
    acting = [item for item in verdict.findings if not item.observed and item.action not in ("allow", "flag")]
    faultless = all(item.where == "candidate" and rules[item.rule].rewrite == "representative" for item in acting)
    return faultless and vote is not None and not vote.abstained


def _text(policy: Policy, deciding: Finding, vote: Vote | None) -> str:
    texts = policy.texts
    if deciding.category in texts.categories:
        return texts.categories[deciding.category]
    if deciding.action != "rewrite":
        return texts.blocked
    return texts.abstained if vote is not None and vote.abstained else texts.rewritten


def missing_scorers(policy: Policy, known: Iterable[str]) -> list[str]:
    """The scorers that the policy's rules name and `known` lacks, sorted."""
    named = {part.scorer for rule in policy.rules for part in _parts(rule.when) if isinstance(part, Scored)}
    return sorted(named - set(known))


def judged_text(answer: Answer) -> str:
    """What the rules read of an answer: its text and each of its tool calls, as `readable` makes them."""
    return readable("\n".join((answer.text, *(call.canonical for call in answer.tool_calls))))


def readable(text: str) -> str:
    """The text as a reader sees it: NFKC, no invisible characters, single spaces.

    Letters of other alphabets that look like Latin ones stay what they are.
    """
    whole = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
    plain = "".join(char for char in whole if unicodedata.category(char) != "Cf" and char not in _INVISIBLE)
    return " ".join(plain.split())


def _findings(rule: Rule, policy: Policy, case: Case) -> Iterator[Finding]:
    """One finding for each place where the rule matches: who is at fault decides what may stand in."""
    observed = "observe" in (policy.mode, rule.mode)
    for place, texts in _places(rule, case):
        matched = _matches(rule.when, texts, case)
        share = float(matched.mean())
        if matched.any() and share >= rule.share:
            yield Finding(rule.id, rule.category, rule.severity, rule.action, share, where=place, observed=observed)


def _places(rule: Rule, case: Case) -> Iterator[tuple[str, list[str]]]:
    """Each group of texts that the rule looks at, none of them empty."""
    if rule.where == "user":
        if case.asked:
            yield "user", [readable(text) for text in case.asked]
        return
    if rule.where == "any" and case.answers:
        yield "any", [judged_text(answer) for answer in case.answers]
    if rule.where in ("answer", "winner") and case.vote is not None:
        yield "winner", [judged_text(case.answers[index]) for index in case.vote.members]
    if rule.where in ("answer", "candidate", "any") and case.candidate is not None:
        yield "candidate", [judged_text(case.candidate)]


def _matches(when: Condition, texts: list[str], case: Case) -> Bools:
    """``(len(texts),)``: which texts the condition holds for. Conditions on the whole case hold for all or none."""
    match when:
        case Words():
            return np.array([bool(_words(when.words).search(_bare(text))) for text in texts])
        case Regex():
            return np.array([any(_pattern(pattern).search(text) for pattern in when.regex) for text in texts])
        case Scored(of="user"):
            asked = [readable(text) for text in case.asked]
            return np.full(len(texts), bool(asked) and bool(_score(when, asked, case).any()))
        case Scored():
            return _score(when, texts, case)
        case AgreementBelow():
            vote = case.vote
            low = vote is not None and (vote.abstained or vote.agreement < when.agreement_below)
            return np.full(len(texts), low)
        case Disagrees():
            return np.full(len(texts), case.disagrees(when.disagrees))
        case All():
            return reduce(and_, (_matches(part, texts, case) for part in when.all))
        case AnyOf():
            return reduce(or_, (_matches(part, texts, case) for part in when.any))
        case Not():
            return ~_matches(when.not_, texts, case)


def _score(when: Scored, texts: list[str], case: Case) -> Bools:
    scorer = case.scorers.get(when.scorer)
    if scorer is None:
        raise PolicyError(f"no scorer {when.scorer!r}: known are {', '.join(sorted(case.scorers)) or 'none'}")
    scores = np.asarray(scorer(texts), dtype=np.float64)
    if scores.shape != (len(texts),) or not np.isfinite(scores).all():
        raise GuardError(f"scorer {when.scorer!r} must give one finite number a text")
    return scores >= when.above


def _parts(when: Condition) -> Iterator[Condition]:
    yield when
    inner = when.all if isinstance(when, All) else when.any if isinstance(when, AnyOf) else ()
    for part in (when.not_,) if isinstance(when, Not) else inner:
        yield from _parts(part)


def _bare(text: str) -> str:
    """Casefolded and without accents, on both sides of a comparison: one added to a letter must not hide a word."""
    return "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))


@lru_cache(maxsize=512)
def _words(words: tuple[str, ...]) -> re2._Regexp:
    """One pattern for all words: whole words only, where they begin or end with an ASCII letter or digit."""
    parts = []
    for word in words:
        plain = _bare(readable(word))
        left = r"(?:^|[^\pL\pN])" if plain[:1].isalnum() and plain[:1].isascii() else ""
        right = r"(?:$|[^\pL\pN])" if plain[-1:].isalnum() and plain[-1:].isascii() else ""
        parts.append(left + re2.escape(plain) + right)
    return re2.compile("(?:" + "|".join(parts) + ")")


@lru_cache(maxsize=2048)
def _pattern(pattern: str) -> re2._Regexp:
    return re2.compile(pattern)
