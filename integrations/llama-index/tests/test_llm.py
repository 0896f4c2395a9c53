"""SmoothGuardLLM in all eight call forms."""

import asyncio

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    TextBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import ImageDocument
from pydantic import Field

from llama_index_smoothguard import SmoothGuardLLM, SmoothGuardQueryEngine
from sg_guardrails import GuardError, PolicyError, UnsafeOutputError

CHATS = ("chat", "achat", "stream_chat", "astream_chat")
COMPLETIONS = ("complete", "acomplete", "stream_complete", "astream_complete")


def call(llm, form, value, **kwargs):
    """The last (and, for a stream, only) response."""

    async def run():
        made = await getattr(llm, form)(value, **kwargs)
        if "stream" not in form:
            return made
        chunks = [chunk async for chunk in made]
        assert len(chunks) == 1, "a stream is withheld until the verdict"
        return chunks[0]

    if form.startswith("a"):
        return asyncio.run(run())
    made = getattr(llm, form)(value, **kwargs)
    if "stream" not in form:
        return made
    chunks = list(made)
    assert len(chunks) == 1, "a stream is withheld until the verdict"
    return chunks[0]


def guarded(kit, reply=None, *, script=None, settings=None, **policy):
    return SmoothGuardLLM(llm=kit.LLM(reply=reply), guard=kit.make_guard(script, **policy), **(settings or {}))


def test_it_is_an_llm(kit):
    assert isinstance(guarded(kit), LLM)
    assert guarded(kit).metadata.is_chat_model


@pytest.mark.parametrize("form", CHATS)
def test_chat(kit, form):
    right = call(guarded(kit), form, kit.picture(5))
    assert (right.message.content, right.message.role.value) == ("The number is 5.", "assistant")
    wrong = call(guarded(kit, "The number is 99."), form, kit.picture(5))
    assert wrong.message.content == "The number is 5."
    assert wrong.additional_kwargs["smoothguard"]["status"] == "rewritten"
    unsafe = call(guarded(kit, "UNSAFE"), form, kit.picture(5))
    assert "UNSAFE" not in repr(unsafe)
    assert unsafe.message.content == "[blocked]"
    if "stream" in form:
        assert unsafe.delta == "[blocked]"


@pytest.mark.parametrize("form", COMPLETIONS)
def test_complete(kit, form):
    assert call(guarded(kit, "fine"), form, "hello").text == "fine"
    assert call(guarded(kit, "UNSAFE"), form, "hello").text == "[blocked]"
    if "stream" in form:
        assert call(guarded(kit, "UNSAFE"), form, "hello").delta == "[blocked]"


def test_a_completions_pictures_count(kit):
    import base64

    picture = ImageDocument(image=base64.b64encode(kit.png(5)).decode())
    said = call(guarded(kit, "The number is 99."), "complete", "which?", image_documents=[picture])
    assert said.text == "The number is 5."


def test_a_safe_response_is_the_same_object(kit):
    class Kept(kit.LLM):
        last: object = None

        @llm_chat_callback()
        def chat(self, messages, **kwargs):
            self.last = ChatResponse(message=ChatMessage(role="assistant", content="The number is 5."), raw={"k": 1})
            return self.last

    inner = Kept()
    assert SmoothGuardLLM(llm=inner, guard=kit.make_guard()).chat(kit.picture(5)) is inner.last


@pytest.mark.parametrize("form", [*CHATS, *COMPLETIONS])
def test_without_an_llm_the_guards_model_answers(kit, form):
    llm = SmoothGuardLLM(guard=kit.make_guard())
    if form in CHATS:
        assert call(llm, form, kit.picture(5)).message.content == "The number is 5."
    else:
        assert call(llm, form, "hello").text == "There is no picture."


@pytest.mark.parametrize("form", CHATS)
def test_raising(kit, form):
    with pytest.raises(UnsafeOutputError):
        call(guarded(kit, "FORBIDDEN"), form, kit.picture(5))
    with pytest.raises(UnsafeOutputError):
        call(guarded(kit, "The number is 99.", settings={"on_unsafe": "raise"}), form, kit.picture(5))
    replaced = call(guarded(kit, "FORBIDDEN", settings={"on_unsafe": "replace"}), form, kit.picture(5))
    assert replaced.message.content == "[blocked]"


@pytest.mark.parametrize("form", CHATS)
def test_media_that_cannot_be_seen_are_refused(kit, form):
    messages = [ChatMessage(role="user", blocks=[ImageBlock(url="https://example.test/a.png"), TextBlock(text="q")])]
    assert call(guarded(kit, "fine", on_error="allow"), form, messages).message.content == "[error]"
    assert call(guarded(kit, "fine", unresolvable_media="pass"), form, messages).message.content == "fine"


@pytest.mark.parametrize("form", [*CHATS, *COMPLETIONS])
def test_media_among_a_calls_arguments_are_refused_before_the_llm_is_asked(kit, form):
    class Watched(kit.LLM):
        def _says(self, messages):
            pytest.fail("it was asked")

    asked = kit.picture(5) if form in CHATS else "which?"
    llm = SmoothGuardLLM(llm=Watched(), guard=kit.make_guard(on_error="allow"))
    said = call(llm, form, asked, images=["data:image/png;base64,AAAA"])
    assert (said.message.content if form in CHATS else said.text) == "[error]"


@pytest.mark.parametrize("form", COMPLETIONS)
def test_pictures_in_the_place_of_another_argument_are_refused(kit, form):
    llm = SmoothGuardLLM(llm=kit.LLM(reply="fine"), guard=kit.make_guard())
    said = call(llm, form, "which?", formatted=[ImageDocument(image="AAAA")])
    assert said.text == "[error]"


@pytest.mark.parametrize("form", [*CHATS, *COMPLETIONS])
def test_a_calls_common_arguments_go_on(kit, form):
    tools = [{"type": "function", "function": {"name": "see", "parameters": {"properties": {"image": {}}}}}]
    asked = [ChatMessage("hello")] if form in CHATS else "hello"
    said = call(guarded(kit, "fine"), form, asked, temperature=0.5, tools=tools, stop=["."])
    assert (said.message.content if form in CHATS else said.text) == "fine"


def test_the_wrapped_llms_own_framing_of_prompts_stays(kit):
    class Hearing(kit.LLM):
        heard: list = Field(default_factory=list)

        def _says(self, messages):
            self.heard.append([message.content for message in messages])
            return "fine"

    inner = Hearing(system_prompt="Be brief.")
    SmoothGuardLLM(llm=inner, guard=kit.make_guard()).predict(PromptTemplate("hello"))
    SmoothGuardLLM(llm=inner, guard=kit.make_guard(), system_prompt="Be kind.").predict(PromptTemplate("hello"))
    assert inner.heard == [["Be brief.", "hello"], ["Be kind.", "hello"]]


def test_settings_are_checked(kit):
    with pytest.raises(PolicyError, match="no-such-policy"):
        SmoothGuardLLM(llm=kit.LLM(), policy="no-such-policy")
    with pytest.raises(GuardError, match="SmoothGuard"):
        SmoothGuardLLM(llm=kit.LLM(), guard="default")


# Beside other forms -------------------------------------------------------------------------------------------------


def test_under_a_guarded_query_engine(kit):
    from llama_index.core.query_engine import RetrieverQueryEngine

    inner = RetrieverQueryEngine.from_args(kit.Shelf(), llm=guarded(kit, "The number is 99."), multimodal=True)
    assert str(SmoothGuardQueryEngine(inner, guard=kit.make_guard()).query("picture 5")) == "The number is 5."


async def test_500_tasks_each_get_their_own_picture(kit):
    llm = guarded(kit, "The number is 9999.")
    said = await asyncio.gather(*(llm.achat(kit.picture(n)) for n in range(500)))
    assert [one.message.content for one in said] == [f"The number is {n}." for n in range(500)]
