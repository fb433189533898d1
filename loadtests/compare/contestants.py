"""The ways that are compared, each with the processes that it takes, and what is measured of them."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import psutil

from functions.embedded_postgres import EmbeddedPostgres
from loadtests.compare.client import Seen, Way
from loadtests.fleet import Served, cpu_seconds, go_on, postmaster, resident_kb, stand_still
from tests.support.folder import temporary_folder

TOKENS = {"saturated": 200, "paced": 100}
MODELS = {
    "saturated": f"scripted?tokens={TOKENS['saturated']}&delay_ms=0&stage_ms=0&stamp=1",
    "paced": f"scripted?tokens={TOKENS['paced']}&delay_ms=40&stage_ms=0&stamp=1",
}
INVALID_CLIENT_PERCENT = 80  # of a core: above it the readers were measured, not the servers
IDLE_SECONDS = 0.5  # before a run, and after it, for what a server still does when all have been answered
SAMPLE_SECONDS = 0.02
MIDDLE = (1 / 6, 5 / 6)  # of all tokens: of three answers in step, two whole ones, their starts included
VOLATILE, BEST, DURABLE, OTHER = "volatile", "volatile, best", "durable", "durable, other"
WAYS = (VOLATILE, BEST, DURABLE, OTHER)


@dataclass(frozen=True)
class Load:
    """What each reader does: so many whole answers one after the other, and more while `seconds` have not passed.

    Their first questions are spread evenly over `spread` seconds.
    """

    answers: int
    seconds: float
    spread: float


LOADS = {"saturated": Load(3, 3.0, 1.0), "paced": Load(2, 0.0, 4.0)}  # a paced answer takes 4 s: starts come evenly
WARM_UP = Load(1, 0.5, 0.0)


@dataclass
class Measured:
    """Of one run, from idle to idle: whatever a turn costs, its start included, is divided by all tokens.

    CPU in µs a token; times in ms; `memory_kb` is what the servers grew by for each turn since their warm-up, nan where
    it was not looked at; `refused` counts 503s, `resets` attempts after the first.
    """

    tokens_a_second: float
    cpu: float
    cpu_postgres: float
    first_token_p50: float
    first_token_p95: float
    lag_p50: float
    lag_p99: float
    memory_kb: float
    frames_a_token: float
    bytes_a_token: float
    client_cpu_percent: float
    load_average: float
    refused: float
    resets: float

    @property
    def whole_cpu(self) -> float:
        return self.cpu + self.cpu_postgres

    @property
    def valid(self) -> bool:
        return self.client_cpu_percent <= INVALID_CLIENT_PERCENT

    def row(self) -> tuple[float, ...]:
        times = (self.first_token_p50, self.first_token_p95, self.lag_p50, self.lag_p99)
        client = (self.frames_a_token, self.client_cpu_percent, self.load_average)
        return (self.tokens_a_second, self.whole_cpu, self.cpu_postgres, *times, self.memory_kb, *client)


class Sample(NamedTuple):
    at: float
    tokens: int
    memory_kb: float


def rate(samples: list[Sample]) -> float:
    """Tokens a second over the middle of a run, where all ask; a run too short to have one is taken as a whole."""
    first, last = samples[0], samples[-1]
    begin, end = (next(s for s in samples if s.tokens >= share * last.tokens) for share in MIDDLE)
    if end.at <= begin.at:
        begin, end = first, last
    return (end.tokens - begin.tokens) / (end.at - begin.at)


class Contestant:
    """One way to serve, with the processes that it takes, on a database cluster that nobody else uses."""

    def __init__(self, name: str, servers: list[Served], way: Way, postgres: psutil.Process, url: str) -> None:
        self.name, self.way, self.servers, self.database_url = name, way, servers, url
        self._processes = [psutil.Process(server.process.pid) for server in servers]
        self._postgres = postgres
        self._idle_kb = self._resident_kb()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Outside, its servers and their cluster stand still: no poll, no timer, no collection, no checkpoint and no
        vacuum of theirs falls into another's run. What is left to do when it wakes again it pays for itself.
        """
        self.wake()
        try:
            yield
        finally:
            stand_still(*self._processes, self._postgres)

    def wake(self) -> None:
        go_on(self._postgres, *self._processes)

    def used(self) -> tuple[float, float]:
        """CPU seconds so far, of the servers and of Postgres."""
        return sum(map(cpu_seconds, self._processes)), cpu_seconds(self._postgres)

    def _resident_kb(self) -> float:
        return sum(map(resident_kb, self._processes))

    async def warm_up(self) -> None:
        with self.awake():
            await self.way.introduce("/sessions")
            await self.measure(10, WARM_UP)
            self._idle_kb = self._resident_kb()

    async def measure(self, turns: int, load: Load) -> Measured:
        """`turns` at a time, from idle to idle."""
        seen, end = Seen(turns), time.perf_counter() + IDLE_SECONDS + load.seconds

        async def ask(delay: float) -> None:
            await asyncio.sleep(delay)
            asked = count(1)
            await self.way.ask_on(seen, lambda: next(asked) <= load.answers or time.perf_counter() < end)

        await asyncio.sleep(IDLE_SECONDS)
        (cpu, database), client, began = self.used(), time.process_time(), time.perf_counter()
        samples = [Sample(began, 0, self._resident_kb())]
        sampling = asyncio.create_task(self._sample(seen, samples))
        await asyncio.gather(*(ask(load.spread * n / turns) for n in range(turns)))
        samples.append(Sample(time.perf_counter(), seen.tokens, self._resident_kb()))
        sampling.cancel()
        client_percent = 100 * (time.process_time() - client) / (time.perf_counter() - began)
        await asyncio.sleep(IDLE_SECONDS)
        cpu_after, database_after = self.used()
        if seen.wrong:
            raise AssertionError(f"{self.name}: {len(seen.wrong)} of {seen.turns} answers: {seen.wrong[0]}")
        return Measured(
            rate(samples),
            1e6 * (cpu_after - cpu) / seen.tokens,
            1e6 * (database_after - database) / seen.tokens,
            seen.first_token.percentile(50),
            seen.first_token.percentile(95),
            seen.lag.percentile(50),
            seen.lag.percentile(99),
            (max(sample.memory_kb for sample in samples) - self._idle_kb) / turns,
            seen.frames / seen.tokens,
            seen.bytes / seen.tokens,
            client_percent,
            os.getloadavg()[0],
            seen.refused,
            seen.resets,
        )

    async def _sample(self, seen: Seen, samples: list[Sample]) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append(Sample(time.perf_counter(), seen.tokens, self._resident_kb()))


class _Stage:
    """Where contestants are put up."""

    def __init__(self, stack: ExitStack, mode: str) -> None:
        self._stack, self._mode = stack, mode
        self._folder = stack.enter_context(temporary_folder())

    def put_up(self, name: str, *commands: tuple[tuple[str, ...], dict[str, str]]) -> Contestant:
        """On a cluster of its own; a question goes to the first server and is read at the last."""
        home = self._folder / name.replace(", ", "-")
        url = self._stack.enter_context(EmbeddedPostgres(home).running())
        servers = []
        for n, (command, settings) in enumerate(commands):
            environment = {"PULSELINE_MODEL": MODELS[self._mode], "DATABASE_URL": url, **settings}
            servers.append(Served(f"{home.name}-{n}", self._folder, command, environment))
            self._stack.callback(servers[-1].kill)
        for served in servers:
            served.ready()
        tail = servers[-1].url if len(servers) > 1 else ""
        way = Way(servers[0].url, TOKENS[self._mode], tail)
        contestant = Contestant(name, servers, way, postmaster(home), url)
        self._stack.callback(contestant.wake)  # a cluster that stands still does not hear that it is to end
        return contestant


@contextmanager
def contestants(mode: str, chosen: Sequence[str] = WAYS) -> Iterator[dict[str, Contestant]]:
    """Each with servers and a database cluster of its own, warm and standing still until it is `awake`."""
    unlimited = ("TURNS_PER_MINUTE", "TURNS_PER_OWNER", "TAILS_PER_OWNER")  # all are of one owner here
    many = {"PULSELINE_MAX_TURNS": "2000", **{f"PULSELINE_MAX_{name}": "0" for name in unlimited}}
    pulseline, volatile = ("-m", "functions", "serve"), ("-m", "loadtests.compare.volatile")
    commands: dict[str, tuple[tuple[tuple[str, ...], dict[str, str]], ...]] = {
        VOLATILE: (((*volatile, "events"), {}),),
        BEST: (((*volatile, "messages"), {}),),
        DURABLE: ((pulseline, many),),
        OTHER: ((pulseline, many), (pulseline, {**many, "PULSELINE_WORKER": "off"})),
    }
    with ExitStack() as stack:
        stage = _Stage(stack, mode)
        yield {name: stage.put_up(name, *commands[name]) for name in chosen}
