"""LangChain messages to the guard's Prompt, and an Outcome back to a message under the same id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ChatMessage, HumanMessage

from langchain_smoothguard.answers import calls_of
from langchain_smoothguard.blocks import Path, Piece, pieces, put, stringified
from langchain_smoothguard.dialects import Slot
from sg_guardrails import (
    MediaError,
    MediaLimits,
    Message,
    Outcome,
    Prompt,
    UnresolvableMediaError,
    edge,
)

Role = Literal["system", "user", "assistant", "tool"]
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
KEPT_METADATA = ("id", "model", "model_name", "model_provider", "finish_reason", "stop_reason", "token_usage")
"""What of ``response_metadata`` survives a replacement: the rest (logprobs, citations) may carry the refused answer."""
REMOVED = "[media removed: it could not be checked]"
"""What stands in an agent's state where media that cannot be judged stood."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one medium of a reading stands."""

    turn: int
    path: Path
    slot: Slot


@dataclass(frozen=True, slots=True)
class Reading:
    """Messages, and what the guard sees of them."""

    messages: tuple[BaseMessage, ...]
    prompt: Prompt
    places: tuple[Place, ...]
    """One for each of ``prompt.media``, in order."""

    def with_media(self, prompt: Prompt) -> list[BaseMessage]:
        """The messages with `prompt`'s media (a perturbed copy's) in the places and dialects of the originals."""
        messages = list(self.messages)
        for place, medium in zip(self.places, prompt.media, strict=True):
            turn = messages[place.turn]
            content = put(turn.content, place.path, place.slot, medium)
            messages[place.turn] = turn.model_copy(update={"content": content})
        return messages


def read(
    messages: Sequence[BaseMessage], *, limits: MediaLimits, unresolvable: Literal["block", "pass", "error"] = "block"
) -> Reading:
    """What the guard sees of `messages`.

    Args:
        messages: As the chat model got them.
        limits: Bounds on each medium.
        unresolvable: ``pass`` leaves out what cannot be resolved.

    Raises:
        UnresolvableMediaError: If a block cannot be resolved; names each, by message and block type.
        MediaError: If a medium is broken or exceeds the limits.
    """
    turns: list[Message] = []
    places: list[Place] = []
    problems: list[tuple[int, Piece]] = []
    for number, message in enumerate(messages):
        role = _role(message)
        parts: list[Any] = []
        for piece in _pieces(message, limits):
            if piece.part is None:
                problems.append((number, piece))
                continue
            parts.append(piece.part)
            if piece.slot is not None:
                places.append(Place(number, piece.path, piece.slot))
        parts += [
            json.dumps({"name": call.name, "arguments": call.arguments}, default=str) for call in calls_of(message)
        ]
        turns.append(Message(role, tuple(part for part in parts if part != "")))
    _raise(problems, unresolvable)
    return Reading(tuple(messages), Prompt(tuple(turns)), tuple(places))


def _pieces(message: BaseMessage, limits: MediaLimits) -> list[Piece]:
    """The message's content, and a piece without a part for media that stand outside of it."""
    is_models = _role(message) == "assistant"
    try:
        found = list(pieces(message.content, limits, tool=_role(message) == "tool", own=is_models))
    except RecursionError:
        return [Piece((), None, problem="content that is nested too deep to be read", broken=True)]
    # A model's own speech stands there; it is judged by its transcript.
    spoken = ("audio",) if isinstance(message, AIMessage) else ()
    beside_it = {key: value for key, value in message.additional_kwargs.items() if key not in spoken}
    name = edge.hidden(beside_it, own=is_models)
    beside = Piece((), None, problem=f"additional_kwargs: media under {name}", is_hiding=True)
    return [*found, beside] if name else found


def bound(keywords: Mapping[str, Any] | None) -> list[BaseMessage]:
    """Media that a model's call has among its keywords (``images=[...]``), as a message that cannot be judged.

    Schemas of tools and answers, which name media without holding any, are none.
    """
    looked_through = edge.without_schemas(keywords or {})
    held = {key: value for key, value in looked_through.items() if edge.hidden({key: value})}
    return [HumanMessage("", additional_kwargs=held)] if held else []


def refuse_hidden(messages: Sequence[BaseMessage], *, limits: MediaLimits) -> None:
    """Check messages of which a handler gets to see a copy only: LangChain's leaves out what it does not know.

    Raises:
        UnresolvableMediaError: If media stand beside a text or beside another medium; names each.
    """
    with_more = [
        (n, one) for n, one in enumerate(messages) if not isinstance(one.content, str) or one.additional_kwargs
    ]
    hiding = [(number, piece) for number, one in with_more for piece in _pieces(one, limits) if piece.is_hiding]
    _raise(hiding, "block")


def without_unseen(message: BaseMessage, limits: MediaLimits) -> BaseMessage:
    """`message` itself where all of it can be judged, else its texts alone under the same id."""
    found = _pieces(message, limits)
    if all(piece.part is not None for piece in found):
        return message
    texts = [piece.part for piece in found if isinstance(piece.part, str)]
    content = [{"type": "text", "text": text} for text in (*texts, REMOVED)]
    return message.model_copy(update={"content": content, "additional_kwargs": {}})


def _raise(problems: Sequence[tuple[int, Piece]], unresolvable: str) -> None:
    broken = [item for item in problems if item[1].broken]
    named = "; ".join(f"message {number}, {piece.problem}" for number, piece in broken or problems)
    if broken:
        raise MediaError(f"media that cannot be judged: {named}")
    if problems and unresolvable != "pass":
        raise UnresolvableMediaError(f"media that the guard cannot see: {named}")


def _role(message: BaseMessage) -> Role:
    named = message.role if isinstance(message, ChatMessage) else message.type.removesuffix("MessageChunk").lower()
    return ROLES.get(named, "user")


def media_of(messages: Sequence[BaseMessage]) -> list[object]:
    """The blocks of `messages` that are no text, as they stand, undecoded: equal lists mean the same media."""
    blocks: list[object] = []
    for message in messages:
        content: object = message.content
        if isinstance(content, str):
            content = stringified(content) if _role(message) == "tool" else None
        blocks += content if isinstance(content, list) else [content]
    return [block for block in blocks if isinstance(block, Mapping) and not isinstance(block.get("text"), str)]


def replaced(message: AIMessage, outcome: Outcome) -> AIMessage:
    """A message of the same type and id that says ``outcome.text``; nothing that may carry the old answer is kept."""
    metadata = {key: message.response_metadata[key] for key in KEPT_METADATA if key in message.response_metadata}
    update: dict[str, Any] = {
        "content": outcome.text,
        "tool_calls": [],
        "invalid_tool_calls": [],
        "additional_kwargs": {},
        "response_metadata": {**metadata, "smoothguard": edge.summary(outcome)},
    }
    if isinstance(message, AIMessageChunk):
        update["tool_call_chunks"] = []
    return message.model_copy(update=update)


def answering(outcome: Outcome) -> AIMessage:
    """The guard's own answer, where it is the model."""
    calls = outcome.answer.tool_calls if outcome.answer is not None else ()
    return AIMessage(
        outcome.text,
        tool_calls=[
            {"name": call.name, "args": dict(call.arguments), "id": f"call_{number}", "type": "tool_call"}
            for number, call in enumerate(calls)
        ],
        response_metadata={"smoothguard": edge.summary(outcome)},
    )
