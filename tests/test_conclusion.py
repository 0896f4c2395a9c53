"""Conclusion: what is kept, what an error becomes, what the end is counted as (the whole way: test_guard.py)."""

from __future__ import annotations

import pytest

from sg_guardrails import Answer, DeadlineError, Key, Policy, Prompt, SamplingError, SmoothGuard
from sg_guardrails.conclusion import conclude, refuse
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

PROMPT = Prompt.ask("What color is it?", fake_image())
RED = Answer("The shape is red.")


def ended(*, answered: int = 11, error=None, candidate=None, **sections):
    """A poll of eleven copies of which so many were answered, the parts of its call, and what finishes outcomes."""
    guard = SmoothGuard(
        Policy.parse({"name": "p", **sections}),
        sampler=FakeSampler("unused"),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        key=Key(b"a secret for the tests"),
        emit=lambda *_, **__: None,
    )
    rounds = guard._rounds()
    poll = rounds.open(PROMPT, candidate, None)
    poll.answers, poll.asked, poll.error = [RED] * answered, answered, error
    return poll, rounds, guard._outcomes


@pytest.mark.parametrize(
    ("answered", "error", "status", "kept"),
    [
        (11, None, "passed", 1),
        (6, DeadlineError("late"), "passed", 0),
        (5, DeadlineError("late"), "error", 0),
        (0, SamplingError("down"), "error", 0),
    ],
)
def test_only_whole_votes_are_kept(answered, error, status, kept):
    told = []
    outcome = conclude(*ended(answered=answered, error=error), keep=lambda policy, cast: told.append((policy, cast)))
    assert (outcome.status, len(told)) == (status, kept)
    for policy, cast in told:
        assert (policy.name, cast.vote, cast.answers) == ("p", outcome.vote, outcome.answers)
    assert (outcome.degraded is not None) == (error is not None and status == "passed")
    assert outcome.timings.keys() == ({"vote", "judge", "total"} if status == "passed" else set())


def test_what_breaks_while_judging_is_an_error_of_the_guards_own_kind():
    poll, rounds, outcomes = ended(rules=[{"id": "r", "when": {"scorer": "hostility"}}])

    def broken(texts):
        raise RuntimeError("the user wrote: hunter2")

    rounds.panel._scorers["hostility"] = broken
    outcome = conclude(poll, rounds, outcomes)
    assert (outcome.status, str(outcome.error)) == ("error", "judging the answers failed: RuntimeError")


@pytest.mark.parametrize(("said", "status"), [("so bad", "blocked"), ("fine", "error")])
def test_what_on_error_allows_is_held_against_the_rules_first(said, status):
    rule = {"id": "r", "where": "candidate", "when": {"words": ["bad"]}}
    poll, rounds, outcomes = ended(answered=0, candidate=Answer(said), rules=[rule], on_error="allow")
    outcome = refuse(SamplingError("down"), poll, rounds.panel, outcomes)
    assert (outcome.status, outcome.vote, outcome.answers) == (status, None, ())
    assert (outcome.answer is None) == (status == "blocked")
