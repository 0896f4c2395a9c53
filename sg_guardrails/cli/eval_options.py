"""What the evaluation commands share: their options, who answers, who judges, and how results are shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.text import Text

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.noise import KEY_VARIABLE, process_key
from sg_guardrails.core.policy import Policy
from sg_guardrails.evals import judges, report, terminal
from sg_guardrails.evals import mm_safetybench as mm
from sg_guardrails.evals.ablation import Part
from sg_guardrails.evals.base import Benchmark, Row, Trouble
from sg_guardrails.evals.compa import CompaOrder
from sg_guardrails.evals.evaluate import Judge, scored
from sg_guardrails.evals.llava_bench import LlavaBench
from sg_guardrails.evals.llava_reviews import settled
from sg_guardrails.evals.pope import SPLITS, Pope
from sg_guardrails.evals.run import Batched, Elsewhere
from sg_guardrails.evals.speech import Speech
from sg_guardrails.evals.summary import Evaluation
from sg_guardrails.workers import Workers

if TYPE_CHECKING:
    from sg_guardrails.evals.run import Answerer, Progress

console, err = Console(), Console(stderr=True)
PUBLIC_KEY = "sg-guardrails eval: a key that everybody may know"
ARMS = ("bare", "guarded")
ASKING = ("model", "policy", "device", "limit", "batch", "workers", "arm")
"""Parameters of a command that only asking a model has a use for."""
UTILITIES = ("pope", "llava-bench", "compa", "speech")
"""Benchmarks on which right answers can be counted."""

DataOption = Annotated[Path, typer.Option(help="The benchmark's folder, as its owners publish it.")]
NeededOut = Annotated[Path, typer.Option(help="Results' folder; a killed run continues from it.")]
OutOption = Annotated[Path | None, typer.Option(help="Results' folder; a killed run continues from it.")]
PolicyOption = Annotated[str, typer.Option(help="A shipped policy's name, or a file.")]
ModelOption = Annotated[str | None, typer.Option(help="A hub id, a folder or builtin:shapes; else the policy's.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Most items, spread evenly over the groups.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Items asked at once; a killed run asks at most so many again.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Ask in so many Ray workers, a GPU each; on the cluster of RAY_ADDRESS, else on this machine."
    ),
]
ArmOption = Annotated[list[str] | None, typer.Option("--arm", help="bare or guarded; both where left out.")]
JudgeOption = Annotated[
    str | None, typer.Option(help="openai:MODEL, langchain:PROVIDER:MODEL or hf:MODEL (a local one).")
]
SafetyJudge = Annotated[
    str,
    typer.Option(help="scorers (this project's refusal head), openai:MODEL, langchain:PROVIDER:MODEL or hf:MODEL."),
]
SplitOption = Annotated[list[str] | None, typer.Option(help="random, popular or adversarial; may be repeated.")]
SuffixOption = Annotated[
    str | None, typer.Option(help='Asked after the question in the place of POPE\'s own words; "" asks it alone.')
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


def alone(context: typer.Context, option: str, *others: str) -> None:
    """Refuse options that have no part beside `option`.

    Raises:
        GuardError: If one of `others`, named as parameters, or of those that all models share, was given.
    """
    sources = {name: context.get_parameter_source(name) for name in (*ASKING, *others)}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        named = ", ".join("--" + name.replace("_", "-") for name in given)
        raise GuardError(f"{option} scores what is recorded, all of it, and asks no model: leave out {named}")


def picked(**options: Sequence[str] | None) -> dict[str, str]:
    """What was chosen of the data, to tell an evaluation from another."""
    return {name: ", ".join(sorted(values)) for name, values in options.items() if values}


def arms_of(
    rules: Policy, model: str | None, device: str, batch: int, chosen: Sequence[str] | None, hired: Workers | None
) -> tuple[dict[str, Answerer], dict[str, str]]:
    """Who answers, by name, and what tells this evaluation from another."""
    names = among(chosen, ARMS, "--arm")
    from sg_guardrails.cli.eval_arms import bare, guarded, named  # noqa: PLC0415 - torch is slow to import

    asked = named(rules, model=model, device=device)
    makers = {"bare": bare, "guarded": guarded}
    about = {"model": asked.model.id, "policy": asked.id, "key": key_of_run()}
    return {name: made(partial(makers[name], asked, size=batch), hired, size=batch) for name in names}, about


def key_of_run() -> str:
    """The id of the key that seeds the noise: the caller's, else a public one, so that a run is continued with its own.

    Public on purpose: nobody attacks an evaluation by its seeds, and anybody can repeat it.
    """
    os.environ.setdefault(KEY_VARIABLE, PUBLIC_KEY)
    return process_key().id


def hire(context: typer.Context, workers: int | None, rules: Policy, device: str) -> Workers | None:
    """So many workers for as long as the command runs; they start when there is something to ask."""
    if workers is None:
        return None
    device = rules.model.device if device == "auto" else device
    if ":" in device:
        raise GuardError(f"--device {device}: each worker sees the GPU that it was given; name cuda, cpu or auto")
    hired = Workers(workers, gpus=device != "cpu")

    def end() -> None:
        hired.close()
        if hired.lost:
            err.print(f"{hired.lost} workers died; what they were at was given to others")

    context.call_on_close(end)
    return hired


def made(make: Callable[[], Batched], hired: Workers | None, *, size: int) -> Batched | Elsewhere:
    """The answerer, here or in the workers."""
    return make() if hired is None else Elsewhere(make, hired.each, size)


def judge_of(spec: str, url: str | None, device: str) -> tuple[str, Answerer]:
    """A judge that answers in words, and its name."""
    kind, _, model = spec.partition(":")
    if url is not None and kind != "openai":
        raise GuardError(f"--judge-url is the server of an openai:MODEL judge; --judge is {spec!r}")
    if kind == "openai" and model:
        return f"{spec} at {_host(url)}" if url else spec, judges.endpoint(model, url=url)
    if kind == "langchain" and model:
        return spec, judges.langchain(model)
    if kind == "hf" and model:
        from sg_guardrails.cli.eval_arms import local_judge  # noqa: PLC0415 - torch is slow to import

        return spec, local_judge(model, device=device)
    raise GuardError(f"--judge {spec!r}: name openai:MODEL, langchain:PROVIDER:MODEL or hf:MODEL")


def _host(url: str) -> str:
    """Server and path, without what a URL may hold of a secret."""
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port}{parts.path}" if parts.port else f"{parts.hostname or ''}{parts.path}"


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
    if spec != "scorers" or url is not None:
        name, said = judge_of(spec, url, device)
        return Judge(name, said, benchmark.judging)
    from sg_guardrails.cli.eval_arms import refusal_scorer  # noqa: PLC0415 - torch is slow to import

    words = rules.texts
    withheld = {words.blocked, words.rewritten, words.abstained, words.error, *words.categories.values()}
    judge = mm.scorer_judge(refusal_scorer(rules, device=device), withheld=withheld)
    return Judge("scorers", Batched(judge, 64), benchmark.judging)


def utility_of(
    name: str,
    data: Path,
    *,
    images: Path | None,
    splits: Sequence[str] | None,
    suffix: str | None,
    rules: Policy,
    judge: tuple[str, str | None, str],
) -> Part:
    """The benchmark on which an ablation counts right answers; `judge` is its name, URL and device."""
    limits = rules.limits.media
    if name == "compa":
        return Part("utility", CompaOrder.read(data, limits=limits))
    if name == "speech":
        return Part("utility", speech_of(data, rules))
    if name == "llava-bench":
        bench = LlavaBench.read(data, images=images, limits=limits)
        called, said = judge_of(*judge)
        return Part("utility", bench, Judge(called, said, bench.reviews, settled))
    if images is None:
        raise GuardError("POPE needs --images DIR (COCO val2014)")
    chosen = among(splits, SPLITS, "--split")
    return Part("utility", Pope.read(data, images=images, splits=chosen, suffix=suffix, limits=limits))


def speech_of(data: Path, rules: Policy) -> Speech:
    """Clips with transcripts, compared as Whisper's paper compares them."""
    from sg_guardrails.cli.eval_arms import english_words  # noqa: PLC0415 - torch takes seconds; a bad policy is told first

    return Speech.read(data, words=english_words, limits=rules.limits.media)


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


def numbers(text: str, option: str, *, whole: bool = False) -> list[float]:
    """Comma-separated numbers over 0, sorted. Raises GuardError where they are none, or not whole ones."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < number < inf and (number.is_integer() or not whole) for number in found):
        raise GuardError(f"{option} {text!r}: {'whole ' if whole else ''}numbers over 0, separated by commas")
    return sorted(set(found))
