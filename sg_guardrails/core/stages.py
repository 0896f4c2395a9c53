"""Stages: what a request's time was spent on, each moment counted once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Milliseconds by stage. A stage within another interrupts it, so that all of them add up to the time that passed.

    For one thread: whoever hands work to another one counts his own wait for it.

    Args:
        clock: Seconds; only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._since = clock, 0.0
        self._open: list[str] = []
        self._spent: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count what runs within to `stage`."""
        self._count()
        self._open.append(stage)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What runs within is forgotten after it: the next of several requests goes on from what all have shared."""
        shared = dict(self._spent)
        try:
            yield
        finally:
            self._spent = shared

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds of the stages that have ended, and their sum as ``total``."""
        return {**self._spent, "total": sum(self._spent.values())}

    def _count(self) -> None:
        now = self._clock()
        if self._open:
            stage = self._open[-1]
            self._spent[stage] = self._spent.get(stage, 0.0) + (now - self._since) * 1000
        self._since = now
