"""The vote cache: the votes of the requests seen last, for as long as the process lives."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from sg_guardrails.core import forking

Entry = TypeVar("Entry")


class Cache(Generic[Entry]):
    """Bounded; the entry not asked for longest goes first. Any number of threads may use it.

    Args:
        most: Entries kept. 0 keeps none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[tuple[str, ...], Entry] = OrderedDict()
        self._lock = forking.Lock()

    def get(self, key: tuple[str, ...]) -> Entry | None:
        """The entry, or None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: tuple[str, ...], entry: Entry) -> None:
        """Keep the entry, and let the oldest go where there are too many."""
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
