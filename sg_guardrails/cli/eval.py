"""The paper's evaluations on the command line: ``sg-guardrails eval pope | llava-bench | mm-safetybench ...``."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sg_guardrails.cli.eval_options import (
    UTILITIES,
    ArmOption,
    BatchOption,
    DataOption,
    DeviceOption,
    JsonOption,
    JudgeOption,
    LimitOption,
    ModelOption,
    NeededOut,
    OutOption,
    PolicyOption,
    SafetyJudge,
    SplitOption,
    SuffixOption,
    UrlOption,
    WorkersOption,
    alone,
    among,
    arms_of,
    console,
    err,
    finish,
    hire,
    judge_of,
    key_of_run,
    made,
    numbers,
    picked,
    recorded,
    safety_judge,
    safety_of,
    speech_of,
    utility_of,
    watch,
)
from sg_guardrails.cli.redteam import redteam
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import Policy, Voting
from sg_guardrails.evals import pope as popes
from sg_guardrails.evals import pope_answers, report, terminal
from sg_guardrails.evals.ablation import Part, ablate
from sg_guardrails.evals.compa import CompaOrder
from sg_guardrails.evals.evaluate import Judge, evaluate
from sg_guardrails.evals.llava_bench import LlavaBench, recorded_reviews
from sg_guardrails.evals.llava_reviews import Reviews, settled
from sg_guardrails.evals.summary import Evaluation

evals = typer.Typer(no_args_is_help=True, help="Repeat the paper's evaluations, bare and guarded.")
METHODS = ("sameness", "cosine", "kmeans")
evals.command()(redteam)


@evals.callback()
def quiet() -> None:
    """Keep the guard's records, one per item, off the terminal: the journals hold as much."""
    logging.getLogger("sg_guardrails").addHandler(logging.NullHandler())


@evals.command()
def pope(
    context: typer.Context,
    data: DataOption,
    answers: Annotated[
        list[Path] | None, typer.Option(help="Score recorded answers (JSONL) without a model; may be repeated.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of COCO val2014's pictures.")] = None,
    split: SplitOption = None,
    suffix: SuffixOption = None,
    model: ModelOption = None,
    policy: PolicyOption = "default",
    out: OutOption = None,
    device: DeviceOption = "auto",
    limit: LimitOption = None,
    batch: BatchOption = 8,
    workers: WorkersOption = None,
    arm: ArmOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """POPE: is the object in the picture? Accuracy, precision, recall, F1 and yes ratio per split."""
    splits = among(split, popes.SPLITS, "--split")
    if answers:
        alone(context, "--answers", "images", "suffix")
        benchmark = popes.Pope.read(data, splits=splits)
        done = recorded(benchmark, {file: pope_answers.recorded(benchmark, file) for file in answers})
        finish(done, out, as_json=as_json)
        return
    if images is None or out is None:
        raise GuardError("name --images DIR (COCO val2014) and --out DIR, or --answers FILE to score recorded answers")
    rules = Policy.load(policy)
    benchmark = popes.Pope.read(data, images=images, splits=splits, suffix=suffix, limits=rules.limits.media)
    arms, about = arms_of(rules, model, device, batch, arm, hire(context, workers, rules, device))
    about |= {"suffix": "as in the data" if suffix is None else suffix, **picked(split=split)}
    finish(evaluate(benchmark, arms, out=out, about=about, limit=limit, watch=watch).evaluation, out, as_json=as_json)


@evals.command("llava-bench")
def llava_bench(
    context: typer.Context,
    data: DataOption,
    reviews: Annotated[
        list[Path] | None, typer.Option("--reviews", "--answers", help="Score recorded reviews; may be repeated.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of pictures; else images/ of --data.")] = None,
    judge: JudgeOption = None,
    judge_url: UrlOption = None,
    swapped: Annotated[bool, typer.Option("--swapped", help="Judge in both orders and take the mean.")] = False,  # noqa: FBT002
    model: ModelOption = None,
    policy: PolicyOption = "default",
    out: OutOption = None,
    device: DeviceOption = "auto",
    limit: LimitOption = None,
    batch: BatchOption = 4,
    workers: WorkersOption = None,
    arm: ArmOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """LLaVA-Bench in the wild: open questions, scored by a judge relative to GPT-4's answers."""
    if reviews:
        alone(context, "--answers", "images", "judge", "judge_url", "swapped")
        done = recorded(Reviews(official=True), {file: recorded_reviews(file, data=data) for file in reviews})
        finish(done, out, as_json=as_json)
        return
    if judge is None or out is None:
        raise GuardError("name --judge and --out DIR, or --reviews FILE to score recorded reviews")
    rules = Policy.load(policy)
    benchmark = LlavaBench.read(data, images=images, limits=rules.limits.media)
    name, said = judge_of(judge, judge_url, device)
    name = f"{name}, both orders" if swapped else name
    asks = Judge(name, said, lambda rows: benchmark.reviews(rows, swapped=swapped), settled)
    arms, about = arms_of(rules, model, device, batch, arm, hire(context, workers, rules, device))
    result = evaluate(benchmark, arms, out=out, about=about, judge=asks, limit=limit, watch=watch)
    finish(result.evaluation, out, as_json=as_json)


@evals.command("mm-safetybench")
def mm_safetybench(
    context: typer.Context,
    data: DataOption,
    out: NeededOut,
    scenario: Annotated[list[str] | None, typer.Option(help="01-Illegal_Activitiy ... 13; may be repeated.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="SD, TYPO or SD_TYPO; may be repeated.")] = None,
    universal_image: Annotated[
        Path | None, typer.Option(help="The paper's protocol: this picture beside every plain question.")
    ] = None,
    judge: SafetyJudge = "scorers",
    judge_url: UrlOption = None,
    model: ModelOption = None,
    policy: PolicyOption = "default",
    device: DeviceOption = "auto",
    limit: LimitOption = None,
    batch: BatchOption = 4,
    workers: WorkersOption = None,
    arm: ArmOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """MM-SafetyBench: unsafe requests carried by pictures; attack success rate per scenario."""
    rules = Policy.load(policy)
    benchmark = safety_of(data, scenario, variant, universal_image, rules)
    asks = safety_judge(benchmark, judge, judge_url, rules, device)
    arms, about = arms_of(rules, model, device, batch, arm, hire(context, workers, rules, device))
    about |= picked(scenario=scenario, variant=variant)
    if universal_image is not None:
        about["universal image"] = Image.open(universal_image, limits=rules.limits.media).digest
    result = evaluate(benchmark, arms, out=out, about=about, judge=asks, limit=limit, watch=watch)
    for name, rows in result.rows.items():
        benchmark.write_official(out / "official", f"{about['model']} ({name})", rows, result.verdicts[name])
    finish(result.evaluation, out, as_json=as_json)


@evals.command()
def compa(
    context: typer.Context,
    data: DataOption,
    out: NeededOut,
    one_per_row: Annotated[bool, typer.Option("--one-per-row", help="Ask one clip per row, as the paper did.")] = False,  # noqa: FBT002
    model: ModelOption = None,
    policy: PolicyOption = "default",
    device: DeviceOption = "auto",
    limit: LimitOption = None,
    batch: BatchOption = 4,
    workers: WorkersOption = None,
    arm: ArmOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """CompA-order: which of two or three captions tells a clip's order of events?"""
    rules = Policy.load(policy)
    benchmark = CompaOrder.read(data, one_per_row=one_per_row, limits=rules.limits.media)
    arms, about = arms_of(rules, model, device, batch, arm, hire(context, workers, rules, device))
    about["clips"] = "one per row" if one_per_row else "all"
    finish(evaluate(benchmark, arms, out=out, about=about, limit=limit, watch=watch).evaluation, out, as_json=as_json)


@evals.command()
def speech(
    context: typer.Context,
    data: DataOption,
    out: NeededOut,
    model: ModelOption = None,
    policy: PolicyOption = "default",
    device: DeviceOption = "auto",
    limit: LimitOption = None,
    batch: BatchOption = 4,
    workers: WorkersOption = None,
    arm: ArmOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Word error rate on speech in LibriSpeech's layout, for Whisper-type models."""
    rules = Policy.load(policy)
    benchmark = speech_of(data, rules)
    arms, about = arms_of(rules, model, device, batch, arm, hire(context, workers, rules, device))
    finish(evaluate(benchmark, arms, out=out, about=about, limit=limit, watch=watch).evaluation, out, as_json=as_json)


@evals.command()
def ablation(
    context: typer.Context,
    out: NeededOut,
    utility: Annotated[str, typer.Option(help="Of which benchmark --utility-data is: pope, compa ...")] = "pope",
    utility_data: Annotated[Path | None, typer.Option(help="Right answers are counted on it, without attack.")] = None,
    images: Annotated[Path | None, typer.Option(help="POPE's or LLaVA-Bench's folder of pictures.")] = None,
    split: SplitOption = None,
    suffix: SuffixOption = None,
    safety_data: Annotated[Path | None, typer.Option(help="MM-SafetyBench: unsafe answers are counted on it.")] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="Of MM-SafetyBench; may be repeated.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Of MM-SafetyBench; may be repeated.")] = None,
    universal_image: Annotated[Path | None, typer.Option(help="One adversarial picture for every question.")] = None,
    judge: SafetyJudge = "scorers",
    judge_url: UrlOption = None,
    sigma: Annotated[
        str, typer.Option(help="Comma-separated, in the policy's unit.")
    ] = "0.05,0.1,0.15,0.2,0.3,0.4,0.5",
    copies: Annotated[str, typer.Option(help="Comma-separated.")] = "10",
    method: Annotated[str, typer.Option(help="Comma-separated: sameness, cosine, kmeans.")] = "sameness,kmeans",
    model: ModelOption = None,
    policy: PolicyOption = "default",
    device: DeviceOption = "auto",
    limit: LimitOption = 200,
    batch: BatchOption = 4,
    workers: WorkersOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Sigma x copies x voting: robustness and utility against noise, and the best setting with its interval."""
    rules = Policy.load(policy)
    parts: list[Part] = []
    if utility_data is not None:
        name, asker = among([utility], UTILITIES, "--utility")[0], (judge, judge_url, device)
        parts.append(
            utility_of(name, utility_data, images=images, splits=split, suffix=suffix, rules=rules, judge=asker)
        )
    if safety_data is not None:
        safety = safety_of(safety_data, scenario, variant, universal_image, rules)
        parts.append(Part("robustness", safety, safety_judge(safety, judge, judge_url, rules, device)))
    if not parts:
        raise GuardError("an ablation needs --utility-data (right answers), --safety-data (unsafe ones), or both")
    chosen = among([name.strip() for name in method.split(",")], METHODS, "--method")
    votings = [Voting.model_validate({**rules.voting.model_dump(), "method": name}) for name in chosen]
    sigmas, many = numbers(sigma, "--sigma"), [int(n) for n in numbers(copies, "--copies", whole=True)]
    from sg_guardrails.cli.eval_arms import bare, elector, guarded, named, with_noise  # noqa: PLC0415 - torch is slow to import

    # The rules have no part in it: the vote alone is measured.
    vote_only = named(rules, model=model, device=device).model_copy(update={"rules": ()})
    hired = hire(context, workers, vote_only, device)
    key = key_of_run()
    done = ablate(
        parts,
        bare=made(partial(bare, vote_only, size=batch), hired, size=batch),
        under=lambda s, n: made(
            partial(guarded, with_noise(vote_only, sigma=s, copies=n), size=batch), hired, size=batch
        ),
        elect=elector(vote_only),
        sigmas=sigmas,
        copies=many,
        methods=votings,
        out=out,
        about={
            "model": vote_only.model.id,
            "policy": rules.id,
            "key": key,
            "sigma": f"{rules.smoothing.image.space} units",
            **picked(split=split, scenario=scenario, variant=variant),
        },
        limit=limit,
        watch=watch,
    )
    done.write(out)
    err.print(Text(f"report: {report.write_ablation(done, out / 'report.html')}"), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
    else:
        terminal.print_ablation(done, console)


@evals.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Results' folders (or summary.json files) of one benchmark.")],
    page: Annotated[Path, typer.Option(help="Where to write the HTML page.")] = Path("compare.html"),
    published: Annotated[bool, typer.Option(help="Add the paper's figures.")] = True,  # noqa: FBT002
) -> None:
    """Compare runs with each other and with the paper's table, on one page."""
    read = [Evaluation.read(path) for path in runs]
    console.print(Text(str(report.write_comparison(read, page, with_published=published))), soft_wrap=True)
