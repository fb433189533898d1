"""A server on loopback that speaks OpenAI's streaming wire and does what a test scripts: say, refuse, hang, break."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

MODEL = "openai:wired"
PATIENCE_SECONDS = 30.0
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Call:
    """A client's request. `at` is when it came, `failed_at` when we failed it, `let_go_at` when it was over."""

    messages: list[dict[str, Any]]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)
    failed_at: float | None = None
    let_go_at: float | None = None

    @property
    def said_to(self) -> list[tuple[str, str]]:
        """What the model got, without the instructions."""
        return [(m["role"], m["content"]) for m in self.messages if m["role"] not in ("system", "developer")]

    @property
    def over_at(self) -> float:
        """When it failed; of a call that was answered to the end, when that was said."""
        over = self.failed_at or self.let_go_at
        assert over is not None, "this call goes on"
        return over


Act = Callable[[Call, asyncio.StreamWriter], Awaitable[None]]


def says(*words: str, pause: float = 0, finish: str = "stop") -> Act:
    async def act(call: Call, writer: asyncio.StreamWriter) -> None:
        await _say(writer, words, pause)
        _chunk(writer, {}, finish)
        writer.write(_chunked(b"data: [DONE]\n\n") + LAST_CHUNK)

    return act


def drips(word: str, pause: float) -> Act:
    """For ever."""

    async def act(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while not writer.is_closing():
            await _say(writer, [word], pause, opened=True)

    return act


def hangs(*words: str, headers: bool = True) -> Act:
    """Says these words and then nothing, without hanging up; not even a status with `headers=False`."""

    async def act(call: Call, writer: asyncio.StreamWriter) -> None:
        if headers:
            await _say(writer, words)
        call.failed_at = time.monotonic()
        await asyncio.Event().wait()

    return act


def breaks(*words: str) -> Act:
    """Cuts the connection after these words."""

    async def act(call: Call, writer: asyncio.StreamWriter) -> None:
        await _say(writer, words)
        call.failed_at = time.monotonic()
        writer.transport.abort()

    return act


def refuses(status: int, code: str = "", message: str = "no", **headers: str) -> Act:
    async def act(call: Call, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()
        lines = [f"HTTP/1.1 {status} No", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        call.failed_at = time.monotonic()
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)

    return act


def fails(*words: str, code: str, message: str = "no") -> Act:
    """An error in the stream, as OpenAI sends it once the status is out."""

    async def act(call: Call, writer: asyncio.StreamWriter) -> None:
        await _say(writer, words)
        call.failed_at = time.monotonic()
        writer.write(_data({"error": {"message": message, "type": code, "code": code}}) + LAST_CHUNK)

    return act


class Wire:
    """`acts` are played one a call; the last one stays."""

    def __init__(self, acts: tuple[Act, ...]) -> None:
        self.acts = list(acts)
        self.calls: list[Call] = []
        self.url = ""
        self._changed = asyncio.Condition()

    async def called(self, count: int = 1, seconds: float = PATIENCE_SECONDS) -> Call:
        await self._until(lambda: len(self.calls) >= count, seconds)
        return self.calls[count - 1]

    async def let_go(self, call: Call, seconds: float = PATIENCE_SECONDS) -> float:
        """When the client hung up."""
        await self._until(lambda: call.let_go_at is not None, seconds)
        assert call.let_go_at is not None
        return call.let_go_at

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            call = await _request(reader)
            self.calls.append(call)
            await self._tell()
            act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
            acting = asyncio.ensure_future(act(call, writer))
            gone = asyncio.create_task(self._hung_up(reader, call))
            await asyncio.wait((acting, gone), return_when=asyncio.FIRST_COMPLETED)
            if acting.done():
                acting.result()
                await writer.drain()
                call.let_go_at = call.let_go_at or time.monotonic()
            for task in (acting, gone):
                task.cancel()
            await asyncio.gather(acting, gone, return_exceptions=True)
        writer.close()

    async def _hung_up(self, reader: asyncio.StreamReader, call: Call) -> None:
        with suppress(OSError):
            while await reader.read(1024):
                pass
        call.let_go_at = time.monotonic()
        await self._tell()


@asynccontextmanager
async def wire(*acts: Act) -> AsyncIterator[Wire]:
    wired = Wire(acts)
    server = await asyncio.start_server(wired.serve, "127.0.0.1", 0)
    wired.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield wired
    finally:
        server.close()


async def _request(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    return Call(body["messages"], headers)


async def _say(
    writer: asyncio.StreamWriter, words: tuple[str, ...] | list[str], pause: float = 0, *, opened: bool = False
) -> None:
    if not opened:
        writer.write(STREAM)
        _chunk(writer, {"role": "assistant", "content": ""})
    for word in words:
        await asyncio.sleep(pause)
        _chunk(writer, {"content": word})
        await writer.drain()


def _chunk(writer: asyncio.StreamWriter, delta: dict[str, str], finish: str | None = None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    writer.write(
        _data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "wired", "choices": [choice]})
    )


def _data(content: dict[str, Any]) -> bytes:
    return _chunked(f"data: {json.dumps(content)}\n\n".encode())


def _chunked(body: bytes) -> bytes:
    """So that a cut can be told from an end."""
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"
