"""The terms of a rule: what texts, pictures, calls and votes may be looked at for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from sg_guardrails.core.calls import Calls
from sg_guardrails.core.section import Name, Pattern, Section, Share, Word, mistake
from sg_guardrails.core.serving import Endpoint

NEAR = 0.6
"""Least cosine of ``near`` where a policy names none; docs/policies.md says what it finds and what it takes along."""


class Reads(Section):
    """A condition on a text."""

    of: Literal["answer", "user", "picture"] = "answer"
    """Whose: ``answer``: the text where the rule looks; ``user``: any user turn; ``picture``: what any picture says
    (OCR, the extra ``ocr``)."""


class Words(Reads):
    """True where one of the words or phrases occurs (whole words; case, accents and look-alike letters don't count)."""

    words: tuple[Word, ...] = Field(min_length=1)


class Regex(Reads):
    """True where one of the patterns is found (RE2 syntax: linear time, so no text can hang it).

    They are looked for in the text as it is written, line breaks and all, and as it reads: on one line, with invisible
    characters gone, look-alike letters made plain and without marks on letters. Case counts but after ``(?i)``.
    """

    regex: tuple[Pattern, ...] = Field(min_length=1)


class Language(Reads):
    """True where a text is told to be in another language; in doubt, and on single words, it is not."""

    language_other_than: Literal["en"]


class Scored(Reads):
    """True where a named scorer gives at least ``above``."""

    scorer: Name
    """A shipped head (``refusal``, ``unsafe_request`` ...), ``hostility``, or one given to the guard by this name."""
    above: float = Field(0.5, gt=0, le=1, allow_inf_nan=False)
    """The least score. Scorers give 0 to 1, so that 0 would hold for every text."""

    @property
    def key(self) -> str:
        """The scorer's name among those of a guard."""
        return self.scorer


class Near(Reads):
    """True where a sentence of the text is near in meaning to one of the examples."""

    near: tuple[Word, ...] = Field(min_length=1)
    """Sentences as the texts would say them: nearness is told sentence by sentence."""
    above: float = Field(NEAR, gt=-1, lt=1, allow_inf_nan=False)
    """The least cosine, by the policy's embedder."""

    @property
    def key(self) -> str:
        """The name of its scorer, which the guard makes of the examples and its embedder."""
        return "near " + hashlib.sha256(json.dumps(self.near).encode()).hexdigest()[:16]


class Checkpoint(Section):
    """A text-classification model of the hub, or in a folder."""

    id: Name
    label: Name | None = None
    """Whose probability counts; None takes the last one."""
    revision: Name | None = None
    """Commit or tag on the hub."""


class Classified(Reads):
    """True where a Hugging Face text classifier gives its label at least ``above``."""

    classifier: Checkpoint
    above: float = Field(0.5, gt=0, le=1)

    @property
    def key(self) -> str:
        """The name of its scorer among those of a guard."""
        named = self.classifier
        return f"classifier {named.id}" + "".join(f" {part}" for part in (named.revision, named.label) if part)


class Question(Section):
    """What an LLM judge is asked, and which."""

    preset: Literal["yes_no", "llama_guard", "shieldgemma"] = "yes_no"
    """``llama_guard``, ``shieldgemma``: the published instruction of these models; ``yes_no``: `question`."""
    model: Name = "guard"
    """``guard``: the policy's own model; else one given to the guard by this name, a hub id or a folder."""
    revision: Name | None = None
    """Commit or tag on the hub; for ``guard``, ``model.revision`` says it."""
    endpoint: Endpoint | None = None
    """Ask a served judge over the network instead of loading one here; `model` is the name it is served under."""
    conversation: bool = False
    """Send a served judge the conversation alone: its own chat template writes the instruction around it."""
    question: str | None = None
    """For ``yes_no``: a question to which "yes" means that the text is at fault. For ``shieldgemma``: the principle,
    where it is not the published four."""

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.preset == "yes_no" and not (self.question or "").strip():
            raise ValueError("the preset yes_no needs a question")
        if self.preset == "llama_guard" and self.question is not None:
            raise ValueError("the preset llama_guard brings its own question")
        if self.question is not None and not self.question.strip():
            raise ValueError("the question is empty")
        if self.model == "guard" and (self.revision is not None or self.endpoint is not None):
            raise ValueError("the judge is the policy's own model: model.revision pins it, model.endpoint serves it")
        if self.endpoint is not None and self.revision is not None:
            raise ValueError("an engine serves the revision that it was started with: leave it out here")
        if self.conversation and (self.endpoint is None or self.preset == "yes_no"):
            raise ValueError("conversation is for a served llama_guard or shieldgemma")
        return self

    @property
    def key(self) -> str:
        """The judge's name among those of a guard: `model`, and what tells it from others of this name."""
        served = "" if self.endpoint is None else f" at {self.endpoint.url}"
        told = " (conversation)" if self.conversation else ""
        return self.model + ("" if self.revision is None else f"@{self.revision}") + served + told


class Judged(Reads):
    """True where an LLM judge finds the text at fault with at least this probability."""

    judge: Question
    above: float = Field(0.5, gt=0, le=1)


class ToolCalls(Section):
    """True where an answer asks for a tool call that is not in order."""

    tool_calls: Calls


class AgreementBelow(Section):
    """True where the vote abstained, or the winner's share is under the bound."""

    agreement_below: Share


class Disagrees(Section):
    """True where the named answer contradicts the majority."""

    disagrees: Literal["candidate", "clean"]
    """``candidate``: the answer under review; ``clean``: the model's answer to the unperturbed prompt."""


class All(Section):
    """True where every part is."""

    all: tuple[Condition, ...] = Field(min_length=1)

    @field_validator("all")
    @classmethod
    def _possible(cls, inner: tuple[Condition, ...]) -> tuple[Condition, ...]:
        return _consistent(inner, "this can never hold")


class AnyOf(Section):
    """True where at least one part is."""

    any: tuple[Condition, ...] = Field(min_length=1)

    @field_validator("any")
    @classmethod
    def _undecided(cls, inner: tuple[Condition, ...]) -> tuple[Condition, ...]:
        return _consistent(inner, "this always holds")


class Not(Section):
    """True where the part is not."""

    not_: Condition = Field(alias="not")


_KINDS: dict[str, type[Section]] = {
    "words": Words,
    "regex": Regex,
    "language_other_than": Language,
    "scorer": Scored,
    "near": Near,
    "classifier": Classified,
    "judge": Judged,
    "tool_calls": ToolCalls,
    "agreement_below": AgreementBelow,
    "disagrees": Disagrees,
    "all": All,
    "any": AnyOf,
    "not": Not,
}


def _kind(value: object) -> str | None:
    if isinstance(value, Mapping):
        named = [key for key in _KINDS if key in value]
        return named[0] if len(named) == 1 else None
    return next((key for key, kind in _KINDS.items() if isinstance(value, kind)), None)


Condition = Annotated[
    Annotated[Words, Tag("words")]
    | Annotated[Regex, Tag("regex")]
    | Annotated[Language, Tag("language_other_than")]
    | Annotated[Scored, Tag("scorer")]
    | Annotated[Near, Tag("near")]
    | Annotated[Classified, Tag("classifier")]
    | Annotated[Judged, Tag("judge")]
    | Annotated[ToolCalls, Tag("tool_calls")]
    | Annotated[AgreementBelow, Tag("agreement_below")]
    | Annotated[Disagrees, Tag("disagrees")]
    | Annotated[All, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")],
    Discriminator(
        _kind,
        custom_error_type="condition",
        custom_error_message=f"a condition has exactly one of the keys {', '.join(_KINDS)}",
    ),
]
for _recursive in (All, AnyOf, Not):
    _recursive.model_rebuild()


def _consistent(inner: tuple[Condition, ...], otherwise: str) -> tuple[Condition, ...]:
    """Raises where a condition stands beside its own denial."""
    for index, part in enumerate(inner):
        if isinstance(part, Not) and part.not_ in inner:
            raise mistake(f"what is denied here stands beside it too: {otherwise}", index)
    return inner


def located(when: Condition) -> Iterator[tuple[tuple[int | str, ...], Condition]]:
    """The condition and every condition in it, each with the keys that lead to it."""
    yield (), when
    inner: tuple[tuple[tuple[int | str, ...], Condition], ...] = ()
    match when:
        case All():
            inner = tuple((("all", index), part) for index, part in enumerate(when.all))
        case AnyOf():
            inner = tuple((("any", index), part) for index, part in enumerate(when.any))
        case Not():
            inner = ((("not",), when.not_),)
    for path, part in inner:
        for further, deeper in located(part):
            yield (*path, *further), deeper


def parts(when: Condition, *, denied: bool = True) -> Iterator[Condition]:
    """The condition and every condition in it; without `denied`, none that stands under a ``not``."""
    yield when
    match when:
        case All():
            inner = when.all
        case AnyOf():
            inner = when.any
        case Not() if denied:
            inner = (when.not_,)
        case _:
            inner = ()
    for part in inner:
        yield from parts(part, denied=denied)
