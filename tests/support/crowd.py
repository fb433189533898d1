"""Hundreds of readers at once, over plain sockets: each costs a buffer and nothing else.

What they got is judged by the table's rows, read by another connection.
"""

import asyncio
import re
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg

STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
OPENING_OR_PING = re.compile(rb"(retry: \d+\n)?event: ping\ndata: \{\}\n\n")
LAST = re.compile(rb"id: (\d+)\nevent: (\w+)\n")
ENDS = (b"done", b"cancelled", b"error")
READ_BYTES = 65_536
COME_BACK_MAX = 60
AWAY = 503  # the database cannot be reached
RETRY_SECONDS = 0.5


class Reply(NamedTuple):
    """`heard_at`: when its first event came, by the loop's clock."""

    status: int
    body: bytes
    heard_at: float

    def frames(self) -> bytes:
        """The body without what has no id."""
        return OPENING_OR_PING.sub(b"", self.body)


class Resumed(NamedTuple):
    """Until the terminal frame. `came_back` counts the ends of a response before it, each of which is a clean one."""

    frames: bytes
    came_back: int
    heard_at: float
    ended_at: float


async def read_to_the_end(url: str, path: str, cookie: str, cursor: int) -> Resumed:
    """As a browser does: after a response that ended early it comes back with the last id that it saw."""
    received, heard_at = b"", float("inf")
    for came_back in range(COME_BACK_MAX):
        reply = await get(url, path, cookie, cursor)
        assert reply.status in (200, AWAY), reply
        heard_at = min(heard_at, reply.heard_at)
        received += (frames := reply.frames() if reply.status != AWAY else b"")
        if last := LAST.match(frames[:-2].rpartition(b"\n\n")[2]):
            cursor = int(last[1])
            if last[2] in ENDS:
                return Resumed(received, came_back, heard_at, asyncio.get_running_loop().time())
        await asyncio.sleep(RETRY_SECONDS)
    raise AssertionError(f"no end after {COME_BACK_MAX} responses")


async def get(url: str, path: str, cookie: str = "", last_event_id: int | None = None) -> Reply:
    """Everything up to the end of the response."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    resumed = "" if last_event_id is None else f"Last-Event-ID: {last_event_id}\r\n"
    head = f"Host: {address.netloc}\r\nCookie: {cookie}\r\n{resumed}Connection: close\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    received, heard_at = bytearray(), float("inf")
    try:
        while data := await reader.read(READ_BYTES):
            received += data
            if heard_at == float("inf") and b"\nid: " in received:
                heard_at = asyncio.get_running_loop().time()
    finally:
        writer.close()
    headers, _, body = bytes(received).partition(b"\r\n\r\n")
    found = STATUS.match(headers)
    assert found, headers
    return Reply(int(found[1]), _whole(body) if b"chunked" in headers.lower() else body, heard_at)


def _whole(chunked: bytes) -> bytes:
    """Raises unless the last chunk came: a response that was cut off is no response that ended."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = chunked.index(b"\r\n", at)
        size = int(chunked[at:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(chunked[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def frames_of_table(database_url: str, session_id: str) -> list[bytes]:
    """A session's log as the frames that every reader must get; the n-th has seq n + 1."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select seq, type, data::text from events where session_id = %s order by seq", [session_id]
        ).fetchall()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    return [f"id: {seq}\nevent: {kind}\ndata: {data}\n\n".encode() for seq, kind, data in rows]
