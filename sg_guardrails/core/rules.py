"""The rules of a policy: conditions on texts, pictures, calls and votes, and what to do where one holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self, get_args

import re2
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sg_guardrails.core.types import Action

Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
NEAR = 0.6
"""Least cosine of ``near`` where a policy names none; docs/policies.md says what it finds and what it takes along."""


class Section(BaseModel):
    """A frozen part of a policy file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            # YAML 1.1 reads a bare yes, no, on or off as a truth value, which Python would count as 1 or 0.
            raise ValueError("a number is needed here, not true or false")
        return value


def _compiles(pattern: str) -> str:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise ValueError(f"pattern {pattern!r} is not RE2: {reason}") from None
    return pattern


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]


class Reads(Section):
    """A condition on a text."""

    of: Literal["answer", "user", "picture"] = "answer"
    """Whose: ``answer``: the text where the rule looks; ``user``: any user turn; ``picture``: what any picture says
    (OCR, the extra ``ocr``)."""


class Words(Reads):
    """True where one of the words or phrases occurs (whole words; case, accents and look-alike letters don't count)."""

    words: tuple[Word, ...] = Field(min_length=1)


class Regex(Reads):
    """True where one of the patterns is found (RE2 syntax: linear time, so no text can hang it)."""

    regex: tuple[Pattern, ...] = Field(min_length=1)


class Language(Reads):
    """True where a text is told to be in another language; in doubt, and on short texts, it is not."""

    language_other_than: Literal["en"]


class Scored(Reads):
    """True where a named scorer gives at least ``above``."""

    scorer: str
    """A shipped head (``refusal``, ``unsafe_request`` ...), ``hostility``, or one given to the guard by this name."""
    above: float = Field(0.5, ge=-1, le=1, allow_inf_nan=False)
    """The least score, in the scorer's own range."""

    @property
    def key(self) -> str:
        """The scorer's name among those of a guard."""
        return self.scorer


class Near(Reads):
    """True where a sentence of the text is near in meaning to one of the examples."""

    near: tuple[Word, ...] = Field(min_length=1)
    """Sentences as the texts would say them: nearness is told sentence by sentence."""
    above: float = Field(NEAR, ge=-1, le=1, allow_inf_nan=False)
    """The least cosine, by the policy's embedder."""

    @property
    def key(self) -> str:
        """The name of its scorer, which the guard makes of the examples and its embedder."""
        return "near " + hashlib.sha256(json.dumps(self.near).encode()).hexdigest()[:16]


class Checkpoint(Section):
    """A text-classification model of the hub, or in a folder."""

    id: str = Field(min_length=1)
    label: str | None = None
    """Whose probability counts; None takes the last one."""
    revision: str | None = None
    """Commit or tag on the hub."""


class Classified(Reads):
    """True where a Hugging Face text classifier gives its label at least ``above``."""

    classifier: Checkpoint
    above: Share = 0.5

    @property
    def key(self) -> str:
        """The name of its scorer among those of a guard."""
        named = self.classifier
        return f"classifier {named.id}" + "".join(f" {part}" for part in (named.revision, named.label) if part)


class Question(Section):
    """What an LLM judge is asked, and which."""

    preset: Literal["yes_no", "llama_guard", "shieldgemma"] = "yes_no"
    """``llama_guard``, ``shieldgemma``: the published instruction of these models; ``yes_no``: `question`."""
    model: str = "guard"
    """``guard``: the policy's own model; else one given to the guard by this name, a hub id or a folder."""
    question: str | None = None
    """For ``yes_no``: a question to which "yes" means that the text is at fault. For ``shieldgemma``: the principle,
    where it is not the published four."""

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.preset == "yes_no" and not (self.question or "").strip():
            raise ValueError("the preset yes_no needs a question")
        if self.preset == "llama_guard" and self.question is not None:
            raise ValueError("the preset llama_guard brings its own question")
        return self


class Judged(Reads):
    """True where an LLM judge finds the text at fault with at least this probability."""

    judge: Question
    above: Share = 0.5


class Calls(Section):
    """What calls may be made. A call that breaks one of the rules is a finding."""

    allowed: tuple[Word, ...] | None = None
    """The only tools that may be called; None: any that is not denied."""
    denied: tuple[Word, ...] = ()
    arguments: dict[str, dict[str, str]] = Field(default_factory=dict)
    """By tool and argument, the RE2 pattern that the whole argument must match. An argument left out passes; what is
    no string is matched as JSON."""
    unanimous: bool = False
    """Calls pass only if every copy made the same ones: one copy without them, or with others, is a finding. Where no
    copy was asked (a review without media) there is nothing to compare."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for patterns in self.arguments.values():
            for pattern in patterns.values():
                _compiles(pattern)
        if self.allowed is None and not (self.denied or self.arguments or self.unanimous):
            raise ValueError("tool_calls needs allowed, denied, arguments or unanimous")
        return self


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


class AnyOf(Section):
    """True where at least one part is."""

    any: tuple[Condition, ...] = Field(min_length=1)


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


class Rule(Section):
    """One thing to look for, and what to do where it is found."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    category: str = "general"
    severity: Literal["low", "medium", "high", "critical"] = "medium"
    where: Literal["answer", "winner", "clusters", "candidate", "any", "tools", "user", "picture"] = "answer"
    """``answer``: the winning cluster, and the candidate under review; ``clusters``: every cluster of a share of at
    least `over`; ``any``: every answer, whatever its cluster; ``tools``: the tool calls of ``answer`` without its
    text; ``user``, ``picture``: each user turn, what each picture says (OCR, the extra ``ocr``)."""
    share: Share = 0.5
    """The least share of the looked-at answers that must match (one match at least, even at 0). Of user turns and
    pictures one is enough."""
    over: Share = 0.2
    """For ``clusters``: the least share of all answers that makes a cluster count."""
    when: Condition
    action: Action = "block"
    rewrite: Literal["text", "representative", "safest", "redact", "model"] = "text"
    """What the action ``rewrite`` hands on: the policy's text; the majority's representative; that of the safest
    cluster; the answer without the words and patterns found; or what the policy's model makes of it. What is not the
    policy's text is judged again, and blocked where it does not pass."""
    mode: Literal["enforce", "observe"] = "enforce"
    """``observe``: this rule is recorded and not acted upon, while the others are enforced."""

    @model_validator(mode="after")
    def _can_redact(self) -> Self:
        if self.rewrite == "redact" and not self.redactable:
            raise ValueError("rewrite: redact needs words or regex on the answer (not under a `not`) to take out")
        return self

    @property
    def redactable(self) -> tuple[Words | Regex, ...]:
        """The words and patterns whose matches can be taken out of the answer."""
        if self.where in ("user", "picture"):
            return ()
        found = parts(self.when, denied=False)
        return tuple(part for part in found if isinstance(part, Words | Regex) and part.of == "answer")
