"""What the LLMs of a running query received and said, by LlamaIndex's instrumentation, which observes only."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index_instrumentation import get_dispatcher

from llama_index_smoothguard.answers import answer_of

PART = 1 / 3
"""Of an answer's words, what the calls must have said for it to be theirs: LlamaIndex's ``accumulate`` puts two words
and a number before each."""
LEAST = 3
"""Words of a call that count towards `PART`, at least: fewer ("yes", "2") stand in answers of any origin."""
JOINED = re.compile(r"(?:^|\n-+\n)Response \d+: ")
"""What ``accumulate`` puts before each answer."""


@dataclass(slots=True)
class Call:
    """One call of an LLM; what it said is filled in when it ends."""

    asked: Sequence[ChatMessage] | str
    """A chat's messages; a completion's text."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The call's other arguments, read when the answer is judged: LlamaIndex swallows what a handler raises."""
    said: str | None = None
    """The text that the engine got."""
    beside: tuple[str, ...] = ()
    """What else it got: texts in other blocks, and the tool calls' arguments, which a structured answer is made of."""


_SINK: ContextVar[list[Call] | None] = ContextVar("smoothguard_sink", default=None)

_SAMPLING: ContextVar[bool] = ContextVar("smoothguard_sampling", default=False)


class _Capture(BaseEventHandler):
    """Appends to the list of the query that is running in this context; contexts copied below share the list."""

    @classmethod
    def class_name(cls) -> str:
        return "SmoothGuardCapture"

    def handle(self, event: Any, **kwargs: Any) -> None:  # noqa: ARG002 - LlamaIndex's interface
        sink = _SINK.get()
        if sink is None:
            return
        match event:
            case LLMChatStartEvent():
                sink.append(Call(tuple(event.messages), event.additional_kwargs))
            case LLMCompletionStartEvent():
                sink.append(Call(event.prompt, event.additional_kwargs))
            case LLMChatEndEvent() if event.response is not None:
                _end(sink, event.messages, event.response.message.content, event.response.message)
            case LLMCompletionEndEvent():
                _end(sink, event.prompt, event.response.text)


def _end(
    sink: list[Call], asked: Sequence[ChatMessage] | str, said: str | None, message: ChatMessage | None = None
) -> None:
    call = next((one for one in reversed(sink) if one.said is None and _is_of(one, asked)), None)
    if call is None:
        return
    call.said = said or ""
    if message is not None:
        answer = answer_of(message)
        call.beside = (answer.text, *(json.dumps(one.arguments, default=str) for one in answer.tool_calls))


def _is_of(call: Call, asked: Sequence[ChatMessage] | str) -> bool:
    if isinstance(asked, str) or isinstance(call.asked, str):
        return call.asked == asked
    return len(call.asked) == len(asked) and all(map(_same, call.asked, asked))


def _same(one: ChatMessage, other: ChatMessage) -> bool:
    """A chat's end names the very messages of its start, or equal ones where they are text."""
    plain = all(isinstance(block, TextBlock) for block in (*one.blocks, *other.blocks))
    return one is other or (plain and one.role == other.role and one.content == other.content)


_lock = threading.Lock()
_installed: list[_Capture] = []


def install() -> None:
    """Add the handler to the process's root dispatcher; once."""
    with _lock:
        if not _installed:
            _installed.append(_Capture())
            get_dispatcher().add_event_handler(_installed[0])


@contextmanager
def captured() -> Iterator[list[Call]]:
    """The LLM calls made inside the block, in every thread and task that copies its context."""
    calls: list[Call] = []
    around = _SINK.get()
    token = _SINK.set(calls)
    try:
        yield calls
    finally:
        _SINK.reset(token)
        if around is not None:  # a guarded engine inside a guarded engine: the outer one sees these calls too
            around.extend(calls)


def replaced_by(asked: str, said: str) -> None:
    """Tell a guarded engine around this one of an answer that no LLM gave: the policy's, or the majority's."""
    sink = _SINK.get()
    if sink is not None:
        sink.insert(0, Call(asked, said="", beside=(said,)))  # the last stays the call that had the context


def account_for(calls: Sequence[Call], text: str) -> bool:
    """Whether the calls gave the words of `text`: it stands in what one said, or a good part of it is what they said.

    Engines parse, trim and join what their LLMs say. An answer that is in no call's words came from elsewhere. Of
    JSON the values are compared, not the keys. A whole value, and a whole answer among
    accumulated ones, counts however short it is.
    """
    values = _values(text)
    answer = "".join(map(_words, values or [text]))
    if not answer:
        return bool(calls)
    told = [one for call in calls for one in (call.said or "", *call.beside)]
    said = set(filter(None, (_words(part) for one in told for part in (one, *_values(_json_in(one))))))
    whole = set(map(_words, values or JOINED.split(text)))
    counting = [one for one in said if len(one.split()) >= LEAST or one in whole]
    share = sum(answer.count(one) * len(one.split()) for one in counting) / len(answer.split())
    return share >= PART or any(answer in one for one in said)


def _json_in(text: str) -> str:
    """Where JSON may stand between words: from the first bracket that opens to the last that closes."""
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=len(text))
    return text[start : max(text.rfind("}"), text.rfind("]")) + 1]


def _values(text: str) -> list[str]:
    """The values of a text that is JSON; of any other none."""
    try:
        left = [json.loads(text)] if text.strip()[:1] in ("{", "[") else []
    except (ValueError, RecursionError):
        return []
    values = []
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left += reversed(value.values() if isinstance(value, dict) else value)
        else:
            values.append(str(value))
    return values


def _words(text: str) -> str:
    """The words of a text, each between two blanks of its own."""
    return "".join(f" {word} " for word in re.findall(r"\w+", text.casefold()))


def unseen() -> Context:
    """A copy of this context for the guard's own samples: no query captures them, and no handler judges them."""
    context = copy_context()
    context.run(_SINK.set, None)
    context.run(_SAMPLING.set, True)  # noqa: FBT003 - a context variable's value
    return context


def is_sampling() -> bool:
    """Whether this is one of the guard's own samples."""
    return _SAMPLING.get()
