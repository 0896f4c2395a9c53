"""Conclusion: the answers of a poll are elected, judged and handed on; whatever fails becomes what the policy says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from sg_guardrails.asking import Poll
from sg_guardrails.core.errors import DeadlineError, GuardError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Outcome, Vote
from sg_guardrails.outcomes import Outcomes, handed_on
from sg_guardrails.panel import Panel
from sg_guardrails.rounds import Cast, Rounds


def conclude(
    poll: Poll, rounds: Rounds, outcomes: Outcomes, *, keep: Callable[[Policy, Cast], None] | None = None
) -> Outcome:
    """Elect, judge, hand on. Whatever fails on the way becomes what the policy says of it, never a pass.

    Args:
        poll: A request whose copies were asked.
        rounds: The parts of its call.
        outcomes: Finishes what comes out.
        keep: Takes the votes where they are whole.

    Raises:
        ModelError, PolicyError: What is wrong for every request alike.
        GuardError: The failure itself, where the policy says so.
    """
    panel, degraded = rounds.panel, None
    if poll.error is not None:
        if not rounds.settled(poll):
            return refuse(poll.error, poll, panel, outcomes)
        what = "the deadline passed" if isinstance(poll.error, DeadlineError) else "not all copies were answered"
        degraded = f"{what}; {len(poll.answers)} of {len(poll.plan)} copies had settled the vote"
    try:
        elected = poll.vote or (panel.elect(poll.answers) if poll.answers else None)
        outcome = _judged(poll, elected, panel)
    except (PolicyError, ModelError):
        raise
    except GuardError as error:
        return refuse(error, poll, panel, outcomes)
    except Exception as error:  # noqa: BLE001 - a scorer or embedder that breaks has judged nothing
        broken = SamplingError(f"judging the answers failed: {type(error).__name__}")
        broken.__cause__ = error
        return refuse(broken, poll, panel, outcomes)
    if elected is not None and degraded is None and keep is not None:
        keep(panel.policy, Cast(poll.smoothing, tuple(poll.answers), elected, poll.finished))
    if outcome.verdict is not None and outcome.verdict.untold:
        untold = f"could not be told: {', '.join(outcome.verdict.untold)}"
        degraded = "; ".join(filter(None, (degraded, untold)))
    if outcome.vote is not None:
        outcome = replace(outcome, vote=replace(outcome.vote, certificate=poll.certificate))
    outcome = replace(outcome, degraded=degraded, timings=rounds.stages.timings)
    return outcomes.finished(panel.policy, poll.prompt, outcome)


def refuse(error: GuardError, poll: Poll, panel: Panel, outcomes: Outcomes) -> Outcome:
    """What the policy makes of `error`; what it would allow is held against the rules that can still tell."""
    if poll.candidate is not None and outcomes.behaviour(panel.policy, error) == "allow":
        with suppress(Exception):  # what cannot be told of an answer is the operator's choice, and that is made
            found = _judged(replace(poll, answers=[], clean=None, finished=None), None, panel)
            if found.verdict is not None and found.verdict.action not in ("allow", "flag"):
                found = replace(found, clean=None, degraded=type(error).__name__)
                return outcomes.finished(panel.policy, poll.prompt, found)
    return outcomes.refused(panel.policy, error, poll)


def _judged(poll: Poll, elected: Vote | None, panel: Panel) -> Outcome:
    with panel.stages.of("judge"):
        verdict, case = panel.judged(
            poll.prompt, poll.answers, elected, candidate=poll.candidate, clean=poll.clean, finished=poll.finished
        )
        status, answer, text = handed_on(panel.policy, verdict, case)
    return Outcome(
        text,
        status,
        answer,
        elected,
        verdict,
        poll.whole(elected),
        poll.clean,
        asked=poll.asked,
        candidate=poll.candidate,
    )
