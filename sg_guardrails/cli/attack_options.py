"""What the attack commands share: their options, files in and out, and how an attack is run and shown."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_type_hints

import typer
from rich.text import Text

from sg_guardrails.cli.eval_options import DeviceOption, JsonOption, console, err, watch
from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.media import Image, Media
from sg_guardrails.core.types import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sg_guardrails.attacks.pgd import AttackSettings
    from sg_guardrails.cli.attack_runs import Report, Wanted
    from sg_guardrails.core.policy import AudioNoise, ImageNoise
    from sg_guardrails.core.types import Prompt
    from sg_guardrails.models.loading import Handle

FAILED = 1
Aim = Literal["say", "jailbreak", "hijack", "wrong", "tool-call"]

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
SeedOption = Annotated[int, typer.Option(help="Of starts and draws.")]
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
        """The attack's settings, from options in `unit`; raises GuardError where they make no sense."""
        from sg_guardrails.attacks.pgd import AttackSettings, Patch  # noqa: PLC0415 - torch takes seconds

        square = None
        if patch is not None:
            top, left = _place(patch[0])
            square = Patch(top=top, left=left, size=patch[1])
        try:
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
        except ValueError as error:
            raise GuardError(str(error)) from None


def searching(**defaults: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `Search` in its own signature, where typer looks for them.

    Args:
        defaults: Defaults of this command that differ from the class's.
    """

    def expand(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            search = Search(**{name: given.pop(name) for name in names})
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
    """The guard's noise on pictures that the attack expects; raises GuardError for a shift without a sigma."""
    from sg_guardrails.core.policy import ImageNoise  # noqa: PLC0415 - only an adaptive attack needs it

    if shift and not any(search.expect_sigma or ()):
        raise GuardError("--expect-shift goes with an --expect-sigma above 0: the noise of the copies that are moved")
    return [ImageNoise(space=space, sigma=sigma, shift=shift if sigma else 0.0) for sigma in search.expect_sigma or ()]


def loaded(model: str, device: str) -> Handle:
    """The model, loaded now."""
    from sg_guardrails.models.hf import load  # noqa: PLC0415 - torch takes seconds; bad input is told before it

    with err.status("loading the model"):
        return load(model, device=device)


def run(
    handle: Handle,
    prompts: Sequence[Prompt],
    wanted: Wanted,
    settings: AttackSettings,
    search: Search,
    *,
    noises: Sequence[ImageNoise | AudioNoise],
) -> NoReturn:
    """Attack with progress, write medium and report, show what came of it, and leave with the exit code.

    Raises:
        GuardError: If options do not fit the model, the medium or each other.
    """
    from sg_guardrails.attacks.objectives import Expectation  # noqa: PLC0415 - likewise
    from sg_guardrails.cli.attack_runs import Attack  # noqa: PLC0415 - torch takes seconds

    try:
        expectation = Expectation(noise=tuple(noises), draws=search.draws, share=search.share) if noises else None
        attack = Attack(handle, tuple(prompts), wanted, settings, expectation, search.max_new_tokens)
        with watch("attack") as progress:
            medium, report = attack.run(state=search.state, progress=progress)
    except ValueError as error:  # a patch outside the picture, a share over 1, a loss that is not finite
        raise GuardError(str(error)) from error
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


def write(medium: Media, report: str, out: Path) -> None:
    """The medium's file, and the report beside it."""
    try:
        out.write_bytes(medium.to_png() if isinstance(medium, Image) else medium.to_wav())
        out.with_suffix(".json").write_text(report, encoding="utf-8")
    except OSError as error:
        raise GuardError(f"cannot write {out}: {error.strerror or type(error).__name__}") from error


def writable(out: Path, suffix: str) -> None:
    """Tell before the work whether its result can be written. Raises GuardError if not."""
    if out.suffix.lower() != suffix:
        raise GuardError(f"--out {out}: a name that ends in {suffix}")
    if not out.parent.is_dir():
        raise GuardError(f"--out {out}: there is no folder {out.parent}")


def lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file that hold something. Raises GuardError if there is none."""
    try:
        found = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise GuardError(f"{path}: cannot be read: {type(error).__name__}") from error
    if not found:
        raise GuardError(f"{path}: holds no line")
    return found


def _place(text: str) -> tuple[int, int]:
    try:
        top, left = (int(part) for part in text.split(","))
    except ValueError:
        raise GuardError(f"--patch-at {text!r}: row and column, TOP,LEFT") from None
    return top, left
