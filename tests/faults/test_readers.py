"""Readers that go away, and answers that do not care."""

import asyncio
import gc
import logging
import re
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from functions.app import create_app
from functions.connection import Connection
from functions.replica import OpenWorker, Replica
from functions.serve import listen
from functions.settings import Settings
from functions.tail import TailResponse
from functions.worker import open_worker
from graph.eventlog.hub import TAKEN_MAX_BYTES, Reader
from graph.eventlog.log import Candidate
from tests.support.client import Person, check_whole_turn
from tests.support.crowd import frames_of_table, read_to_the_end
from tests.support.turns import done, held, open_writer, token
from tests.support.waiting import until

READERS = 60
FIRST_CHUNK_ENDS = b"event: ping\ndata: {}\n\n\r\n"
AT_ONCE_SECONDS = 1.0


class Served(NamedTuple):
    url: str
    replica: Replica
    connections: set[Any]


@asynccontextmanager
async def served(database_url: str, opener: OpenWorker | None = open_worker) -> AsyncIterator[Served]:
    """A server in this process, so that what it keeps can be seen."""
    app = create_app(Settings.model_validate({"model": "scripted?tokens=60&delay_ms=40"}), database_url, opener)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, http=Connection, log_config=None, timeout_graceful_shutdown=2))
    serving = asyncio.create_task(server.serve([listening]))
    await until(lambda: server.started)
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield Served(url, app.state.replica, server.server_state.connections)
    finally:
        server.should_exit = True
        await serving


def alive() -> int:
    gc.collect()
    return sum(type(thing) in (Reader, TailResponse) for thing in gc.get_objects())


async def attach(url: str, session_id: str, cookie: str, receives_bytes: int | None = None) -> socket.socket:
    """A raw socket that reads its response's first chunk and then nothing."""
    loop = asyncio.get_running_loop()
    host, port = url.removeprefix("http://").split(":")
    raw = socket.socket()
    if receives_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives_bytes)
    raw.setblocking(False)
    await loop.sock_connect(raw, (host, int(port)))
    lines = [f"GET /chat/stream/{session_id}?after=0 HTTP/1.1", f"Host: {host}", f"Cookie: {cookie}", "", ""]
    await loop.sock_sendall(raw, "\r\n".join(lines).encode())
    head = b""
    while not head.endswith(FIRST_CHUNK_ENDS):
        head += await loop.sock_recv(raw, 1)
        with suppress(BlockingIOError):
            there = raw.recv(4096, socket.MSG_PEEK)
            head += raw.recv(_up_to_the_first_chunks_end(head, there))
    return raw


def _up_to_the_first_chunks_end(head: bytes, there: bytes) -> int:
    end = (head + there).find(FIRST_CHUNK_ENDS)
    return len(there) if end < 0 else end + len(FIRST_CHUNK_ENDS) - len(head)


def leave(raw: socket.socket, *, rudely: bool) -> None:
    if rudely:  # a reset instead of an end
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


async def test_a_reader_that_leaves_is_forgotten_at_once_and_the_answer_goes_on(database_url: str) -> None:
    async with served(database_url) as (url, replica, _), Person() as person:
        before = alive()
        started = await person.start(url, request_id=str(uuid4()))
        cookie = f"pulseline_owner={person.client.cookies['pulseline_owner']}"
        raws = await asyncio.gather(*(attach(url, started["session_id"], cookie) for _ in range(READERS)))
        assert replica.hub.readers == READERS
        began = time.monotonic()
        for number, raw in enumerate(raws):
            leave(raw, rudely=number % 2 == 0)
        await until(lambda: not replica.hub.readers and not replica.hub._watches)
        assert time.monotonic() - began < AT_ONCE_SECONDS
        assert alive() == before
        assert (await person.snapshot(url, started["session_id"]))["turn"] is not None, "it was still running"
        frames = await person.read(url, started["session_id"])
    check_whole_turn(frames)
    assert frames[-1].type == "done"


async def test_a_start_whose_client_leaves_before_the_answer_is_one_turn_when_it_is_sent_again(
    database_url: str,
) -> None:
    """The connection breaks in the middle of POST, again and again; the same request_id is the same turn."""
    async with served(database_url) as (url, _, _), Person() as person:
        await person.client.get(f"{url}/sessions")
        body = {"message": "What helps?", "request_id": "same"}
        post = partial(person.client.post, f"{url}/chat/stream", json=body)
        for patience in (0.001, 0.003, 0.006, 0.01, 0.02):
            try:
                async with asyncio.timeout(patience):
                    await post()
            except TimeoutError:
                continue
        starts = [(await post(headers={"Prefer": "respond-async"})).json() for _ in range(2)]
        assert starts[0] == starts[1]
        frames = await person.read(url, starts[0]["session_id"])
        check_whole_turn(frames)
        assert sum(frame.type == "turn_started" for frame in frames) == 1


LARGE_EVENTS, LARGE_BYTES = 100, 20_000
STALLED_READERS = 12
HELD_MAX_BYTES = HIGH_WATER_LIMIT + TAKEN_MAX_BYTES + 2 * LARGE_BYTES
UNSENT_MAX_BYTES = 500_000


async def test_a_reader_that_takes_nothing_holds_a_buffer_is_dropped_in_time_and_resumes_exactly(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 7, with an answer far larger than any buffer; half of the readers come before it, half after."""
    async with served(database_url, None) as (url, replica, connections), Person() as person:
        started = await person.start(url)
        session_id, path = started["session_id"], f"/chat/stream/{started['session_id']}"
        cookie = f"pulseline_owner={person.client.cookies['pulseline_owner']}"
        stall = partial(attach, url, session_id, cookie, 16_384)
        stalled = [await stall() for _ in range(STALLED_READERS // 2)]
        turn = await held(replica.log, Candidate(UUID(session_id), UUID(started["turn_id"])))
        async with open_writer(database_url, replica.committed) as writer:
            for _ in range(LARGE_EVENTS):
                await writer.append(turn, token("x" * LARGE_BYTES))
                await writer.flush(turn)
            await writer.append(turn, done(turn, ""))
            await writer.flush(turn)
        stalled += [await stall() for _ in range(STALLED_READERS // 2)]

        await until(lambda: sum(connection.flow.write_paused for connection in connections) == STALLED_READERS)
        whole = b"".join(await asyncio.to_thread(frames_of_table, database_url, session_id))
        assert (await read_to_the_end(url, path, cookie, 0)).frames == whole, "nobody else is held up"
        for connection in connections:
            assert connection.transport.get_write_buffer_size() <= HELD_MAX_BYTES
        assert max(unsent(url), default=0) < UNSENT_MAX_BYTES
        for raw in stalled:
            raw.close()
        await until(lambda: not replica.hub.readers)

        monkeypatch.setattr("functions.connection.STALLED_SECONDS", 1.5)
        resuming = await asyncio.gather(*(stall() for _ in range(STALLED_READERS)))
        taken = await asyncio.gather(*(take(raw, n * LARGE_BYTES) for n, raw in enumerate(resuming)))
        assert sum(map(len, taken)) > len(whole) / 5
        await until(lambda: not replica.hub.readers and not any(c.flow.write_paused for c in connections))
        assert not alive()
        for raw, seen in zip(resuming, taken, strict=True):
            raw.close()
            last = int(seen.rpartition(b"id: ")[2].split(b"\n")[0]) if seen else 0
            resumed = await read_to_the_end(url, path, cookie, last)
            assert seen + resumed.frames == whole
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def unsent(url: str) -> list[int]:
    """What the kernel keeps for each connection of this server, in bytes; nothing where it does not say."""
    port, table = int(url.rpartition(":")[2]), Path("/proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
    return [int(row[4].split(":")[0], 16) for row in rows if int(row[1].split(":")[1], 16) == port]


async def take(raw: socket.socket, size: int) -> bytes:
    """Reads so many bytes and no more; gives the whole frames among them."""
    received = b""
    while len(received) < size:  # from a server that still answers: it drops only who stands still
        received += await asyncio.get_running_loop().sock_recv(raw, min(4096, size - len(received)))
    frames = b""
    while head := re.match(rb"(?:\r\n)?([0-9a-f]+)\r\n", received):
        end = head.end() + int(head[1], 16)
        frames, received = frames + received[head.end() : end], received[end:]
    return frames[: frames.rfind(b"\n\n") + 2]
