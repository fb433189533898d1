"""Serves the built page: `/` and `/c/{session}` are one document, everything else of it is hashed and immutable."""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

GET_AND_HEAD = ["GET", "HEAD"]
DIST = Path(__file__).parent.parent / "frontend" / "dist"
NOT_BUILT = "The page is not built here. Run `make page`, then start again. The API works without it."
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Assets(StaticFiles):
    """Names carry a hash of the content, so a copy never grows old."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def install(app: FastAPI, dist: Path = DIST) -> None:
    index = dist / "index.html"

    async def document() -> Response:
        if not index.is_file():
            return PlainTextResponse(NOT_BUILT, 503)
        return FileResponse(index, headers=HEADERS)

    for path in ("/", "/c/{session_id}"):
        app.add_api_route(path, document, methods=GET_AND_HEAD, include_in_schema=False)
    app.mount("/assets", Assets(directory=dist / "assets", check_dir=False), name="assets")
    for icon in ("favicon.svg",):
        app.add_api_route(f"/{icon}", _file(dist / icon), methods=GET_AND_HEAD, include_in_schema=False)


def _file(path: Path) -> Callable[[], Response]:
    def send() -> Response:
        return FileResponse(path) if path.is_file() else Response(status_code=404)

    return send
