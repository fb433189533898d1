"""Composes the API and the page. Imports no LangGraph: whoever wants a worker in this process hands in its opener."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from functions import chat, errors, page, sessions, tail
from functions.auth import OwnerCookie
from functions.body_limit import BodyLimit
from functions.replica import OpenWorker, Serving, open_replica, reachable
from functions.settings import Settings


def create_app(settings: Settings, database_url: str, open_worker: OpenWorker | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_replica(settings, database_url, open_worker) as replica:
            app.state.replica = replica
            yield

    app = FastAPI(title="Pulseline", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.install(app)
    app.include_router(chat.router)
    app.include_router(tail.router)
    app.include_router(sessions.router)
    app.add_api_route("/healthz", healthz, methods=["GET", "HEAD"])
    app.add_api_route("/readyz", readyz, methods=["GET", "HEAD"])
    page.install(app)
    app.add_middleware(OwnerCookie)
    app.add_middleware(BodyLimit)
    return app


async def healthz() -> dict[str, str]:
    return {"status": "ok"}


async def readyz(replica: Serving) -> JSONResponse:
    """Whether this replica can serve: the database answers and it is not draining."""
    parts = {"database": await reachable(replica), "serving": not replica.hub.draining}
    ready = all(parts.values())
    body = {"ready": ready, "parts": {name: "ok" if ok else "not ready" for name, ok in parts.items()}}
    return JSONResponse(body, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
