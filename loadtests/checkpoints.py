"""What it saves that checkpoints ride in the log's batches: supersteps/s, commits and CPU a turn.

Compares, in one run: LangGraph's own AsyncPostgresSaver on a pool, and EventLogSaver on the writer, with the same
graph, pool and Postgres; and EventLogSaver with the tokens that its turns emit meanwhile.
"""

import asyncio
import operator
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import uuid4

import psutil
import psycopg
import uvloop
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg import AsyncConnection
from rich.console import Console
from rich.table import Table

from functions.embedded_postgres import EmbeddedPostgres
from functions.serve import tune_garbage_collection
from graph.eventlog.events import NewEvent
from graph.eventlog.log import Candidate, Log, Pool, open_pool
from graph.eventlog.saver import EventLogSaver, held_turn
from graph.eventlog.writer import HeldTurn, Writer

SUPERSTEPS, TURNS_AT_ONCE, ROUNDS = 10, 20, 5
TOKENS_A_SUPERSTEP = 5
REPEATS = 3
OWNER = "anonymous:bench"
STATISTICS_SECONDS = 1.5  # a backend tells its commits at most once a second
STOCK, RIDING, WITH_TOKENS = "AsyncPostgresSaver", "EventLogSaver", f"the same, {TOKENS_A_SUPERSTEP} tokens a superstep"


class State(TypedDict):
    said: Annotated[list[str], operator.add]


class Measured(NamedTuple):
    supersteps_a_second: float
    commits_a_turn: float
    cpu_ms_a_turn: float
    postgres_ms_a_turn: float


class Runs:
    """`writer` None: nothing rides. Every turn is a session's first, so that all savers begin with nothing."""

    def __init__(self, saver: AsyncPostgresSaver, log: Log, writer: Writer | None, tokens: int) -> None:
        self._log, self._writer, self._tokens = log, writer, tokens
        nodes = StateGraph(State)
        names = [f"node_{n}" for n in range(SUPERSTEPS)]
        for name in names:
            nodes.add_node(name, self._node)
        for before, after in zip([START, *names], [*names, END], strict=True):
            nodes.add_edge(before, after)
        self._graph = nodes.compile(saver)

    async def _node(self, state: State) -> dict[str, Any]:
        turn = held_turn.get()
        if self._writer is not None and turn is not None:
            for _ in range(self._tokens):
                await self._writer.append(turn, NewEvent("token", {"content": "iron "}))
        return {"said": ["iron helps"]}

    async def held(self) -> HeldTurn:
        started = await self._log.start(uuid4(), OWNER, str(uuid4()), "bench")
        claim = await self._log.claim(Candidate(started.session_id, started.turn_id), "bench", 3600, "bench")
        assert claim is not None
        return HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)

    async def run(self, turn: HeldTurn) -> None:
        held_turn.set(turn if self._writer is not None else None)
        config: RunnableConfig = {"configurable": {"thread_id": str(turn.session_id)}}
        async for _ in self._graph.astream(State(said=[]), config, stream_mode="tasks", durability="async"):
            pass
        if self._writer is not None:
            await self._writer.flush(turn)


@asynccontextmanager
async def _open(url: str, pool: Pool, which: str) -> AsyncIterator[Runs]:
    async def connect() -> AsyncConnection[Any]:
        return await AsyncConnection.connect(url, autocommit=True, prepare_threshold=5)

    log = Log(pool)
    async with AsyncExitStack() as stack:
        if which == STOCK:
            yield Runs(AsyncPostgresSaver(pool), log, None, 0)
            return
        writer = await stack.enter_async_context(Writer(connect))
        yield Runs(EventLogSaver(pool, writer), log, writer, TOKENS_A_SUPERSTEP if which == WITH_TOKENS else 0)


async def _measure(url: str, which: str) -> Measured:
    async with open_pool(url, max_size=10, prepare=lambda: True) as pool, _open(url, pool, which) as runs:
        warm_up, *turns = [[await runs.held() for _ in range(TURNS_AT_ONCE)] for _ in range(1 + ROUNDS)]
        await asyncio.gather(*[runs.run(turn) for turn in warm_up])
        backends = _backends(url)
        await asyncio.sleep(STATISTICS_SECONDS)
        before, postgres, cpu, began = _commits(url), _cpu(backends), time.process_time(), time.perf_counter()
        for round_ in turns:
            await asyncio.gather(*(runs.run(turn) for turn in round_))
        took, cpu, postgres = time.perf_counter() - began, time.process_time() - cpu, _cpu(backends) - postgres
        await asyncio.sleep(STATISTICS_SECONDS)
        commits = _commits(url) - before
        count = ROUNDS * TURNS_AT_ONCE
        return Measured(count * SUPERSTEPS / took, commits / count, 1000 * cpu / count, 1000 * postgres / count)


def _commits(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select xact_commit from pg_stat_database where datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _backends(url: str) -> list[psutil.Process]:
    with psycopg.connect(url) as connection:
        pids = connection.execute("select pid from pg_stat_activity where pid <> pg_backend_pid()").fetchall()
    return [psutil.Process(pid) for (pid,) in pids]


def _cpu(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def run(console: Console) -> bool:
    """Prints the table; tells whether riding saves something."""
    table = Table("saver", "supersteps/s", "commits a turn", "CPU a turn", "Postgres CPU a turn")
    measured = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "home").running() as url:

        async def setup() -> None:
            async with open_pool(url, max_size=2) as pool:
                await EventLogSaver(pool).setup()

        asyncio.run(setup())
        tune_garbage_collection()
        for which in (STOCK, RIDING, WITH_TOKENS):
            runs = [uvloop.run(_measure(url, which)) for _ in range(REPEATS)]
            measured[which] = middle = Measured(*(median(column) for column in zip(*runs, strict=True)))
            table.add_row(
                which,
                f"{middle.supersteps_a_second:,.0f}",
                f"{middle.commits_a_turn:.1f}",
                f"{middle.cpu_ms_a_turn:.1f} ms",
                f"{middle.postgres_ms_a_turn:.1f} ms",
            )
    console.print(
        f"Turns of {SUPERSTEPS} supersteps, {TURNS_AT_ONCE} at once, durability async, median of {REPEATS} runs"
    )
    console.print(table)
    stock, riding = measured[STOCK], measured[RIDING]
    faster = riding.supersteps_a_second / stock.supersteps_a_second
    commits = riding.commits_a_turn / stock.commits_a_turn
    cpu = riding.cpu_ms_a_turn / stock.cpu_ms_a_turn
    console.print(
        f"riding / stock: supersteps/s {faster:.2f}   commits a turn {commits:.2f}   CPU a turn {cpu:.2f}"
        "   (kept while the first is above 1, the second below)"
    )
    return faster > 1 and commits < 1
