"""A world in which pictures hold numbers: a chat model and a guard's sampler both read them, so cross-talk shows."""

import asyncio
import base64
import io
import json
import os

import pytest
import soundfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from langchain_smoothguard import SmoothGuardRunnable, recorder
from langchain_smoothguard.messages import read
from sg_guardrails import Image, MediaLimits, Policy, SmoothGuard
from sg_guardrails.testing import FakeSampler, fake_audio, fake_embedder, fake_image, fake_scorers, fake_sentiment

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


def number_png(number: int) -> str:
    image = fake_image((number % 256 / 255, number // 256 / 255, 0.0), size=4)
    return base64.b64encode(image.to_png()).decode()


def tone_wav() -> str:
    return base64.b64encode(fake_audio().to_wav()).decode()


def tone_flac() -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, fake_audio().wave, 16_000, format="FLAC")
    return base64.b64encode(buffer.getvalue()).decode()


def ask(number: int, question: str = "Which number?") -> list:
    picture = {"type": "image", "base64": number_png(number), "mime_type": "image/png"}
    return [HumanMessage([{"type": "text", "text": question}, picture])]


def seen(messages) -> list[int]:
    prompt = read(messages, limits=MediaLimits(), unresolvable="pass").prompt
    return [number_of(medium) for medium in prompt.media if isinstance(medium, Image)]


def says(numbers) -> str:
    return f"The number is {numbers[-1]}." if numbers else "There is no picture."


class PixelChat(BaseChatModel):
    """A chat model that reads the last picture's number, or says what it is told to."""

    reply: str | None = None
    calls: list = Field(default_factory=list)
    fails: bool = False
    fields: dict = Field(default_factory=dict)

    @property
    def _llm_type(self):
        return "pixel"

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools)

    def _text(self, messages):
        if self.fails:
            raise ValueError("boom")
        self.calls.append(messages)
        return self.reply if self.reply is not None else says(seen(messages))

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self._text(messages), **self.fields))])

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        await asyncio.sleep(0)
        return self._generate(messages)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for letter in self._text(messages):
            yield ChatGenerationChunk(message=AIMessageChunk(letter))

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for letter in self._text(messages):
            await asyncio.sleep(0)
            yield ChatGenerationChunk(message=AIMessageChunk(letter))


def make_guard(script=None, *, key=None, **policy):
    loaded = Policy.parse({"name": "test", "smoothing": {"copies": 2}, "rules": RULES, "texts": TEXTS, **policy})

    def read_number(copy):
        return says([number_of(medium) for medium in copy.prompt.media if isinstance(medium, Image)])

    sampler = FakeSampler(read_number if script is None else script)
    guard = SmoothGuard(
        loaded, sampler=sampler, embedder=fake_embedder, sentiment=fake_sentiment, scorers=fake_scorers(), key=key
    )
    guard.sampler = sampler
    return guard


FORMS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")


def run(chain, value, form):
    """The chain's whole output in one of the six call forms."""

    async def collected():
        return [chunk async for chunk in chain.astream(value)]

    match form:
        case "invoke":
            return chain.invoke(value)
        case "ainvoke":
            return asyncio.run(chain.ainvoke(value))
        case "batch":
            return chain.batch([value])[0]
        case "abatch":
            return asyncio.run(chain.abatch([value]))[0]
        case "stream":
            chunks = list(chain.stream(value))
        case _:
            chunks = asyncio.run(collected())
    assert len(chunks) == 1, "a stream is withheld until the verdict"
    return chunks[0]


class Kit:
    ask, seen, says, run = staticmethod(ask), staticmethod(seen), staticmethod(says), staticmethod(run)
    number_of, number_png = staticmethod(number_of), staticmethod(number_png)
    tone_wav, tone_flac = staticmethod(tone_wav), staticmethod(tone_flac)
    make_guard, Chat, dumps = staticmethod(make_guard), PixelChat, staticmethod(json.dumps)

    @staticmethod
    def step(script=None, *, settings=None, **policy):
        return SmoothGuardRunnable(guard=make_guard(script, **policy), **(settings or {}))


@pytest.fixture
def kit():
    return Kit


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_recorded():
    yield
    assert recorder._RECORDER.live == 0
