"""An independent client: httpx and the published parser httpx-sse; it shares no code with the product."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
from httpx_sse import aconnect_sse

ENDS = {"done", "cancelled", "error"}
TIMEOUT = httpx.Timeout(10, read=20)


class Received(NamedTuple):
    seq: int
    type: str
    data: dict[str, Any]


class Watching:
    """What one response brought; `frames` grows while it is read."""

    def __init__(self, response: httpx.Response, frames: AsyncIterator[Received]) -> None:
        self.response = response
        self._frames = frames
        self.frames: list[Received] = []

    async def until(self, *types: str, count: int = 1) -> Received:
        """Reads on to the count-th frame of one of these types."""
        async for frame in self._frames:
            self.frames.append(frame)
            if frame.type in types:
                count -= 1
                if not count:
                    return frame
        raise AssertionError(f"the response ended without {types}: {[f.type for f in self.frames[-5:]]}")

    async def rest(self) -> list[Received]:
        async for frame in self._frames:
            self.frames.append(frame)
        return self.frames


class Person:
    """One owner with a cookie jar, who may talk to several replicas."""

    def __init__(self) -> None:
        self.client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)

    async def __aenter__(self) -> "Person":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def start(self, url: str, message: str = "What are the symptoms?", **body: Any) -> dict[str, Any]:
        body = {"message": message, "request_id": str(uuid4()), **body}
        reply = await self.client.post(f"{url}/chat/stream", json=body, headers={"Prefer": "respond-async"})
        assert reply.status_code == 202, reply.text
        started: dict[str, Any] = reply.json()
        return started

    async def begin(self, url: str, **body: Any) -> dict[str, Any]:
        """As `start`, and returns when the first token has come."""
        started = await self.start(url, **body)
        async with self.watch(url, started["session_id"], after=started["after"]) as watching:
            await watching.until("token")
        return started

    @asynccontextmanager
    async def watch(
        self, url: str, session_id: str, after: int | None = None, last_event_id: int | None = None, **query: str
    ) -> AsyncIterator[Watching]:
        parameters: dict[str, Any] = {**query, **({} if after is None else {"after": after})}
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        path = f"{url}/chat/stream/{session_id}"
        async with aconnect_sse(self.client, "GET", path, params=parameters, headers=headers) as source:
            yield Watching(source.response, _frames(source) if source.response.status_code == 200 else _none())

    async def read(self, url: str, session_id: str, after: int = 0) -> list[Received]:
        async with self.watch(url, session_id, after) as watching:
            assert watching.response.status_code == 200, watching.response.status_code
            return await watching.rest()

    async def cancel(self, url: str, session_id: str, **body: Any) -> httpx.Response:
        return await self.client.post(f"{url}/chat/stream/{session_id}/cancel", json=body)

    async def snapshot(self, url: str, session_id: str) -> dict[str, Any]:
        reply = await self.client.get(f"{url}/sessions/{session_id}")
        assert reply.status_code == 200, reply.text
        snapshot: dict[str, Any] = reply.json()
        return snapshot


async def _frames(source: Any) -> AsyncIterator[Received]:
    async for event in source.aiter_sse():
        if event.event != "ping":
            yield Received(int(event.id), event.event, json.loads(event.data))


async def _none() -> AsyncIterator[Received]:
    return
    yield


def text_of(frames: Iterable[Received]) -> str:
    """The tokens after the last reset, joined."""
    text = ""
    for frame in frames:
        if frame.type == "reset":
            text = ""
        elif frame.type == "token":
            text += frame.data["content"]
    return text


def check_whole_turn(frames: list[Received]) -> None:
    """Consecutive ids, one terminal event and it is the last, text equal to the answer's."""
    first = frames[0].seq
    assert [frame.seq for frame in frames] == list(range(first, first + len(frames)))
    assert [frame.type in ENDS for frame in frames] == [False] * (len(frames) - 1) + [True]
    end = frames[-1]
    content = end.data["message"]["content"] if end.type == "done" else end.data["content"]
    assert text_of(frames) == content
