"""What is judged of a chain's output: every word of a model's messages, in whatever block it stands, and its calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from langchain_smoothguard.blocks import pieces
from langchain_smoothguard.dialects import CONTAINERS, MEDIA_TYPES, SLOTS, TEXTS, at, holds
from sg_guardrails import Answer, MediaError, MediaLimits, ToolCall

THOUGHTS = frozenset(["reasoning", "thinking", "redacted_thinking", "reasoningContent", "reasoning_content"])
"""What a model says to itself: not judged."""
ASIDE = frozenset(["citation", "citations", "cache_point", "cachePoint", "mcp_list_tools"])
"""Where a text comes from, marks for the provider, and what tools its servers offer: not judged."""
CALLS = frozenset(
    [
        *("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "custom_tool_call"),
        *("input_json_delta", "toolUse"),
    ]
)
"""Calls of the agent's tools, which the message's ``tool_calls`` name again."""
OWN_TOOLS = ("_call", "_call_chunk", "_tool_use", "executable_code", "mcp_approval_request")
"""How the types of calls of a provider's own tools end."""
RETURNED = ("_result", "_output")
"""How the types of what tools returned end: no words of the model's."""
TOLD = ("output", "result")
"""How the keys of a call begin under which its results stand."""
FILES = frozenset(["", "file", "document", "input_file", "image_generation_call"])
"""Types of blocks that are their payload, whatever stands beside it."""
IDS = ("id", "call_id", "tool_call_id", "toolUseId")
FRAME = frozenset([*IDS, "type", "index", "status", "role", "phase", "name", "signature"])
"""Keys of a block that say nothing to a reader."""


def answer_of(output: Any) -> Answer:
    """What is judged of a chain's output: a message's text and tool calls, a string, the JSON of anything else.

    A message within a dict or a list counts as it would by itself.

    Raises:
        MediaError: If the answer is a text file that cannot be read.
    """
    if isinstance(output, AIMessage):
        return _answer(output)
    if isinstance(output, str):
        return Answer(output)
    if isinstance(output, BaseModel) and not isinstance(output, BaseMessage):
        return Answer(output.model_dump_json())
    calls: list[ToolCall] = []

    def plain(value: object) -> object:
        if isinstance(value, BaseMessage):
            said = _answer(value)
            calls.extend(said.tool_calls)
            return said.text
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)

    return Answer(json.dumps(output, ensure_ascii=False, default=plain), tuple(calls))


def calls_of(message: BaseMessage) -> list[ToolCall]:
    """The tool calls of an AIMessage; one that could not be parsed counts by its text, as do OpenAI's raw forms."""
    if not isinstance(message, AIMessage):
        return []
    calls = [ToolCall(call["name"], call["args"]) for call in message.tool_calls]
    calls += [ToolCall(str(call["name"]), {"unparsed": call["args"]}) for call in message.invalid_tool_calls]
    raw = message.additional_kwargs.get("tool_calls")
    known = _known(message)
    unlisted = [one for one in raw if at(one, ("id",)) not in known] if isinstance(raw, list) else []
    oldest = message.additional_kwargs.get("function_call")  # Google's package writes the last call there again
    for older in (None if _is_said(oldest, calls) else oldest, *(at(one, ("function",)) for one in unlisted)):
        if isinstance(older, Mapping):
            calls.append(ToolCall(str(older.get("name")), {"unparsed": older.get("arguments")}))
    return calls


def _is_said(older: object, calls: Sequence[ToolCall]) -> bool:
    """Whether a call in OpenAI's oldest form is one of `calls`."""
    name, arguments = at(older, ("name",)), at(older, ("arguments",))
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return False
    return any(call.name == name and call.arguments == parsed for call in calls)


def _known(message: BaseMessage) -> set[object]:
    """The ids of the calls that the message lists itself."""
    if not isinstance(message, AIMessage):
        return set()
    return {call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls)}


def _answer(message: BaseMessage) -> Answer:
    """Everything a user may read of the message, a spoken answer's transcript included, and all it calls."""
    said: list[str] = []
    beside: list[str] = []
    calls = calls_of(message)
    for kind, one in _walk(message.content, _known(message)):
        if isinstance(one, ToolCall):
            calls.append(one)
        else:
            (said if kind == "text" else beside).append(one)
    text = "".join(said)  # as LangChain: a word may span two blocks
    audio = message.additional_kwargs.get("audio")
    extra = [message.additional_kwargs.get("refusal"), at(audio, ("transcript",)), _parsed(message, text)]
    return Answer("\n".join(part for part in (text, *beside, *extra) if isinstance(part, str) and part), tuple(calls))


def _parsed(message: BaseMessage, text: str) -> str | None:
    """What a provider's package read out of the answer, where the text itself does not say the same."""
    parsed = message.additional_kwargs.get("parsed")
    if parsed is None:
        return None
    value = parsed.model_dump(mode="json") if isinstance(parsed, BaseModel) else parsed
    try:
        same = json.loads(text) == value
    except ValueError:
        same = False
    return None if same else _json(value)


def _walk(content: object, known: set[object]) -> Iterator[tuple[str, str | ToolCall]]:
    """The texts and calls of a message's content, in order; each with ``text`` or ``beside``."""
    if isinstance(content, str):
        yield "text", content
    elif isinstance(content, Mapping):
        yield from _block(content, known)
    elif isinstance(content, Sequence) and not isinstance(content, bytes | bytearray):
        for one in content:
            yield from _walk(one, known)


def _block(block: Mapping[str, Any], known: set[object]) -> Iterator[tuple[str, str | ToolCall]]:
    declared = str(block.get("type") or "")
    kind = declared or next((key for key in (*CALLS, *THOUGHTS, *ASIDE) if key in block), "")
    text = block.get(TEXTS.get(declared, "" if declared else "text"))
    if isinstance(text, str):
        yield "text", text
    if kind in CALLS:
        if not _is_listed(block, kind, known):
            yield "beside", _call(kind, at(block, (kind,)) or block)
    elif isinstance(text, str) or kind in THOUGHTS or kind in ASIDE or kind.endswith(RETURNED):
        return
    elif kind.endswith(OWN_TOOLS) and kind != "image_generation_call":
        yield "beside", _call(kind, block)
    elif kind not in MEDIA_TYPES:
        yield from _unknown(block, kind, known)


def _unknown(block: Mapping[str, Any], kind: str, known: set[object]) -> Iterator[tuple[str, str | ToolCall]]:
    """A text file by its text, a block of blocks by these; what else it holds counts by its JSON."""
    payloads = [slot.payload for slot in SLOTS if holds(block, slot)]
    if payloads:
        yield from (("beside", part) for part in _file(block, kind))
        if kind in FILES:
            return
    steps = [step for step in CONTAINERS if isinstance(at(block, step), str | Mapping | list | tuple)]
    for step in steps:
        yield from _walk(at(block, step), known)
    heads = {path[0] for path in (*steps, *payloads)}
    rest = {key: value for key, value in block.items() if key not in FRAME and key not in heads}
    if rest:
        yield "beside", _json(rest)


def _is_listed(block: Mapping[str, Any], kind: str, known: set[object]) -> bool:
    """Whether the message's own ``tool_calls`` say the same."""
    ids = {at(block, path) for key in IDS for path in ((key,), (kind, key))} - {None}
    # A part of a streamed call has no id of its own: its call stands before it.
    return bool(ids & known) if ids else bool(known)


def _call(kind: str, block: Mapping[str, Any]) -> ToolCall:
    given = next((block[key] for key in ("args", "input", "arguments") if isinstance(block.get(key), Mapping)), None)
    if given is None:
        given = {key: value for key, value in block.items() if key not in FRAME and not key.startswith(TOLD)}
    return ToolCall(str(block.get("name") or kind), given)


def _file(block: Mapping[str, Any], kind: str) -> list[str]:
    """The text of a text file; nothing of a picture, a clip or another file that the model made."""
    if kind == "image_generation_call":
        return []
    found = list(pieces(block, MediaLimits(), own=True))
    if any(piece.broken for piece in found):
        raise MediaError(f"the answer holds a {kind[:40] or 'block'} that cannot be read, so that it cannot be judged")
    return [piece.part for piece in found if isinstance(piece.part, str)]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
