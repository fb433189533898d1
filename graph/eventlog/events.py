"""The events of a session: what the log stores and what a frame carries.

A `NewEvent` is what a writer hands in; it has no seq. An `Event` has been committed; it always has one.
The pydantic models are the contract: the OpenAPI document and the TypeScript types are generated from them.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Agent = Literal["rag_agent", "emotional_support", "safety"]
CancelReason = Literal["user_initiated", "timeout", "error"]
EndStatus = Literal["done", "cancelled", "error"]
TurnStatus = Literal["queued", "running", "done", "cancelled", "error"]
ENDS: frozenset[str] = frozenset({"done", "cancelled", "error"})


class Source(BaseModel):
    """A passage that an answer may cite. `[n]` in the answer is the n-th source, counted from 1."""

    id: str
    title: str
    url: str
    score: float
    text: str


class Citation(BaseModel):
    """One `[number]` of an answer and the source that it names."""

    number: int = Field(ge=1)
    source_id: str


class Usage(BaseModel):
    input_tokens: int = 0
    output_tokens: int = 0


class AnswerMessage(BaseModel):
    """The finished answer. `content` is Markdown."""

    id: str
    content: str
    citations: list[Citation] = []


class Resume(BaseModel):
    """What answers a graph's interrupt. Of several interrupts each needs its answer, by id: `{id: value}`."""

    model_config = ConfigDict(extra="forbid")
    resume: Any


class Interrupt(BaseModel):
    """What a graph asked before it goes on. A breakpoint asks nothing: its id is empty."""

    id: str
    value: Any = None


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")
    timestamp: str = Field(default="", description="ISO 8601 in UTC with milliseconds, stamped once, before the commit")


class _TurnEvent(_Event):
    turn_id: UUID


class TurnStarted(_TurnEvent):
    type: Literal["turn_started"] = "turn_started"
    message: str
    request_id: str
    replaces: UUID | None = Field(default=None, description="the turn that this one stands in for: leave it out")
    command: Resume | None = Field(default=None, description="answers what interrupted the turn before")
    input: dict[str, Any] | None = Field(default=None, description="of another graph's input, all but the message")


class Routed(_TurnEvent):
    type: Literal["routed"] = "routed"
    agent: Agent


class RetrievalStart(_TurnEvent):
    type: Literal["retrieval_start"] = "retrieval_start"


class RetrievalComplete(_TurnEvent):
    type: Literal["retrieval_complete"] = "retrieval_complete"
    passages: int = Field(ge=0, description="how many passages were found")
    duration_ms: int = Field(ge=0)
    degraded: str | None = Field(default=None, description="what was left out, in words for a person")


class RerankingStart(_TurnEvent):
    type: Literal["reranking_start"] = "reranking_start"


class RerankingComplete(_TurnEvent):
    type: Literal["reranking_complete"] = "reranking_complete"
    sources: list[Source]
    duration_ms: int = Field(ge=0)
    degraded: str | None = None


class StageStart(_TurnEvent):
    type: Literal["stage_start"] = "stage_start"
    stage: str


class StageComplete(_TurnEvent):
    type: Literal["stage_complete"] = "stage_complete"
    stage: str
    duration_ms: int = Field(ge=0)


class Custom(_TurnEvent):
    type: Literal["custom"] = "custom"
    value: Any


class GenerationStart(_TurnEvent):
    type: Literal["generation_start"] = "generation_start"
    model: str


class Token(_Event):
    type: Literal["token"] = "token"
    content: str = Field(description="one or more tokens that were committed together")


class Reset(_TurnEvent):
    """Forget this turn's tokens. Finished stages and their sources stay; the stage under way starts again."""

    type: Literal["reset"] = "reset"
    attempt: int
    reason: str


class Done(_TurnEvent):
    type: Literal["done"] = "done"
    message: AnswerMessage
    abstained: bool = False
    usage: Usage = Usage()
    duration_ms: int = Field(default=0, ge=0)
    interrupted: list[Interrupt] | None = Field(default=None, description="another graph waits for these answers")


class Cancelled(_TurnEvent):
    type: Literal["cancelled"] = "cancelled"
    reason: CancelReason
    content: str = Field(description="the partial answer, kept")


class Error(_TurnEvent):
    type: Literal["error"] = "error"
    code: str
    message: str = Field(description="for a person")
    retryable: bool
    content: str = Field(default="", description="the partial answer, kept")


StreamEvent = Annotated[
    TurnStarted
    | Routed
    | RetrievalStart
    | RetrievalComplete
    | RerankingStart
    | RerankingComplete
    | StageStart
    | StageComplete
    | Custom
    | GenerationStart
    | Token
    | Reset
    | Done
    | Cancelled
    | Error,
    Field(discriminator="type"),
]
STREAM_EVENT: TypeAdapter[StreamEvent] = TypeAdapter(StreamEvent)


class NewEvent(NamedTuple):
    """An event before its append. `data` is a frame's data without `timestamp`, which the writer stamps.

    `task` names the LangGraph task whose end this event tells: both commit together, so that what a reader saw finished
    is never run again.
    """

    type: str
    data: dict[str, Any]
    task: str = ""


class Event(NamedTuple):
    """A committed event. `data` is one line of JSON, the same bytes in the table and in every replica's frame."""

    session_id: UUID
    seq: int
    turn_id: UUID
    attempt: int
    type: str
    data: str

    def parse(self) -> StreamEvent:
        return STREAM_EVENT.validate_python({**orjson.loads(self.data), "type": self.type})


def new_event(event: StreamEvent) -> NewEvent:
    data = event.model_dump(mode="json", exclude={"type", "timestamp"}, exclude_none=True)
    return NewEvent(event.type, data)


def timestamp(now: datetime | None = None) -> str:
    moment = now or datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def encode_data(data: dict[str, Any], stamp: str) -> str:
    return orjson.dumps({**data, "timestamp": stamp}).decode()


def storable(text: str) -> str:
    """Text without NUL and lone surrogates: `json` accepts them, `->>` refuses, and the turn could not be cancelled."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
