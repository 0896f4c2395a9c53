"""SmoothGuardMiddleware in `create_agent`'s own loop."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

pytest.importorskip("langchain", reason="the middleware's extra is not installed")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, ModelResponse, ModelRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.types import Command
from pydantic import BaseModel

from langchain_smoothguard import SmoothGuardCallbackHandler, SmoothGuardMiddleware
from langchain_smoothguard.messages import REMOVED
from sg_guardrails import (
    Answer,
    Audio,
    GuardError,
    Key,
    SamplingError,
    ToolCall,
    UnresolvableMediaError,
    UnsafeOutputError,
)
from sg_guardrails.testing import fake_embedder, fake_scorers, fake_sentiment

RAN = []


@tool
def paint(color: str) -> str:
    """Paint the wall."""
    RAN.append(color)
    return "painted"


@pytest.fixture(autouse=True)
def nothing_ran():
    RAN.clear()


@pytest.fixture
def agent_of(kit):
    class AgentModel(kit.Chat):
        """Answers from `script(clean number or None)`: noise has no number that the script knows."""

        script: object = None

        def _message(self, messages):
            self.calls.append(messages)
            numbers = kit.seen(messages)
            return self.script(messages, numbers)

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return ChatResult(generations=[ChatGeneration(message=self._message(messages))])

        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            await asyncio.sleep(0)
            return self._generate(messages)

        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            message = self._message(messages)
            calls = [
                {"name": call["name"], "args": kit.dumps(call["args"]), "id": call["id"], "index": 0}
                for call in message.tool_calls
            ]
            for word in message.text.split(" ") if message.text else []:
                yield ChatGenerationChunk(message=AIMessageChunk(word + " "))
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=calls))

        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            for chunk in self._stream(messages):
                yield chunk

    def build(script, *, guard=None, tools=(), around=(), inside=(), settings=None, **agent):
        model = AgentModel(script=script)
        middleware = SmoothGuardMiddleware(guard=guard or kit.make_guard(), **(settings or {}))
        return create_agent(model, tools=list(tools), middleware=[*around, middleware, *inside], **agent), model

    return build


def is_clean(kit, messages):
    """Whether the picture of number 5 is there without noise."""
    return any(kit.number_png(5) in str(message.content) for message in messages)


def saying(text):
    return lambda messages, numbers: AIMessage(text)


def texts(state):
    return [message.text for message in state["messages"]]


def ask_agent(agent, messages, is_async, config=None):
    value = {"messages": messages}
    return asyncio.run(agent.ainvoke(value, config)) if is_async else agent.invoke(value, config)


both = pytest.mark.parametrize("is_async", [False, True])
samplers = pytest.mark.parametrize("sampler", ["local", "agent_model"])


@both
def test_a_right_answer_goes_on(kit, agent_of, is_async):
    agent, model = agent_of(lambda messages, numbers: AIMessage(kit.says(numbers)))
    assert texts(ask_agent(agent, kit.ask(5), is_async)) == ["Which number?", "The number is 5."]
    assert len(model.calls) == 1


@both
def test_a_contradicted_answer_never_enters_the_state(kit, agent_of, is_async):
    agent, _ = agent_of(saying("The number is 99."), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert texts(ask_agent(agent, kit.ask(5), is_async, config)) == ["Which number?", "The number is 5."]
    history = [snapshot.values for snapshot in agent.get_state_history(config)]
    assert "number is 99" not in repr(history), "no checkpoint holds it"


@both
@samplers
def test_an_unsafe_answer_is_replaced_under_its_id(kit, agent_of, is_async, sampler):
    agent, model = agent_of(saying("UNSAFE words"), settings={"sampler": sampler})
    state = ask_agent(agent, kit.ask(5), is_async)
    assert texts(state) == ["Which number?", "[blocked]"]
    assert state["messages"][-1].id.startswith("lc_run-")
    assert len(model.calls) == (1 if sampler == "local" else 3)


@both
@samplers
@pytest.mark.parametrize("rewrite", ["redact", "safest"])
def test_a_rewritten_answer_is_what_the_policy_made_of_it(kit, agent_of, is_async, sampler, rewrite):
    rule = {"id": "link", "when": {"regex": [r"https?://\S+"]}, "action": "rewrite", "rewrite": rewrite}
    said = "The number is 5. See http://evil.test/?q=5"
    agent, _ = agent_of(saying(said), guard=kit.make_guard(said, rules=[rule]), settings={"sampler": sampler})
    final = ask_agent(agent, kit.ask(5), is_async)["messages"][-1]
    assert "evil.test" not in repr(final)
    assert rewrite == "safest" or final.text == "The number is 5. See [removed]"


@both
def test_the_agents_own_model_is_asked_with_noise_and_the_state_keeps_the_original(kit, agent_of, is_async):
    def hijacked(messages, numbers):
        return AIMessage("The number is 99." if is_clean(kit, messages) else "The number is 5.")

    agent, model = agent_of(hijacked, settings={"sampler": "agent_model"})
    question = kit.ask(5)
    state = ask_agent(agent, question, is_async)
    assert texts(state) == ["Which number?", "The number is 5."], "noise breaks the spell, the majority speaks"
    assert kit.seen(state["messages"]) == [5]
    assert len({call[0].content[1]["base64"] for call in model.calls}) == 3
    assert all(call[0].content[1].keys() == question[0].content[1].keys() for call in model.calls), "same dialect"


@both
def test_under_early_decision_the_agents_own_model_is_asked_in_rounds(kit, agent_of, is_async):
    early = {"copies": 10, "early": "exact"}
    agent, model = agent_of(
        saying("The number is 5."), guard=kit.make_guard(smoothing=early), settings={"sampler": "agent_model"}
    )
    assert texts(ask_agent(agent, kit.ask(5), is_async))[-1] == "The number is 5."
    assert len(model.calls) == 6, "its own call and five samples settle eleven votes"

    def hijacked(messages, numbers):
        return AIMessage("The number is 99." if is_clean(kit, messages) else "The number is 5.")

    agent, model = agent_of(hijacked, guard=kit.make_guard(smoothing=early), settings={"sampler": "agent_model"})
    state = ask_agent(agent, kit.ask(5), is_async)
    assert texts(state)[-1] == "The number is 5."
    assert state["messages"][-1].response_metadata["smoothguard"]["degraded"] is None
    assert 6 < len(model.calls) < 11, "one more round, not all"


AGENT_FORMS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")


@pytest.mark.parametrize("agent_form", AGENT_FORMS)
@samplers
def test_every_form_of_the_agent_is_guarded(kit, agent_of, agent_form, sampler):
    agent, _ = agent_of(saying("UNSAFE words"), settings={"sampler": sampler})
    value = {"messages": kit.ask(5)}

    async def streamed():
        return [state async for state in agent.astream(value, stream_mode="values")]

    match agent_form:
        case "invoke":
            state = agent.invoke(value)
        case "ainvoke":
            state = asyncio.run(agent.ainvoke(value))
        case "batch":
            (state,) = agent.batch([value])
        case "abatch":
            (state,) = asyncio.run(agent.abatch([value]))
        case "stream":
            *_, state = agent.stream(value, stream_mode="values")
        case _:
            *_, state = asyncio.run(streamed())
    assert texts(state) == ["Which number?", "[blocked]"]


@both
@samplers
def test_a_turn_keeps_the_policy_that_it_began_with(kit, agent_of, is_async, sampler):
    """The policy changes while the model answers: the turn is judged, whole, by the one it was read under."""

    class Changing(type(kit.make_guard())):
        taken = 0

        def __init__(self, first, then):
            self._guards = [first, then]

        @property
        def current(self):
            Changing.taken += 1
            return self._guards[min(Changing.taken, 2) - 1]

        @property
        def policy(self):
            pytest.fail("asked beside its current guard")

    rules = [{"id": "other", "when": {"words": ["5"]}, "action": "block"}]
    guard = Changing(kit.make_guard(), kit.make_guard(rules=rules))
    agent, _ = agent_of(saying("The number is 5."), guard=guard, settings={"sampler": sampler})
    assert texts(ask_agent(agent, kit.ask(5), is_async))[-1] == "The number is 5."
    assert Changing.taken == 1
    assert texts(ask_agent(agent, kit.ask(5), is_async))[-1] == "[blocked]", "the next turn is under the new one"


def call(color, number=1):
    return AIMessage("", tool_calls=[{"name": "paint", "args": {"color": color}, "id": f"call_{number}"}])


@pytest.fixture
def painter(kit):
    def script(messages, numbers):
        """Tricked by the clean picture into another call; ends after the tool."""
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("Done.")
        return call("black" if is_clean(kit, messages) else "white")

    return script


RULE = [
    {
        "id": "contradicts",
        "where": "candidate",
        "when": {"disagrees": "candidate"},
        "action": "rewrite",
        "rewrite": "representative",
    }
]


@both
def test_a_hijacked_tool_call_is_outvoted_before_the_tool_runs(kit, agent_of, is_async, painter):
    def local(copy):
        return Answer("Done.")

    guard = kit.make_guard(local, rules=RULE)
    agent, _ = agent_of(painter, guard=guard, tools=[paint], settings={"sampler": "agent_model"})
    state = ask_agent(agent, kit.ask(5), is_async)
    assert RAN == ["white"]
    assert state["messages"][1].tool_calls[0]["args"] == {"color": "white"}


@both
def test_a_call_that_the_local_model_would_not_make_is_withheld_before_the_tool_runs(kit, agent_of, is_async, painter):
    guard = kit.make_guard(lambda copy: Answer("", (ToolCall("paint", {"color": "white"}),)))
    agent, _ = agent_of(painter, guard=guard, tools=[paint])
    state = ask_agent(agent, kit.ask(5), is_async)
    assert RAN == []
    assert state["messages"][1].tool_calls == []
    told = guard.sampler.asked[0].prompt.messages[0]
    assert (told.role, "paint(color)" in told.text) == ("system", True)


@both
def test_a_picture_that_a_tool_returns_is_guarded_before_the_next_call(kit, agent_of, is_async):
    @tool
    def camera() -> list:
        """Look."""
        return kit.ask(7)[0].content

    def script(messages, numbers):
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("The number is 99.")
        return AIMessage("", tool_calls=[{"name": "camera", "args": {}, "id": "c1"}])

    agent, _ = agent_of(script, tools=[camera])
    state = ask_agent(agent, [HumanMessage("look")], is_async)
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == "The number is 7."


def test_a_clip_that_a_tool_node_stringified_reaches_the_guard_and_the_samples(kit, agent_of):
    @tool
    def microphone() -> list:
        """Listen."""
        return [{"type": "audio", "base64": kit.tone_wav(), "mime_type": "audio/wav"}]

    def script(messages, numbers):
        if isinstance(messages[-1], ToolMessage):
            assert isinstance(messages[-1].content, str), "the tool node has made a text of it"
            return AIMessage("A tone.")
        return AIMessage("", tool_calls=[{"name": "microphone", "args": {}, "id": "c1"}])

    guard = kit.make_guard("A tone.")
    agent, model = agent_of(script, guard=guard, tools=[microphone], settings={"sampler": "agent_model"})
    assert texts(agent.invoke({"messages": [HumanMessage("listen")]}))[-1] == "A tone."
    heard = [call[-1].content for call in model.calls if isinstance(call[-1], ToolMessage)]
    assert len(set(heard)) == 3, "the clean clip and two noisy ones, each in the tool node's dialect"
    local = kit.make_guard("A tone.")
    agent, _ = agent_of(script, guard=local, tools=[microphone])
    agent.invoke({"messages": [HumanMessage("listen")]})
    assert isinstance(local.sampler.asked[0].prompt.media[0], Audio)


HIDDEN = [HumanMessage([{"type": "text", "text": "look"}, {"type": "image", "url": "https://example.test/a.png"}])]


@both
def test_media_that_cannot_be_seen_are_taken_out_of_the_state_and_the_model_is_not_asked(kit, agent_of, is_async):
    agent, model = agent_of(saying("fine"), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    state = ask_agent(agent, HIDDEN, is_async, config)
    assert [message.type for message in state["messages"]] == ["human", "ai"]
    assert "example.test" not in repr(state)
    assert REMOVED in state["messages"][0].text
    assert state["messages"][1].text == "[error]"
    assert model.calls == []
    assert texts(ask_agent(agent, [HumanMessage("and now?")], is_async, config))[-1] == "fine", "the next turn is free"


def test_media_beside_the_content_are_taken_out_of_the_state_too(kit, agent_of):
    agent, model = agent_of(saying("fine"))
    hidden = HumanMessage("look", additional_kwargs={"images": [kit.number_png(5)]})
    state = agent.invoke({"messages": [hidden]})
    assert kit.number_png(5) not in repr(state)
    assert REMOVED in state["messages"][0].text
    assert (state["messages"][1].text, model.calls) == ("[error]", [])


@both
def test_the_users_token_stream_shows_only_judged_text(kit, agent_of, is_async):
    for sampler in ("local", "agent_model"):
        agent, _ = agent_of(saying("UNSAFE bad"), settings={"sampler": sampler})

        async def streamed(agent=agent):
            return [one async for one in agent.astream({"messages": kit.ask(1)}, stream_mode="messages")]

        tokens = asyncio.run(streamed()) if is_async else agent.stream({"messages": kit.ask(1)}, stream_mode="messages")
        assert "".join(token.text for token, _ in tokens) == "[blocked]"


@both
def test_on_unsafe_raise_leaves_the_state_as_it_was(kit, agent_of, is_async):
    settings = {"on_unsafe": "raise"}
    agent, _ = agent_of(saying("UNSAFE"), settings=settings, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(UnsafeOutputError):
        ask_agent(agent, kit.ask(1), is_async, config)
    assert [message.type for message in agent.get_state(config).values["messages"]] == ["human"]


def test_text_alone_samples_nothing(kit, agent_of):
    guard = kit.make_guard()
    agent, model = agent_of(saying("fine"), guard=guard, settings={"sampler": "agent_model"})
    assert texts(agent.invoke({"messages": [HumanMessage("hi")]}))[-1] == "fine"
    assert (len(model.calls), guard.sampler.asked) == (1, [])


def test_history_is_voted_on_again_with_each_new_question(kit, agent_of):
    guard = kit.make_guard()
    agent, _ = agent_of(
        lambda messages, numbers: AIMessage(kit.says(numbers)), guard=guard, checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke({"messages": kit.ask(5)}, config)
    agent.invoke({"messages": [HumanMessage("and again?")]}, config)
    assert len(guard.sampler.asked) == 6, "a vote belongs to these media with these messages"


def test_observing_changes_nothing(kit, agent_of):
    agent, _ = agent_of(saying("UNSAFE"), guard=kit.make_guard(mode="observe"))
    assert texts(agent.invoke({"messages": kit.ask(1)}))[-1] == "UNSAFE"
    assert texts(agent.invoke({"messages": HIDDEN}))[-1] == "UNSAFE"


@both
@pytest.mark.parametrize("field", ["url", "keyword"])
def test_observing_records_media_that_cannot_be_judged(kit, agent_of, is_async, field):
    recorded = []
    guard = kit.make_guard(mode="observe", unresolvable_media="error")
    guard = type(guard)(
        guard.policy,
        sampler=guard.sampler,
        embedder=fake_embedder,
        sentiment=fake_sentiment,
        scorers=fake_scorers(),
        emit=lambda outcome, **_: recorded.append((outcome.status, type(outcome.error))),
    )

    class Bound(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(model_settings={"images": [kit.number_png(9)]}))

        async def awrap_model_call(self, request, handler):
            return await handler(request.override(model_settings={"images": [kit.number_png(9)]}))

    around = [Bound()] if field == "keyword" else []
    agent, model = agent_of(saying("UNSAFE"), guard=guard, around=around)
    messages = HIDDEN if field == "url" else [HumanMessage("look")]
    assert texts(ask_agent(agent, messages, is_async))[-1] == "UNSAFE"
    assert (len(model.calls), recorded) == (1, [("error", UnresolvableMediaError)])


@both
@samplers
@pytest.mark.parametrize("words", [("ok", "UNSAFE"), ("UNSAFE", "ok"), ("fine", "ok")])
def test_every_message_of_a_response_is_judged(kit, agent_of, is_async, sampler, words):
    class Several(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            handler(request)
            return ModelResponse(result=[AIMessage(word) for word in words])

        async def awrap_model_call(self, request, handler):
            await handler(request)
            return ModelResponse(result=[AIMessage(word) for word in words])

    agent, _ = agent_of(saying("ok"), inside=[Several()], settings={"sampler": sampler})
    expected = ["[blocked]"] if "UNSAFE" in words else list(words)
    assert texts(ask_agent(agent, [HumanMessage("hi")], is_async))[1:] == expected
    if "UNSAFE" in words:
        assert texts(ask_agent(agent, kit.ask(5), is_async))[1:] == expected


# A sample that fails or hangs ---------------------------------------------------------------------------------------


def failing(kit, *those):
    """Right, but the samples of these numbers fail."""
    asked = count(1)

    def script(messages, numbers):
        if not is_clean(kit, messages) and next(asked) in those:
            raise ValueError("429")
        return AIMessage("The number is 5.")

    return script


@both
@pytest.mark.parametrize(("on_error", "said"), [("block", "[error]"), ("allow", "The number is 5.")])
def test_a_sample_that_fails_is_what_on_error_makes_of_it(kit, agent_of, is_async, on_error, said):
    guard = kit.make_guard(on_error=on_error)
    agent, model = agent_of(failing(kit, 1, 2), guard=guard, settings={"sampler": "agent_model"})
    state = ask_agent(agent, kit.ask(5), is_async)
    assert texts(state)[-1] == said
    assert len(model.calls) == 3, "the others of its round are waited for, no further is asked"
    guard = kit.make_guard(on_error="raise")
    agent, _ = agent_of(failing(kit, 1, 2), guard=guard, settings={"sampler": "agent_model"})
    with pytest.raises(SamplingError, match="1 of 3 copies"):
        ask_agent(agent, kit.ask(5), is_async)


@both
def test_a_sample_that_fails_turns_no_vote_that_the_others_settle(kit, agent_of, is_async):
    guard = kit.make_guard(smoothing={"copies": 6})
    agent, _ = agent_of(failing(kit, 3), guard=guard, settings={"sampler": "agent_model"})
    assert texts(ask_agent(agent, kit.ask(5), is_async))[-1] == "The number is 5."

    def hijacked(messages, numbers):
        return AIMessage("The number is 99.") if is_clean(kit, messages) else right(messages, numbers)

    right = failing(kit, 3)
    agent, _ = agent_of(hijacked, guard=guard, settings={"sampler": "agent_model"})
    final = ask_agent(agent, kit.ask(5), is_async)["messages"][-1]
    assert final.text == "The number is 5."
    assert "6 of 7" in final.response_metadata["smoothguard"]["degraded"]


@both
def test_no_failed_sample_lets_a_forbidden_answer_pass(kit, agent_of, is_async):
    def script(messages, numbers):
        if not is_clean(kit, messages):
            raise ValueError("429")
        return AIMessage("UNSAFE")

    for on_error in ("block", "allow"):
        agent, _ = agent_of(script, guard=kit.make_guard(on_error=on_error), settings={"sampler": "agent_model"})
        assert texts(ask_agent(agent, kit.ask(5), is_async))[-1] in ("[blocked]", "[error]")


@both
@pytest.mark.parametrize("without_clean", [False, True])
@pytest.mark.parametrize(("on_timeout", "said"), [("block", "[error]"), ("allow", "The number is 5.")])
def test_samples_that_hang_are_left_at_the_deadline(kit, agent_of, is_async, on_timeout, said, without_clean):
    released, cancelled = threading.Event(), []

    def hangs(messages, numbers):
        if not is_clean(kit, messages):
            assert released.wait(60)
        return AIMessage("The number is 5.")

    smoothing = {"copies": 2, "include_clean": not without_clean}
    guard = kit.make_guard(limits={"deadline_seconds": 0.4}, on_timeout=on_timeout, smoothing=smoothing)
    agent, model = agent_of(hangs, guard=guard, settings={"sampler": "agent_model"})

    async def generate(self, messages, **kwargs):
        if is_clean(kit, messages):
            return ChatResult(generations=[ChatGeneration(message=AIMessage("The number is 5."))])
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(1)

    type(model)._agenerate = generate
    try:
        final = ask_agent(agent, kit.ask(5), is_async)["messages"][-1]
        assert not released.is_set()
    finally:
        released.set()
    assert final.text == said
    assert len(cancelled) == (2 if is_async else 0)


@both
def test_a_graphs_own_control_flow_is_no_failed_sample(kit, agent_of, is_async):
    def script(messages, numbers):
        if not is_clean(kit, messages):
            raise GraphInterrupt(())
        return AIMessage("The number is 5.")

    agent, _ = agent_of(script, settings={"sampler": "agent_model"}, checkpointer=InMemorySaver())
    state = ask_agent(agent, kit.ask(5), is_async, {"configurable": {"thread_id": "1"}})
    assert [message.type for message in state["messages"]] == ["human"]


@both
def test_a_handler_on_the_model_does_not_judge_the_samples(kit, agent_of, is_async):
    guarding = SmoothGuardCallbackHandler(guard=kit.make_guard("The number is 5."))

    def script(messages, numbers):
        return AIMessage("The number is 5." if is_clean(kit, messages) else "UNSAFE")

    agent, model = agent_of(script, guard=kit.make_guard(rules=RULE), settings={"sampler": "agent_model"})
    model.callbacks = [guarding]
    assert len(texts(ask_agent(agent, kit.ask(5), is_async))) == 2, "it raised for none of them"
    assert (len(model.calls), len(guarding._asked)) == (3, 0)


@both
def test_outside_of_a_retry_the_samples_are_not_repeated(kit, agent_of, is_async):
    failures = iter([True])

    def flaky(messages, numbers):
        if next(failures, False):
            raise ValueError("once")
        return AIMessage("The number is 5.")

    agent, model = agent_of(
        flaky, inside=[ModelRetryMiddleware(initial_delay=0.0, jitter=False)], settings={"sampler": "agent_model"}
    )
    assert texts(ask_agent(agent, kit.ask(5), is_async))[-1] == "The number is 5."
    assert len(model.calls) == 4, "one failure, one answer, two samples"


@both
def test_a_person_is_asked_about_the_majoritys_call_only(kit, agent_of, painter, is_async):
    agent, _ = agent_of(
        painter,
        guard=kit.make_guard(rules=RULE),
        tools=[paint],
        around=[HumanInTheLoopMiddleware(interrupt_on={"paint": True})],
        settings={"sampler": "agent_model"},
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}
    waiting = ask_agent(agent, kit.ask(5), is_async, config)
    (request,) = waiting["__interrupt__"][0].value["action_requests"]
    assert request["args"] == {"color": "white"}
    approved = Command(resume={"decisions": [{"type": "approve"}]})
    asyncio.run(agent.ainvoke(approved, config)) if is_async else agent.invoke(approved, config)
    assert RAN == ["white"]


def test_a_system_prompt_reaches_the_samples(kit, agent_of):
    agent, model = agent_of(
        lambda messages, numbers: AIMessage("The number is 5."),
        settings={"sampler": "agent_model"},
        system_prompt="Be brief.",
    )
    agent.invoke({"messages": kit.ask(5)})
    assert [[message.type for message in call] for call in model.calls] == [["system", "human"]] * 3


def test_the_guards_key_seeds_the_samples_so_that_they_can_be_replayed(kit, agent_of):
    sampled = []
    for secret in (b"one secret of sixteen", b"one secret of sixteen", b"another secret of its own"):
        guard = kit.make_guard(key=Key(secret))
        agent, model = agent_of(saying("fine"), guard=guard, settings={"sampler": "agent_model"})
        agent.invoke({"messages": kit.ask(5)})
        sampled.append({call[0].content[1]["base64"] for call in model.calls})
    assert sampled[0] == sampled[1]
    assert sampled[0] & sampled[2] == {kit.number_png(5)}, "only the clean picture is the same under another key"


class Wall(BaseModel):
    """The wall's color."""

    color: str


def wall(color):
    return AIMessage("", tool_calls=[{"name": "Wall", "args": {"color": color}, "id": "w1"}])


def white_wall(copy):
    return Answer("", (ToolCall("Wall", {"color": "white"}),))


@both
def test_structured_output_is_the_majoritys(kit, agent_of, is_async):
    agent, _ = agent_of(
        lambda messages, numbers: wall("black" if is_clean(kit, messages) else "white"),
        settings={"sampler": "agent_model"},
        response_format=ToolStrategy(Wall),
    )
    state = ask_agent(agent, kit.ask(5), is_async, {"recursion_limit": 10})
    assert state["structured_response"] == Wall(color="white")
    assert "black" not in repr(state)


@both
@pytest.mark.parametrize("on_unsafe", ["policy", "replace"])
def test_structured_output_that_is_withheld_raises_and_the_agent_does_not_go_round(kit, agent_of, is_async, on_unsafe):
    settings = {"on_unsafe": on_unsafe}
    agent, model = agent_of(
        lambda *_: wall("black"),
        guard=kit.make_guard(white_wall),
        settings=settings,
        response_format=ToolStrategy(Wall),
    )
    for messages, asked in ((kit.ask(5), 1), (HIDDEN, 0)):
        model.calls.clear()
        with pytest.raises(UnsafeOutputError):
            ask_agent(agent, messages, is_async, {"recursion_limit": 10})
        assert len(model.calls) == asked


@samplers
def test_agreed_structured_output_goes_on(kit, agent_of, sampler):
    guard, settings = kit.make_guard(white_wall), {"sampler": sampler}
    agent, _ = agent_of(lambda *_: wall("white"), guard=guard, settings=settings, response_format=ToolStrategy(Wall))
    state = agent.invoke({"messages": kit.ask(5)}, {"recursion_limit": 10})
    assert state["structured_response"] == Wall(color="white")


@samplers
def test_one_agent_serves_many_at_once_each_with_its_own_picture(kit, agent_of, sampler):
    # Noise that 8 bits round away: each sample reads the number of its own picture.
    guard = kit.make_guard(smoothing={"copies": 1, "image": {"space": "pixel", "sigma": 1e-6}})
    agent, _ = agent_of(
        lambda messages, numbers: AIMessage(kit.says(numbers)), guard=guard, settings={"sampler": sampler}
    )

    def last(state):
        return state["messages"][-1].text

    with ThreadPoolExecutor(64) as pool:
        said = list(pool.map(lambda n: last(agent.invoke({"messages": kit.ask(n)})), range(64)))
    assert said == [f"The number is {n}." for n in range(64)]

    async def tasks():
        return await asyncio.gather(*(agent.ainvoke({"messages": kit.ask(n)}) for n in range(64)))

    assert [last(state) for state in asyncio.run(tasks())] == [f"The number is {n}." for n in range(64)]


def test_settings_are_checked(kit):
    with pytest.raises(GuardError, match="sampler"):
        SmoothGuardMiddleware(guard=kit.make_guard(), sampler="both")
