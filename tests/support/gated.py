"""`pulseline`, but in mid-answer its scripted model waits while the gate is closed: for as long as a test needs."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.outputs import ChatGenerationChunk

from graph import models
from graph.offline_models import Scripted

GATED = "tests.support.gated"  # as `serving` takes it
PATIENT = {"LEASE_SECONDS": "3600", "TOKEN_TIMEOUT_SECONDS": "3600", "TURN_TIMEOUT_SECONDS": "3600"}
SAID = 15
POLL_SECONDS = 0.01


class Gate:
    """Of all gated servers that are started with this folder; it is open at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closed = folder / "gate-is-closed"

    @contextmanager
    def closed(self) -> Iterator[None]:
        """In here an answer has at most SAID words, unless the gate is opened before the end."""
        self._closed.touch()
        try:
            yield
        finally:
            self.open()

    def open(self) -> None:
        self._closed.unlink(missing_ok=True)

    async def passed(self) -> None:
        while self._closed.exists():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(POLL_SECONDS)


class Gated(Scripted):
    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        said = 0
        async for chunk in super()._astream(*args, **kwargs):
            if said == SAID:
                await Gate(Path(os.environ["PULSELINE_HOME"]).parent).passed()
            said += 1
            yield chunk


def change() -> None:
    """Of this process's `pulseline`."""
    vars(models)["Scripted"] = Gated


if __name__ == "__main__":
    from functions.cli import main

    change()
    main()
