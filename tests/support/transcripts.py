"""Makes the golden transcripts that bind the translator, the Python fold and the TypeScript reducer.

`python -m tests.support.transcripts` writes tests/transcripts anew: NAME.jsonl holds the events, a line each, and
NAME.snapshot.json the snapshot that both folds must give.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from langchain_core.messages import AIMessage

from graph.eventlog.events import (
    AnswerMessage,
    Cancelled,
    Done,
    Event,
    Interrupt,
    NewEvent,
    Reset,
    Resume,
    TurnStarted,
    encode_data,
    new_event,
)
from graph.eventlog.snapshot import fold
from graph.failures import error_event
from graph.models import Piece
from graph.translate import Translator, done

FOLDER = Path(__file__).parent.parent / "transcripts"
SESSION = UUID("11111111-1111-4111-8111-111111111111")
FIRST, SECOND = UUID("22222222-2222-4222-8222-222222222222"), UUID("33333333-3333-4333-8333-333333333333")
STAMP = "2026-11-23T18:00:%02d.%d23Z"  # each event a tenth of a second after the one before
SOURCE = {
    "id": "iron-deficiency#1",
    "title": "Iron deficiency: Symptoms",
    "url": "",
    "score": 0.8,
    "text": "Tiredness.",
}
ANSWER = "Common symptoms are tiredness and pale skin. [1]"

Turn = list[tuple[UUID, NewEvent]]


def _task(node: str, result: dict[str, Any] | None = None) -> tuple[str, Any]:
    common = {"id": f"task-{node}", "name": node}
    return ("task", {**common, "input": {}} if result is None else {**common, "error": None, "result": result})


def _said(words: Iterable[str]) -> list[tuple[str, Any]]:
    return [("said", Piece(word, recited=False)) for word in words]


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + [text.split(" ")[-1]]


def _started(turn_id: UUID, message: str, replaces: UUID | None = None) -> Turn:
    event = TurnStarted(turn_id=turn_id, message=message, request_id=f"request-{turn_id.hex[:4]}", replaces=replaces)
    return [(turn_id, new_event(event))]


def _streamed(turn_id: UUID, stream: Sequence[tuple[str, Any]]) -> Turn:
    translator = Translator(turn_id, "extractive")
    return [(turn_id, event) for n, (mode, data) in enumerate(stream) for event in translator.feed(mode, data, n / 100)]


def _searched() -> list[tuple[str, Any]]:
    return [
        _task("safety"),
        _task("safety", {"agent": ""}),
        _task("supervisor"),
        _task("supervisor", {"agent": "rag_agent"}),
        _task("retrieve"),
        _task("retrieve", {"passages": [SOURCE, SOURCE], "retrieval_degraded": None}),
        _task("rerank"),
        _task("rerank", {"sources": [SOURCE], "reranking_degraded": None}),
    ]


def _answering(words: int | None = None) -> list[tuple[str, Any]]:
    return [*_searched(), _task("generate"), *_said(_words(ANSWER)[:words])]


def _finished(turn_id: UUID, text: str = ANSWER, **values: Any) -> Turn:
    return [(turn_id, done(turn_id, {"messages": [AIMessage(text)], **values}, 1234))]


def _answered(turn_id: UUID = FIRST, question: str = "What are the symptoms of iron deficiency?") -> Turn:
    citations = [{"number": 1, "source_id": SOURCE["id"]}]
    return [
        *_started(turn_id, question),
        *_streamed(turn_id, _answering()),
        *_finished(turn_id, citations=citations, abstained=False),
    ]


def _stopped() -> Turn:
    partial = "".join(_words(ANSWER)[:3])
    cancelled = new_event(Cancelled(turn_id=FIRST, reason="user_initiated", content=partial))
    return [*_started(FIRST, "Stop me"), *_streamed(FIRST, _answering(3)), (FIRST, cancelled)]


def _failed() -> Turn:
    partial = "".join(_words(ANSWER)[:2])
    failed = error_event(FIRST, "model_timeout", partial)
    return [*_started(FIRST, "Fail"), *_streamed(FIRST, _answering(2)), (FIRST, failed)]


def _taken_over() -> Turn:
    """The first attempt dies in mid-answer; the second keeps the finished stages and writes again."""
    reset = new_event(Reset(turn_id=FIRST, attempt=2, reason="worker_lost"))
    again = _streamed(FIRST, [_task("generate"), *_said(_words(ANSWER))])
    return [*_started(FIRST, "Again"), *_streamed(FIRST, _answering(4)), (FIRST, reset), *again, *_finished(FIRST)]


def _replaced() -> Turn:
    return [
        *_answered(),
        *_started(SECOND, "And in children?", replaces=FIRST),
        *_streamed(SECOND, _answering()),
        *_finished(SECOND),
    ]


def _emergency() -> Turn:
    text = "Call your local emergency number now."
    stream = [
        _task("safety"),
        _task("safety", {"agent": "safety"}),
        _task("emergency"),
        *_said(_words(text)),
    ]
    return [*_started(FIRST, "My chest hurts"), *_streamed(FIRST, stream), *_finished(FIRST, text)]


def _interrupted() -> Turn:
    """Another graph asks the person, who answers in a turn of their own."""
    asked = Done(
        turn_id=FIRST,
        message=AnswerMessage(id=f"{FIRST}:assistant", content="Let me see."),
        duration_ms=40,
        interrupted=[Interrupt(id="question-1", value={"question": "Book a table in Lisbon?"})],
    )
    answered = TurnStarted(turn_id=SECOND, message="yes", request_id="request-3333", command=Resume(resume="yes"))
    return [
        *_started(FIRST, "Book a table in Lisbon"),
        *_streamed(FIRST, [_task("tools")]),
        (FIRST, new_event(asked)),
        (SECOND, new_event(answered)),
    ]


def _other_graph() -> Turn:
    stream = [_task("plan"), _task("plan", {"plan": "x"}), _task("act")]
    return [*_started(FIRST, "Do it"), *_streamed(FIRST, stream)]


TRANSCRIPTS: dict[str, Callable[[], Turn]] = {
    "answered": _answered,
    "answering": lambda: [*_started(FIRST, "Hello"), *_streamed(FIRST, _answering(4))],
    "emergency": _emergency,
    "failed": _failed,
    "followed_up": lambda: [*_answered(), *_started(SECOND, "And in children?")],
    "interrupted": lambda: _interrupted()[:-1],
    "interrupted_answered": _interrupted,
    "other_graph": _other_graph,
    "replaced": _replaced,
    "searching": lambda: [*_started(FIRST, "Hello"), *_streamed(FIRST, _searched()[:5])],
    "stopped": _stopped,
    "taken_over": _taken_over,
}


def events(turn: Turn, pruned: bool = False) -> list[Event]:
    numbered = [
        Event(SESSION, seq, turn_id, 1, new.type, encode_data(new.data, STAMP % divmod(seq, 10)))
        for seq, (turn_id, new) in enumerate(turn, 1)
    ]
    return [event for event in numbered if not (pruned and event.type == "token")]


def files(name: str, log: list[Event]) -> dict[Path, bytes]:
    lines = [
        orjson.dumps({"seq": event.seq, "type": event.type, "data": orjson.loads(event.data)}) + b"\n" for event in log
    ]
    snapshot = fold(SESSION, log).model_dump(mode="json")
    return {
        FOLDER / f"{name}.jsonl": b"".join(lines),
        FOLDER / f"{name}.snapshot.json": orjson.dumps(snapshot, option=orjson.OPT_INDENT_2) + b"\n",
    }


def all_files() -> dict[Path, bytes]:
    made: dict[Path, bytes] = {}
    for name, turn in TRANSCRIPTS.items():
        made |= files(name, events(turn()))
    return made | files("pruned", events(_answered(), pruned=True))


if __name__ == "__main__":
    for path, content in all_files().items():
        path.write_bytes(content)
