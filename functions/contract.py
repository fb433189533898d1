"""The bodies of the HTTP contract, beside the events and the snapshot that `graph.eventlog` defines."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from graph.eventlog.events import AnswerMessage, Resume, TurnStatus, storable

MESSAGE_MAX_CHARACTERS = 4000
REQUEST_ID_MAX_CHARACTERS = 64


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("it says nothing; write at least one word")
    return text


def _encodable(value: Any) -> Any:
    try:
        orjson.dumps(value.resume if isinstance(value, Resume) else value)
    except TypeError as error:
        raise ValueError(f"it holds what cannot be stored: {error}") from None
    return value


Text = Annotated[str, AfterValidator(storable)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StartRequest(_Body):
    """`session_id` and `request_id` are the client's to mint; the same `request_id` is one turn, never a second."""

    message: Annotated[Text, AfterValidator(_said)] = Field(min_length=1, max_length=MESSAGE_MAX_CHARACTERS)
    session_id: UUID | None = None
    request_id: Text | None = Field(default=None, min_length=1, max_length=REQUEST_ID_MAX_CHARACTERS)
    replaces: UUID | None = Field(default=None, description="the session's last turn, to regenerate or edit it")
    command: Annotated[Resume | None, AfterValidator(_encodable)] = Field(
        default=None, description="answers what interrupted the turn before; the message may then be left out"
    )
    input: Annotated[dict[str, Any] | None, AfterValidator(_encodable)] = Field(
        default=None, description="of another graph's input, all but the message"
    )

    @model_validator(mode="before")
    @classmethod
    def _answer_as_message(cls, body: Any) -> Any:
        """So that a conversation tells what was answered."""
        if isinstance(body, dict) and isinstance(body.get("command"), dict) and body.get("message") is None:
            resume = body["command"].get("resume")
            text = resume if isinstance(resume, str) and resume.strip() else json.dumps(resume, ensure_ascii=False)
            return {**body, "message": text[:MESSAGE_MAX_CHARACTERS]}
        return body

    @property
    def given(self) -> dict[str, Any]:
        """What only another graph's turn has."""
        command = {"command": {"resume": self.command.resume}} if self.command is not None else {}
        return command | ({"input": self.input} if self.input else {})


class Started(BaseModel):
    session_id: UUID
    turn_id: UUID
    after: int = Field(description="the seq before the turn's first event: tail from here")
    events_url: str


class CancellationRequest(_Body):
    """With `turn_id` a cancel can never hit a later turn."""

    turn_id: UUID | None = None
    reason: Literal["user_initiated"] = "user_initiated"


class Cancellation(BaseModel):
    """How the turn ended, also when it had ended before; `seq` is its terminal event."""

    turn_id: UUID
    status: TurnStatus
    seq: int


class BlockingAnswer(BaseModel):
    session_id: UUID
    turn_id: UUID
    status: Literal["done", "cancelled"]
    message: AnswerMessage
    duration_ms: int


class SessionItem(BaseModel):
    session_id: UUID
    title: str
    created_at: datetime
    updated_at: datetime
    running: bool


class SessionPage(BaseModel):
    """Newest first; `next` goes into `?before=` for the page after, null at the end."""

    sessions: list[SessionItem]
    next: str | None


class TitleChange(_Body):
    title: Annotated[Text, AfterValidator(_said)] = Field(min_length=1, max_length=200)


class Feedback(_Body):
    value: Literal[-1, 0, 1]
    comment: Text | None = Field(default=None, max_length=2000)


class Problem(BaseModel):
    """application/problem+json (RFC 9457) with a stable `code`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
