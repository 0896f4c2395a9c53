"""SmoothGuardChatModel: a chat model like any other."""

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser

from langchain_smoothguard import SmoothGuardChatModel
from sg_guardrails import GuardError, UnsafeOutputError


@pytest.fixture
def model(kit):
    return SmoothGuardChatModel(guard=kit.make_guard())


def test_it_answers_in_every_form(kit, model, form):
    said = (
        kit.run(model, kit.ask(7), form)
        if "stream" not in form
        else kit.run(model | StrOutputParser(), kit.ask(7), form)
    )
    assert (said if isinstance(said, str) else said.text) == "The number is 7."


def test_a_stream_is_one_chunk_with_text(kit, model):
    chunks = [chunk for chunk in model.stream(kit.ask(7)) if chunk.content]
    assert [chunk.text for chunk in chunks] == ["The number is 7."]
    assert isinstance(chunks[0], AIMessageChunk)


def test_it_blocks_and_raises_as_its_policy_says(kit, form):
    assert SmoothGuardChatModel(guard=kit.make_guard("UNSAFE")).invoke(kit.ask(1)).text == "[blocked]"
    with pytest.raises(UnsafeOutputError):
        SmoothGuardChatModel(guard=kit.make_guard("FORBIDDEN")).invoke(kit.ask(1))


@pytest.mark.parametrize("call", ["invoke", "ainvoke", "batch", "abatch"])
def test_media_among_its_keywords_are_refused_and_not_passed_over(kit, call):
    guard = kit.make_guard()
    said = kit.run(SmoothGuardChatModel(guard=guard).bind(images=[kit.number_png(9)]), kit.ask(1), call)
    assert (said.text, guard.sampler.asked) == ("[error]", [])


def test_a_call_cannot_exchange_the_model(model):
    with pytest.raises(GuardError, match="when the guard is built"):
        model.invoke("hi", model="another")


def test_stop_cuts_the_answer(kit, model):
    assert model.invoke(kit.ask(7), stop=["is"]).text == "The number "
    assert (
        SmoothGuardChatModel(guard=kit.make_guard(), stop=["num"]).invoke("hi").text.startswith("There is no picture")
    )


def test_it_may_itself_be_verified(kit, model, form):
    assert kit.run(model | StrOutputParser() | kit.step(), kit.ask(7), form) == "The number is 7."


def test_plain_inputs_of_a_chat_model(model):
    assert isinstance(model.invoke("hello"), AIMessage)
    assert model.invoke([HumanMessage("hello"), AIMessage("hi"), HumanMessage("again")]).text == "There is no picture."
