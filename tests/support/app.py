"""The app in this process, without a socket and without a worker: what a request is answered, and nothing more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from functions.app import create_app
from functions.replica import OpenWorker
from functions.settings import Settings

URL = "http://pulseline.test"


@asynccontextmanager
async def composed(database_url: str, open_worker: OpenWorker | None = None, **settings: Any) -> AsyncIterator[FastAPI]:
    app = create_app(Settings(notify="off", pool_size=4, **settings), database_url, open_worker)
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def calling(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a cookie jar of its own. A response is whole before it is seen, so its window must be bounded."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=URL, timeout=20, **options) as client:
        yield client
