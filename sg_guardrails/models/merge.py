"""Calls from many threads become few calls of one sampler: a short window, a bounded queue, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field

from sg_guardrails.core.errors import SamplingError
from sg_guardrails.core.forking import renewed_in_children
from sg_guardrails.core.policy import Smoothing
from sg_guardrails.core.types import Answer, Copy, Sampler
from sg_guardrails.core.waiting import at_end

WINDOW = 0.004
"""Seconds that a batch waits for company, where the last one had some: a lone caller never waits."""
_SHARE, _MOST = 0.05, 0.25
"""After a long batch it waits longer, by this share of the batch's time, at most so many seconds: those whose votes it
has not settled are about to come with their next rounds, and small batches are dear."""
_RECENT = 1.0
"""Seconds after a batch within which those who were in it may be about to come; later, a caller is a lone one again."""


@dataclass(eq=False, slots=True)
class _Call:
    copies: tuple[Copy, ...]
    smoothing: Smoothing
    future: Future[list[Answer]] = field(default_factory=Future)


class Merged:
    """A sampler that asks another one for several callers at once.

    Noise depends on a copy's seed alone, so what a caller gets does not depend on who else was in the batch (up to the
    rounding of batched arithmetic). A batch that fails is asked again call by call: one bad request sinks no other.

    Args:
        sampler: What is asked. It is never called by two threads at the same time.
        most_together: Copies in one call of it; a single caller's copies stay together whatever their number.
        most_waiting: Copies that may wait. Beyond that a call fails at once with SamplingError, and the policy's
            ``on_error`` decides: the queue never grows without bound.
        window: Seconds to wait for company, at least; 0 never waits.
    """

    def __init__(
        self, sampler: Sampler, *, most_together: int = 256, most_waiting: int = 4096, window: float = WINDOW
    ) -> None:
        self._sampler, self._window = sampler, window
        self._most_together, self._most_waiting = most_together, most_waiting
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin anew: in a forked child nobody waits, and the thread that asks is not there."""
        self._waiting: deque[_Call] = deque()
        self._queued = 0  # copies in it
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._company = False
        self._took = self._ended = 0.0  # seconds, the last batch and the clock at its end

    def __getattr__(self, name: str) -> object:
        """What else the sampler can do: ``warm_up``, ``noisy_values``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy, in order. Raises SamplingError if too many wait already, else as the sampler does.

        Where the caller goes away, by its deadline or because its task is cancelled, the call leaves the queue.
        """
        future = self.submit(copies, smoothing)
        at_end(future.cancel)
        try:
            return future.result()
        except CancelledError as error:
            raise SamplingError("the request was cancelled before it was asked") from error
        finally:
            future.cancel()  # whoever is interrupted while he waits leaves nothing in the queue

    def submit(self, copies: Sequence[Copy], smoothing: Smoothing) -> Future[list[Answer]]:
        """Queue a call; ``cancel()`` on the result takes it out again until its batch begins."""
        call = _Call(tuple(copies), smoothing)
        with self._changed:
            if self._queued + len(call.copies) > self._most_waiting and self._waiting:
                raise SamplingError(f"the model is busy: {self._queued} copies wait, the most is {self._most_waiting}")
            self._waiting.append(call)
            self._queued += len(call.copies)
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._serve, name="smoothguard-merge", daemon=True)
                try:
                    self._worker.start()
                except RuntimeError as error:  # the system gives no more threads: nobody would take it from the queue
                    self._worker = None
                    self._waiting.remove(call)
                    self._queued -= len(call.copies)
                    raise SamplingError(f"the model was not asked: {error}") from error
            self._changed.notify()
        call.future.add_done_callback(lambda done: self._forget(call) if done.cancelled() else None)
        return call.future

    def _forget(self, call: _Call) -> None:
        """Take a cancelled call out of the queue; one that was begun is not in it."""
        with self._changed:
            if call in self._waiting:
                self._waiting.remove(call)
                self._queued -= len(call.copies)

    def _serve(self) -> None:
        """Ask batch after batch; the thread ends with the queue, so that an idle guard holds none."""
        wait = self._patience()
        while True:
            with self._changed:
                if wait:
                    self._changed.wait_for(self._full, timeout=wait)
                batch = self._take()
                if not batch:
                    self._worker = None
                    return
            self._company = len(batch) > 1
            began = time.perf_counter()
            self._run(batch)
            self._ended = time.perf_counter()
            self._took = self._ended - began
            wait = 0.0  # those who came in the meantime have waited a whole batch already

    def _patience(self) -> float:
        """Seconds that the next batch waits for company."""
        if not (self._company and self._window) or time.perf_counter() - self._ended > _RECENT:
            return 0.0
        return max(self._window, min(_SHARE * self._took, _MOST))

    def _full(self) -> bool:
        return self._queued >= self._most_together

    def _take(self) -> list[_Call]:
        """The longest waiting calls that fit together; none overtakes another."""
        batch: list[_Call] = []
        size = 0
        while self._waiting:
            call = self._waiting[0]
            fits = not batch or (
                call.smoothing == batch[0].smoothing and size + len(call.copies) <= self._most_together
            )
            if not fits:
                break
            self._waiting.popleft()
            self._queued -= len(call.copies)
            if call.future.set_running_or_notify_cancel():
                batch.append(call)
                size += len(call.copies)
        return batch

    def _run(self, batch: Sequence[_Call]) -> None:
        try:
            answers = self._sampler([copy for call in batch for copy in call.copies], batch[0].smoothing)
            if len(answers) != sum(len(call.copies) for call in batch):
                raise SamplingError("the sampler gave another number of answers than it was asked for")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001 - whatever it is, each caller gets it and none waits forever
            if len(batch) == 1 or not isinstance(error, Exception):
                for call in batch:
                    call.future.set_exception(error)
            else:
                for call in batch:
                    self._run([call])
            return
        rest = iter(answers)
        for call in batch:
            call.future.set_result([next(rest) for _ in call.copies])
