"""Pages of docs/ whose figures are written from the committed JSON, between two marks, so that none can drift."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def figures(name: str) -> Any:
    """What benchmarks/results/NAME.json holds."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def between(text: str, begin: str, end: str, lines: Iterable[str]) -> str:
    """A page with other lines between its marks."""
    before, rest = text.split(begin)
    return before + "\n".join((begin, *lines, end)) + rest.split(end)[1]


def rewrite(path: Path, page: Callable[[str], str]) -> int:
    """Rewrite the page at `path`; with ``--check`` say only whether it has drifted: the exit status is 1 then."""
    parser = argparse.ArgumentParser(description=f"Figures of docs/{path.name}")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page differs")
    check = parser.parse_args().check
    old = path.read_text(encoding="utf-8")
    new = page(old)
    if not check:
        path.write_text(new, encoding="utf-8")
    return int(check and new != old)
