"""Forked children: locks that nobody holds there, and state that begins anew, as the parent's threads are not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """What holds threads, queues or connections that a forked child cannot use."""

    def renew(self) -> None:
        """Begin anew in a child: nobody waits there, no thread runs and no lock is held."""
        ...


_renewable: WeakSet[Renewable] = WeakSet()


def renewed_in_children(one: Renewable) -> None:
    """Have ``one.renew()`` called in each child that this process forks while `one` lives."""
    _renewable.add(one)


class Lock:
    """A lock that is free in a forked child, whoever held it when the parent forked.

    Args:
        make: ``threading.RLock`` for one that its holder may take again.
    """

    def __init__(self, make: Callable[[], threading.Lock | threading.RLock] = threading.Lock) -> None:
        self._make = make
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Another lock in this one's place."""
        self._lock = self._make()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; without `blocking` only if it is free. Returns whether it was taken."""
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def _in_child() -> None:
    for one in list(_renewable):
        one.renew()


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_in_child)
