"""A published JavaScript client in a Node process of its own: a command a line goes in, a line of JSON comes out."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

CLIENTS = Path(__file__).parents[1] / "clients"
PATIENCE_SECONDS = 40.0
LINE_MAX_BYTES = 2**22

Said = dict[str, Any]


class Talk:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.heard: list[Said] = []

    def tell(self, does: str, **given: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"does": does, **given}).encode() + b"\n")

    async def until(self, meant: Callable[[Said], Any]) -> Said:
        """Reads on to what is meant."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := await self._process.stdout.readline():
                said: Said = json.loads(line)
                self.heard.append(said)
                assert "failed" not in said, said
                if meant(said):
                    return said
        raise AssertionError(f"the client ended: {self.heard[-3:]}")


@asynccontextmanager
async def talking(script: str, *arguments: str) -> AsyncIterator[Talk]:
    process = await asyncio.create_subprocess_exec(
        "node",
        script,
        *arguments,
        cwd=CLIENTS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_MAX_BYTES,
    )
    try:
        yield Talk(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
