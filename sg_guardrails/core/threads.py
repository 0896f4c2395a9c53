"""Threads for calls that coroutines await: so many at once, so many in the queue, the others refused."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sg_guardrails.core.errors import SamplingError
from sg_guardrails.core.forking import renewed_in_children

_Result = TypeVar("_Result")


@dataclass(eq=False, slots=True)
class _Call:
    call: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    is_refused: bool = False
    """Whether it holds no slot any more, although the pool may come to it yet."""


class Threads:
    """Runs calls, first come first served. Any number of threads and event loops may submit.

    Args:
        most: Calls that run at once.
        most_waiting: Calls that may wait. A cancelled one leaves the queue at once, what it would have run with it.
        name: Of the threads.
    """

    def __init__(self, most: int, most_waiting: int, name: str) -> None:
        self._most, self._most_waiting, self._name = most, most_waiting, name
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin anew: in a forked child none of the threads is there."""
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._busy = 0
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        # Only what has a thread is handed to it: its own queue has no bound, and keeps what was cancelled.
        return ThreadPoolExecutor(self._most, thread_name_prefix=self._name)

    def submit(self, call: Callable[[], _Result]) -> Future[_Result]:
        """Run `call` on a thread, now or when one is free.

        Raises:
            SamplingError: If too many wait already, or the system gives no thread.
        """
        asked = _Call(call)
        with self._lock:
            is_free = self._busy < self._most
            if not is_free and len(self._waiting) >= self._most_waiting:
                raise SamplingError(
                    f"{self._busy} calls run and {self._most_waiting} wait, the most: await fewer at once, "
                    "or give many prompts to one call"
                )
            if is_free:
                self._hand_over(asked)
            else:
                self._waiting.append(asked)
        asked.future.add_done_callback(lambda done: self._forget(asked) if done.cancelled() else None)
        return asked.future

    def _hand_over(self, asked: _Call) -> None:
        self._busy += 1
        try:
            self._pool.submit(self._serve, asked)
        except RuntimeError as error:
            # The pool has queued it all the same; where one of its threads has begun it meanwhile, all is well.
            if asked.future.cancel():
                asked.is_refused = True
                self._busy -= 1
                # It would count a thread that comes to the refused call as one more that is idle, and start none for
                # a call that needs it. What else it has, it brings to an end.
                self._pool.shutdown(wait=False)
                self._pool = self._new_pool()
                raise SamplingError(f"no thread for the call: {error}") from error

    def _forget(self, asked: _Call) -> None:
        with self._lock:
            if asked in self._waiting:
                self._waiting.remove(asked)

    def _serve(self, asked: _Call | None) -> None:
        while asked is not None:
            tell = _ran(asked)
            with self._lock:
                if asked.is_refused:
                    return
                asked = self._waiting.popleft() if self._waiting else None
                if asked is None:
                    self._busy -= 1
            tell()  # whoever hears of it and comes again finds its thread free


def on_its_own(call: Callable[[], _Result], name: str) -> Future[_Result]:
    """Run `call` on a thread of its own, called `name`. Raises SamplingError if the system gives none."""
    asked = _Call(call)

    def work() -> None:
        _ran(asked)()

    try:
        threading.Thread(target=work, daemon=True, name=name).start()
    except RuntimeError as error:
        raise SamplingError(f"no thread for the call: {error}") from error
    return asked.future


def _ran(asked: _Call) -> Callable[[], None]:
    """Make the call; what is returned tells its caller how it ended."""
    if not asked.future.set_running_or_notify_cancel():
        return lambda: None
    try:
        return partial(asked.future.set_result, asked.call())
    except BaseException as error:  # noqa: BLE001 - handed to the one who waits
        return partial(asked.future.set_exception, error)
