"""The files of the attack commands: told before the work whether they can be read and written, and written after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Image, Media


def ready(out: Path, suffix: str, *, state: Path | None, read: Sequence[Path]) -> None:
    """Tell before the work whether its result and its state can be written, without harm to what it is made from.

    Args:
        out: Where the medium goes; the report goes beside it, as .json.
        suffix: That of the medium's file.
        state: Where the state is kept.
        read: The files that the command reads.

    Raises:
        GuardError: If a file cannot be written, or would be written over one that is read or another that is written.
    """
    if out.suffix.lower() != suffix:
        raise GuardError(f"--out {out}: a name that ends in {suffix}")
    named = [("--out", out), ("the report of --out,", out.with_suffix(".json"))]
    named += [] if state is None else [("--state", state)]
    taken = list(read)
    for option, path in named:
        if other := next((other for other in taken if _same(path, other)), None):
            raise GuardError(f"{option} {path}: it would be written over {other}; name another file")
        taken.append(path)
        _told(option, path)
    if state is not None:
        _told("--state", state.with_name(f"{state.name}.part"))


def write(medium: Media, report: str, out: Path) -> None:
    """The medium's file, and the report beside it. Raises GuardError if they cannot be written."""
    try:
        out.write_bytes(medium.to_png() if isinstance(medium, Image) else medium.to_wav())
        out.with_suffix(".json").write_text(report, encoding="utf-8")
    except OSError as error:
        raise GuardError(f"cannot write {out}: {error.strerror or type(error).__name__}") from error


def lines(path: Path, *, all_count: bool = False) -> tuple[str, ...]:
    """The lines of a text file that hold something.

    Args:
        path: The file.
        all_count: Whether a line is known by its number, so that none before the last may be blank.

    Raises:
        GuardError: If there is none, the file cannot be read, or a blank one counts.
    """
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise GuardError(f"{path}: cannot be read: {type(error).__name__}") from error
    if not any(found):
        raise GuardError(f"{path}: holds no line")
    if all_count and "" in found:
        raise GuardError(f"{path}: line {found.index('') + 1} is blank, and with --paired lines go by their numbers")
    return tuple(line for line in found if line)


def _told(option: str, path: Path) -> None:
    """Tries the writing itself: permissions, names and kinds of file fail in too many ways to foretell."""
    if not os.path.isdir(path.parent):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        raise GuardError(f"{option} {path}: there is no folder {path.parent}")
    new = not os.path.lexists(path)
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise GuardError(f"{option} {path}: cannot be written: {error.strerror or type(error).__name__}") from error


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(one) == os.path.realpath(other)
