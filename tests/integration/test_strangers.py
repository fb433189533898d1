"""Strangers who hold on to what they get, slow heads and bodies and idle tails: others are served meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import FreshDatabase
from tests.support.client import Person
from tests.support.server import Server, serving

SLOW = 200
IDLE_TAILS = 500
TAIL_MAX_BYTES = 100 * 1024
HEAD_SECONDS = 10  # functions/connection.py
ANSWER_SECONDS = 10


@pytest.fixture(scope="module")
def server(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        fresh_database() as url,
        serving(url, tmp_path_factory.mktemp("strangers"), "scripted?tokens=5&delay_ms=0") as started,
    ):
        yield started


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


def _address(server: Server) -> tuple[str, int]:
    url = httpx.URL(server.url)
    return url.host, url.port or 0


async def _answered_seconds(person: Person, server: Server) -> float:
    began = time.monotonic()
    async with asyncio.timeout(ANSWER_SECONDS):
        started = await person.start(server.url, "Is anybody there?")
        frames = await person.read(server.url, started["session_id"])
    assert frames[-1].type == "done"
    return time.monotonic() - began


async def test_slow_heads_and_bodies_keep_nobody_waiting_and_are_closed(
    server: Server, person: Person, say: Callable[[str], None]
) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
    body = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    async with AsyncExitStack() as stack:
        streams = []
        for n in range(SLOW):
            reader, writer = await asyncio.open_connection(*_address(server))
            stack.callback(writer.close)
            writer.write((b"", head, body)[n % 3])
            await writer.drain()
            streams.append((reader, writer, n % 3))
        ends = []
        async with asyncio.TaskGroup() as tasks:
            dripping = tasks.create_task(_drip([writer for _, writer, _ in streams]))
            seconds = await _answered_seconds(person, server)
            for reader, _, kind in streams:
                async with asyncio.timeout(HEAD_SECONDS * 3):
                    ends.append((kind, (await _heard(reader))[-3:]))
            dripping.cancel()
    assert set(ends) == {(0, b""), (1, b""), (2, b"408")}, "a head that does not come is cut, a body is told"
    say(f"slowloris: {SLOW} slow connections, a question was answered in {seconds:.2f} s, all were closed")


async def _heard(reader: asyncio.StreamReader) -> bytes:
    """A byte that came when the server had cut the connection is answered with a reset."""
    try:
        return await reader.read(12)
    except ConnectionResetError:
        return b""


async def _drip(writers: list[asyncio.StreamWriter]) -> None:
    """A byte a second, so that no connection is ever silent for long."""
    while True:
        await asyncio.sleep(1)
        for writer in writers[1::3]:
            with suppress(OSError):
                writer.write(b"x")


async def test_a_head_without_end_is_cut(server: Server) -> None:
    reader, writer = await asyncio.open_connection(*_address(server))
    with suppress(OSError):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(64):
            writer.write(b"X-Long: " + b"x" * 4096 + b"\r\n")
            await writer.drain()
    async with asyncio.timeout(HEAD_SECONDS / 2):
        with suppress(OSError):
            assert await reader.read() == b""
    writer.close()


async def test_idle_tails_cost_little_and_others_are_served(
    server: Server, person: Person, say: Callable[[str], None]
) -> None:
    started = await person.start(server.url, "Watch me")
    await person.read(server.url, started["session_id"])
    last = (await person.snapshot(server.url, started["session_id"]))["last_seq"]
    process = psutil.Process(server.process.pid)
    cookie = f"pulseline_owner={person.client.cookies['pulseline_owner']}"
    path = f"/chat/stream/{started['session_id']}?follow=session&after={last}"
    asks = f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"
    before = process.memory_info().rss
    async with AsyncExitStack() as stack:
        for _ in range(IDLE_TAILS):
            reader, writer = await asyncio.open_connection(*_address(server))
            stack.callback(writer.close)
            writer.write(asks.encode())
            async with asyncio.timeout(ANSWER_SECONDS):
                await reader.readuntil(b"event: ping")
        grown = process.memory_info().rss - before
        seconds = await _answered_seconds(person, server)
        metrics = (await person.client.get(f"{server.url}/metrics")).text
        assert float(metrics.partition("\npulseline_open_tails ")[2].partition("\n")[0]) >= IDLE_TAILS
    each = grown / IDLE_TAILS
    say(f"{IDLE_TAILS} idle tails: {each / 1024:.1f} KB each, a question was answered in {seconds:.2f} s meanwhile")
    assert each < TAIL_MAX_BYTES


async def test_only_a_trusted_proxy_is_believed(fresh_database: FreshDatabase, tmp_path: Path, server: Server) -> None:
    by_tls = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        believed = await client.get(f"{server.url}/sessions", headers=by_tls)
        with fresh_database() as url, serving(url, tmp_path, TRUSTED_PROXIES="10.0.0.0/8", WORKER="off") as stranger:
            not_believed = await client.get(f"{stranger.url}/sessions", headers=by_tls)
    assert "Secure" in believed.headers["set-cookie"]
    assert "strict-transport-security" in believed.headers
    assert "Secure" not in not_believed.headers["set-cookie"]
    assert "strict-transport-security" not in not_believed.headers
