"""Starting a turn, streaming or blocking, and cancelling it."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4, uuid5

import orjson
from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from functions import logs
from functions.auth import Owner
from functions.contract import BlockingAnswer, Cancellation, CancellationRequest, Problem, Started, StartRequest
from functions.errors import ERRORS, STATUSES, problem, refused
from functions.replica import Replica, Serving
from functions.tail import TailResponse, next_frames
from graph.eventlog.errors import DatabaseUnavailable, NotInterrupted
from graph.eventlog.events import AnswerMessage, Cancelled, Done, Error, StreamEvent
from graph.eventlog.hub import Reader, Watch
from graph.eventlog.log import Turn

SESSIONS_NAMESPACE = UUID("5d0c4a5e-6f0e-4a53-9f2e-0d1f6a3c7b21")
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503)
}
FAILED: dict[int | str, dict[str, Any]] = {known.status: {"model": Problem} for known in ERRORS.values() if known.event}
logger = logging.getLogger(__name__)
router = APIRouter()


async def start(replica: Replica, owner: str, body: StartRequest, watching: ExitStack) -> tuple[Turn, Watch]:
    """Commits the turn, claimed where this process has a place for it; else others are told. The session is watched
    first, so that no event of the turn can be missed."""
    began_ns, turn_id = time.time_ns(), uuid4()
    request_id = body.request_id or str(uuid4())
    session_id = body.session_id or uuid5(SESSIONS_NAMESPACE, f"{owner}\n{request_id}")
    if body.given:
        await _check_given(replica, owner, session_id, body)
    watch = watching.enter_context(replica.hub.watch(session_id))
    async with replica.limits.starting(owner, body.message) as quota:
        with replica.starting(session_id, turn_id) as claimant:
            turn = await replica.log.start(
                session_id,
                owner,
                request_id,
                body.message,
                body.replaces,
                body.given,
                quota,
                turn_id=turn_id,
                claimant=claimant,
            )
            logs.speak_of(session_id, turn.turn_id)
            if turn.created:
                replica.spans.started(session_id, turn.turn_id, began_ns)
                logger.info("turn started")
                watch.begin(turn.first_seq - 1, active=True)
                replica.started(turn, claimant)
    return turn, watch


async def _check_given(replica: Replica, owner: str, session_id: UUID, body: StartRequest) -> None:
    """Only another graph takes more than a message. An answer must be to what waits, unless it is being sent again."""
    if replica.settings.graph is None:
        raise refused("command" if body.command else "input", "is for a graph of your own; see PULSELINE_GRAPH")
    if body.command is None:
        if "messages" in (body.input or {}):
            raise refused("input.messages", "is `message`; the input has all else")
        return
    events = await replica.log.own_events(session_id, owner)
    if any(e.type == "turn_started" and orjson.loads(e.data)["request_id"] == body.request_id for e in events):
        return
    last = events[-1].parse() if events else None
    asked = {question.id for question in (last.interrupted or []) if question.id} if isinstance(last, Done) else set()
    if not isinstance(last, Done) or last.interrupted is None:
        raise NotInterrupted
    answered = body.command.resume.keys() if isinstance(body.command.resume, dict) else set()
    if len(asked) > 1 and not (answered and answered <= asked):
        raise refused("command.resume", f"must be an object of answers by id, of {', '.join(sorted(asked))}")


def _headers(turn: Turn) -> dict[str, str]:
    return {
        "Location": f"/chat/stream/{turn.session_id}?after={turn.first_seq - 1}",
        "X-Session-Id": str(turn.session_id),
        "X-Turn-Id": str(turn.turn_id),
    }


@router.post(
    "/chat/stream",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "this turn, first event to terminal event"},
        202: {"model": Started, "description": "with Prefer: respond-async"},
        **REFUSALS,
    },
)
async def stream(
    body: StartRequest, owner: Owner, replica: Serving, prefer: Annotated[list[str] | None, Header()] = None
) -> Response:
    """Starts a turn. A disconnect does not stop it; only a cancel does."""
    with ExitStack() as watching:
        if "respond-async" not in _preferences(prefer or []):
            watching.enter_context(replica.limits.tail(owner))
        turn, watch = await start(replica, owner, body, watching)
        if "respond-async" in _preferences(prefer or []):
            return _accepted(turn, {"Preference-Applied": "respond-async"})
        reader = replica.hub.reader(watch, turn.first_seq, turn.first_seq - 1, active=True)
        return TailResponse(replica, reader, "turn", watching.pop_all(), _headers(turn))


def _preferences(headers: list[str]) -> set[str]:
    """The tokens of all Prefer headers (RFC 7240), without their values."""
    return {part.partition("=")[0].strip().lower() for header in headers for part in re.split("[,;]", header)}


def _accepted(turn: Turn, headers: Mapping[str, str] | None = None) -> Response:
    all_headers = {**_headers(turn), **(headers or {})}
    started = Started(
        session_id=turn.session_id,
        turn_id=turn.turn_id,
        after=turn.first_seq - 1,
        events_url=all_headers["Location"],
    )
    return JSONResponse(started.model_dump(mode="json"), 202, all_headers)


@router.post("/chat", response_model=BlockingAnswer, responses={202: {"model": Started}, **FAILED, **REFUSALS})
async def chat(body: StartRequest, owner: Owner, replica: Serving) -> Response:
    """The whole answer at once. Past the window: 202, and the answer goes on at Location."""
    with ExitStack() as watching:
        watching.enter_context(replica.limits.tail(owner))
        turn, watch = await start(replica, owner, body, watching)
        reader = replica.hub.reader(watch, turn.first_seq, turn.first_seq - 1, active=True)
        try:
            async with asyncio.timeout(replica.settings.stream_window_seconds):
                end = await _end(replica, reader)
                lasted_ms = await _lasted_ms(replica, turn, end) if isinstance(end, Cancelled) else 0
                return _answer(turn, end, lasted_ms)
        except (TimeoutError, DatabaseUnavailable):
            return _accepted(turn)  # the turn is committed: the client goes on at Location


async def _end(replica: Replica, reader: Reader) -> StreamEvent:
    """The first terminal event after the reader's cursor."""
    while True:
        for frame in await next_frames(replica, reader, replica.settings.heartbeat_seconds):
            if frame.ends:
                session_id = reader.session_id
                return (await replica.log.read({session_id: frame.seq - 1}, 1))[0].parse()
        if replica.hub.draining:
            raise TimeoutError


async def _lasted_ms(replica: Replica, turn: Turn, end: Cancelled) -> int:
    """From the start to the cancel, by the stamps in the log: who cancels knows nothing of the start."""
    began = (await replica.log.read({turn.session_id: turn.first_seq - 1}, 1))[0].parse()
    lasted = datetime.fromisoformat(end.timestamp) - datetime.fromisoformat(began.timestamp)
    return max(0, round(1000 * lasted.total_seconds()))


def _answer(turn: Turn, end: StreamEvent, lasted_ms: int) -> Response:
    match end:
        case Done():
            answer = BlockingAnswer(
                session_id=turn.session_id,
                turn_id=turn.turn_id,
                status="done",
                message=end.message,
                duration_ms=end.duration_ms,
            )
        case Cancelled():
            message = AnswerMessage(id=f"{turn.turn_id}:assistant", content=end.content)
            answer = BlockingAnswer(
                session_id=turn.session_id,
                turn_id=turn.turn_id,
                status="cancelled",
                message=message,
                duration_ms=lasted_ms,
            )
        case Error():
            return problem(STATUSES.get(end.code, 500), end.code, end.message, _headers(turn))
        case _:
            raise AssertionError(f"{end.type} ends no turn")
    return JSONResponse(answer.model_dump(mode="json"), 200, _headers(turn))


@router.post("/chat/stream/{session_id}/cancel", responses=REFUSALS)
async def cancel(
    session_id: UUID, owner: Owner, replica: Serving, body: CancellationRequest | None = None
) -> Cancellation:
    """Takes the pen from whoever answers, alive or not. Idempotent: a turn that had ended says how."""
    request = body or CancellationRequest()
    ended = await replica.log.cancel(session_id, owner, request.turn_id, request.reason)
    replica.ended(session_id)
    return Cancellation(turn_id=ended.turn_id, status=ended.status, seq=ended.last_seq)
