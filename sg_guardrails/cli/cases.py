"""A policy's test cases: a YAML file of requests and answers, and what the policy must make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from sg_guardrails.core import layers, mistakes
from sg_guardrails.core.errors import GuardError, PolicyError
from sg_guardrails.core.inquiry import Judge
from sg_guardrails.core.media import Audio, Image, Media
from sg_guardrails.core.policy import Policy
from sg_guardrails.core.section import Section
from sg_guardrails.core.types import Action, Answer, Message, Outcome, Prompt, Scorer, Status
from sg_guardrails.guard import SmoothGuard
from sg_guardrails.panel import Reader
from sg_guardrails.record.recorded import Recorded


class Call(Section):
    """A tool call of an answer."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Said(Section):
    """An answer with tool calls, or one that several copies gave."""

    text: str = ""
    tool_calls: tuple[Call, ...] = ()
    times: int = Field(1, ge=1, le=1000)
    """How many copies said so."""

    @property
    def answer(self) -> Answer:
        """The answer as the guard takes it."""
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.tool_calls]
        return Answer.parse({"text": self.text, "tool_calls": calls})


class Expected(Section):
    """What must come out. What is not named is not looked at."""

    status: Status
    rules: tuple[str, ...] | None = None
    """Exactly the rules that match, observed ones too, in any order; ``[]`` for none."""
    would_have: Action | None = None
    """The stricter action that observing rules would have taken; null for none."""
    text: str | None = None
    """The text handed on, word for word."""
    abstained: bool | None = None
    error: Literal["SamplingError", "MediaError", "DeadlineError", "GuardError"] | None = None
    """The type of the error behind the status ``error``."""


class Case(Section):
    """One request.

    With `answers`, these are judged; with a `candidate` alone, it is reviewed; with neither, the model is asked.
    """

    name: str
    prompt: str | tuple[str, ...] = ()
    """The question, or the user's turns."""
    image: str | tuple[str, ...] = ()
    """Picture files in the case file's folder."""
    audio: str | tuple[str, ...] = ()
    """WAV or FLAC files in the case file's folder."""
    picture_text: str | None = None
    """What every picture says, in the place of OCR."""
    answers: tuple[str | Said, ...] = ()
    """What the copies said."""
    clean: int | None = Field(None, ge=0)
    """Which of `answers`, counted after `times`, is that to the unchanged request."""
    candidate: str | Said | None = None
    """The answer under review."""
    recorded: dict[str, Any] | None = None
    """In the place of the above: a line of an audit file that kept its texts."""
    scores: dict[str, float] = Field(default_factory=dict)
    """What a scorer says of every text, in the place of the scorer of this name."""
    judges: dict[str, float] = Field(default_factory=dict)
    """What an LLM judge says of every text, in the place of the judge of this name."""
    expect: Expected


class CaseFile(Section):
    """The cases of one policy."""

    policy: str | None = None
    """A shipped name or a path from this file's folder; by default the policy of this file's name in the folder above
    ``tests``, or shipped."""
    cases: tuple[Case, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case file with its policy."""

    path: Path
    policy: Policy
    cases: tuple[Case, ...]
    lines: tuple[int, ...]
    """Where each case begins in the file."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case."""

    case: Case
    line: int
    """Where the case begins in its file."""
    differences: tuple[str, ...]
    """Empty where the case passed."""


class Build(Protocol):
    """Makes the guard of a policy with some of its parts replaced: `sg_guardrails.local.local_guard` is one."""

    def __call__(
        self,
        policy: Policy,
        /,
        *,
        scorers: Mapping[str, Scorer],
        judges: Mapping[str, Judge],
        reader: Reader | None,
        emit: Callable[..., None],
    ) -> SmoothGuard:
        """A guard of `policy`; a reader of None means the policy's own."""
        ...


def find(source: str | Path) -> list[Path]:
    """The case files behind a file, a folder of policies (``tests/*.yaml`` in it), a folder of cases, or a name.

    Raises:
        PolicyError: If there are none.
    """
    path = Path(source)
    shipped = layers.shipped() / "tests" / f"{source}.yaml"
    if path.is_file():
        return [path]
    files = sorted((path / "tests").glob("*.yaml")) or sorted(path.glob("*.yaml")) if path.is_dir() else []
    if not files and shipped.is_file() and path.name == str(source):
        return [shipped]
    if not files:
        raise PolicyError(f"no test cases at {str(source)!r}: name a case file, or a folder with tests/NAME.yaml")
    return files


def load(path: Path) -> Loaded:
    """Read a case file and its policy.

    Raises:
        PolicyError: If one of them is not valid; names file, line and key.
    """
    data = layers.read(path)
    try:
        file = CaseFile.model_validate(dict(data))
    except ValidationError as error:
        found = mistakes.told(error, data, CaseFile.model_json_schema(), str(path))
        raise PolicyError("; ".join(found), found) from None
    listed = data["cases"]
    lines = tuple(listed.places[index][1] for index in range(len(file.cases)))
    return Loaded(path, Policy.load(_policy_of(path, file.policy)), file.cases, lines)


def _policy_of(path: Path, named: str | None) -> str | Path:
    if named is not None:
        beside = path.parent / named
        return beside if beside.is_file() else named
    above = path.parent.parent / path.name
    return above if above.is_file() else path.stem


def run(loaded: Loaded, build: Build) -> list[Result]:
    """Decide every case by real scorers, but where the case names what they say."""
    guards: dict[str, SmoothGuard] = {}
    return [
        Result(case, line, _differences(case, loaded, build, guards))
        for case, line in zip(loaded.cases, loaded.lines, strict=True)
    ]


def _guard(case: Case, policy: Policy, build: Build, guards: dict[str, SmoothGuard]) -> SmoothGuard:
    """One guard for all cases that replace the same parts: building one reads the heads."""
    parts = repr((sorted(case.scores.items()), sorted(case.judges.items()), case.picture_text, bool(case.image)))
    if parts not in guards:
        guards[parts] = build(
            policy,
            scorers={name: _constant(score) for name, score in case.scores.items()},
            judges={name: _constant(score) for name, score in case.judges.items()},
            reader=_reader(case),
            emit=_unrecorded,
        )
    return guards[parts]


def _differences(case: Case, loaded: Loaded, build: Build, guards: dict[str, SmoothGuard]) -> tuple[str, ...]:
    try:
        outcome = decide(case, _guard(case, loaded.policy, build, guards), loaded.path.parent)
    except GuardError as error:
        if (case.expect.status, case.expect.error) == ("error", type(error).__name__):
            return ()  # as under `on_error: raise`
        return (f"no outcome: {type(error).__name__}: {error}",)
    return compare(case.expect, outcome)


def decide(case: Case, guard: SmoothGuard, folder: Path) -> Outcome:
    """What the guard makes of the case. Media are read from `folder`.

    Raises:
        GuardError: If the case is not sound, or the policy raises.
    """
    if case.recorded is not None:
        then = Recorded.parse(case.recorded)
        return guard.decide(then.prompt, then.answers, clean=then.clean, candidate=then.candidate)
    prompt = _prompt(case, guard.policy, folder)
    answers = [answer for said in case.answers for answer in _answers(said)]
    candidate = None if case.candidate is None else _answers(case.candidate)[0]
    if answers:
        return guard.decide(prompt, answers, clean=case.clean, candidate=candidate)
    return guard.check(prompt) if candidate is None else guard.review(prompt, candidate)


def compare(expected: Expected, outcome: Outcome) -> tuple[str, ...]:
    """A line for each thing that is not as expected."""
    verdict = outcome.verdict
    rules = sorted({finding.rule for finding in verdict.findings}) if verdict is not None else []
    found: dict[str, object] = {
        "status": outcome.status,
        "rules": rules,
        "would_have": None if verdict is None else verdict.would_have,
        "text": outcome.text,
        "abstained": outcome.abstained,
        "error": None if outcome.error is None else type(outcome.error).__name__,
    }
    wanted = {name: getattr(expected, name) for name in found if name in expected.model_fields_set}
    if wanted.get("rules") is not None:
        wanted["rules"] = sorted(wanted["rules"])
    lines = [f"{name}: expected {want!r}, got {found[name]!r}" for name, want in wanted.items() if want != found[name]]
    if lines and outcome.error is not None:
        lines.append(f"the error was {outcome.error}")
    return tuple(lines)


def _prompt(case: Case, policy: Policy, folder: Path) -> Prompt:
    turns = [case.prompt] if isinstance(case.prompt, str) else list(case.prompt)
    limits = policy.limits.media
    media: list[Media] = [Image.open(_inside(folder, name), limits=limits) for name in _several(case.image)]
    media += [Audio.open(_inside(folder, name), limits=limits) for name in _several(case.audio)]
    last = (*media, turns[-1]) if turns else tuple(media)
    earlier = [Message("user", (turn,)) for turn in turns[:-1]]
    return Prompt((*earlier, Message("user", last))) if last else Prompt(())


def _inside(folder: Path, name: str) -> str:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise GuardError(f"{name!r} lies outside the folder of the case file")
    return str(path)


def _several(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _answers(said: str | Said) -> list[Answer]:
    return [Answer(said)] if isinstance(said, str) else [said.answer] * said.times


def _constant(score: float) -> Callable[[Sequence[Any]], NDArray[np.float32]]:
    return lambda items: np.full(len(items), score, dtype=np.float32)


def _reader(case: Case) -> Reader | None:
    """A case that shows no picture, or says what it reads, needs no OCR."""
    if case.picture_text is None and case.image:
        return None
    return lambda images: [case.picture_text or ""] * len(images)


def _unrecorded(outcome: Outcome, *, prompt: Prompt, policy: Policy) -> None:
    del outcome, prompt, policy
