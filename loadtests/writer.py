"""What a durable token costs: events/s, emit → committed and CPU of the group-committing writer.

Compares, in one run: every turn paced at 100 tokens/s, and all turns as fast as the database takes them.
"""

import asyncio
import resource
import time
from statistics import median, quantiles
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import uvloop
from psycopg import AsyncConnection
from rich.console import Console
from rich.table import Table

from functions.embedded_postgres import EmbeddedPostgres
from functions.serve import tune_garbage_collection
from graph.eventlog.events import Event, NewEvent
from graph.eventlog.log import Candidate, Log, open_pool
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.writer import HeldTurn, Writer
from tests.support.folder import temporary_folder

SECONDS = 3.0
GAP_SECONDS = 0.01
REPEATS = 3
OWNER = "anonymous:bench"
LIMIT_P99_MS, AIM_EVENTS_A_SECOND = 20.0, 30_000


class Measured(NamedTuple):
    events_a_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    commits_a_second: float
    rows_a_second: float


async def _held(log: Log) -> HeldTurn:
    turn = await log.start(uuid4(), OWNER, str(uuid4()), "bench")
    claim = await log.claim(Candidate(turn.session_id, turn.turn_id), "bench", 3600, "bench")
    assert claim is not None
    return HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)


async def _produce(writer: Writer, turn: HeldTurn, paced: bool, until: float, lags: list[float]) -> int:
    """Emits one token after another; every 16th waits for its commit, to time it."""
    loop, emitted = asyncio.get_running_loop(), 0
    due = loop.time()
    while loop.time() < until:
        await writer.append(turn, NewEvent("token", {"content": f"token {emitted} of it "}))
        emitted += 1
        if emitted % 16 == 0 or not paced:
            began = time.perf_counter()
            await writer.flush(turn)
            lags.append(1000 * (time.perf_counter() - began))
        if paced:
            due += GAP_SECONDS
            await asyncio.sleep(max(0.0, due - loop.time()))
    return emitted


async def _measure(url: str, turns: int, paced: bool) -> Measured:
    async def connect() -> AsyncConnection[Any]:
        return await AsyncConnection.connect(url, autocommit=True, prepare_threshold=5)

    rows = 0

    def committed(events: list[Event]) -> None:
        nonlocal rows
        rows += len(events)

    async with open_pool(url, max_size=10) as pool, Writer(connect, committed) as writer:
        log = Log(pool)
        held = [await _held(log) for _ in range(turns)]
        lags: list[float] = []
        commits, cpu, began = writer.commits, time.process_time(), time.perf_counter()
        until = asyncio.get_running_loop().time() + SECONDS
        emitted = sum(await asyncio.gather(*(_produce(writer, turn, paced, until, lags) for turn in held)))
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu
        return Measured(
            emitted / took,
            median(lags),
            quantiles(lags, n=100)[-1],
            1e6 * cpu / emitted,
            (writer.commits - commits) / took,
            rows / took,
        )


def run(console: Console) -> bool:
    """Prints the table; tells whether the aims are reached."""
    table = Table("turns", "pace", "tokens/s", "rows/s", "commits/s", "emit → committed p50", "p99", "CPU a token")
    best, best_p99, paced_p99 = 0.0, float("inf"), 0.0
    with temporary_folder() as folder, EmbeddedPostgres(folder / "home").running() as url:

        async def setup() -> None:
            async with open_pool(url, max_size=2) as pool:
                await EventLogSaver(pool).setup()

        asyncio.run(setup())
        tune_garbage_collection()
        for turns in (10, 100, 500):
            for paced in (True, False):
                runs = [uvloop.run(_measure(url, turns, paced)) for _ in range(REPEATS)]
                middle = Measured(*(median(column) for column in zip(*runs, strict=True)))
                best = max(best, middle.rows_a_second)
                if middle.rows_a_second >= AIM_EVENTS_A_SECOND:
                    best_p99 = min(best_p99, middle.p99_ms)
                paced_p99 = middle.p99_ms if paced and turns == 100 else paced_p99
                table.add_row(
                    str(turns),
                    "100 tokens/s each" if paced else "one row a commit each, as fast as it commits",
                    f"{middle.events_a_second:,.0f}",
                    f"{middle.rows_a_second:,.0f}",
                    f"{middle.commits_a_second:,.0f}",
                    f"{middle.p50_ms:.2f} ms",
                    f"{middle.p99_ms:.2f} ms",
                    f"{middle.cpu_us:.1f} µs",
                )
        with psycopg.connect(url) as connection:
            row = connection.execute("select version()").fetchone()
    console.print(f"Writer on {str(row and row[0]).split(' on ')[0]}, fsync on, median of {REPEATS} runs")
    console.print(table)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"peak memory of this process {peak_mb:.0f} MB")
    ratios = {
        f"{AIM_EVENTS_A_SECOND:,} / the most rows a second": AIM_EVENTS_A_SECOND / best,
        "the least p99 at so many rows a second / limit": best_p99 / LIMIT_P99_MS,
        "p99 of 100 turns at their pace / limit": paced_p99 / LIMIT_P99_MS,
    }
    console.print("Judged: " + "   ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()))
    return all(ratio <= 1 for ratio in ratios.values())
