"""``sg-guardrails attack image | audio | universal | query``: adversarial pictures and clips for your own model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sg_guardrails.cli.attack_files import lines, ready, write
from sg_guardrails.cli.attack_options import (
    FAILED,
    AimOption,
    EpsOption,
    ImageOption,
    ModelOption,
    NormOption,
    OutOption,
    PatchOption,
    PlaceOption,
    PromptOption,
    RightOption,
    Search,
    SeedOption,
    ShiftOption,
    SpaceOption,
    StateOption,
    SystemOption,
    TargetOption,
    WholeNormOption,
    end,
    expected,
    expected_of_clips,
    loaded,
    run,
    searching,
    told_plainly,
)
from sg_guardrails.cli.eval_options import DeviceOption, JsonOption, PolicyOption, console, watch
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Prompt, printable

attacks = typer.Typer(
    no_args_is_help=True,
    help="Make adversarial pictures and clips for a model of your own, to see what your guard holds. "
    "Exit: 0 the attack succeeded, 1 it did not, 2 bad input or a break-off, 5 the model failed while it was asked.",
)
PIXEL = 1 / 255
"""The unit of --eps and --step-size for pictures."""
MOST_DB = 200
"""A change so far below a clip is nothing, and one so far above it anything."""


@attacks.command()
@searching()
def image(
    model: ModelOption,
    image: ImageOption,
    prompt: PromptOption = "",
    aim: AimOption = "say",
    target: TargetOption = None,
    right: RightOption = None,
    norm: NormOption = "linf",
    eps: EpsOption = 8,
    patch_size: PatchOption = None,
    patch_at: PlaceOption = "0,0",
    expect_space: SpaceOption = "pixel",
    expect_shift: ShiftOption = 0.0,
    *,
    search: Search,
) -> None:
    """A picture that makes the model say, do or get wrong what you choose, by its gradients (PGD)."""
    picture = Image.open(image)
    ready(search.out, ".png", state=search.state, read=[image])
    noises = expected(search, expect_space, expect_shift)
    settings = search.settings(norm, eps, unit=PIXEL, patch=None if patch_size is None else (patch_at, patch_size))
    from sg_guardrails.cli.attack_runs import Wanted  # noqa: PLC0415 - torch takes seconds; bad input is told before it

    wanted, expectation = Wanted(aim=aim, targets=tuple(target or ()), right=right), search.expectation(noises)
    run(
        loaded(model, search.device),
        [Prompt.ask(prompt, picture, system=search.system)],
        wanted,
        settings,
        search,
        expectation=expectation,
    )


@attacks.command()
@searching(steps=500, check_every=50)
def universal(
    model: ModelOption,
    image: ImageOption,
    prompts: Annotated[Path, typer.Option(help="The questions that share the picture, one a line.")],
    targets: Annotated[Path, typer.Option(help="What an unrestrained model would say, one a line.")],
    paired: Annotated[bool, typer.Option("--paired", help="Line i of --targets answers line i of --prompts.")] = False,  # noqa: FBT002
    norm: WholeNormOption = "linf",
    eps: EpsOption = 16,
    expect_space: SpaceOption = "pixel",
    expect_shift: ShiftOption = 0.0,
    *,
    search: Search,
) -> None:
    """One picture that breaks many questions: towards a corpus of targets (Qi et al., arXiv 2306.13213)."""
    picture = Image.open(image)
    questions, sentences = lines(prompts, all_count=paired), lines(targets, all_count=paired)
    if paired and len(questions) != len(sentences):
        raise GuardError(f"--paired: {prompts} has {len(questions)} lines, {targets} {len(sentences)}")
    ready(search.out, ".png", state=search.state, read=[image, prompts, targets])
    noises = expected(search, expect_space, expect_shift)
    settings = search.settings(norm, eps, unit=PIXEL)
    from sg_guardrails.cli.attack_runs import Wanted  # noqa: PLC0415 - torch takes seconds; bad input is told before it

    wanted, expectation = Wanted(aim="jailbreak", targets=sentences, paired=paired), search.expectation(noises)
    run(
        loaded(model, search.device),
        [Prompt.ask(question, picture, system=search.system) for question in questions],
        wanted,
        settings,
        search,
        expectation=expectation,
    )


@attacks.command()
@searching(draws=4)
def audio(
    model: ModelOption,
    audio: Annotated[Path, typer.Option(help="The clean clip: WAV or FLAC.")],
    prompt: PromptOption = "",
    aim: AimOption = "say",
    target: TargetOption = None,
    right: RightOption = None,
    below_db: Annotated[float | None, typer.Option(help="Power of the change, so many dB below the clip's.")] = None,
    eps: Annotated[float | None, typer.Option(min=0, help="Or: the bound of every sample, in [-1, 1].")] = None,
    expect_snr: Annotated[
        list[float] | None, typer.Option(help="Adaptive: expect the guard's noise at this snr_db; may be repeated.")
    ] = None,
    *,
    search: Search,
) -> None:
    """A clip that a model hears as what you choose: Whisper, and chat models with Whisper's features (Qwen2-Audio)."""
    clip = Audio.open(audio)
    ready(search.out, ".wav", state=search.state, read=[audio])
    if (below_db is None) == (eps is None):
        raise GuardError("name either --below-db (20, 30, 40 ...) or --eps")
    if below_db is not None and not abs(below_db) <= MOST_DB:
        raise GuardError(f"--below-db {below_db:g}: at most {MOST_DB} dB below or above the clip")
    noises = expected_of_clips(search, expect_snr)
    from sg_guardrails.attacks.attack import at_models_rate  # noqa: PLC0415 - likewise
    from sg_guardrails.attacks.logmel import radius_below  # noqa: PLC0415 - likewise
    from sg_guardrails.cli.attack_runs import Wanted  # noqa: PLC0415 - torch takes seconds; bad input is told before it

    wanted, expectation = Wanted(aim=aim, targets=tuple(target or ()), right=right), search.expectation(noises)
    handle = loaded(model, search.device)
    clip = at_models_rate(handle, clip)
    bound = eps if below_db is None else radius_below(clip.wave, below_db)
    run(
        handle,
        [Prompt.ask(prompt, clip, system=search.system)],
        wanted,
        search.settings("linf" if below_db is None else "l2", bound),  # type: ignore[arg-type] # one of them is given
        search,
        expectation=expectation,
    )


@attacks.command()
@told_plainly()
def query(
    image: ImageOption,
    out: OutOption,
    prompt: PromptOption,
    policy: PolicyOption = "default",
    model: Annotated[str | None, typer.Option(help="Another model than the policy's.")] = None,
    bare: Annotated[bool, typer.Option("--bare", help="Ask the model alone, without the guard.")] = False,  # noqa: FBT002
    system: SystemOption = None,
    aim: AimOption = "wrong",
    target: TargetOption = None,
    right: RightOption = None,
    eps: EpsOption = 16,
    queries: Annotated[int, typer.Option(min=1, help="Most questions asked.")] = 1000,
    seed: SeedOption = 0,
    state: StateOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """A picture found by asking alone (Square Attack): the attacker sees what the guard hands on, and nothing else."""
    rules, picture = Policy.load(policy), Image.open(image)
    ready(out, ".png", state=state, read=[image, Path(policy)])
    from sg_guardrails.attacks.queries import QuerySettings  # noqa: PLC0415 - torch takes seconds
    from sg_guardrails.cli.attack_runs import Wanted  # noqa: PLC0415 - likewise
    from sg_guardrails.cli.eval_arms import named  # noqa: PLC0415 - likewise
    from sg_guardrails.cli.query_runs import run_queries  # noqa: PLC0415 - likewise

    wanted = Wanted(aim=aim, targets=tuple(target or ()), right=right)
    settings = QuerySettings(eps=eps * PIXEL, queries=queries, seed=seed)
    with watch("questions") as progress:
        found, report = run_queries(
            named(rules, model=model, device=device),
            Prompt.ask(prompt, picture, system=system),
            wanted,
            settings,
            bare=bare,
            state=state,
            progress=progress,
        )
    write(found, report.to_json(), out)
    if state is not None:
        state.unlink(missing_ok=True)
    if as_json:
        typer.echo(report.to_json(), nl=False)
    else:
        told = f"{report.asked}: {report.queries} questions, {report.seconds:.1f} s; it now says: {report.answer}"
        console.print(Text(printable(told)), soft_wrap=True)
        end(out, succeeded=report.succeeded)
    raise typer.Exit(0 if report.succeeded else FAILED)
