"""SmoothGuardCallbackHandler: what it stops, and what LlamaIndex lets no callback stop."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, TextBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageDocument

from llama_index_smoothguard import SmoothGuardCallbackHandler
from sg_guardrails import GuardError, MediaError, PolicyError, UnsafeOutputError

WHOLE = ("chat", "achat", "complete", "acomplete")
STREAMS = ("stream_chat", "astream_chat", "stream_complete", "astream_complete")
HIDDEN = [ChatMessage(role="user", blocks=[ImageBlock(url="https://example.test/a.png"), TextBlock(text="q")])]


def handler(kit, **policy):
    return SmoothGuardCallbackHandler(guard=kit.make_guard(**policy))


def watched(kit, reply=None, **policy):
    return kit.LLM(reply=reply, callback_manager=CallbackManager([handler(kit, **policy)]))


def asked(kit, form, number=5):
    """The call's input: a chat, or a completion's text and its picture."""
    if "chat" in form:
        return kit.picture(number), {}
    picture = ImageDocument(image=base64.b64encode(kit.png(number)).decode(), image_mimetype="image/png")
    return "Which number?", {"image_documents": [picture]}


def said(response):
    return response.message.content if isinstance(response, ChatResponse) else response.text


def call(llm, form, value, options, out=None):
    """The response; a stream's deltas are put into `out` as they come."""
    out = [] if out is None else out

    async def run():
        made = await getattr(llm, form)(value, **options)
        if "stream" not in form:
            return said(made)
        async for chunk in made:
            out.append(chunk.delta)
        return "".join(out)

    if form.startswith("a"):
        return asyncio.run(run())
    made = getattr(llm, form)(value, **options)
    if "stream" not in form:
        return said(made)
    out.extend(chunk.delta for chunk in made)
    return "".join(out)


@pytest.mark.parametrize("form", WHOLE)
@pytest.mark.parametrize("reply", ["UNSAFE", "FORBIDDEN", "The number is 99."])
def test_it_stops_whole_answers(kit, form, reply):
    with pytest.raises(UnsafeOutputError) as caught:
        call(watched(kit, reply), form, *asked(kit, form))
    assert caught.value.outcome.status in ("blocked", "rewritten")
    assert "UNSAFE" not in str(caught.value)


@pytest.mark.parametrize("form", [*WHOLE, *STREAMS])
def test_a_right_answer_goes_on(kit, form):
    assert call(watched(kit, "The number is 5."), form, *asked(kit, form)) == "The number is 5."


@pytest.mark.parametrize("form", STREAMS)
def test_a_streams_chunks_are_out_before_the_verdict(kit, form):
    out = []
    with pytest.raises(UnsafeOutputError):
        call(watched(kit, "UNSAFE"), form, *asked(kit, form), out)
    assert "".join(out) == "UNSAFE", "documented: a callback cannot hold a stream back"


@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("on_error", ["block", "allow"])
def test_media_that_cannot_be_seen_stop_the_model_before_it_runs(kit, form, on_error):
    ran = []

    class Watching(kit.LLM):
        def _says(self, messages):
            ran.append(messages)
            return "fine"

    llm = Watching(callback_manager=CallbackManager([handler(kit, on_error=on_error)]))
    with pytest.raises(UnsafeOutputError, match="was not asked"):
        call(llm, form, HIDDEN, {})
    assert ran == []


@pytest.mark.parametrize("form", [*WHOLE, *STREAMS])
def test_media_among_a_calls_arguments_stop_the_model_too(kit, form):
    value, options = asked(kit, form)
    with pytest.raises(UnsafeOutputError, match="arguments: media under images"):
        call(watched(kit, "fine"), form, value, {**options, "images": [base64.b64encode(kit.png(5)).decode()]})


def test_what_the_policy_says_of_unresolvable_media(kit):
    with pytest.raises(MediaError):
        watched(kit, "fine", unresolvable_media="error").chat(HIDDEN)
    assert said(watched(kit, "fine", unresolvable_media="pass").chat(HIDDEN)) == "fine"


def test_observing_stops_nothing(kit):
    assert said(watched(kit, "UNSAFE", mode="observe").chat(kit.picture(1))) == "UNSAFE"
    assert said(watched(kit, "fine", mode="observe").chat(HIDDEN)) == "fine"


def test_engines_are_stopped_through_the_settings(kit, form, monkeypatch):
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([handler(kit)]))
    with pytest.raises(UnsafeOutputError):
        kit.ask(kit.plain("The number is 99."), "picture 5", form)
    chat = SimpleChatEngine.from_defaults(llm=kit.LLM(reply="UNSAFE"))
    with pytest.raises(UnsafeOutputError):
        chat.chat("hello")
    assert "UNSAFE" not in repr(chat.chat_history)


def test_an_engine_drops_the_manager_of_its_llm(kit, form):
    llm = watched(kit, "The number is 99.")
    manager = llm.callback_manager
    engine = RetrieverQueryEngine.from_args(kit.Shelf(), llm=llm, multimodal=True)
    assert str(kit.ask(engine, "picture 5", form)) == "The number is 99.", "documented: use Settings, or set it after"
    llm.callback_manager = manager
    with pytest.raises(UnsafeOutputError):
        kit.ask(engine, "picture 5", form)


def test_an_llms_own_error_stands_and_nothing_is_kept(kit):
    class Broken(kit.LLM):
        @llm_chat_callback()
        def chat(self, messages, **kwargs):
            raise ValueError("boom")

    guarding = handler(kit)
    with pytest.raises(ValueError, match="boom"):
        Broken(callback_manager=CallbackManager([guarding])).chat(kit.picture(1))
    assert not guarding._asked


def test_an_end_without_a_start_is_no_pass(kit):
    from llama_index.core.callbacks.schema import CBEventType, EventPayload

    response = ChatResponse(message=ChatMessage(role="assistant", content="fine"))
    with pytest.raises(GuardError, match="not seen"):
        handler(kit).on_event_end(CBEventType.LLM, {EventPayload.RESPONSE: response}, event_id="1")


async def test_many_at_once_with_one_handler(kit):
    guarding = handler(kit)
    llm = kit.LLM(callback_manager=CallbackManager([guarding]))
    responses = await asyncio.gather(*(llm.achat(kit.picture(n)) for n in range(500)))
    assert [said(one) for one in responses] == [f"The number is {n}." for n in range(500)]
    with ThreadPoolExecutor(64) as pool:
        responses = list(pool.map(lambda n: llm.chat(kit.picture(n)), range(256)))
    assert [said(one) for one in responses] == [f"The number is {n}." for n in range(256)]
    assert not guarding._asked


def test_a_wrong_policy_fails_at_construction():
    with pytest.raises(PolicyError, match="no-such-policy"):
        SmoothGuardCallbackHandler("no-such-policy")
