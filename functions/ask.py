"""`pulseline ask`: a terminal client. It resumes by its cursor when the connection breaks; Ctrl-C cancels the turn."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse
from pydantic import ValidationError
from rich.console import Console

from functions.auth import COOKIE, SECURE_COOKIE
from functions.contract import Problem, Started
from graph.eventlog.events import (
    STREAM_EVENT,
    Cancelled,
    Done,
    Error,
    GenerationStart,
    RerankingComplete,
    Reset,
    RetrievalComplete,
    RetrievalStart,
    Source,
    StreamEvent,
    Token,
)

RECONNECT_SECONDS = (0.2, 0.5, 1, 2, 4)
PATIENCE_SECONDS = (*RECONNECT_SECONDS, *[RECONNECT_SECONDS[-1]] * 10)
WINDOW_PAUSE_SECONDS = 0.05
ENDED, FAILED, STOPPED = 0, 1, 130
COOKIES = (COOKIE, SECURE_COOKIE)  # which one, the server says: TLS may end before it
READ_TIMEOUT_SECONDS = 20  # the server says something every 5 s
notes = Console(stderr=True, highlight=False, markup=False)  # titles and details are text, not markup


def _note(text: str, style: str = "dim") -> None:
    notes.print(text, style=style)


class Unreachable(Exception):
    """Nothing answers there, or nothing that is Pulseline; the message says what to do."""


async def ask(question: str, url: str, session: UUID | None, home: Path) -> int:
    """Prints the answer to stdout and everything else to stderr; gives the exit status."""
    if not url.startswith(("http://", "https://")):
        _note(f"{url} is no address. Give one such as http://127.0.0.1:8000", "red")
        return FAILED
    cookie = home / "ask-cookie"
    timeout = httpx.Timeout(10, read=READ_TIMEOUT_SECONDS)
    async with httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False) as client:
        if cookie.is_file():
            for name in COOKIES:
                client.cookies.set(name, cookie.read_text().strip())
        conversation = _Conversation(client, session or uuid4(), str(uuid4()))
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, conversation.interrupt)
        try:
            await conversation.introduce()
            if given := _given(client):
                _keep(cookie, given)
            return await conversation.run(question)
        except Unreachable as error:
            _note(str(error), "red")
            return FAILED


def _given(client: httpx.AsyncClient) -> str | None:
    """What the server has set, and not what was brought to it: that has no domain."""
    return next((cookie.value for cookie in client.cookies.jar if cookie.name in COOKIES and cookie.domain), None)


def _keep(cookie: Path, value: str) -> None:
    """For this person only: whoever has it is the owner of the sessions."""
    cookie.parent.mkdir(parents=True, exist_ok=True)
    cookie.touch(0o600)
    cookie.write_text(value)


class _Conversation:
    def __init__(self, client: httpx.AsyncClient, session_id: UUID, request_id: str) -> None:
        self._client, self._session_id, self._request_id = client, session_id, request_id
        self._cursor, self._turn_id, self._text = 0, "", ""
        self._sources: list[Source] = []
        self._stop_asked = False
        self._met = False

    async def introduce(self) -> None:
        """Gets the owner's cookie first: were it lost with the answer to a question, that would be a stranger's."""
        reply = await self._request("GET", "/sessions")
        if reply.status_code != 200:
            raise Unreachable(_detail(reply))

    async def run(self, question: str) -> int:
        await self._start(question)
        if self._stop_asked:
            await self._cancel()
        end = None
        while end is None:  # a window's end is an ordinary one
            end = await self._next()
        return self._finish(end)

    async def _next(self) -> StreamEvent | None:
        """The turn's end, or None when a response ended before it. Whatever comes shows that somebody is there again:
        then the pauses begin anew."""
        pauses = iter(PATIENCE_SECONDS)
        while True:
            cursor = self._cursor
            try:
                end = await self._tail()
                await asyncio.sleep(0 if end else WINDOW_PAUSE_SECONDS)
                return end
            except httpx.HTTPError:
                _note("connection lost, the answer is still being written; reconnecting …")
            if self._cursor > cursor:
                pauses = iter(PATIENCE_SECONDS)
            pause = next(pauses, None)
            if pause is None:
                raise Unreachable(
                    "The connection did not come back. The answer is kept; look at the session in the page."
                )
            await asyncio.sleep(pause)

    async def _start(self, question: str) -> None:
        body = {"message": question, "session_id": str(self._session_id), "request_id": self._request_id}
        reply = await self._request("POST", "/chat/stream", body)
        if reply.status_code != 202:
            raise Unreachable(_detail(reply))
        started = Started.model_validate_json(reply.content)
        self._turn_id, self._cursor = str(started.turn_id), started.after

    async def _request(self, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        """Sent again when the connection breaks, or the server cannot answer just now: with the same request_id it is
        one turn all the same."""
        reply: httpx.Response | None = None
        for pause in (*RECONNECT_SECONDS, None):
            try:
                reply = await self._client.request(method, path, json=body, headers={"Prefer": "respond-async"})
            except httpx.ConnectError:
                if not self._met:
                    raise Unreachable(
                        f"Nothing answers at {self._client.base_url}. Start it with `make run`."
                    ) from None
            except httpx.HTTPError:
                pass
            else:
                self._met = self._met or reply.status_code == 200
                if not self._met or (reply.status_code < 500 and reply.status_code != 429):
                    return reply
            if pause is not None:
                await asyncio.sleep(pause)
        if reply is not None:
            raise Unreachable(_detail(reply))
        raise Unreachable(f"{self._client.base_url} does not take the question.")

    async def _tail(self) -> StreamEvent | None:
        """Reads to the turn's end; None when the response ended before (a window, a replica that stops)."""
        path = f"/chat/stream/{self._session_id}"
        async with aconnect_sse(self._client, "GET", path, headers={"Last-Event-ID": str(self._cursor)}) as source:
            if source.response.status_code < 500 and source.response.status_code != 200:
                await source.response.aread()
                raise Unreachable(_detail(source.response))
            source.response.raise_for_status()
            async for frame in source.aiter_sse():
                if frame.id and frame.event != "ping":
                    end = self._show(frame)
                    if end is not None:
                        return end
        return None

    def _show(self, frame: ServerSentEvent) -> StreamEvent | None:
        self._cursor = int(frame.id)
        event = STREAM_EVENT.validate_python({**frame.json(), "type": frame.event})
        match event:
            case RetrievalStart():
                _note("searching …")
            case RetrievalComplete():
                _note(f"found {event.passages} passages in {event.duration_ms} ms")
            case RerankingComplete():
                self._sources = event.sources
                _note(f"chose {len(event.sources)} in {event.duration_ms} ms")
            case GenerationStart():
                _note(f"writing ({event.model})\n")
            case Token():
                self._text += event.content
                print(event.content, end="", flush=True)
            case Reset():
                self._text = ""
                _note("\nstarting this answer again\n")
            case Done() | Cancelled() | Error():
                return event
            case _:
                pass
        return None

    def _finish(self, end: StreamEvent) -> int:
        print()
        if isinstance(end, Done):
            self._print_sources({citation.number for citation in end.message.citations})
            _note(f"session {self._session_id}, {end.duration_ms} ms")
            return ENDED
        if isinstance(end, Error):
            _note(end.message, "red")
            return FAILED
        _note("stopped; what was written is kept")
        return STOPPED

    def _print_sources(self, cited: set[int]) -> None:
        for number, source in enumerate(self._sources, 1):
            if number in cited:
                _note(f"[{number}] {source.title}")

    def interrupt(self) -> None:
        if self._stop_asked:
            raise KeyboardInterrupt
        self._stop_asked = True
        if self._turn_id:  # else as soon as the turn is known
            self._stopping = asyncio.ensure_future(self._cancel())

    async def _cancel(self) -> None:
        """A cancel is idempotent: it is sent again until the server has taken it."""
        body = {"turn_id": self._turn_id, "reason": "user_initiated"}
        for pause in RECONNECT_SECONDS:
            with suppress(httpx.HTTPError):
                reply = await self._client.post(f"/chat/stream/{self._session_id}/cancel", json=body)
                if reply.status_code < 500:
                    return
            await asyncio.sleep(pause)
        _note("the answer could not be stopped; it is still being written", "red")


def _detail(reply: httpx.Response) -> str:
    """What a problem document says; whoever answers otherwise is not Pulseline."""
    try:
        return Problem.model_validate_json(reply.content).detail
    except ValidationError:
        return f"{reply.url} answered {reply.status_code}, and not as Pulseline does. Check --url."
