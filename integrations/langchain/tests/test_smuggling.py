"""Ways round the extraction: media where a model may meet them and a careless guard would not look."""

import base64
import json

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from langchain_smoothguard import SmoothGuardRunnable, UnresolvableMediaError
from langchain_smoothguard.messages import REMOVED, read, without_unseen
from sg_guardrails import Image, MediaError, MediaLimits
from sg_guardrails.testing import fake_audio, fake_image

PICTURE = fake_image((1.0, 0.0, 0.0), size=4)
PNG, P = PICTURE.to_png(), base64.b64encode(PICTURE.to_png()).decode()
W = base64.b64encode(fake_audio().to_wav()).decode()
URI = f"data:image/png;base64,{P}"
INNER = {"type": "image_url", "image_url": {"url": URI}}

SEEN = {
    "a list in a list": [[[INNER]]],
    "a tuple in a list": [({"type": "image", "base64": P},)],
    "upper-case mime type": [{"type": "image", "base64": P, "mime_type": "IMAGE/PNG"}],
    "upper-case block type": [{"type": "IMAGE", "base64": P}],
    "upper-case scheme": [{"type": "image", "url": f"DATA:IMAGE/PNG;BASE64,{P}"}],
    "percent-encoded data uri": [{"type": "image", "url": "data:image/png;base64," + P.replace("=", "%3D")}],
    "parameters in the mime type": [{"type": "image_url", "image_url": f"data:image/png;name=a.png;base64,{P}"}],
    "url-safe alphabet": [{"type": "image", "base64": P.replace("+", "-").replace("/", "_")}],
    "line breaks": [{"type": "image", "base64": "\n".join(P[i : i + 20] for i in range(0, len(P), 20))}],
    "a type that nobody knows": [{"type": "hologram", "base64": P}],
    "no type": [{"image_url": {"url": URI}}],
    "non_standard in non_standard": [
        {"type": "non_standard", "value": {"type": "non_standard", "value": INNER}},
    ],
    "a tool result in a tool result": [
        {"type": "tool_result", "content": [{"type": "tool_result", "content": [INNER]}]}
    ],
    "MCP": [{"type": "image", "data": P, "mimeType": "image/png"}],
    "a text of no type beside a source": [{"text": "hi", "source": {"type": "base64", "data": P}}],
    "a text of no type beside a picture": [{"text": "", "inline_data": {"mime_type": "image/png", "data": P}}],
}
REFUSED = {
    "image_url in a text block": [{"type": "text", "text": "hi", "image_url": {"url": URI}}],
    "image_url as a string in a text block": [{"type": "text", "text": "hi", "image_url": URI}],
    "base64 in a text block": [{"type": "text", "text": "hi", "base64": P}],
    "a picture in a text block's content": [{"type": "text", "text": "hi", "content": [INNER]}],
    "a picture in a text block's annotations": [{"type": "text", "text": "hi", "annotations": [{"thumb": URI}]}],
    "a picture in a refusal": [{"type": "refusal", "refusal": "no", "image": P}],
    "a picture in reasoning": [{"type": "reasoning", "reasoning": "hm", "image_url": URI}],
    "a picture in a tool call": [{"type": "tool_use", "name": "f", "input": {}, "image_url": URI}],
    "a picture beside a tool call of no type": [
        {"toolUse": {"name": "f", "input": {}}, "image": {"source": {"bytes": PNG}}}
    ],
    "a picture beside a cache point": [{"cachePoint": {"type": "default"}, "inlineData": {"data": P}}],
    "a picture in json": [{"type": "json", "json": {}, "image_url": URI}],
    "a second picture in extras": [{"type": "image", "base64": P, "extras": {"image_url": URI}}],
    "a second picture in metadata": [{"type": "image", "base64": P, "metadata": {"deep": [{"preview": URI}]}}],
    "a second picture beside the url": [{"type": "image_url", "image_url": {"url": URI, "data": URI}}],
    "a second picture of other case": [{"type": "image", "base64": P, "data": P, "mime_type": "image/png"}],
    "bytes beside the payload": [{"type": "image", "base64": P, "raw": PNG}],
    "a PIL picture beside the payload": [{"type": "image", "base64": P, "raw": PICTURE.to_pil()}],
    "an array beside the payload": [{"type": "image", "base64": P, "raw": np.zeros((4, 4, 3))}],
    "a picture under an unknown key": [{"type": "image", "pixels": P}],
    "a data uri as a whole block": [{"type": "picture", "value": {"type": "picture", "src": URI}}],
    "MCP resource": [{"type": "resource", "resource": {"uri": "file:///a.png", "blob": P, "mimeType": "image/png"}}],
    "a video by its mime type": [{"type": "file", "base64": P, "mime_type": "VIDEO/MP4"}],
    "a video by its data uri": [{"type": "image", "url": f"data:video/mp4;base64,{P}", "mime_type": "image/png"}],
    "raw bytes for a block": [PNG],
    "a picture beside a tool's result": [{"type": "tool_result", "content": "ok", "images": [URI]}],
    "base64 beside a tool's result": [{"type": "tool_result", "content": [{"type": "text", "text": "ok"}], "thumb": P}],
    "a picture beside a text of no type": [{"text": "hi", "images": [URI]}],
    "bytes beside a text of no type": [{"text": "hi", "thumb": PNG}],
    "a blob beside a resource's content": [{"type": "resource", "content": "x", "resource": {"blob": P}}],
    "a picture among a call's outputs": [
        {"type": "code_interpreter_call", "output": "x", "outputs": [{"type": "image", "url": URI}]}
    ],
    "a picture's address among a call's outputs": [
        {"type": "code_interpreter_call", "output": "x", "outputs": [{"type": "image", "url": "https://e.test/a"}]}
    ],
    "a picture beside Converse's tool result": [{"toolResult": {"content": [{"text": "x"}], "images": [URI]}}],
    "a picture beside a document's content": [
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}], "cover": P}}
    ],
    "a picture beside a value": [{"type": "non_standard", "value": "x", "attachments": [{"data": P}]}],
    "base64 in a text block's source": [{"type": "text", "text": "hi", "source": {"type": "base64", "data": P}}],
    "base64 in a text of no type": [{"text": "hi", "note": P}],
    "base64 under any key of a text block": [{"type": "text", "text": "hi", "picture": P}],
    "a picture in reasoning's content": [
        {"type": "reasoning", "content": [{"type": "x", "source": {"type": "base64", "data": P}}]}
    ],
    "an address in reasoning's content": [
        {"type": "reasoning", "content": [{"type": "image", "source": {"type": "url", "url": "https://e.test/a"}}]}
    ],
    "base64 beside the payload": [{"type": "image", "base64": P, "preview": W}],
    "a text that is no text": [{"type": "text", "text": {"image_url": URI}}],
    "a number for a block": [7],
}
BROKEN = {
    "a picture labelled as text": [{"type": "image", "base64": P, "mime_type": "text/plain"}],
    "a picture in a file labelled as text": [{"type": "file", "base64": P, "mime_type": "text/plain"}],
    "a picture in a data uri beside a text label": [{"type": "image", "url": URI, "mime_type": "text/plain"}],
    "a clip in a file labelled as text": [{"type": "file", "base64": W, "mime_type": "TEXT/plain"}],
    "a picture's label on a plain document": [
        {"type": "document", "source": {"type": "text", "media_type": "image/png", "data": P}}
    ],
    "a clip's label on a plain document": [
        {"type": "document", "source": {"type": "text", "media_type": "Audio/WAV", "data": "hello"}}
    ],
    "svg": [{"type": "image", "base64": base64.b64encode(b"<svg/>").decode(), "mime_type": "image/svg+xml"}],
}
OUTSIDE = {
    "images (ollama)": {"images": [P]},
    "image_url": {"image_url": URI},
    "a block": {"attachments": [{"type": "image", "base64": P}]},
    "a generated image": {"tool_outputs": [{"type": "computer_call_output", "output": {"image_url": URI}}]},
    "bytes": {"thing": PNG},
    "PIL": {"thing": PICTURE.to_pil()},
    "a data uri": {"note": URI},
    "base64": {"attachments": [{"content": P, "mime": "image/png"}]},
    "a clip's base64": {"note": W},
}
SIGNED = base64.b64encode(bytes(range(200, 256)) * 9).decode()
BESIDE = {
    "a tool's result": {"type": "tool_result", "tool_use_id": "toolu_01", "is_error": False, "content": "ok"},
    "a cached result": {
        "type": "tool_result",
        "content": [{"type": "text", "text": "ok"}],
        "cache_control": {"ttl": 1},
    },
    "Converse's result": {"toolResult": {"content": [{"text": "ok"}], "status": "success", "toolUseId": "t1"}},
    "Gemini's thought": {"text": "ok", "thought": True, "thoughtSignature": SIGNED},
    "a text with a signature": {"type": "text", "text": "ok", "extras": {"signature": SIGNED}},
    "a cited document": {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": "ok"}]},
        "title": "/9j/ is how a JPEG in base64 begins",
        "citations": {"enabled": True},
    },
    "a plain document": {"type": "document", "source": {"type": "text", "media_type": "Text/plain", "data": "ok"}},
    "a plain document without a label": {"type": "document", "source": {"type": "text", "data": "ok"}},
    "a message": {"type": "message", "id": "msg_" + "0af" * 20, "content": [{"type": "output_text", "text": "ok"}]},
    "a search": {
        "type": "web_search_tool_result",
        "content": [{"type": "text", "text": "ok"}],
        "annotations": [{"type": "url_citation", "url": "https://example.test/a.png"}],
        "encrypted_content": SIGNED,
    },
}
HARMLESS = {
    "tool calls": {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    "a refusal": {"refusal": None},
    "reasoning": {"reasoning_content": "data: the numbers say so"},
    "a signature": {"__gemini_function_call_thought_signatures__": {"1": "QUJD"}},
    "a long signature": {"thought_signature": base64.b64encode(bytes(range(99, 256)) * 3).decode()},
    "a cache's key": {"prompt_cache_key": "0123456789abcdef" * 4, "id": "resp_" + "0af" * 20},
    "citations": {"annotations": [{"type": "url_citation", "url": "https://example.test", "title": "Data: a report"}]},
    "cache control": {"cache_control": {"type": "ephemeral"}},
}


def parts(message, **settings):
    return read([message], limits=MediaLimits(), **settings).prompt.messages[0].parts


def built(kind, content, **fields):
    """Past the constructors' own checks, as a framework's code may build it."""
    empty = ToolMessage("", tool_call_id="1") if kind is ToolMessage else kind("")
    return empty.model_copy(update={"content": content, **fields})


@pytest.mark.parametrize("name", SEEN)
def test_it_is_seen(name):
    media = [part for part in parts(built(HumanMessage, SEEN[name])) if isinstance(part, Image)]
    assert [medium.digest for medium in media] == [PICTURE.digest]


@pytest.mark.parametrize("kind", [HumanMessage, SystemMessage, AIMessage, ToolMessage])
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name_and_left_out_only_where_asked(name, kind):
    message = built(kind, REFUSED[name])
    with pytest.raises(UnresolvableMediaError, match="message 0, ") as caught:
        parts(message)
    assert P not in str(caught.value)
    assert PICTURE.digest not in [getattr(part, "digest", "") for part in parts(message, unresolvable="pass")]


MODELS_OWN = {
    "a call's input": [{"type": "tool_use", "name": "f", "input": {"image_url": URI}}],
    "a call's args": [{"type": "tool_call", "name": "f", "args": {"deep": [{"src": URI}]}}],
    "a text's parsed": [{"type": "text", "text": "hi", "parsed": {"image": P}}],
}


@pytest.mark.parametrize("name", MODELS_OWN)
def test_what_is_a_models_own_word_is_a_medium_in_anybody_elses_message(name):
    for kind in (HumanMessage, SystemMessage, ToolMessage):
        with pytest.raises(UnresolvableMediaError, match="message 0, "):
            parts(built(kind, MODELS_OWN[name]))
    parts(built(AIMessage, MODELS_OWN[name]))
    for key in ("input", "args", "parsed", "tool_calls"):
        beside = {key: {"image_url": URI}}
        with pytest.raises(UnresolvableMediaError, match="additional_kwargs"):
            parts(built(HumanMessage, "look", additional_kwargs=beside))
        parts(built(AIMessage, "look", additional_kwargs=beside))


@pytest.mark.parametrize("name", BROKEN)
def test_a_label_that_lies_is_broken_whatever_the_policy_passes(name):
    with pytest.raises(MediaError, match="cannot be judged"):
        parts(HumanMessage(BROKEN[name]), unresolvable="pass")


@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, ToolMessage])
@pytest.mark.parametrize("name", OUTSIDE)
def test_media_outside_of_the_content_are_refused_by_name(name, kind):
    message = built(kind, "look", additional_kwargs=OUTSIDE[name])
    with pytest.raises(UnresolvableMediaError, match="additional_kwargs"):
        parts(message)
    assert parts(message, unresolvable="pass") == ("look",)
    cleaned = without_unseen(message, MediaLimits())
    assert (cleaned.text, cleaned.additional_kwargs) == ("look" + REMOVED, {})


@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, ToolMessage])
@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_a_text_or_its_container_is_none_of_the_guards_business(name, kind):
    assert parts(built(kind, [BESIDE[name]])) == ("ok",)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_providers_put_beside_the_content_stays(name):
    message = AIMessage("so", additional_kwargs=HARMLESS[name])
    assert parts(message)[0] == "so"
    assert without_unseen(message, MediaLimits()) is message


def test_a_models_own_speech_in_the_history_is_no_medium():
    said = AIMessage("", additional_kwargs={"audio": {"id": "a1", "data": W, "transcript": "hi"}})
    assert parts(said) == ()
    with pytest.raises(UnresolvableMediaError, match="additional_kwargs"):
        parts(HumanMessage("", additional_kwargs={"audio": {"data": W}}))


@pytest.mark.parametrize(
    "text",
    [
        f"look: {URI}",
        f"![a]({URI})",
        f'<img src="{URI}">',
        json.dumps({"image": URI}),
    ],
)
def test_a_data_uri_in_a_text_is_a_text_to_the_model_and_to_the_guard(text):
    assert parts(HumanMessage(text)) == (text,)


TOOL_JSON = {
    "leading blanks": " \n" + json.dumps([{"type": "image", "base64": P}]),
    "untyped neighbours": json.dumps([{"text": "x"}, {"type": "image", "base64": P}]),
    "one block": json.dumps({"type": "audio", "base64": W, "mime_type": "audio/wav"}),
    "MCP result": json.dumps({"content": [{"type": "image", "data": P, "mimeType": "image/png"}]}),
    "a file": json.dumps([{"type": "file", "base64": W, "mime_type": "audio/wav"}]),
    "a file's data uri": json.dumps([{"type": "file", "file": {"file_data": URI}}]),
    "a JSON text in a JSON text": json.dumps([{"type": "image", "base64": P}, {"type": "text", "text": "x"}]),
}


@pytest.mark.parametrize("name", TOOL_JSON)
def test_stringified_media_of_a_tool_are_seen(name):
    reading = read([ToolMessage(TOOL_JSON[name], tool_call_id="1")], limits=MediaLimits())
    assert len(reading.prompt.media) == 1
    assert len(read(reading.with_media(reading.prompt), limits=MediaLimits()).prompt.media) == 1


@pytest.mark.parametrize(
    "value",
    [
        {"type": "image", "url": "https://example.test/a.png"},
        {"type": "audio", "file_id": "f1"},
        {"content": [{"type": "video", "base64": "AAAA"}]},
    ],
)
def test_stringified_media_that_cannot_be_seen_are_refused(value):
    with pytest.raises(UnresolvableMediaError):
        parts(ToolMessage(json.dumps([value]), tool_call_id="1"))


@pytest.mark.parametrize(
    "value",
    [
        {"type": "file", "path": "src/main.py"},
        {"type": "product", "url": "https://example.test/42", "image": ""},
        [{"type": "row", "data": "QUJD"}],
        {"type": "screenshot", "data": P},
        {"type": "preview", "data": P[:40] + "... (cut off)"},
        {"type": "function_result", "result": "42"},
    ],
)
def test_a_tools_ordinary_json_stays_text(value):
    text = json.dumps(value)
    assert parts(ToolMessage(text, tool_call_id="1")) == (text,)


def test_content_nested_without_end_is_an_error_and_no_crash():
    deep = [{"type": "text", "text": "x"}]
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(MediaError, match="too deep"):
        parts(built(HumanMessage, deep))


@pytest.mark.parametrize("name", REFUSED)
def test_the_step_blocks_it_before_any_model_is_asked(kit, name):
    guard = kit.make_guard("fine", on_error="allow")
    step = SmoothGuardRunnable(guard=guard, recorder="explicit")
    output = step.invoke({"messages": [built(HumanMessage, REFUSED[name])], "output": "fine"})
    assert (output, guard.sampler.asked) == ("[error]", [])


@pytest.mark.parametrize("shape", ["list", "lambda", "prompt"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_chains_guard_sees_what_the_handlers_copy_of_the_messages_leaves_out(kit, name, shape):
    """Handlers are given messages in a tracing format, in which a second picture in a block is lost."""
    content = [
        {"mime_type": "image/png", **block} if isinstance(block, dict) and "base64" in block else block
        for block in REFUSED[name]
    ]
    messages = [built(HumanMessage, content)]
    first = {
        "list": RunnablePassthrough(),
        "lambda": RunnableLambda(lambda _: messages),
        "prompt": RunnableLambda(lambda _: ChatPromptValue(messages=messages)),
    }[shape]
    chain = first | kit.Chat(reply="fine") | kit.step()
    assert chain.invoke(messages if shape == "list" else "go").text == "[error]"


def test_a_step_that_puts_bytes_in_the_place_of_an_address_is_no_smuggler(kit):
    address = [HumanMessage([{"type": "image", "url": "https://example.test/a.png"}])]
    chain = RunnableLambda(lambda messages: kit.ask(7)) | kit.Chat() | kit.step()
    assert chain.invoke(address).text == "The number is 7."
