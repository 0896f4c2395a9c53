"""Every block of LlamaIndex: seen, or refused by name; nothing fetched, nothing opened."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.schema import ImageDocument, ImageNode

from llama_index_smoothguard import UnresolvableMediaError
from llama_index_smoothguard.messages import Reader, with_media
from sg_guardrails import Audio, Image, MediaError, MediaLimits, Message, Prompt
from sg_guardrails.testing import fake_audio, fake_image

PICTURE, CLIP = fake_image((1.0, 0.0, 0.0), size=4), fake_audio()
PNG, WAV = PICTURE.to_png(), CLIP.to_wav()
P = base64.b64encode(PNG).decode()
READER = Reader(MediaLimits())
FUNCTION = {"name": "f", "arguments": '{"x": 1}'}

IMAGES = {
    "bytes": lambda: ImageBlock(image=PNG),
    "base64 bytes": lambda: ImageBlock(image=P.encode()),
    "raw bytes kept raw": lambda: ImageBlock.model_construct(image=PNG),
    "stream": lambda: ImageBlock(image=io.BytesIO(PNG)),
    "data uri": lambda: ImageBlock(url=f"data:image/png;base64,{P}"),
    "document": lambda: DocumentBlock(data=PNG, document_mimetype="image/png"),
    "citable": lambda: CitableBlock(title="t", source="s", content=[ImageBlock(image=PNG)]),
    "citation": lambda: CitationBlock(
        title="t", source="s", cited_content=ImageBlock(image=PNG), additional_location_info={}
    ),
}
UNRESOLVABLE = {
    "url": lambda path: ImageBlock(url="https://example.test/a.png"),
    "file url": lambda path: ImageBlock(url=f"file://{path}"),
    "path": lambda path: ImageBlock(path=path),
    "audio url": lambda path: AudioBlock(url="https://example.test/a.wav"),
    "audio path": lambda path: AudioBlock(path=path),
    "video": lambda path: VideoBlock(video=b"\x00\x00"),
    "pdf": lambda path: DocumentBlock(data=b"%PDF-1.4", document_mimetype="application/pdf"),
    "untyped document": lambda path: DocumentBlock.model_construct(data=b"x"),
    "empty": lambda path: ImageBlock(),
    "two payloads": lambda path: ImageBlock(image=PNG, url="https://example.test/other.png"),
    "nested": lambda path: CitableBlock(title="t", source="s", content=[ImageBlock(path=path)]),
}


def parts(*blocks, reader=READER):
    return reader.prompt([ChatMessage(role="user", blocks=list(blocks))]).messages[0].parts


@pytest.mark.parametrize("name", IMAGES)
def test_a_picture_is_seen_in_every_form(name):
    before, picture, after = parts(TextBlock(text="before"), IMAGES[name](), TextBlock(text="after"))
    assert (before, after) == ("before", "after")
    assert isinstance(picture, Image)
    assert picture.digest == PICTURE.digest


def test_a_stream_is_left_for_the_model_to_read():
    block = ImageBlock(image=io.BytesIO(PNG))
    parts(block)
    assert block.resolve_image().read() == PNG


def test_pictures_of_the_older_form_are_seen():
    message = ChatMessage(role="user", content="look", additional_kwargs={"images": [ImageDocument(image=P)]})
    assert READER.prompt([message]).media[0].digest == PICTURE.digest


BESIDE = {
    "another picture": {"images": [ImageDocument(image=base64.b64encode(WAV).decode())]},
    "a picture by its path": {"images": [SimpleNamespace(image=None, image_path="a.png")]},
    "content that replaces what is judged": {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    "a text that replaces what is judged": {"content": "another question"},
    "a role": {"role": "system"},
    "image_url": {"image_url": f"data:image/png;base64,{P}"},
    "a data uri, deep": {"extra": [{"note": f"DATA:image/png;base64,{P}"}]},
    "bytes": {"thing": PNG},
    "PIL": {"thing": PICTURE.to_pil()},
}


@pytest.mark.parametrize("name", BESIDE)
def test_media_outside_of_the_blocks_are_refused_by_name(name):
    message = ChatMessage(role="user", blocks=[TextBlock(text="look")])
    message.additional_kwargs = BESIDE[name]  # past the constructor, which opens files that it names
    with pytest.raises(UnresolvableMediaError, match="additional_kwargs"):
        READER.prompt([message])
    assert Reader(MediaLimits(), "pass").prompt([message]).media == ()


@pytest.mark.parametrize("key", ["input", "args", "parsed", "tool_calls"])
def test_what_is_a_models_own_word_is_a_medium_in_anybody_elses_message(key):
    beside = {key: [{"image_url": f"data:image/png;base64,{P}"}]}
    for role in ("user", "system", "tool"):
        with pytest.raises(UnresolvableMediaError, match="additional_kwargs"):
            READER.prompt([ChatMessage(role=role, content="so", additional_kwargs=beside)])
    assert READER.prompt([ChatMessage(role="assistant", content="so", additional_kwargs=beside)]).media == ()


@pytest.mark.parametrize("beside", [{"tool_call_id": "1"}, {"name": "bot"}, {"refusal": None}, {"k": {"n": 1}}])
def test_what_adapters_put_beside_the_blocks_stays(beside):
    assert READER.prompt([ChatMessage(role="tool", content="so", additional_kwargs=beside)]).messages[0].parts == (
        "so",
    )


@pytest.mark.parametrize("block", [lambda: AudioBlock(audio=WAV), lambda: AudioBlock(audio=io.BytesIO(WAV))])
def test_a_clip_is_heard(block):
    (clip,) = parts(block())
    assert isinstance(clip, Audio)
    np.testing.assert_allclose(clip.wave, CLIP.wave, atol=1e-4)


@pytest.mark.parametrize("name", UNRESOLVABLE)
def test_what_cannot_be_seen_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("something was fetched"))
    (tmp_path / "a.png").write_bytes(PNG)
    block = UNRESOLVABLE[name](tmp_path / "a.png")
    with pytest.raises(UnresolvableMediaError, match="message 0, ") as caught:
        parts(TextBlock(text="look"), block)
    assert "example.test" not in str(caught.value)
    assert parts(TextBlock(text="look"), block, reader=Reader(MediaLimits(), "pass")) == ("look",)


@pytest.mark.parametrize(
    "block",
    [
        lambda: ImageBlock(image=b"ABCD"),
        lambda: ImageBlock(image=WAV),
        lambda: AudioBlock(audio=PNG),
        lambda: ImageBlock(url="data:image/png;base64,!!!!"),
        lambda: DocumentBlock(data=PNG, document_mimetype="text/plain"),
        lambda: DocumentBlock(data=WAV, document_mimetype="TEXT/PLAIN"),
    ],
)
def test_a_broken_medium_is_an_error_even_where_unresolvable_ones_pass(block):
    with pytest.raises(MediaError, match="cannot be judged") as caught:
        parts(block(), reader=Reader(MediaLimits(), "pass"))
    assert not isinstance(caught.value, UnresolvableMediaError)


def test_limits_hold_before_decoding():
    with pytest.raises(MediaError, match="pixels"):
        parts(ImageBlock(image=PNG), reader=Reader(MediaLimits(max_pixels=15)))


def test_files_are_read_from_the_one_folder_that_the_user_names(tmp_path):
    inside, outside = tmp_path / "media", tmp_path / "other"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(outside / "a.png")
    reader = Reader(MediaLimits(), media_root=inside)
    assert parts(ImageBlock(path=inside / "a.png"), reader=reader)[0].digest == PICTURE.digest
    for path in (outside / "a.png", inside / ".." / "other" / "a.png", inside / "link.png"):
        with pytest.raises(UnresolvableMediaError, match="inside media_root"):
            parts(ImageBlock(path=path), reader=reader)


def test_texts_calls_and_silent_blocks():
    said = parts(
        TextBlock(text="so"),
        ThinkingBlock(content="hm"),
        CachePoint(cache_control={"type": "ephemeral"}),
        ToolCallBlock(tool_name="camera", tool_kwargs={"zoom": 2}),
        DocumentBlock(data=b"a text", document_mimetype="text/plain"),
        CitableBlock(title="t", source="s", content="cited"),
    )
    assert said == ("so", '{"name": "camera", "arguments": {"zoom": 2}}', "a text", "cited")


@pytest.mark.parametrize(
    ("role", "expected"),
    [("system", "system"), ("developer", "system"), ("assistant", "assistant"), ("tool", "tool"), ("user", "user")],
)
def test_roles(role, expected):
    assert READER.prompt([ChatMessage(role=role, content="x")]).messages[0].role == expected


@pytest.mark.parametrize(("role", "expected"), [("Tool", "tool"), ("ASSISTANT", "assistant"), ("stranger", "user")])
def test_a_role_in_other_letters_is_the_same_role(role, expected):
    message = ChatMessage(content="x")
    message.role = role  # past the constructor, which takes the names of the enumeration only
    assert READER.prompt([message]).messages[0].role == expected


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="f", tool_kwargs={"x": 1})]),
        ChatMessage(role="assistant", additional_kwargs={"tool_calls": [{"function": FUNCTION, "id": "1"}]}),
        ChatMessage(role="assistant", additional_kwargs={"function_call": FUNCTION}),
    ],
)
def test_a_models_calls_stand_in_its_turn(message):
    assert READER.prompt([message]).messages[0].parts == ('{"name": "f", "arguments": {"x": 1}}',)


def test_a_calls_arguments_are_read_with_its_messages():
    picture = ImageDocument(image=P)
    for pictures in ([picture], (ImageBlock(image=PNG),), [ImageNode(image=P)]):
        prompt = READER.call("what?", {"image_documents": pictures, "temperature": 0.5})
        assert [part if isinstance(part, str) else part.digest for part in prompt.messages[0].parts] == [
            PICTURE.digest,
            "what?",
        ]
    assert READER.call("data:image/png;base64,AAAA", {"prompt": "data:image/png;base64,AAAA"}).media == ()
    with pytest.raises(UnresolvableMediaError, match="arguments: media under image_documents"):
        READER.call([ChatMessage("what?")], {"image_documents": [picture]})


@pytest.mark.parametrize("pictures", [iter([ImageDocument(image=P)]), ImageDocument(image=P), ["a.png"], [None]])
def test_pictures_that_cannot_be_read_are_an_error(pictures):
    with pytest.raises(MediaError, match="image_documents"):
        READER.call("what?", {"image_documents": pictures})


def test_media_are_added_once_and_before_the_question():
    other = fake_image((0.0, 1.0, 0.0))
    prompt = Prompt((Message("system", ("be brief",)), Message("user", (PICTURE, "what?"))))
    assert with_media(prompt, [PICTURE]) is prompt
    assert with_media(prompt, [other, PICTURE, other]).messages[1].parts == (other, PICTURE, "what?")
    assert with_media(Prompt((Message("assistant", ("hi",)),)), [other]).messages[-1].role == "user"
