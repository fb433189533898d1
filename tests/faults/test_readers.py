"""Readers that go away, and answers that do not care."""

import asyncio
import gc
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

import uvicorn

from functions.app import create_app
from functions.replica import OpenWorker, Replica
from functions.settings import Settings
from functions.tail import TailResponse
from functions.worker import open_worker
from graph.eventlog.hub import Reader
from tests.support.client import Person, check_whole_turn

READERS = 60
AT_ONCE_SECONDS = 1.0


@asynccontextmanager
async def served(database_url: str, opener: OpenWorker = open_worker) -> AsyncIterator[tuple[str, Replica]]:
    """A server in this process, so that what it keeps can be seen."""
    app = create_app(Settings.model_validate({"model": "scripted?tokens=60&delay_ms=40"}), database_url, opener)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
    serving = asyncio.create_task(server.serve([listening]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.replica
    finally:
        server.should_exit = True
        await serving


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def alive() -> int:
    gc.collect()
    return sum(type(thing) in (Reader, TailResponse) for thing in gc.get_objects())


async def attach(url: str, session_id: str, cookie: str) -> socket.socket:
    """A raw socket that reads its response's head and then nothing."""
    loop = asyncio.get_running_loop()
    host, port = url.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setblocking(False)
    await loop.sock_connect(raw, (host, int(port)))
    lines = [f"GET /chat/stream/{session_id}?after=0 HTTP/1.1", f"Host: {host}", f"Cookie: {cookie}", "", ""]
    await loop.sock_sendall(raw, "\r\n".join(lines).encode())
    head = b""
    while b"event: ping" not in head:
        head += await loop.sock_recv(raw, 4096)
    return raw


def leave(raw: socket.socket, *, rudely: bool) -> None:
    if rudely:  # a reset instead of an end
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


async def test_a_reader_that_leaves_is_forgotten_at_once_and_the_answer_goes_on(database_url: str) -> None:
    async with served(database_url) as (url, replica), Person() as person:
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
    async with served(database_url) as (url, _), Person() as person:
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
