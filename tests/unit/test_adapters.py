"""The adapters' translators, where a real client cannot be brought to look: attempts that differ, pruned tokens."""

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any, get_args
from uuid import uuid4

import pytest
from pydantic import ValidationError

from functions.adapters.ai_sdk import ChatRequest
from functions.adapters.ai_sdk_frames import STARTED_AGAIN, ChatWire, Chunks
from functions.adapters.langgraph_frames import Place, RunWire, StreamMode
from functions.adapters.runs import Told
from functions.frames import encode
from graph.eventlog import events as e
from graph.eventlog.events import Event
from graph.eventlog.hub import Frame

SESSION, TURN = uuid4(), uuid4()
ID = f"{TURN}:assistant"
TOLD = Told(SESSION, TURN, 1, 0, "", None, "running", [])


def _started() -> e.StreamEvent:
    return e.TurnStarted(turn_id=TURN, message="What helps?", request_id="r")


def _tokens(*texts: str) -> list[e.StreamEvent]:
    return [e.Token(content=text) for text in texts]


def _again() -> e.StreamEvent:
    return e.Reset(turn_id=TURN, attempt=2, reason="worker_lost")


def _done(text: str) -> e.StreamEvent:
    return e.Done(turn_id=TURN, message=e.AnswerMessage(id=ID, content=text))


def _chunks(*events: e.StreamEvent, resets: bool = False, told: Told = TOLD) -> list[dict[str, Any]]:
    for event in events:
        event.timestamp = "2026-11-27T12:00:00.000Z"
    chunks = Chunks(told, resets=resets)
    return [chunk for seq, event in enumerate(events, 1) for chunk in chunks.feed(seq, event)]


def _encoded(events: Sequence[e.StreamEvent]) -> list[Frame]:
    for event in events:
        event.timestamp = "2026-11-27T12:00:00.000Z"
    rows = [
        Event(SESSION, seq, TURN, 1, event.type, event.model_dump_json(exclude={"type"}, exclude_none=True))
        for seq, event in enumerate(events, 1)
    ]
    return [Frame(row.seq, row.type in e.ENDS, encode(row)) for row in rows]


def _types(chunks: list[dict[str, Any]]) -> list[str]:
    return [chunk["type"] for chunk in chunks]


def _text(chunks: list[dict[str, Any]]) -> str:
    """What a client of version 7 has in the end."""
    text = ""
    for chunk in chunks:
        text = "" if chunk["type"] == "reset-step" else text + chunk.get("delta", "")
    return text


def test_version_6_hears_nothing_of_an_attempt_that_says_the_same() -> None:
    chunks = _chunks(_started(), *_tokens("Iron ", "and "), _again(), *_tokens("Iron and tea."), _done("Iron and tea."))
    assert [chunk["delta"] for chunk in chunks if "delta" in chunk] == ["Iron ", "and ", "tea."]
    assert _types(chunks)[-3:] == ["text-end", "finish-step", "finish"]


@pytest.mark.parametrize(("second", "end"), [("Coffee.", "Coffee."), ("Iron", "Iron"), ("Iron", "")])
def test_version_6_gets_the_words_of_an_attempt_that_says_otherwise_in_a_part_of_their_own(
    second: str, end: str
) -> None:
    """It cannot take words back: it is told that those before no longer hold."""
    chunks = _chunks(_started(), *_tokens("Iron and "), _again(), *_tokens(second), _done(end))
    at = _types(chunks).index("data-reset")
    assert _types(chunks)[at - 1] == "text-end"
    assert "".join(chunk.get("delta", "") for chunk in chunks[at:]) == end
    assert "error" not in _types(chunks)
    assert _types(chunks)[-1] == "finish"
    opened = [chunk["id"] for chunk in chunks if chunk["type"] == "text-start"]
    assert opened == [chunk["id"] for chunk in chunks if chunk["type"] == "text-end"]
    assert len(opened) == len(set(opened)), "no part is opened twice"


@pytest.mark.parametrize("reason", ["worker_lost", "revised"])
def test_a_resume_of_version_6_shows_nothing_of_what_was_taken_back_before(reason: str) -> None:
    reset = e.Reset(turn_id=TURN, attempt=2, reason=reason)
    events = [_started(), *_tokens('{"topic": 1}', "Iron"), reset, *_tokens("Coffee."), _done("Coffee.")]
    chunks = _chunks(*events, told=TOLD._replace(reset_seq=4))
    assert _text(chunks) == "Coffee."
    assert _types(chunks) == ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]


def test_a_stage_that_was_under_way_ends_with_its_turn() -> None:
    begun = [_started(), e.GenerationStart(turn_id=TURN, model="m"), *_tokens("Iron.")]
    stopped = e.Cancelled(turn_id=TURN, reason="user_initiated", content="Iron.")
    for end, state in ((_done("Iron."), "done"), (stopped, "stopped")):
        stages = [chunk["data"]["state"] for chunk in _chunks(*begun, end) if chunk["type"] == "data-stage"]
        assert stages == ["active", state]


def test_version_7_takes_the_words_of_the_first_attempt_back() -> None:
    events = [_started(), *_tokens("Iron and "), _again(), *_tokens("Coffee."), _done("Coffee.")]
    chunks = _chunks(*events, resets=True)
    assert _text(chunks) == "Coffee."
    assert _types(chunks).count("reset-step") == 1
    assert _types(chunks).count("text-start") == 2, "its parts went with the step"


def test_a_step_that_is_forgotten_tells_its_finished_stages_again() -> None:
    begun, ended = e.StageStart(turn_id=TURN, stage="plan"), e.StageComplete(turn_id=TURN, stage="plan", duration_ms=1)
    act = e.StageStart(turn_id=TURN, stage="act")
    chunks = _chunks(_started(), *_tokens("So "), begun, ended, act, _again(), act, resets=True)
    stages = [(chunk["id"], chunk["data"]["state"]) for chunk in chunks if chunk["type"] == "data-stage"]
    assert stages == [("plan", "active"), ("plan", "done"), ("act", "active"), ("plan", "done"), ("act", "active")]


def test_where_tokens_were_pruned_the_text_comes_with_the_end() -> None:
    assert _text(_chunks(_started(), _done("Iron."))) == "Iron."
    frames = _frames(_started(), _done("Iron."), modes=["messages-tuple"])
    assert [data[0]["content"] for name, data in frames if name == "messages"] == ["Iron."]


def test_an_index_into_pruned_tokens_never_gives_a_wrong_prefix() -> None:
    events = [_started(), _done("Iron and tea.")]
    frames = _encoded(events)
    count = len(_chunks(*events))
    for start in range(count + 5):
        said = ChatWire(TOLD, start, resets=True).render(frames).decode()
        assert said.count('"finish"') == 1, "without it the workflow transport asks for ever"
        assert ("Iron and tea." in said) != (STARTED_AGAIN in said), start


def test_whoever_counted_past_the_end_is_told_that_the_answer_has_ended() -> None:
    """Without a `finish` the workflow transport asks again and again, without a pause."""
    events = [_started(), *_tokens("Iron "), _done("Iron ")]
    count = len(_chunks(*events))
    for start in (count - 1, count, count + 100):
        said = ChatWire(TOLD, start, resets=True).render(_encoded(events)).decode()
        assert (said.count("data: {"), said.count('"finish"')) == (1, 1), start


def test_a_source_with_an_address_is_a_link_and_one_without_a_document() -> None:
    sources = [e.Source(id=url or "none", title="T", url=url, score=1, text="t") for url in ("https://a.example", "")]
    chunks = _chunks(_started(), e.RerankingComplete(turn_id=TURN, sources=sources, duration_ms=1))
    assert _types(chunks)[-2:] == ["source-url", "source-document"]


def test_a_cancel_is_an_abort_and_then_a_finish() -> None:
    end = e.Cancelled(turn_id=TURN, reason="user_initiated", content="Iron ")
    assert _types(_chunks(_started(), *_tokens("Iron "), end))[-4:] == ["text-end", "finish-step", "abort", "finish"]


def test_an_error_is_told_in_words_for_a_person() -> None:
    end = e.Error(turn_id=TURN, code="model_timeout", message="Too slow.", retryable=True, content="")
    assert {"type": "error", "errorText": "Too slow."} in _chunks(_started(), end)
    assert _frames(_started(), end, modes=["values"])[-1] == (
        "error",
        {"error": "model_timeout", "message": "Too slow."},
    )


def _frames(*events: e.StreamEvent, modes: Any) -> list[tuple[str, Any]]:
    return [(name, data) for _, name, data in _run_frames(_encoded(events), modes)]


def _run_frames(frames: Sequence[Frame], modes: Any, after: str = "") -> list[tuple[str, str, Any]]:
    """Id, name and data of what a LangGraph client is sent after that id."""
    place = Place.of(after)
    assert place is not None
    said = RunWire(TOLD, modes, place).render(frames).decode()
    found = [frame.split("\n") for frame in said.split("\n\n") if frame.startswith("id: ")]
    return [(line[0][4:], line[1][7:], json.loads(line[2][6:])) for line in found]


def test_a_langgraph_client_is_told_the_attempt_and_that_the_message_was_removed() -> None:
    events = [_started(), *_tokens("Iron and "), _again(), *_tokens("Coffee."), _done("Coffee.")]
    frames = _frames(*events, modes=["messages-tuple", "messages"])
    assert [data["attempt"] for name, data in frames if name == "metadata"] == [1, 2]
    messages = [(data[0]["type"], data[0]["content"]) for name, data in frames if name == "messages"]
    assert messages == [("AIMessageChunk", "Iron and "), ("remove", ""), ("AIMessageChunk", "Coffee.")]
    partial = [data[0]["content"] for name, data in frames if name == "messages/partial"]
    assert partial == ["Iron and ", "Coffee."]


def _whole_turn() -> list[e.StreamEvent]:
    asked = [e.Interrupt(id="i", value="Really?")]
    return [
        _started(),
        e.Routed(turn_id=TURN, agent="rag_agent"),
        e.RetrievalStart(turn_id=TURN),
        e.RetrievalComplete(turn_id=TURN, passages=3, duration_ms=1),
        e.Custom(turn_id=TURN, value=1),
        *_tokens("Iron ", "and "),
        _again(),
        *_tokens("Coffee ", "and ", "tea."),
        e.Done(turn_id=TURN, message=e.AnswerMessage(id=ID, content="Coffee and tea."), interrupted=asked),
    ]


MODES: tuple[str, ...] = get_args(StreamMode)
MODE_SETS = [modes for size in range(1, len(MODES) + 1) for modes in combinations(MODES, size)]
MODES_OF = {"messages": "messages-tuple", "messages/partial": "messages", "messages/complete": "messages"}


def test_a_run_goes_on_after_any_frame_with_any_other_modes() -> None:
    """An id says the same to whoever asks: so the frames of any modes, after any id of any others, are those that
    follow."""
    frames = _encoded(_whole_turn())
    whole = _run_frames(frames, MODES)
    assert {MODES_OF.get(name, name) for _, name, _ in whole} == {"metadata", *MODES}
    assert len({frame_id for frame_id, _, _ in whole}) == len(whole)
    for modes in MODE_SETS:
        mine = [(n, frame) for n, frame in enumerate(whole) if MODES_OF.get(frame[1], frame[1]) in ("metadata", *modes)]
        assert _run_frames(frames, modes) == [frame for _, frame in mine], modes
        for cut, (frame_id, _, _) in enumerate(whole):
            assert _run_frames(frames, modes, frame_id) == [frame for n, frame in mine if n > cut], (modes, frame_id)


def test_a_run_whose_tokens_were_pruned_goes_on_after_any_frame_without_a_wrong_word() -> None:
    frames = _encoded(_whole_turn())
    pruned = [frame for frame in frames if b"event: token\n" not in frame.data]
    whole = _run_frames(frames, MODES)
    for cut in range(len(whole)):
        came = [*whole[: cut + 1], *_run_frames(pruned, MODES, whole[cut][0])]
        text = ""
        for message in (data[0] for _, name, data in came if name == "messages"):
            text = "" if message["type"] == "remove" else text + message["content"]
        assert text == "Coffee and tea.", whole[cut]
        assert [data[0]["content"] for _, name, data in came if name == "messages/complete"] == ["Coffee and tea."]
        assert len({frame_id for frame_id, _, _ in came}) == len(came)


def test_the_place_after_a_frame_is_its_id() -> None:
    assert str(Place(7)) == "7"
    assert str(Place(7, 2)) == "7.2"
    assert Place.of("7.2") == Place(7, 2) < Place.of("7")  # type: ignore[operator]
    assert Place.of("-1") == Place.of("") == Place.of(None) == Place(0)
    assert Place.of("7.") is Place.of("seven") is Place.of("7.2.1") is None


def test_a_message_of_countless_parts_is_one_mistake() -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate({"id": "x", "messages": [{"role": "user", "parts": [0] * 100_000}]})
    assert refused.value.error_count() == 1
