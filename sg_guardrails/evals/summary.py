"""An evaluation's result: its arms' figures, cost and losses, the paired tests between them, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sg_guardrails.core.errors import GuardError
from sg_guardrails.evals import files
from sg_guardrails.evals.base import Benchmark, Figure, Paired, Row, Scores, Trouble

SUMMARY = "summary.json"
PACKAGES = ("sg-guardrails", "torch", "transformers", "numpy", "scikit-learn", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of answering (bare, guarded ...) over the benchmark's items."""

    scores: Scores
    copies: float
    """How often the model was asked per item, on average."""
    seconds: float
    """Time per item, on average."""
    counts: Mapping[str, int]
    """Items by status: answered, stopped, failed, unreadable; and what a judge could not decide."""

    @classmethod
    def of(cls, rows: Sequence[Row], scores: Scores, *, more: Mapping[str, int] | None = None) -> Arm:
        """The arm that gave `rows`."""
        asked = [row for row in rows if row.copies]
        counts = dict.fromkeys(("answered", "stopped", "failed", "unreadable"), 0)
        for row in rows:
            counts[row.status] += 1
        mean = max(len(asked), 1)
        copies, seconds = sum(row.copies for row in asked) / mean, sum(row.seconds for row in asked) / mean
        return cls(scores, copies, seconds, {**counts, **(more or {})})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything a report shows."""

    benchmark: str
    headline: str
    """The figure that charts draw."""
    arms: Mapping[str, Arm]
    title: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    """Model, policy, data, versions."""
    paired: Mapping[str, Paired] = field(default_factory=dict)
    """By group: the first arm against the second on the same items."""
    outcome: str = "right"
    """What the paired tests count."""
    troubles: Sequence[Trouble] = ()
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By arm: the items without an answer, with the reason."""

    def write(self, folder: Path) -> Path:
        """Write ``summary.json`` into `folder`."""
        return files.write(folder / SUMMARY, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read what `write` wrote.

        Raises:
            GuardError: If the file is missing or is none.
        """
        file = path / SUMMARY if path.is_dir() else path
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            arms = {name: Arm(**{**arm, "scores": _scores(arm["scores"])}) for name, arm in data["arms"].items()}
            paired = {group: Paired(**values) for group, values in data["paired"].items()}
            troubles = tuple(Trouble(**values) for values in data["troubles"])
            return cls(**{**data, "arms": arms, "paired": paired, "troubles": troubles})
        except OSError as error:
            raise GuardError(f"{file}: cannot be read: {error.strerror or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GuardError(f"{file} is not an evaluation's summary") from error


def _scores(data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Scores:
    return {group: {name: Figure(**value) for name, value in figures.items()} for group, figures in data.items()}


def paired(benchmark: Benchmark, first: Sequence[Row], second: Sequence[Row]) -> dict[str, Paired]:
    """McNemar's test in each group and over ``all``, on the items that both arms answered."""
    others = {row.key: row for row in second}
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for row in first:
        other = others.get(row.key)
        one, two = benchmark.hit(row), None if other is None else benchmark.hit(other)
        if one is not None and two is not None:
            pairs.setdefault(row.group, []).append((one, two))
    if len(pairs) > 1:
        pairs["all"] = [pair for group in pairs.values() for pair in group]
    return {group: Paired.test(found) for group, found in pairs.items()}


def lost(rows: Sequence[Row]) -> list[str]:
    """The items without an answer, one line each."""
    return [f"{row.key}: {row.status}: {row.detail}" for row in rows if not row.counts]


def versions() -> dict[str, str]:
    """The packages that a result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
