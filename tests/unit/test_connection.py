"""No connection is held by bytes that are no request, and a body is refused by the app, not by the connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from functions import connection
from functions.body_limit import BodyLimit
from functions.connection import HEAD_MAX_BYTES, Connection
from functions.probes import Server

BODY_MAX_BYTES = 64 * 1024
SOON_SECONDS = 0.2
PATIENCE_SECONDS = 5.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], "asyncio.Future[Streams]"]


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how long the body was, of those methods that may have one."""
    size = b""
    if scope["method"] == "POST":
        size = str(len((await receive())["body"])).encode()
    headers = [(b"content-length", str(len(size)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": size})


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """On a port of its own."""
    config = uvicorn.Config(
        BodyLimit(_app, BODY_MAX_BYTES), port=0, http=Connection, lifespan="off", log_config=None, access_log=False
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SOON_SECONDS)
    monkeypatch.setattr(connection, "UNREAD_SECONDS", SOON_SECONDS)
    async with served() as found:
        yield found


async def _closed(reader: asyncio.StreamReader) -> bytes:
    """What still came before the server closed."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionResetError):
            return await reader.read()
    return b""


async def _dripped(port: int, first: bytes, then: bytes) -> bytes:
    """One answer, and then bytes for as long as the server takes them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    head = await reader.readuntil(b"\r\n\r\n")

    async def drip() -> None:
        while True:
            writer.write(then)
            await asyncio.sleep(SOON_SECONDS / 10)

    dripping = asyncio.create_task(drip())
    try:
        await _closed(reader)
    finally:
        dripping.cancel()
        writer.close()
    return head


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (GET, b"\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde", b"\r\n1\r\nx"),
        (GET + b"GET / HTTP/1.1\r\nX-Slow: ", b"x"),
    ],
    ids=["empty lines", "a body that nobody reads", "half a chunked body", "half a head after a whole one"],
)
async def test_what_is_no_request_holds_no_connection(port: int, first: bytes, then: bytes) -> None:
    assert (await _dripped(port, first, then)).startswith(b"HTTP/1.1 200")


async def test_silence_after_an_empty_line_holds_none_either(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\r\n")
    assert await _closed(reader) == b""
    writer.close()


async def test_a_connection_that_goes_on_asking_stays(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + 3 * SOON_SECONDS
    while loop.time() < ends_at:
        writer.write(GET)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize(
    ("size", "status"), [(BODY_MAX_BYTES, b"200"), (BODY_MAX_BYTES + 1, b"413"), (200_000, b"413")]
)
async def test_a_large_body_in_one_piece_is_answered(port: int, size: int, status: bytes, asked_before: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if asked_before:
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
    writer.write(head + b"1" * size)
    answer = await _closed(reader)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert status != b"200" or answer.endswith(str(size).encode())
    writer.close()


@pytest.mark.parametrize("piece", [1000, HEAD_MAX_BYTES, 4 * HEAD_MAX_BYTES])
async def test_a_head_without_end_is_cut_however_it_comes(piece: int) -> None:
    """Long before its time is over."""
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 4 * HEAD_MAX_BYTES:
                writer.write(b"x" * piece)
                sent += piece
                await writer.drain()
        assert await _closed(reader) == b""
        writer.close()
