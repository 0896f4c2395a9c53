"""What every benchmark shares: items, rows, figures with their intervals, and data files read as they are."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from scipy.stats import binomtest

from sg_guardrails.core.errors import GuardError, MediaError
from sg_guardrails.core.media import Audio, Image, MediaLimits
from sg_guardrails.core.types import Prompt

RowStatus = Literal["answered", "stopped", "failed", "unreadable"]
MOST_LINE = 10_000_000
"""Characters of one line of a data file; a longer one is broken, not data."""
RESAMPLES = 2_000
"""Bootstrap draws behind the interval of a figure that is no simple rate."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its 95% interval."""

    value: float | None
    """None where nothing was counted."""
    n: int
    """How many items stand behind it."""
    low: float | None = None
    high: float | None = None

    @classmethod
    def rate(cls, hits: int, n: int) -> Figure:
        """`hits` out of `n`, with Wilson's score interval (Wilson 1927)."""
        if n == 0:
            return cls(None, 0)
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        return cls(hits / n, n, float(interval.low), float(interval.high))

    @classmethod
    def resampled(cls, rows: Sequence[Sequence[float]], statistic: Callable[[Any], Any]) -> Figure:
        """A statistic of the column means of `rows`, with a percentile bootstrap interval over the rows.

        Args:
            rows: ``(n, K)`` what was counted on each item.
            statistic: ``(..., K)`` column means to ``(...)``; it may give NaN where it is not defined.
        """
        table = np.asarray(rows, dtype=float)
        if table.size == 0:
            return cls(None, 0)
        n = len(table)
        # Items that count the same are drawn together: the bootstrap of n rows is a multinomial over the distinct ones.
        kinds, counts = np.unique(table, axis=0, return_counts=True)
        draws = np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES) @ kinds / n
        with np.errstate(divide="ignore", invalid="ignore"):
            value, spread = float(statistic(table.mean(axis=0))), np.asarray(statistic(draws))
        spread = spread[np.isfinite(spread)]
        if not np.isfinite(value) or not spread.size:
            return cls(None, n)
        low, high = np.quantile(spread, [0.025, 0.975])
        return cls(value, n, float(low), float(high))


Scores = dict[str, dict[str, Figure]]
"""Figures by group (split, category, scenario) and by name."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Two arms on the same items: how often they differ, and McNemar's exact test for it."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    """Two-sided; 1.0 where the arms never differ."""

    @classmethod
    def test(cls, pairs: Sequence[tuple[bool, bool]]) -> Paired:
        """Compare (first, second) outcomes of each item (McNemar 1947, exact binomial on the discordant pairs)."""
        first, second = pairs.count((True, False)), pairs.count((False, True))
        p = float(binomtest(first, first + second).pvalue) if first + second else 1.0
        return cls(pairs.count((True, True)), first, second, pairs.count((False, False)), p)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing in the data that could not be used: where it stands and what is wrong with it."""

    where: str
    what: str
    kind: str
    """Troubles of one kind are counted together."""
    group: str = ""
    """Split, category or scenario, where it is known."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark."""

    key: str
    """Names the item within its benchmark, the same in every run."""
    group: str
    """Split, category or scenario."""
    prompt: Callable[[], Prompt]
    """Reads the item's media only when it is asked; raises MediaError where they cannot be read."""
    expected: str = ""
    """The right answer, where there is one."""
    text: str = ""
    """What is asked in words: a kept answer to other words is not this item's."""
    media: Path | None = None
    """The file that is shown or played beside them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one arm said to one item, and what it cost."""

    text: str
    stopped: bool = False
    """True where a policy's text stands in the answer's place."""
    status: str = ""
    """The guard's status, where a guard answered."""
    copies: int = 1
    """How often the model was asked."""
    seconds: float | None = None
    """Time it took; None leaves the clock to the runner."""
    agreement: float | None = None
    answers: tuple[str, ...] = ()
    """What each copy said, the clean one first where it was asked."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a run's journal: an item with what became of it."""

    key: str
    group: str
    status: RowStatus
    """``stopped``: the policy's text was handed on; ``failed``: no answer came; ``unreadable``: nothing to ask with."""
    text: str = ""
    detail: str = ""
    """The guard's status, or why there is no answer."""
    seconds: float = 0.0
    copies: int = 0
    agreement: float | None = None
    answers: tuple[str, ...] = ()
    asked: str = ""
    """Digest of the item's words."""

    @property
    def counts(self) -> bool:
        """Whether the row is scored; the others are counted beside the score."""
        return self.status in ("answered", "stopped")


class Benchmark(Protocol):
    """A set of items and the rule by which their answers are scored."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def headline(self) -> str:
        """The figure that charts draw."""
        ...

    @property
    def outcome(self) -> str:
        """What `hit` means, as an adjective: right, unsafe ..."""
        ...

    @property
    def items(self) -> Sequence[Item]:
        """In the order in which they are asked."""
        ...

    @property
    def troubles(self) -> Sequence[Trouble]:
        """What of the data could not be used."""
        ...

    def scores(self, rows: Sequence[Row]) -> Scores:
        """Figures by group."""
        ...

    def hit(self, row: Row) -> bool | None:
        """Whether the row has the outcome that paired tests compare; None where it is not decided."""
        ...


def open_picture(path: Path, limits: MediaLimits) -> Image:
    """A picture of the data. Raises MediaError, naming the file."""
    try:
        return Image.open(path, limits=limits)
    except MediaError as error:
        raise MediaError(f"{path.name}: {error}") from error


def open_clip(path: Path, limits: MediaLimits) -> Audio:
    """A clip of the data. Raises MediaError, naming the file."""
    try:
        return Audio.open(path, limits=limits)
    except MediaError as error:
        raise MediaError(f"{path.name}: {error}") from error


def present(path: Path, *, source: str = "") -> Path:
    """`path`, if it is there.

    Raises:
        GuardError: If it is not; names the file and where its owners publish it, where they do.
    """
    try:
        there = path.exists()
    except OSError as error:
        raise GuardError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error
    if not there:
        raise GuardError(f"{path} is missing" + (f"; its owners publish it at {source}" if source else ""))
    return path


def read_lines(path: Path, *, source: str = "") -> tuple[list[tuple[int, Mapping[str, Any]]], list[Trouble]]:
    """The objects of a JSONL file with their line numbers, and the lines that hold none. Blank lines are nothing.

    Raises:
        GuardError: If the file is missing or cannot be read.
    """
    present(path, source=source)
    rows: list[tuple[int, Mapping[str, Any]]] = []
    troubles: list[Trouble] = []
    try:
        for number, line in _lines(path):
            try:
                value = json.loads(line) if len(line) <= MOST_LINE else None
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                rows.append((number, value))
                continue
            what = "not a JSON object"
            if line.lstrip().startswith("[") and not rows and not troubles:
                what += ": one object per line is read, no JSON array (jq -c '.[]' turns one into lines)"
            troubles.append(Trouble(f"{path.name}:{number}", what, "broken lines"))
    except OSError as error:
        raise GuardError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error
    return rows, troubles


def plain_id(value: object) -> str | None:
    """Ids are numbers in some files and strings in others."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as PowerShell's > writes
    # Bytes that are no UTF-8 break their own line alone; a byte order mark at the start is nothing.
    with path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line
