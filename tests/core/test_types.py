"""The nouns: prompts and their digests, recorded answers, outcomes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg_guardrails import Answer, GuardError, Message, Outcome, Prompt, ToolCall, UnsafeOutputError
from sg_guardrails.testing import fake_audio, fake_image


def test_ask_puts_media_before_the_question():
    image = fake_image()
    prompt = Prompt.ask("what?", image, system="be kind")
    assert prompt.messages == (Message("system", ("be kind",)), Message("user", (image, "what?")))
    assert prompt.media == (image,)
    assert prompt.question == "what?"
    assert Prompt(()).question == ""


def test_digest_tells_prompts_apart():
    image, other = fake_image(), fake_image((0, 0, 1))
    prompts = [
        Prompt.ask("what?", image),
        Prompt.ask("what?", other),
        Prompt.ask("what", image),
        Prompt.ask("what?"),
        Prompt.ask("what?", image, image),
        Prompt.ask("what?", fake_audio()),
        Prompt((Message("user", ("what?", image)),)),
        Prompt((Message("assistant", (image, "what?")),)),
        Prompt((Message("user", (image,)), Message("user", ("what?",)))),
        Prompt((Message("user", (image, "wh", "at?")),)),
        Prompt.ask("what?", image, system="x"),
        Prompt.ask(f"t{image.digest}"),
        Prompt((Message("user", ("a", "\x1e", "system", "b")),)),
        Prompt((Message("user", ("a",)), Message("system", ("b",)))),
        Prompt((Message("user", ("a", "rsystem1", "tb")),)),
    ]
    assert len({prompt.digest for prompt in prompts}) == len(prompts)
    assert prompts[0].digest == Prompt.ask("what?", fake_image()).digest


@given(st.text())
def test_any_text_has_a_digest(text):
    assert len(Prompt.ask(text).digest) == 64


def test_answers_are_parsed_from_what_is_recorded():
    assert Answer.parse("hi") == Answer("hi")
    assert Answer.parse({"text": None, "tool_calls": None}) == Answer("")
    call = {"name": "f", "arguments": {"b": 1, "a": [2]}}
    parsed = Answer.parse({"text": "x", "tool_calls": [call]})
    assert parsed.tool_calls[0].canonical == ToolCall("f", {"a": [2], "b": 1}).canonical
    assert Answer.parse({"tool_calls": [{"name": "f", "args": {"a": 1}}]}).tool_calls[0].arguments == {"a": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "tool_calls", "name", "arguments", "x"]), inner, max_size=3)
    ),
)


@given(json_values)
def test_parsing_any_json_gives_an_answer_or_a_guard_error(value):
    try:
        assert isinstance(Answer.parse(value), Answer)
    except GuardError:
        pass


@pytest.mark.parametrize(
    "answer",
    [Answer(None), Answer(b"x"), Answer("x", None), Answer("x", ["f"]), Answer("", (ToolCall(None),)), 7, None, ["x"]],
)
def test_an_answer_past_its_types_is_refused_where_it_is_parsed(answer):
    with pytest.raises(GuardError):
        Answer.parse(answer)


def test_an_unsafe_output_error_survives_pickling():
    error = UnsafeOutputError("no", Outcome("x", "blocked", None))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.outcome.status) == ("no", "blocked")


def test_raise_if_blocked():
    passed = Outcome("fine", "passed", Answer("fine"))
    assert passed.raise_if_blocked() is passed
    with pytest.raises(UnsafeOutputError) as caught:
        Outcome("policy text", "blocked", None, answers=(Answer("the secret answer"),)).raise_if_blocked()
    assert caught.value.outcome.status == "blocked"
    assert "secret" not in str(caught.value)
    with pytest.raises(UnsafeOutputError, match="could not be judged"):
        Outcome("policy text", "error", None, error=GuardError("broken")).raise_if_blocked()
    assert Outcome("fine", "error", Answer("fine")).raise_if_blocked().text == "fine"
