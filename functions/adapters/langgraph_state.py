"""A thread's state as the LangGraph SDKs ask for it: its messages at the ends of its runs. Checkpoints are seqs."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, HTTPException, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from functions.adapters import runs
from functions.adapters.langgraph_frames import Values
from functions.auth import Owner
from functions.replica import Serving
from graph.eventlog.events import ENDS, Event
from graph.eventlog.snapshot import Message, Snapshot, apply, fold

HISTORY_MAX_STATES = 100
Json = dict[str, Any]
router = APIRouter()


class Body(BaseModel):
    """What is not named is refused: it would have no effect. What is empty asks for nothing."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _asked(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if name in cls.model_fields or value not in _NOTHING}


_NOTHING: tuple[Any, ...] = (None, False, "", 0, [], {})


class Checkpoint(Body):
    """As a state names it. Which thread it is of, the path says."""

    checkpoint_id: str | None = None
    checkpoint_ns: str | None = Field(default=None, pattern="^$")
    thread_id: str | None = None
    checkpoint_map: None = None


def _as_checkpoint(given: Any) -> Any:
    """Clients name one by its id, by itself or in a config."""
    if isinstance(given, str):
        return {"checkpoint_id": given}
    return given["configurable"] if isinstance(given, dict) and "configurable" in given else given


class History(Body):
    limit: int = Field(default=10, ge=1, le=HISTORY_MAX_STATES)
    before: Annotated[Checkpoint | None, BeforeValidator(_as_checkpoint)] = None


class AtCheckpoint(Body):
    checkpoint: Checkpoint
    subgraphs: bool = False


@router.get("/threads/{thread_id}/state")
async def get_state(thread_id: UUID, owner: Owner, replica: Serving) -> Json:
    return state_of(fold(thread_id, await runs.known_events(replica, owner, thread_id)), None, Values())


@router.get("/threads/{thread_id}/state/{checkpoint_id}")
async def get_earlier_state(thread_id: UUID, checkpoint_id: str, owner: Owner, replica: Serving) -> Json:
    """At the end of a run."""
    events = await runs.known_events(replica, owner, thread_id)
    ends = [seq for seq in _ends(events) if seq <= _seq(checkpoint_id)]
    if ends[-1] != _seq(checkpoint_id) or len(ends) == 1:
        raise HTTPException(404, "There is no such checkpoint: there is one at the end of each run.")
    [state] = _states(thread_id, events, ends[-2:])
    return state


@router.post("/threads/{thread_id}/state/checkpoint")
async def get_state_at(thread_id: UUID, owner: Owner, replica: Serving, body: AtCheckpoint) -> Json:
    return await get_earlier_state(thread_id, body.checkpoint.checkpoint_id or "", owner, replica)


@router.post("/threads/{thread_id}/history")
async def history(thread_id: UUID, owner: Owner, replica: Serving, body: History) -> Response:
    """The states at the ends of its runs, newest first."""
    events = await runs.known_events(replica, owner, thread_id)
    ends = _ends(events)
    if body.before is not None:
        ends = [seq for seq in ends if seq < max(1, _seq(body.before.checkpoint_id))]
    states = list(_states(thread_id, events, ends[-body.limit - 1 :]))
    return Response(orjson.dumps(states[::-1]), media_type="application/json")


def _seq(checkpoint_id: str | None) -> int:
    return int(checkpoint_id) if checkpoint_id and checkpoint_id.isdecimal() else 0


def _ends(events: Sequence[Event]) -> list[int]:
    """Where the thread has a state: before its first run, after each, and where it is now."""
    ends = [0, *(event.seq for event in events if event.type in ENDS)]
    return [*ends, events[-1].seq] if events and events[-1].seq > ends[-1] else ends


def _states(thread_id: UUID, events: Sequence[Event], ends: Sequence[int]) -> Iterator[Json]:
    """At each of the ends but the first, in one pass: every event is folded once."""
    snapshot, values, rest = Snapshot(session_id=thread_id), Values(), iter(events)
    for parent, end in pairwise(ends):
        while snapshot.last_seq < end:
            apply(snapshot, next(rest))
        yield state_of(snapshot, parent, values)


def state_of(snapshot: Snapshot, parent: int | None, values: Values) -> Json:
    last = snapshot.messages[-1] if snapshot.messages else None
    asked = asked_by(last)
    waiting = [{"id": f"{last.turn_id}", "name": "", "interrupts": asked}] if last and asked else []
    return {
        "values": values.of(snapshot.messages),
        "next": [snapshot.turn.stage or "__start__"] if snapshot.turn else [""] if waiting else [],
        "tasks": [{**task, "error": None, "checkpoint": None, "state": None} for task in waiting],
        "checkpoint": _checkpoint(snapshot.session_id, snapshot.last_seq),
        "parent_checkpoint": None if parent is None else _checkpoint(snapshot.session_id, parent),
        "metadata": {},
        "created_at": last.timestamp if last else None,
        "interrupts": asked,
    }


def asked_by(message: Message | None) -> list[Json]:
    return [interrupt.model_dump(mode="json") for interrupt in (message.interrupted if message else None) or []]


def _checkpoint(session_id: UUID, seq: int) -> Json:
    return {"thread_id": str(session_id), "checkpoint_ns": "", "checkpoint_id": str(seq), "checkpoint_map": None}
