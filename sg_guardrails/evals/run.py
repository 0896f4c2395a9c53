"""One run: every item of a benchmark is asked once and journalled, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, get_args

from sg_guardrails.core.errors import GuardError, MediaError, ModelError, PolicyError, SamplingError
from sg_guardrails.core.types import Prompt
from sg_guardrails.evals.base import Benchmark, Item, Reply, Row, RowStatus, Trouble, read_lines
from sg_guardrails.evals.files import digest, writable

JOURNAL, IDENTITY = "items.jsonl", "run.json"
MOST_FAILURES = 20
"""So many items failing in a row mean a broken model, not hard items: the run stops, and goes on when started again."""


@dataclass(frozen=True, slots=True)
class Batched:
    """An answerer that takes several prompts at once, because a model is faster that way."""

    ask: Callable[[Sequence[Prompt]], Sequence[Reply | str]]
    size: int = 8
    """Most prompts in one call; a killed run asks at most so many again."""


T = TypeVar("T")
R = TypeVar("R")


class Each(Protocol):
    """Does every task with what `make` returns, elsewhere, and gives it back with its result as that is ready."""

    def __call__(
        self, make: Callable[[], Callable[[T], R]], tasks: Iterable[T], /
    ) -> Iterator[tuple[T, R | GuardError]]:
        """Take tasks only as they can be begun (`workers.Workers.each`)."""
        ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An answerer of which every worker makes one for itself; several batches are asked at the same time."""

    make: Callable[[], Batched]
    """Called in each worker; it must survive being sent there."""
    each: Each
    size: int = 8
    """Most prompts in one call."""


Answerer = Callable[[Prompt], Reply | str] | Batched | Elsewhere
"""Whoever answers: a bare model, a guarded one, a judge, a recording."""
Attack = Callable[[Prompt], Prompt]
Progress = Callable[[int, int], None]
"""Told (done, all) at the start and after every batch; what was done before a resume is included."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run."""

    rows: tuple[Row, ...]
    """One row per item, in the benchmark's order."""
    troubles: tuple[Trouble, ...]
    """Lines of the journal that could not be used; their items were asked again."""


def run(
    benchmark: Benchmark,
    answer: Answerer,
    attack: Attack | None = None,
    *,
    out: Path,
    about: Mapping[str, str] | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Ask every item that the journal in `out` does not hold yet, and return the rows of all.

    {bare, guarded} x {clean, attacked} are four calls with a folder each. A row is written as soon as its item is
    answered; a torn last line is cut off and its item asked again; failed items are asked again by the next call,
    and so are items whose words have changed (a judge's, when the answer to judge has); unreadable ones are not.

    Args:
        benchmark: The items.
        answer: Who answers.
        attack: What happens to each prompt first.
        out: The run's own folder.
        about: What else tells this run from another (model, policy, device ...): a folder takes one run only.
        limit: Most items, spread evenly over the groups; a larger limit later adds to a smaller one.
        progress: Told how far the run is.

    Raises:
        GuardError: If `out` holds another run, cannot be written, or another process is writing to it.
        ModelError: If the model cannot be loaded.
        SamplingError: If `MOST_FAILURES` items fail in a row.
    """
    chosen = spread(benchmark.items, limit)
    with _journal(out) as journal, _alone(journal, out):
        _same_run(out / IDENTITY, {"benchmark": benchmark.name, **(about or {})})
        known, troubles = _read(journal, out / JOURNAL)
        rows = {item.key: known[item.key] for item in chosen if item.key in known and _kept(known[item.key], item)}
        left = [item for item in chosen if item.key not in rows]
        failures = 0
        if progress is not None:
            progress(len(rows), len(chosen))
        for batch in _asked(left, answer, attack):
            journal.write(b"".join(_line(row) for row in batch))
            journal.flush()
            rows |= {row.key: row for row in batch}
            for row in batch:
                failures = failures + 1 if row.status == "failed" else 0
            if failures >= MOST_FAILURES:
                raise SamplingError(
                    f"{failures} items failed in a row (the last: {batch[-1].detail}); see {out / JOURNAL}"
                )
            if progress is not None:
                progress(len(rows), len(chosen))
    return Run(tuple(rows[item.key] for item in chosen), tuple(troubles))


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first `limit` items when the groups take turns, in the benchmark's order; all of them where it is None."""
    if limit is None:
        return list(items)
    seen: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for index, item in enumerate(items):
        seen[item.group] = seen.get(item.group, 0) + 1
        turns.append((seen[item.group], index))
    return [items[index] for index in sorted(index for _, index in sorted(turns)[:limit])]


@dataclass(frozen=True, slots=True)
class _Question:
    """What of an item goes to whoever answers it."""

    key: str
    group: str
    asked: str
    prompt: Prompt | None
    """None where the media cannot be read."""
    trouble: str = ""


def _words(item: Item) -> str:
    return digest(item.text) if item.text else ""


def _kept(row: Row, item: Item) -> bool:
    return row.status != "failed" and row.asked == _words(item)


def _asked(items: Sequence[Item], answer: Answerer, attack: Attack | None) -> Iterator[list[Row]]:
    """The items' rows, a batch at a time; from workers as they are ready."""
    size = 1 if callable(answer) else answer.size
    batches = ([_question(item, attack) for item in items[at : at + size]] for at in range(0, len(items), size))
    if not isinstance(answer, Elsewhere):
        yield from (_rows(batch, answer) for batch in batches)
        return
    for batch, rows in answer.each(partial(_asking, answer.make), batches):
        if isinstance(rows, ModelError | PolicyError):
            raise rows
        if isinstance(rows, GuardError):
            yield [Row(one.key, one.group, "failed", detail=str(rows), asked=one.asked) for one in batch]
        else:
            yield rows


def _asking(make: Callable[[], Batched]) -> Callable[[Sequence[_Question]], list[Row]]:
    """Run in a worker: the same answers, failures and times as here."""
    answer = make()
    return lambda batch: _rows(batch, answer)


def _question(item: Item, attack: Attack | None) -> _Question:
    try:
        prompt = item.prompt() if attack is None else attack(item.prompt())
    except MediaError as error:
        return _Question(item.key, item.group, _words(item), None, str(error))
    return _Question(item.key, item.group, _words(item), prompt)


def _rows(batch: Sequence[_Question], answer: Callable[[Prompt], Reply | str] | Batched) -> list[Row]:
    rows = [Row(one.key, one.group, "unreadable", detail=one.trouble) for one in batch if one.prompt is None]
    prompts = [(one, one.prompt) for one in batch if one.prompt is not None]
    rows += _answered(prompts, answer) if prompts else []
    words = {one.key: one.asked for one in batch}
    return [replace(row, asked=words[row.key]) for row in rows]


def _answered(
    asked: Sequence[tuple[_Question, Prompt]], answer: Callable[[Prompt], Reply | str] | Batched
) -> list[Row]:
    began = time.perf_counter()
    prompts = [prompt for _, prompt in asked]
    try:
        replies = answer.ask(prompts) if isinstance(answer, Batched) else [answer(prompts[0])]
        rows = [_row(one, reply) for (one, _), reply in zip(asked, replies, strict=True)]
    except (ModelError, PolicyError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever an answerer raises, the other items must not be lost
        if len(asked) > 1:  # one bad item must not take its batch along
            return [row for pair in asked for row in _answered([pair], answer)]
        one = asked[0][0]
        detail = str(error) if isinstance(error, GuardError) else type(error).__name__
        return [Row(one.key, one.group, "failed", detail=detail, seconds=round(time.perf_counter() - began, 6))]
    each = (time.perf_counter() - began) / len(asked)
    return [replace(row, seconds=round(row.seconds or each, 6)) for row in rows]


def _row(item: _Question, reply: Reply | str) -> Row:
    said = Reply(reply) if isinstance(reply, str) else reply
    # An error is its own status, never an answer.
    if said.status == "error":
        return Row(item.key, item.group, "failed", detail=said.text, seconds=said.seconds or 0.0)
    status: RowStatus = "stopped" if said.stopped else "answered"
    return Row(
        item.key,
        item.group,
        status,
        said.text,
        detail=said.status,
        seconds=said.seconds or 0.0,
        copies=said.copies,
        agreement=said.agreement,
        answers=said.answers,
    )


def _line(row: Row) -> bytes:
    default = {field.name: field.default for field in fields(Row) if field.default is not MISSING}
    shown = {name: value for name, value in asdict(row).items() if name not in default or value != default[name]}
    return json.dumps(shown).encode() + b"\n"


def _read(journal: IO[bytes], path: Path) -> tuple[dict[str, Row], list[Trouble]]:
    """The rows so far; a line torn by a kill is cut off the file."""
    journal.seek(0)
    written = journal.read()
    if not written.endswith(b"\n"):
        journal.truncate(written.rfind(b"\n") + 1)
    lines, troubles = read_lines(path, source="this run")
    rows: dict[str, Row] = {}
    for number, line in lines:
        row = _parsed(line)
        if row is None:
            troubles.append(Trouble(f"{path.name}:{number}", "is no row of a run", "broken lines"))
        else:
            rows[row.key] = row
    return rows, troubles


def _parsed(line: Mapping[str, Any]) -> Row | None:
    try:
        row = Row(**{**line, "answers": tuple(line.get("answers", ()))})
    except TypeError:
        return None
    texts = (row.key, row.group, row.text, row.detail, row.asked, *row.answers)
    numbers = (row.seconds, row.copies)
    sound = all(isinstance(text, str) for text in texts) and all(isinstance(number, int | float) for number in numbers)
    return row if sound and row.status in get_args(RowStatus) else None


def _same_run(path: Path, about: Mapping[str, str]) -> None:
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)  # whole or not at all, whenever a kill comes
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise GuardError(f"{path} is broken; choose another folder for this run, or delete the file") from error
    names = sorted(name for name in before.keys() | about.keys() if before.get(name) != about.get(name))
    if names:
        differs = "; ".join(
            f"{name}: {before.get(name, 'none')} there, {about.get(name, 'none')} now" for name in names
        )
        raise GuardError(f"{path.parent} holds another run ({differs}); choose another folder")


@contextmanager
def _journal(out: Path) -> Iterator[IO[bytes]]:
    path = writable(out) / JOURNAL
    try:
        journal = path.open("a+b")
    except OSError as error:
        raise GuardError(f"{path}: cannot be written: {error.strerror or type(error).__name__}") from error
    with journal:
        yield journal


@contextmanager
def _alone(journal: IO[bytes], out: Path) -> Iterator[None]:
    """Hold the journal: two processes on one folder would ask items twice. A killed process lets go by itself."""
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - exists on Windows only

            journal.seek(0)
            msvcrt.locking(journal.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - exists elsewhere only

            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise GuardError(f"another process is writing to {out}; wait for it, or choose another folder") from None
    yield
