"""Waiting: a deadline for work that nothing can interrupt, and who still waits for what is queued."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sg_guardrails.core.errors import DeadlineError, SamplingError
from sg_guardrails.core.forking import renewed_in_children
from sg_guardrails.core.threads import Threads, on_its_own

_Result = TypeVar("_Result")
MOST_THREADS = 128
"""Calls under a deadline at once, in the whole process: those that hang past theirs must not grow without bound."""
MOST_AWAITED = 64
"""Calls at once that coroutines await: asyncio's own pool, six threads on two cores, would leave little to merge."""
MOST_WAITING = 512
"""Calls that may wait for one of these threads. Those beyond run on a few others, where no model is asked."""
_RESERVE = 8
_LATE = "the deadline passed before the vote was settled and judged"
_now = time.perf_counter


class _Slots:
    """Threads for calls under a deadline, and which of them run although theirs has passed."""

    def __init__(self) -> None:
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin anew: in a forked child none of the threads is there."""
        self.free = threading.BoundedSemaphore(MOST_THREADS)
        self.left_behind: set[threading.Thread] = set()


_slots = _Slots()
FOREIGN = _Slots()
"""For models that are not a guard's own: where they hang, its judges still have threads."""
_awaited = Threads(MOST_AWAITED, MOST_WAITING, "sg_guardrails")
_reserve = Threads(_RESERVE, MOST_WAITING, "sg_guardrails reserve")


class Wait:
    """One caller's wait for a result. Any number of threads may use it."""

    def __init__(self, refusal: SamplingError | None = None) -> None:
        self._undo: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self.is_over = False
        """Whether nobody waits any more."""
        self.refusal = refusal
        """Why no model is asked for it."""
        self.queued = 0.0
        """Seconds that it took until a thread was free, until they are charged to a call."""

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
_is_awaited: contextvars.ContextVar[bool] = contextvars.ContextVar("smoothguard_is_awaited", default=False)


@contextmanager
def waiting() -> Iterator[Wait]:
    """A wait of its own for what is called within; it ends with the one around it."""
    outer = _current.get()
    wait = Wait(None if outer is None else outer.refusal)
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


def queued() -> float:
    """Seconds that the caller of what is being done here waited until a thread was free; a deadline counts them.

    The first call takes them: where one thread makes several calls of a guard, the later ones did not wait.
    """
    if (wait := _current.get()) is None:
        return 0.0
    seconds, wait.queued = wait.queued, 0.0
    return seconds


def refuse_unwanted() -> None:
    """Raise SamplingError where no model is to be asked for what is being done here.

    Nobody waits for it any more, or more tasks wait already than may.
    """
    if nobody_waits():
        raise SamplingError("the request was cancelled before it was asked")
    if (wait := _current.get()) is not None and wait.refusal is not None:
        raise wait.refusal


async def on_a_thread(call: Callable[[], _Result]) -> _Result:
    """`call` on a worker thread, in the caller's context. Cancelling takes back what `call` has queued.

    A guard's deadline in it begins now, not when a thread is free. `MOST_AWAITED` calls run at once in the process and
    `MOST_WAITING` wait. One beyond these runs on a thread of a small reserve, where a guard asks no model: its policy's
    ``on_error`` decides, as where the model's own queue is full. What is awaited from within such a call, in an event
    loop of its own, has a thread of its own: the callers hold the threads that it would wait for.

    Raises:
        SamplingError: If as many wait for the reserve too, or the system gives no thread.
    """
    began = _now()
    with waiting() as wait:
        context = contextvars.copy_context()

    def work() -> _Result:
        wait.queued = _now() - began
        context.run(_is_awaited.set, True)  # noqa: FBT003 - what a context variable is set to
        return context.run(call)

    if _is_awaited.get():
        future = on_its_own(work, "sg_guardrails nested")
    else:
        try:
            future = _awaited.submit(work)
        except SamplingError as error:
            wait.refusal = error
            future = _reserve.submit(work)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        wait.end()
        raise


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the time is up for calls that nothing can interrupt: a model's, a judge's."""

    until: float | None = None
    """The clock's reading; None: never."""
    clock: Callable[[], float] = time.perf_counter
    threads: _Slots = _slots
    """Where its calls run."""

    @property
    def left(self) -> float | None:
        """Seconds until it passes; None: it never does."""
        return None if self.until is None else self.until - self.clock()

    def within(self, call: Callable[[], _Result]) -> _Result:
        """What `call` returns, or raises. Past the deadline it runs on by itself, and its result is dropped.

        What hangs for good keeps its thread. `MOST_THREADS` of them and every call comes too late, the policy's
        ``on_timeout`` deciding, until one ends. What was merely queued for a model ends with its deadline, so that a
        local model or an engine that hangs holds no more of them than it had begun to answer.

        Raises:
            DeadlineError: Once the time is up.
        """
        if self.until is None:
            return call()
        slots = self.threads.free
        if (left := self.until - self.clock()) <= 0 or not slots.acquire(timeout=left):
            raise DeadlineError(_LATE)
        if (left := self.until - self.clock()) <= 0:  # the wait for a free thread has taken what there was
            slots.release()
            raise DeadlineError(_LATE)
        done: Future[_Result] = Future()
        behind = self.threads.left_behind

        def work() -> None:
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                done.set_exception(error)
            finally:
                behind.discard(threading.current_thread())
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
            except BaseException as error:
                if done.done() and done.exception() is error:
                    raise
                behind.add(thread)
                if done.done():  # it came to its end in between
                    behind.discard(thread)
                wait.end()
                if isinstance(error, TimeoutError):
                    raise DeadlineError(_LATE) from None
                raise  # whoever waits is interrupted, and what was queued for him goes with him


NEVER = Deadline()
"""None."""


def left_behind() -> int:
    """How many calls still run although nobody waits for them any more: of either kind `MOST_THREADS` at most."""
    return len(_slots.left_behind) + len(FOREIGN.left_behind)
