"""Waiting: a deadline for work that nothing can interrupt, and who still waits for what is queued."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from sg_guardrails.core.errors import DeadlineError

_Result = TypeVar("_Result")
MOST_THREADS = 128
"""Calls under a deadline at once, in the whole process: those that hang past theirs must not grow without bound."""
MOST_AWAITED = 64
"""Calls at once that coroutines await: asyncio's own pool, six threads on two cores, would leave little to merge."""
_LATE = "the deadline passed before the vote was settled and judged"
_slots = threading.BoundedSemaphore(MOST_THREADS)
_left_behind: set[threading.Thread] = set()


class Wait:
    """One caller's wait for a result. Any number of threads may use it."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self.is_over = False
        """Whether nobody waits any more."""

    def end(self) -> None:
        """Nobody waits any more: what was queued meanwhile is taken back."""
        with self._lock:
            self.is_over = True
            undo, self._undo = self._undo, []
        for call in undo:
            call()

    def at_end(self, undo: Callable[[], object]) -> None:
        """Have `undo` called when nobody waits any more; now, where that is so already."""
        with self._lock:
            if not self.is_over:
                self._undo.append(undo)
                return
        undo()


_current: contextvars.ContextVar[Wait | None] = contextvars.ContextVar("smoothguard_wait", default=None)


@contextmanager
def waiting() -> Iterator[Wait]:
    """A wait of its own for what is called within; it ends with the one around it."""
    outer, wait = _current.get(), Wait()
    if outer is not None:
        outer.at_end(wait.end)
    token = _current.set(wait)
    try:
        yield wait
    finally:
        _current.reset(token)


def at_end(undo: Callable[[], object]) -> None:
    """Have `undo` called when nobody waits any more for what is being done here."""
    if (wait := _current.get()) is not None:
        wait.at_end(undo)


def nobody_waits() -> bool:
    """Whether the caller of what is being done here has gone away."""
    wait = _current.get()
    return wait is not None and wait.is_over


async def on_a_thread(call: Callable[[], _Result]) -> _Result:
    """`call` on a worker thread, in the caller's context. Cancelling takes back what `call` has queued."""
    with waiting() as wait:
        context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(_pool(os.getpid()), context.run, call)
    try:
        return await future
    except asyncio.CancelledError:
        wait.end()
        raise


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    del process  # a forked child has its parent's pool, but not the threads
    return ThreadPoolExecutor(MOST_AWAITED, thread_name_prefix="sg_guardrails")


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the time is up for calls that nothing can interrupt: a model's, a judge's."""

    until: float | None = None
    """The clock's reading; None: never."""
    clock: Callable[[], float] = time.perf_counter

    def within(self, call: Callable[[], _Result]) -> _Result:
        """What `call` returns, or raises. Past the deadline it runs on by itself, and its result is dropped.

        Raises:
            DeadlineError: Once the time is up.
        """
        if self.until is None:
            return call()
        slots = _slots
        if (left := self.until - self.clock()) <= 0 or not slots.acquire(timeout=left):
            raise DeadlineError(_LATE)
        if (left := self.until - self.clock()) <= 0:  # the wait for a free thread has taken what there was
            slots.release()
            raise DeadlineError(_LATE)
        done: Future[_Result] = Future()

        def work() -> None:
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                done.set_exception(error)
            finally:
                _left_behind.discard(threading.current_thread())
                slots.release()

        with waiting() as wait:
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(work,), daemon=True, name="sg_guardrails deadline")
            try:
                thread.start()
            except BaseException:
                slots.release()
                raise
            try:
                return done.result(timeout=left)
            except TimeoutError as error:
                if done.done() and done.exception() is error:
                    raise
                _left_behind.add(thread)
                if done.done():  # it came to its end in between
                    _left_behind.discard(thread)
                wait.end()
                raise DeadlineError(_LATE) from None


NEVER = Deadline()
"""None."""


def left_behind() -> int:
    """How many calls still run although their deadline has passed; `MOST_THREADS` at most."""
    return len(_left_behind)
