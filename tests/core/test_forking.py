"""Real forks: what is locked, queued or running in the parent is free, empty and idle in the child."""

from __future__ import annotations

import os
import threading

import pytest

from sg_guardrails.core import waiting
from sg_guardrails.core.errors import DeadlineError
from sg_guardrails.core.forking import Lock
from sg_guardrails.core.threads import Threads
from sg_guardrails.core.waiting import Deadline, left_behind
from tests.forked import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing")


def test_the_check_itself_can_fail():
    assert in_child(lambda: True)
    assert not in_child(lambda: False)
    plain = threading.Lock()
    with plain:
        assert not in_child(lambda: bool(plain.acquire()), seconds=1), "an ordinary lock stays held"


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_lock_that_another_thread_holds_is_free_in_the_child(make):
    lock, held, release = Lock(make), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)

    def taken() -> bool:
        with lock:
            return True

    try:
        assert in_child(taken)
        assert not lock.acquire(blocking=False), "in the parent it is still held"
    finally:
        release.set()
        holder.join()
    assert lock.acquire(blocking=False)
    lock.release()


def test_a_child_has_threads_of_its_own_and_none_left_behind(monkeypatch):
    release, begun = threading.Event(), threading.Event()
    threads = Threads(1, 1, "test")

    def hang() -> None:
        begun.set()
        release.wait(60)

    running = threads.submit(hang)
    assert begun.wait(60)
    waiting_one = threads.submit(lambda: "in the parent")
    monkeypatch.setattr(waiting._slots, "free", threading.BoundedSemaphore(1))
    with pytest.raises(DeadlineError):
        Deadline(0.02, lambda: 0.0).within(lambda: release.wait(60))

    def free() -> bool:
        own = threads.submit(lambda: "in the child").result(30)
        return (own, left_behind()) == ("in the child", 0) and Deadline(30.0, lambda: 0.0).within(lambda: True)

    try:
        assert left_behind() > 0
        assert in_child(free)
    finally:
        release.set()
    running.result(60)
    assert waiting_one.result(60) == "in the parent"
