"""Whose request this is. A browser without a cookie becomes a new anonymous owner and keeps a signed cookie."""

from http.cookies import SimpleCookie
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request
from itsdangerous import BadSignature, Signer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "pulseline_owner"
COOKIE_MAX_AGE_SECONDS = 365 * 24 * 3600
SALT = "pulseline.owner"
WITHOUT_OWNER = ("/assets/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")


class OwnerCookie:
    """ASGI middleware: puts the owner into the request's state, and the cookie on the response to a newcomer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(WITHOUT_OWNER):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        signer = Signer(request.app.state.replica.secret_key, salt=SALT)
        owner = _known(signer, request.cookies.get(COOKIE))
        fresh = f"anonymous:{uuid4()}"
        scope.setdefault("state", {})["owner"] = owner or fresh

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and owner is None:
                secure = scope["scheme"] == "https"
                MutableHeaders(scope=message).append("set-cookie", _cookie(signer.sign(fresh).decode(), secure))
            await send(message)

        await self._app(scope, receive, with_cookie)


def _known(signer: Signer, cookie: str | None) -> str | None:
    try:
        return signer.unsign(cookie).decode() if cookie else None
    except BadSignature:
        return None


def _cookie(value: str, secure: bool) -> str:
    cookie: SimpleCookie = SimpleCookie({COOKIE: value})
    cookie[COOKIE].update({"path": "/", "max-age": str(COOKIE_MAX_AGE_SECONDS), "samesite": "Lax"})
    cookie[COOKIE]["httponly"], cookie[COOKIE]["secure"] = True, secure
    return cookie.output(header="").strip()


async def _owner(request: Request) -> str:
    """Async, so that no thread is asked for it."""
    return str(request.state.owner)


Owner = Annotated[str, Depends(_owner)]
