"""Composes the API and the page. Imports no LangGraph: whoever wants a worker in this process hands in its opener."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from functions import chat, errors, health, metrics, page, sessions, tail, web
from functions.adapters import langgraph_sdk
from functions.auth import Identity
from functions.body_limit import BodyLimit
from functions.replica import OpenWorker, open_replica
from functions.settings import Settings

HEALTH: dict[int | str, dict[str, Any]] = {503: {"description": "not ready"}}


def create_app(settings: Settings, database_url: str, open_worker: OpenWorker | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_replica(settings, database_url, open_worker) as replica:
            app.state.replica = replica
            metrics.watch(replica)
            yield

    app = FastAPI(title="Pulseline", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.install(app)
    app.include_router(chat.router)
    app.include_router(tail.router)
    app.include_router(sessions.router)
    app.include_router(langgraph_sdk.router)
    app.include_router(metrics.router)
    app.include_router(health.router)
    page.install(app)
    app.add_middleware(Identity, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    web.install(app, settings)
    return app


async def healthz() -> dict[str, str]:
    return {"status": "ok"}


async def readyz(replica: Serving) -> JSONResponse:
    """Whether this replica can serve: the database answers and it is not draining."""
    parts = {"database": await reachable(replica), "serving": not replica.hub.draining}
    ready = all(parts.values())
    body = {"ready": ready, "parts": {name: "ok" if ok else "not ready" for name, ok in parts.items()}}
    return JSONResponse(body, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
