"""SmoothGuardCallbackHandler: what it stops, and what LangChain lets no callback stop."""

import asyncio

import pytest
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser

from langchain_smoothguard import SmoothGuardCallbackHandler
from sg_guardrails import UnsafeOutputError

HIDDEN = [HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}])]


def handler(kit, **policy):
    return SmoothGuardCallbackHandler(guard=kit.make_guard(**policy))


def watched(kit, reply=None, *, parser=False, **policy):
    chain = kit.Chat(reply=reply)
    return (chain | StrOutputParser() if parser else chain).with_config(callbacks=[handler(kit, **policy)])


@pytest.mark.parametrize("parser", [False, True])
@pytest.mark.parametrize("reply", ["UNSAFE", "FORBIDDEN", "The number is 99."])
def test_it_stops_every_form(kit, form, reply, parser):
    with pytest.raises(UnsafeOutputError) as caught:
        kit.run(watched(kit, reply, parser=parser), kit.ask(1), form)
    assert caught.value.outcome.status in ("blocked", "rewritten")


@pytest.mark.parametrize("call", ["invoke", "ainvoke", "batch", "abatch"])
def test_a_right_answer_goes_on(kit, call):
    assert kit.run(watched(kit), kit.ask(4), call).text == "The number is 4."


def test_a_streams_chunks_are_out_before_the_verdict(kit):
    out = []
    with pytest.raises(UnsafeOutputError):
        out.extend(watched(kit, "UNSAFE", parser=True).stream(kit.ask(1)))
    assert "".join(out) == "UNSAFE", "documented: a callback cannot hold a stream back"


def test_media_that_cannot_be_seen_stop_the_model_before_it_runs(kit, form):
    chat = kit.Chat(reply="fine")
    with pytest.raises(UnsafeOutputError, match="was not asked"):
        kit.run(chat.with_config(callbacks=[handler(kit)]), HIDDEN, form)
    assert chat.calls == []


def test_a_second_picture_that_langchains_copy_leaves_out_is_not_seen(kit):
    second = {"image_url": f"data:image/png;base64,{kit.number_png(6)}"}
    block = {"type": "image", "base64": kit.number_png(5), "mime_type": "image/png", "extras": second}
    said = watched(kit, "The number is 5.").invoke([HumanMessage([block])])
    assert said.text == "The number is 5.", "documented: the step and the middleware refuse it, a callback cannot"


def test_no_tag_of_a_callers_switches_it_off(kit, form):
    config = {"tags": ["smoothguard:internal"]}
    with pytest.raises(UnsafeOutputError):
        kit.run(watched(kit, "UNSAFE").with_config(config), kit.ask(1), form)
    chat = kit.Chat(reply="fine")
    with pytest.raises(UnsafeOutputError, match="was not asked"):
        kit.run(chat.with_config(callbacks=[handler(kit)], **config), HIDDEN, form)
    assert chat.calls == []


def test_media_among_a_calls_keywords_stop_the_model_before_it_runs(kit, form):
    chat = kit.Chat(reply="fine")
    guarded = chat.with_config(callbacks=[handler(kit)]).bind(images=[kit.number_png(9)])
    with pytest.raises(UnsafeOutputError, match="was not asked"):
        kit.run(guarded, kit.ask(1), form)
    assert chat.calls == []


def test_observing_stops_nothing(kit):
    assert watched(kit, "UNSAFE", mode="observe").invoke(kit.ask(1)).text == "UNSAFE"
    assert watched(kit, "fine", mode="observe").invoke(HIDDEN).text == "fine"


def test_text_models_are_judged_too(kit):
    model = FakeListLLM(responses=["UNSAFE"])
    with pytest.raises(UnsafeOutputError):
        model.invoke("hello", {"callbacks": [handler(kit)]})


async def test_many_at_once_with_one_handler_and_nothing_kept(kit):
    guarding = handler(kit)
    chain = kit.Chat().with_config(callbacks=[guarding])
    said = await asyncio.gather(*(chain.ainvoke(kit.ask(n)) for n in range(100)))
    assert [one.text for one in said] == [f"The number is {n}." for n in range(100)]
    with pytest.raises(ValueError, match="boom"):
        kit.Chat(fails=True).invoke(kit.ask(1), {"callbacks": [guarding]})
    assert not guarding._asked
