"""Runs are turns: started, streamed, joined, waited for and cancelled."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal, get_args
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from functions.adapters import runs
from functions.adapters.langgraph_frames import Place, RunWire, StreamMode, values_of
from functions.adapters.langgraph_state import Body, Checkpoint, Json, asked_by
from functions.adapters.langgraph_threads import ASSISTANT_ID, chosen, known_assistant
from functions.adapters.runs import Told, reading, start_request, tell, tell_all, text_of, unsupported
from functions.auth import Owner
from functions.contract import StartRequest
from functions.replica import Replica, Serving
from functions.tail import TailResponse, next_frames
from functions.web import believed
from graph.eventlog.errors import BadCursor, SessionBusy, TurnNotFound
from graph.eventlog.events import ENDS, Done, Error, Event, TurnStarted
from graph.eventlog.snapshot import fold

MODES: tuple[str, ...] = get_args(StreamMode)
JOINED_MODES = ("values", "messages-tuple", "updates", "custom")
LIST_MAX_RUNS = 1000
Status = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
router = APIRouter()


class Config(Body):
    """`configurable` names the thread, if anything. Labels are taken and not kept."""

    configurable: Json | None = None
    metadata: Json | None = None


class RunCreate(Body):
    """`metadata` is a label: taken and not kept. Every run is resumable, durable and kept, whatever is asked."""

    assistant_id: str
    input: Json | None = None
    command: Json | None = None
    stream_mode: str | list[str] | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: str | None = None
    config: Config | None = None
    metadata: Json | None = None
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    on_completion: Literal["keep"] | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    stream_resumable: bool | None = None
    stream_subgraphs: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = None

    @property
    def modes(self) -> list[StreamMode]:
        return _modes([self.stream_mode] if isinstance(self.stream_mode, str) else self.stream_mode, ["values"])


def _modes(asked: Sequence[str] | None, otherwise: Sequence[str]) -> list[StreamMode]:
    modes = [mode for mode in asked or [] if mode]
    for mode in modes:
        if mode not in MODES:
            raise unsupported("stream_mode", f"{mode!r} is not in the log; there is {', '.join(MODES)}")
    return list(modes or otherwise)  # type: ignore[arg-type]


async def _begin(replica: Replica, owner: str, thread_id: UUID | None, body: RunCreate) -> Told:
    """Starts it, or stops what is under way first when asked to."""
    known_assistant(body.assistant_id)
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
    _check_config(session_id, body)
    replaced = _replaced(body, events)
    fields: Json = {"session_id": session_id, "request_id": str(uuid4())}
    fields |= {"replaces": replaced.turn_id} if replaced else {}
    if body.command is not None:
        if set(body.command) != {"resume"} or body.input:
            raise unsupported("command", "there is `resume`, without an input")
        return start_request(**fields, command=body.command)
    given = dict(body.input or {})
    messages = given.pop("messages", None)
    if replaced and not messages and not given:  # written again, as it was asked
        return start_request(**fields, message=replaced.message, input=replaced.input)
    return start_request(**fields, message=_question(messages), input=given or None)


def _check_config(session_id: UUID, body: RunCreate) -> None:
    configurable = (body.config.configurable if body.config else None) or {}
    if set(configurable) - {"thread_id"}:
        raise unsupported("config.configurable", "would have no effect here")
    named = [configurable.get("thread_id"), body.checkpoint.thread_id if body.checkpoint else None]
    if any(name not in (None, str(session_id)) for name in named):
        raise unsupported("thread_id", "is not the thread that this run was sent to")


def _question(messages: Any) -> str:
    one = messages[0] if isinstance(messages, list) and len(messages) == 1 else messages
    match one:
        case str():
            return one
        case [("user" | "human"), content] | {"role": "user" | "human", "content": content}:
            return text_of(content, "input.messages")
        case {"type": "human", "content": content}:
            return text_of(content, "input.messages")
        case None:
            raise unsupported("input", "is missing; where the graph waits for an answer, send it as `command.resume`")
        case _:
            raise unsupported("input.messages", "must be one message of a person; those before it are in the thread")


def _replaced(body: RunCreate, events: Sequence[Event]) -> TurnStarted | None:
    """A run may fork off the state before the last one: it takes that one's place."""
    asked = body.checkpoint_id or (body.checkpoint.checkpoint_id if body.checkpoint else None)
    last = events[-1].seq if events else 0
    if asked in (None, str(last)):
        return None
    starts = [event for event in events if event.type == "turn_started"]
    started = starts[-1].parse() if starts and asked == str(starts[-1].seq - 1) else None
    if not isinstance(started, TurnStarted):
        raise unsupported("checkpoint", "must be the thread's newest, or the one before its last run")
    return started


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
    try:
        return tell(thread_id, await runs.known_events(replica, owner, thread_id), run_id)
    except TurnNotFound:
        raise HTTPException(404, "This thread has no such run.") from None


async def _stream(
    replica: Replica,
    owner: str,
    told: Told,
    modes: list[StreamMode],
    watching: ExitStack,
    place: Place | None = None,
    *,
    stops: bool,
) -> Response:
    session_id, turn_id = told.session_id, told.turn_id  # what waits for long keeps none of the events

    async def left() -> None:
        await runs.stop(replica, owner, session_id, turn_id)

    after = place or Place()
    reader = await runs.watch(replica, owner, told, watching, after.seq)
    headers, wire = _paths(told, modes), RunWire(told, modes, after)
    return TailResponse(replica, reader, "turn", watching.pop_all(), headers, wire, left=left if stops else None)


async def _stops(request: Request, replica: Serving, cancel_on_disconnect: bool = False) -> bool:
    """Whether the run ends when the client goes. A page of another site can send a GET too, and must change nothing."""
    return cancel_on_disconnect and believed(request.scope, replica.settings.origins)


Stops = Annotated[bool, Depends(_stops)]


@router.post("/threads/{thread_id}/runs/stream", response_class=Response)
async def stream_run(thread_id: UUID, owner: Owner, replica: Serving, body: RunCreate) -> Response:
    return await _start_stream(replica, owner, thread_id, body)


@router.post("/runs/stream", response_class=Response)
async def stream_run_alone(owner: Owner, replica: Serving, body: RunCreate) -> Response:
    return await _start_stream(replica, owner, None, body)


async def _start_stream(replica: Replica, owner: str, thread_id: UUID | None, body: RunCreate) -> Response:
    modes = body.modes
    with reading(replica, owner) as watching:
        told = await _begin(replica, owner, thread_id, body)
        return await _stream(replica, owner, told, modes, watching, stops=body.on_disconnect == "cancel")


@router.post("/threads/{thread_id}/runs")
async def create_run(thread_id: UUID, owner: Owner, replica: Serving, body: RunCreate) -> Response:
    return await _create(replica, owner, thread_id, body)


@router.post("/runs")
async def create_run_alone(owner: Owner, replica: Serving, body: RunCreate) -> Response:
    return await _create(replica, owner, None, body)


async def _create(replica: Replica, owner: str, thread_id: UUID | None, body: RunCreate) -> Response:
    modes, told = body.modes, await _begin(replica, owner, thread_id, body)
    return JSONResponse(_run(told, body.multitask_strategy or "reject"), headers=_paths(told, modes))


@router.post("/threads/{thread_id}/runs/wait")
async def wait_for_run(thread_id: UUID, owner: Owner, replica: Serving, body: RunCreate, request: Request) -> Response:
    return await _start_and_wait(replica, owner, thread_id, body, request)


@router.post("/runs/wait")
async def wait_for_run_alone(owner: Owner, replica: Serving, body: RunCreate, request: Request) -> Response:
    return await _start_and_wait(replica, owner, None, body, request)


async def _start_and_wait(
    replica: Replica, owner: str, thread_id: UUID | None, body: RunCreate, request: Request
) -> Response:
    with reading(replica, owner) as watching:
        told = await _begin(replica, owner, thread_id, body)
        return await _result(replica, owner, told, watching, request if body.on_disconnect == "cancel" else None)


@router.get("/threads/{thread_id}/runs")
async def list_runs(
    thread_id: UUID,
    owner: Owner,
    replica: Serving,
    limit: Annotated[int, Query(ge=1, le=LIST_MAX_RUNS)] = 10,
    offset: Annotated[int, Query(ge=0)] = 0,
    status: Status | None = None,
    select: Annotated[list[str] | None, Query()] = None,
) -> list[Json]:
    """Newest first."""
    told = tell_all(thread_id, await runs.known_events(replica, owner, thread_id))
    found = [turn for turn in reversed(told) if status in (None, _status(turn))]
    return [chosen(_run(turn), select) for turn in found[offset : offset + limit]]


@router.get("/threads/{thread_id}/runs/{run_id}")
async def get_run(thread_id: UUID, run_id: UUID, owner: Owner, replica: Serving) -> Json:
    return _run(await _told(replica, owner, thread_id, run_id))


@router.get("/threads/{thread_id}/runs/{run_id}/stream", response_class=Response)
async def join_stream(
    thread_id: UUID,
    run_id: UUID,
    owner: Owner,
    replica: Serving,
    stops: Stops,
    stream_mode: Annotated[list[str] | None, Query()] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """After `Last-Event-ID`; without one from the start, also when the run has ended. Without modes: all that a client
    may have asked for when it started the run, which after a reload it no longer says."""
    place = Place.of(last_event_id)
    if place is None:
        raise BadCursor
    modes = _modes(stream_mode, JOINED_MODES)
    with reading(replica, owner) as watching:
        told = await _told(replica, owner, thread_id, run_id)
        return await _stream(replica, owner, told, modes, watching, place, stops=stops)


@router.get("/threads/{thread_id}/runs/{run_id}/join")
async def join_run(
    thread_id: UUID,
    run_id: UUID,
    owner: Owner,
    replica: Serving,
    request: Request,
    stops: Stops,
) -> Response:
    with reading(replica, owner) as watching:
        told = await _told(replica, owner, thread_id, run_id)
        return await _result(replica, owner, told, watching, request if stops else None)


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
        raise unsupported("action", "a run is not forgotten here; cancel it with `interrupt`")
    told = await _told(replica, owner, thread_id, run_id)
    await runs.stop(replica, owner, thread_id, run_id)
    if wait:
        with reading(replica, owner) as watching:
            return await _result(replica, owner, told, watching)
    return Response(status_code=202)


async def _result(
    replica: Replica, owner: str, told: Told, watching: ExitStack, stops_with: Request | None = None
) -> Response:
    """The thread's values when the run has ended. Past the window, or in a drain: 503, with the Location to ask
    next. The run stops when the client of `stops_with` goes."""
    reader = await runs.watch(replica, owner, told, watching)
    try:
        async with asyncio.timeout(replica.settings.stream_window_seconds):
            while told.end is None and not replica.hub.draining:
                frames = await next_frames(replica, reader, replica.settings.heartbeat_seconds)
                if stops_with is not None and await stops_with.is_disconnected():
                    await runs.stop(replica, owner, told.session_id, told.turn_id)
                if any(frame.ends for frame in frames):
                    told = await _told(replica, owner, told.session_id, told.turn_id)
    except TimeoutError:
        pass
    joined = {**_paths(told), "Location": f"{_paths(told)['Content-Location']}/join"}
    if told.end is None:
        raise HTTPException(503, "The run goes on; ask again.", joined)
    return JSONResponse(_values_at_end(told), headers=joined)


def _values_at_end(told: Told) -> Json:
    if isinstance(told.end, Error):
        return {"__error__": {"error": told.end.code, "message": told.end.message}}
    last = next(event.seq for event in told.events if event.turn_id == told.turn_id and event.type in ENDS)
    snapshot = fold(told.session_id, (event for event in told.events if event.seq <= last))
    asked = asked_by(snapshot.messages[-1])
    return {**values_of(snapshot.messages), **({"__interrupt__": asked} if asked else {})}
