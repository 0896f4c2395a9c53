"""The audit file: one checked line per decision, appended whole or not at all, whatever kills the process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Outcome, Prompt
from sg_guardrails.record import PolicyChange, event

if sys.platform != "win32":
    import fcntl

_HEAD = re.compile(rb'\{"crc":"([0-9a-f]{8})",(?="at":"([^"]{20,40})")')
_BLOCK = 65_536


def _now() -> datetime:
    return datetime.now(UTC)


class AuditFile:
    """An append-only JSONL file of decisions, given to a guard as its ``emit``.

    Each line begins with the CRC-32 of the rest. A line is appended by one write under a file lock, so any number of
    threads and processes may share the file. A line that a kill or a full disk tore is found by the next writer, moved
    to ``NAME.torn`` before anything is appended, and noted in a line of its own (``audit.torn``). Contents are digests
    unless the policy says ``record: {include_text: true}``; then texts are redacted, and media are never written.

    Args:
        path: The file; its folder must exist. Made for the owner's eyes only (mode 0600).
        max_bytes: A line that would take the file past this goes to a new one; the old is renamed to
            ``STEM.UTC-TIME.SUFFIX`` beside it. Nothing is ever deleted.
        max_age: Likewise, where the file's first line is older than this.
        fsync: Wait for the disk at every line. Not needed against a killed process, only against a lost machine.
        now: The clock, UTC.

    Raises:
        GuardError: If the file cannot be opened, or the system has no POSIX file locks (Windows). From a call, where
            the line could not be written whole; a guard then marks its outcome degraded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int | None = None,
        max_age: timedelta | None = None,
        fsync: bool = False,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.path = Path(path)
        self._max_bytes, self._max_age, self._fsync, self._now = max_bytes, max_age, fsync, now
        if sys.platform == "win32":
            raise GuardError(
                "the audit file needs POSIX file locks: on Windows configure structlog's file output instead"
            )
        self._append(b"")  # a folder that is missing or not writable is told at the start; a torn end is cut off

    def __call__(self, outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
        """Append the decision."""
        self._append(self._line("guard.outcome", event(outcome, prompt, policy)))

    def policy_changed(self, change: PolicyChange) -> None:
        """Append the change of a policy in service: pass it to `reloading` as ``note``."""
        self._append(self._line("policy.refused" if change.new is None else "policy.changed", asdict(change)))

    def _line(self, name: str, fields: Mapping[str, Any]) -> bytes:
        content = {"at": self._now().isoformat(timespec="microseconds"), "event": name, **fields}
        rest = json.dumps(content, separators=(",", ":"), default=str)[1:].encode()
        return b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest)

    def _append(self, line: bytes) -> None:
        try:
            with self._locked() as file:
                if torn := _cut_torn_end(file, self.path):
                    line = self._line("audit.torn", {"bytes": torn}) + line
                if not self._is_full(file, len(line)):
                    _write_whole(file, line, fsync=self._fsync)
                    return
                self._rotate()
            self._append(line)
        except OSError as error:
            raise GuardError(f"{self.path}: not written: {error.strerror or type(error).__name__}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """A descriptor of the file that stands at the path, locked.

        Opened anew each time: a lock held through a descriptor that a fork has copied would be held by both processes.
        """
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if sys.platform != "win32":
                    fcntl.flock(file, fcntl.LOCK_EX)
                if _stands_at(file, self.path):  # else another process has rotated it away meanwhile
                    yield file
                    return
            finally:
                os.close(file)

    def _is_full(self, file: int, more: int) -> bool:
        size = os.fstat(file).st_size
        if not size or not more:
            return False
        if self._max_bytes is not None and size + more > self._max_bytes:
            return True
        head = _HEAD.match(_at(file, 0, 80)) if self._max_age is not None else None
        return (
            head is not None
            and self._max_age is not None
            and self._now() - datetime.fromisoformat(head[2].decode()) > self._max_age
        )

    def _rotate(self) -> None:
        name, number = f"{self.path.stem}.{self._now():%Y%m%dT%H%M%S}", 0
        while (target := self.path.with_name(f"{name}{f'-{number}' if number else ''}{self.path.suffix}")).exists():
            number += 1
        self.path.rename(target)


def read(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """Each line's number and record; None for a line whose checksum is wrong. A torn end is no line.

    Raises:
        GuardError: If the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield number, _checked(line)
    except OSError as error:
        raise GuardError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error


def _checked(line: bytes) -> Mapping[str, Any] | None:
    head = _HEAD.match(line)
    if head is None or int(head[1], 16) != zlib.crc32(line[head.end() : -1]):
        return None
    record: Mapping[str, Any] = json.loads(line)
    return record


def _stands_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _cut_torn_end(file: int, path: Path) -> int:
    """Move what follows the last newline to ``NAME.torn``, and say how many bytes that was.

    Left where it is, it would spoil the next decision too.
    """
    size = whole = os.fstat(file).st_size
    if not size or _at(file, size - 1, 1) == b"\n":
        return 0
    while whole:
        start = max(0, whole - _BLOCK)
        newline = _at(file, start, whole - start).rfind(b"\n")
        whole = start + newline + 1 if newline >= 0 else start
        if newline >= 0:
            break
    torn = os.open(path.with_name(f"{path.name}.torn"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(torn, _at(file, whole, size - whole) + b"\n")
    finally:
        os.close(torn)
    os.ftruncate(file, whole)
    return size - whole


def _at(file: int, start: int, count: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)  # O_APPEND: a write goes to the end wherever this leaves the position
    return os.read(file, count)


def _write_whole(file: int, line: bytes, *, fsync: bool) -> None:
    size = os.fstat(file).st_size
    if os.write(file, line) != len(line):
        os.ftruncate(file, size)
        raise GuardError("the disk took only a part of the line: is it full?")
    if fsync and line:
        os.fsync(file)
