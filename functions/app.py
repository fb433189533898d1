"""Composes the API and the page. Imports no LangGraph: whoever wants a worker in this process hands in its opener."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from functions import chat, errors, health, metrics, openapi, page, sessions, tail, web
from functions.adapters import ai_sdk, langgraph_sdk
from functions.auth import Identity
from functions.body_limit import BodyLimit
from functions.replica import OpenWorker, open_replica
from functions.settings import Settings


def create_app(settings: Settings, database_url: str, open_worker: OpenWorker | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_replica(settings, database_url, open_worker) as replica:
            app.state.replica = replica
            metrics.watch(replica)
            yield

    # No slash is redirected: that would make an address of the host that the request names.
    app = FastAPI(title="Pulseline", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app)
    app.include_router(chat.router)
    app.include_router(tail.router)
    app.include_router(sessions.router)
    app.include_router(langgraph_sdk.router)
    app.include_router(ai_sdk.router)
    app.include_router(metrics.router)
    app.include_router(health.router)
    page.install(app)
    openapi.install(app)
    app.add_middleware(Identity, settings=settings)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_history_bytes=settings.max_history_bytes)
    web.install(app, settings)
    return app
