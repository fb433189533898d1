"""People who ask and read on through every fault, and who keep everything that they were given."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from tests.faults.relay import Relay

FRAME = re.compile(rb"(?:retry: \d+\n)?(?:id: (\d+)\n)?event: (\w+)\ndata: ([^\n]*)\n\n")
ENDS = (b"done", b"cancelled", b"error")
SILENCE_SECONDS = 3.0  # three heartbeats missed: the connection is taken for dead
REQUEST_SECONDS = 4.0
PAUSE_SECONDS = (0.05, 0.4)
REPLACED_SHARE, STREAMED_SHARE, SECOND_READER_SHARE = 0.15, 0.4, 0.3
QUESTION = "What are the symptoms of iron deficiency, part {}?"


class Got(NamedTuple):
    """A frame as it came. `way` is the relay it came through."""

    seq: int
    type: str
    data: bytes
    at: float
    way: int


@dataclass(eq=False)
class Reading:
    """What one reader of one turn was given, over all its connections."""

    session_id: str
    after: int
    began: float
    frames: list[Got] = field(default_factory=list)
    connections: int = 0
    finished: bool = False


@dataclass(eq=False)
class Asked:
    session_id: str
    request_id: str
    message: str
    replaces: str | None
    turn_id: str = ""
    after: int = -1
    answers: set[tuple[str, str, int]] = field(default_factory=set)
    readings: list[Reading] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return bool(self.turn_id) and not any(reading.finished for reading in self.readings)


class Crowd:
    """`complaints` are what a person would complain about at once; `checker` finds the rest."""

    def __init__(self, ways: list[Relay], seed: int) -> None:
        self.ways = ways
        self.seed = seed
        self.asked: list[Asked] = []
        self.cancels: list[tuple[str, str, str, int]] = []
        self.complaints: list[str] = []
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.leaving = False
        self._people: dict[str, _Person] = {}

    async def converse(self, number: int) -> None:
        """Turn after turn, until the campaign is over."""
        async with self._person(number) as person:
            while not self.leaving:
                await person.turn()

    async def start_twice(self, number: int) -> None:
        """A conversation whose only question is sent four times at once, on different replicas."""
        async with self._person(number) as person:
            await person.turn(times=4)

    def pick(self, dice: random.Random) -> str | None:
        """A session whose turn is running."""
        running = [asked.session_id for asked in self.asked if asked.running]
        return dice.choice(running) if running else None

    async def cancel(self, session_id: str) -> None:
        """Its turn, by two requests at once."""
        asked = next(asked for asked in reversed(self.asked) if asked.session_id == session_id)
        person = self._people[session_id]
        both = [asyncio.create_task(person.cancel(asked)) for _ in range(2)]
        person.cancelling += both  # nobody leaves before his cancel is answered
        await asyncio.gather(*both)

    @asynccontextmanager
    async def _person(self, number: int) -> AsyncIterator["_Person"]:
        async with _Person(self, number) as person:
            self._people[person.session_id] = person
            try:
                yield person
                await asyncio.gather(*person.cancelling)
                self.snapshots[person.session_id] = await person.snapshot()
            finally:
                del self._people[person.session_id]


class _Person:
    """One owner with one conversation; goes another way whenever the last one failed."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._dice = random.Random(f"{crowd.seed} {number}")
        self._way = number
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(REQUEST_SECONDS, read=SILENCE_SECONDS), trust_env=False)
        self.session_id = str(uuid4())
        self.cancelling: list[asyncio.Task[None]] = []
        self._last: Asked | None = None
        self._count = 0

    async def __aenter__(self) -> "_Person":
        await self._request("GET", "/sessions", {200})  # the owner's cookie, which must outlive a lost answer
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def turn(self, times: int = 1) -> None:
        self._count += 1
        replaces = self._last.turn_id if self._last and self._dice.random() < REPLACED_SHARE else None
        asked = Asked(self.session_id, uuid4().hex, QUESTION.format(self._count), replaces)
        self._crowd.asked.append(asked)
        if times == 1 and self._dice.random() < STREAMED_SHARE:
            reading = await self._ask_streaming(asked)
        else:
            await asyncio.gather(*(self._ask(asked) for _ in range(times)))
            reading = self._reading(asked)
        readings = [reading]
        if self._dice.random() < SECOND_READER_SHARE:
            readings.append(self._reading(asked))
        await asyncio.gather(*(self._read_on(asked, reading) for reading in readings))
        self._last = asked

    async def _ask(self, asked: Asked) -> None:
        reply = await self._request("POST", "/chat/stream", {202}, _body(asked), {"Prefer": "respond-async"})
        started = reply.json()
        self._note(asked, started["session_id"], started["turn_id"], started["after"])

    async def _ask_streaming(self, asked: Asked) -> Reading:
        """Reads the turn in the answer of its POST; if that breaks, goes on elsewhere."""
        while True:
            way, url = self._next_way()
            try:
                async with self._client.stream("POST", f"{url}/chat/stream", json=_body(asked)) as reply:
                    if reply.status_code == 200:
                        after = int(reply.headers["location"].rpartition("=")[2])
                        self._note(asked, reply.headers["x-session-id"], reply.headers["x-turn-id"], after)
                        reading = self._reading(asked)
                        await self._receive(reading, reply, way)
                        return reading
                    await self._refused(reply, "POST", {200})
            except httpx.HTTPError:
                if asked.turn_id:
                    return asked.readings[-1]
            await self._pause()

    def _note(self, asked: Asked, session_id: str, turn_id: str, after: int) -> None:
        asked.answers.add((session_id, turn_id, after))
        asked.turn_id, asked.after = turn_id, after

    def _reading(self, asked: Asked) -> Reading:
        reading = Reading(asked.session_id, asked.after, time.monotonic())
        asked.readings.append(reading)
        return reading

    async def _read_on(self, asked: Asked, reading: Reading) -> None:
        """With its cursor, until the end has come."""
        while not reading.finished:
            way, url = self._next_way()
            cursor = reading.frames[-1].seq if reading.frames else reading.after
            headers = {"Last-Event-ID": str(cursor)}
            try:
                path = f"{url}/chat/stream/{asked.session_id}"
                async with self._client.stream("GET", path, headers=headers) as reply:
                    if reply.status_code == 200:
                        await self._receive(reading, reply, way)
                    else:
                        await self._refused(reply, f"GET after {cursor}", {200})
            except httpx.HTTPError:
                pass
            if not reading.finished:
                await self._pause()

    async def _receive(self, reading: Reading, reply: httpx.Response, way: int) -> None:
        reading.connections += 1
        buffer = b""
        async for piece in reply.aiter_bytes():
            buffer += piece
            at = time.monotonic()
            while found := FRAME.match(buffer):
                buffer = buffer[found.end() :]
                if found[1] is not None:
                    self._keep(reading, Got(int(found[1]), found[2].decode(), found[3], at, way))
                    if found[2] in ENDS:
                        reading.finished = True
                        return

    def _keep(self, reading: Reading, got: Got) -> None:
        expected = reading.frames[-1].seq + 1 if reading.frames else reading.after + 1
        if got.seq != expected:
            self._crowd.complaints.append(f"{reading.session_id}: {got.seq} came where {expected} was due")
        reading.frames.append(got)

    async def cancel(self, asked: Asked) -> None:
        reply = await self._request(
            "POST", f"/chat/stream/{asked.session_id}/cancel", {200}, {"turn_id": asked.turn_id}
        )
        said = reply.json()
        self._crowd.cancels.append((asked.session_id, said["turn_id"], said["status"], said["seq"]))

    async def snapshot(self) -> dict[str, Any]:
        snapshot: dict[str, Any] = (await self._request("GET", f"/sessions/{self.session_id}", {200})).json()
        return snapshot

    async def _request(
        self, method: str, path: str, well: set[int], body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Sent again, elsewhere, until it is answered."""
        while True:
            _, url = self._next_way()
            try:
                reply = await self._client.request(method, url + path, json=body, headers=headers)
                if reply.status_code in well:
                    return reply
                await self._refused(reply, f"{method} {path}", well)
            except httpx.HTTPError:
                pass
            await self._pause()

    async def _refused(self, reply: httpx.Response, what: str, well: set[int]) -> None:
        """Only what passes by itself may be refused."""
        body = await reply.aread()
        if reply.status_code < 500 or b"internal_error" in body:
            self._crowd.complaints.append(f"{self.session_id}: {what} gave {reply.status_code}, not {well}: {body!r}")

    def _next_way(self) -> tuple[int, str]:
        self._way = (self._way + 1) % len(self._crowd.ways)
        return self._way, f"http://{self._crowd.ways[self._way].address}"

    async def _pause(self) -> None:
        await asyncio.sleep(self._dice.uniform(*PAUSE_SECONDS))


def _body(asked: Asked) -> dict[str, Any]:
    body = {"message": asked.message, "session_id": asked.session_id, "request_id": asked.request_id}
    return body if asked.replaces is None else {**body, "replaces": asked.replaces}
