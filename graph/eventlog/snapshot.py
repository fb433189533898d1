"""The fold: a session's events → its snapshot. Pure; `frontend/src/chat/reduce.ts` is the same fold in TypeScript."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, assert_never
from uuid import UUID

from pydantic import BaseModel

from graph.eventlog import events as e

MessageStatus = Literal["complete", "cancelled", "error"]
Judgement = Literal[-1, 0, 1]


class StageState(BaseModel):
    """`name` is retrieval, reranking, generation or another graph's node; `stopped` when its turn ended before it."""

    name: str
    state: Literal["active", "done", "stopped"] = "active"
    started_at: str = ""
    duration_ms: int | None = None
    passages: int | None = None
    sources: int | None = None
    degraded: str | None = None
    model: str | None = None


class Message(BaseModel):
    """One side's words in a conversation. `content` is Markdown; a stopped or failed answer keeps its partial text.

    `timestamp` is when it was asked, or when the answer ended.
    """

    id: str
    role: Literal["user", "assistant"]
    content: str
    status: MessageStatus = "complete"
    citations: list[e.Citation] = []
    sources: list[e.Source] = []
    turn_id: UUID
    timestamp: str = ""
    agent: e.Agent | None = None
    stages: list[StageState] = []
    abstained: bool = False
    duration_ms: int | None = None
    error: e.Error | None = None
    feedback: Judgement = 0
    interrupted: list[e.Interrupt] | None = None


class StreamingSession(BaseModel):
    """The running turn: what a page needs to go on as if it had watched from the start."""

    turn_id: UUID
    status: Literal["queued", "running"] = "queued"
    attempt: int = 1
    agent: e.Agent | None = None
    stage: str | None = None
    stages: list[StageState] = []
    content: str = ""
    sources: list[e.Source] = []


class Snapshot(BaseModel):
    """A session's log folded up to `last_seq`; tailing after `last_seq` goes on exactly there."""

    session_id: UUID
    title: str = ""
    last_seq: int = 0
    messages: list[Message] = []
    turn: StreamingSession | None = None


def fold(session_id: UUID, events: Iterable[e.Event], title: str = "") -> Snapshot:
    snapshot = Snapshot(session_id=session_id, title=title)
    for event in events:
        apply(snapshot, event)
    return snapshot


def judge(snapshot: Snapshot, values: Mapping[str, Judgement]) -> None:
    """Adds what the reader thought of the answers, by turn_id. It is no event, so the fold knows nothing of it."""
    for message in snapshot.messages:
        if message.role == "assistant":
            message.feedback = values.get(str(message.turn_id), 0)


def apply(snapshot: Snapshot, event: e.Event) -> None:
    """Adds one event; an event that is already in (seq ≤ last_seq) changes nothing."""
    if event.seq <= snapshot.last_seq:
        return
    snapshot.last_seq = event.seq
    parsed = event.parse()
    if isinstance(parsed, e.TurnStarted):
        _start(snapshot, parsed)
    elif snapshot.turn is not None:
        _advance(snapshot, snapshot.turn, parsed)


def _start(snapshot: Snapshot, event: e.TurnStarted) -> None:
    if event.replaces is not None:
        snapshot.messages = [m for m in snapshot.messages if m.turn_id != event.replaces]
    snapshot.messages.append(
        Message(
            id=f"{event.turn_id}:user",
            role="user",
            content=event.message,
            turn_id=event.turn_id,
            timestamp=event.timestamp,
        )
    )
    snapshot.turn = StreamingSession(turn_id=event.turn_id)


def _advance(snapshot: Snapshot, turn: StreamingSession, event: e.StreamEvent) -> None:
    turn.status = "running"
    match event:
        case e.TurnStarted():
            raise AssertionError("a turn starts once")
        case e.Routed():
            turn.agent = event.agent
        case e.RetrievalStart():
            _begin(turn, StageState(name="retrieval", started_at=event.timestamp))
        case e.RetrievalComplete():
            _finish(turn, "retrieval", event.duration_ms, passages=event.passages, degraded=event.degraded)
        case e.RerankingStart():
            _begin(turn, StageState(name="reranking", started_at=event.timestamp))
        case e.RerankingComplete():
            turn.sources = event.sources
            _finish(turn, "reranking", event.duration_ms, sources=len(event.sources), degraded=event.degraded)
        case e.StageStart():
            _begin(turn, StageState(name=event.stage, started_at=event.timestamp))
        case e.StageComplete():
            _finish(turn, event.stage, event.duration_ms)
        case e.GenerationStart():
            _begin(turn, StageState(name="generation", started_at=event.timestamp, model=event.model))
        case e.Custom():
            pass
        case e.Token():
            turn.content += event.content
        case e.Reset():
            turn.attempt, turn.content, turn.stage = event.attempt, "", None
            turn.stages = [stage for stage in turn.stages if stage.state == "done"]
        case e.Done():
            _end(snapshot, turn, event.message.content, "complete", event.timestamp)
            answer = snapshot.messages[-1]
            answer.citations, answer.abstained = event.message.citations, event.abstained
            answer.duration_ms, answer.interrupted = event.duration_ms, event.interrupted
        case e.Cancelled():
            _end(snapshot, turn, event.content, "cancelled", event.timestamp)
        case e.Error():
            _end(snapshot, turn, event.content, "error", event.timestamp)
            snapshot.messages[-1].error = event
        case _:
            assert_never(event)


def _begin(turn: StreamingSession, stage: StageState) -> None:
    turn.stage = stage.name
    turn.stages = [s for s in turn.stages if s.name != stage.name] + [stage]


def _finish(turn: StreamingSession, name: str, duration_ms: int, **found: int | str | None) -> None:
    begun = next((stage for stage in turn.stages if stage.name == name), StageState(name=name))
    done = begun.model_copy(update={"state": "done", "duration_ms": duration_ms, **found})
    turn.stages = [done if stage is begun else stage for stage in turn.stages]
    if done not in turn.stages:
        turn.stages.append(done)


def _end(snapshot: Snapshot, turn: StreamingSession, content: str, status: MessageStatus, timestamp: str) -> None:
    snapshot.turn = None
    snapshot.messages.append(
        Message(
            id=f"{turn.turn_id}:assistant",
            role="assistant",
            content=content,
            status=status,
            sources=turn.sources,
            turn_id=turn.turn_id,
            timestamp=timestamp,
            agent=turn.agent,
            stages=[_closed(stage, status, timestamp) for stage in turn.stages],
        )
    )


def _closed(stage: StageState, status: MessageStatus, timestamp: str) -> StageState:
    """Of a stage that was under way when its turn ended, as the writing always is."""
    if stage.state == "done":
        return stage
    state = "done" if status == "complete" else "stopped"
    return stage.model_copy(update={"state": state, "duration_ms": _milliseconds(stage.started_at, timestamp)})


def _milliseconds(start: str, end: str) -> int:
    """Never less than none: two workers' clocks may differ."""
    lasted = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return max(0, round(lasted.total_seconds() * 1000))
