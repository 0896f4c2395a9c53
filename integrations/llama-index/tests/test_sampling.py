"""`sampler="agent_model"`: the guarded LLM itself answers the copies, in all eight call forms."""

import asyncio
import base64
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    DocumentBlock,
    ImageBlock,
    LLMMetadata,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import ImageDocument
from pydantic import Field

from llama_index_smoothguard import SmoothGuardCallbackHandler, SmoothGuardLLM, SmoothGuardQueryEngine
from llama_index_smoothguard.messages import Reader
from llama_index_smoothguard.sampling import perturbed
from sg_guardrails import Audio, MediaLimits, Message, Prompt, SamplingError
from sg_guardrails.testing import fake_audio, fake_image

FORMS = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
)
PICTURE, OTHER = fake_image((1.0, 0.0, 0.0), size=4), fake_image((0.0, 0.0, 1.0), size=4)
CLIP = fake_audio()
READER = Reader(MediaLimits())


class Hijacked(CustomLLM):
    """Says one thing to the clean picture of number 5, another under noise; counts what it was asked."""

    clean: str = "The number is 99."
    noisy: str = "The number is 5."
    png: bytes = b""
    asked: list = Field(default_factory=list)
    lock: object = Field(default_factory=threading.Lock)

    @property
    def metadata(self):
        return LLMMetadata(is_chat_model=True)

    def _says(self, pictures):
        with self.lock:
            self.asked.append(pictures)
        return self.clean if self.png in pictures else self.noisy

    def _reply(self, messages):
        blocks = [block for message in messages for block in message.blocks if isinstance(block, ImageBlock)]
        return ChatResponse(
            message=ChatMessage(role="assistant", content=self._says([base64.b64decode(b.image) for b in blocks]))
        )

    def _text(self, pictures):
        return CompletionResponse(text=self._says([base64.b64decode(one.image) for one in pictures or ()]))

    @llm_chat_callback()
    def chat(self, messages, **kwargs):
        return self._reply(messages)

    @llm_chat_callback()
    async def achat(self, messages, **kwargs):
        await asyncio.sleep(0)
        return self._reply(messages)

    @llm_chat_callback()
    def stream_chat(self, messages, **kwargs):
        def chunks():
            yield self._reply(messages)

        return chunks()

    @llm_chat_callback()
    async def astream_chat(self, messages, **kwargs):
        async def chunks():
            await asyncio.sleep(0)
            yield self._reply(messages)

        return chunks()

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, image_documents=None, **kwargs):
        return self._text(image_documents)

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, image_documents=None, **kwargs):
        def chunks():
            yield self._text(image_documents)

        return chunks()


def guarded(kit, *, guard=None, settings=None, **fields):
    llm = Hijacked(png=kit.png(5), **fields)
    own = {"sampler": "agent_model", **(settings or {})}
    return SmoothGuardLLM(llm=llm, guard=guard or kit.make_guard(), **own), llm


def call(kit, llm, form):
    """The answer's text."""
    if "chat" in form:
        value, options = kit.picture(5), {}
    else:
        document = ImageDocument(image=base64.b64encode(kit.png(5)).decode())
        value, options = "which?", {"image_documents": [document]}

    async def run():
        made = await getattr(llm, form)(value, **options)
        return [one async for one in made][-1] if "stream" in form else made

    if form.startswith("a"):
        response = asyncio.run(run())
    else:
        made = getattr(llm, form)(value, **options)
        response = list(made)[-1] if "stream" in form else made
    return response, response.message.content if "chat" in form else response.text


@pytest.mark.parametrize("form", FORMS)
def test_noise_breaks_the_spell_and_the_llms_own_majority_speaks(kit, form):
    guard = kit.make_guard()
    llm, inner = guarded(kit, guard=guard)
    response, text = call(kit, llm, form)
    assert text == "The number is 5."
    assert response.additional_kwargs["smoothguard"]["status"] == "rewritten"
    assert len(inner.asked) == 3, "its own answer and two samples"
    assert len({pictures[0] for pictures in inner.asked}) == 3
    assert guard.sampler.asked == [], "the guard's own model is not asked"


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_that_noise_does_not_change_goes_on(kit, form):
    llm, inner = guarded(kit, clean="The number is 5.")
    response, text = call(kit, llm, form)
    assert text == "The number is 5."
    assert "smoothguard" not in response.additional_kwargs
    assert len(inner.asked) == 3


@pytest.mark.parametrize("form", FORMS)
def test_an_unsafe_majority_is_blocked(kit, form):
    llm, _ = guarded(kit, clean="UNSAFE", noisy="UNSAFE")
    assert call(kit, llm, form)[1] == "[blocked]"


@pytest.mark.parametrize("form", FORMS)
def test_under_early_decision_it_is_asked_in_rounds(kit, form):
    early = {"copies": 10, "early": "exact"}
    llm, inner = guarded(kit, guard=kit.make_guard(smoothing=early), clean="The number is 5.")
    assert call(kit, llm, form)[1] == "The number is 5."
    assert len(inner.asked) == 6, "its own answer and five samples settle eleven votes"
    llm, inner = guarded(kit, guard=kit.make_guard(smoothing=early))
    response, text = call(kit, llm, form)
    assert (text, response.additional_kwargs["smoothguard"]["degraded"]) == ("The number is 5.", None)
    assert 6 < len(inner.asked) < 11, "one more round, not all"


def test_text_alone_samples_nothing(kit):
    llm, inner = guarded(kit)
    assert llm.chat([ChatMessage("hi")]).message.content == "The number is 5."
    assert len(inner.asked) == 1


def test_without_the_clean_copy_the_samples_alone_vote(kit):
    llm, inner = guarded(kit, guard=kit.make_guard(smoothing={"copies": 3, "include_clean": False}))
    assert call(kit, llm, "chat")[1] == "The number is 5."
    assert len(inner.asked) == 4


class Failing(Hijacked):
    """Right, but as many of its samples fail."""

    failures: int = 0

    def _says(self, pictures):
        with self.lock:
            self.asked.append(pictures)
            if self.png not in pictures and self.failures:
                self.failures -= 1
                raise ValueError("429")
        return self.clean if self.png in pictures else self.noisy


def failing(kit, failures, clean="The number is 5.", **policy):
    llm = Failing(png=kit.png(5), failures=failures, clean=clean)
    return SmoothGuardLLM(llm=llm, guard=kit.make_guard(**policy), sampler="agent_model"), llm


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("on_error", "said"), [("block", "[error]"), ("allow", "The number is 5.")])
def test_samples_that_fail_are_what_on_error_makes_of_them(kit, form, on_error, said):
    llm, inner = failing(kit, 2, on_error=on_error)
    assert call(kit, llm, form)[1] == said
    assert len(inner.asked) == 3, "the others of their round are waited for, no further is asked"
    llm, _ = failing(kit, 2, on_error="raise")
    with pytest.raises(SamplingError, match="1 of 3 copies"):
        call(kit, llm, form)


@pytest.mark.parametrize("form", FORMS)
def test_a_sample_that_fails_turns_no_vote_that_the_others_settle(kit, form):
    llm, _ = failing(kit, 1, clean="The number is 99.", smoothing={"copies": 6})
    response, text = call(kit, llm, form)
    assert text == "The number is 5."
    assert "6 of 7" in response.additional_kwargs["smoothguard"]["degraded"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("on_error", ["block", "allow"])
def test_no_failed_sample_lets_a_forbidden_answer_pass(kit, form, on_error):
    llm, _ = failing(kit, 2, clean="UNSAFE", on_error=on_error)
    assert call(kit, llm, form)[1] in ("[blocked]", "[error]")


class Hanging(Hijacked):
    """Right, but its samples hang until released; those on a loop until they are cancelled."""

    released: object = Field(default_factory=threading.Event)
    cancelled: list = Field(default_factory=list)

    def _says(self, pictures):
        assert self.png in pictures or self.released.wait(60)
        return "The number is 5."

    async def _hang(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.append(1)

    @llm_chat_callback()
    async def achat(self, messages, **kwargs):
        if self.png not in [base64.b64decode(block.image) for block in messages[0].blocks[1:]]:
            await self._hang()
        return self._reply(messages)

    @llm_chat_callback()
    async def astream_chat(self, messages, **kwargs):
        async def chunks():
            yield await self.achat(messages)

        return chunks()

    @llm_completion_callback()
    async def acomplete(self, prompt, formatted=False, image_documents=None, **kwargs):
        if self.png not in [base64.b64decode(one.image) for one in image_documents]:
            await self._hang()
        return self._text(image_documents)

    @llm_completion_callback()
    async def astream_complete(self, prompt, formatted=False, **kwargs):
        async def chunks():
            yield await self.acomplete(prompt, **kwargs)

        return chunks()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("without_clean", [False, True])
@pytest.mark.parametrize(("on_timeout", "said"), [("block", "[error]"), ("allow", "The number is 5.")])
def test_samples_that_hang_are_left_at_the_deadline(kit, form, on_timeout, said, without_clean):
    smoothing = {"copies": 2, "include_clean": not without_clean}
    guard = kit.make_guard(limits={"deadline_seconds": 0.4}, on_timeout=on_timeout, smoothing=smoothing)
    inner = Hanging(png=kit.png(5))
    try:
        assert call(kit, SmoothGuardLLM(llm=inner, guard=guard, sampler="agent_model"), form)[1] == said
        assert not inner.released.is_set()
    finally:
        inner.released.set()
    assert len(inner.cancelled) == (2 if form.startswith("a") else 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rewrite", ["redact", "safest"])
def test_a_rewritten_answer_is_what_the_policy_made_of_it(kit, form, rewrite):
    rule = {"id": "link", "when": {"regex": [r"https?://\S+"]}, "action": "rewrite", "rewrite": rewrite}
    said = "The number is 5. See http://evil.test/?q=5"
    llm, _ = guarded(kit, guard=kit.make_guard(rules=[rule]), clean=said, noisy=said)
    _, text = call(kit, llm, form)
    assert "evil.test" not in text
    assert rewrite == "safest" or text == "The number is 5. See [removed]"


def test_larger_pictures_are_fitted_before_noise(kit):
    llm, inner = guarded(kit, settings={"long_side": 2})
    call(kit, llm, "chat")
    noisy = [pictures[0] for pictures in inner.asked if pictures[0] != kit.png(5)]
    shapes = {READER.prompt([ChatMessage(blocks=[ImageBlock(image=one)])]).media[0].pixels.shape for one in noisy}
    assert shapes == {(2, 2, 3)}


def test_a_guarded_query_engine_around_it_does_not_take_the_samples_for_its_own(kit, form):
    llm, _ = guarded(kit, clean="The number is 5.")

    class Direct(CustomQueryEngine):
        def custom_query(self, query_str):
            return llm.chat(kit.picture(5)).message.content

        async def acustom_query(self, query_str):
            return (await llm.achat(kit.picture(5))).message.content

    guard = kit.make_guard()
    assert str(kit.ask(SmoothGuardQueryEngine(Direct(), guard=guard), "which?", form)) == "The number is 5."
    assert [kit.number_of(medium) for medium in guard.sampler.asked[0].prompt.media] == [5]


def test_a_callback_handler_on_the_llm_does_not_judge_the_samples(kit):
    handler = SmoothGuardCallbackHandler(guard=kit.make_guard())
    llm, _ = guarded(kit, clean="The number is 5.", noisy="UNSAFE", callback_manager=CallbackManager([handler]))
    said = llm.chat(kit.picture(5)).message.content
    assert said != "UNSAFE"
    assert not handler._asked


def test_64_threads_and_500_tasks_each_get_their_own_picture(kit):
    # Noise that 8 bits round away: each sample reads the number of its own picture.
    smoothing = {"copies": 1, "image": {"space": "pixel", "sigma": 1e-6}}
    llm = SmoothGuardLLM(llm=kit.LLM(), guard=kit.make_guard(smoothing=smoothing), sampler="agent_model")
    with ThreadPoolExecutor(64) as pool:
        said = list(pool.map(lambda n: llm.chat(kit.picture(n)).message.content, range(64)))
    assert said == [f"The number is {n}." for n in range(64)]

    async def tasks():
        return await asyncio.gather(*(llm.achat(kit.picture(n)) for n in range(500)))

    assert [one.message.content for one in asyncio.run(tasks())] == [f"The number is {n}." for n in range(500)]


BLOCKS = {
    "bytes": ImageBlock(image=PICTURE.to_png(), detail="high"),
    "data uri": ImageBlock(url="data:image/png;base64," + base64.b64encode(PICTURE.to_png()).decode()),
    "document": DocumentBlock(data=PICTURE.to_png(), document_mimetype="image/jpeg", title="t"),
    "citable": CitableBlock(title="t", source="s", content=[TextBlock(text="x"), ImageBlock(image=PICTURE.to_png())]),
    "citation": CitationBlock(
        title="t", source="s", cited_content=ImageBlock(image=PICTURE.to_png()), additional_location_info={}
    ),
    "audio": AudioBlock(audio=CLIP.to_wav(), format="wav"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_perturbed_medium_goes_back_in_its_block(name):
    other = fake_audio(880) if name == "audio" else OTHER
    call = ToolCallBlock(tool_name="f", tool_kwargs={})
    asked = [
        ChatMessage(role="system", content="be brief"),
        ChatMessage(role="user", blocks=[TextBlock(text="look"), BLOCKS[name], call], additional_kwargs={"k": 1}),
    ]
    before = asked[1].model_dump_json()
    system, changed = perturbed(asked, Prompt((Message("user", (other,)),)), READER)
    assert asked[1].model_dump_json() == before, "nothing given is changed"
    assert (system.content, changed.role.value, changed.additional_kwargs) == ("be brief", "user", {"k": 1})
    assert [type(block) for block in changed.blocks] == [TextBlock, type(BLOCKS[name]), ToolCallBlock]
    (again,) = READER.prompt([changed]).media
    if isinstance(again, Audio):
        np.testing.assert_allclose(again.wave, other.wave, atol=1e-4)
    else:
        assert again.digest == other.digest


def test_what_the_policy_passes_unseen_stays_as_it_is():
    hidden = ImageBlock(url="https://example.test/a.png")
    text = DocumentBlock(data=b"a text", document_mimetype="text/plain")
    asked = [ChatMessage(role="user", blocks=[hidden, BLOCKS["bytes"], text])]
    (changed,) = perturbed(asked, Prompt((Message("user", (OTHER,)),)), Reader(MediaLimits(), "pass"))
    assert changed.blocks[0] is hidden
    assert READER.prompt([ChatMessage(blocks=[changed.blocks[1]])]).media[0].digest == OTHER.digest
    assert changed.blocks[2] is text
