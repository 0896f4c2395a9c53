"""Waiting: time that is up, threads left behind, and what is taken back when nobody waits any more."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from sg_guardrails.core import waiting
from sg_guardrails.core.errors import DeadlineError, SamplingError
from sg_guardrails.core.threads import Threads
from sg_guardrails.core.waiting import NEVER, Deadline, Wait, at_end, left_behind, nobody_waits, on_a_thread


def test_without_a_deadline_no_thread_is_started():
    assert NEVER.within(threading.current_thread) is threading.current_thread()


def test_in_time_the_result_the_error_and_the_context_come_through():
    name = contextvars.ContextVar("name", default="")
    name.set("request 7")
    soon = Deadline(30.0, lambda: 0.0)
    assert soon.within(name.get) == "request 7"
    assert soon.within(threading.current_thread) is not threading.current_thread()

    def broken() -> None:
        raise TimeoutError("the engine's own")

    with pytest.raises(TimeoutError, match="own") as caught:
        soon.within(broken)
    assert not isinstance(caught.value, DeadlineError)


def test_time_that_is_up_calls_nobody():
    with pytest.raises(DeadlineError):
        Deadline(5.0, lambda: 5.0).within(lambda: pytest.fail("called"))


def test_waiting_for_a_free_thread_takes_from_the_time(monkeypatch):
    """The clock has passed the deadline once a thread is free: nothing is begun that would have the old rest."""
    now = [0.0]

    class Slow(threading.BoundedSemaphore):
        def acquire(self, *args, **kwargs):
            now[0] = 9.0
            return super().acquire(*args, **kwargs)

    slots = Slow(1)
    monkeypatch.setattr(waiting._slots, "free", slots)
    with pytest.raises(DeadlineError):
        Deadline(5.0, lambda: now[0]).within(lambda: pytest.fail("called"))
    assert threading.BoundedSemaphore.acquire(slots, blocking=False), "its thread is free again"


def test_calls_that_hang_are_counted_and_do_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(waiting._slots, "free", threading.BoundedSemaphore(2))
    release, begun = threading.Event(), []
    before = left_behind()
    threads = []

    def hang() -> None:
        begun.append(1)
        threads.append(threading.current_thread())
        release.wait(30)

    try:
        for _ in range(4):
            with pytest.raises(DeadlineError):
                Deadline(0.02, lambda: 0.0).within(hang)
        assert (len(begun), left_behind() - before) == (2, 2)
    finally:
        release.set()
    for thread in threads:
        thread.join(30)
    assert left_behind() <= before
    assert Deadline(30.0, lambda: 0.0).within(lambda: "free again") == "free again"


def test_a_deadline_takes_back_what_was_queued():
    queued, release, taken = threading.Event(), threading.Event(), []

    def work() -> bool:
        at_end(lambda: taken.append("back"))
        queued.set()
        release.wait(30)
        return nobody_waits()

    with pytest.raises(DeadlineError):
        Deadline(0.05, lambda: 0.0).within(work)
    release.set()
    assert queued.wait(30)
    assert taken == ["back"]


def test_what_is_queued_when_nobody_waits_is_taken_back_at_once():
    wait, taken = Wait(), []
    wait.at_end(lambda: taken.append(1))
    assert taken == []
    wait.end()
    wait.at_end(lambda: taken.append(2))
    wait.end()
    assert taken == [1, 2]


def test_outside_of_any_wait_nothing_is_kept():
    at_end(lambda: pytest.fail("called"))
    assert not nobody_waits()


def test_a_wait_ends_with_the_one_around_it():
    with waiting.waiting() as outer:
        with waiting.waiting() as inner:
            assert not nobody_waits()
        outer.end()
        assert nobody_waits()
    assert inner.is_over
    assert not nobody_waits()


def test_cancelling_a_task_takes_back_what_its_thread_has_queued():
    queued, release, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        at_end(release.set)
        queued.set()
        assert release.wait(30), "never told that nobody waits"
        seen.append(nobody_waits())

    async def main() -> None:
        task = asyncio.create_task(on_a_thread(work))
        await asyncio.to_thread(queued.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert release.wait(30)


def test_coroutines_get_results_errors_and_context():
    name = contextvars.ContextVar("name", default="")

    def broken() -> None:
        raise ValueError("as it was")

    async def main() -> str:
        name.set("task 3")
        with pytest.raises(ValueError, match="as it was"):
            await on_a_thread(broken)
        return await on_a_thread(name.get)

    assert asyncio.run(main()) == "task 3"


def test_a_call_that_is_interrupted_takes_back_what_was_queued(monkeypatch):
    """Whoever waits is told to stop (a signal, in the main thread): nobody waits for the call any more."""
    release, taken = threading.Event(), []

    class Interrupted(waiting.Future):
        def result(self, timeout=None):
            assert queued.wait(30)
            raise KeyboardInterrupt

    queued = threading.Event()

    def work() -> None:
        at_end(lambda: taken.append("back"))
        queued.set()
        release.wait(30)

    monkeypatch.setattr(waiting, "Future", Interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            Deadline(30.0, lambda: 0.0).within(work)
        assert taken == ["back"]
    finally:
        release.set()


def test_the_wait_for_a_thread_is_told_once_to_the_call_and_to_nothing_within_it(monkeypatch):
    now = [0.0]
    release, begun = threading.Event(), threading.Event()
    monkeypatch.setattr(waiting, "_now", lambda: now[0])
    monkeypatch.setattr(waiting, "_awaited", Threads(1, 1, "test"))

    def first() -> None:
        begun.set()
        assert release.wait(30)

    def second() -> tuple[float, float, float]:
        return Deadline(30.0, lambda: 0.0).within(waiting.queued), waiting.queued(), waiting.queued()

    async def main() -> tuple[float, float, float]:
        one = asyncio.create_task(on_a_thread(first))
        await asyncio.to_thread(begun.wait, 30)
        other = asyncio.create_task(on_a_thread(second))
        await asyncio.sleep(0)
        now[0] = 9.0
        release.set()
        await one
        return await other

    assert asyncio.run(main()) == (0.0, 9.0, 0.0)
    assert waiting.queued() == 0.0


def test_calls_that_await_others_in_loops_of_their_own_do_not_wait_for_their_own_threads(monkeypatch):
    monkeypatch.setattr(waiting, "_awaited", Threads(2, 9, "test"))
    full = threading.Barrier(2)

    def innermost() -> str:
        return threading.current_thread().name

    def awaiting(call):
        return asyncio.run(asyncio.wait_for(on_a_thread(call), 20))

    def plain() -> str:
        full.wait(30)
        return awaiting(lambda: awaiting(innermost))

    def under_a_deadline() -> str:
        full.wait(30)
        return Deadline(60.0, lambda: 0.0).within(lambda: awaiting(innermost))

    async def main() -> list[str]:
        both = await asyncio.gather(on_a_thread(plain), on_a_thread(under_a_deadline))
        return [*both, await on_a_thread(innermost)]

    *nested, after = asyncio.run(main())
    assert nested == ["sg_guardrails nested"] * 2
    assert after.startswith("test")


def test_where_too_many_wait_a_call_is_made_but_no_model_wanted(monkeypatch):
    monkeypatch.setattr(waiting, "_awaited", Threads(1, 0, "test"))
    monkeypatch.setattr(waiting, "_reserve", Threads(1, 0, "reserve"))
    release, begun, blocked = threading.Event(), threading.Event(), threading.Event()

    def hang(at: threading.Event) -> None:
        at.set()
        assert release.wait(30)

    def surplus() -> str:
        with pytest.raises(SamplingError, match="wait, the most"):
            waiting.refuse_unwanted()
        with pytest.raises(SamplingError, match="wait, the most"):
            Deadline(30.0, lambda: 0.0).within(waiting.refuse_unwanted)
        return "made"

    async def main() -> str:
        one = asyncio.create_task(on_a_thread(lambda: hang(begun)))
        await asyncio.to_thread(begun.wait, 30)
        told = await on_a_thread(surplus)
        other = asyncio.create_task(on_a_thread(lambda: hang(blocked)))
        await asyncio.to_thread(blocked.wait, 30)
        with pytest.raises(SamplingError, match="wait, the most"):
            await on_a_thread(surplus)
        release.set()
        await one
        await other
        return told

    assert asyncio.run(main()) == "made"
    waiting.refuse_unwanted()
