"""What a browser is told on every response, and which pages may change something: the Origin of a request."""

from collections.abc import Collection

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.errors import Unexpected, known_problem
from functions.settings import Settings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
STRANGE_SITES = ("cross-site", "same-site")
CORS_AGE_SECONDS = 600
REQUEST_HEADERS = ("Authorization", "Content-Type", "Last-Event-ID", "Prefer", "X-AI-SDK-Version", "X-Api-Key")
RESPONSE_HEADERS = (
    *("Location", "Content-Location", "Preference-Applied", "Retry-After", "X-Session-Id", "X-Turn-Id"),
    *("X-Vercel-AI-UI-Message-Stream", "X-Workflow-Run-Id", "X-Workflow-Stream-Tail-Index"),
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class SafeHeaders:
    """ASGI middleware: what a route did not say itself is said here. HSTS only where the browser came by TLS."""

    def __init__(self, app: ASGIApp, hsts_seconds: int) -> None:
        self._app, self._hsts_seconds = app, hsts_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https" and self._hsts_seconds:
                    headers["Strict-Transport-Security"] = f"max-age={self._hsts_seconds}"
            await send(message)

        await self._app(scope, receive, with_headers)


class OwnPages:
    """ASGI middleware: a request that changes something comes from no page, from ours, or from one on the list.

    A page of ours has the scheme and host that the request came to; browsers send Origin, or at least Sec-Fetch-Site,
    by themselves and let no page change them.
    """

    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE and not believed(scope, self._origins):
            await known_problem("origin_refused")(scope, receive, send)
            return
        await self._app(scope, receive, send)


def believed(scope: Scope, origins: Collection[str]) -> bool:
    """Whether a request comes from no page, from ours, or from one of these origins."""
    headers = Headers(scope=scope)
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is None:
        return headers.get("sec-fetch-site") not in STRANGE_SITES
    return origin in origins or (host != "" and origin == f"{scope['scheme']}://{host}")


def install(app: FastAPI, settings: Settings) -> None:
    """To be added after everything that reads or answers a request, so that it stands before it."""
    app.add_middleware(OwnPages, origins=settings.origins)
    app.add_middleware(Unexpected)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
            max_age=CORS_AGE_SECONDS,
        )
    app.add_middleware(SafeHeaders, hsts_seconds=settings.hsts_seconds)
