"""What the evaluation commands share: their options, who answers, who judges, and how results are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals import judges, report, terminal
from sg_guardrails.evals import mm_safetybench as mm
from sg_guardrails.evals.base import Benchmark, Row, Trouble
from sg_guardrails.evals.evaluate import Judge, scored
from sg_guardrails.evals.run import Batched
from sg_guardrails.evals.summary import Evaluation

if TYPE_CHECKING:
    from sg_guardrails.evals.run import Answerer, Progress

console, err = Console(), Console(stderr=True)
ARMS = ("bare", "guarded")

DataOption = Annotated[Path, typer.Option(help="The benchmark's folder, as its owners publish it.")]
NeededOut = Annotated[Path, typer.Option(help="Results' folder; a killed run continues from it.")]
OutOption = Annotated[Path | None, typer.Option(help="Results' folder; a killed run continues from it.")]
PolicyOption = Annotated[str, typer.Option(help="A shipped policy's name, or a file.")]
ModelOption = Annotated[str | None, typer.Option(help="A hub id, a folder or builtin:shapes; else the policy's.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Most items, spread evenly over the groups.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Items asked at once; a killed run asks at most so many again.")]
ArmOption = Annotated[list[str] | None, typer.Option("--arm", help="bare or guarded; both where left out.")]
JudgeOption = Annotated[
    str | None, typer.Option(help="openai:MODEL, hf:MODEL (a local one), or scorers (mm-safetybench only).")
]
UrlOption = Annotated[str | None, typer.Option(help="Base URL of an OpenAI-compatible judge; its key: OPENAI_API_KEY.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def recorded(benchmark: Benchmark, read: Mapping[Path, tuple[list[Row], list[Trouble]]]) -> Evaluation:
    """Several files are arms of one evaluation, the first two compared."""
    stems = {file.stem for file in read}
    found = {file.stem if len(stems) == len(read) else str(file): content for file, content in read.items()}
    rows = {name: rows for name, (rows, _) in found.items()}
    mark = len(found) > 1
    troubles = [
        replace(trouble, where=f"{name}: {trouble.where}" if mark else trouble.where)
        for name, (_, wrong) in found.items()
        for trouble in wrong
    ]
    return scored(benchmark, rows, troubles, about={"model": "recorded", "answers": ", ".join(map(str, read))})


def arms_of(
    rules: Policy, model: str | None, device: str, batch: int, chosen: Sequence[str] | None
) -> tuple[dict[str, Batched], dict[str, str]]:
    """Who answers, by name, and what tells this evaluation from another."""
    names = among(chosen, ARMS, "--arm")
    from sg_guardrails.eval_arms import bare, guarded, named  # noqa: PLC0415 - torch is slow to import

    asked = named(rules, model=model, device=device)
    makers = {"bare": bare, "guarded": guarded}
    about = {"model": asked.model.id, "policy": asked.id}
    return {name: makers[name](asked, size=batch) for name in names}, about


def judge_of(spec: str, url: str | None, device: str) -> tuple[str, Answerer]:
    """A judge that answers in words, and its name."""
    kind, _, model = spec.partition(":")
    if kind == "openai" and model:
        return spec, judges.endpoint(model, url=url)
    if kind == "hf" and model:
        from sg_guardrails.eval_arms import local_judge  # noqa: PLC0415 - torch is slow to import

        return spec, local_judge(model, device=device)
    raise GuardError(f"--judge {spec!r}: name openai:MODEL or hf:MODEL")


def safety_of(
    data: Path, scenarios: Sequence[str] | None, variants: Sequence[str] | None, universal: Path | None, rules: Policy
) -> mm.MMSafetyBench:
    """MM-SafetyBench as the options choose it."""
    return mm.MMSafetyBench.read(
        data,
        scenarios=among(scenarios, mm.SCENARIOS, "--scenario"),
        variants=among(variants, mm.VARIANTS, "--variant"),
        universal=universal,
        limits=rules.limits.media,
    )


def safety_judge(benchmark: mm.MMSafetyBench, spec: str, url: str | None, rules: Policy, device: str) -> Judge:
    """The judge of MM-SafetyBench: the project's own scorers, or one that answers in words."""
    if spec != "scorers":
        name, said = judge_of(spec, url, device)
        return Judge(name, said, benchmark.judging)
    from sg_guardrails.eval_arms import refusal_scorer  # noqa: PLC0415 - torch is slow to import

    judge = mm.scorer_judge(refusal_scorer(rules, device=device))
    return Judge("scorers", Batched(judge, 64), benchmark.judging)


def finish(evaluation: Evaluation, folder: Path | None, *, as_json: bool) -> None:
    """Print the figures, and write summary and report where there is a folder for them."""
    terminal.print_losses(evaluation, err)
    if folder is not None:
        evaluation.write(folder)
        page = report.write_report(evaluation, folder / "report.html")
        err.print(Text(f"report: {page}"), soft_wrap=True)
    if as_json:
        typer.echo(terminal.as_json(evaluation))
    else:
        terminal.print_evaluation(evaluation, console)
    scored_rows = [figures["n"] for arm in evaluation.arms.values() for figures in terminal.plain(arm.scores).values()]
    if not any(scored_rows) and not any(arm.counts.get("undecided") for arm in evaluation.arms.values()):
        raise GuardError("nothing was scored: no row has an answer to a known question")


def watch(what: str) -> AbstractContextManager[Progress]:
    """Progress on standard error."""
    return terminal.watch(what, err)


def among(chosen: Sequence[str] | None, known: Sequence[str], option: str) -> tuple[str, ...]:
    """The chosen names in their own order, all where none is chosen. Raises GuardError for an unknown one."""
    if unknown := [name for name in chosen or () if name not in known]:
        raise GuardError(f"{option} {unknown[0]!r}: choose among {', '.join(known)}")
    return tuple(name for name in known if not chosen or name in chosen)


def numbers(text: str, option: str) -> list[float]:
    """Comma-separated numbers, sorted. Raises GuardError where they are none."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise GuardError(f"{option} {text!r}: numbers, separated by commas") from None
    return sorted(set(numbers))
