"""Media in the places where no reader looks for them."""

import base64

import pytest
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.schema import ImageDocument, ImageNode
from llama_index.core.tools import FunctionTool

from llama_index_smoothguard.hiding import among_options, beside_block, beside_message
from sg_guardrails.testing import fake_image

PNG = fake_image((1.0, 0.0, 0.0), size=4).to_png()
P = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{P}"


class Sub(TextBlock):
    """An adapter's own block, of which the guard knows the text only."""

    extra: object = None


BESIDE = {
    "a subclass's field": (lambda: Sub(text="q", extra={"image_url": {"url": "https://example.test/a"}}), "image_url"),
    "bytes": (lambda: Sub(text="q", extra=PNG), "extra"),
    "a block": (lambda: Sub(text="q", extra=[ImageBlock(image=PNG)]), "extra"),
    "base64 under a harmless key": (lambda: Sub(text="q", extra={"source": {"data": P}}), "data"),
    "a document's title": (lambda: DocumentBlock(data=b"x", document_mimetype="text/plain", title=URI), "title"),
    "a citable's source": (lambda: CitableBlock(title="t", source=URI, content="x"), "source"),
    "inside a citable": (
        lambda: CitableBlock.model_construct(title="t", source="s", content=[Sub(text="q", extra=PNG)]),
        "extra",
    ),
    "inside a citation": (
        lambda: CitationBlock.model_construct(title="t", source="s", cited_content=Sub(text="q", extra=PNG)),
        "extra",
    ),
    "thinking": (
        lambda: ThinkingBlock(content="hm", additional_information={"inline_data": {"data": "x"}}),
        "inline_data",
    ),
    "an image's detail": (lambda: ImageBlock(image=PNG, detail=URI), "detail"),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("own", [False, True])
def test_media_beside_a_blocks_payload_are_found(name, own):
    block, place = BESIDE[name]
    assert beside_block(block(), own=own) == place


@pytest.mark.parametrize(
    "block",
    [
        TextBlock(text=URI),
        ImageBlock(image=PNG, detail="high"),
        ImageBlock(url=URI),
        DocumentBlock(data=PNG, document_mimetype="image/png", title="a.png"),
        CitableBlock(title="t", source="s", content=[ImageBlock(image=PNG)]),
        CitationBlock(title="t", source="s", cited_content=ImageBlock(image=PNG), additional_location_info={"page": 1}),
        CachePoint(cache_control={"type": "ephemeral"}),
        Sub(text="q", extra={"annotations": [{"url": "https://example.test/a", "start": 1}]}),
        ThinkingBlock(content="hm", additional_information={"signature": "ErUBCkYIARgCIkD+" * 20, "inline_data": None}),
    ],
)
def test_what_belongs_to_a_block_is_none(block):
    assert beside_block(block, own=False) == ""
    assert beside_block(block, own=True) == ""


def test_a_models_own_words_are_none_in_its_own_message_alone():
    call = ToolCallBlock(tool_name="f", tool_kwargs={"image": "gate.png"})
    sealed = ThinkingBlock(content="hm", additional_information={"thought_signature": b"\x01sealed"})
    kept = ChatMessage(role="assistant", content="x", additional_kwargs={"thought_signatures": [b"\x01sealed", None]})
    assert [beside_block(call, own=own) for own in (True, False)] == ["", "image"]
    assert [beside_block(sealed, own=own) for own in (True, False)] == ["", "thought_signature"]
    assert [beside_message(kept, own=own) for own in (True, False)] == ["", "thought_signatures"]


def test_a_block_beside_a_message_is_found():
    for medium in (ImageBlock(image=PNG), [ImageDocument(image=P)], (ImageNode(image=P),)):
        message = ChatMessage(content="q", additional_kwargs={"attached": medium})
        assert beside_message(message, own=False) == "attached"


HIDDEN = {
    "images": [URI],
    "image": "a.png",
    "image_documents": [ImageDocument(image=P)],
    "files": [ImageBlock(image=PNG)],
    "media": PNG,
    "audio": [{"data": "UklGRg"}],
    "extra_body": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "attachments": [{"content": P}],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_media_among_a_calls_arguments_are_found(name):
    assert among_options({"temperature": 0.5, name: HIDDEN[name]})


SCHEMA = {"type": "object", "properties": {"image": {"type": "string"}, "audio": {"type": "string"}}}
COMMON = {
    "nothing": {},
    "numbers": {"temperature": 0.5, "max_tokens": 10, "stop": ["\n"], "seed": None, "stream": True},
    "a tool's schema": {"tools": [{"type": "function", "function": {"name": "image", "parameters": SCHEMA}}]},
    "another provider's schema": {"tools": [{"name": "image", "parameter_definitions": {"image": {"type": "str"}}}]},
    "tools": {"tools": [FunctionTool.from_defaults(len)], "tool_choice": {"function": {"name": "image"}}},
    "an answer's schema": {"response_format": {"json_schema": {"schema": {"$defs": {"image": SCHEMA}}}}},
    "a wish for speech": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "headers": {"extra_headers": {"x-image-id": "7"}, "user": "b3c1", "prompt_cache_key": "9f86d081884c7d65"},
}


@pytest.mark.parametrize("name", COMMON)
def test_a_calls_common_arguments_are_none(name):
    assert among_options(COMMON[name]) == ""
