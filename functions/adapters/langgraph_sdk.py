"""What the LangGraph SDKs ask of a server: threads are sessions, runs are turns, a run's stream is its events.

`langgraph-sdk` (Python) and `@langchain/langgraph-sdk` work unchanged. What the log cannot give is refused by name.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal, get_args
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from fastapi import APIRouter, Body, Header, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from functions.adapters import runs
from functions.adapters.langgraph_frames import Place, RunWire, StreamMode, values_of
from functions.adapters.runs import Told, start_request, tell, text_of, unsupported
from functions.auth import Owner
from functions.chat import REFUSALS
from functions.contract import StartRequest
from functions.replica import Replica, Serving
from functions.tail import TailResponse, next_frames
from graph.eventlog.errors import BadCursor, SessionBusy, SessionNotFound
from graph.eventlog.events import ENDS, Done, Error, Event
from graph.eventlog.snapshot import Message, Snapshot, fold

ASSISTANT = "agent"
ASSISTANT_ID = str(uuid5(NAMESPACE_URL, ASSISTANT))
MADE_AT = "2026-01-01T00:00:00+00:00"
SEARCH_MAX_THREADS = 1000
MODES: tuple[str, ...] = get_args(StreamMode)
ABSENT = ("context", "webhook", "after_seconds", "feedback_keys", "interrupt_before", "interrupt_after", "metadata")
router = APIRouter(tags=["LangGraph SDK"], responses=REFUSALS)
Json = dict[str, Any]


class ThreadCreate(BaseModel):
    thread_id: UUID | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    metadata: Json | None = None


class ThreadSearch(BaseModel):
    """Newest first. `metadata` is compared with what every thread has: graph_id and assistant_id."""

    limit: int = Field(default=10, ge=1, le=SEARCH_MAX_THREADS)
    offset: int = Field(default=0, ge=0, le=SEARCH_MAX_THREADS)
    status: str | None = None
    metadata: Json | None = None
    ids: list[UUID] | None = None


class RunCreate(BaseModel):
    """What is not named here is refused when it is set: it would have no effect."""

    model_config = ConfigDict(extra="allow")
    assistant_id: str
    input: Json | None = None
    command: Json | None = None
    stream_mode: str | list[str] | None = None
    checkpoint: Json | None = None
    checkpoint_id: str | None = None
    config: Json | None = None
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    if_not_exists: Literal["create", "reject"] | None = None

    @property
    def modes(self) -> list[StreamMode]:
        return _modes([self.stream_mode] if isinstance(self.stream_mode, str) else self.stream_mode)


class History(BaseModel):
    limit: int = 10
    before: Any = None
    metadata: Json | None = None
    checkpoint: Json | None = None


def _modes(asked: Sequence[str] | None) -> list[StreamMode]:
    modes = [mode for mode in asked or [] if mode]
    for mode in modes:
        if mode not in MODES:
            raise unsupported("stream_mode", f"{mode!r} is not in the log; there is {', '.join(MODES)}")
    return list(modes or ["values"])  # type: ignore[arg-type]


# Assistants: one, the graph that is served.


def _assistant() -> Json:
    times = {"created_at": MADE_AT, "updated_at": MADE_AT}
    names = {"assistant_id": ASSISTANT_ID, "graph_id": ASSISTANT, "name": ASSISTANT}
    return {**names, **times, "config": {}, "context": {}, "metadata": {}, "version": 1, "description": None}


def _known_assistant(assistant_id: str) -> None:
    if assistant_id not in (ASSISTANT, ASSISTANT_ID):
        raise HTTPException(404, f"There is one assistant here, {ASSISTANT!r}.")


@router.post("/assistants/search")
async def search_assistants(body: Annotated[Json | None, Body()] = None) -> list[Json]:
    asked = body or {}
    mine = asked.get("graph_id") in (None, ASSISTANT) and not asked.get("metadata") and not asked.get("offset")
    return [_assistant()] if mine else []


@router.get("/assistants/{assistant_id}")
async def get_assistant(assistant_id: str) -> Json:
    _known_assistant(assistant_id)
    return _assistant()


@router.get("/assistants/{assistant_id}/schemas")
async def schemas(assistant_id: str) -> Json:
    _known_assistant(assistant_id)
    messages = {"type": "object", "properties": {"messages": {"type": "array", "items": {"type": "object"}}}}
    empty: Json = {"config_schema": {}, "context_schema": {}}
    return {
        "graph_id": ASSISTANT,
        "input_schema": messages,
        "output_schema": messages,
        "state_schema": messages,
    } | empty


# Threads: sessions.


@router.post("/threads")
async def create_thread(owner: Owner, replica: Serving, body: ThreadCreate) -> Json:
    if body.metadata and body.metadata != _metadata():
        raise unsupported("metadata", "a thread keeps no metadata of yours")
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
    if not (body.metadata or {}).items() <= _metadata().items():
        return []
    last = min(body.offset + body.limit, SEARCH_MAX_THREADS)
    rows = await replica.log.page(owner, "", None, SEARCH_MAX_THREADS if body.status or body.ids else last)
    ids = [row["session_id"] for row in rows if body.ids is None or row["session_id"] in body.ids]
    found = []
    for session_id in ids if body.status else ids[body.offset : last]:
        thread = await _thread(replica, owner, session_id)
        if body.status in (None, thread["status"]):
            found.append(thread)
    return found[body.offset : last] if body.status else found


def _metadata() -> Json:
    return {"graph_id": ASSISTANT, "assistant_id": ASSISTANT_ID}


async def _thread(replica: Replica, owner: str, session_id: UUID) -> Json:
    row = await replica.log.one(session_id, owner)
    snapshot = fold(session_id, await replica.log.own_events(session_id, owner))
    last = snapshot.messages[-1] if snapshot.messages else None
    status = "busy" if snapshot.turn else "error" if last and last.error else "interrupted" if _asked(last) else "idle"
    return {
        "thread_id": str(session_id),
        "created_at": row["created_at"].isoformat(),
        "updated_at": row["updated_at"].isoformat(),
        "metadata": _metadata(),
        "status": status,
        "config": {},
        "values": values_of(snapshot.messages),
        "interrupts": {f"{last.turn_id}": _asked(last)} if last and _asked(last) else {},
    }


def _asked(message: Message | None) -> list[Json]:
    return [interrupt.model_dump(mode="json") for interrupt in (message.interrupted if message else None) or []]


# State: what the log tells of it.


@router.get("/threads/{thread_id}/state")
async def get_state(thread_id: UUID, owner: Owner, replica: Serving) -> Json:
    return _state(fold(thread_id, await runs.known_events(replica, owner, thread_id)), None)


@router.post("/threads/{thread_id}/state")
async def update_state(thread_id: UUID) -> Response:
    raise HTTPException(422, "A thread's state is its log, and that is only added to by runs.")


@router.post("/threads/{thread_id}/history")
async def history(thread_id: UUID, owner: Owner, replica: Serving, body: History) -> list[Json]:
    """The states at the ends of its runs, newest first."""
    for field in ("before", "metadata", "checkpoint"):
        if getattr(body, field):
            raise unsupported(field, "is not kept; ask for more with `limit`")
    events = await runs.known_events(replica, owner, thread_id)
    ends = [0, *(event.seq for event in events if event.type in ENDS)]
    ends += [events[-1].seq] if events and events[-1].seq > ends[-1] else []
    states = [
        _state(fold(thread_id, (event for event in events if event.seq <= end)), parent)
        for end, parent in zip(ends[1:], ends[:-1], strict=True)
    ]
    return states[::-1][: body.limit]


def _state(snapshot: Snapshot, parent: int | None) -> Json:
    last = snapshot.messages[-1] if snapshot.messages else None
    asked = _asked(last)
    waiting = [{"id": f"{last.turn_id}", "name": "", "interrupts": asked}] if last and asked else []
    return {
        "values": values_of(snapshot.messages),
        "next": [snapshot.turn.stage or "__start__"] if snapshot.turn else [""] if waiting else [],
        "tasks": [{**task, "error": None, "checkpoint": None, "state": None} for task in waiting],
        "checkpoint": _checkpoint(snapshot.session_id, snapshot.last_seq),
        "parent_checkpoint": _checkpoint(snapshot.session_id, parent) if parent else None,
        "metadata": {},
        "created_at": last.timestamp if last else None,
        "interrupts": asked,
    }


def _checkpoint(session_id: UUID, seq: int) -> Json:
    return {"thread_id": str(session_id), "checkpoint_ns": "", "checkpoint_id": str(seq), "checkpoint_map": None}


# Runs: turns.


async def _begin(replica: Replica, owner: str, thread_id: UUID | None, body: RunCreate) -> Told:
    """Starts it, or stops what is under way first when asked to."""
    _known_assistant(body.assistant_id)
    if thread_id is not None and body.if_not_exists != "create":
        await replica.log.one(thread_id, owner)
    session_id = thread_id or uuid4()
    events = await replica.log.own_events(session_id, owner)
    request = _request(session_id, body, events)
    if body.multitask_strategy == "enqueue":
        raise unsupported("multitask_strategy", "nothing is queued here; there is reject, interrupt, rollback")
    try:
        return await runs.begin(replica, owner, request)
    except SessionBusy:
        if body.multitask_strategy not in ("interrupt", "rollback"):
            raise
    busy = runs.newest(await replica.log.own_events(session_id, owner))
    if busy is not None:
        await runs.stop(replica, owner, session_id, busy)
    replaces = {"replaces": busy} if body.multitask_strategy == "rollback" else {}
    return await runs.begin(replica, owner, request.model_copy(update=replaces))


def _request(session_id: UUID, body: RunCreate, events: Sequence[Event]) -> StartRequest:
    for field in ABSENT:
        if (body.model_extra or {}).get(field):
            raise unsupported(field, "would have no effect here")
    if set((body.config or {}).get("configurable") or {}) - {"thread_id"}:
        raise unsupported("config.configurable", "would have no effect here")
    fields: Json = {"session_id": session_id, "request_id": str(uuid4()), **_replaced(body, events)}
    if body.command is not None:
        if set(body.command) != {"resume"} or body.input is not None:
            raise unsupported("command", "there is `resume`, without an input")
        return start_request(**fields, command=body.command)
    given = dict(body.input or {})
    messages = given.pop("messages", None)
    return start_request(**fields, message=_question(messages), input=given or None)


def _question(messages: Any) -> str:
    one = messages[0] if isinstance(messages, list) and len(messages) == 1 else messages
    match one:
        case str():
            return one
        case [("user" | "human"), content] | {"role": "user" | "human", "content": content}:
            return text_of(content, "input.messages")
        case {"type": "human", "content": content}:
            return text_of(content, "input.messages")
        case _:
            raise unsupported("input.messages", "must be one message of a person; those before it are in the thread")


def _replaced(body: RunCreate, events: Sequence[Event]) -> Json:
    """A run may fork off the state before the last one: it takes that one's place."""
    asked = body.checkpoint_id or (body.checkpoint or {}).get("checkpoint_id")
    last = events[-1].seq if events else 0
    if asked in (None, str(last)):
        return {}
    starts = [event for event in events if event.type == "turn_started"]
    if starts and asked == str(starts[-1].seq - 1):
        return {"replaces": starts[-1].turn_id}
    raise unsupported("checkpoint", "must be the thread's newest, or the one before its last run")


def _run(told: Told, strategy: str = "reject") -> Json:
    names = {"run_id": str(told.turn_id), "thread_id": str(told.session_id), "assistant_id": ASSISTANT_ID}
    ended = told.end.timestamp if told.end else told.begun
    times = {"created_at": told.begun, "updated_at": ended}
    return {**names, **times, "status": _status(told), "metadata": {}, "kwargs": {}, "multitask_strategy": strategy}


def _status(told: Told) -> str:
    match told.end:
        case Done(interrupted=[_, *_]):
            return "interrupted"
        case Error(code="turn_timeout"):
            return "timeout"
        case _:
            pass
    return {"queued": "pending", "done": "success", "cancelled": "interrupted"}.get(told.status, told.status)


def _paths(told: Told, modes: Sequence[str] = ()) -> dict[str, str]:
    """Clients come back to Location when a connection breaks, with what they asked for."""
    run = f"/threads/{told.session_id}/runs/{told.turn_id}"
    query = "&".join(f"stream_mode={mode}" for mode in modes)
    return {"Location": f"{run}/stream?{query}".rstrip("?"), "Content-Location": run}


async def _told(replica: Replica, owner: str, thread_id: UUID, run_id: UUID) -> Told:
    return tell(thread_id, await runs.known_events(replica, owner, thread_id), run_id)


async def _stream(
    replica: Replica, owner: str, told: Told, modes: list[StreamMode], place: Place, *, stops: bool
) -> Response:
    async def left() -> None:
        await runs.stop(replica, owner, told.session_id, told.turn_id)

    with ExitStack() as watching:
        reader = await runs.watch(replica, owner, told, watching)
        headers, wire = _paths(told, modes), RunWire(told, modes, place)
        return TailResponse(
            replica, reader, owner, "turn", watching.pop_all(), headers, wire, left=left if stops else None
        )


@router.post("/threads/{thread_id}/runs/stream", response_class=Response)
async def stream_run(thread_id: UUID, owner: Owner, replica: Serving, body: RunCreate) -> Response:
    modes, told = body.modes, await _begin(replica, owner, thread_id, body)
    return await _stream(replica, owner, told, modes, Place(), stops=body.on_disconnect == "cancel")


@router.post("/runs/stream", response_class=Response)
async def stream_run_alone(owner: Owner, replica: Serving, body: RunCreate) -> Response:
    modes, told = body.modes, await _begin(replica, owner, None, body)
    return await _stream(replica, owner, told, modes, Place(), stops=body.on_disconnect == "cancel")


@router.post("/threads/{thread_id}/runs")
async def create_run(thread_id: UUID, owner: Owner, replica: Serving, body: RunCreate) -> Response:
    modes, told = body.modes, await _begin(replica, owner, thread_id, body)
    return JSONResponse(_run(told, body.multitask_strategy or "reject"), headers=_paths(told, modes))


@router.post("/threads/{thread_id}/runs/wait")
async def wait_for_run(thread_id: UUID, owner: Owner, replica: Serving, body: RunCreate) -> Response:
    return await _result(replica, owner, await _begin(replica, owner, thread_id, body))


@router.post("/runs/wait")
async def wait_for_run_alone(owner: Owner, replica: Serving, body: RunCreate) -> Response:
    return await _result(replica, owner, await _begin(replica, owner, None, body))


@router.get("/threads/{thread_id}/runs")
async def list_runs(
    thread_id: UUID, owner: Owner, replica: Serving, limit: int = 10, offset: int = 0, status: str | None = None
) -> list[Json]:
    events = await runs.known_events(replica, owner, thread_id)
    told = [tell(thread_id, events, event.turn_id) for event in events if event.type == "turn_started"]
    found = [run for run in map(_run, reversed(told)) if status in (None, run["status"])]
    return found[offset : offset + limit]


@router.get("/threads/{thread_id}/runs/{run_id}")
async def get_run(thread_id: UUID, run_id: UUID, owner: Owner, replica: Serving) -> Json:
    return _run(await _told(replica, owner, thread_id, run_id))


@router.get("/threads/{thread_id}/runs/{run_id}/stream", response_class=Response)
async def join_stream(
    thread_id: UUID,
    run_id: UUID,
    owner: Owner,
    replica: Serving,
    stream_mode: Annotated[list[str] | None, Query()] = None,
    cancel_on_disconnect: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """After `Last-Event-ID`; without one from the start, also when the run has ended."""
    told = await _told(replica, owner, thread_id, run_id)
    place = Place.of(last_event_id)
    if place is None:
        raise BadCursor
    return await _stream(replica, owner, told, _modes(stream_mode), place, stops=cancel_on_disconnect)


@router.get("/threads/{thread_id}/runs/{run_id}/join")
async def join_run(thread_id: UUID, run_id: UUID, owner: Owner, replica: Serving) -> Response:
    return await _result(replica, owner, await _told(replica, owner, thread_id, run_id))


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", responses={202: {"description": "cancelled"}})
async def cancel_run(
    thread_id: UUID,
    run_id: UUID,
    owner: Owner,
    replica: Serving,
    wait: bool = False,
    action: Literal["interrupt", "rollback"] = "interrupt",
) -> Response:
    """A run that has ended stays as it ended. The partial answer stays in the thread."""
    if action == "rollback":
        raise HTTPException(422, "A run is not forgotten here; cancel it with `interrupt`.")
    await runs.stop(replica, owner, thread_id, run_id)
    if wait:
        return await _result(replica, owner, await _told(replica, owner, thread_id, run_id))
    return Response(status_code=202)


async def _result(replica: Replica, owner: str, told: Told) -> Response:
    """The thread's values when the run has ended. Past the window, or in a drain: 503, and the client asks Location."""
    with ExitStack() as watching:
        reader = await runs.watch(replica, owner, told, watching)
        try:
            async with asyncio.timeout(replica.settings.stream_window_seconds):
                while told.end is None and not replica.hub.draining:
                    frames = await next_frames(replica, reader, owner, replica.settings.heartbeat_seconds)
                    if any(frame.ends for frame in frames):
                        told = await _told(replica, owner, told.session_id, told.turn_id)
        except TimeoutError:
            pass
    joined = {**_paths(told), "Location": f"{_paths(told)['Content-Location']}/join"}
    if told.end is None:
        raise HTTPException(503, "The run goes on; ask again.", joined)
    if isinstance(told.end, Error):
        body: Json = {"__error__": {"error": told.end.code, "message": told.end.message}}
    else:
        events = await replica.log.own_events(told.session_id, owner)
        last = next(event.seq for event in events if event.turn_id == told.turn_id and event.type in ENDS)
        snapshot = fold(told.session_id, [event for event in events if event.seq <= last])
        asked = _asked(snapshot.messages[-1])
        body = {**values_of(snapshot.messages), **({"__interrupt__": asked} if asked else {})}
    return JSONResponse(body, headers=joined)
