"""GET /chat/stream/{session_id}: a session's log as Server-Sent Events, from a cursor on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Annotated, Literal, Protocol
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from starlette.types import Receive, Scope, Send

from functions.auth import Owner
from functions.contract import Problem
from functions.frames import IDLE, OPENING, PING, buffered_opening
from functions.metrics import Delivery
from functions.replica import Replica, Serving
from graph.eventlog.errors import BadCursor, DatabaseUnavailable, LogError, SessionNotFound
from graph.eventlog.hub import Frame, Reader

CURSOR = r"^[0-9]{1,18}$"
CURSOR_OR_NONE = r"^([0-9]{1,18})?$"
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
Follow = Literal["turn", "session"]
router = APIRouter()


class Wire(Protocol):
    """How frames become a protocol's bytes. One for each response: it may remember what it has sent. `over`: nothing
    follows, though the turn may go on."""

    over: bool

    @property
    def opening(self) -> bytes: ...
    @property
    def ping(self) -> bytes: ...
    def render(self, frames: Sequence[Frame]) -> bytes: ...


class _Ours:
    ping = PING
    over = False

    def __init__(self, opening: bytes = OPENING) -> None:
        self.opening = opening

    def render(self, frames: Sequence[Frame]) -> bytes:
        return b"".join(frame.data for frame in frames)


UNBUFFERED = _Ours()


def _ours(replica: Replica) -> Wire:
    window = replica.settings.stream_window_seconds
    return _Ours(buffered_opening(window)) if replica.buffered and window is not None else UNBUFFERED


class TailResponse(Response):
    """Streams a reader's frames until a terminal event (follow=turn, or a process that it holds alone), the window's
    end, a drain, or the client's end.

    It sends bytes that are already encoded and holds no database connection while it waits. Another protocol's client
    gets its own `wire`; `left` is awaited when the client goes before the end.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        replica: Replica,
        reader: Reader,
        follow: Follow,
        watching: ExitStack,
        headers: Mapping[str, str] | None = None,
        wire: Wire | None = None,
        left: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(status_code=200, headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._replica, self._reader = replica, reader
        self._follow, self._watching, self._left = follow, watching, left
        self._wire = wire or _ours(replica)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._watching:
            streaming = asyncio.create_task(self._stream(send))
            gone = asyncio.create_task(_client_gone(receive))
            try:
                await asyncio.wait((streaming, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (streaming, gone):
                    task.cancel()
                results = await asyncio.gather(streaming, gone, return_exceptions=True)
        if self._left is not None and isinstance(results[0], asyncio.CancelledError):
            await self._left()
        if isinstance(results[0], Exception):
            raise results[0]

    async def _stream(self, send: Send) -> None:
        settings = self._replica.settings
        loop = asyncio.get_running_loop()
        window = settings.stream_window_seconds
        ends_at = None if window is None else loop.time() + window
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _send(send, self._wire.opening, more=True)
        delivery, began_ns = Delivery(), time.time_ns()
        while not self._replica.hub.draining:
            wait = (
                settings.heartbeat_seconds
                if ends_at is None
                else min(settings.heartbeat_seconds, ends_at - loop.time())
            )
            if wait <= 0:
                break
            try:
                frames = await next_frames(self._replica, self._reader, wait)
            except LogError:
                break  # a clean end: the client comes back with its cursor, here or elsewhere
            to_its_end = self._follow == "turn" or self._replica.single
            ended = to_its_end and any(frame.ends for frame in frames)
            if ended:
                frames = frames[: 1 + next(n for n, frame in enumerate(frames) if frame.ends)]
            await _send(send, self._wire.render(frames) if frames else self._wire.ping, more=not ended)
            delivery.sent(frames)
            if frames and frames[-1].ends:
                self._replica.spans.sent(self._reader.session_id, frames[-1].data, began_ns)
            if ended:
                return
            if self._wire.over:
                break
            if frames and self._replica.buffered:
                break
        await _send(send, b"", more=False)


async def next_frames(replica: Replica, reader: Reader, wait: float) -> list[Frame]:
    """The reader's next frames, or none. A silence may be that the session was erased: then SessionNotFound."""
    frames = await reader.next(wait)
    if not frames and not replica.hub.draining:
        with suppress(DatabaseUnavailable):
            active = await replica.silence.active(reader.session_id)
            if active is None:
                raise SessionNotFound
            if active and replica.worker is not None:
                await replica.worker.silent(reader.session_id)
    return frames


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    """Waits while the client takes nothing; its connection ends that wait."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/chat/stream/{session_id}",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "frames after the cursor"},
        204: {"description": "nothing after the cursor and no turn active: stop"},
        **{code: {"model": Problem} for code in (401, 404, 422, 429, 500, 503)},
    },
)
async def tail(
    session_id: UUID,
    owner: Owner,
    replica: Serving,
    after: Annotated[str, Query(pattern=CURSOR)] = "0",
    follow: Follow = "turn",
    last_event_id: Annotated[str, Header(pattern=CURSOR_OR_NONE)] = "",
) -> Response:
    """`Last-Event-ID` wins over `after`: an EventSource that reconnects by itself keeps its first URL.

    Where a response holds a whole process, nobody waits for a turn that has not begun.
    """
    cursor = int(last_event_id or after)
    with ExitStack() as watching:
        watching.enter_context(replica.limits.tail(owner))
        watch = watching.enter_context(replica.hub.watch(session_id))
        gate = await replica.log.gate(session_id, owner)
        if cursor > gate.last_seq:
            raise BadCursor
        if follow == "turn" and not gate.active and cursor == gate.last_seq:
            return Response(status_code=204)
        if replica.single and not gate.active and cursor == gate.last_seq:
            return Response(IDLE, media_type=TailResponse.media_type, headers=HEADERS)
        reader = replica.hub.reader(watch, gate.last_seq, cursor, active=gate.active)
        return TailResponse(replica, reader, follow, watching.pop_all())
