"""The command line: ``sg-guardrails check | vote | score | demo | policy | eval | attack``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sg_guardrails.cli.attack import attacks
from sg_guardrails.cli.eval import evals
from sg_guardrails.cli.policy import policies, score
from sg_guardrails.core import vote as voting
from sg_guardrails.core.errors import GuardError, MediaError, SamplingError, UnsafeOutputError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.types import Answer, Bound, Certificate, Outcome, Prompt, Vote, printable

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Guardrail for agents that see images and hear audio."
)
app.add_typer(policies, name="policy")
app.add_typer(evals, name="eval")
app.add_typer(attacks, name="attack")
app.command()(score)

out = Console()
err = Console(stderr=True)
BAD_INPUT, REWRITTEN, BLOCKED, ERROR = 2, 3, 4, 5
EXIT = {"passed": 0, "flagged": 0, "skipped": 0, "rewritten": REWRITTEN, "blocked": BLOCKED, "error": ERROR}
MOST_LINE = 10_000_000
"""Characters in one line of recorded answers."""

PolicyOption = Annotated[str, typer.Option(help="A shipped policy's name, or a file.")]
ModelOption = Annotated[str | None, typer.Option(help="A hub id, a folder or builtin:shapes; else the policy's.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def check(
    prompt: Annotated[str, typer.Option(help="The question. May be left out beside a clip for a speech model.")] = "",
    image: Annotated[list[str] | None, typer.Option(help="A PNG, JPEG, WebP or GIF file; may be repeated.")] = None,
    audio: Annotated[list[str] | None, typer.Option(help="A WAV or FLAC file; may be repeated.")] = None,
    policy: PolicyOption = "default",
    model: ModelOption = None,
    device: DeviceOption = "auto",
    certify: Annotated[bool, typer.Option(help="Say within which radius no picture turns most noisy copies.")] = False,  # noqa: FBT002 - a flag
    copies: Annotated[int | None, typer.Option(min=1, help="Copies to count for --certify.")] = None,
    judge_error: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="For --certify: the share of answers, below 1, that the rules may call safe wrongly."
        ),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Ask the policy's model under noise and judge the majority answer.

    Exit: 0 passed, flagged or skipped; 2 bad input; 3 rewritten; 4 blocked; 5 error.
    """
    rules = Policy.load(policy)
    limits = rules.limits.media
    if len([*(image or ()), *(audio or ())]) > rules.limits.max_media:
        _fail(f"the policy's limits.max_media is {rules.limits.max_media}")
    media = [Image.open(path, limits=limits) for path in image or ()]
    clips = [Audio.open(path, limits=limits) for path in audio or ()]
    if copies is not None and not certify:
        _fail("--copies is for --certify; smoothing.copies in the policy says how many vote")
    if judge_error is not None and not certify:
        _fail("--judge-error is for --certify")
    if not prompt.strip() and not clips:
        _fail("there is nothing to ask: pass --prompt TEXT")
    with _busy("loading models"):
        from sg_guardrails.local import local_guard  # noqa: PLC0415 - torch takes seconds; bad input is told before it

        guard = local_guard(rules, model=model, device=device)
        guard.warm_up()
    with _busy("asking the model under noise"):
        asked = Prompt.ask(prompt, *media, *clips)
        proof = {"copies": copies or 200, "judge_error": judge_error or 0.0}
        outcome = guard.certify(asked, **proof) if certify else guard.check(asked)  # type: ignore[arg-type] # by name
    if as_json:
        typer.echo(json.dumps(_outcome(outcome), ensure_ascii=False))
    else:
        print_outcome(outcome, out)
    if isinstance(outcome.error, MediaError):
        _fail(str(outcome.error))
    raise typer.Exit(EXIT[outcome.status])


@app.command()
def vote(
    file: Annotated[Path, typer.Argument(help='Lines of {"answers": [...], "clean": 0}; - reads standard input.')],
    policy: PolicyOption = "default",
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Try a policy's voting on recorded answers: a line in, a line out."""
    rules = Policy.load(policy)
    with _busy("loading the embedder"):
        from sg_guardrails.models import text  # noqa: PLC0415 - torch takes seconds; a bad policy is told before it

        embed = text.load_embedder(rules.voting.embedder)
        refusal = text.scorers(embed)["refusal"]
    seen = 0
    for number, answers, clean in _recorded(file):
        with _busy(f"line {number}"):
            elected = voting.elect(answers, rules.voting, embed=embed, sentiment=text.sentiment, refusal=refusal)
        seen += 1
        if not as_json and out.is_terminal:
            print_vote(answers, elected, out, title=f"line {number}", clean=clean)
            continue
        line: dict[str, Any] = {
            "labels": list(elected.labels),
            "winner": elected.winner,
            "choice": elected.choice,
            "agreement": elected.agreement,
            "abstained": elected.abstained,
        }
        if clean is not None:
            line["clean_differs"] = elected.labels[clean] != elected.winner
        typer.echo(json.dumps(line))
    if not seen:
        _fail(f"{file}: holds no line of answers")


@app.command()
def demo(
    page: Annotated[Path, typer.Option(help="Where to write the HTML page.")] = Path("demo.html"),
    audio: Annotated[bool, typer.Option(help="Also speech, where Whisper's weights are at hand.")] = True,  # noqa: FBT002
    speech_model: Annotated[
        str, typer.Option(help="A Whisper checkpoint: a hub id or a folder.")
    ] = "openai/whisper-tiny.en",
) -> None:
    """Watch the built-in model be fooled by a picture, and the guard put it right."""
    with _busy("loading models"):
        from sg_guardrails.demo import run  # noqa: PLC0415 - torch takes seconds
    run(out, page=page, audio=audio, speech_model=speech_model)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Show an outcome as a table of its answers, and what was handed on."""
    if outcome.vote is not None:
        print_vote(outcome.answers, outcome.vote, console, title="answers under noise", clean=outcome.clean)
    style = {"passed": "green", "flagged": "yellow", "rewritten": "yellow", "skipped": "dim"}.get(outcome.status, "red")
    console.print(Text(outcome.status, style=f"bold {style}"), Text(printable(outcome.text)))
    for finding in outcome.verdict.findings if outcome.verdict else ():
        mark = "would " if finding.observed else ""
        line = f"  {finding.rule}: {mark}{finding.action} ({finding.category}, {finding.severity}, {finding.where})"
        console.print(Text(line, style="dim"))
    if outcome.vote is not None and (proof := outcome.vote.certificate) is not None:
        console.print(*(Text(line) for line in _proven(proof)), sep="\n")


def _proven(proof: Certificate) -> Iterator[str]:
    """A certificate in words."""
    yield "Of all noisy copies of the picture as the model takes it in (after resizing), not of the file:"
    said = printable(proof.anchor.text) or " ".join(call.canonical for call in proof.anchor.tool_calls)
    yield f"most say what this one says, {said!r}: {_radius(proof.answer, proof.confidence)}"
    wrong = f"wrong on at most {proof.judge_error:.1%}" if proof.judge_error else "never wrong"
    yield f"most are safe if the rules, each answer by itself, are {wrong}: {_radius(proof.verdict, proof.confidence)}"


def _radius(held: Bound, confidence: float) -> str:
    counted = f"{held.count} of {held.copies} fresh copies"
    if held.radius is None or held.linf is None:
        return f"not certified ({counted}; at least {held.share_low:.1%} of all, and more than half is needed)"
    return (
        f"certified within {held.radius:.3f} in L2 on pixels in [0, 1], which is {255 * held.linf:.2f}/255 on every "
        f"value ({counted}, confidence {confidence:.1%})"
    )


def print_vote(
    answers: tuple[Answer, ...] | list[Answer], elected: Vote, console: Console, *, title: str, clean: int | None = None
) -> None:
    """Show each answer with its cluster; the winner's are marked."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("copy", "cluster", "answer"):
        table.add_column(column, overflow="fold")
    for index, (answer, label) in enumerate(zip(answers, elected.labels, strict=True)):
        mark = "*" if index == elected.choice else ""
        name = "clean" if index == clean else f"noisy {index if clean == 0 else index + 1}"
        shown = printable(answer.text) or " ".join(call.canonical for call in answer.tool_calls)
        table.add_row(name, f"{label}{mark}", Text(shown, style="bold" if label == elected.winner else "dim"))
    console.print(table)
    state = "abstained: no majority" if elected.abstained else f"cluster {elected.winner} wins"
    console.print(Text(f"{state}, agreement {elected.agreement:.0%}"))


def main() -> NoReturn:
    """Run the command line. Whatever the user can mend is one line on standard error and exit 2."""
    try:
        app()
    except (SamplingError, UnsafeOutputError) as error:  # under `on_error: raise`
        err.print(Text(f"sg-guardrails: {printable(str(error))}"), soft_wrap=True)
        sys.exit(BLOCKED if isinstance(error, UnsafeOutputError) else ERROR)
    except GuardError as error:
        _fail(str(error))
    sys.exit(0)


def _recorded(file: Path) -> Iterator[tuple[int, list[Answer], int | None]]:
    try:
        with sys.stdin if str(file) == "-" else file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MOST_LINE), ""), start=1):
                if line.strip():
                    yield number, *_line(line, f"{file}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise GuardError(f"{file}: cannot be read: {type(error).__name__}") from error


def _line(line: str, where: str) -> tuple[list[Answer], int | None]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GuardError(f"{where}: not a line of JSON") from error
    if not isinstance(data, dict) or not data.keys() <= {"answers", "clean"}:
        raise GuardError(f'{where}: a line is {{"answers": [...], "clean": 0}}, clean optional')
    given, clean = data.get("answers"), data.get("clean")
    if not isinstance(given, list) or not given:
        raise GuardError(f'{where}: "answers" is a list of at least one answer')
    if clean is not None and (type(clean) is not int or not 0 <= clean < len(given)):
        raise GuardError(f'{where}: "clean" is an index among the {len(given)} answers')
    try:
        return [Answer.parse(answer) for answer in given], clean
    except GuardError as error:
        raise GuardError(f"{where}: {error}") from error


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "text": outcome.text,
        "policy": outcome.policy,
        "answers": [
            {"text": item.text, "tool_calls": [asdict(call) for call in item.tool_calls]} for item in outcome.answers
        ],
        "clean": outcome.clean,
        "asked": outcome.asked,
        "vote": None if outcome.vote is None else asdict(outcome.vote),
        "verdict": None if outcome.verdict is None else asdict(outcome.verdict),
        "timings": dict(outcome.timings),
        "degraded": outcome.degraded,
        "error": None if outcome.error is None else f"{type(outcome.error).__name__}: {outcome.error}",
    }


@contextmanager
def _busy(what: str) -> Iterator[None]:
    with err.status(what):
        yield


def _fail(message: str) -> NoReturn:
    err.print(Text(f"sg-guardrails: {printable(message)}"), soft_wrap=True)
    raise SystemExit(BAD_INPUT)
