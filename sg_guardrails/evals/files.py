"""Folders of results and of media: what can be written, what is there, and what tells one set of data from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals.base import Item, present


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits that tell these texts and numbers from others."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def identity(items: Sequence[Item]) -> dict[str, str]:
    """What tells the data of one evaluation from another's: its questions and answers, and its pictures or clips.

    Media are told apart by name and size: thousands of pictures are not read twice for it.
    """
    asked = [(item.key, item.group, item.expected, item.text) for item in items]
    media = sorted({item.media for item in items if item.media is not None})
    return {"data": digest(*asked), "media": digest(*((path.name, _size(path)) for path in media))}


def shown(folder: Path, media: Iterable[Path], *, source: str) -> Path:
    """`folder`, if it holds at least one of the media that the questions name.

    Raises:
        GuardError: If it is missing or holds none of them; names where its owners publish it.
    """
    present(folder, source=source)
    wanted = list(dict.fromkeys(media))
    if wanted and not any(path.exists() for path in wanted):
        raise GuardError(
            f"{folder} holds none of the {len(wanted)} files asked about (the first: {wanted[0].name}); "
            f"their owners publish them at {source}"
        )
    return folder


def writable(folder: Path) -> Path:
    """`folder`, made where it is not there.

    Raises:
        GuardError: If it is a file, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise GuardError(f"{folder} is a file; results need a folder") from None
    except OSError as error:
        raise GuardError(f"{folder}: cannot be made: {error.strerror or type(error).__name__}") from error
    return folder


def write(path: Path, text: str) -> Path:
    """Write a result's file, its folder with it.

    Raises:
        GuardError: If it cannot be written.
    """
    writable(path.parent)
    try:
        path.write_text(text, encoding="utf-8", errors="replace")  # answers may hold half a surrogate pair
    except OSError as error:
        raise GuardError(f"{path}: cannot be written: {error.strerror or type(error).__name__}") from error
    return path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
