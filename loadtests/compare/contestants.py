"""The ways that are compared, each with the processes that it takes, and what is measured of them."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
import psycopg

from functions.embedded_postgres import EmbeddedPostgres
from loadtests.compare.client import Seen, Way
from loadtests.fleet import Served, cpu_seconds, postmaster, resident_kb
from tests.support.folder import temporary_folder

TOKENS = {"saturated": 200, "paced": 100}
MODELS = {
    "saturated": f"scripted?tokens={TOKENS['saturated']}&delay_ms=0&stage_ms=0&stamp=1",
    "paced": f"scripted?tokens={TOKENS['paced']}&delay_ms=40&stage_ms=0&stamp=1",
}
START_SECONDS = 60
RAMP_SECONDS, PACED_RAMP_SECONDS = 1.0, 4.5
SPREAD_SECONDS = 4.0  # as long as a paced answer: starts come evenly
VOLATILE, BEST, DURABLE, OTHER = "volatile", "volatile, best", "durable", "durable, other"
WAYS = (VOLATILE, BEST, DURABLE, OTHER)


@dataclass
class Measured:
    """Of one window. CPU in µs a token; times in ms; memory of the servers in MB; `refused` counts 503s,
    `resets` attempts after the first.
    """

    tokens_a_second: float
    cpu: float
    cpu_postgres: float
    first_token_p50: float
    first_token_p95: float
    lag_p50: float
    lag_p99: float
    memory_mb: float
    frames_a_token: float
    bytes_a_token: float
    client_cpu_percent: float
    refused: float
    resets: float

    def row(self) -> tuple[float, ...]:
        whole = self.cpu + self.cpu_postgres
        times = (self.first_token_p50, self.first_token_p95, self.lag_p50, self.lag_p99)
        return (self.tokens_a_second, whole, self.cpu_postgres, *times, self.memory_mb)


class Contestant:
    """One way to serve, with the processes that it takes."""

    def __init__(self, name: str, servers: list[Served], way: Way, postgres: psutil.Process, url: str) -> None:
        self.name, self.way, self.servers, self.database_url = name, way, servers, url
        self._processes = [psutil.Process(server.process.pid) for server in servers]
        self._postgres = postgres

    def used(self) -> tuple[float, float]:
        """CPU seconds so far, of the servers and of Postgres."""
        return sum(map(cpu_seconds, self._processes)), cpu_seconds(self._postgres)

    async def measure(self, turns: int, ramp: float, window: float, spread: float = 0.0) -> Measured:
        """`turns` at a time for a while; what is counted falls into a window that begins when all have begun.

        Their first starts are spread evenly over `spread` seconds.
        """
        seen, going = Seen(turns), True

        async def ask(delay: float) -> None:
            await asyncio.sleep(delay)
            await self.way.ask_on(seen, lambda: going)

        asking = [asyncio.create_task(ask(spread * n / turns)) for n in range(turns)]
        await asyncio.sleep(ramp)
        async with asyncio.timeout(START_SECONDS):
            await seen.begun.wait()
        seen.watched = True
        tokens, frames, size = seen.tokens, seen.frames, seen.bytes
        began, (cpu, database), client = time.perf_counter(), self.used(), time.process_time()
        await asyncio.sleep(window)
        client = time.process_time() - client
        took, (cpu_after, database_after) = time.perf_counter() - began, self.used()
        memory = sum(map(resident_kb, self._processes)) / 1024
        tokens, frames, size = seen.tokens - tokens, seen.frames - frames, seen.bytes - size
        going = False
        await asyncio.gather(*asking)
        if seen.wrong:
            raise AssertionError(f"{self.name}: {len(seen.wrong)} of {seen.turns} answers: {seen.wrong[0]}")
        per = tokens or math.nan  # a window in which nothing came tells no cost
        return Measured(
            tokens / took,
            1e6 * (cpu_after - cpu) / per,
            1e6 * (database_after - database) / per,
            seen.first_token.percentile(50),
            seen.first_token.percentile(95),
            seen.lag.percentile(50),
            seen.lag.percentile(99),
            memory,
            frames / per,
            size / per,
            100 * client / took,
            seen.refused,
            seen.resets,
        )


@contextmanager
def contestants(mode: str, chosen: tuple[str, ...] = WAYS) -> Iterator[dict[str, Contestant]]:
    """Each with a database of its own in one Postgres, so that no worker takes another's turns."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        url = stack.enter_context(EmbeddedPostgres(folder / "home").running())
        other = url.rsplit("/", 1)[0] + "/other"
        with psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
            connection.execute("create database other template pulseline")

        def serve(name: str, command: tuple[str, ...], database: str, **settings: str) -> Served:
            environment = {"PULSELINE_MODEL": MODELS[mode], "DATABASE_URL": database, **settings}
            served = Served(name, folder, command, environment)
            stack.callback(served.kill)
            return served

        pulseline = ("-m", "functions", "serve")
        unlimited = ("TURNS_PER_MINUTE", "TURNS_PER_OWNER", "TAILS_PER_OWNER")  # all are of one owner here
        many = {"PULSELINE_MAX_TURNS": "2000", **{f"PULSELINE_MAX_{name}": "0" for name in unlimited}}
        durable = serve("durable", pulseline, url, **many)
        asked = serve("asked", pulseline, other, **many)
        read = serve("read", pulseline, other, **many, PULSELINE_WORKER="off")
        volatile = serve("volatile", ("-m", "loadtests.compare.volatile", "events"), url)
        best = serve("best", ("-m", "loadtests.compare.volatile", "messages"), url)
        for served in (durable, asked, read, volatile, best):
            served.ready()
        database = postmaster(folder / "home")
        tokens = TOKENS[mode]
        every = (
            Contestant(VOLATILE, [volatile], Way(volatile.url, tokens), database, url),
            Contestant(BEST, [best], Way(best.url, tokens), database, url),
            Contestant(DURABLE, [durable], Way(durable.url, tokens), database, url),
            Contestant(OTHER, [asked, read], Way(asked.url, tokens, read.url), database, other),
        )
        yield {one.name: one for one in every if one.name in chosen}
