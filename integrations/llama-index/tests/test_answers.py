"""What is judged of an answer: every part of it that a user may read."""

import base64
import io
from types import SimpleNamespace

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    BaseContentBlock,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.callbacks import llm_chat_callback

from llama_index_smoothguard import SmoothGuardCallbackHandler, SmoothGuardLLM
from llama_index_smoothguard.answers import answer_of
from sg_guardrails import Answer, ToolCall, UnsafeOutputError

UNSAFE = {"name": "UNSAFE", "arguments": "{}"}


class Strange(BaseContentBlock):
    """A block that a later LlamaIndex, or an adapter, may bring."""

    block_type: str = "strange"
    said: str = "UNSAFE"


def citation(text="UNSAFE", **labels):
    return CitationBlock(cited_content=text, **{"source": "s", "title": "t", **labels}, additional_location_info={})


def document(data=b"UNSAFE", kind="text/plain", **labels):
    return DocumentBlock(data=data, document_mimetype=kind, **labels)


def message(*blocks, beside=None):
    made = ChatMessage(role="assistant", blocks=[TextBlock(text="ok")], additional_kwargs=beside or {})
    made.blocks = [*made.blocks, *blocks]  # past the constructor, which takes no strange block
    return made


TOLD = {
    "text": lambda: message(TextBlock(text="UNSAFE")),
    "citable": lambda: message(CitableBlock(title="t", source="s", content="UNSAFE")),
    "a citable's title": lambda: message(CitableBlock(title="UNSAFE", source="s", content=[])),
    "a document in a citable": lambda: message(CitableBlock(title="t", source="s", content=[document()])),
    "text document": lambda: message(document()),
    "a text document as a stream": lambda: message(document(io.BytesIO(b"UNSAFE"))),
    "a document without a label": lambda: message(DocumentBlock.model_construct(data=base64.b64encode(b"UNSAFE"))),
    "JSON document": lambda: message(document(b'{"k": "UNSAFE"}', "application/json")),
    "a document's title": lambda: message(document(b"%PDF-1.4", "application/pdf", title="UNSAFE")),
    "unknown block": lambda: message(Strange()),
    "no block at all": lambda: message("UNSAFE"),
    "refusal": lambda: message(beside={"refusal": "UNSAFE"}),
    "function_call": lambda: message(beside={"function_call": UNSAFE}),
    "tool_calls": lambda: message(beside={"tool_calls": [{"function": UNSAFE}]}),
    "another call than the blocks'": lambda: message(
        ToolCallBlock(tool_name="f", tool_kwargs={}), beside={"tool_calls": [{"function": UNSAFE}]}
    ),
}
UNTOLD = {
    "quotation": lambda: message(citation()),
    "a quotation's source": lambda: message(citation("fine", source="UNSAFE", title="UNSAFE")),
    "picture": lambda: message(ImageBlock(image=b"UNSAFE")),
    "sound": lambda: message(AudioBlock(audio=b"UNSAFE")),
    "thinking": lambda: message(ThinkingBlock(content="UNSAFE")),
    "another document": lambda: message(document(b"%PDF UNSAFE", "application/pdf")),
    "a document that is no text": lambda: message(document(b"UNSAFE\0")),
    "a document that is not here": lambda: message(DocumentBlock(url="https://example.test/UNSAFE")),
}


@pytest.fixture
def speaker(kit):
    class Speaker(kit.LLM):
        """Says one message in all chat forms."""

        message: object

        def _response(self):
            return ChatResponse(message=self.message, delta="")

        @llm_chat_callback()
        def chat(self, messages, **kwargs):
            return self._response()

        @llm_chat_callback()
        async def achat(self, messages, **kwargs):
            return self._response()

        @llm_chat_callback()
        def stream_chat(self, messages, **kwargs):
            return (self._response() for _ in range(1))

        @llm_chat_callback()
        async def astream_chat(self, messages, **kwargs):
            async def chunks():
                yield self._response()

            return chunks()

    return Speaker


async def talked(llm, form):
    asked = [ChatMessage("hello")]
    if form == "stream_chat":
        return list(llm.stream_chat(asked))[-1]
    if form == "astream_chat":
        return [chunk async for chunk in await llm.astream_chat(asked)][-1]
    return await llm.achat(asked) if form == "achat" else llm.chat(asked)


@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("name", TOLD)
async def test_what_a_user_may_read_is_judged(kit, speaker, form, name):
    llm = SmoothGuardLLM(llm=speaker(message=TOLD[name]()), guard=kit.make_guard())
    said = await talked(llm, form)
    assert said.message.content == "[blocked]"
    assert "UNSAFE" not in repr(said)


@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("name", ["citable", "function_call"])
async def test_a_callback_judges_it_too(kit, speaker, form, name):
    handler = SmoothGuardCallbackHandler(guard=kit.make_guard())
    llm = speaker(message=TOLD[name](), callback_manager=CallbackManager([handler]))
    with pytest.raises(UnsafeOutputError):
        await talked(llm, form)


@pytest.mark.parametrize("name", UNTOLD)
def test_what_is_left_out(name):
    assert answer_of(UNTOLD[name]()) == Answer("ok")


def test_a_quotation_does_not_contradict_the_answer_that_quotes(kit, speaker):
    quoting = message(citation("The number is 9.", title="The number is 12."))
    quoting.blocks[0].text = "The number is 5."
    said = SmoothGuardLLM(llm=speaker(message=quoting), guard=kit.make_guard()).chat(kit.picture(5))
    assert said.message is quoting, "handed on as it is"


FORMS = {
    "block": ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="f", tool_kwargs={"x": 1})]),
    "a block's JSON": ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="f", tool_kwargs='{"x": 1}')]),
    "tool_calls": {"tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}, "id": "1"}]},
    "function_call": {"function_call": {"name": "f", "arguments": '{"x": 1}'}},
    "a client's object": {
        "function_call": SimpleNamespace(model_dump=lambda: {"name": "f", "arguments": '{"x": 1}'}),
    },
    "both": {
        "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
        "function_call": {"name": "f", "arguments": '{"x": 1}'},
    },
    "both, beside a block": ChatMessage(
        role="assistant",
        blocks=[ToolCallBlock(tool_name="f", tool_kwargs={"x": 1})],
        additional_kwargs={"tool_calls": [{"function": {"name": "f", "arguments": ""}}]},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_tool_call_is_judged_once_in_all_forms(name):
    given = FORMS[name]
    said = given if isinstance(given, ChatMessage) else ChatMessage(role="assistant", additional_kwargs=given)
    assert answer_of(said).tool_calls == (ToolCall("f", {"x": 1}),)


def test_arguments_that_are_no_json_are_judged_as_text():
    said = ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="f", tool_kwargs="{UNSAFE")])
    assert answer_of(said).tool_calls == (ToolCall("f", {"unparsed": "{UNSAFE"}),)
