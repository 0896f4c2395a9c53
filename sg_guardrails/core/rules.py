"""The rules of a policy: where each looks, what for, and what it does where it is found."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from sg_guardrails.core.section import Section, Share, mistake
from sg_guardrails.core.terms import Condition, Regex, ToolCalls, Words, located, parts
from sg_guardrails.core.types import Action


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
    pictures one is enough, and the candidate is one: there this key is refused."""
    over: Share = 0.2
    """For ``clusters``: the least share of all answers that makes a cluster count."""
    when: Condition
    action: Action = "block"
    """Where it is not named, that of ``actions`` for the category, else ``block``."""
    rewrite: Literal["text", "representative", "safest", "redact", "model"] = "text"
    """What the action ``rewrite`` hands on: the policy's text; the majority's representative; that of the safest
    cluster; the answer without the words and patterns found; or what the policy's model makes of it. What is not the
    policy's text is judged again, and blocked where it does not pass."""
    text: str | None = Field(None, min_length=1)
    """What a user reads where this rule decides, before the category's text and the policy's."""
    mode: Literal["enforce", "observe"] = "enforce"
    """``observe``: this rule is recorded and not acted upon, while the others are enforced."""

    # Validators of a field see the fields above it, and only where the file names theirs: what is left out is no
    # mistake, and what is named must be able to act.

    @field_validator("share")
    @classmethod
    def _of_several(cls, share: float, info: ValidationInfo) -> float:
        if info.data.get("where") in ("candidate", "user", "picture"):
            raise ValueError(f"where: {info.data['where']} takes no share: one match is enough")
        return share

    @field_validator("over")
    @classmethod
    def _of_clusters(cls, over: float, info: ValidationInfo) -> float:
        if info.data.get("where", "clusters") != "clusters":
            raise ValueError("over counts for where: clusters alone")
        return over

    @field_validator("when")
    @classmethod
    def _can_hold(cls, when: Condition, info: ValidationInfo) -> Condition:
        where = info.data.get("where")
        for path, part in located(when):
            if where in ("user", "picture") and isinstance(part, ToolCalls):
                raise mistake(f"where: {where} looks at no answer, and so at no tool call", *path, "tool_calls")
        return when

    @field_validator("rewrite")
    @classmethod
    def _can_rewrite(cls, rewrite: str, info: ValidationInfo) -> str:
        where, when = info.data.get("where"), info.data.get("when")
        if info.data.get("action", "rewrite") != "rewrite":
            raise ValueError(f"this rule's action is {info.data['action']}: rewrite needs action: rewrite")
        if rewrite == "representative" and where in ("winner", "user", "picture"):
            raise ValueError(
                f"where: {where} never lets the majority's words stand in: representative is for a candidate at fault"
            )
        if rewrite == "redact" and where is not None and when is not None and not _redactable(where, when):
            raise ValueError("redact needs words or regex on the answer's text (not under a `not`) to take out")
        return rewrite

    @field_validator("text")
    @classmethod
    def _is_read(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None and info.data.get("action") in ("allow", "flag"):
            raise ValueError(f"the action {info.data['action']} hands the answer on: nobody would read this text")
        return text

    @model_serializer(mode="wrap")
    def _without_what_does_not_act(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a file could have it: no key that would be refused."""
        written: dict[str, Any] = write(self)
        silent = {
            "share": self.where in ("candidate", "user", "picture"),
            "over": self.where != "clusters",
            "rewrite": self.action != "rewrite",
            "text": self.text is None,
        }
        return {key: value for key, value in written.items() if not silent.get(key, False)}

    @property
    def redactable(self) -> tuple[Words | Regex, ...]:
        """The words and patterns whose matches can be taken out of the answer."""
        return _redactable(self.where, self.when)


def _redactable(where: str, when: Condition) -> tuple[Words | Regex, ...]:
    if where in ("user", "picture", "tools"):
        return ()
    found = parts(when, denied=False)
    return tuple(part for part in found if isinstance(part, Words | Regex) and part.of == "answer")
