"""Decisions read back: what was asked and answered, so that another policy can decide again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sg_guardrails.core.errors import GuardError
from sg_guardrails.core.types import Action, Answer, Message, Outcome, Prompt, Status
from sg_guardrails.record import audit

_KEYS = {"prompt", "answers", "clean", "candidate"}
_CHECKED = b'{"crc":"'
SHAPE = '{"prompt": "...", "answers": [...], "clean": 0, "candidate": "..."}, each optional but one of the last three'


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy made of a request; contents left out."""

    status: Status
    rules: tuple[str, ...]
    """The rules that matched, sorted."""
    would_have: Action | None
    abstained: bool
    error: str | None = None
    """The type of the error, where there was one."""

    @classmethod
    def of(cls, outcome: Outcome) -> Decision:
        """The decision of an outcome."""
        verdict = outcome.verdict
        rules = () if verdict is None else tuple(sorted({finding.rule for finding in verdict.findings}))
        would = None if verdict is None else verdict.would_have
        error = None if outcome.error is None else type(outcome.error).__name__
        return cls(outcome.status, rules, would, outcome.abstained, error)

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> Decision:
        """The decision that an event ``guard.outcome`` tells of."""
        found = event.get("findings") or []
        rules = tuple(sorted({str(item.get("rule")) for item in found if isinstance(item, Mapping)}))
        return cls(event["status"], rules, event.get("would_have"), bool(event.get("abstained")), event.get("error"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request with its answers."""

    prompt: Prompt
    """The user's turns, without media: these are never recorded."""
    answers: tuple[Answer, ...] = ()
    clean: int | None = None
    """Index of the answer to the unperturbed prompt."""
    candidate: Answer | None = None
    """The answer that was under review."""
    decision: Decision | None = None
    """What was decided then, where the record says so."""
    policy: str = ""
    """The policy that decided then, ``name@hash``; empty where the record does not say."""
    media: int = 0
    """Pictures and clips that the request had. They are not recorded: rules about them see nothing in a replay."""
    redacted: bool = False
    """Whether something was taken out of the texts before they were written."""

    @classmethod
    def parse(cls, line: object) -> Recorded:
        """Read a line of an audit file or a log that kept its texts, or a line of your own.

        Yours is ``{"prompt": "..." or ["...", ...], "answers": [...], "clean": 0, "candidate": "..."}``.

        Raises:
            GuardError: If it is neither, or holds digests only.
        """
        if not isinstance(line, Mapping):
            raise GuardError(f"a recorded decision is {SHAPE}")
        if "policy" in line and "status" in line:
            kept = line.get("text")
            if not isinstance(kept, Mapping):
                raise GuardError("it holds digests only: record with record: {include_text: true} to replay")
            fields = {"prompt": list(kept.get("asked", ())), **{key: kept.get(key) for key in _KEYS - {"prompt"}}}
            return replace(
                cls._of(fields),
                decision=Decision.parse(line),
                policy=str(line["policy"]),
                media=len(line.get("media") or ()),
                redacted=bool(kept.get("redacted")),
            )
        if not line or not line.keys() <= _KEYS:
            raise GuardError(f"a recorded decision is {SHAPE}")
        return cls._of(line)

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Recorded:
        given, clean, candidate = fields.get("answers") or [], fields.get("clean"), fields.get("candidate")
        turns = fields.get("prompt") or []
        turns = [turns] if isinstance(turns, str) else turns
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise GuardError('"prompt" is a string, or a list of the user\'s turns')
        if not isinstance(given, list):
            raise GuardError('"answers" is a list')
        if clean is not None and (type(clean) is not int or not 0 <= clean < len(given)):
            raise GuardError(f'"clean" is an index among the {len(given)} answers')
        if not given and candidate is None:
            raise GuardError("there is nothing to decide: no answers, no candidate")
        answers = tuple(Answer.parse(answer) for answer in given)
        prompt = Prompt(tuple(Message("user", (turn,)) for turn in turns))
        return cls(prompt, answers, clean, None if candidate is None else Answer.parse(candidate))


def read(path: str | Path) -> Iterator[tuple[int, Recorded | None]]:
    """Each decision of a file with its line number; None where the record holds too little to decide again.

    The file is an audit file, a log of JSON lines, or lines of your own (`Recorded.parse`). Lines of an audit file
    about other things are passed over.

    Raises:
        GuardError: If the file cannot be read, or a line is damaged or is no decision; names the line.
    """
    for number, line in _lines(path):
        if isinstance(line, Mapping) and "event" in line and line["event"] != "guard.outcome":
            continue
        try:
            yield number, Recorded.parse(line)
        except GuardError as error:
            if not (isinstance(line, Mapping) and "policy" in line and "status" in line):
                raise GuardError(f"{path}:{number}: {error}") from None
            yield number, None


def _lines(path: str | Path) -> Iterator[tuple[int, object]]:
    try:
        with Path(path).open("rb") as file:
            checked = file.read(len(_CHECKED)) == _CHECKED
        if checked:
            for number, record in audit.read(path):
                if record is None:
                    raise GuardError(f"{path}:{number}: damaged: the line does not match its checksum")
                yield number, record
            return
        with Path(path).open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _parsed(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise GuardError(f"{path}: cannot be read: {type(error).__name__}") from error


def _parsed(line: str, where: str) -> object:
    try:
        parsed: object = json.loads(line)
    except (ValueError, RecursionError):
        raise GuardError(f"{where}: not a line of JSON") from None
    return parsed
