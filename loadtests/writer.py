"""What a durable event costs: events/s, emit → committed and CPU of the group-committing writer.

Compares, in one run: every turn paced at 100 tokens/s; a fixed number of events/s that are no tokens, shared by all
turns; and every turn's next event after the commit of its last. Consecutive tokens that wait together become one row:
only where nothing can be joined is a row an event. Each event is timed from when it was due to the call that makes its
row known to readers: a load that falls behind its pace counts the delay. Only where so many events are offered are
events/s judged; the p99 is judged in every row.
"""

import asyncio
import resource
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from statistics import median, quantiles
from typing import Any, NamedTuple
from uuid import UUID, uuid4

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
TICK_SECONDS = 0.01
REPEATS = 3
OWNER = "anonymous:bench"
MARK = "token "  # once in each event, so that a row tells how many it holds
AIM_P99_MS, AIM_EVENTS_A_SECOND = 20.0, 30_000
OFFERED_EVENTS_A_SECOND = 32_000
UNJOINED = "routed"  # a row each; not "custom", of which BUFFER_MAX_CUSTOM at most may wait for a commit


class Load(NamedTuple):
    """What each turn emits: `burst` events of this type every `gap_seconds`, or, without a gap, one after the commit of
    the last. `aim`: as many rows a second, where so many are offered."""

    name: str
    type: str
    burst: int
    gap_seconds: float | None
    aim: int | None = None


def loads(turns: int) -> tuple[Load, ...]:
    burst = max(1, round(OFFERED_EVENTS_A_SECOND * TICK_SECONDS / turns))
    gap = turns * burst / OFFERED_EVENTS_A_SECOND
    return (
        Load("100 tokens/s each", "token", 1, TICK_SECONDS),
        Load(f"{OFFERED_EVENTS_A_SECOND:,} events/s in all, none a token", UNJOINED, burst, gap, AIM_EVENTS_A_SECOND),
        Load("the next after the last one's commit", UNJOINED, 1, None),
    )


class Measured(NamedTuple):
    """Events and rows a second until the last is committed; from due to committed; CPU of an event, load included."""

    emitted_a_second: float
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


class Timing:
    """From when each event was due to its commit, in ms. The events of a session commit in order."""

    def __init__(self) -> None:
        self.lags_ms: list[float] = []
        self.rows = 0
        self._due: dict[UUID, deque[float]] = defaultdict(deque)

    def due(self, turn: HeldTurn, at: float, events: int) -> None:
        """By time.perf_counter(). Timers are early at times: then it counts from now."""
        self._due[turn.session_id].extend([min(at, time.perf_counter())] * events)

    def committed(self, rows: Iterable[Event]) -> None:
        now = time.perf_counter()
        for row in rows:
            self.rows += 1
            waiting = self._due[row.session_id]
            self.lags_ms += [1000 * (now - waiting.popleft()) for _ in range(row.data.count(MARK))]


async def _connect(writer: Writer, turn: HeldTurn, timing: Timing) -> None:
    """The writer connects and prepares for its first event, once in the life of a process: that is not timed."""
    timing.due(turn, time.perf_counter(), 1)
    await writer.append(turn, _event("token", turn, 0))
    await writer.flush(turn)
    timing.lags_ms.clear()
    timing.rows = 0


async def _produce(writer: Writer, turn: HeldTurn, load: Load, begin: float, until: float, timing: Timing) -> None:
    """One burst after another, each that is due before `until`, however late. Only a load without a gap asks for its
    commits."""
    emitted, due = 0, begin
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    while due < until:
        timing.due(turn, due, load.burst)
        await writer.append(turn, *(_event(load.type, turn, emitted + n) for n in range(load.burst)))
        emitted += load.burst
        if load.gap_seconds is None:
            await writer.flush(turn)
            due = time.perf_counter()
        else:
            due += load.gap_seconds
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await writer.flush(turn)


def _event(kind: str, turn: HeldTurn, number: int) -> NewEvent:
    text = f"{MARK}{number} of it "
    return NewEvent(kind, {"content": text} if kind == "token" else {"turn_id": str(turn.turn_id), "value": text})


async def _measure(url: str, turns: int, load: Load) -> Measured:
    async def connect() -> AsyncConnection[Any]:
        return await AsyncConnection.connect(url, autocommit=True, prepare_threshold=5)

    timing = Timing()
    async with open_pool(url, max_size=10) as pool, Writer(connect, timing.committed) as writer:
        log = Log(pool)
        held = [await _held(log) for _ in range(turns)]
        await _connect(writer, held[0], timing)
        commits, cpu, began = writer.commits, time.process_time(), time.perf_counter()
        apart = (load.gap_seconds or 0.0) / turns  # people do not speak in step
        await asyncio.gather(
            *(_produce(writer, turn, load, began + n * apart, began + SECONDS, timing) for n, turn in enumerate(held))
        )
        took = time.perf_counter() - began
        cpu = time.process_time() - cpu
        committed = len(timing.lags_ms)
        return Measured(
            committed / took,
            median(timing.lags_ms),
            quantiles(timing.lags_ms, n=100)[-1],
            1e6 * cpu / committed,
            (writer.commits - commits) / took,
            timing.rows / took,
        )


def reached(load: Load, measured: Measured) -> bool:
    return measured.p99_ms <= AIM_P99_MS and (load.aim is None or measured.rows_a_second >= load.aim)


def run(console: Console) -> bool:
    """Prints the table; tells whether every row reaches its aims."""
    table = Table(
        "turns", "load", "emitted/s", "rows/s", "commits/s", "due → committed p50", "p99", "CPU an event", "aim", ""
    )
    all_met = True
    with temporary_folder() as folder, EmbeddedPostgres(folder / "home").running() as url:

        async def setup() -> None:
            async with open_pool(url, max_size=2) as pool:
                await EventLogSaver(pool).setup()

        asyncio.run(setup())
        tune_garbage_collection()
        for turns in (10, 100, 500):
            for load in loads(turns):
                runs = [uvloop.run(_measure(url, turns, load)) for _ in range(REPEATS)]
                middle = Measured(*(median(column) for column in zip(*runs, strict=True)))
                met = reached(load, middle)
                all_met = all_met and met
                table.add_row(
                    str(turns),
                    load.name,
                    f"{middle.emitted_a_second:,.0f}",
                    f"{middle.rows_a_second:,.0f}",
                    f"{middle.commits_a_second:,.0f}",
                    f"{middle.p50_ms:.2f} ms",
                    f"{middle.p99_ms:.2f} ms",
                    f"{middle.cpu_us:.1f} µs",
                    (f"{load.aim:,} rows/s, " if load.aim else "") + f"p99 {AIM_P99_MS:.0f} ms",
                    "met" if met else "missed",
                )
        with psycopg.connect(url) as connection:
            row = connection.execute("select version()").fetchone()
    console.print(f"Writer on {str(row and row[0]).split(' on ')[0]}, fsync on, median of {REPEATS} runs")
    console.print(table)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"peak memory of this process {peak_mb:.0f} MB")
    return all_met
