"""When and on which code a figure was measured: rows of different code are never mixed in silence."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]


def digest(*own: Path) -> str:
    """16 hex digits of the sha256 over the package's modules that are loaded now and the benchmark's own files.

    Modules that a benchmark never loads cannot change its figures, so a change of theirs makes no figure old.
    """
    loaded = {Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    found = hashlib.sha256()
    for path in sorted({one for one in loaded if one.is_relative_to(ROOT / "sg_guardrails")} | {Path(__file__), *own}):
        name = path.as_posix().removeprefix(ROOT.as_posix())
        found.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).date().isoformat()


def differing(codes: Iterable[str], present: str) -> list[str]:
    """Which of the rows' digests are not the present one, each once."""
    return sorted({code for code in codes if code != present})
