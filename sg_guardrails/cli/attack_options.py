"""What the attack commands share: their options, and how an attack is run and shown."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar, get_type_hints

import typer
from pydantic import ValidationError
from rich.text import Text

from sg_guardrails.cli.attack_files import write
from sg_guardrails.cli.eval_options import DeviceOption, JsonOption, console, err, watch
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.policy import AudioNoise, ImageNoise
from sg_guardrails.core.types import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sg_guardrails.attacks.objectives import Expectation
    from sg_guardrails.attacks.pgd import AttackSettings
    from sg_guardrails.cli.attack_runs import Report, Wanted
    from sg_guardrails.core.types import Prompt
    from sg_guardrails.models.loading import Handle

FAILED = 1
MOST_SEED = 2**32 - 1
"""Multiplied with the number of a step, it still fits into what torch's generators take."""
Aim = Literal["say", "jailbreak", "hijack", "wrong", "tool-call"]
Noise = TypeVar("Noise", ImageNoise, AudioNoise)

ModelOption = Annotated[str, typer.Option(help="A hub id, a folder or builtin:shapes.")]
ImageOption = Annotated[Path, typer.Option(help="The clean picture: PNG, JPEG, WebP or GIF.")]
PromptOption = Annotated[str, typer.Option(help="The question that comes with it.")]
SystemOption = Annotated[str | None, typer.Option(help="The system prompt, for instance one that names tools.")]
AimOption = Annotated[Aim, typer.Option("--objective", help="What the model must do.")]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(help='What it must say; several for jailbreak; {"name": ..., "arguments": {...}} for tool-call.'),
]
RightOption = Annotated[str | None, typer.Option(help="For wrong: words that a right answer holds.")]
NormOption = Annotated[Literal["linf", "l2", "unconstrained", "patch"], typer.Option(help="What bounds the change.")]
WholeNormOption = Annotated[Literal["linf", "l2", "unconstrained"], typer.Option(help="What bounds the change.")]
EpsOption = Annotated[float, typer.Option(min=0, help="The bound, in units of 1/255.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Steps of each start.")]
SizeOption = Annotated[float | None, typer.Option(min=0, help="First step, in the unit of the bound; else 0.12 of it.")]
ScheduleOption = Annotated[Literal["cosine", "fixed"], typer.Option(help="How steps shrink.")]
RestartsOption = Annotated[int, typer.Option(min=1, help="Starts; the first is the clean medium itself.")]
CheckOption = Annotated[int, typer.Option(min=1, help="Steps between two tries whether it succeeds already.")]
PatchOption = Annotated[int | None, typer.Option(min=1, help="Side of the square of --norm patch, pixels.")]
PlaceOption = Annotated[str, typer.Option(help="Its first row and column: TOP,LEFT.")]
SigmaOption = Annotated[
    list[float] | None,
    typer.Option(help="Adaptive: expect the guard's noise of this sigma; several where the guard uses several."),
]
SpaceOption = Annotated[Literal["pixel", "model"], typer.Option(help="The unit of --expect-sigma, as in the policy.")]
ShiftOption = Annotated[
    float,
    typer.Option(min=0, max=0.5, help="And that it moves each copy by up to this share: the policy's image.shift."),
]
DrawsOption = Annotated[int, typer.Option(min=1, help="Adaptive: noisy copies in each step.")]
ShareOption = Annotated[float, typer.Option(help="Adaptive: share of the copies to push; 0.55 for a bare majority.")]
SeedOption = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of starts and draws.")]
TokensOption = Annotated[int, typer.Option(min=1, help="Longest answer, tokens.")]
StateOption = Annotated[Path | None, typer.Option(help="Where to keep the state: a killed run continues from it.")]
OutOption = Annotated[Path, typer.Option(help="Where to write the PNG or WAV; the report goes beside it, as .json.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The options that every attack by gradients shares: how it searches, where it runs, what it leaves."""

    out: OutOption
    system: SystemOption = None
    steps: StepsOption = 100
    step_size: SizeOption = None
    schedule: ScheduleOption = "cosine"
    restarts: RestartsOption = 1
    check_every: CheckOption = 10
    expect_sigma: SigmaOption = None
    draws: DrawsOption = 6
    share: ShareOption = 1.0
    seed: SeedOption = 0
    max_new_tokens: TokensOption = 64
    state: StateOption = None
    device: DeviceOption = "auto"
    as_json: JsonOption = False

    def settings(
        self, norm: str, bound: float, *, unit: float = 1.0, patch: tuple[str, int] | None = None
    ) -> AttackSettings:
        """The attack's settings, from options in `unit`; raises ValueError where they make no sense."""
        from sg_guardrails.attacks.pgd import AttackSettings, Patch  # noqa: PLC0415 - torch takes seconds

        square = None
        if patch is not None:
            top, left = _place(patch[0])
            square = Patch(top=top, left=left, size=patch[1])
        return AttackSettings(
            norm=norm,  # type: ignore[arg-type] # typer lets only these through
            eps=bound * unit,
            steps=self.steps,
            step=None if self.step_size is None else self.step_size * unit,
            schedule=self.schedule,
            restarts=self.restarts,
            check_every=self.check_every,
            seed=self.seed,
            patch=square,
        )

    def expectation(self, noises: Sequence[ImageNoise | AudioNoise]) -> Expectation | None:
        """The guard's noise for an adaptive attack; raises ValueError where draws or share make no sense."""
        from sg_guardrails.attacks.objectives import Expectation  # noqa: PLC0415 - torch takes seconds

        return Expectation(noise=tuple(noises), draws=self.draws, share=self.share) if noises else None


@contextmanager
def told_plainly() -> Iterator[None]:
    """Whatever breaks an attack off is one line and exit 2: a crash's own exit 1 would pass for a model that held."""
    try:
        yield
    except (GuardError, typer.Exit):
        raise
    except ValueError as error:  # settings, a patch outside the picture, a loss that is not finite
        raise GuardError(" ".join(str(error).split())) from error
    except Exception as error:  # out of memory, a full disk, a model's own: each library has errors of its own
        said = " ".join(str(error).split())[:300]
        raise GuardError(f"the attack broke off: {type(error).__name__}: {said}") from error


def searching(**defaults: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `Search` in its own signature, where typer looks for them.

    Args:
        defaults: Defaults of this command that differ from the class's.
    """

    def expand(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            search = Search(**{name: given.pop(name) for name in names})
            with told_plainly():
                command(**given, search=search)

        hints = get_type_hints(Search, include_extras=True)
        names = tuple(option.name for option in fields(Search))
        shared = [
            Parameter(
                option.name,
                Parameter.KEYWORD_ONLY,
                default=defaults.get(option.name, Parameter.empty if option.default is MISSING else option.default),
                annotation=hints[option.name],
            )
            for option in fields(Search)
        ]
        own = [part for part in signature(command, eval_str=True).parameters.values() if part.name != "search"]
        run.__signature__ = Signature([*(part.replace(kind=Parameter.KEYWORD_ONLY) for part in own), *shared])  # type: ignore[attr-defined] # inspect reads it
        run.__annotations__ = {part.name: part.annotation for part in (*own, *shared)}
        return run

    return expand


def expected(search: Search, space: Literal["pixel", "model"], shift: float) -> list[ImageNoise]:
    """The guard's noise on pictures that the attack expects; raises GuardError where there is no such noise."""
    if shift and not any(search.expect_sigma or ()):
        raise GuardError("--expect-shift goes with an --expect-sigma above 0: the noise of the copies that are moved")
    return [
        _noise(ImageNoise, space=space, sigma=sigma, shift=shift if sigma else 0.0)
        for sigma in search.expect_sigma or ()
    ]


def expected_of_clips(search: Search, snrs: Sequence[float] | None) -> list[AudioNoise]:
    """The guard's noise on clips that the attack expects; raises GuardError where there is no such noise."""
    ratios = [_noise(AudioNoise, snr_db=snr) for snr in snrs or ()]
    return [*ratios, *(_noise(AudioNoise, sigma=sigma) for sigma in search.expect_sigma or ())]


def _noise(kind: type[Noise], **values: object) -> Noise:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = "-".join(map(str, wrong["loc"])).removesuffix("_db")
        raise GuardError(f"--expect-{option} {wrong['input']}: {wrong['msg']}") from None


def loaded(model: str, device: str) -> Handle:
    """The model, loaded now, in float32: half precision makes gradients coarse, and the attack a weaker one."""
    from sg_guardrails.models.hf import load  # noqa: PLC0415 - torch takes seconds; bad input is told before it

    with err.status("loading the model"):
        return load(model, device=device, dtype="float32")


def run(
    handle: Handle,
    prompts: Sequence[Prompt],
    wanted: Wanted,
    settings: AttackSettings,
    search: Search,
    *,
    expectation: Expectation | None,
) -> NoReturn:
    """Attack with progress, write medium and report, show what came of it, and leave with the exit code.

    Raises:
        GuardError: If options do not fit the model, the medium or each other.
        ValueError: If the patch is not in the picture, or the loss is not finite.
    """
    from sg_guardrails.cli.attack_runs import Attack  # noqa: PLC0415 - torch takes seconds

    attack = Attack(handle, tuple(prompts), wanted, settings, expectation, search.max_new_tokens)
    with watch("attack") as progress:
        medium, report = attack.run(state=search.state, progress=progress)
    write(medium, report.to_json(), search.out)
    if search.state is not None:
        search.state.unlink(missing_ok=True)
    if search.as_json:
        typer.echo(report.to_json(), nl=False)
    else:
        show(report, search.out)
    raise typer.Exit(0 if report.succeeded else FAILED)


def show(report: Report, out: Path) -> None:
    """The report in a few lines."""
    told = [
        f"without an attack: {report.rate_clean:.0%} of {len(report.prompts)} reach the objective",
        f"attacked, before rounding: {report.rate_float:.0%}",
        f"attacked, saved file: {report.rate_saved:.0%}",
        *(f"attacked, {one.copies} copies under {one.noise}: {one.rate:.0%}" for one in report.under_noise),
        f"{report.steps} steps, loss {report.losses[0]:.3f} to {min(report.losses):.3f}, {report.seconds:.1f} s",
        f"the model now says: {printable(report.answers_saved[0])}",
    ]
    for line in told:
        console.print(Text(line), soft_wrap=True)
    console.print(
        Text(f"{'succeeded' if report.succeeded else 'did not succeed'}: {out}", style="bold"), soft_wrap=True
    )


def end(out: Path, *, succeeded: bool) -> None:
    """The last line."""
    word = "succeeded" if succeeded else "did not succeed"
    console.print(Text(f"{word}: {out}", style="bold"), soft_wrap=True)


def _place(text: str) -> tuple[int, int]:
    try:
        top, left = (int(part) for part in text.split(","))
    except ValueError:
        raise GuardError(f"--patch-at {text!r}: row and column, TOP,LEFT") from None
    return top, left
