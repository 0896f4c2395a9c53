"""Threads: so many calls at once, so many in the queue, and nothing kept of those that were cancelled."""

from __future__ import annotations

import gc
import threading
from weakref import ref

import pytest

from sg_guardrails.core.errors import SamplingError
from sg_guardrails.core.threads import Threads, on_its_own


class Gate:
    """Holds whoever comes until it is opened."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self) -> str:
        self.entered.release()
        assert self.open.wait(60)
        return "through"


def test_calls_run_at_once_up_to_the_most_and_then_in_order():
    gate, order = Gate(), []
    threads = Threads(2, 9, "test")
    running = [threads.submit(gate) for _ in range(2)]
    assert all(gate.entered.acquire(timeout=60) for _ in running)
    later = [threads.submit(lambda number=number: order.append(number)) for number in range(6)]
    assert order == []
    assert not any(one.done() for one in later)
    gate.open.set()
    assert [one.result(60) for one in running] == ["through"] * 2
    for one in later:
        one.result(60)
    assert sorted(order) == list(range(6))
    assert threads.submit(lambda: "again").result(60) == "again"


def test_whoever_hears_of_an_end_finds_the_thread_free():
    threads = Threads(1, 0, "test")
    for number in range(300):
        assert threads.submit(lambda number=number: number).result(60) == number


def test_one_too_many_is_refused_at_once_and_a_cancelled_one_makes_room():
    gate = Gate()
    threads = Threads(1, 2, "test")
    running = threads.submit(gate)
    kept = [threads.submit(lambda: "waited") for _ in range(2)]
    with pytest.raises(SamplingError, match="1 calls run and 2 wait"):
        threads.submit(lambda: pytest.fail("called"))
    assert kept[0].cancel()
    kept.append(threads.submit(lambda: "in its place"))
    gate.open.set()
    assert [one.result(60) for one in (running, kept[1], kept[2])] == ["through", "waited", "in its place"]


def test_nothing_of_a_cancelled_call_is_kept():
    class Picture:
        pass

    gate = Gate()
    threads = Threads(1, 2, "test")
    running = threads.submit(gate)
    picture = Picture()
    seen = ref(picture)
    for _ in range(5):
        assert threads.submit(lambda held=picture: held).cancel()
    del picture
    gc.collect()
    assert seen() is None
    gate.open.set()
    assert running.result(60) == "through"


@pytest.mark.parametrize("error", [ValueError("as it was"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_of_any_kind_is_the_callers_and_the_thread_goes_on(error):
    def broken() -> None:
        raise error

    threads = Threads(1, 4, "test")
    failed, fine = threads.submit(broken), threads.submit(lambda: "fine")
    with pytest.raises(type(error)) as caught:
        failed.result(60)
    assert caught.value is error
    assert fine.result(60) == "fine"


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_call_for_which_the_system_gives_no_thread_is_refused_and_never_made(monkeypatch):
    gate, made = Gate(), []
    threads = Threads(2, 0, "test")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        for _ in range(3):
            with pytest.raises(SamplingError, match="can't start new thread"):
                threads.submit(lambda: made.append("refused"))
    running = []
    for _ in range(2):  # the second finds the first at work, with all behind it that was refused
        running.append(threads.submit(gate))
        assert gate.entered.acquire(timeout=20)
    with pytest.raises(SamplingError, match="2 calls run and 0 wait"):
        threads.submit(lambda: made.append("one too many"))
    gate.open.set()
    assert [one.result(60) for one in running] == ["through"] * 2
    assert (threads._busy, made) == (0, [])


def test_what_a_running_thread_takes_up_before_the_refusal_is_made_and_counted(monkeypatch):
    """The pool queues a call before it starts a thread for it; one that has just become free may be there first."""
    gate = Gate()
    threads = Threads(2, 0, "test")
    assert threads.submit(lambda: "first").result(60) == "first"
    submit = threads._pool.submit

    def late(*asked):
        submit(*asked)
        assert gate.entered.acquire(timeout=60)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threads._pool, "submit", late)
        running = threads.submit(gate)
    assert threads._busy == 1
    gate.open.set()
    assert running.result(60) == "through"
    assert threads._busy == 0


def test_a_thread_of_its_own_tells_how_the_call_ended(monkeypatch):
    def broken() -> None:
        raise ValueError("as it was")

    assert on_its_own(lambda: threading.current_thread().name, "own").result(60) == "own"
    with pytest.raises(ValueError, match="as it was"):
        on_its_own(broken, "own").result(60)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(SamplingError, match="can't start new thread"):
        on_its_own(lambda: pytest.fail("called"), "own")
