"""The network between a browser and its replicas: it goes to the first replica that accepts, and it can be cut."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

CHUNK_BYTES = 65_536


class Proxy:
    """Plain TCP. `went_to` counts the connections that each upstream has taken."""

    def __init__(self, *upstreams: str) -> None:
        self._upstreams = upstreams
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self.went_to: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def cut(self) -> None:
        """Breaks every connection; new ones are taken."""
        for writer in self._open:
            writer.transport.abort()

    def refuse(self) -> None:
        """Breaks every connection and takes no new ones, until `restore`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def silence(self) -> None:
        """As after a laptop's sleep: who is connected hears nothing more, not even the end, and is cut when he speaks.

        New connections work.
        """
        self._silent |= self._open

    async def restore(self) -> None:
        """Takes connections again, at the same address."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._opened(writer):
            upstream = None if self._server is None else await self._connect()  # it may have come just before `refuse`
            if upstream is None:
                writer.transport.abort()
                return
            there, back = upstream
            async with self._opened(back):
                ways = [
                    asyncio.create_task(self._answer(there, writer)),
                    asyncio.create_task(self._ask(reader, back, writer)),
                ]
                _, unfinished = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in unfinished:
                    way.cancel()
                await asyncio.wait(ways)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for upstream in self._upstreams:
            address = urlsplit(upstream)
            with suppress(OSError):
                streams = await asyncio.open_connection(address.hostname, address.port)
                self.went_to[upstream] += 1
                return streams
        return None

    async def _answer(self, server: asyncio.StreamReader, browser: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while (data := await server.read(CHUNK_BYTES)) and browser not in self._silent:
                browser.write(data)
                await browser.drain()
        if browser in self._silent:
            await asyncio.Future()  # until the browser closes

    async def _ask(
        self, page: asyncio.StreamReader, server: asyncio.StreamWriter, browser: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while (data := await page.read(CHUNK_BYTES)) and browser not in self._silent:
                server.write(data)
                await server.drain()

    @asynccontextmanager
    async def _opened(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            self._silent.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def proxying(*upstreams: str) -> AsyncIterator[Proxy]:
    """Upstreams are addresses such as `http://127.0.0.1:8000`."""
    proxy = Proxy(*upstreams)
    await proxy.restore()
    try:
        yield proxy
    finally:
        proxy.refuse()
