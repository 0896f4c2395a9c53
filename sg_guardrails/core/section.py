"""What every part of a policy file is made of: frozen models that know their keys, and the types that they share."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from sg_guardrails.core.patterns import folded, narrowing, sound, telling


def _says_something(word: str) -> str:
    if not folded(word):
        raise ValueError(f"{word!r} holds nothing that can be seen, and so stands in every text or in none")
    return word


Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Word = Annotated[Name, AfterValidator(_says_something)]
"""A word, a phrase or a name that is compared as readers see it."""
Pattern = Annotated[str, Field(min_length=1), AfterValidator(telling)]
"""RE2, to look for in a text."""
Whole = Annotated[str, Field(min_length=1), AfterValidator(narrowing)]
"""RE2, for a whole value."""
Masked = Annotated[str, Field(min_length=1), AfterValidator(sound)]
"""RE2, whose matches are replaced."""


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


def mistake(message: str, *path: int | str) -> PydanticCustomError:
    """An error at a place below the field that finds it: `path` leads on from there, as the file has it."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "path": path})
