"""SmoothGuardLLM under the framework's own agents and chat engines: stream, tools, scratchpad, memory."""

import asyncio

import pytest
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, TextBlock, ToolCallBlock
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool

from llama_index_smoothguard import SmoothGuardLLM
from sg_guardrails import Answer, GuardError, ToolCall, UnsafeOutputError

RAN = []


def paint(color: str) -> str:
    """Paint the wall."""
    RAN.append(color)
    return "painted"


@pytest.fixture(autouse=True)
def nothing_ran():
    RAN.clear()


@pytest.fixture
def tool_llm(kit):
    class Caller(kit.LLM, FunctionCallingLLM):
        """Asks for a tool first, says its reply after."""

        color: str | None = "black"
        under_noise: str | None = None

        @property
        def metadata(self):
            return LLMMetadata(is_chat_model=True, is_function_calling_model=True)

        def _prepare_chat_with_tools(self, tools, user_msg=None, chat_history=None, **kwargs):
            return {"messages": [*(chat_history or []), *([user_msg] if user_msg else [])]}

        def get_tool_calls_from_response(self, response, error_on_no_tool_call=True, **kwargs):
            found = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
            return [ToolSelection(tool_id="1", tool_name=b.tool_name, tool_kwargs=b.tool_kwargs) for b in found]

        @llm_chat_callback()
        async def astream_chat(self, messages, **kwargs):
            async def chunks():
                done = self.color is None or any(message.role.value == "tool" for message in messages)
                tricked = kit.seen(messages) == [5]
                color = self.color if tricked or self.under_noise is None else self.under_noise
                block = ToolCallBlock(tool_call_id="1", tool_name="paint", tool_kwargs={"color": color})
                blocks = [TextBlock(text=self._says(messages))] if done else [block]
                yield ChatResponse(message=ChatMessage(role="assistant", blocks=blocks), delta=self._says(messages))

            return chunks()

    return Caller


def run_agent(agent, message, memory):
    async def run():
        handler = agent.run(user_msg=message, memory=memory)
        deltas = [event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
        return str(await handler), "".join(deltas)

    return asyncio.run(run())


def test_a_function_agents_unsafe_answer_reaches_neither_stream_nor_memory(kit, tool_llm):
    llm = SmoothGuardLLM(llm=tool_llm(reply="UNSAFE", color=None), guard=kit.make_guard())
    memory = ChatMemoryBuffer.from_defaults(llm=kit.LLM())
    said, streamed = run_agent(FunctionAgent(llm=llm, tools=[]), kit.picture(5)[0], memory)
    assert (said, streamed) == ("[blocked]", "[blocked]")
    assert "UNSAFE" not in repr(memory.get_all())


def test_a_hijacked_tool_call_is_withheld_before_the_tool_runs(kit, tool_llm):
    def local(copy):
        return Answer("", (ToolCall("paint", {"color": "white"}),))

    guard = kit.make_guard(local)
    agent = FunctionAgent(
        llm=SmoothGuardLLM(llm=tool_llm(reply="Done."), guard=guard), tools=[FunctionTool.from_defaults(paint)]
    )
    run_agent(agent, kit.picture(5)[0], ChatMemoryBuffer.from_defaults(llm=kit.LLM()))
    assert RAN == []
    told = guard.sampler.asked[0].prompt.messages[0]
    assert (told.role, "paint(color)" in told.text) == ("system", True)


def test_an_agreed_tool_call_runs(kit, tool_llm):
    def local(copy):
        done = any(message.role == "tool" for message in copy.prompt.messages)
        return Answer("Done.") if done else Answer("", (ToolCall("paint", {"color": "black"}),))

    llm = SmoothGuardLLM(llm=tool_llm(reply="Done."), guard=kit.make_guard(local))
    agent = FunctionAgent(llm=llm, tools=[FunctionTool.from_defaults(paint)])
    said, _ = run_agent(agent, kit.picture(5)[0], ChatMemoryBuffer.from_defaults(llm=kit.LLM()))
    assert (said, RAN) == ("Done.", ["black"])


def test_a_react_agent_is_guarded(kit):
    unsafe = "Thought: I can answer without using any more tools.\nAnswer: UNSAFE"
    rules = [{"id": "w", "when": {"words": ["UNSAFE"]}, "action": "raise"}]
    llm = SmoothGuardLLM(llm=kit.LLM(reply=unsafe), guard=kit.make_guard(rules=rules))
    with pytest.raises(UnsafeOutputError):
        run_agent(ReActAgent(llm=llm, tools=[]), kit.picture(5)[0], ChatMemoryBuffer.from_defaults(llm=kit.LLM()))


def test_a_chat_engines_memory_holds_judged_text_only(kit):
    engine = SimpleChatEngine.from_defaults(llm=SmoothGuardLLM(llm=kit.LLM(reply="UNSAFE"), guard=kit.make_guard()))
    assert str(engine.chat("hello")) == "[blocked]"
    assert "UNSAFE" not in repr(engine.chat_history)


def test_an_llm_without_functions_says_so(kit):
    with pytest.raises(GuardError, match="calls no functions"):
        SmoothGuardLLM(llm=kit.LLM(), guard=kit.make_guard()).chat_with_tools(
            [FunctionTool.from_defaults(paint)], user_msg="hi"
        )


def react(answer):
    return f"Thought: I can answer without using any more tools.\nAnswer: {answer}"


def test_a_react_agents_contradicted_answer_is_replaced_before_it_is_read(kit):
    """The agent's own format is what is judged and handed on: the guard's model must speak it too."""
    llm = SmoothGuardLLM(llm=kit.LLM(reply=react("The number is 99.")), guard=kit.make_guard(react("The number is 5.")))
    memory = ChatMemoryBuffer.from_defaults(llm=kit.LLM())
    said, streamed = run_agent(ReActAgent(llm=llm, tools=[]), kit.picture(5)[0], memory)
    assert said == "The number is 5."
    assert "99" not in streamed
    assert "99" not in repr(memory.get_all())


def test_a_policys_text_ends_a_react_agents_run_as_its_answer(kit):
    llm = SmoothGuardLLM(llm=kit.LLM(reply=react("UNSAFE")), guard=kit.make_guard())
    memory = ChatMemoryBuffer.from_defaults(llm=kit.LLM())
    said, streamed = run_agent(ReActAgent(llm=llm, tools=[]), kit.picture(5)[0], memory)
    assert (said, streamed) == ("[blocked]", "[blocked]")
    assert "UNSAFE" not in repr(memory.get_all())


def test_a_workflow_of_agents_keeps_judged_text_only(kit, tool_llm):
    guard = kit.make_guard(lambda copy: Answer("Done."))
    llm = SmoothGuardLLM(llm=tool_llm(reply="UNSAFE", color=None), guard=guard)
    first = FunctionAgent(name="first", description="d", llm=llm, tools=[], can_handoff_to=["second"])
    second = FunctionAgent(name="second", description="d", llm=llm, tools=[])
    memory = ChatMemoryBuffer.from_defaults(llm=kit.LLM())
    workflow = AgentWorkflow(agents=[first, second], root_agent="first")

    async def run():
        handler = workflow.run(user_msg=kit.picture(5)[0], memory=memory)
        events = [repr(event) async for event in handler.stream_events()]
        return str(await handler), "".join(events), repr(await handler.ctx.store.get_state())

    said, events, state = asyncio.run(run())
    assert said == "[blocked]"
    for place in (events, state, repr(memory.get_all())):
        assert "UNSAFE" not in place, "neither events, nor the scratchpad in the state, nor the memory"


def test_the_agents_own_model_outvotes_a_hijacked_call_before_the_tool_runs(kit, tool_llm):
    inner = tool_llm(reply="Done.", color="black", under_noise="white")
    llm = SmoothGuardLLM(llm=inner, guard=kit.make_guard(), sampler="agent_model")
    agent = FunctionAgent(llm=llm, tools=[FunctionTool.from_defaults(paint)])
    said, _ = run_agent(agent, kit.picture(5)[0], ChatMemoryBuffer.from_defaults(llm=kit.LLM()))
    assert (said, RAN) == ("Done.", ["white"])


@pytest.mark.parametrize("engine", ["simple", "context", "condense_plus_context"])
@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
def test_chat_engines_hand_on_and_remember_judged_text_only(kit, engine, form):
    llm = SmoothGuardLLM(llm=kit.LLM(reply="UNSAFE"), guard=kit.make_guard())
    chat = {
        "simple": lambda: SimpleChatEngine.from_defaults(llm=llm),
        "context": lambda: ContextChatEngine.from_defaults(retriever=kit.Shelf(), llm=llm),
        "condense_plus_context": lambda: CondensePlusContextChatEngine.from_defaults(kit.Shelf(), llm=llm),
    }[engine]()

    async def talked():
        response = await getattr(chat, form)("picture of a wall")
        if form == "achat":
            return str(response)
        return "".join([token async for token in response.async_response_gen()])

    if form.startswith("a"):
        said = asyncio.run(talked())
    else:
        response = getattr(chat, form)("picture of a wall")
        said = str(response) if form == "chat" else "".join(response.response_gen)
    assert said == "[blocked]"
    assert "UNSAFE" not in repr(chat.chat_history)
