"""The rules of a policy: conditions on texts, scores and votes, and what to do where one holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import re2
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, field_validator

from sg_guardrails.core.types import Action

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A frozen part of a policy file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Words(Section):
    """True where one of the words or phrases occurs (case and spacing do not count; whole words)."""

    words: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...] = Field(min_length=1)


class Regex(Section):
    """True where one of the patterns is found (RE2 syntax: linear time, so no text can hang it)."""

    regex: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)

    @field_validator("regex")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        options = re2.Options()
        options.log_errors = False
        for pattern in patterns:
            try:
                re2.compile(pattern, options=options)
            except re2.error as error:
                raise ValueError(f"pattern {pattern!r} is not RE2: {error}") from None
        return patterns


class Scored(Section):
    """True where a named scorer gives at least ``above``."""

    scorer: str
    """``refusal``, ``unsafe_request``, ``hostility``, or one passed to the guard by this name."""
    above: float = Field(0.5, ge=-1, le=1, allow_inf_nan=False)
    """The least score, in the scorer's own range."""
    of: Literal["answer", "user"] = "answer"
    """Whose text is scored."""


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


class AnyOf(Section):
    """True where at least one part is."""

    any: tuple[Condition, ...] = Field(min_length=1)


class Not(Section):
    """True where the part is not."""

    not_: Condition = Field(alias="not")


_KINDS: dict[str, type[Section]] = {
    "words": Words,
    "regex": Regex,
    "scorer": Scored,
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
    | Annotated[Scored, Tag("scorer")]
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


class Rule(Section):
    """One thing to look for, and what to do where it is found."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    category: str = "general"
    severity: Literal["low", "medium", "high", "critical"] = "medium"
    where: Literal["answer", "winner", "candidate", "any", "user"] = "answer"
    """``answer``: the winning cluster, and the candidate under review; ``any``: every answer, whatever its cluster."""
    share: Share = 0.5
    """The least share of the looked-at answers that must match (one match at least, even at 0)."""
    when: Condition
    action: Action = "block"
    rewrite: Literal["text", "representative"] = "text"
    """What the action ``rewrite`` hands on: the policy's text, or the majority's representative."""
    mode: Literal["enforce", "observe"] = "enforce"
    """``observe``: this rule is recorded and not acted upon, while the others are enforced."""
