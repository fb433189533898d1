import importlib
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from graph.any_graph import AnyGraph, Translator, history, plain
from graph.eventlog.events import AnswerMessage, Done, Event, Interrupt, NewEvent, Resume, TurnStarted
from graph.eventlog.snapshot import Message
from graph.loading import load

TURN, NEXT = uuid4(), uuid4()


def _start(task: str, node: str = "node") -> tuple[str, Any]:
    return "tasks", {"id": task, "name": node, "input": {}}


def _end(task: str, node: str = "node", **found: Any) -> tuple[str, Any]:
    return "tasks", {"id": task, "name": node, "error": None, "result": {}, "interrupts": [], **found}


def _said(text: str, message_id: str, task: str, inner: str = "") -> tuple[str, Any]:
    return "messages", (AIMessageChunk(content=text, id=message_id), {"langgraph_checkpoint_ns": f"node:{task}{inner}"})


def _fed(*stream: tuple[str, Any], said: str = "") -> list[NewEvent]:
    translator = Translator(TURN, said=said)
    return [event for n, (mode, data) in enumerate(stream) for event in translator.feed(mode, data, n)]


def _shown(events: list[NewEvent]) -> list[str]:
    return [event.data.get("content") or f"{event.type} {event.data['stage']}" for event in events]


def test_a_nodes_name_is_its_stage_and_two_messages_are_two_paragraphs() -> None:
    events = _fed(
        _start("1"), _said("Hel", "a", "1"), _said("lo", "a", "1"), _end("1"), _start("2"), _said("Bye", "b", "2")
    )
    assert _shown(events) == ["stage_start node", "Hel", "lo", "stage_complete node", "stage_start node", "\n\nBye"]


def test_two_tasks_that_speak_at_once_never_mix() -> None:
    events = _fed(
        _start("1"),
        _start("2"),
        _start("3"),
        _said("one ", "a", "1"),
        _said("three", "c", "3", "|inner:9"),
        _said("two ", "b", "2"),
        _end("3"),
        _said("more", "a", "1"),
        _said("rest", "b", "2"),
        _end("1"),
        _said("!", "b", "2"),
        _end("2"),
    )
    text = "".join(event.data["content"] for event in events if event.type == "token")
    assert text == "one more\n\nthree\n\ntwo rest!"
    assert [event.type for event in events if event.type != "token"] == ["stage_start", "stage_complete"]


def test_a_node_that_was_interrupted_completes_no_stage() -> None:
    assert _shown(_fed(_start("1"), _end("1", interrupts=[{"id": "i", "value": 1}]))) == ["stage_start node"]


def test_after_a_take_over_the_text_goes_on_in_a_new_paragraph() -> None:
    assert _shown(_fed(_said("more", "b", "2"), said="Before.")) == ["\n\nmore"]


def test_what_a_tool_answers_is_no_token() -> None:
    assert _fed(("messages", (ToolMessage("22", tool_call_id="1"), {"langgraph_checkpoint_ns": "tools:1"}))) == []


def test_what_json_cannot_hold_becomes_its_text() -> None:
    given = {1: (HumanMessage, {2, 1}), "s": "a\x00b\ud800", "big": 2**70, "model": Interrupt(id="x", value=[None])}
    assert plain(given) == {
        "1": [str(HumanMessage), [1, 2]],
        "s": "ab?",
        "big": str(2**70),
        "model": {"id": "x", "value": [None]},
    }


def _message(turn: Any, role: Any, content: str, **more: Any) -> Message:
    return Message(id=f"{turn}:{role}", role=role, content=content, turn_id=turn, **more)


def _called(turn: Any) -> list[BaseMessage]:
    call = AIMessage("Let me see.", id="x", tool_calls=[{"name": "t", "args": {}, "id": "c"}])
    tool, answer = ToolMessage("22", tool_call_id="c", id="y"), AIMessage("22.", id="z")
    return [HumanMessage("Warm?", id=f"{turn}:user"), call, tool, answer]


def _told(messages: list[BaseMessage]) -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in messages]


def test_of_an_answer_that_ended_well_the_graphs_own_messages_stay() -> None:
    known = _called(TURN)
    said = [_message(TURN, "user", "Warm?"), _message(TURN, "assistant", "Let me see.\n\n22.")]
    assert history(known, said, set()) == known
    assert history([known[0], known[-1]], said, set()) == [known[0], known[-1]], "it may drop some"


@pytest.mark.parametrize("end", [{"status": "cancelled"}, {"interrupted": [Interrupt(id="i")]}])
def test_of_any_other_answer_only_its_words_stay(end: dict[str, Any]) -> None:
    said = [_message(TURN, "user", "Warm?"), _message(TURN, "assistant", "Let me", **end)]
    assert _told(history(_called(TURN)[:2], said, set())) == [("human", "Warm?"), ("ai", "Let me")]
    assert _told(history([], said, set())) == [("human", "Warm?"), ("ai", "Let me")], "ended before its first step"


def test_a_turn_and_the_answer_to_its_interrupt_are_one() -> None:
    known = _called(TURN)
    said = [
        _message(TURN, "user", "Warm?"),
        _message(TURN, "assistant", "Let me see.", interrupted=[Interrupt(id="i")]),
        _message(NEXT, "user", "yes"),
        _message(NEXT, "assistant", "22."),
    ]
    assert history(known, said, {NEXT}) == known
    assert _told(history(known, said, set()))[:2] == [("human", "Warm?"), ("ai", "Let me see.")], "another question"


async def test_an_answer_is_for_the_question_that_was_asked_and_for_no_later_one() -> None:
    """The worker died when the graph had taken the answer and asked again: LangGraph would take it for that one too."""
    graph = AnyGraph(await load("tests.support.graphs:questions"), InMemorySaver())  # type: ignore[arg-type]
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}

    async def asked() -> Interrupt:
        state = await graph.graph.aget_state(config)
        return Interrupt(id=state.tasks[0].interrupts[0].id, value=state.tasks[0].interrupts[0].value)

    async def run(graph_input: Any) -> Interrupt:
        await graph.stream(graph_input, config, ignores)
        return await asked()

    async def ignores(mode: str, data: Any) -> None: ...

    first = await run({"messages": [HumanMessage("Hello", id=f"{TURN}:user")]})
    answer = AnswerMessage(id="", content="")
    events: list[TurnStarted | Done] = [
        TurnStarted(turn_id=TURN, message="Hello", request_id="1"),
        Done(turn_id=TURN, message=answer, interrupted=[first]),
        TurnStarted(turn_id=NEXT, message="Ann", request_id="2", command=Resume(resume="Ann")),
    ]
    log = [
        Event(TURN, seq, event.turn_id, 1, event.type, event.model_dump_json(exclude={"type"}))
        for seq, event in enumerate(events, 1)
    ]

    async def entered() -> Any:
        return graph.enter(NEXT, log, await graph.graph.aget_state(config))[0]

    second = await run(await entered())
    assert second.value == {"how old": "Ann"}
    assert await entered() is None
    assert await run(None) == second, "it asks again, and has taken nothing for an answer"


def test_a_replaced_turn_is_left_out() -> None:
    said = [_message(NEXT, "user", "Cold?"), _message(NEXT, "assistant", "No.")]
    assert _told(history(_called(TURN), said, set())) == [("human", "Cold?"), ("ai", "No.")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tests.support.nowhere:graph", "No module named"),
        ("tests.support.graphs:nothing", "has no 'nothing'"),
        ("tests.support.graphs:not_a_graph", "is a int"),
        ("tests.support.graphs:no_messages", "no `messages`"),
    ],
)
async def test_what_is_no_graph_to_serve_is_refused_with_its_reason(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        await load(name)


async def test_a_graph_a_builder_and_a_function_that_makes_one_are_graphs() -> None:
    for name in ("tests.support.graphs:slow", "tests.support.graphs:questions", "examples.ten_lines:graph"):
        assert "messages" in (await load(name)).channels


MINE = "from examples.ten_lines import graph\n"


def _written(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> None:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


@pytest.mark.parametrize("name", ["graph", "functions"])
async def test_a_file_in_ones_own_folder_is_found_though_pulseline_has_a_package_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _written(tmp_path, monkeypatch, MINE, name)
    assert (await load(f"{name}:graph")).nodes.keys() == (await load("examples.ten_lines:graph")).nodes.keys()
    assert hasattr(importlib.import_module("graph"), "__path__"), "and Pulseline's is still there"


@pytest.mark.parametrize("made", ["async def make(): return graph", "def make(config): return graph"])
async def test_a_function_that_makes_a_graph_may_be_async_and_may_take_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    _written(tmp_path, monkeypatch, MINE + made, "mine_made")
    assert "messages" in (await load("mine_made:make")).channels


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise KeyError('SOME_API_KEY')", r"KeyError: 'SOME_API_KEY' \(mine_broken.py, line 1\)"),
        ("\ndef make(:", "SyntaxError: invalid syntax .*mine_broken.py, line 2"),
        ("import not_installed", "No module named 'not_installed'"),
        ("def make(one, *, two): raise OSError('no server')", "TypeError: .*'two'"),
        ("def make(config): raise OSError('no server')", r"OSError: no server \(mine_broken.py, line 1\)"),
        ("def make(): return 7", "is a int"),
    ],
)
async def test_what_is_wrong_in_ones_own_file_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    _written(tmp_path, monkeypatch, text, "mine_broken")
    with pytest.raises(ValueError, match=rf"(?s)^'mine_broken:make'.*{reason}"):
        await load("mine_broken:make")
