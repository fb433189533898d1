"""A network in between that can be cut, stalled and closed: plain TCP, for clients of a replica or of Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast


class _Side(asyncio.Protocol):
    """One end of a connection; what it hears its peer says."""

    def __init__(self, relay: "Relay", peer: "_Side | None" = None) -> None:
        self.relay, self.peer = relay, peer
        self.answers = peer is not None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self.relay.sides.add(self)
        if self.relay.stalled:
            self.transport.pause_reading()
        if self.peer is None:
            self.relay.reach(self)
        else:
            self.peer.joined(self)

    def joined(self, peer: "_Side") -> None:
        self.peer = peer
        for data in self.early:
            peer.say(data)
        self.early.clear()

    def data_received(self, data: bytes) -> None:
        if self.answers and self.relay.loses_answer:
            self.relay.loses_answer = False
            for side in (self, self.peer):
                if side is not None:
                    side.abort()
        elif self.peer is None:
            self.early.append(data)
        else:
            self.peer.say(data)

    def say(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self) -> None:
        """Whoever takes nothing stops the other side too, as TCP does."""
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.relay.stalled:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.sides.discard(self)
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.abort() if error else self.peer.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Relay:
    """`reaches` are addresses such as `127.0.0.1:8000`; a new connection goes to the first that accepts."""

    def __init__(self, *reaches: str) -> None:
        self.reaches = [(host, int(port)) for host, port in (address.rsplit(":", 1) for address in reaches)]
        self.sides: set[_Side] = set()
        self.stalled = False
        self.loses_answer = False  # the next: what was asked is done, its connection breaks before that is heard
        self._server: asyncio.Server | None = None
        self._reaching: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def cut(self) -> None:
        """Breaks every connection; new ones are taken."""
        for side in list(self.sides):
            side.abort()

    def close(self) -> None:
        """Breaks every connection and takes no new ones, until `restore`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def stall(self) -> None:
        """Connections stay open and new ones are taken, but no byte moves until `restore`."""
        self.stalled = True
        for side in self.sides:
            if side.transport is not None:
                side.transport.pause_reading()

    def swallow(self) -> None:
        """Who is connected loses what he says from now on, and hears nothing, not even the end. New ones are served."""
        self.stall()
        self.stalled = False

    async def restore(self) -> None:
        self.stalled = False
        for side in list(self.sides):
            if side.transport is not None:
                side.transport.resume_reading()
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Side(self), "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def reach(self, side: _Side) -> None:
        task = asyncio.create_task(self._reach(side))
        self._reaching.add(task)
        task.add_done_callback(self._reaching.discard)

    async def _reach(self, side: _Side) -> None:
        for host, port in self.reaches:
            try:
                await asyncio.get_running_loop().create_connection(lambda: _Side(self, side), host, port)
                return
            except OSError:
                continue
        side.abort()


@asynccontextmanager
async def relaying(*reaches: str) -> AsyncIterator[Relay]:
    relay = Relay(*reaches)
    await relay.restore()
    try:
        yield relay
    finally:
        relay.close()
