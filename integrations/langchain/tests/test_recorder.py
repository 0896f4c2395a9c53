"""The recorder: the right messages under load and in graphs, nothing kept, nothing sent to callers' handlers."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_smoothguard import SmoothGuardRunnable, recorder
from langchain_smoothguard.recorder import MOST_CALLS, Recorder, unseen
from sg_guardrails import GuardError


def test_64_threads_each_get_their_own_picture(kit):
    chain = kit.Chat() | StrOutputParser() | kit.step()
    with ThreadPoolExecutor(64) as pool:
        said = list(pool.map(lambda n: chain.invoke(kit.ask(n)), range(320)))
    assert said == [f"The number is {n}." for n in range(320)]


def test_64_threads_of_lying_models_are_each_put_right_by_their_own_picture(kit):
    chain = kit.Chat(reply="The number is 9999.") | StrOutputParser() | kit.step()
    with ThreadPoolExecutor(64) as pool:
        said = list(pool.map(lambda n: chain.invoke(kit.ask(n)), range(256)))
    assert said == [f"The number is {n}." for n in range(256)]


@pytest.mark.parametrize("parser", [False, True])
async def test_500_tasks_each_get_their_own_picture(kit, parser):
    chat = kit.Chat(reply="The number is 9999.")
    chain = (chat | StrOutputParser() if parser else chat) | kit.step()
    said = await asyncio.gather(*(chain.ainvoke(kit.ask(n)) for n in range(500)))
    assert [getattr(one, "text", one) for one in said] == [f"The number is {n}." for n in range(500)]


async def test_100_streams_at_once(kit):
    chain = kit.Chat(reply="The number is 9999.") | StrOutputParser() | kit.step()

    async def one(n):
        return [chunk async for chunk in chain.astream(kit.ask(n))]

    assert await asyncio.gather(*(one(n) for n in range(100))) == [[f"The number is {n}."] for n in range(100)]


async def test_a_guard_object_serves_threads_and_several_loops(kit):
    chain = kit.Chat() | kit.step()
    said = await asyncio.gather(*(asyncio.to_thread(asyncio.run, chain.ainvoke(kit.ask(n))) for n in range(8)))
    assert [one.text for one in said] == [f"The number is {n}." for n in range(8)]


def test_an_agents_graph_with_the_guard_in_a_later_node(kit):
    guard = kit.make_guard()
    step = SmoothGuardRunnable(guard=guard)
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda s: {"messages": [kit.Chat(reply="The number is 9999.").invoke(s["messages"])]})
    graph.add_node("noise", lambda s: (kit.Chat(reply="noise").invoke(kit.ask(77)), {})[1])
    graph.add_node("guard", lambda s: {"messages": [step.invoke(s["messages"][-1])]})
    for edge in ((START, "model"), ("model", "noise"), ("noise", "guard"), ("guard", END)):
        graph.add_edge(*edge)
    app = graph.compile()
    said = app.invoke({"messages": kit.ask(5)})["messages"]
    assert [message.text for message in said[1:]] == ["The number is 5."], "replaced under its id in the graph's state"

    async def many():
        return await asyncio.gather(*(app.ainvoke({"messages": kit.ask(n)}) for n in range(20)))

    assert [state["messages"][-1].text for state in asyncio.run(many())] == [f"The number is {n}." for n in range(20)]


def states(app, value, form):
    """Every state of the graph that the caller sees; in batches, the last."""

    async def collected():
        return [state async for state in app.astream(value, stream_mode="values")]

    match form:
        case "invoke":
            return [app.invoke(value)]
        case "ainvoke":
            return [asyncio.run(app.ainvoke(value))]
        case "batch":
            return app.batch([value])
        case "abatch":
            return asyncio.run(app.abatch([value]))
        case "stream":
            return list(app.stream(value, stream_mode="values"))
        case _:
            return asyncio.run(collected())


@pytest.mark.parametrize("parser", [False, True])
def test_a_whole_chain_inside_a_graphs_node(kit, form, parser):
    chain = kit.Chat(reply="The number is 9999.") | kit.step()
    chain = chain | StrOutputParser() | RunnableLambda(AIMessage) if parser else chain
    graph = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(lambda s: s["messages"]) | chain | (lambda said: {"messages": [said]}))
    graph.add_edge(START, "model")
    graph.add_edge("model", END)
    seen = states(graph.compile(), {"messages": kit.ask(5)}, form)
    assert seen[-1]["messages"][-1].text == "The number is 5."
    assert "9999" not in repr(seen), "no state that the caller sees holds it"


def test_the_guard_as_a_node_of_its_own(kit, form):
    step = kit.step()
    graph = StateGraph(MessagesState)
    model = kit.Chat(reply="The number is 9999.")
    graph.add_node("model", RunnableLambda(lambda s: s["messages"]) | model | (lambda said: {"messages": [said]}))
    graph.add_node("guard", RunnableLambda(lambda s: s["messages"][-1]) | step | (lambda said: {"messages": [said]}))
    for ends in ((START, "model"), ("model", "guard"), ("guard", END)):
        graph.add_edge(*ends)
    seen = states(graph.compile(), {"messages": kit.ask(5)}, form)
    assert [message.text for message in seen[-1]["messages"][1:]] == ["The number is 5."], "replaced under its id"


def test_a_model_inside_a_tool(kit):
    @tool
    def look(number: int) -> str:
        """Look."""
        return kit.Chat(reply="The number is 9999.").invoke(kit.ask(number)).text

    assert (look | kit.step()).invoke({"number": 3}) == "The number is 3."


def test_a_cached_answer_is_found(kit):
    chat = kit.Chat(reply="The number is 9999.", cache=InMemoryCache())
    chain = chat | kit.step()
    assert [chain.invoke(kit.ask(3)).text for _ in range(2)] == ["The number is 3."] * 2
    assert len(chat.calls) == 1


@pytest.mark.parametrize("callbacks", [[], None])
def test_callers_that_pass_empty_callbacks_are_recorded_too(kit, callbacks):
    said = (kit.Chat(reply="The number is 9999.") | kit.step()).invoke(kit.ask(3), {"callbacks": callbacks})
    assert said.text == "The number is 3."


def test_a_text_model_saw_only_its_text(kit):
    guard = kit.make_guard()
    chain = FakeListLLM(responses=["UNSAFE", "fine"]) | SmoothGuardRunnable(guard=guard)
    assert [chain.invoke("hello"), chain.invoke("hello")] == ["[blocked]", "fine"]
    assert guard.sampler.asked == []


def test_a_model_called_in_a_raw_thread_leaves_the_runs_own_messages(kit):
    def in_thread(messages):
        box = []
        thread = threading.Thread(target=lambda: box.append(kit.Chat(reply="The number is 9999.").invoke(messages)))
        thread.start()
        thread.join()
        return box[0]

    chain = RunnableLambda(in_thread) | kit.step()
    assert chain.invoke(kit.ask(3)).text == "The number is 3."
    with pytest.raises(GuardError, match="cannot be told"):  # a stream's run does not know its input
        list(chain.stream(kit.ask(3)))


def test_an_abandoned_stream_and_a_cancelled_call_leave_nothing(kit):
    stream = iter((kit.Chat() | StrOutputParser() | kit.step(settings={"recorder": "process"})).stream(kit.ask(1)))
    next(stream)
    stream.close()
    half = iter((kit.Chat() | StrOutputParser()).stream(kit.ask(1)))
    next(half)
    half.close()

    class Slow(kit.Chat):
        async def _agenerate(self, *args, **kwargs):
            await asyncio.Event().wait()

    async def cancelled():
        task = asyncio.create_task((Slow() | kit.step()).ainvoke(kit.ask(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert recorder._RECORDER.live == 0


def test_a_failing_model_leaves_nothing_and_its_error_stands(kit):
    with pytest.raises(ValueError, match="boom"):
        (kit.Chat(fails=True) | kit.step()).invoke(kit.ask(1))


def result(text, **fields):
    return LLMResult(generations=[[ChatGeneration(message=AIMessage(text, **fields))]])


def recorded(book, scope, messages, text, *, tags=None, **fields):
    run = uuid4()
    book.on_chat_model_start({}, [messages], run_id=run, parent_run_id=scope, tags=tags)
    book.on_llm_end(result(text, **fields), run_id=run)


def test_the_guards_own_sampling_calls_are_not_recorded():
    book, scope = Recorder(), uuid4()
    book.on_chain_start({}, {"input": ""}, run_id=scope)
    unseen().run(recorded, book, scope, [HumanMessage("hi")], "hello")
    assert book.find(scope, "hello") is None
    recorded(book, scope, [HumanMessage("hi")], "hello", tags=["smoothguard:internal"])
    assert book.find(scope, "hello") is not None, "a tag may come from any caller's config"


def test_an_id_beats_a_text_and_a_text_beats_order():
    book, scope = Recorder(), uuid4()
    book.on_chain_start({}, {}, run_id=scope)
    first, second = [HumanMessage("first")], [HumanMessage("second")]
    recorded(book, scope, first, "same", id="a")
    recorded(book, scope, second, "same", id="b")
    assert book.find(scope, AIMessage("changed since", id="a")) is first
    assert book.find(scope, "same") is second
    recorded(book, scope, first, "other")
    assert book.find(scope, "same") is second


def test_a_clip_that_a_tool_node_stringified_counts_as_media_of_its_call(kit):
    book, scope = Recorder(), uuid4()
    asked = [HumanMessage("what does it say?")]
    book.on_chain_start({}, {"messages": asked}, run_id=scope)
    block = {"type": "audio", "base64": kit.tone_wav(), "mime_type": "audio/wav"}
    heard = [*asked, ToolMessage(kit.dumps([block]), tool_call_id="1")]
    recorded(book, scope, heard, "it says hello")
    assert book.find(scope, "reworded since") is heard
    other = [*asked, ToolMessage(kit.dumps([{**block, "base64": kit.tone_flac()}]), tool_call_id="1")]
    recorded(book, scope, other, "it says bye")
    assert book.find(scope, "reworded since") is None, "two clips are in play"


def test_a_run_keeps_a_bounded_number_of_calls_and_forgets_them_when_it_ends():
    book, outer, inner = Recorder(), uuid4(), uuid4()
    book.on_chain_start({}, {}, run_id=outer)
    book.on_chain_start({}, {}, run_id=inner, parent_run_id=outer)
    for n in range(MOST_CALLS + 5):
        recorded(book, inner, [HumanMessage(f"q{n}")], f"a{n}")
    book.on_chain_end({}, run_id=inner)
    assert book.find(outer, "a4")[0].text == f"q{MOST_CALLS + 4}", "the oldest are gone: no match, so the last call"
    assert book.find(outer, "a5")[0].text == "q5"
    book.on_chain_error(ValueError(), run_id=outer)
    assert book.live == 0
    assert book.find(outer, "a5") is None
