"""A reader that costs little: it counts stamped tokens in the bytes of SSE responses, over kept connections."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from loadtests.histogram import Histogram

STAMP = re.compile(rb"\d+:(\d{16}) ")
BODY = b'{"message":"What are the symptoms of iron deficiency?"}'
RESET = b"event: reset\n"
DONE = b"event: done\n"  # its frame repeats the whole text
LAST_BYTES = 200
WELL = (b"HTTP/1.1 200", b"HTTP/1.1 202")
BUSY, BUSY_SECONDS = b"HTTP/1.1 503", 0.5
LAST_CHUNK = b"0\r\n\r\n"
LOCATION = re.compile(rb"\r\nlocation: ([^\r]+)\r\n", re.IGNORECASE)
COOKIE = re.compile(rb"\r\nset-cookie: ([^;\r]+)", re.IGNORECASE)


class Seen:
    """What all readers together have seen so far. While `watched` is off, latencies do not count."""

    def __init__(self, turns: int) -> None:
        self.tokens = self.frames = self.bytes = self.turns = self.refused = self.resets = 0
        self.wrong: list[str] = []
        self._waiting = turns
        self.begun = asyncio.Event()  # as many answers as there are readers
        self.watched = True
        self.first_token, self.lag = Histogram(), Histogram()

    def begin(self) -> None:
        self._waiting -= 1
        if self._waiting <= 0:
            self.begun.set()


class Connection(asyncio.Protocol):
    """One request at a time; `exchange` gives the response's head once the body has ended."""

    def __init__(self, on_data: Callable[[bytes, float], None]) -> None:
        self.on_data = on_data
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[bytes] | None = None
        self._head, self._tail = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(ConnectionError("the server hung up"))

    async def exchange(self, request: bytes) -> bytes:
        assert self._transport is not None
        self._ended = asyncio.get_running_loop().create_future()
        self._head, self._tail = b"", b""
        self._transport.write(request)
        return await self._ended

    @property
    def answered(self) -> bool:
        return bool(self._head)

    @property
    def closed(self) -> bool:
        """Servers close what is idle for a few seconds."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        now = time.time()
        data = self._tail + data
        if not self._head:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._tail = head
                return
            self._head = head + b"\r\n"
        whole, _, self._tail = data.rpartition(b"\n\n")  # no stamp is cut in two
        if whole:
            self.on_data(whole, now)
        if self._tail.endswith(LAST_CHUNK) or self._complete():
            assert self._ended is not None
            if not self._ended.done():
                self._ended.set_result(self._head)

    def _complete(self) -> bool:
        found = re.search(rb"\r\ncontent-length: (\d+)\r\n", self._head, re.IGNORECASE)
        return found is not None and len(self._tail) >= int(found[1])


class Way:
    """How a question is asked and its answer read. With `tail_url` it is started at `url` and read there."""

    def __init__(self, url: str, tokens: int, tail_url: str = "") -> None:
        self._port, self._tokens = urlsplit(url).port or 80, tokens
        self._tail_port = urlsplit(tail_url).port
        self._cookie = b""
        self._post = self._request("POST", "/chat/stream", "Prefer: respond-async\r\n" if tail_url else "", BODY)

    def _request(self, method: str, path: str, headers: str, body: bytes = b"") -> bytes:
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nCookie: %b\r\n{more}{headers}\r\n".encode() + body

    async def introduce(self, path: str) -> None:
        """One owner for all."""
        connection = await self._connect(self._port, lambda data, now: None)
        head = await connection.exchange(self._request("GET", path, "").replace(b"%b", b""))
        found = COOKIE.search(head)
        self._cookie = found[1] if found else b""
        connection.close()

    async def _connect(self, port: int, on_data: Callable[[bytes, float], None]) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(on_data), "127.0.0.1", port)
        return connection

    async def _exchange(self, connection: Connection, port: int, request: bytes) -> tuple[Connection, bytes]:
        """Again on a new connection when the server had closed this one for being idle."""
        while True:
            if connection.closed:
                connection = await self._connect(port, connection.on_data)
            try:
                return connection, await connection.exchange(request)
            except ConnectionError:
                if connection.answered:
                    raise

    async def watch_on(self, seen: Seen, watchers: int, more: Callable[[], bool]) -> None:
        """As `ask_on`, but so many tails read each answer; tokens count once for each of them."""

        def received(data: bytes, now: float) -> None:
            stamps = STAMP.findall(data.partition(DONE)[0])
            seen.tokens += len(stamps)
            if stamps:
                seen.begin()
            if seen.watched:
                for stamp in stamps:
                    seen.lag.add(1000 * now - int(stamp) / 1000)

        post = self._request("POST", "/chat/stream", "Prefer: respond-async\r\n", BODY).replace(b"%b", self._cookie)
        while more():
            asking = await self._connect(self._port, received)
            found = LOCATION.search(await asking.exchange(post))
            assert found
            get = self._request("GET", found[1].decode(), "").replace(b"%b", self._cookie)
            tails = [await self._connect(self._port, received) for _ in range(watchers)]
            await asyncio.gather(*(tail.exchange(get) for tail in tails))
            for connection in (asking, *tails):
                connection.close()

    async def ask_on(self, seen: Seen, more: Callable[[], bool]) -> None:
        """One question after the other, while `more`."""
        asked_at, count, last = 0.0, 0, b""

        def received(data: bytes, now: float) -> None:
            nonlocal count, last
            last = data[-LAST_BYTES:]
            stamps = STAMP.findall(data.partition(DONE)[0])
            if not stamps and RESET not in data:
                return
            if not count:
                seen.begin()
                if seen.watched:
                    seen.first_token.add(1000 * (now - asked_at))
            if seen.watched:
                for stamp in stamps:
                    seen.lag.add(1000 * now - int(stamp) / 1000)
            count += len(stamps)
            if RESET in data:  # what came before it is to be forgotten, and comes again
                seen.resets += 1
                count = len(STAMP.findall(data.partition(DONE)[0].rpartition(RESET)[2]))
            seen.tokens += len(stamps)
            seen.frames += data.count(b"event: token")
            seen.bytes += len(data)

        asking = await self._connect(self._port, received)
        reading = await self._connect(self._tail_port, received) if self._tail_port else None
        post = self._post.replace(b"%b", self._cookie)
        while more():
            asked_at, count = time.time(), 0
            asking, head = await self._exchange(asking, self._port, post)
            if head.startswith(BUSY):
                seen.refused += 1
                await asyncio.sleep(BUSY_SECONDS)
                continue
            if not head.startswith(WELL):
                raise AssertionError(f"answered {head!r} {last!r}")
            if reading is not None and self._tail_port:
                found = LOCATION.search(head)
                assert found, head
                get = self._request("GET", found[1].decode(), "").replace(b"%b", self._cookie)
                reading, _ = await self._exchange(reading, self._tail_port, get)
            seen.turns += 1
            if count != self._tokens:
                seen.wrong.append(f"{count} of {self._tokens} tokens, then {last!r}")
        asking.close()
        if reading is not None:
            reading.close()
