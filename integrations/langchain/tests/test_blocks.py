"""Every dialect of media: resolved and written back as it came, or refused by name."""

import base64

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_smoothguard import UnresolvableMediaError
from langchain_smoothguard.messages import read
from sg_guardrails import Audio, Image, MediaError, MediaLimits, Message, Prompt
from sg_guardrails.testing import fake_audio, fake_image

PICTURE, CLIP = fake_image((1.0, 0.0, 0.0), size=4), fake_audio()
PNG, WAV = PICTURE.to_png(), CLIP.to_wav()
P, W = base64.b64encode(PNG).decode(), base64.b64encode(WAV).decode()
PURI, WURI = f"data:image/png;base64,{P}", f"data:audio/wav;base64,{W}"

IMAGES = {
    "v1 base64": {"type": "image", "base64": P, "mime_type": "image/png"},
    "v1 base64, no mime": {"type": "image", "base64": P},
    "v1 data uri": {"type": "image", "url": PURI},
    "v0 base64": {"type": "image", "source_type": "base64", "data": P, "mime_type": "image/png"},
    "v0 data uri": {"type": "image", "source_type": "url", "url": PURI},
    "openai dict": {"type": "image_url", "image_url": {"url": PURI, "detail": "high"}},
    "openai upper-case scheme": {"type": "image_url", "image_url": {"url": f"DATA:image/png;base64,{P}"}},
    "bare string": {"type": "image_url", "image_url": PURI},
    "bare base64 (ollama)": {"type": "image_url", "image_url": P},
    "responses input_image": {"type": "input_image", "image_url": PURI, "detail": "auto"},
    "responses generated image": {"type": "image_generation_call", "id": "ig_1", "result": P},
    "gemini media": {"type": "media", "mime_type": "image/png", "data": P},
    "gemini media bytes": {"type": "media", "mime_type": "image/png", "data": PNG},
    "gemini part": {"inline_data": {"mime_type": "image/png", "data": P}},
    "gemini part, camel case": {"inlineData": {"mimeType": "image/png", "data": P}},
    "anthropic base64": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": P}},
    "anthropic data uri": {"type": "image", "source": {"type": "url", "url": PURI}},
    "converse": {"image": {"format": "png", "source": {"bytes": PNG}}},
    "v1 file": {"type": "file", "base64": P, "mime_type": "image/png"},
    "openai file": {"type": "file", "file": {"filename": "a.png", "file_data": PURI}},
    "responses input_file": {"type": "input_file", "filename": "a.png", "file_data": PURI},
    "hugging face PIL": {"type": "image", "image": PICTURE.to_pil()},
    "hugging face data uri": {"type": "image", "image": PURI},
    "non_standard": {"type": "non_standard", "value": {"type": "image_url", "image_url": PURI}},
    "anthropic tool_result": {"type": "tool_result", "content": [{"type": "image", "source": {"data": P}}]},
    "converse toolResult": {"toolResult": {"content": [{"image": {"format": "png", "source": {"bytes": PNG}}}]}},
    "computer use": {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": PURI}},
}
AUDIOS = {
    "v1 base64": {"type": "audio", "base64": W, "mime_type": "audio/wav"},
    "v1 data uri": {"type": "audio", "url": WURI},
    "v0 base64": {"type": "audio", "source_type": "base64", "data": W, "mime_type": "audio/wav"},
    "openai input_audio": {"type": "input_audio", "input_audio": {"data": W, "format": "wav"}},
    "vllm audio_url": {"type": "audio_url", "audio_url": {"url": WURI}},
    "gemini media": {"type": "media", "mime_type": "audio/wav", "data": W},
    "converse": {"audio": {"format": "wav", "source": {"bytes": WAV}}},
    "v1 file": {"type": "file", "base64": W, "mime_type": "audio/wav"},
    "hugging face dict": {"type": "audio", "audio": {"array": CLIP.wave, "sampling_rate": 16_000}},
}
UNRESOLVABLE = {
    "v1 url": {"type": "image", "url": "https://example.test/a.png"},
    "v1 file_id": {"type": "image", "file_id": "file-1"},
    "v0 url": {"type": "image", "source_type": "url", "url": "http://example.test/a.png"},
    "v0 id": {"type": "image", "source_type": "id", "id": "f1"},
    "openai url": {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}},
    "openai bare url": {"type": "image_url", "image_url": "https://example.test/a.png"},
    "file url": {"type": "image_url", "image_url": {"url": "file:///etc/hostname"}},
    "responses file_id": {"type": "input_image", "file_id": "file-1"},
    "openai file id": {"type": "file", "file": {"file_id": "f"}},
    "anthropic url": {"type": "image", "source": {"type": "url", "url": "https://example.test/a.png"}},
    "anthropic file": {"type": "image", "source": {"type": "file", "file_id": "f1"}},
    "gemini uri": {"type": "media", "mime_type": "audio/wav", "file_uri": "gs://bucket/a.wav"},
    "converse s3": {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}},
    "v1 audio url": {"type": "audio", "url": "https://example.test/a.wav"},
    "video": {"type": "video", "base64": "AAAA", "mime_type": "video/mp4"},
    "video_url": {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    "pdf": {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf"},
    "anthropic pdf": {"type": "document", "source": {"media_type": "application/pdf", "data": "JVBERi0="}},
    "converse pdf": {"document": {"format": "pdf", "name": "a", "source": {"bytes": b"%PDF-"}}},
    "hugging face path": {"type": "audio", "audio": "/etc/hostname.wav"},
    "hugging face image path": {"type": "image", "path": "a.png"},
    "hugging face array": {"type": "image", "image": np.zeros((4, 4, 3))},
    "no payload": {"type": "image"},
    "empty payload": {"type": "image", "base64": ""},
    "unknown block": {"type": "hologram", "beam": P},
    "two payloads": {"type": "image", "base64": P, "url": "https://example.test/other.png"},
    "two inline payloads": {"type": "image_url", "image_url": PURI, "base64": P},
    "a list for a block": {"type": "non_standard", "value": {"type": "image_url", "image_url": 7}},
}
BROKEN = {
    "not base64": {"type": "image", "base64": "!!!", "mime_type": "image/png"},
    "not a picture": {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
    "a clip that says image": {"type": "image", "base64": W, "mime_type": "image/png"},
    "a picture that says audio": {"type": "input_audio", "input_audio": {"data": P, "format": "wav"}},
    "mp3": {"type": "audio", "base64": base64.b64encode(b"ID3\x04" + bytes(64)).decode(), "mime_type": "audio/mpeg"},
}
SILENT = [
    {"type": "reasoning", "reasoning": "hm"},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "tool_use", "id": "1", "name": "f", "input": {"url": "https://example.test"}},
    {"cachePoint": {"type": "default"}},
]


def parts(message, **settings):
    return read([message], limits=MediaLimits(), **settings).prompt.messages[0].parts


@pytest.mark.parametrize("kind", [HumanMessage, SystemMessage, AIMessage, "tool"])
@pytest.mark.parametrize("name", IMAGES)
def test_a_picture_is_seen_in_every_dialect_and_role(name, kind):
    content = [{"type": "text", "text": "before"}, IMAGES[name], "after"]
    message = ToolMessage(content, tool_call_id="1") if kind == "tool" else kind(content)
    before, picture, after = parts(message)
    assert (before, after) == ("before", "after")
    assert isinstance(picture, Image)
    assert picture.digest == PICTURE.digest


@pytest.mark.parametrize("name", AUDIOS)
def test_a_clip_is_heard_in_every_dialect(name):
    (clip,) = parts(HumanMessage([AUDIOS[name]]))
    assert isinstance(clip, Audio)
    assert clip.rate == 16_000
    np.testing.assert_allclose(clip.wave, CLIP.wave, atol=1e-4)


@pytest.mark.parametrize(("name", "block"), [*IMAGES.items(), *AUDIOS.items()])
def test_a_perturbed_medium_goes_back_in_its_dialect(name, block):
    other = fake_image((0.0, 0.0, 1.0), size=4) if name in IMAGES and IMAGES[name] is block else fake_audio(880)
    message = HumanMessage(["look", block], id="h1", name="me")
    reading = read([SystemMessage("be brief"), message], limits=MediaLimits())
    system, changed = reading.with_media(Prompt((Message("user", (other,)),)))
    assert system is reading.messages[0]
    assert (changed.id, changed.name, changed.type) == ("h1", "me", "human")
    assert read([message], limits=MediaLimits()).prompt.media[0].digest == reading.prompt.media[0].digest
    (again,) = read([changed], limits=MediaLimits()).prompt.media
    assert type(again) is type(other)
    if isinstance(other, Image):
        assert again.digest == other.digest
    else:
        np.testing.assert_allclose(again.wave, other.wave, atol=1e-4)
    assert shape(changed.content[1]) == shape(block)


def shape(block):
    """Keys and kinds of values, all the way down."""
    if isinstance(block, dict):
        return {key: shape(value) for key, value in block.items()}
    if isinstance(block, list):
        return [shape(item) for item in block]
    uri = isinstance(block, str) and block[:5].lower() == "data:"
    return "data: URI" if uri else type(block).__name__


def test_the_media_type_is_rewritten_with_the_payload():
    jpeg = {"type": "image", "base64": P, "mime_type": "image/jpeg"}
    short = {"image": {"format": "jpeg", "source": {"bytes": PNG}}}
    reading = read([HumanMessage([jpeg, short])], limits=MediaLimits())
    first, second = reading.with_media(reading.prompt)[0].content
    assert first["mime_type"] == "image/png"
    assert second["image"]["format"] == "png"


@pytest.mark.parametrize("name", UNRESOLVABLE)
def test_what_cannot_be_seen_is_refused_by_name(name, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("something was fetched"))
    with pytest.raises(UnresolvableMediaError, match="message 0, "):
        parts(HumanMessage([{"type": "text", "text": "look"}, UNRESOLVABLE[name]]))


@pytest.mark.parametrize("name", UNRESOLVABLE)
def test_what_cannot_be_seen_is_left_out_only_where_asked(name):
    assert parts(HumanMessage(["look", UNRESOLVABLE[name], IMAGES["v1 base64"]]), unresolvable="pass")[0] == "look"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_medium_is_an_error_even_where_unresolvable_ones_pass(name):
    with pytest.raises(MediaError, match="cannot be judged") as caught:
        parts(HumanMessage([BROKEN[name]]), unresolvable="pass")
    assert not isinstance(caught.value, UnresolvableMediaError)


def test_the_refusal_names_neither_payload_nor_address():
    with pytest.raises(UnresolvableMediaError) as caught:
        parts(HumanMessage([UNRESOLVABLE["openai url"], UNRESOLVABLE["unknown block"]]))
    assert "image_url" in str(caught.value)
    assert "hologram" in str(caught.value)
    assert "example.test" not in str(caught.value)
    assert P not in str(caught.value)


def test_limits_hold_before_decoding():
    with pytest.raises(MediaError, match="pixels"):
        read([HumanMessage([IMAGES["v1 base64"]])], limits=MediaLimits(max_pixels=15))


@pytest.mark.parametrize("block", SILENT)
def test_what_a_model_did_itself_is_no_medium(block):
    assert parts(AIMessage(["so", block])) == ("so",)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": "hello", "annotations": [{"type": "citation", "url": "https://example.test"}]},
        {"text": "hello"},
        {"type": "text-plain", "text": "hello", "mime_type": "text/plain"},
        {"type": "output_text", "text": "hello"},
        {"type": "refusal", "refusal": "hello"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}},
        {"type": "file", "base64": base64.b64encode(b"hello").decode(), "mime_type": "text/plain"},
        {"type": "search_result", "source": "https://example.test", "content": [{"type": "text", "text": "hello"}]},
    ],
)
def test_text_blocks_are_text(block):
    assert parts(HumanMessage([block])) == ("hello",)


@pytest.mark.parametrize("wrapped", ["content", "text block"])
def test_media_that_a_tool_node_stringified_are_found_and_put_back(kit, wrapped):
    dumped = kit.dumps([{"type": "text", "text": "heard"}, AUDIOS["v1 base64"]])
    content = dumped if wrapped == "content" else [{"type": "text", "text": dumped}]
    message = ToolMessage(content, tool_call_id="1")
    text, clip = parts(message)
    assert text == "heard"
    assert isinstance(clip, Audio)
    reading = read([message], limits=MediaLimits())
    other = fake_audio(880)
    changed = reading.with_media(Prompt((Message("tool", (other,)),)))
    again = parts(changed[0])[1]
    assert type(changed[0].content) is type(content)
    np.testing.assert_allclose(again.wave, other.wave, atol=1e-4)


@pytest.mark.parametrize("text", ['{"temperature": 21}', '[{"type": "text", "text": "x"}]', "[not json", '["a"]'])
def test_a_tools_ordinary_json_stays_text(text):
    assert parts(ToolMessage(text, tool_call_id="1")) == (text,)


def test_json_that_a_user_types_stays_text(kit):
    dumped = kit.dumps([IMAGES["v1 base64"]])
    assert parts(HumanMessage(dumped)) == (dumped,)
