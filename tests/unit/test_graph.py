"""The graph as the worker streams it: which tasks end with what, which tokens come, what stays in the state."""

import asyncio
import json
import re
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from pydantic import Field

from graph.builder import Parts, build_graph
from graph.citations import Cited
from graph.eventlog.events import Citation, Source
from graph.models import Piece, hearing, open_model
from graph.offline_models import Extractive, Reciter, Scripted
from graph.rag_agent import FIT_NEEDED, GREETED, NOTHING_FITS
from graph.red_flags import INTERNATIONAL, crisis_line, crisis_reminder, emergency_number
from graph.retrieval.rerank import Ranked
from graph.retrieval.search import Found
from graph.served import Medical
from graph.state import recent, turn_input
from tests.support.provider import SHOWN, Provider

ANSWERING = ("generate", "emergency", "emotional_support")
SOURCE = {"id": "gout#1", "title": "Gout", "url": "", "score": 0.8, "text": "Gout hurts."}
EVIDENCE = {"source": 1, "order": 0, "text": "Gout hurts.", "score": 0.8}

Compiled = CompiledStateGraph[Any, Any, Any, Any]


def parts(
    fit: float | None = 0.9, model: Any = None, sources: int = 1, degraded: str | None = None, router: Any = None
) -> Parts:
    async def search(question: str) -> Found:
        return Found([{**SOURCE, "document_id": "gout", "ordinal": 1}])

    async def rerank(question: str, passages: list[dict[str, Any]]) -> Ranked:
        return Ranked([SOURCE] * sources, [EVIDENCE], fit, degraded)

    model = model or Extractive(pace_ms=0)
    return Parts(
        model, "test", search, rerank, writes=not isinstance(model, Extractive), reciter=Reciter(), router=router
    )


class Run(NamedTuple):
    results: dict[str, Any]
    tokens: list[str]
    state: dict[str, Any]

    @property
    def text(self) -> str:
        return "".join(self.tokens)


async def run(graph: Compiled, message: str, turn_id: str = "turn-1") -> Run:
    config: RunnableConfig = {"configurable": {"thread_id": "session"}}
    results: dict[str, Any] = {}
    tokens: list[str] = []
    heard: list[str] = []

    async def hears(piece: Piece) -> None:
        heard.append(piece.text)

    hearing.set(hears)
    stream: Any = graph.astream(turn_input(turn_id, message), config, stream_mode=["tasks", "messages"])
    async for mode, data in stream:
        if mode == "tasks" and "result" in data:
            assert data["error"] is None
            results[data["name"]] = data["result"]
        elif mode == "messages":
            chunk, metadata = data
            if isinstance(chunk, AIMessageChunk):
                assert metadata["langgraph_node"] in ANSWERING
                tokens.append(chunk.text)
    assert heard == [token for token in tokens if token]
    return Run(results, tokens, (await graph.aget_state(config)).values)


def compiled(some: Parts) -> Compiled:
    return build_graph(some).compile(checkpointer=InMemorySaver())


async def test_a_question_passes_all_stages_and_its_answer_is_what_was_streamed() -> None:
    done = await run(compiled(parts()), "What is gout?")
    assert list(done.results) == ["safety", "supervisor", "retrieve", "rerank", "generate"]
    assert not done.results["safety"]
    assert done.results["supervisor"]["agent"] == "rag_agent"
    assert len(done.results["retrieve"]["passages"]) == 1
    assert [Source.model_validate(source) for source in done.results["rerank"]["sources"]]
    answer = done.state["messages"][-1]
    assert (answer.id, answer.content) == ("turn-1:assistant", "**Gout**\n\nGout hurts. [1]")
    assert done.text == answer.content
    assert len([token for token in done.tokens if token]) > 1
    assert [Citation.model_validate(c).source_id for c in done.state["citations"]] == ["gout#1"]
    assert done.state["abstained"] is False


@pytest.mark.parametrize(("fit", "sources"), [(FIT_NEEDED - 0.01, 1), (None, 0)])
async def test_weak_evidence_is_declined_before_any_model(fit: float | None, sources: int) -> None:
    class Unwanted(Scripted):
        def pieces(self, message: Any) -> Any:
            raise AssertionError("the model was asked")

    done = await run(compiled(parts(fit, Unwanted(), sources)), "Who won the football world cup?")
    assert done.state["abstained"] is True
    assert done.state["citations"] == []
    assert done.text == done.state["messages"][-1].content


async def test_how_one_gets_an_illness_is_ranked_as_what_causes_it_and_declined_as_it_was_said() -> None:
    fits = {"What causes gout?": 0.9, "How does one get gout?": 0.9, "What causes lupus?": 0.9}

    async def rerank(question: str, passages: list[dict[str, Any]]) -> Ranked:
        return Ranked([SOURCE], [{**EVIDENCE, "text": f"To {question}"}], fits.get(question, 0.4))

    graph = compiled(replace(parts(), rerank=rerank))
    assert "To What causes gout?" in (await run(graph, "How does one get gout?")).text
    assert (await run(graph, "How does one get lupus?", "turn-2")).state["abstained"] is True


async def test_nearest_topics_are_offered_only_when_they_are_near() -> None:
    near = await run(compiled(parts(0.5)), "What is lupus?")
    far = await run(compiled(parts(0.2)), "Who won?")
    assert "The nearest topics here are: Gout." in near.text
    assert far.text == (
        f"{NOTHING_FITS} If someone may be in danger, do not wait for an article: "
        "call your local emergency number (112 in Europe, 911 in North America)."
    )


@pytest.mark.parametrize("region", [INTERNATIONAL, "us"])
@pytest.mark.parametrize(
    ("message", "own"),
    [
        ("¿Cuáles son los síntomas de la gripe?", "Aquí solo se entienden preguntas en inglés."),
        ("Was hilft gegen Migräne?", "Hier werden nur Fragen auf Englisch verstanden."),
        ("wat zijn de symptomen van griep", ""),
    ],
)
async def test_a_question_that_is_not_in_english_is_declined_in_both_languages(
    message: str, own: str, region: str
) -> None:
    """However near the articles seem."""
    done = await run(compiled(replace(parts(), region=region)), message)
    assert done.state["abstained"] is True
    assert done.state["citations"] == []
    assert done.text.startswith(own)
    assert "I understand only questions in English here" in done.text
    assert done.text.endswith(f"In an emergency call {emergency_number(region)}.")
    if own and region == "us":
        assert done.text.count("911") == 2


@pytest.mark.parametrize("message", ["मुझे सीने में तेज दर्द हो रहा है", "أشعر بألم شديد في صدري", "У меня сильная боль"])
async def test_of_what_nobody_here_can_read_the_number_comes_first(message: str) -> None:
    done = await run(compiled(parts()), message)
    assert done.text.startswith("**If someone may be in danger, call your local emergency number (112")
    assert "only questions in English" in done.text


async def test_articles_in_another_language_answer_in_it() -> None:
    async def rerank(question: str, passages: list[dict[str, Any]]) -> Ranked:
        text = "Gegen Migräne hilft Ruhe und ein dunkler Raum."
        return Ranked([{**SOURCE, "text": text}], [{**EVIDENCE, "text": text}], 0.9)

    graph = compiled(replace(parts(), rerank=rerank))
    assert (await run(graph, "Was hilft gegen Migräne?")).state["abstained"] is False
    assert (await run(graph, "¿Qué sirve para la migraña?", "turn-2")).state["abstained"] is True


async def test_a_greeting_is_answered_by_a_question_not_by_an_apology() -> None:
    assert (await run(compiled(parts(0.1)), "Hello!")).text == GREETED


async def test_an_alarm_is_answered_at_once_and_no_model_sees_it() -> None:
    done = await run(compiled(parts()), "my dad has chest pain right now")
    assert list(done.results) == ["safety", "emergency"]
    assert done.results["safety"]["agent"] == "safety"
    assert "heart attack" in done.text
    assert done.text == done.state["messages"][-1].content
    assert done.state["messages"][-1].id == "turn-1:assistant"


async def test_every_turn_passes_the_gate_the_fifth_too() -> None:
    graph = compiled(parts())
    for number, message in enumerate(["What is gout?", "and for children?", "I feel so lonely", "What is gout?"]):
        assert "emergency" not in (await run(graph, message, f"turn-{number}")).results
    fifth = await run(graph, "now my chest hurts and my left arm is numb", "turn-5")
    assert list(fifth.results) == ["safety", "emergency"]
    assert "Call your local emergency number" in fifth.text


async def test_a_yes_to_the_question_about_self_harm_stays_with_it() -> None:
    graph = compiled(parts())
    await run(graph, "I want to die")
    again = await run(graph, "yes", "turn-2")
    assert list(again.results) == ["safety", "emergency"]
    assert again.text.startswith("**Thank you for telling me.")
    assert again.text.endswith("?")
    for number, message in enumerate(["yes", "no", "please help me", "there's no point talking", "why?"]):
        assert "emergency" in (await run(graph, message, f"turn-2-{number}")).results
    later = await run(graph, "What is gout?", "turn-3")
    assert list(later.results)[-1] == "generate"


class Router(BaseChatModel):
    """A provider's model as the supervisor asks it: it calls the tool with these fields, or does what `act` does."""

    fields: dict[str, Any] = Field(default_factory=dict)
    act: Any = None
    asked: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "router"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(messages)
        if self.act is not None:
            await self.act()
        call: Any = {"name": "Asked", "args": json.dumps(self.fields), "id": "1", "index": 0}
        for content in ("I think", " it is "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=content))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def router(agent: str = "rag_agent", question: str = "Gout in children?", emergency: str = "none") -> Router:
    return Router(fields={"agent": agent, "question": question, "emergency": emergency}, asked=[])


async def test_what_is_plain_costs_no_model_call() -> None:
    asked = router()
    done = await run(compiled(parts(router=asked)), "What is gout?")
    assert asked.asked == []
    assert done.state["question"] == "What is gout?"


async def test_a_follow_up_becomes_one_question_and_the_models_words_are_not_shown() -> None:
    asked = router()
    graph = compiled(parts(router=asked))
    await run(graph, "What is gout?")
    done = await run(graph, "and for children?", "turn-2")
    assert [message.text for message in asked.asked[0][1:]][-1] == "and for children?"
    assert done.state["question"] == "Gout in children?"
    assert "I think" not in done.text
    assert done.text == done.state["messages"][-1].content


async def test_a_model_may_add_an_alarm() -> None:
    done = await run(compiled(parts(router=router(emergency="stroke"))), "everything went dark and strange")
    assert list(done.results) == ["safety", "supervisor", "emergency"]
    assert "stroke" in done.text


async def test_a_model_is_asked_about_a_sign_that_the_gate_let_pass() -> None:
    asked = router(emergency="heart")
    done = await run(compiled(parts(router=asked)), "what is it when my arm feels strange and it hurts to walk")
    assert len(asked.asked) == 1
    assert list(done.results) == ["safety", "supervisor", "emergency"]


async def test_a_model_may_not_take_an_alarm_away() -> None:
    asked = router(emergency="none")
    done = await run(compiled(parts(router=asked)), "I can't breathe")
    assert list(done.results) == ["safety", "emergency"]
    assert asked.asked == []


async def test_a_model_may_send_to_emotional_support() -> None:
    done = await run(compiled(parts(router=router(agent="emotional_support"))), "everything is grey these days")
    assert list(done.results) == ["safety", "supervisor", "emotional_support"]


@pytest.mark.parametrize("trouble", ["slow", "broken", "nonsense"])
async def test_without_the_models_help_the_rules_guess_stands(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.supervisor.ROUTE_SECONDS", 0.05)

    async def act() -> None:
        if trouble == "slow":
            await asyncio.Event().wait()
        if trouble == "broken":
            raise ConnectionError

    asked = Router(fields={"agent": "oracle"}, act=act, asked=[])
    done = await run(compiled(parts(router=asked)), "everything is grey these days")
    assert len(asked.asked) == 1
    assert list(done.results)[-1] == "generate"
    assert done.state["question"] == "everything is grey these days"


def supporter(text: str) -> Scripted:
    class Supporter(Scripted):
        def pieces(self, message: Any) -> Any:
            return re.findall(r"\S+ ?", text)

    return Supporter()


async def test_a_models_support_is_read_before_it_is_shown() -> None:
    kind = await run(compiled(parts(model=supporter("That sounds hard. What would help?"))), "I feel so lonely")
    assert kind.state["messages"][-1].content == f"That sounds hard. What would help?\n\n{crisis_line(INTERNATIONAL)}"
    assert kind.tokens == []
    wrong = await run(compiled(parts(model=supporter("You have depression, take 20 mg"))), "I feel so lonely")
    assert "lonely" in wrong.state["messages"][-1].content
    assert "mg" not in wrong.state["messages"][-1].content


async def test_a_question_about_an_emergency_says_first_when_to_call() -> None:
    done = await run(compiled(parts()), "What are the symptoms of a stroke?")
    assert done.results["supervisor"]["agent"] == "rag_agent"
    assert done.text.startswith("**If this is happening to someone now, call ")
    assert done.text.endswith("Gout hurts. [1]")
    assert done.text == done.state["messages"][-1].content


async def test_distress_is_answered_without_the_articles() -> None:
    done = await run(compiled(parts()), "I feel so lonely")
    assert list(done.results) == ["safety", "supervisor", "emotional_support"]
    assert done.text == done.state["messages"][-1].content
    assert done.text.count("?") == 1


async def test_who_goes_on_in_distress_does_not_read_the_same_again() -> None:
    graph = compiled(parts())
    first = await run(graph, "I feel so lonely")
    second = await run(graph, "my brother doesn't care", "turn-2")
    assert list(second.results) == ["safety", "supervisor", "emotional_support"]
    assert not {*first.text.split("\n\n")} & {*second.text.split("\n\n")}
    assert second.text.endswith(crisis_reminder(INTERNATIONAL))


async def test_each_turn_begins_anew_and_the_conversation_grows() -> None:
    graph = compiled(parts())
    await run(graph, "What is gout?")
    second = await run(graph, "I feel so lonely", "turn-2")
    assert [m.id for m in second.state["messages"]] == [
        "turn-1:user",
        "turn-1:assistant",
        "turn-2:user",
        "turn-2:assistant",
    ]
    assert second.state["sources"] == second.state["citations"] == second.state["passages"] == []


async def test_a_model_that_writes_gets_the_numbered_passages_and_the_conversation() -> None:
    seen: list[Any] = []

    class Writer(Scripted):
        def pieces(self, message: Any) -> Any:
            return super().pieces(message)

        async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(messages)
            async for chunk in super()._astream(messages, *args, **kwargs):
                yield chunk

    graph = compiled(parts(model=Writer(tokens=3)))
    await run(graph, "What is gout?")
    done = await run(graph, "and for children?", "turn-2")
    assert done.text == "w0 w1 w2 "
    system, *earlier, question = seen[-1]
    assert "[1] Gout\nGout hurts." in system.content
    assert [m.text for m in earlier] == ["What is gout?", "w0 w1 w2 "]
    assert question.text == "and for children?"
    assert done.state["question"] == "What is gout? and for children?"


async def test_a_providers_tokens_come_once_and_checked() -> None:
    done = await run(compiled(parts(model=Cited(inner=Provider()))), "What is gout?")
    answer = done.state["messages"][-1]
    assert done.text == answer.content == SHOWN
    assert answer.usage_metadata["output_tokens"] == 5


async def test_a_whole_message_beside_the_chunks_is_told_apart_by_its_type() -> None:
    """The node's returned AIMessage also comes through the stream: it is no chunk, so nobody shows it twice."""
    graph = compiled(parts(model=open_model("scripted?tokens=2&delay_ms=0").model))
    config: RunnableConfig = {"configurable": {"thread_id": "s"}}
    stream: Any = graph.astream(turn_input("turn-1", "What is gout?"), config, stream_mode="messages")
    whole = [message async for message, _ in stream if not isinstance(message, AIMessageChunk)]
    assert [(type(message), message.id) for message in whole] == [(AIMessage, "turn-1:assistant")]


def test_the_history_keeps_to_its_budget_and_begins_with_the_user() -> None:
    said = [kind(f"{n} " + "word " * 80) for n in range(10) for kind in (HumanMessage, AIMessage)]
    kept = recent([*said, HumanMessage("last")], 500)
    assert [message.text.split()[0] for message in kept] == ["8", "8", "9", "9", "last"]
    assert isinstance(kept[0], HumanMessage)
    assert sum(len(message.text) // 4 for message in kept) <= 500
    assert [message.text for message in recent([HumanMessage("x" * 9000)], 10)] == ["x" * 9000]
    assert recent(said[:2], 10_000) == said[:2]


async def test_no_word_is_fed_before_its_stage_however_long_who_is_fed_takes() -> None:
    medical = Medical(compiled(parts()), "test")
    fed: list[str] = []

    async def feed(mode: str, data: Any) -> None:
        await asyncio.sleep(0.01)
        fed.append("word" if mode == "said" else f"{data['name']} {'begins' if 'input' in data else 'ends'}")

    config: RunnableConfig = {"configurable": {"thread_id": "session"}}
    await medical.stream(turn_input("turn-1", "What helps against gout?"), config, feed)
    stages = [stage for stage, _ in groupby(fed)]
    assert stages[-3:] == ["generate begins", "word", "generate ends"]
    assert stages.count("word") == 1
