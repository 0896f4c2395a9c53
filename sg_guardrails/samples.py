"""Samples: a caller's own model asked the copies, within the policy's deadline; `SmoothGuard.decide` judges them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from sg_guardrails.core.errors import DeadlineError, SamplingError

if TYPE_CHECKING:
    from sg_guardrails.guard import SmoothGuard

Asked = TypeVar("Asked")
Said = TypeVar("Said")
MOST_AT_ONCE = 64
"""Threads that ask the copies of one request."""
_LATE = "the deadline passed before the copy was answered"


class Samples(Generic[Asked, Said]):
    """What the model said to the copies so far, and whether that is all.

    A call that fails, or comes too late, is no answer. The others of its round are waited for, no further round is
    asked, and `decide` makes of what is in hand what the policy says. The deadline begins here. What nothing can
    interrupt, a call on a thread, runs on by itself; a task is cancelled.

    Args:
        guard: Whose policy sets the deadline.
        context: Makes the context in which a copy is asked; by default a copy of the caller's.
        through: Exceptions that are no failure but the framework's control flow: they are raised.
    """

    def __init__(
        self,
        guard: SmoothGuard,
        *,
        context: Callable[[], Context] = copy_context,
        through: tuple[type[Exception], ...] = (),
    ) -> None:
        self._deadline, self._context, self._through = guard.patience(), context, through
        self._began = self._deadline.clock()
        self.said: list[Said] = []
        """In the order of the copies, but for those that gave no answer."""
        self.is_short = False
        """Whether an answer lacks: nothing more is asked."""
        self.is_late = False
        """Whether one came too late."""

    @property
    def took(self) -> float:
        """Seconds since the first copy was due."""
        return self._deadline.clock() - self._began

    def ask(self, ask: Callable[[Asked], Said], copies: Sequence[Asked]) -> None:
        """Ask `copies` at the same time, each on a thread."""
        if not copies:
            return

        def one(copy: Asked) -> Said | Exception:
            try:
                return self._deadline.within(partial(ask, copy))
            except self._through:
                raise
            except asyncio.CancelledError:  # of a loop within the call; a thread cannot be cancelled
                return SamplingError("the call was cancelled from within")
            except Exception as error:  # noqa: BLE001 - whatever a model raises, it is no answer
                return error

        contexts = [self._context() for _ in copies]
        with ThreadPoolExecutor(min(len(copies), MOST_AT_ONCE)) as pool:
            self._take(pool.map(lambda context, copy: context.run(one, copy), contexts, copies))

    async def aask(self, ask: Callable[[Asked], Awaitable[Said]], copies: Sequence[Asked]) -> None:
        """Ask `copies` at the same time on the running loop; what has no answer in time is cancelled."""
        if not copies:
            return

        async def one(copy: Asked) -> Said | Exception:
            try:
                return await ask(copy)
            except self._through:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                return error

        left = self._deadline.left
        if left is not None and left <= 0:
            self._take([DeadlineError(_LATE)])
            return
        tasks = [asyncio.create_task(one(copy), context=self._context()) for copy in copies]
        try:
            await asyncio.wait(tasks, timeout=left)
            self._take(_result(task) for task in tasks)
        finally:
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.exception()  # looked at, so that the loop logs none of it
                task.cancel()

    def _take(self, results: Iterable[Said | Exception]) -> None:
        for result in results:
            if isinstance(result, Exception):
                self.is_short = True
                self.is_late = self.is_late or isinstance(result, DeadlineError)
            else:
                self.said.append(result)


def _result(task: asyncio.Task[Said | Exception]) -> Said | Exception:
    if not task.done():
        return DeadlineError(_LATE)
    return SamplingError("the call was cancelled from within") if task.cancelled() else task.result()
