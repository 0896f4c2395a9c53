"""SmoothGuardQueryEngine around the framework's own engines."""

import asyncio
import base64
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from llama_index.core import Settings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.base.response.schema import AsyncStreamingResponse, PydanticResponse, Response, StreamingResponse
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import (
    CustomQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.query_engine.sub_question_query_engine import SubQuestion
from llama_index.core.question_gen.types import BaseQuestionGenerator
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageDocument, ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool
from pydantic import BaseModel, Field

from llama_index_smoothguard import SmoothGuardQueryEngine, UnresolvableMediaError, capture
from sg_guardrails import GuardError, PolicyError, UnsafeOutputError
from sg_guardrails.testing import fake_image


def b64(data):
    return base64.b64encode(data).decode()


def test_it_is_a_query_engine(kit):
    assert isinstance(kit.engine(), BaseQueryEngine)
    assert "BaseQueryEngine" in [kind.__name__ for kind in SmoothGuardQueryEngine.__mro__]


# The verdict --------------------------------------------------------------------------------------------------------


def test_a_right_answer_goes_on_with_its_sources_and_metadata(kit, form, streaming):
    engine = kit.engine(streaming=streaming)
    response = kit.ask(engine, "pictures 4 and 5", form)
    assert kit.text(response) == "The number is 5."
    assert [type(item.node) for item in response.source_nodes] == [TextNode, ImageNode, ImageNode]
    assert response.metadata["smoothguard"]["status"] == "passed"
    assert response.source_nodes[0].node.node_id in response.metadata
    asked = engine.guard.sampler.asked
    assert [[kit.number_of(medium) for medium in copy.prompt.media] for copy in asked] == [[4, 5]] * 3
    assert "pictures 4 and 5" in asked[0].prompt.question


def test_a_contradicted_answer_is_replaced_by_the_majoritys_words(kit, form, streaming):
    response = kit.ask(kit.engine("The number is 99.", streaming=streaming), "picture 5", form)
    assert kit.text(response) == "The number is 5."
    assert response.metadata["smoothguard"]["status"] == "rewritten"
    assert len(response.source_nodes) == 2


def test_an_unsafe_answer_leaves_nothing_behind(kit, form, streaming):
    response = kit.ask(kit.engine("UNSAFE", streaming=streaming), "picture 5", form)
    assert "UNSAFE" not in repr(response)
    assert kit.text(response) == "[blocked]"
    assert response.metadata["smoothguard"]["findings"] == ["contradicts", "bad_word"] or response.metadata[
        "smoothguard"
    ]["findings"] == ["bad_word", "contradicts"]


def test_the_type_of_the_response_stays(kit):
    assert type(kit.engine().query("1")) is Response
    assert type(kit.engine(streaming=True).query("1")) is StreamingResponse
    assert type(asyncio.run(kit.engine(streaming=True).aquery("1"))) is AsyncStreamingResponse


def test_a_stream_is_withheld_then_comes_as_one_chunk(kit):
    response = kit.engine("UNSAFE", streaming=True).query("1")
    assert list(response.response_gen) == ["[blocked]"]
    assert response.get_response().response == "[blocked]"

    async def collected():
        response = await kit.engine("UNSAFE", streaming=True).aquery("1")
        return [chunk async for chunk in response.response_gen]

    assert asyncio.run(collected()) == ["[blocked]"]


def test_only_the_action_raise_raises_under_policy(kit, form):
    with pytest.raises(UnsafeOutputError) as caught:
        kit.ask(kit.engine("FORBIDDEN"), "1", form)
    assert caught.value.outcome.verdict.action == "raise"


@pytest.mark.parametrize("reply", ["UNSAFE", "FORBIDDEN", "The number is 99."])
def test_on_unsafe_raise_and_replace(kit, form, reply):
    with pytest.raises(UnsafeOutputError):
        kit.ask(kit.engine(reply, settings={"on_unsafe": "raise"}), "1", form)
    said = kit.text(kit.ask(kit.engine(reply, settings={"on_unsafe": "replace"}), "1", form))
    assert said in ("[blocked]", "The number is 1.")


def test_text_alone_asks_nothing_and_is_still_judged(kit, form):
    engine = kit.engine("UNSAFE")
    assert kit.text(kit.ask(engine, "no pictures", form)) == "[blocked]"
    assert engine.guard.sampler.asked == []


def test_a_sampler_that_fails_is_never_a_pass(kit, form):
    assert kit.text(kit.ask(kit.engine(script=[RuntimeError("out of memory")]), "1", form)) == "[error]"


class Number(BaseModel):
    number: int
    note: str = ""


def test_a_pydantic_response_is_judged_by_its_json(kit, form):
    class Structured(CustomQueryEngine):
        note: str

        def custom_query(self, query_str):
            kit.LLM().chat(kit.picture(1))
            return PydanticResponse(Number(number=1, note=self.note), metadata={"k": 1})

    rules = [{"id": "w", "when": {"words": ["UNSAFE"]}}]
    guard = kit.make_guard(lambda copy: '{"number": 1}', rules=rules)
    response = kit.ask(SmoothGuardQueryEngine(Structured(note="fine"), guard=guard), "q", form)
    assert (type(response), response.response.number, response.metadata["k"]) == (PydanticResponse, 1, 1)
    assert response.metadata["smoothguard"]["status"] == "passed"
    with pytest.raises(UnsafeOutputError, match="holds no text"):
        kit.ask(SmoothGuardQueryEngine(Structured(note="UNSAFE"), guard=guard), "q", form)


# What the LLM saw ---------------------------------------------------------------------------------------------------


def test_a_custom_engines_own_call_is_captured(kit, form):
    class Mine(CustomQueryEngine):
        def custom_query(self, query_str):
            return kit.LLM(reply="The number is 99.").chat(kit.picture(int(query_str))).message.content

    assert kit.text(kit.ask(SmoothGuardQueryEngine(Mine(), guard=kit.make_guard()), "7", form)) == "The number is 7."


def test_a_routers_choice_is_judged_by_the_chosen_engines_pictures(kit, form):
    chooser = kit.LLM(reply='[{"choice": 1, "reason": "r"}]')
    tools = [QueryEngineTool.from_defaults(kit.plain("The number is 99."), name="shelf", description="pictures")]
    router = RouterQueryEngine(LLMSingleSelector.from_defaults(llm=chooser), tools, llm=kit.LLM(), verbose=False)
    guarded = SmoothGuardQueryEngine(router, guard=kit.make_guard())
    response = kit.ask(guarded, "picture 5", form)
    assert kit.text(response) == "The number is 5."
    assert "selector_result" in response.metadata


class Halves(BaseQuestionGenerator):
    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    def generate(self, tools, query):
        return [SubQuestion(sub_question=part, tool_name="shelf") for part in query.query_str.split(" and ")]

    async def agenerate(self, tools, query):
        return self.generate(tools, query)


@pytest.mark.parametrize("use_async", [False, True])
def test_sub_questions_pictures_all_reach_the_guard(kit, form, use_async):
    from llama_index.core.response_synthesizers import get_response_synthesizer

    tools = [QueryEngineTool.from_defaults(kit.plain(), name="shelf", description="pictures")]
    final = get_response_synthesizer(llm=kit.LLM(reply="UNSAFE sum"), use_async=use_async)
    sub = SubQuestionQueryEngine(Halves(), final, tools, verbose=False, use_async=use_async)
    guard = kit.make_guard()
    assert kit.text(kit.ask(SmoothGuardQueryEngine(sub, guard=guard), "picture 3 and picture 9", form)) == "[blocked]"
    asked = {kit.number_of(medium) for medium in guard.sampler.asked[0].prompt.media}
    assert asked == {3, 9}, "the answer rests on both, though the last call saw text alone"


def test_a_guarded_engine_inside_a_guarded_engine(kit, form):
    class Outer(CustomQueryEngine):
        engine: object

        def custom_query(self, query_str):
            return str(self.engine.query(query_str)).replace("5", "6")

    inner, guard = kit.engine(), kit.make_guard()
    response = kit.ask(SmoothGuardQueryEngine(Outer(engine=inner), guard=guard), "picture 5", form)
    assert kit.text(response) == "The number is 5."
    assert [kit.number_of(medium) for medium in guard.sampler.asked[0].prompt.media] == [5]


def test_an_llm_that_drops_pictures_is_judged_by_those_it_was_given(kit, form):
    class Flat(CustomLLM):
        """CustomLLM.chat flattens its messages to a prompt: pictures are lost on the way to the model."""

        @property
        def metadata(self):
            return LLMMetadata()

        @llm_completion_callback()
        def complete(self, prompt, formatted=False, **kwargs):
            return CompletionResponse(text="The number is 99.")

        @llm_completion_callback()
        def stream_complete(self, prompt, formatted=False, **kwargs):
            raise NotImplementedError

    class Mine(CustomQueryEngine):
        def custom_query(self, query_str):
            return Flat().chat(kit.picture(2)).message.content

    assert kit.text(kit.ask(SmoothGuardQueryEngine(Mine(), guard=kit.make_guard()), "q", form)) == "The number is 2."


class Client(CustomQueryEngine):
    """An engine whose model LlamaIndex does not see."""

    reply: str = "The number is 99."
    nodes: list = Field(default_factory=list)

    def custom_query(self, query_str):
        return Response(self.reply, source_nodes=self.nodes)


def test_without_any_call_the_retrieved_pictures_are_the_context(kit, form):
    nodes = kit.Shelf().retrieve("picture 8")
    response = kit.ask(SmoothGuardQueryEngine(Client(nodes=nodes), guard=kit.make_guard()), "which?", form)
    assert kit.text(response) == "The number is 8."


def test_a_text_llms_call_does_not_hide_the_pictures_of_a_client_that_nobody_sees(kit, form):
    class Choosing(Client):
        """A LlamaIndex LLM chooses, a client of another library answers."""

        def custom_query(self, query_str):
            kit.LLM(reply="1").chat([ChatMessage("Which engine?")])
            return super().custom_query(query_str)

    guard = kit.make_guard()
    engine = Choosing(nodes=kit.Shelf().retrieve("picture 8"))
    response = kit.ask(SmoothGuardQueryEngine(engine, guard=guard), "which?", form)
    assert kit.text(response) == "The number is 8."
    assert guard.sampler.asked[0].prompt.messages[-1].parts[-1] == "which?"


class Completing(CustomQueryEngine):
    """Hands its pictures to a completion."""

    llm: object
    call: str
    pictures: object
    nodes: list = Field(default_factory=list)

    def custom_query(self, query_str):
        return asyncio.run(self.acustom_query(query_str))

    async def acustom_query(self, query_str):
        made = getattr(self.llm, self.call)("Which number?", image_documents=self.pictures)
        made = await made if self.call.startswith("a") else made
        if self.call == "stream_complete":
            made = list(made)[-1]
        elif self.call == "astream_complete":
            made = [chunk async for chunk in made][-1]
        return Response(made.text, source_nodes=self.nodes)


COMPLETIONS = ("complete", "acomplete", "stream_complete", "astream_complete")


@pytest.mark.parametrize("call", COMPLETIONS)
@pytest.mark.parametrize("kind", [ImageDocument, ImageNode, ImageBlock])
def test_pictures_that_came_with_a_completion_are_captured(kit, form, call, kind):
    picture = ImageBlock(image=kit.png(7)) if kind is ImageBlock else kind(image=b64(kit.png(7)))
    for reply, status in (("The number is 9.", "rewritten"), ("The number is 7.", "passed")):
        guard = kit.make_guard()
        inner = Completing(llm=kit.LLM(reply=reply), call=call, pictures=[picture])
        response = kit.ask(SmoothGuardQueryEngine(inner, guard=guard), "q", form)
        assert kit.text(response) == "The number is 7."
        assert response.metadata["smoothguard"]["status"] == status
        assert guard.sampler.asked[0].prompt.question == "Which number?", "the completion's own text"


@pytest.mark.parametrize("call", COMPLETIONS)
def test_a_completions_pictures_that_cannot_be_judged_withhold_the_answer(kit, form, call):
    for pictures in ([ImageDocument(image="no base64!")], iter([ImageDocument(image=b64(kit.png(7)))])):
        inner = Completing(llm=kit.LLM(reply="fine"), call=call, pictures=pictures)
        assert kit.text(kit.ask(SmoothGuardQueryEngine(inner, guard=kit.make_guard()), "q", form)) == "[error]"


def test_media_among_a_chats_arguments_withhold_the_answer(kit, form):
    class Odd(CustomQueryEngine):
        def custom_query(self, query_str):
            return kit.LLM(reply="fine").chat([ChatMessage("q")], images=[b64(kit.png(7))]).message.content

    assert kit.text(kit.ask(SmoothGuardQueryEngine(Odd(), guard=kit.make_guard()), "q", form)) == "[error]"


def test_a_text_llms_call_does_not_stand_in_for_a_client_that_nobody_sees(kit, form):
    class Condensing(Client):
        """A LlamaIndex LLM condenses the question, a client of another library looks at a picture."""

        def custom_query(self, query_str):
            kit.LLM(reply="Which number is it?").complete("condense the question")
            return super().custom_query(query_str)

    with pytest.raises(GuardError, match="were not found"):
        kit.ask(SmoothGuardQueryEngine(Condensing(), guard=kit.make_guard()), "q", form)
    judged = SmoothGuardQueryEngine(Condensing(reply="UNSAFE"), guard=kit.make_guard(), on_missing_context="judge_text")
    assert kit.text(kit.ask(judged, "q", form)) == "[blocked]"


def test_a_text_llms_words_are_its_own_however_the_engine_puts_them(kit, form):
    class Wrapping(CustomQueryEngine):
        wrap: object

        def custom_query(self, query_str):
            said = kit.LLM(reply=" Thought: easy.\nAnswer: It closes at nine, says the log.").complete(query_str).text
            return self.wrap(said)

    for wrap in (
        str.strip,
        str.upper,
        lambda said: said.partition("Answer: ")[2],
        "In short: {}\n(Source: log)".format,
    ):
        response = kit.ask(SmoothGuardQueryEngine(Wrapping(wrap=wrap), guard=kit.make_guard()), "when?", form)
        assert response.metadata["smoothguard"]["status"] == "passed"


@pytest.mark.parametrize("mode", ["accumulate", "compact", "refine", "tree_summarize", "simple_summarize"])
def test_text_alone_goes_on_in_every_mode(kit, form, mode):
    class Texts(BaseRetriever):
        def _retrieve(self, query_bundle):
            return [NodeWithScore(node=TextNode(text=f"entry {n}")) for n in range(3)]

    engine = RetrieverQueryEngine.from_args(Texts(), llm=kit.LLM(reply="Nine."), response_mode=mode)
    response = kit.ask(SmoothGuardQueryEngine(engine, guard=kit.make_guard()), "when?", form)
    assert "Nine." in kit.text(response)
    assert response.metadata["smoothguard"]["status"] == "passed"


def test_a_structured_answer_stands_in_a_tool_call(kit, form):
    class Calling(kit.LLM):
        @llm_chat_callback()
        def chat(self, messages, **kwargs):
            block = ToolCallBlock(tool_name="Number", tool_kwargs={"number": 12, "log": ["a", "b"]})
            return ChatResponse(message=ChatMessage(role="assistant", blocks=[block]))

    class Structured(CustomQueryEngine):
        def custom_query(self, query_str):
            Calling().chat([ChatMessage(query_str)])
            return PydanticResponse(Number(number=12, note="unknown"))

    response = kit.ask(SmoothGuardQueryEngine(Structured(), guard=kit.make_guard()), "when?", form)
    assert response.metadata["smoothguard"]["status"] == "passed"


def test_a_policys_text_of_an_inner_engine_has_its_context(kit, form):
    class Plain(CustomQueryEngine):
        def custom_query(self, query_str):
            return kit.LLM(reply="UNSAFE").complete(query_str).text

    inner = SmoothGuardQueryEngine(Plain(), guard=kit.make_guard())

    class Outer(CustomQueryEngine):
        def custom_query(self, query_str):
            return str(inner.query(query_str))

        async def acustom_query(self, query_str):
            return str(await inner.aquery(query_str))

    assert kit.text(kit.ask(SmoothGuardQueryEngine(Outer(), guard=kit.make_guard()), "q", form)) == "[blocked]"


def test_without_calls_and_pictures_the_context_is_missing(kit, form):
    with pytest.raises(GuardError, match="were not found"):
        kit.ask(SmoothGuardQueryEngine(Client(), guard=kit.make_guard()), "q", form)
    judged = SmoothGuardQueryEngine(Client(reply="UNSAFE"), guard=kit.make_guard(), on_missing_context="judge_text")
    assert kit.text(kit.ask(judged, "q", form)) == "[blocked]"
    passed = SmoothGuardQueryEngine(Client(reply="UNSAFE"), guard=kit.make_guard(on_missing_context="pass"))
    assert kit.ask(passed, "q", form).metadata["smoothguard"]["status"] == "skipped"


def test_nothing_retrieved_is_no_missing_context(kit, form):
    class Nothing(BaseRetriever):
        def _retrieve(self, query_bundle):
            return []

    engine = RetrieverQueryEngine.from_args(Nothing(), llm=kit.LLM())
    assert kit.text(kit.ask(SmoothGuardQueryEngine(engine, guard=kit.make_guard()), "q", form)) == "Empty Response"


def test_retrieval_alone_has_no_answer_to_judge(kit, form, monkeypatch):
    monkeypatch.setattr(Settings, "_llm", kit.LLM())  # NoText insists on an LLM that it never asks
    engine = SmoothGuardQueryEngine(kit.plain(response_mode="no_text"), guard=kit.make_guard())
    response = kit.ask(engine, "1", form)
    assert response.response in (None, "")
    assert len(response.source_nodes) == 2


# Files --------------------------------------------------------------------------------------------------------------


def test_the_querys_own_picture_is_refused_unless_its_folder_is_named(kit, form, tmp_path):
    (tmp_path / "a.png").write_bytes(kit.png(6))
    query = QueryBundle("what?", image_path=str(tmp_path / "a.png"))
    assert kit.text(kit.ask(kit.engine("fine"), query, form)) == "[error]"
    assert kit.text(kit.ask(kit.engine("fine", unresolvable_media="pass"), query, form)) == "fine"
    with pytest.raises(UnresolvableMediaError, match="image_path"):
        kit.ask(kit.engine("fine", unresolvable_media="error"), query, form)
    engine = kit.engine("The number is 99.", settings={"media_root": tmp_path})
    assert kit.text(kit.ask(engine, query, form)) == "The number is 6."


def test_a_node_that_names_a_file_is_judged_by_what_the_llm_was_given(kit, form, tmp_path):
    (tmp_path / "a.png").write_bytes(kit.png(6))

    class Named(BaseRetriever):
        def _retrieve(self, query_bundle):
            return [NodeWithScore(node=ImageNode(image_path=str(tmp_path / "a.png")))]

    # LlamaIndex's own templates open the file and hand the LLM its bytes.
    inner = RetrieverQueryEngine.from_args(Named(), llm=kit.LLM(reply="The number is 99."), multimodal=True)
    assert kit.text(kit.ask(SmoothGuardQueryEngine(inner, guard=kit.make_guard()), "q", form)) == "The number is 6."


def test_a_node_that_names_a_file_is_not_opened_by_the_guard_unless_its_folder_is_named(kit, form, tmp_path):
    (tmp_path / "a.png").write_bytes(kit.png(6))
    client = Client(nodes=[NodeWithScore(node=ImageNode(image_path=str(tmp_path / "a.png")))])
    refused = SmoothGuardQueryEngine(client, guard=kit.make_guard(on_error="allow"))
    assert kit.text(kit.ask(refused, "q", form)) == "[error]", "on_error opens no door"
    engine = SmoothGuardQueryEngine(client, guard=kit.make_guard(), media_root=tmp_path)
    assert kit.text(kit.ask(engine, "q", form)) == "The number is 6."
    gone = Client(nodes=[NodeWithScore(node=ImageNode(image_path=str(tmp_path / "none.png")))])
    assert kit.text(kit.ask(SmoothGuardQueryEngine(gone, guard=kit.make_guard()), "q", form)) == "[error]"


# The engine's own interface -----------------------------------------------------------------------------------------


def test_retrieve_and_prompts_pass_through(kit):
    inner = kit.plain()
    engine = SmoothGuardQueryEngine(inner, guard=kit.make_guard())
    query = QueryBundle("picture 1")
    assert [type(item.node) for item in engine.retrieve(query)] == [TextNode, ImageNode]
    assert [type(item.node) for item in asyncio.run(engine.aretrieve(query))] == [TextNode, ImageNode]
    assert engine.get_prompts().keys() == inner.get_prompts().keys()
    key = next(key for key in inner.get_prompts() if key.endswith("text_qa_template"))
    engine.update_prompts({key: PromptTemplate("MARK {context_str} {query_str}")})
    assert inner.get_prompts()[key].get_template().startswith("MARK")
    assert engine.callback_manager is inner.callback_manager


def test_synthesize_is_judged_too(kit):
    query = QueryBundle("picture 5")
    for streaming in (False, True):
        engine = kit.engine("The number is 99.", streaming=streaming)
        nodes = engine.retrieve(query)
        assert kit.text(engine.synthesize(query, nodes)) == "The number is 5."
        assert kit.text(asyncio.run(engine.asynthesize(query, nodes))) == "The number is 5."


def test_an_engines_own_error_stands(kit, form):
    class Broken(CustomQueryEngine):
        def custom_query(self, query_str):
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        kit.ask(SmoothGuardQueryEngine(Broken(), guard=kit.make_guard()), "q", form)
    assert capture._SINK.get() is None


# Many at once -------------------------------------------------------------------------------------------------------


def asked(number):
    picture = ImageBlock(image=fake_image((number % 256 / 255, number // 256 / 255, 0.0), size=4).to_png())
    return [ChatMessage(role="user", blocks=[TextBlock(text="Which number?"), picture])]


class Direct(CustomQueryEngine):
    """One chat per query, without the framework's templates, which take 0.1 s each."""

    llm: object
    streaming: bool = False

    def custom_query(self, query_str):
        messages = asked(int(query_str))
        if self.streaming:
            return StreamingResponse(chunk.delta for chunk in self.llm.stream_chat(messages))
        return self.llm.chat(messages).message.content

    async def acustom_query(self, query_str):
        messages = asked(int(query_str))
        if self.streaming:
            return AsyncStreamingResponse(chunk.delta async for chunk in await self.llm.astream_chat(messages))
        return (await self.llm.achat(messages)).message.content


def test_64_threads_each_get_their_own_picture(kit, streaming):
    direct = Direct(llm=kit.LLM(reply="The number is 9999."), streaming=streaming)
    engine = SmoothGuardQueryEngine(direct, guard=kit.make_guard())
    with ThreadPoolExecutor(64) as pool:
        said = list(pool.map(lambda n: str(engine.query(str(n))), range(256)))
    assert said == [f"The number is {n}." for n in range(256)]


async def test_500_tasks_each_get_their_own_picture(kit):
    engine = SmoothGuardQueryEngine(Direct(llm=kit.LLM(reply="The number is 9999.")), guard=kit.make_guard())
    responses = await asyncio.gather(*(engine.aquery(str(n)) for n in range(500)))
    assert [str(response) for response in responses] == [f"The number is {n}." for n in range(500)]


async def test_100_streams_at_once(kit):
    direct = Direct(llm=kit.LLM(reply="The number is 9999."), streaming=True)
    engine = SmoothGuardQueryEngine(direct, guard=kit.make_guard())

    async def one(n):
        return [chunk async for chunk in (await engine.aquery(str(n))).async_response_gen()]

    said = await asyncio.gather(*(one(n) for n in range(100)))
    assert said == [[f"The number is {n}."] for n in range(100)]


async def test_the_frameworks_own_engine_under_load(kit):
    engine = kit.engine("The number is 9999.")
    responses = await asyncio.gather(*(engine.aquery(f"picture {n}") for n in range(16)))
    assert [str(response) for response in responses] == [f"The number is {n}." for n in range(16)]


# Settings -----------------------------------------------------------------------------------------------------------


def test_a_wrong_policy_or_setting_fails_at_construction(kit):
    with pytest.raises(PolicyError, match="no-such-policy"):
        SmoothGuardQueryEngine(kit.plain(), policy="no-such-policy")
    with pytest.raises(GuardError, match="on_unsafe"):
        kit.engine(settings={"on_unsafe": "ignore"})


def test_an_engine_uses_the_processs_guard_for_its_settings(kit, monkeypatch):
    rooms = SimpleNamespace(shared_guard=lambda *settings: settings)
    monkeypatch.setitem(sys.modules, "sg_guardrails.local", rooms)
    engine = SmoothGuardQueryEngine(kit.plain(), policy="builtin", model="m", device="cpu")
    assert [part if isinstance(part, str) else part.name for part in engine.guard] == ["builtin", "m", "cpu"]
    assert engine.guard is engine.guard


def test_the_capture_is_installed_once_and_idle_outside_a_query(kit):
    for _ in range(3):
        kit.engine()
    assert len(capture._installed) == 1
    before = len(kit.make_guard().sampler.asked)
    kit.LLM().chat([ChatMessage(role="user", blocks=[TextBlock(text="x"), ImageBlock(image=kit.png(1))])])
    assert before == 0
    assert capture._SINK.get() is None
