"""A world in which pictures hold numbers: the LLM and the guard's sampler both read them, so cross-talk shows."""

import asyncio
import base64
import os

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode

from llama_index_smoothguard import SmoothGuardQueryEngine
from llama_index_smoothguard.messages import Reader
from sg_guardrails import Image, MediaLimits, Policy, SmoothGuard
from sg_guardrails.testing import FakeSampler, fake_embedder, fake_image, fake_scorers, fake_sentiment

# The same noise in every run: a vote that another draw would turn must not turn a test.
os.environ.setdefault("SG_GUARDRAILS_KEY", "the tests' own key, known to everybody")

RULES = [
    {"id": "bad_word", "when": {"words": ["UNSAFE"]}, "action": "block"},
    {"id": "worse_word", "when": {"words": ["FORBIDDEN"]}, "action": "raise"},
    {
        "id": "contradicts",
        "where": "candidate",
        "when": {"disagrees": "candidate"},
        "action": "rewrite",
        "rewrite": "representative",
    },
]
TEXTS = {"blocked": "[blocked]", "error": "[error]", "rewritten": "[rewritten]"}


def number_of(image: Image) -> int:
    red, green, _ = (image.pixels[0, 0] * 255).round().astype(int)
    return int(red + 256 * green)


def png(number: int) -> bytes:
    return fake_image((number % 256 / 255, number // 256 / 255, 0.0), size=4).to_png()


def says(numbers) -> str:
    return f"The number is {numbers[-1]}." if numbers else "There is no picture."


def seen(messages) -> list[int]:
    media = Reader(MediaLimits(), "pass").prompt(messages).media
    return [number_of(medium) for medium in media if isinstance(medium, Image)]


class PixelLLM(CustomLLM):
    """An LLM that reads the last picture's number, or says what it is told to."""

    reply: str | None = None

    @property
    def metadata(self):
        return LLMMetadata(is_chat_model=True, context_window=8000, num_output=64)

    def _says(self, messages):
        return self.reply if self.reply is not None else says(seen(messages))

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self._says([ChatMessage(prompt)]))

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        def letters():
            text = ""
            for letter in self._says([ChatMessage(prompt)]):
                text += letter
                yield CompletionResponse(text=text, delta=letter)

        return letters()

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        return ChatResponse(message=ChatMessage(role="assistant", content=self._says(messages)))

    @llm_chat_callback()
    async def achat(self, messages, **kwargs):
        await asyncio.sleep(0)
        return ChatResponse(message=ChatMessage(role="assistant", content=self._says(messages)))

    @llm_chat_callback()
    def stream_chat(self, messages, **kwargs):
        def letters():
            text = ""
            for letter in self._says(messages):
                text += letter
                yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=letter)

        return letters()

    @llm_chat_callback()
    async def astream_chat(self, messages, **kwargs):
        async def letters():
            text = ""
            for letter in self._says(messages):
                text += letter
                await asyncio.sleep(0)
                yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=letter)

        return letters()


class Shelf(BaseRetriever):
    """Retrieves the pictures whose numbers the query names, and a text."""

    def _retrieve(self, query_bundle):
        numbers = [int(word) for word in query_bundle.query_str.split() if word.isdigit()]
        pictures = [ImageNode(image=base64.b64encode(png(n)).decode(), image_mimetype="image/png") for n in numbers]
        return [NodeWithScore(node=node) for node in (TextNode(text="some context"), *pictures)]


def make_guard(script=None, **policy):
    loaded = Policy.parse({"name": "test", "smoothing": {"copies": 2}, "rules": RULES, "texts": TEXTS, **policy})

    def read_number(copy):
        return says([number_of(medium) for medium in copy.prompt.media if isinstance(medium, Image)])

    sampler = FakeSampler(read_number if script is None else script)
    guard = SmoothGuard(
        loaded, sampler=sampler, embedder=fake_embedder, sentiment=fake_sentiment, scorers=fake_scorers()
    )
    guard.sampler = sampler
    return guard


class Kit:
    LLM, Shelf = PixelLLM, Shelf
    png, number_of, seen, says = staticmethod(png), staticmethod(number_of), staticmethod(seen), staticmethod(says)
    make_guard = staticmethod(make_guard)

    @staticmethod
    def plain(reply=None, **settings):
        return RetrieverQueryEngine.from_args(Shelf(), llm=PixelLLM(reply=reply), multimodal=True, **settings)

    @classmethod
    def engine(cls, reply=None, *, script=None, settings=None, streaming=False, **policy):
        inner = cls.plain(reply, streaming=streaming)
        return SmoothGuardQueryEngine(inner, guard=make_guard(script, **policy), **(settings or {}))

    @staticmethod
    def picture(number, question="Which number?"):
        return [ChatMessage(role="user", blocks=[TextBlock(text=question), ImageBlock(image=png(number))])]

    @staticmethod
    def ask(engine, query, form):
        return asyncio.run(engine.aquery(query)) if form == "aquery" else engine.query(query)

    @staticmethod
    def text(response):
        """The answer as a user of any response type reads it."""
        if hasattr(response, "async_response_gen"):

            async def collected():
                return [chunk async for chunk in response.async_response_gen()]

            return "".join(asyncio.run(collected()))
        return str(response)


@pytest.fixture
def kit():
    return Kit


@pytest.fixture(params=["query", "aquery"])
def form(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
def streaming(request):
    return request.param
