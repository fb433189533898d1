"""A network that loses answers: the server takes a POST, and its client hears nothing but the end of the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class Lossy:
    """The first `losses` answers to POSTs get lost; after the first of them nothing listens for `away_seconds`."""

    def __init__(self, upstream: str, losses: int, away_seconds: float) -> None:
        self._host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream_port, self._port = int(port), 0
        self._losses, self._away_seconds = losses, away_seconds
        self._server: asyncio.Server | None = None
        self.lost = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._upstream_port)
        posted = asyncio.Event()
        ways = [asyncio.create_task(self._ask(reader, back, posted))]
        ways.append(asyncio.create_task(self._answer(there, writer, posted)))
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, back):
            end.transport.abort()
        await asyncio.wait(ways)
        if self._server is None:
            await asyncio.sleep(self._away_seconds)
            await self.listen()

    async def _ask(self, client: asyncio.StreamReader, server: asyncio.StreamWriter, posted: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await client.read(CHUNK_BYTES):
                if data.startswith(b"POST"):
                    posted.set()
                server.write(data)
                await server.drain()

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, posted: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await server.read(CHUNK_BYTES):
                if posted.is_set() and self.lost < self._losses:
                    self.lost += 1
                    if self.lost == 1:
                        self.close()
                    return
                client.write(data)
                await client.drain()


@asynccontextmanager
async def losing(upstream: str, losses: int, away_seconds: float) -> AsyncIterator[Lossy]:
    lossy = Lossy(upstream, losses, away_seconds)
    await lossy.listen()
    try:
        yield lossy
    finally:
        lossy.close()
