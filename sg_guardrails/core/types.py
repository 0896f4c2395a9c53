"""The nouns: Prompt and its parts, Copy, Answer, Vote, Finding, Verdict, Outcome, and what a guard is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sg_guardrails.core.errors import GuardError, UnsafeOutputError
from sg_guardrails.core.media import Audio, Image, Media

if TYPE_CHECKING:
    from sg_guardrails.core.policy import Smoothing

Role = Literal["system", "user", "assistant", "tool"]
Action = Literal["allow", "flag", "rewrite", "block", "raise"]
Status = Literal["passed", "flagged", "rewritten", "blocked", "error", "skipped"]
Part = str | Image | Audio
ACTIONS: tuple[Action, ...] = ("allow", "flag", "rewrite", "block", "raise")
"""From the mildest to the strictest: the strictest finding decides."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]
    """Text and media in the order in which the model meets them."""

    @property
    def text(self) -> str:
        """The text parts, joined by newlines."""
        return "\n".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages for the MLLM."""

    messages: tuple[Message, ...]

    @classmethod
    def ask(cls, question: str, *media: Media, system: str | None = None) -> Prompt:
        """One user turn: the media first, then the question."""
        turn = Message("user", (*media, question))
        return cls((turn,) if system is None else (Message("system", (system,)), turn))

    @property
    def media(self) -> tuple[Media, ...]:
        """Every image and clip, in order."""
        return tuple(part for turn in self.messages for part in turn.parts if not isinstance(part, str))

    @property
    def digest(self) -> str:
        """sha256 over roles, texts and media digests, hex: the seed's and the record's name for this request."""
        state = hashlib.sha256()
        for turn in self.messages:
            # Each label is hashed to a fixed length, so that no part's text can pass for another part or turn.
            labels = [f"t{part}" if isinstance(part, str) else f"m{part.digest}" for part in turn.parts]
            for label in (f"r{turn.role}{len(labels)}", *labels):
                state.update(hashlib.sha256(label.encode("utf-8", "surrogatepass")).digest())
        return state.hexdigest()

    @property
    def asked(self) -> tuple[str, ...]:
        """The text of each user turn: a request may be made in one and only nodded to in the last."""
        return tuple(turn.text for turn in self.messages if turn.role == "user")

    @property
    def question(self) -> str:
        """The text of the last user turn."""
        return next((turn.text for turn in reversed(self.messages) if turn.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Copy:
    """One version of a Prompt to ask the model: perturbed where a seed is given, clean where it is None."""

    prompt: Prompt
    seed: int | None = None
    """Non-negative, below 2**63."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asked for."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def canonical(self) -> str:
        """Name and arguments as one line whose equality is the calls' equality (key order does not count)."""
        return json.dumps([self.name, self.arguments], sort_keys=True, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the MLLM said to one copy."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()

    @classmethod
    def parse(cls, value: object) -> Answer:
        """Read a recorded answer: a string, or ``{"text": ..., "tool_calls": [{"name": ..., "arguments": {...}}]}``.

        Raises:
            GuardError: If the value has another shape, or an Answer holds what its types forbid.
        """
        if isinstance(value, Answer):
            if not isinstance(value.text, str) or not isinstance(value.tool_calls, tuple):
                raise GuardError("an Answer has a string as its text and a tuple of tool calls")
            for call in value.tool_calls:
                _tool_call(call)
            return value
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping) or not value or not value.keys() <= {"text", "tool_calls"}:
            raise GuardError('an answer is a string or {"text": ..., "tool_calls": [...]}')
        text, calls = value.get("text") or "", value.get("tool_calls") or ()
        if not isinstance(text, str) or isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
            raise GuardError('an answer has a string "text" and a list "tool_calls"')
        return cls(text, tuple(_tool_call(call) for call in calls))


def _tool_call(value: object) -> ToolCall:
    if isinstance(value, ToolCall):
        if not isinstance(value.name, str) or not isinstance(value.arguments, Mapping):
            raise GuardError("a ToolCall has a string as its name and a mapping of arguments")
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise GuardError('a tool call is {"name": ..., "arguments": {...}}')
    arguments = value.get("arguments", value.get("args")) or {}
    if not isinstance(arguments, Mapping):
        raise GuardError("a tool call's arguments are a mapping")
    return ToolCall(value["name"], arguments)


def printable(text: str) -> str:
    """A model's words for a terminal: control characters, which could move the cursor or hide text, become spaces."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


@dataclass(frozen=True, slots=True)
class Bound:
    """One certified statement about the noisy copies of a request."""

    statement: Literal["answer", "verdict"]
    """``answer``: most copies say what the anchor says; ``verdict``: the policy finds most copies' answers safe."""
    count: int
    """Copies for which it held."""
    copies: int
    """Fresh, independent copies drawn."""
    share_low: float
    """Lower bound on the true share, in [0, 1]; the judge's error is taken off."""
    radius: float | None
    """L2, pixel units on the model's input (pixels in [0, 1], after resizing). None: nothing can be certified."""
    linf: float | None
    """The same radius if every pixel value moves alike: ``radius / sqrt(values)``. Small; 1/255 is 0.0039."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What no picture within the radius can change, with the confidence that goes with it."""

    anchor: Answer
    """What the fresh copies were compared with: the majority's answer among others, drawn before them."""
    answer: Bound
    verdict: Bound
    sigma: float
    """Of the noise, pixel units."""
    values: int
    """Pixel values that take noise, all pictures together."""
    confidence: float
    """Of each statement by itself."""
    judge_error: float
    """Share of answers that the policy's rules may call safe wrongly, as the caller stated it."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The election among N answers. It speaks in indices, so that the original responses survive."""

    labels: tuple[int, ...]
    """``(N,)`` cluster of each answer, numbered by first appearance."""
    winner: int
    """The label of the majority cluster."""
    choice: int
    """The index of the winner's representative."""
    agreement: float
    """The winner's share of the answers, in [0, 1] (members, not weights)."""
    abstained: bool
    """True where the agreement is under the policy's ``min_agreement``: there is no majority to speak of."""
    weights: tuple[float, ...]
    """``(C,)`` sentiment-aware weight of each cluster."""
    certificate: Certificate | None = None
    """What was certified, where `SmoothGuard.certify` was asked."""

    @property
    def members(self) -> tuple[int, ...]:
        """The indices of the winner's members."""
        return tuple(index for index, label in enumerate(self.labels) if label == self.winner)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that matched."""

    rule: str
    """The rule's id in the policy."""
    category: str
    severity: Literal["low", "medium", "high", "critical"]
    action: Action
    """What the rule asks for (what it would ask for, where `observed`)."""
    share: float
    """Share of the looked-at answers that match, in [0, 1]."""
    where: str = "winner"
    """What matched: ``winner``, ``candidate``, ``user`` or ``any``."""
    observed: bool = False
    """True where policy or rule only observe: recorded, not acted upon."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The action, with its findings."""

    action: Action
    findings: tuple[Finding, ...] = ()
    would_have: Action | None = None
    """The stricter action that observing rules would have taken, or None."""
    untold: tuple[str, ...] = ()
    """Ids of rules that could not be told: observing ones, or others beside a rule that blocks whatever they say."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller gets."""

    text: str
    """The text to hand on. After a block or an error this is the policy's text, never the refused answer."""
    status: Status
    answer: Answer | None
    """The answer handed on, tool calls included; None where the policy's text stands in its place."""
    vote: Vote | None = None
    """None where nothing was sampled."""
    verdict: Verdict | None = None
    """None where an error came before judging."""
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    """Every sampled answer, in the order of ``vote.labels``. Untrusted text: for tables and tests, not for users."""
    clean: int | None = None
    """Index of the answer to the unperturbed prompt among `answers`, where there is one."""
    asked: int = field(default=0, kw_only=True)
    """Times that the model was asked for this outcome: fewer than the policy's copies where the vote was settled
    early, more than `answers` where it went through two levels of noise or a draft, 0 where nothing was sampled."""
    candidate: Answer | None = field(default=None, repr=False, kw_only=True)
    """The answer under review, where someone else produced it: untrusted text too."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by stage, each moment counted once: ``sample``, asking the model, its queue, pictures and noise
    included; ``embed``; ``vote``; ``judge``, rules with all that they ask, and rewriting; ``plan``, seeds and what is
    asked next; ``total``, their sum. What was not done has no entry; recording, and a task's wait for a thread, are not
    in it. Requests of one call (`check_many`) wait for one another: what was done until the last round is counted whole
    to each of them, and then its own vote and judging alone."""
    policy: str = ""
    """Name and content hash of the policy that decided, ``name@hash``."""
    seed_id: str = ""
    """Replays the noise together with the key; reveals neither key nor seed."""
    degraded: str | None = None
    """Why the guard worked with less than asked for (fewer copies, say), or None."""
    error: GuardError | None = None
    """The typed error behind status ``error``, or None."""

    @property
    def abstained(self) -> bool:
        """True where there was a vote without a majority."""
        return self.vote is not None and self.vote.abstained

    def raise_if_blocked(self) -> Outcome:
        """Return self, or raise UnsafeOutputError where the answer was blocked or could not be judged.

        Raises:
            UnsafeOutputError: If the status is ``blocked``, or ``error`` with no answer handed on.
        """
        if self.status == "blocked":
            rules = ", ".join(finding.rule for finding in (self.verdict.findings if self.verdict else ()))
            raise UnsafeOutputError(f"the answer was blocked by policy {self.policy} (rules: {rules})", self)
        if self.status == "error" and self.answer is None:
            raise UnsafeOutputError(f"the answer could not be judged: {self.error}", self) from self.error
        return self


class Sampler(Protocol):
    """Asks the model. It owns where noise enters; a copy's noise depends on its seed alone, whatever the batch."""

    def __call__(self, copies: Sequence[Copy], smoothing: Smoothing) -> list[Answer]:
        """One answer per copy, in order. Raises GuardError kinds only for what the caller can mend."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors whose cosine measures nearness in meaning."""

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """``(N, D)`` float32."""
        ...


class Scorer(Protocol):
    """Scores texts for one property: ``refusal`` in [0, 1], ``sentiment`` in [-1, 1], a rule's own scorer in [0, 1]."""

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """``(N,)`` float32."""
        ...


Sentiment = Scorer
