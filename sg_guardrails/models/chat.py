"""Messages become the string that a model's own chat template makes of them; generated text becomes an Answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from jinja2 import TemplateError

from sg_guardrails.core.errors import ModelError
from sg_guardrails.core.media import Audio, Image
from sg_guardrails.core.types import Answer, Message, Prompt, ToolCall

Turn = dict[str, Any]
"""One message as chat templates take it: ``role`` and ``content``, a string or a list of parts."""
PLACEHOLDERS = {"image": ("image_token", "boi_token"), "audio": ("audio_token",)}
"""Where processors name the token that stands for a medium, for templates that take strings alone."""
_PRINTED = "{'type': '"
_FENCE = re.compile(
    r"<tool_call>\s*(?P<tag>.*?)\s*(?:</tool_call>)?|```(?:json)?[ \t]*\n(?P<block>.*?)\s*```", re.DOTALL
)


def render(processor: Any, prompt: Prompt) -> str:
    """The prompt as the processor's chat template writes it, ready for the answer.

    Templates differ: some take only strings, some know no tool or system role, or no picture from a tool, and say so
    by an error or by silently leaving it out. So the spellings are tried from the richest to the plainest, and one
    counts only if everything that the model is told and shown stands in the result.

    Raises:
        ModelError: If the processor has no chat template or no spelling gets every text through.
    """
    messages = _without_control_tokens(processor, prompt.messages)
    fallback, reason = None, None
    for turns in _spellings(processor, messages):
        try:
            text: str = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = error
            continue
        if _says(text, messages):
            if _shows(text, processor, messages):
                return text
            fallback = fallback or text  # a processor may call its placeholders by other names than we know
    if fallback is not None:
        return fallback
    raise ModelError(
        "the model's chat template cannot say this conversation: it has none, or it leaves out a role; "
        "use a checkpoint with a chat template (usually the one named -Instruct, -Chat or -it)"
    ) from reason


def _says(text: str, messages: Sequence[Message]) -> bool:
    """Whether every text got through, and as text: templates for strings alone print a list as Python does."""
    # A model's own earlier turns may be missing: some templates strip its thinking on purpose.
    told = [part.strip() for m in messages if m.role != "assistant" for part in m.parts if isinstance(part, str)]
    printed = sum(part.count(_PRINTED) for m in messages for part in m.parts if isinstance(part, str))
    return all(part in text for part in told) and text.count(_PRINTED) <= printed


def _shows(text: str, processor: Any, messages: Sequence[Message]) -> bool:
    """Whether every picture and clip has its placeholder."""
    media = [part for message in messages for part in message.parts if not isinstance(part, str)]
    wanted = Counter(_placeholder(processor, part) for part in media)
    return all(text.count(token) >= count for token, count in wanted.items())


def read_answer(text: str) -> Answer:
    """An Answer from generated text; `text` stays as it is, tool calls are read beside it.

    Only where the whole answer is a call, or a list of calls, does it count as one: a JSON object ``{"name": ...,
    "arguments" | "parameters": {...}}``, bare or inside one ``<tool_call>`` or code fence.
    """
    body = text.strip()
    if fenced := _FENCE.fullmatch(body):
        body = fenced["tag"] if fenced["tag"] is not None else fenced["block"]
    if not body.startswith(("{", "[")):
        return Answer(text)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return Answer(text)
    items = value if isinstance(value, list) else [value]
    calls = [call for item in items if (call := _tool_call(item)) is not None]
    return Answer(text, tuple(calls)) if len(calls) == len(items) else Answer(text)


def _tool_call(value: object) -> ToolCall | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments", value.get("parameters"))
    extra = value.keys() - {"name", "arguments", "parameters", "id", "type"}
    return ToolCall(value["name"], arguments) if isinstance(arguments, Mapping) and not extra else None


def _spellings(processor: Any, messages: Iterable[Message]) -> Iterator[list[Turn]]:
    """The conversation as templates may want it, the richest first."""
    turns = list(messages)
    plainer = list(_joined(Message("user", m.parts) if m.role == "tool" else m for m in turns))
    plainest = list(_joined(Message("user", m.parts) if m.role == "system" else m for m in plainer))
    for conversation in (turns, plainer, plainest):
        yield [_turn(message) for message in conversation]
        yield [_string_turn(processor, message) for message in conversation]


def _turn(message: Message) -> Turn:
    def part(value: object) -> Turn:
        return {"type": "text", "text": value} if isinstance(value, str) else {"type": _medium(value)}

    return {"role": message.role, "content": [part(value) for value in message.parts]}


def _string_turn(processor: Any, message: Message) -> Turn:
    parts = (part if isinstance(part, str) else _placeholder(processor, part) for part in message.parts)
    return {"role": message.role, "content": "\n".join(parts)}


def _placeholder(processor: Any, value: Image | Audio) -> str:
    names = PLACEHOLDERS[_medium(value)]
    return next((str(token) for name in names if (token := getattr(processor, name, None))), "")


def _medium(value: object) -> str:
    return "image" if isinstance(value, Image) else "audio"


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    """Neighbours of one role as one turn: templates that know user and assistant alone want them to alternate."""
    for role, group in groupby(messages, key=lambda message: message.role):
        yield Message(role, tuple(part for message in group for part in message.parts))


def _without_control_tokens(processor: Any, messages: Iterable[Message]) -> list[Message]:
    """Break up the model's control tokens in what people and tools wrote.

    A retrieved text that holds ``<|im_end|>`` or ``<image>`` must not close a turn or claim a picture's place.
    """
    added = processor.tokenizer.added_tokens_decoder.values()
    tokens = sorted((str(t.content) for t in added if t.special and len(t.content) > 2), key=len, reverse=True)
    if not tokens:
        return list(messages)
    control = re.compile("|".join(map(re.escape, tokens)))

    def plain(part: str | Image | Audio) -> str | Image | Audio:
        return control.sub(lambda m: f"{m[0][0]} {m[0][1:]}", part) if isinstance(part, str) else part

    return [Message(m.role, tuple(plain(part) for part in m.parts)) for m in messages]
