from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage

from graph.models import Piece
from graph.served import reconcile
from graph.translate import Translator, done

TURN = uuid4()


def test_what_is_said_becomes_tokens() -> None:
    translator = Translator(TURN, "m")
    for recited in (True, False):
        assert translator.feed("said", Piece("hello", recited), 0)[0].data == {"content": "hello"}
        assert translator.recites is recited


def test_nul_and_lone_surrogates_never_reach_the_log() -> None:
    tokens = Translator(TURN, "m").feed("said", Piece("a\x00b\ud800c", recited=False), 0)
    assert tokens[0].data == {"content": "ab?c"}


def test_a_stage_has_the_time_between_its_start_and_its_end() -> None:
    translator = Translator(TURN, "m")
    start = translator.feed("task", {"id": "t", "name": "retrieve", "input": {}}, 10.0)
    end = translator.feed("task", {"id": "t", "name": "retrieve", "error": None, "result": {"passages": [1, 2]}}, 10.5)
    assert [event.type for event in start + end] == ["retrieval_start", "retrieval_complete"]
    assert (end[0].data["passages"], end[0].data["duration_ms"]) == (2, 500)


def test_a_task_that_failed_completes_no_stage() -> None:
    end = {"id": "t", "name": "retrieve", "error": "boom", "result": None}
    assert Translator(TURN, "m").feed("task", end, 0) == []


def test_a_task_that_an_earlier_attempt_finished_is_not_said_again() -> None:
    translator = Translator(TURN, "m", frozenset({"t"}))
    assert translator.feed("task", {"id": "t", "name": "retrieve", "input": {}}, 0) == []


def test_done_carries_the_answer_its_citations_and_its_usage() -> None:
    usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    values = {
        "messages": [HumanMessage("q"), AIMessage("Answer [1]", usage_metadata=usage)],
        "citations": [{"number": 1, "source_id": "s"}],
        "abstained": True,
    }
    data = done(TURN, values, 42).data
    assert data["message"]["content"] == "Answer [1]"
    assert data["message"]["citations"] == [{"number": 1, "source_id": "s"}]
    assert data["usage"] == {"input_tokens": 3, "output_tokens": 5}
    assert (data["abstained"], data["duration_ms"]) == (True, 42)


def test_reconcile_adds_what_the_checkpoint_lacks() -> None:
    """Law 8: a cancelled turn's partial answer is in the log only."""
    known: list[BaseMessage] = [HumanMessage("one", id="1:user")]
    said: list[BaseMessage] = [HumanMessage("one", id="1:user"), AIMessage("par", id="1:assistant")]
    assert reconcile(known, said) == said[1:]
    assert reconcile(said, said) == []
    assert reconcile([], said) == said


def test_reconcile_starts_over_when_the_checkpoint_has_what_the_log_left_out() -> None:
    known: list[BaseMessage] = [HumanMessage("one", id="1:user"), AIMessage("old", id="1:assistant")]
    said: list[BaseMessage] = [HumanMessage("other", id="2:user")]
    replaced = reconcile(known, said)
    assert isinstance(replaced[0], RemoveMessage)
    assert replaced[1:] == said
