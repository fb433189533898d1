"""What is measured of each peer: many answers at once, and one answer whose readers lose their connections."""

import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

import psutil

from loadtests.compare.contestants import IDLE_SECONDS, INVALID_CLIENT_PERCENT, Sample, rate
from loadtests.compare.peer_client import Client, PeerFailed, Reading
from loadtests.compare.peers import Running, memory_mb

SAMPLE_SECONDS = 0.05
LATE_SECONDS = 20.0  # after which what has not ended is given up
LAST_CUT = 0.9  # of the answer: nobody comes back to one that has ended


@dataclass(frozen=True)
class Turns:
    """So many at once, each `answers` times one after the other, on new threads."""

    at_once: int
    answers: int
    tokens: int
    pause_ms: int

    @property
    def question(self) -> str:
        return f"{self.tokens} {self.pause_ms}"

    @property
    def seconds(self) -> float:
        return self.answers * self.tokens * self.pause_ms / 1000

    def __str__(self) -> str:
        return f"{self.at_once}, {f'{self.pause_ms} ms a token' if self.pause_ms else 'full speed'}"


@dataclass(frozen=True)
class Comeback:
    """So many readers of one turn lose their connections, each at a token of its own or all at the same one."""

    readers: int
    turn: Turns
    together: bool

    def __str__(self) -> str:
        return f"{self.readers}, {self.turn.pause_ms} ms a token, {'at one moment' if self.together else 'at random'}"


@dataclass
class Streamed:
    """CPU in µs a token, from idle to idle; `memory_mb` is the most that the server and its Redis had at one moment."""

    tokens_a_second: float
    cpu: float
    cpu_postgres: float
    cpu_redis: float
    memory_mb: float
    bytes_a_token: float
    frames_a_token: float
    wrong: float
    client_cpu_percent: float
    load_average: float

    @property
    def whole_cpu(self) -> float:
        return self.cpu + self.cpu_postgres + self.cpu_redis

    @property
    def valid(self) -> bool:
        return self.client_cpu_percent <= INVALID_CLIENT_PERCENT


@dataclass
class Resumed:
    """Of readers who came back once each. `unended` were still waiting, or cut by the server, when given up."""

    readers: int = 0
    losers: int = 0
    lost: int = 0
    repeaters: int = 0
    repeated: int = 0
    refused: int = 0
    unended: int = 0

    def add(self, readings: list[Reading]) -> None:
        self.readers += len(readings)
        self.losers += sum(reading.lost > 0 for reading in readings)
        self.lost += sum(reading.lost for reading in readings)
        self.repeaters += sum(reading.repeated > 0 for reading in readings)
        self.repeated += sum(reading.repeated for reading in readings)
        self.refused += sum(reading.refused for reading in readings)
        self.unended += sum(not reading.ended for reading in readings)

    @property
    def whole(self) -> bool:
        return not (self.lost or self.repeated or self.unended)


async def bounded(seconds: float, tasks: list[Coroutine[Any, Any, None]]) -> None:
    """All at once. What has failed, or not ended in time, is told by what it has not read."""
    started = [asyncio.create_task(task) for task in tasks]
    _, late = await asyncio.wait(started, timeout=seconds)
    for task in late:
        task.cancel()
    for error in await asyncio.gather(*started, return_exceptions=True):
        if isinstance(error, BaseException) and not isinstance(error, (PeerFailed, OSError, asyncio.CancelledError)):
            raise error


async def ask_on(client: Client, turns: Turns, readings: list[Reading]) -> None:
    """Fills in the readings, one after the other."""
    for reading in readings:
        exchange = await client.ask(turns.question, reading)
        try:
            reading.ended = await exchange.ended
        finally:
            exchange.cut()


async def stream(one: Running, turns: Turns) -> Streamed:
    client = Client(one.url)
    await client.call("POST", "/assistants/search", {})  # for its cookie: one person for all
    every = [[Reading(turns.tokens) for _ in range(turns.answers)] for _ in range(turns.at_once)]
    processes = one.processes()
    await asyncio.sleep(IDLE_SECONDS)
    client.tally.tokens = client.tally.bytes = 0
    before, busy, began = one.used(), time.process_time(), time.perf_counter()
    samples = [Sample(began, 0, memory_mb(processes))]
    sampling = asyncio.create_task(_sample(client, samples, processes))
    await bounded(turns.seconds + LATE_SECONDS, [ask_on(client, turns, readings) for readings in every])
    samples.append(Sample(time.perf_counter(), client.tally.tokens, memory_mb(processes)))
    sampling.cancel()
    percent = 100 * (time.process_time() - busy) / (time.perf_counter() - began)
    await asyncio.sleep(IDLE_SECONDS)
    tokens = max(client.tally.tokens, 1)
    cpu, postgres, redis = (1e6 * (after - first) / tokens for first, after in zip(before, one.used(), strict=True))
    readings = [reading for those in every for reading in those]
    return Streamed(
        rate(samples) if client.tally.tokens else 0.0,
        cpu,
        postgres,
        redis,
        max(sample.memory_kb for sample in samples),
        client.tally.bytes / tokens,
        sum(reading.frames for reading in readings) / tokens,
        sum(bool(reading.lost or reading.repeated or not reading.ended) for reading in readings),
        percent,
        os.getloadavg()[0],
    )


async def _sample(client: Client, samples: list[Sample], processes: list[psutil.Process]) -> None:
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        samples.append(Sample(time.perf_counter(), client.tally.tokens, memory_mb(processes)))


async def resume(url: str, what: Comeback, seed: int) -> list[Reading]:
    """The readers join the answer from its start; each is cut once, and comes back at once with its Last-Event-ID. Who
    asked reads it to the end, so that nobody's leaving ends the run."""
    client, chance, turn = Client(url), Random(seed), what.turn
    await client.call("POST", "/assistants/search", {})
    asked, joined = Reading(turn.tokens), [Reading(turn.tokens) for _ in range(what.readers)]
    asking = await client.ask(turn.question, asked)
    location = asking.headers["location"]
    cuts = [turn.tokens // 2 if what.together else chance.randrange(round(LAST_CUT * turn.tokens)) for _ in joined]

    async def read(reading: Reading, cut: int) -> None:
        await client.join(location, reading, until=cut)
        await client.join(location, reading)

    await bounded(turn.seconds + LATE_SECONDS, [read(*pair) for pair in zip(joined, cuts, strict=True)])
    asking.cut()
    return joined
