"""The judge: Vote and answers against the policy's rules. The winning cluster is judged by the share that violates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sg_guardrails.core.conditions import (
    Case,
    Seen,
    about_the_text,
    looks_at_pictures,
    matches,
    missing_parts,
    missing_scorers,
)
from sg_guardrails.core.errors import GuardError, ModelError, PolicyError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rewriting import redacted
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.types import ACTIONS, Action, Answer, Finding, Status, Verdict, Vote

__all__ = ["STATUS", "Case", "hand_on", "judge", "looks_at_pictures", "missing_parts", "missing_scorers"]

STATUS: dict[Action, Status] = {
    "allow": "passed",
    "flag": "flagged",
    "rewrite": "rewritten",
    "block": "blocked",
    "raise": "blocked",
}


def judge(policy: Policy, case: Case) -> Verdict:
    """Hold the case against every rule; the strictest enforced finding decides.

    A rule that cannot be told takes no other's finding away: an answer known to be at fault is never an error, which
    ``on_error`` could allow. One that only observes beside others changes nothing when it fails; it is told last.

    Raises:
        PolicyError: If a rule names a scorer or judge that `case` does not hold.
        GuardError: If one of them cannot tell, and no enforced rule asks for more than a flag.
    """
    found: dict[str, tuple[Finding, ...]] = {}
    failures: list[Exception] = []
    for rule in sorted(policy.rules, key=lambda rule: _observes(rule, policy)):
        try:
            found[rule.id] = tuple(_findings(rule, policy, case))
        except (PolicyError, ModelError):
            raise
        except Exception as error:  # noqa: BLE001 - raised below, unless it can change nothing
            if policy.mode == "observe" or rule.mode == "enforce":
                failures.append(error)
    findings = tuple(finding for rule in policy.rules for finding in found.get(rule.id, ()))
    acting = [finding.action for finding in findings if not finding.observed]
    watching = [finding.action for finding in findings if finding.observed]
    action: Action = max(acting, key=ACTIONS.index, default="allow")
    would: Action = max(watching, key=ACTIONS.index, default="allow")
    if failures and action in ("allow", "flag"):
        raise failures[0]
    stricter = ACTIONS.index(would) > ACTIONS.index(action)
    untold = tuple(rule.id for rule in policy.rules if rule.id not in found)
    return Verdict(action, findings, would_have=would if stricter else None, untold=untold)


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
    deciding = next(item for item in verdict.findings if item.action == verdict.action and not item.observed)
    if verdict.action != "rewrite":
        return STATUS[verdict.action], None, _text(policy, deciding, case.vote)
    if any(rule.id in verdict.untold and not _observes(rule, policy) for rule in policy.rules):
        return "blocked", None, _text(policy, deciding, case.vote)  # other words could not be judged by them either
    return _rewrite(policy, verdict, case, elected) or ("rewritten", None, _text(policy, deciding, case.vote))


def _rewrite(
    policy: Policy, verdict: Verdict, case: Case, elected: Answer | None
) -> tuple[Status, Answer | None, str] | None:
    """Other words than the policy's, where the rules that found something agree on which; blocked where these fail."""
    acting = [item for item in verdict.findings if not item.observed and item.action == "rewrite"]
    found = [rule for rule in policy.rules if rule.id in {item.rule for item in acting}]
    kinds = {rule.rewrite for rule in found}
    kind = kinds.pop() if len(kinds) == 1 else "text"
    if kind == "text":
        return None
    if kind == "representative":
        # Only where no rule found fault with the majority itself.
        faultless = all(item.where == "candidate" for item in acting)
        if not faultless or elected is None or case.vote is None or case.vote.abstained:
            return None
        return "rewritten", elected, elected.text
    answer = _safest(policy, case) if kind == "safest" else _rewritten(policy, found, case)
    if answer is None:
        return "blocked", None, _own_text(policy, found[0]) or policy.texts.blocked
    return "rewritten", answer, answer.text


def _safest(policy: Policy, case: Case) -> Answer | None:
    """The representative of the cluster with the least share of members at fault, itself at none; then of weight."""
    if case.vote is None:
        return None
    sound: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    rules = _acting(policy)
    for index in dict.fromkeys((case.vote.choice, *range(len(case.answers)))):
        label = case.vote.labels[index]
        sizes[label] = sizes.get(label, 0) + 1
        answer = case.answers[index]
        if (answer.text.strip() or answer.tool_calls) and _sound(answer, rules, case):
            sound.setdefault(label, []).append(index)
    if not sound:
        return None
    weights = case.vote.weights
    safest = min(sound, key=lambda label: (-len(sound[label]) / sizes[label], -weights[label], label))
    return case.answers[sound[safest][0]]


def _rewritten(policy: Policy, found: Sequence[Rule], case: Case) -> Answer | None:
    """The answer at fault without the matches, or in the model's new words; None where that is no better."""
    answer = case.candidate or (case.answers[case.vote.choice] if case.vote is not None else None)
    if answer is None:
        return None
    if found[0].rewrite == "redact":
        conditions = [part for rule in found for part in rule.redactable]
        new = replace(answer, text=redacted(answer.text, conditions, policy.texts.redacted))
    else:
        try:
            new = Answer("" if case.rewriter is None else case.rewriter(answer.text))
        except Exception:  # noqa: BLE001 - whatever went wrong, there is no new text, and the old one is at fault
            return None
    blank = not new.text.strip() and not new.tool_calls
    return None if blank or not _sound(new, _acting(policy, also=("candidate",)), case) else new


def _spokesman(policy: Policy, case: Case) -> Answer | None:
    """The representative, or where it breaks an acting rule itself the first member of its cluster that breaks none.

    A cluster passes by the share of its members; what goes out is one text, and that one must be sound.
    """
    if case.vote is None:
        return None
    rules = _acting(policy)
    order = dict.fromkeys((case.vote.choice, *case.vote.members))
    return next((case.answers[index] for index in order if _sound(case.answers[index], rules, case)), None)


def _acting(policy: Policy, also: tuple[str, ...] = ()) -> list[Rule]:
    """The enforced rules that an answer's own text or calls can break."""
    if policy.mode == "observe":
        return []
    places = ("answer", "winner", "clusters", "any", "tools", *also)
    return [
        rule
        for rule in policy.rules
        if rule.mode == "enforce"
        and rule.where in places
        and rule.action not in ("allow", "flag")
        and about_the_text(rule.when)
    ]


def _sound(answer: Answer, rules: Sequence[Rule], case: Case) -> bool:
    """Whether an answer breaks none of the rules, looked at alone."""
    return not any(matches(rule.when, [_seen(rule, answer)], case)[0] for rule in rules)


def _text(policy: Policy, deciding: Finding, vote: Vote | None) -> str:
    texts = policy.texts
    own = next((_own_text(policy, rule) for rule in policy.rules if rule.id == deciding.rule), None)
    if own is not None:
        return own
    if deciding.action != "rewrite":
        return texts.blocked
    return texts.abstained if vote is not None and vote.abstained else texts.rewritten


def _own_text(policy: Policy, rule: Rule) -> str | None:
    return rule.text or policy.texts.categories.get(rule.category)


def _observes(rule: Rule, policy: Policy) -> bool:
    return "observe" in (policy.mode, rule.mode)


def _findings(rule: Rule, policy: Policy, case: Case) -> Iterator[Finding]:
    """One finding for each place where the rule matches: who is at fault decides what may stand in."""
    observed = _observes(rule, policy)
    for place, seen in _places(rule, case):
        matched = matches(rule.when, seen, case)
        share = float(matched.mean())
        least = 0.0 if place in ("user", "picture") else rule.share
        if matched.any() and share >= least:
            yield Finding(rule.id, rule.category, rule.severity, rule.action, share, where=place, observed=observed)


def _places(rule: Rule, case: Case) -> Iterator[tuple[str, list[Seen]]]:
    """Each group of texts that the rule looks at, none of them empty."""
    if rule.where in ("user", "picture"):
        texts = case.asked if rule.where == "user" else case.pictured()
        if texts:
            yield rule.where, [Seen.given(text, rule.where) for text in texts]
        return
    if rule.where == "any" and case.answers:
        yield "any", [_seen(rule, answer) for answer in case.answers]
    if rule.where == "clusters" and case.vote is not None:
        for members in _clusters(case.vote, rule.over):
            place = "winner" if members == case.vote.members else "cluster"
            yield place, [_seen(rule, case.answers[index]) for index in members]
    if rule.where in ("answer", "winner", "tools") and case.vote is not None:
        yield "winner", [_seen(rule, case.answers[index]) for index in case.vote.members]
    if rule.where in ("answer", "candidate", "any", "clusters", "tools") and case.candidate is not None:
        yield "candidate", [_seen(rule, case.candidate)]


def _clusters(vote: Vote, over: float) -> Iterator[tuple[int, ...]]:
    """The members of each cluster of at least that share of the answers."""
    for label in sorted(set(vote.labels)):
        members = tuple(index for index, given in enumerate(vote.labels) if given == label)
        if len(members) >= over * len(vote.labels):
            yield members


def _seen(rule: Rule, answer: Answer) -> Seen:
    return Seen.calls_of(answer) if rule.where == "tools" else Seen.of(answer)
