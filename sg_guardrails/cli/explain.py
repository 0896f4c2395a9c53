"""A policy in plain words: what it does with a request, rule by rule, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sg_guardrails.cli.costs import costs
from sg_guardrails.core.calls import ANY, Calls
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.rules import Rule
from sg_guardrails.core.section import Section
from sg_guardrails.core.terms import (
    AgreementBelow,
    All,
    AnyOf,
    Classified,
    Condition,
    Disagrees,
    Judged,
    Language,
    Near,
    Not,
    Regex,
    Scored,
    ToolCalls,
    Words,
)

WHOSE = {"answer": "the text", "user": "a user turn", "picture": "what a picture says"}
WHERE = {
    "answer": "the winning answers, and the answer under review",
    "winner": "the winning answers",
    "clusters": "the answers of every cluster that is large enough",
    "candidate": "the answer under review",
    "any": "all answers",
    "tools": "the tool calls of the winning answers, and of the answer under review",
    "user": "the user's turns",
    "picture": "what the pictures say",
}
ACTION = {
    "allow": "hands the answer on, and records the finding",
    "flag": "hands the answer on, marked as flagged",
    "rewrite": "hands on something else",
    "block": "withholds the answer: the user reads the policy's text",
    "raise": "withholds the answer, and the LangChain and LlamaIndex steps raise UnsafeOutputError",
}
REWRITE = {
    "text": "the policy's text",
    "representative": "the majority's own words, where the majority is not at fault itself",
    "safest": "the words of the safest cluster",
    "redact": "the answer without what the rule found",
    "model": "what the policy's model makes of the answer when asked to rewrite it",
}
FAILING = {
    "block": "nothing is handed on",
    "allow": "an answer under review is handed on unjudged",
    "raise": "the error is raised",
    "pass": "the answer is handed on unjudged",
    "error": "the error is raised",
    "judge_text": "the answer is judged by its text alone",
}
EARLY = {
    "off": "all copies are asked at once",
    "exact": "asking stops as soon as no further answer could change the verdict or the winner",
    "sequential": "asking stops as soon as further answers are unlikely to change the verdict",
}


def explain(policy: Policy) -> list[str]:
    """The policy as lines of plain English; a rule's details are indented by two spaces."""
    return [
        f"{policy.name} ({policy.hash}){': ' + policy.description if policy.description else ''}",
        *_asking(policy),
        *_voting(policy),
        *(line for rule in policy.rules for line in _rule(rule, policy)),
        *([] if policy.rules else ["No rules: the majority is handed on whatever it says."]),
        *_failing(policy),
        *costs(policy),
    ]


def condition(when: Condition) -> str:
    """A condition as the rest of a sentence that begins with "where"."""
    wording = WORDING[type(when)]
    return wording(when)


def _asking(policy: Policy) -> Iterator[str]:
    smoothing = policy.smoothing
    clean = " and the unchanged request" if smoothing.include_clean else ""
    space = "in pixels from 0 to 1" if smoothing.image.space == "pixel" else "on the model's normalised input"
    audio = smoothing.audio
    noise = f"sigma {audio.sigma:g}" if audio.sigma is not None else f"{audio.snr_db:g} dB below the clip"
    served = f", served at {policy.model.endpoint.url}" if policy.model.endpoint is not None else ""
    if policy.mode == "observe":
        yield "It only observes: nothing is changed, and what would have happened is recorded."
    yield f"Model: {policy.model.id}{served}."
    second = "" if smoothing.image.second_sigma is None else f" or {smoothing.image.second_sigma:g}"
    moved = f", each moved by up to {smoothing.image.shift:.0%} of its sides" if smoothing.image.shift else ""
    yield (
        f"It asks for {smoothing.copies} noisy copies{clean}: pictures with sigma {smoothing.image.sigma:g}{second} "
        f"{space}{moved}, clips with noise of {noise}; {EARLY[smoothing.early]}."
    )
    if smoothing.adaptive is not None:
        yield (
            f"It begins with {smoothing.adaptive.start_copies} copies; where these leave a doubt, {smoothing.copies} "
            f"new ones decide, under {smoothing.adaptive.max_scale:g} times the noise."
        )


def _voting(policy: Policy) -> Iterator[str]:
    voting = policy.voting
    sense = {
        "sameness": "stance, facts, tool calls and meaning agree",
        "cosine": f"their embeddings' cosine is at least {voting.similarity:g}",
        "kmeans": f"k-means puts them into the same one of {voting.k} clusters (the paper's way)",
    }
    yield (
        f"Two answers count as the same where {sense[voting.method]}. The largest group wins; without more than "
        f"{voting.min_agreement:.0%} of the answers there is no majority."
    )
    if voting.refusal_veto is not None:
        share = f"{voting.refusal_veto:.0%}"
        yield f"Nothing wins where {share} of the answers or more refuse and the largest group does not."
    if voting.draft_tokens is not None:
        yield f"It votes on the first {voting.draft_tokens} tokens of each answer, and lets the winner's finish."
    if voting.cache:
        yield f"It keeps up to {voting.cache:,} votes in memory for requests that come again."


def _rule(rule: Rule, policy: Policy) -> Iterator[str]:
    observed = " (observed only)" if "observe" in (rule.mode, policy.mode) else ""
    yield f"Rule {rule.id}{observed}, {rule.category}, {rule.severity}:"
    yield f"  where {condition(rule.when)},"
    share = f"{rule.share:.0%}" if rule.share else "one"
    among = "" if rule.where in ("candidate", "user", "picture") else f" (in at least {share} of them)"
    over = f", of at least {rule.over:.0%} of all" if rule.where == "clusters" else ""
    yield f"  looking at {WHERE[rule.where]}{over}{among},"
    what = f"{ACTION[rule.action]}: {REWRITE[rule.rewrite]}" if rule.action == "rewrite" else ACTION[rule.action]
    yield f"  it {what}."
    if rule.text is not None:
        yield f"  where it decides, the user reads {rule.text!r}."


def _failing(policy: Policy) -> Iterator[str]:
    yield f"Where the check itself fails, {FAILING[policy.on_error]}, and the status is error."
    deadline = policy.limits.deadline_seconds
    if deadline is not None:
        yield f"A check has {deadline:g} s; after that, {FAILING[policy.on_timeout]}."
    yield f"Where a message holds media that cannot be seen (a link, say), {FAILING[policy.unresolvable_media]}."
    yield f"Where an answer's messages are not found, {FAILING[policy.on_missing_context]}."
    if policy.record.include_text:
        yield f"Records keep the texts, with the matches of {len(policy.record.redact)} patterns taken out."
    else:
        yield "Records keep digests and figures, no texts."


def _listed(items: tuple[str, ...]) -> str:
    shown = ", ".join(repr(item) for item in items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"


def _calls(calls: Calls) -> str:
    said = []
    if calls.allowed is not None:
        said.append(f"a tool other than {_listed(calls.allowed) or 'none'} is called")
    if calls.denied:
        said.append(f"{_listed(calls.denied)} is called")
    said += [
        f"{tool} is called with {name} not matching {pattern!r}"
        for tool, patterns in calls.arguments.items()
        for name, pattern in patterns.items()
    ]
    said += [
        f"{'any tool' if tool == ANY else tool} is called with {pattern!r} in {'any argument' if name == ANY else name}"
        for tool, patterns in calls.denied_arguments.items()
        for name, pattern in patterns.items()
    ]
    if calls.unanimous:
        said.append("the copies do not all make the same calls")
    return " or ".join(said)


def _judged(when: Judged) -> str:
    judge = when.judge
    asked = f"the question {judge.question!r}" if judge.question else "its published question"
    model = "the policy's model" if judge.model == "guard" else judge.model
    model += "" if judge.endpoint is None else f" (served at {judge.endpoint.url})"
    return f"{model}, asked as {judge.preset} ({asked}), finds fault with {WHOSE[when.of]} at {when.above:g} or more"


def _not(when: Condition) -> str:
    return f"it is not so that {condition(when)}"


WORDING: Mapping[type[Section], Callable[[Any], str]] = {
    Words: lambda when: f"{WHOSE[when.of]} holds {_listed(when.words)}",
    Regex: lambda when: f"{WHOSE[when.of]} matches {_listed(when.regex)}",
    Language: lambda when: f"{WHOSE[when.of]} is in another language than {when.language_other_than!r}",
    Scored: lambda when: f"{WHOSE[when.of]} scores {when.above:g} or more for {when.scorer}",
    Near: lambda when: f"a sentence of {WHOSE[when.of]} means nearly (cosine {when.above:g}) {_listed(when.near)}",
    Classified: lambda when: (
        f"the classifier {when.classifier.id} gives {WHOSE[when.of]} {when.above:g} or more"
        f"{f' for {when.classifier.label!r}' if when.classifier.label else ''}"
    ),
    Judged: _judged,
    ToolCalls: lambda when: _calls(when.tool_calls),
    AgreementBelow: lambda when: f"there is no majority, or one of less than {when.agreement_below:.0%}",
    Disagrees: lambda when: (
        "the answer under review contradicts the majority"
        if when.disagrees == "candidate"
        else "the model's answer to the unchanged request contradicts the majority"
    ),
    All: lambda when: " and ".join(f"({condition(part)})" for part in when.all),
    AnyOf: lambda when: " or ".join(f"({condition(part)})" for part in when.any),
    Not: lambda when: _not(when.not_),
}
"""How each kind of condition is said. A kind without words is an error, so that no rule is left out of a review."""
