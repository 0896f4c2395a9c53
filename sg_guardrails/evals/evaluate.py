"""A benchmark through several arms, judged where it needs a judge: rows become an Evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from sg_guardrails.evals.base import Benchmark, Row, Trouble
from sg_guardrails.evals.files import identity, writable
from sg_guardrails.evals.run import Answerer, Attack, Progress, run
from sg_guardrails.evals.summary import Arm, Evaluation, lost, paired, versions

Watch = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens a progress display for the named part of the work."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Who decides about answers that no rule can score."""

    name: str
    """Tells its verdicts from another judge's in the results' folder."""
    answer: Answerer
    """Answers the judging prompts; its raw words are kept."""
    asks: Callable[[Sequence[Row]], Benchmark]
    """Makes a benchmark of judging prompts from an arm's rows; its scores are the arm's scores."""
    settle: Callable[[Sequence[Row]], Sequence[Row]] = list
    """Makes one verdict per item where several were asked for, in both orders of a comparison."""


@dataclass(frozen=True, slots=True)
class Arms:
    """An evaluation with the rows behind it."""

    evaluation: Evaluation
    rows: Mapping[str, tuple[Row, ...]]
    """By arm: what was answered."""
    verdicts: Mapping[str, tuple[Row, ...]]
    """By arm: what the judge said of each item, where there was one."""


def evaluate(
    benchmark: Benchmark,
    arms: Mapping[str, Answerer],
    *,
    out: Path,
    about: Mapping[str, str] | None = None,
    attack: Attack | None = None,
    judge: Judge | None = None,
    limit: int | None = None,
    watch: Watch = lambda _: nullcontext(),
) -> Arms:
    """Run every arm over the same items, each in its own folder of `out`; resumable as `run` is.

    Args:
        benchmark: The items.
        arms: Who answers, by name: usually ``bare`` and ``guarded``, in this order for the paired test.
        out: Where journals are kept, ``<out>/<arm>`` and ``<out>/<arm>-judged``.
        about: What tells this evaluation from another: model, policy ... The data's digests are added to it.
        attack: What happens to each prompt first.
        judge: Who decides, where the benchmark needs one.
        limit: Most items, spread evenly over the groups.
        watch: Shows progress.

    Raises:
        GuardError: If `out` cannot be written, or an arm's folder there holds another run.
    """
    writable(out)
    named = {**(about or {}), **identity(benchmark.items)}
    rows: dict[str, tuple[Row, ...]] = {}
    verdicts: dict[str, tuple[Row, ...]] = {}
    results: dict[str, Arm] = {}
    troubles, rule = list(benchmark.troubles), benchmark
    for name, answer in arms.items():
        folder = out / name
        with watch(name) as progress:
            done = run(
                benchmark, answer, attack, out=folder, about={**named, "arm": name}, limit=limit, progress=progress
            )
        rows[name] = done.rows
        troubles += done.troubles
        if judge is None:
            results[name] = Arm.of(done.rows, benchmark.scores(done.rows))
            continue
        rule = judge.asks(done.rows)
        judged = {**named, "arm": name, "judge": judge.name}
        with watch(f"{name}, judging") as progress:
            said = run(rule, judge.answer, out=out / f"{name}-judged", about=judged, progress=progress)
        verdicts[name] = tuple(judge.settle(said.rows))
        troubles += said.troubles
        undecided = sum(rule.hit(row) is None for row in verdicts[name])
        results[name] = Arm.of(done.rows, rule.scores(verdicts[name]), more={"undecided": undecided})
    decided = verdicts if judge else rows
    more = {"judge": judge.name} if judge else {}
    losses = {name: [*lost(rows[name]), *lost(verdicts.get(name, ()))] for name in arms}
    evaluation = summed(benchmark, results, decided, troubles, rule=rule, about={**named, **more}, losses=losses)
    return Arms(evaluation, rows, verdicts)


def scored(
    benchmark: Benchmark, arms: Mapping[str, Sequence[Row]], troubles: Sequence[Trouble], *, about: Mapping[str, str]
) -> Evaluation:
    """The evaluation of recorded rows: nobody is asked."""
    results = {name: Arm.of(rows, benchmark.scores(rows)) for name, rows in arms.items()}
    return summed(benchmark, results, arms, [*benchmark.troubles, *troubles], rule=benchmark, about=about, losses={})


def summed(
    benchmark: Benchmark,
    results: Mapping[str, Arm],
    decided: Mapping[str, Sequence[Row]],
    troubles: Sequence[Trouble],
    *,
    rule: Benchmark,
    about: Mapping[str, str],
    losses: Mapping[str, Sequence[str]],
) -> Evaluation:
    """Put the arms' results and the paired test of the first two together."""
    names = list(decided)
    tests = paired(rule, decided[names[0]], decided[names[1]]) if len(names) > 1 else {}
    return Evaluation(
        benchmark.name,
        benchmark.headline,
        dict(results),
        title=f"{benchmark.name}: {', '.join(names)}",
        about={**about, **versions()},
        paired=tests,
        outcome=benchmark.outcome,
        troubles=tuple(troubles),
        lost=dict(losses),
    )
