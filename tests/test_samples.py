"""Copies that a caller asks by itself: what fails or comes too late is no answer."""

import asyncio
import threading
from contextvars import ContextVar, copy_context

import pytest

from sg_guardrails import Answer, Policy, Prompt, SmoothGuard
from sg_guardrails.core import waiting
from sg_guardrails.edge import Samples
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

WHERE = ContextVar("where", default="here")


class Clock:
    """Seconds that pass only when they are told to."""

    now = 100.0

    def __call__(self):
        return self.now


def guard(clock=None, **policy):
    return SmoothGuard(
        Policy.parse({"name": "t", "smoothing": {"copies": 2}, **policy}),
        sampler=FakeSampler("red"),
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        **({} if clock is None else {"clock": clock}),
    )


def asked(samples, ask, copies, is_async):
    if not is_async:
        samples.ask(ask, copies)
        return

    async def answer(copy):
        await asyncio.sleep(0)
        return ask(copy)

    asyncio.run(samples.aask(answer, copies))


both = pytest.mark.parametrize("is_async", [False, True])


@both
def test_answers_come_in_the_order_of_the_copies(is_async):
    samples = Samples(guard())
    asked(samples, str, [1, 2, 3], is_async)
    asked(samples, str, [], is_async)
    asked(samples, str, [4], is_async)
    assert (samples.said, samples.is_short, samples.is_late) == (["1", "2", "3", "4"], False, False)


@both
def test_a_failure_is_no_answer_and_the_others_are_waited_for(is_async):
    def ask(copy):
        if copy == 2:
            raise ValueError("429")
        return copy

    samples = Samples(guard())
    asked(samples, ask, [1, 2, 3], is_async)
    assert (samples.said, samples.is_short, samples.is_late) == ([1, 3], True, False)


@both
def test_a_frameworks_control_flow_goes_through(is_async):
    def ask(copy):
        raise KeyError(copy)

    with pytest.raises(KeyError):
        asked(Samples(guard(), through=(KeyError,)), ask, [1, 2], is_async)


@both
def test_each_copy_is_asked_in_a_context_of_its_own(is_async):
    def context():
        made = copy_context()
        made.run(WHERE.set, "there")
        return made

    def ask(copy):
        found = WHERE.get()
        WHERE.set(f"changed by {copy}")
        return found

    for limits in ({}, {"deadline_seconds": 30}):
        samples = Samples(guard(limits=limits), context=context)
        asked(samples, ask, [1, 2, 3], is_async)
        assert samples.said == ["there"] * 3
        assert WHERE.get() == "here"


@both
def test_once_the_time_is_up_nothing_more_is_asked(is_async):
    clock = Clock()
    samples = Samples(guard(clock, limits={"deadline_seconds": 4.0}))
    asked(samples, str, [1], is_async)
    clock.now += 3.0  # three quarters: the rest is for judging
    asked(samples, lambda copy: pytest.fail("asked too late"), [2], is_async)
    assert (samples.said, samples.is_short, samples.is_late, samples.took) == (["1"], True, True, 3.0)


def test_a_thread_that_hangs_is_left_behind():
    released, samples = threading.Event(), Samples(guard(limits={"deadline_seconds": 0.4}))
    try:
        samples.ask(lambda copy: released.wait(60), [1, 2])
        assert not released.is_set()
    finally:
        released.set()
    assert (samples.said, samples.is_late) == ([], True)


def test_a_task_that_hangs_is_cancelled_and_so_are_all_where_the_caller_is():
    ended = []

    async def hang(copy):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(copy)

    async def late():
        samples = Samples(guard(limits={"deadline_seconds": 0.1}))
        await samples.aask(hang, [1, 2])
        return samples

    samples = asyncio.run(late())
    assert (samples.said, samples.is_late, sorted(ended)) == ([], True, [1, 2])

    async def interrupted():
        task = asyncio.create_task(Samples(guard()).aask(hang, [3, 4]))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        return task.cancelled()

    assert asyncio.run(interrupted())
    assert sorted(ended) == [1, 2, 3, 4]


def test_a_call_that_cancels_itself_is_a_failure_and_not_the_callers_end():
    async def ask(copy):
        raise asyncio.CancelledError

    async def run():
        samples = Samples(guard())
        await samples.aask(ask, [1])
        return samples

    samples = asyncio.run(run())
    assert (samples.said, samples.is_short, samples.is_late) == ([], True, False)


def test_the_time_that_asking_took_is_counted_by_decide():
    clock = Clock()
    strict = guard(clock, limits={"deadline_seconds": 4.0}, on_timeout="block", voting={"method": "kmeans"})
    prompt, said = Prompt.ask("what?", fake_image()), [Answer("red"), Answer("blue"), Answer("red")]
    assert strict.decide(prompt, said, clean=0, candidate="red", took=3.0).status == "passed"
    assert strict.decide(prompt, said, clean=0, candidate="red", took=4.0).status == "error"


def test_models_that_hang_leave_the_judges_their_threads(monkeypatch):
    nothing_free = threading.BoundedSemaphore(1)
    nothing_free.acquire()
    monkeypatch.setattr(waiting.FOREIGN, "free", nothing_free)
    bounded = guard(limits={"deadline_seconds": 0.2})
    samples = Samples(bounded)
    samples.ask(lambda _: "It is red.", [1, 2])
    assert (samples.said, samples.is_late) == ([], True)
    assert bounded.review(Prompt.ask("What is it?"), "It is red.").status == "passed"


def test_a_wait_for_a_thread_is_counted_once(monkeypatch):
    monkeypatch.setattr("sg_guardrails.guard.queued", lambda: 3.0)
    bounded = guard(lambda: 10.0, limits={"deadline_seconds": 8})
    assert bounded._rounds(took=5.0).asking.deadline.until == 10 - 5 + 0.75 * 8
    assert bounded._rounds(took=1.0).asking.deadline.until == 10 - 3 + 0.75 * 8


def test_a_loop_within_a_call_that_is_cancelled_is_a_failed_sample():
    def ask(copy):
        if copy == 2:
            raise asyncio.CancelledError
        return copy

    samples = Samples(guard())
    samples.ask(ask, [1, 2, 3])
    assert (samples.said, samples.is_short) == ([1, 3], True)
