"""Whose request this is: of whom a bearer token names, else of an anonymous owner who keeps a signed cookie."""

from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Annotated, Protocol
from uuid import uuid4

from fastapi import Depends, Request
from itsdangerous import BadSignature, TimestampSigner
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.errors import known_problem
from functions.settings import Settings

COOKIE = "pulseline_owner"
SECURE_COOKIE = f"__Host-{COOKIE}"  # behind TLS: a browser takes it from no other host, not even from a subdomain
COOKIE_MAX_AGE_SECONDS = 365 * 24 * 3600
COOKIE_RENEWED_SECONDS = 30 * 24 * 3600
SALT = "pulseline.owner"
WITHOUT_OWNER = ("/assets/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/favicon.svg")


class BadToken(Exception):
    """The token is not valid here."""


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be fetched."""


class TokenOwners(Protocol):
    """Whose a token is. Raises BadToken, whatever is wrong with it, and IssuerUnavailable."""

    async def owner(self, token: str) -> str: ...


class _NoTokens:
    async def owner(self, token: str) -> str:
        raise BadToken


def _open_tokens(settings: Settings) -> TokenOwners:
    if not settings.jwt_issuer and not settings.jwt_secret:
        return _NoTokens()
    from functions.tokens import Tokens  # a third of a cold start

    return Tokens(settings)


class Identity:
    """ASGI middleware: puts the owner into the request's state, and a cookie on the response to a newcomer.

    A token that does not hold is refused: its bearer never becomes an anonymous owner. The document of the page needs
    no owner; a newcomer gets the cookie with it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._tokens = app, _open_tokens(settings)
        self._anonymous = settings.anonymous == "on"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(WITHOUT_OWNER):
            await self._app(scope, receive, send)
            return
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            await self._bearer(token.strip(), scope, receive, send)
        elif self._anonymous:
            await self._with_cookie(scope, receive, send)
        else:
            await _refuse(scope, receive, send, 'Bearer realm="pulseline"')

    async def _bearer(self, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope.setdefault("state", {})["owner"] = await self._tokens.owner(token)
        except BadToken:
            await _refuse(scope, receive, send, 'Bearer realm="pulseline", error="invalid_token"')
        except IssuerUnavailable:
            await known_problem("issuer_unavailable")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _with_cookie(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        signer = TimestampSigner(request.app.state.replica.secret_key, salt=SALT)
        secure = scope["scheme"] == "https"
        known = _known(signer, request.cookies.get(SECURE_COOKIE if secure else COOKIE))
        owner, age_seconds = known or (f"anonymous:{uuid4()}", None)
        scope.setdefault("state", {})["owner"] = owner

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and (
                age_seconds is None or age_seconds > COOKIE_RENEWED_SECONDS
            ):
                MutableHeaders(scope=message).append("set-cookie", _cookie(signer.sign(owner).decode(), secure))
            await send(message)

        await self._app(scope, receive, with_cookie)


async def _refuse(scope: Scope, receive: Receive, send: Send, challenge: str) -> None:
    await known_problem("unauthenticated", {"WWW-Authenticate": challenge})(scope, receive, send)


def _known(signer: TimestampSigner, cookie: str | None) -> tuple[str, float] | None:
    """The owner that the cookie names, and the cookie's age in seconds; None when it is forged or too old."""
    try:
        owner, signed_at = signer.unsign(cookie or "", max_age=COOKIE_MAX_AGE_SECONDS, return_timestamp=True)
        return owner.decode(), (datetime.now(UTC) - signed_at).total_seconds()
    except (BadSignature, UnicodeError):
        return None


def _cookie(value: str, secure: bool) -> str:
    name = SECURE_COOKIE if secure else COOKIE
    cookie: SimpleCookie = SimpleCookie({name: value})
    cookie[name].update({"path": "/", "max-age": str(COOKIE_MAX_AGE_SECONDS), "samesite": "Lax"})
    cookie[name]["httponly"], cookie[name]["secure"] = True, secure
    return cookie.output(header="").strip()


async def _owner(request: Request) -> str:
    """Async, so that no thread is asked for it."""
    return str(request.state.owner)


Owner = Annotated[str, Depends(_owner)]
