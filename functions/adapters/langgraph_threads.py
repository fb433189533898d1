"""Threads are sessions, and the one assistant is the graph that is served."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from fastapi import APIRouter, HTTPException, Response
from pydantic import AfterValidator, Field

from functions.adapters.langgraph_frames import values_of
from functions.adapters.langgraph_state import Body, Json, asked_by
from functions.auth import Owner
from functions.replica import Replica, Serving
from graph.eventlog.errors import SessionNotFound
from graph.eventlog.snapshot import fold

ASSISTANT = "agent"
ASSISTANT_ID = str(uuid5(NAMESPACE_URL, ASSISTANT))
MADE_AT = "2026-01-01T00:00:00+00:00"
SEARCH_MAX_THREADS = 100
SEARCH_MAX_OFFSET = 10_000
METADATA = {"graph_id": ASSISTANT, "assistant_id": ASSISTANT_ID}
Status = Literal["idle", "busy", "interrupted", "error"]
router = APIRouter()


class AssistantCount(Body):
    graph_id: str | None = None
    name: str | None = None
    metadata: Json | None = None

    @property
    def found(self) -> list[Json]:
        asked = {"graph_id": self.graph_id, "name": self.name}
        mine = all(value in (None, ASSISTANT) for value in asked.values()) and not self.metadata
        return [assistant()] if mine else []


class AssistantSearch(AssistantCount):
    limit: int = Field(default=10, ge=1)
    offset: int = Field(default=0, ge=0)
    sort_by: str | None = None
    sort_order: str | None = None
    select: list[str] | None = None


class ThreadCreate(Body):
    """Labels of yours are taken and not kept."""

    thread_id: UUID | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    metadata: Json | None = None


def _kept(metadata: Json | None) -> Json | None:
    if set(metadata or {}) - set(METADATA):
        raise ValueError(f"no labels of yours are kept to look for; every thread has {', '.join(METADATA)}")
    return metadata


class ThreadCount(Body):
    """`metadata` is compared with what every thread has: graph_id and assistant_id."""

    status: Status | None = None
    metadata: Annotated[Json | None, AfterValidator(_kept)] = None

    @property
    def any(self) -> bool:
        return (self.metadata or {}).items() <= METADATA.items()


class ThreadSearch(ThreadCount):
    limit: int = Field(default=10, ge=1, le=SEARCH_MAX_THREADS)
    offset: int = Field(default=0, ge=0, le=SEARCH_MAX_OFFSET)
    ids: list[UUID] | None = Field(default=None, max_length=SEARCH_MAX_THREADS)
    sort_by: Literal["updated_at"] | None = None
    sort_order: Literal["desc"] | None = None
    select: list[str] | None = None


def assistant() -> Json:
    times = {"created_at": MADE_AT, "updated_at": MADE_AT}
    names = {"assistant_id": ASSISTANT_ID, "graph_id": ASSISTANT, "name": ASSISTANT}
    return {**names, **times, "config": {}, "context": {}, "metadata": {}, "version": 1, "description": None}


def known_assistant(assistant_id: str) -> None:
    if assistant_id not in (ASSISTANT, ASSISTANT_ID):
        raise HTTPException(404, f"There is one assistant here, {ASSISTANT!r}.")


def chosen(item: Mapping[str, Any], select: Sequence[str] | None) -> Json:
    return {name: value for name, value in item.items() if not select or name in select}


@router.post("/assistants/search")
async def search_assistants(body: AssistantSearch | None = None) -> list[Json]:
    asked = body or AssistantSearch()
    return [chosen(item, asked.select) for item in asked.found[asked.offset :]]


@router.post("/assistants/count")
async def count_assistants(body: AssistantCount | None = None) -> int:
    return len((body or AssistantCount()).found)


@router.get("/assistants/{assistant_id}")
async def get_assistant(assistant_id: str) -> Json:
    known_assistant(assistant_id)
    return assistant()


@router.get("/assistants/{assistant_id}/schemas")
async def schemas(assistant_id: str) -> Json:
    known_assistant(assistant_id)
    messages = {"type": "object", "properties": {"messages": {"type": "array", "items": {"type": "object"}}}}
    empty: Json = {"config_schema": {}, "context_schema": {}}
    return {
        "graph_id": ASSISTANT,
        "input_schema": messages,
        "output_schema": messages,
        "state_schema": messages,
    } | empty


@router.post("/threads")
async def create_thread(owner: Owner, replica: Serving, body: ThreadCreate) -> Json:
    session_id = body.thread_id or uuid4()
    if body.thread_id is not None and body.if_exists != "do_nothing" and await _exists(replica, owner, session_id):
        raise HTTPException(409, "There is such a thread already.")
    await replica.log.make(session_id, owner)
    return await _thread(replica, owner, session_id)


async def _exists(replica: Replica, owner: str, session_id: UUID) -> bool:
    try:
        await replica.log.one(session_id, owner)
    except SessionNotFound:
        return False
    return True


@router.get("/threads/{thread_id}")
async def get_thread(thread_id: UUID, owner: Owner, replica: Serving) -> Json:
    return await _thread(replica, owner, thread_id)


@router.delete("/threads/{thread_id}", status_code=204)
async def delete_thread(thread_id: UUID, owner: Owner, replica: Serving) -> Response:
    await replica.log.erase(thread_id, owner)
    replica.ended(thread_id)
    replica.hub.wake(thread_id)
    return Response(status_code=204)


@router.post("/threads/search")
async def search_threads(body: ThreadSearch, owner: Owner, replica: Serving) -> list[Json]:
    """Newest first. Only the threads of this page are read."""
    if not body.any:
        return []
    rows = await replica.log.threads(owner, body.ids, body.status, body.limit, body.offset)
    return [chosen(await _thread(replica, owner, row["session_id"]), body.select) for row in rows]


@router.post("/threads/count")
async def count_threads(owner: Owner, replica: Serving, body: ThreadCount | None = None) -> int:
    asked = body or ThreadCount()
    return len(await replica.log.threads(owner, None, asked.status, None, 0)) if asked.any else 0


async def _thread(replica: Replica, owner: str, session_id: UUID) -> Json:
    row = await replica.log.one(session_id, owner)
    snapshot = fold(session_id, await replica.log.own_events(session_id, owner))
    last = snapshot.messages[-1] if snapshot.messages else None
    asked = asked_by(last)
    status = "busy" if snapshot.turn else "error" if last and last.error else "interrupted" if asked else "idle"
    return {
        "thread_id": str(session_id),
        "created_at": row["created_at"].isoformat(),
        "updated_at": row["updated_at"].isoformat(),
        "metadata": METADATA,
        "status": status,
        "config": {},
        "values": values_of(snapshot.messages),
        "interrupts": {f"{last.turn_id}": asked} if last and asked else {},
    }
