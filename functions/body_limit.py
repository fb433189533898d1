"""Refuses a body that is larger than any valid one before it is read into memory, one that comes too slowly, and one
that is no JSON."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.errors import known_problem, problem

BODY_SECONDS = 10.0
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
WITH_HISTORY = frozenset({"/api/chat"})  # AI SDK's clients send the whole conversation with every question


class BodyLimit:
    def __init__(self, app: ASGIApp, max_bytes: int, max_history_bytes: int = 0) -> None:
        self._app, self._max_bytes, self._max_history_bytes = app, max_bytes, max(max_bytes, max_history_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WITH_BODY:
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_history_bytes if scope["path"] in WITH_HISTORY else self._max_bytes
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(receive, max_bytes)
        except TimeoutError:
            await known_problem("request_timeout", {"Connection": "close"})(scope, receive, send)
            return
        if body is None:
            detail = f"A body may have {max_bytes} bytes. Send a shorter message."
            await problem(413, "body_too_large", detail)(scope, receive, send)
            return
        media_type = Request(scope).headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and media_type != "application/json":
            detail = "Send JSON, with the header Content-Type: application/json."
            await problem(415, "unsupported_media_type", detail)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


async def _read(receive: Receive, max_bytes: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever the server says next, which can only be that the client went."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
