"""Every word of an answer is judged, in whatever block a provider puts it."""

import base64
import json

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from pydantic import BaseModel

from langchain_smoothguard.answers import answer_of
from sg_guardrails import MediaError

TEXT = {"type": "text", "text": "ok"}


def b64(text):
    return base64.b64encode(text.encode()).decode()


class Parsed(BaseModel):
    note: str


WORDS = {
    "a bare string": ["UNSAFE"],
    "a text over two blocks": [{"type": "text", "text": "UN"}, {"type": "output_text", "text": "SAFE"}],
    "a text that is an object": [{"type": "text", "text": {"value": "UNSAFE"}}],
    "a text of no type": [{"text": "UNSAFE"}],
    "a text of no type beside a call": [{"text": "UNSAFE", "toolUse": {"toolUseId": "1", "name": "f", "input": {}}}],
    "a refusal": [{"type": "refusal", "refusal": "UNSAFE"}],
    "plain text": [{"type": "text-plain", "text": "UNSAFE"}],
    "non_standard": [{"type": "non_standard", "value": {"text": "UNSAFE"}}],
    "non_standard in non_standard": [
        {"type": "non_standard", "value": {"type": "non_standard", "value": {"type": "x", "note": "UNSAFE"}}}
    ],
    "json": [{"type": "json", "json": {"a": "UNSAFE"}}],
    "a message": [
        {"type": "message", "content": [{"type": "output_text", "text": "UN"}, {"type": "output_text", "text": "SAFE"}]}
    ],
    "Converse's citations": [{"citationsContent": {"content": [{"text": "UNSAFE"}], "citations": []}}],
    "a type that nobody knows": [{"type": "hologram", "says": {"deep": ["UNSAFE"]}}],
    "beside an address": [{"type": "hologram", "url": "https://example.test", "says": "UNSAFE"}],
    "a text file": [{"type": "file", "base64": b64("UNSAFE"), "mime_type": "text/plain"}],
    "a text file as a data uri": [{"type": "file", "file": {"file_data": "data:text/plain;base64," + b64("UNSAFE")}}],
    "a plain document": [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "UNSAFE"}}
    ],
}
CALLS = {
    "executable code": {"type": "executable_code", "executable_code": "UNSAFE", "language": "PYTHON"},
    "a server's call": {"type": "server_tool_call", "id": "1", "name": "python", "args": {"code": "UNSAFE"}},
    "a server's call in part": {
        "type": "server_tool_call_chunk",
        "id": "1",
        "name": "python",
        "args": '{"code": "UNSAFE',
    },
    "anthropic's": {"type": "server_tool_use", "id": "1", "name": "python", "input": {"code": "UNSAFE"}},
    "anthropic's MCP": {"type": "mcp_tool_use", "id": "1", "name": "UNSAFE", "server_name": "s", "input": {}},
    "openai's": {"type": "code_interpreter_call", "id": "1", "code": "UNSAFE", "outputs": []},
    "openai's search": {"type": "web_search_call", "id": "1", "action": {"query": "UNSAFE"}, "status": "completed"},
    "openai's MCP": {"type": "mcp_call", "id": "1", "name": "f", "arguments": '{"x": "UNSAFE"}', "output": "fine"},
    "openai's request for approval": {"type": "mcp_approval_request", "id": "1", "name": "f", "arguments": "UNSAFE"},
    "a call that tool_calls leaves out": {"type": "tool_use", "id": "1", "name": "f", "input": {"x": "UNSAFE"}},
    "converse's that tool_calls leaves out": {"toolUse": {"toolUseId": "1", "name": "f", "input": {"x": "UNSAFE"}}},
    "a custom call": {"type": "custom_tool_call", "call_id": "1", "name": "f", "input": "UNSAFE"},
    "openai's that tool_calls leaves out": {
        "type": "function_call",
        "call_id": "1",
        "name": "f",
        "arguments": '{"x": "UNSAFE"}',
    },
}
BESIDE = {
    "parsed": {"parsed": {"a": "UNSAFE"}},
    "parsed as an object": {"parsed": Parsed(note="UNSAFE")},
    "function_call": {"function_call": {"name": "f", "arguments": "UNSAFE"}},
    "a raw call that tool_calls leaves out": {
        "tool_calls": [{"id": "2", "type": "function", "function": {"name": "f", "arguments": '{"a": "UNSAFE"}'}}]
    },
}
SPOKEN = base64.b64encode(b"RIFF....").decode()
SILENT = {
    "reasoning": [{"type": "reasoning", "reasoning": "UNSAFE"}],
    "thinking": [{"type": "thinking", "thinking": "UNSAFE", "signature": "QUJD"}],
    "converse's reasoning": [{"reasoningContent": {"reasoningText": {"text": "UNSAFE"}}}],
    "citations": [{"type": "text", "text": "", "annotations": [{"type": "citation", "title": "UNSAFE"}]}],
    "what a search returned": [{"type": "web_search_tool_result", "content": [{"title": "UNSAFE"}]}],
    "what a server offers": [{"type": "mcp_list_tools", "id": "1", "tools": [{"name": "f", "description": "UNSAFE"}]}],
    "what code printed": [{"type": "code_execution_result", "code_execution_result": "UNSAFE", "outcome": 1}],
    "a picture": [{"type": "image", "base64": "UNSAFE", "mime_type": "image/png"}],
    "a picture's address": [{"type": "image_url", "image_url": {"url": "https://example.test/UNSAFE.png"}}],
    "a generated picture": [{"type": "image_generation_call", "id": "1", "result": "UNSAFE", "revised_prompt": "x"}],
    "a cache point": [{"cachePoint": {"type": "default"}}],
}


def content(message):
    answer = answer_of(message)
    return answer.text + "".join(call.canonical for call in answer.tool_calls)


@pytest.mark.parametrize("kind", [AIMessage, AIMessageChunk])
@pytest.mark.parametrize("name", WORDS)
def test_words_are_judged(kit, name, kind):
    answer = kind("").model_copy(update={"content": WORDS[name]})
    assert "UNSAFE" in answer_of(answer).text
    said = kit.step().invoke({"messages": [HumanMessage("hello")], "output": answer})
    assert (said.content, type(said)) == ("[blocked]", kind)


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_judged(kit, name):
    answer = AIMessage("").model_copy(update={"content": [TEXT, CALLS[name]]})
    (call,) = answer_of(answer).tool_calls
    assert "UNSAFE" in call.canonical
    assert answer_of(answer).text == "ok"
    said = kit.step().invoke({"messages": [HumanMessage("hello")], "output": answer})
    assert (said.content, said.tool_calls) == ("[blocked]", [])


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_content_is_judged(kit, name):
    listed = [{"name": "g", "args": {}, "id": "1"}]
    answer = AIMessage("ok", tool_calls=listed).model_copy(update={"additional_kwargs": BESIDE[name]})
    assert "UNSAFE" in content(answer)
    assert kit.step().invoke({"messages": [HumanMessage("hello")], "output": answer}).content == "[blocked]"


@pytest.mark.parametrize("name", SILENT)
def test_what_the_readme_leaves_out_is_left_out(name):
    answer = AIMessage("").model_copy(update={"content": [TEXT, *SILENT[name]]})
    assert content(answer) == "ok"


@pytest.mark.parametrize("form", ["anthropic", "v1", "responses", "custom", "converse", "streamed"])
def test_a_call_that_the_message_lists_counts_once(form):
    block = {
        "anthropic": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}}],
        "v1": [{"type": "tool_call", "id": "c1", "name": "f", "args": {"x": 1}}],
        "responses": [{"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}],
        "custom": [{"type": "custom_tool_call", "id": "ct", "call_id": "c1", "name": "f", "input": "1"}],
        "converse": [{"toolUse": {"toolUseId": "c1", "name": "f", "input": {"x": 1}}}],
        "streamed": [
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}, "index": 0},
            {"type": "input_json_delta", "partial_json": '{"x": 1}', "index": 0},
        ],
    }[form]
    raw = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    answer = AIMessage(
        [TEXT, *block], tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c1"}], additional_kwargs={"tool_calls": raw}
    )
    assert [call.canonical for call in answer_of(answer).tool_calls] == ['["f", {"x": 1}]']
    assert answer_of(answer).text == "ok"


def test_a_function_call_that_the_message_lists_counts_once_and_another_counts_too():
    def calls(**oldest):
        listed = [{"name": "f", "args": {"x": 1, "y": 2}, "id": "c1"}]
        return answer_of(AIMessage("", tool_calls=listed, additional_kwargs={"function_call": oldest})).tool_calls

    assert [call.name for call in calls(name="f", arguments='{"y": 2, "x": 1}')] == ["f"], "as Google's package says it"
    others = ({"name": "g", "arguments": '{"x": 1, "y": 2}'}, {"name": "f", "arguments": '{"x": 1}'})
    for other in (*others, {"name": "f", "arguments": "{"}):
        assert len(calls(**other)) == 2


def test_a_parsed_answer_that_the_text_says_already_counts_once():
    said = AIMessage('{"note": "fine"}', additional_kwargs={"parsed": Parsed(note="fine")})
    assert json.loads(answer_of(said).text) == {"note": "fine"}


def test_a_text_file_that_cannot_be_read_is_an_error_and_no_silence(kit):
    answer = AIMessage([TEXT, {"type": "file", "base64": SPOKEN, "mime_type": "text/plain"}])
    with pytest.raises(MediaError, match="cannot be judged"):
        kit.step().invoke({"messages": [HumanMessage("hello")], "output": answer})


def test_a_right_answer_to_a_picture_goes_on_beside_what_is_not_judged_and_an_odd_block_does_not(kit, form):
    def said(*blocks):
        return kit.Chat(fields={}) | (
            lambda message: AIMessage([{"type": "text", "text": "The number is 7."}, *blocks])
        )

    thought = {"type": "reasoning", "reasoning": "The number is 9?"}
    right = kit.run(said(thought) | kit.step(), kit.ask(7), form)
    assert right.text == "The number is 7."
    assert "smoothguard" not in right.response_metadata
    for odd in (CALLS["a server's call"], {"type": "non_standard", "value": {"text": "UNSAFE"}}):
        withheld = kit.run(said(odd) | kit.step(), kit.ask(7), form)
        assert withheld.response_metadata["smoothguard"]["status"] in ("blocked", "rewritten")
        assert "UNSAFE" not in repr(withheld)
