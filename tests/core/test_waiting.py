"""Waiting: time that is up, threads left behind, and what is taken back when nobody waits any more."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from sg_guardrails.core import waiting
from sg_guardrails.core.errors import DeadlineError
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
    monkeypatch.setattr(waiting, "_slots", slots)
    with pytest.raises(DeadlineError):
        Deadline(5.0, lambda: now[0]).within(lambda: pytest.fail("called"))
    assert threading.BoundedSemaphore.acquire(slots, blocking=False), "its thread is free again"


def test_calls_that_hang_are_counted_and_do_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(waiting, "_slots", threading.BoundedSemaphore(2))
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
