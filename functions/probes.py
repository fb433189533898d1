"""What a process without the API shows: /metrics, /healthz and /readyz of a worker, at METRICS_PORT."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from functions import errors, health, metrics, web
from functions.connection import Connection
from functions.replica import Replica

GRACEFUL_SECONDS = 1


class Server(uvicorn.Server):
    """Signals stay with the worker, which drains, and is still watched while it does."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def create_app(replica: Replica) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.replica = replica
    errors.install(app)
    app.include_router(metrics.router)
    app.include_router(health.router)
    web.install(app, replica.settings)
    metrics.watch(replica)
    return app


@asynccontextmanager
async def probed(replica: Replica, listening: socket.socket | None) -> AsyncIterator[None]:
    if listening is None:
        yield
        return
    config = uvicorn.Config(
        create_app(replica),
        http=Connection,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        server_header=False,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
