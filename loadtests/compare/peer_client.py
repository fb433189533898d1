"""One client of the LangGraph wire for every server. It shares no code with the product and does not know whom it asks.

What was lost and what was repeated is told by the numbers in the text, however many of them a frame holds.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import orjson

ASSISTANT = "agent"
OK = 200
SAID = re.compile(r"w(\d+) ")
FROM_THE_START = "-1"


class PeerFailed(Exception):
    """A server answered what it should not."""


class Frame(NamedTuple):
    id: str
    event: str
    data: bytes


class Frames:
    """The frames of an event stream, whose lines end with LF or CRLF, however its bytes are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        data = self._rest + data
        half = b"\r" if data.endswith(b"\r") else b""  # of a CRLF
        whole, blank, rest = data.removesuffix(half).replace(b"\r\n", b"\n").rpartition(b"\n\n")
        self._rest = rest + half
        for block in whole.split(b"\n\n") if blank else ():
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            yield Frame(fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode(), fields.get(b"data", b""))


class Reading:
    """An answer of so many numbered tokens as one reader got it, over all its connections."""

    def __init__(self, tokens: int) -> None:
        self.times = [0] * tokens  # that each came
        self.newest = -1  # number
        self.last_event_id = FROM_THE_START
        self.frames = 0
        self.refused = self.ended = False

    def receive(self, frame: Frame) -> int:
        """Gives how many tokens it held."""
        self.last_event_id = frame.id or self.last_event_id
        if frame.event != "messages":
            return 0
        message = orjson.loads(frame.data)[0]
        if message["type"] != "AIMessageChunk":
            return 0
        numbers = [int(number) for number in SAID.findall(message["content"])]
        for number in numbers:
            self.times[number] += 1
        self.newest = max(self.newest, *numbers) if numbers else self.newest
        self.frames += bool(numbers)
        return len(numbers)

    @property
    def lost(self) -> int:
        return self.times.count(0)

    @property
    def repeated(self) -> int:
        return sum(times - 1 for times in self.times if times > 1)


class Tally:
    """What all readers together have had so far."""

    def __init__(self) -> None:
        self.tokens = self.bytes = 0


class Exchange(asyncio.Protocol):
    """One request on a connection of its own. `ended` says whether the body came to its end, once nothing more comes.

    `receive` gets the body as it comes, and says False when it has had enough: the connection is cut at once.
    """

    def __init__(self, request: bytes, receive: Callable[[bytes], bool], tally: Tally) -> None:
        loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.status, self.headers = 0, dict[str, str]()
        self._request, self._receive, self._tally = request, receive, tally
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        self._tally.bytes += len(data)
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(ended=False)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if not self.answered.done():
            self.answered.set_result(None)

    def on_body(self, body: bytes) -> None:
        if not self.ended.done() and not self._receive(body):
            self._finish(ended=False)

    def on_message_complete(self) -> None:
        self._finish(ended=self.status == OK)

    def cut(self) -> None:
        self._finish(ended=False)

    def _finish(self, *, ended: bool) -> None:
        for future, result in ((self.answered, None), (self.ended, ended)):
            if not future.done():
                future.set_result(result)  # type: ignore[arg-type]
        if self._transport is not None:
            self._transport.abort()


class Client:
    """One person, for whom the server's cookie is kept."""

    def __init__(self, url: str) -> None:
        self._port = urlsplit(url).port or 80
        self._cookie = ""
        self.tally = Tally()

    async def call(self, method: str, path: str, body: object = None) -> bytes:
        """Raises PeerFailed for what is no success."""
        got = bytearray()

        def receive(data: bytes) -> bool:
            got.extend(data)
            return True

        exchange = await self._open(method, path, receive, {}, body)
        if not await exchange.ended:
            raise PeerFailed(f"{method} {path}: {exchange.status} {got[:300].decode(errors='replace')}")
        self._cookie = exchange.headers.get("set-cookie", self._cookie).partition(";")[0]
        return bytes(got)

    async def ask(self, question: str, reading: Reading) -> Exchange:
        """On a thread of its own. Returns when it is answered: what is said comes to `reading`."""
        thread = orjson.loads(await self.call("POST", "/threads", {}))["thread_id"]
        asked = {
            "assistant_id": ASSISTANT,
            "input": {"messages": [{"role": "user", "content": question}]},
            "stream_mode": ["messages-tuple"],
            "stream_resumable": True,
            "on_disconnect": "continue",
        }
        return await self._read("POST", f"/threads/{thread}/runs/stream", reading, {}, asked)

    async def join(self, location: str, reading: Reading, until: int | None = None) -> None:
        """Goes on where `reading` is, to the end, or to the token with the number `until`, and cuts the connection.

        It goes where the server's Location says, with Last-Event-ID, as the SDKs do.
        """
        resumed = {"Last-Event-ID": reading.last_event_id}
        exchange = await self._read("GET", location, reading, resumed, until=until)
        try:
            reading.ended = await exchange.ended
            reading.refused |= exchange.status != OK
        finally:
            exchange.cut()

    async def _read(
        self,
        method: str,
        path: str,
        reading: Reading,
        headers: dict[str, str],
        body: object = None,
        *,
        until: int | None = None,
    ) -> Exchange:
        frames = Frames()

        def receive(data: bytes) -> bool:
            for frame in frames.feed(data):
                self.tally.tokens += reading.receive(frame)
                if until is not None and reading.newest >= until:
                    return False
            return True

        exchange = await self._open(method, path, receive, headers, body)
        await exchange.answered
        return exchange

    async def _open(
        self, method: str, path: str, receive: Callable[[bytes], bool], headers: dict[str, str], body: object
    ) -> Exchange:
        sent = b"" if body is None else orjson.dumps(body)
        told = {"Host": "localhost", "Accept": "*/*", **headers}
        told |= {"Cookie": self._cookie} if self._cookie else {}
        told |= {"Content-Type": "application/json", "Content-Length": str(len(sent))} if sent else {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
        request = "\r\n".join([*lines, "", ""]).encode() + sent
        loop = asyncio.get_running_loop()
        _, exchange = await loop.create_connection(
            lambda: Exchange(request, receive, self.tally), "127.0.0.1", self._port
        )
        return exchange
