"""Asking the model: together, within the time, whatever it raises (the way through: test_rounds.py)."""

from __future__ import annotations

import contextvars
import threading

import pytest

from sg_guardrails import Answer, Copy, DeadlineError, ModelError, Prompt, SamplingError, ToolCall
from sg_guardrails.asking import Asking, Pace, Poll
from sg_guardrails.core import waiting
from sg_guardrails.core.policy import ImageNoise, Smoothing
from sg_guardrails.core.waiting import Deadline
from sg_guardrails.testing import FakeSampler

PROMPT = Prompt.ask("?")


def poll(due=1, sigma=0.1, *, draft=False) -> Poll:
    smoothing = Smoothing(image=ImageNoise(sigma=sigma))
    return Poll(PROMPT, None, smoothing, plan=[Copy(PROMPT, seed) for seed in range(3)], due=due, draft=draft)


def test_what_is_due_is_asked_together_and_other_noise_apart():
    sampler, drafter = FakeSampler(lambda copy: str(copy.seed)), FakeSampler("draft")
    polls = [poll(2), poll(1), poll(1, 0.2), poll(1, draft=True)]
    Asking(sampler, drafter).ask(polls)
    assert [[answer.text for answer in one.answers] for one in polls] == [["0", "1"], ["0"], ["0"], ["draft"]]
    assert (sampler.calls, drafter.calls) == (2, 1)
    assert [one.asked for one in polls] == [2, 1, 1, 1]
    Asking(sampler, drafter).ask(polls[:1])
    assert [answer.text for answer in polls[0].answers] == ["0", "1", "2"]


def test_many_requests_are_asked_in_calls_of_bounded_size_and_none_is_parted():
    sizes = []

    def script(copies, smoothing):
        sizes.append(len(copies))
        return [Answer(f"{copy.prompt.question} {copy.seed}") for copy in copies]

    def of(number, copies):
        prompt = Prompt.ask(str(number))
        plan = [Copy(prompt, seed) for seed in range(copies)]
        return Poll(prompt, None, Smoothing(), plan=plan, due=copies)

    polls = [of(number, 600 if number == 70 else 11) for number in range(100)]
    Asking(script).ask(polls)
    assert sizes == [253, 253, 253, 11, 600, 253, 66]
    for number, one in enumerate(polls):
        assert [answer.text for answer in one.answers] == [f"{number} {seed}" for seed in range(len(one.plan))]


def test_a_deadline_holds_between_the_calls_too():
    now = [0.0]

    def script(copies, smoothing):
        now[0] += 2.0
        return [Answer("x") for _ in copies]

    plan = [Copy(PROMPT, seed) for seed in range(200)]
    polls = [Poll(PROMPT, None, Smoothing(), plan=plan, due=200) for _ in range(5)]
    Asking(script, deadline=Deadline(3.0, lambda: now[0])).ask(polls)
    assert [len(one.answers) for one in polls] == [200, 200, 0, 0, 0]
    assert [type(one.error) for one in polls] == [type(None)] * 2 + [DeadlineError] * 3


def test_nothing_is_asked_for_a_task_that_is_one_too_many():
    sampler, surplus = FakeSampler("x"), poll()
    with waiting.waiting() as wait:
        wait.refusal = SamplingError("too many")
        Asking(sampler).ask([surplus])
    assert (surplus.error, sampler.calls) == (wait.refusal, 0)


def test_the_pace_of_the_last_calls_says_whether_all_copies_fit_in_one():
    pace = Pace()
    assert not pace.has_room_in(1e9), "not before a call was seen"
    for took in (1.0, 2.0):
        pace.note(took)
    assert pace.has_room_in(8.0)
    assert not pace.has_room_in(7.9)
    for _ in range(8):
        pace.note(0.1)
    assert pace.has_room_in(0.4), "the last ones only"
    assert not Asking(FakeSampler("x"), pace=pace).is_pressed
    assert not Asking(FakeSampler("x"), deadline=Deadline(5.0, lambda: 4.0), pace=pace).is_pressed
    assert Asking(FakeSampler("x"), deadline=Deadline(5.0, lambda: 4.7), pace=pace).is_pressed


def test_without_a_deadline_no_thread_is_started():
    seen = []
    Asking(FakeSampler(lambda _: seen.append(threading.current_thread()) or "x")).ask([poll()])
    assert seen == [threading.main_thread()]


def test_time_that_is_up_asks_nobody():
    sampler = FakeSampler("x")
    late = poll()
    Asking(sampler, deadline=Deadline(5.0, lambda: 5.0)).ask([late])
    assert isinstance(late.error, DeadlineError)
    assert sampler.calls == 0


def test_a_call_in_time_keeps_its_context_and_its_errors():
    name = contextvars.ContextVar("name", default="")
    name.set("request 7")
    fine = poll()
    Asking(FakeSampler(lambda _: name.get()), deadline=Deadline(30.0, lambda: 0.0)).ask([fine])
    assert fine.answers == [Answer("request 7")]
    for raised, told in ((TimeoutError("the engine's"), SamplingError), (SamplingError("x"), SamplingError)):
        failed = poll()
        Asking(FakeSampler([raised]), deadline=Deadline(30.0, lambda: 0.0)).ask([failed])
        assert type(failed.error) is told
    with pytest.raises(ModelError):
        Asking(FakeSampler([ModelError("no such model")]), deadline=Deadline(30.0, lambda: 0.0)).ask([poll()])


BAD = {
    "strings": lambda copies: ["red"] * len(copies),
    "None": lambda copies: None,
    "a number": lambda copies: 7,
    "one string": lambda copies: "r" * len(copies),
    "a generator": lambda copies: (Answer("red") for _ in copies),
    "no text": lambda copies: [Answer(None)] * len(copies),
    "bytes": lambda copies: [Answer(b"red")] * len(copies),
    "calls that are none": lambda copies: [Answer("red", ("f",))] * len(copies),
    "calls that are no tuple": lambda copies: [Answer("red", None)] * len(copies),
    "a call without a name": lambda copies: [Answer("", (ToolCall(None),))] * len(copies),
    "a call without arguments": lambda copies: [Answer("", (ToolCall("f", None),))] * len(copies),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_list_of_answers_is_its_polls_error_alone(name):
    wrong = Prompt.ask("wrong")

    def sampler(copies, smoothing):
        return BAD[name](copies) if any(copy.prompt == wrong for copy in copies) else [Answer("red")] * len(copies)

    right, bad = poll(2), Poll(wrong, None, Smoothing(image=ImageNoise(sigma=0.1)), plan=[Copy(wrong, 1)], due=1)
    Asking(sampler).ask([bad, right])
    assert (right.answers, right.error) == ([Answer("red")] * 2, None)
    assert (bad.answers, type(bad.error)) == ([], SamplingError)
    assert "red" not in str(bad.error)


def test_a_deadline_fails_all_that_were_asked_together_at_once():
    release = threading.Event()
    polls = [poll(), poll()]
    sampler = FakeSampler(lambda _: release.wait(30) and "late")
    try:
        Asking(sampler, deadline=Deadline(0.02, lambda: 0.0)).ask(polls)
    finally:
        release.set()
    assert all(isinstance(one.error, DeadlineError) for one in polls)
    assert sampler.calls == 1
