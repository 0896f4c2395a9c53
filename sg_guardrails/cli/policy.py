"""Policies on the command line: ``sg-guardrails policy validate | explain | test | diff | schema``, and ``score``.

The schema stands beside the shipped policies as ``schema.json``, in a checkout and in the wheel, so a policy beside
them begins with ``# yaml-language-server: $schema=schema.json``; for one elsewhere `policy schema` writes it anywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from sg_guardrails.cli.cases import Build, Result
from sg_guardrails.cli.cases import find as find_cases
from sg_guardrails.cli.cases import load as load_cases
from sg_guardrails.cli.cases import run as run_all
from sg_guardrails.cli.explain import explain as in_words
from sg_guardrails.cli.replay import Replayed, counted, doubts, replay, told, unread
from sg_guardrails.core.conditions import missing_scorers
from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.media import Image
from sg_guardrails.core.policy import EmbedderSection, Policy
from sg_guardrails.core.types import Outcome, Prompt, Scorer, printable
from sg_guardrails.record import recorded

policies = typer.Typer(no_args_is_help=True, help="Work with policy files.")
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True)
BAD_INPUT = 2
BATCH = 32
"""Lines scored at once."""
MOST_LINE = 10_000_000
"""Characters in one line to score."""
SCORERS = ("harm", "hostility", "prompt_injection", "refusal", "toxicity", "unsafe_request")
"""The shipped scorers, for the help: looking them up would load torch."""

FileArgument = Annotated[str, typer.Argument(help="A policy file, or a shipped name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@policies.command()
def validate(file: FileArgument) -> None:
    """Check a policy file; exit 2 with file, line, path and the nearest valid key of each mistake."""
    try:
        rules = Policy.load(file)
    except PolicyError as error:
        for line in error.mistakes:
            err.print(Text(f"sg-guardrails: {printable(line)}"), soft_wrap=True)
        raise SystemExit(BAD_INPUT) from None
    from sg_guardrails.models.text import shipped_heads  # noqa: PLC0415 - torch takes seconds; mistakes are told before it

    if unknown := missing_scorers(rules, (*shipped_heads(), "hostility")):
        err.print(Text(f"note: {', '.join(unknown)}: no shipped scorer; pass it to SmoothGuard(scorers=...)"))
    out.print(Text(f"{rules.name}: valid, {len(rules.rules)} rules, model {rules.model.id}, hash {rules.hash}"))


@policies.command()
def explain(file: FileArgument) -> None:
    """Say in plain words what a policy does, rule by rule, and what it costs."""
    for line in in_words(Policy.load(file)):
        out.print(Text(line))


@policies.command("test")
def run_cases(
    paths: Annotated[
        list[str], typer.Argument(help="Case files, folders of policies (tests/NAME.yaml in them), or shipped names.")
    ],
) -> None:
    """Run test cases; exit 1 where one fails, 2 where a file is not valid."""
    files = [load_cases(path) for name in paths for path in find_cases(name)]
    failed: list[tuple[Path, Result]] = []
    total = 0
    build = _builder()
    for loaded in files:
        results = run_all(loaded, build)
        marks = "".join("F" if result.differences else "." for result in results)
        out.print(Text(f"{loaded.path} [{loaded.policy.id}] {marks}"))
        failed += [(loaded.path, result) for result in results if result.differences]
        total += len(results)
    for path, result in failed:
        out.print(Text(f"\nFAILED {path}:{result.line}: {result.case.name}"))
        for line in result.differences:
            out.print(Text(f"    {printable(line)}"))
    out.print(Text(f"\n{f'{len(failed)} failed, ' if failed else ''}{total - len(failed)} passed"))
    raise typer.Exit(1 if failed else 0)


@policies.command()
def diff(
    old: FileArgument,
    new: FileArgument,
    records: Annotated[
        Path, typer.Argument(help='An audit file that kept its texts, or lines of {"prompt", "answers", "candidate"}.')
    ],
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
    exit_code: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--exit-code", help="Exit 1 where a decision changes or cannot be replayed exactly.")
    ] = False,
) -> None:
    """Decide recorded requests again under two policies and show which decisions change.

    Where the policy that decided then decides otherwise now, the record lacks what decided, and that is said.
    Exit: 0 (with --exit-code: 1 where a decision changes or is not replayed exactly); 2 bad input.
    """
    pair = Policy.load(old), Policy.load(new)
    lines = list(recorded.read(records))
    held = [(number, record) for number, record in lines if record is not None]
    if not held:
        raise GuardError(f"{records}: no line can be decided again: record with record: {{include_text: true}}")
    build = _builder()
    with _busy("loading models"):
        before, after = (build(each, scorers={}, judges={}, reader=_blind, emit=_unrecorded) for each in pair)
    replayed = list(replay(held, before, after))
    pictures = any(record.media for _, record in held)
    blind = [f"{each.name}: {', '.join(unread(each))}" for each in pair if pictures and unread(each)]
    skipped = len(lines) - len(held)
    if as_json:
        typer.echo(json.dumps({**_report(pair, replayed, skipped), "rules_about_pictures": blind}))
    else:
        for line in told(replayed, str(records)):
            out.print(Text(line))
        lacking = f", {skipped} hold too little to decide again" if skipped else ""
        out.print(Text(f"{counted(replayed)} ({pair[0].id} -> {pair[1].id}{lacking})"))
    for line in doubts(replayed, blind):
        err.print(Text(f"warning: {line}"), soft_wrap=True)
    raise typer.Exit(int(exit_code and any(item.changed or item.exact is False for item in replayed)))


@policies.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors that complete and check YAML."""
    typer.echo(json.dumps(policy_schema(), indent=2, ensure_ascii=False))


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file. A file that extends another may name a rule without repeating its ``when``."""
    made = Policy.model_json_schema()
    rule = made["$defs"]["Rule"]
    rule["required"] = [key for key in rule["required"] if key != "when"]
    whole = {"properties": {"rules": {"items": {"required": ["id", "when"]}}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "if": {"not": {"required": ["extends"]}},
        "then": whole,
    }


def score(
    name: Annotated[str, typer.Argument(help=f"A shipped scorer: {', '.join(SCORERS)}.")],
    file: Annotated[Path, typer.Argument(help='Lines of {"text": ...}; - reads standard input.')],
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Score texts with one shipped scorer: a line in, a line {"score": 0.93} out; 0.5 decides."""
    with _busy("loading the scorer"):
        from sg_guardrails.models import text  # noqa: PLC0415 - torch takes seconds

        known = text.scorers(text.load_embedder(EmbedderSection()))
    if name not in known:
        raise GuardError(f"no shipped scorer {name!r}: there are {', '.join(sorted(known))}")
    for batch, problem in _batches(file):
        for said, value in zip(batch, _scored(known[name], batch), strict=True):
            shown = json.dumps({"score": round(value, 6)})
            typer.echo(shown if as_json or not out.is_terminal else f"{value:.2f}  {printable(said)[:100]}")
        if problem is not None:
            raise problem


def _scored(scorer: Scorer, batch: Sequence[str]) -> list[float]:
    return [float(value) for value in scorer(batch)] if batch else []


def _batches(file: Path) -> Iterator[tuple[list[str], GuardError | None]]:
    """Texts in batches; a bad line ends them, after what stood before it."""
    try:
        with _opened(file) as lines:
            texts = _texts(lines, str(file))
            problem: GuardError | None = None
            while problem is None:
                batch: list[str] = []
                try:
                    batch.extend(islice(texts, BATCH))
                except GuardError as error:
                    problem = error
                if not batch and problem is None:
                    return
                yield batch, problem
    except OSError as error:
        raise GuardError(f"{file}: cannot be read: {type(error).__name__}") from error


def _opened(file: Path) -> TextIO:
    # A byte that is no UTF-8 becomes a surrogate, and its line is told by number.
    if str(file) == "-":
        return TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
    return file.open(encoding="utf-8-sig", errors="surrogateescape")


def _texts(lines: TextIO, where: str) -> Iterator[str]:
    blank = 0
    for number, line in enumerate(iter(lambda: lines.readline(MOST_LINE), ""), start=1):
        if not line.strip():
            blank = blank or number
            continue
        if blank:  # at the end of a file it means nothing; between two lines it is a text that was lost
            raise GuardError(f"{where}:{blank}: an empty line")
        try:
            said = json.loads(line.encode())
        except (ValueError, RecursionError):
            raise GuardError(f"{where}:{number}: not a line of JSON in UTF-8") from None
        if not isinstance(said, dict) or not isinstance(said.get("text"), str):
            raise GuardError(f'{where}:{number}: a line is {{"text": "..."}}')
        yield said["text"]


def _builder() -> Build:
    with _busy("loading models"):
        from sg_guardrails.local import local_guard  # noqa: PLC0415 - torch takes seconds; bad input is told before it
    return local_guard


def _unrecorded(outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
    del outcome, prompt, policy


def _blind(images: Sequence[Image]) -> list[str]:
    return [""] * len(images)


def _report(pair: tuple[Policy, Policy], replayed: Sequence[Replayed], skipped: int) -> Mapping[str, Any]:
    return {
        "old": pair[0].id,
        "new": pair[1].id,
        "decided": len(replayed),
        "changed": sum(item.changed for item in replayed),
        "not_replayed_exactly": sum(item.exact is False for item in replayed),
        "without_texts": skipped,
        "decisions": [{**asdict(item), "changed": item.changed} for item in replayed],
    }


@contextmanager
def _busy(what: str) -> Iterator[None]:
    with err.status(what):
        yield
