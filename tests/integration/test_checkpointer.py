"""EventLogSaver is a LangGraph checkpointer like its parent, and its writes of a held turn ride with the log."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import ProgressCallbacks
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from functions.replica import open_replica
from functions.settings import Settings
from functions.worker import open_worker
from graph.eventlog.errors import Fenced
from graph.eventlog.events import NewEvent
from graph.eventlog.log import Candidate, Log, Pool, open_pool
from graph.eventlog.migrate import migrate, migrations
from graph.eventlog.saver import EventLogSaver, held_turn
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import HeldTurn, Writer
from tests.conftest import _drop, _execute, _named
from tests.support.turns import OWNER, all_events, held, holding, open_writer, started, token, until_events
from tests.support.waiting import until
from tests.support.workshop import workshop


def _graph(saver: EventLogSaver) -> Any:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("fine", id="a")]}

    return (
        StateGraph(MessagesState)
        .add_node("answer", answer)
        .add_edge(START, "answer")
        .add_edge("answer", END)
        .compile(checkpointer=saver)
    )


class HoldingSaver(EventLogSaver):
    """Every thread is the session of a held turn, so that what is put goes through the writer."""

    def __init__(self, log: Sessions, writer: Writer) -> None:
        super().__init__(log.pool, writer)
        self._log = log
        self.held: dict[str, HeldTurn] = {}

    def _turn_of(self, config: RunnableConfig) -> HeldTurn | None:
        return self.held.get(config["configurable"]["thread_id"])

    async def _hold(self, config: RunnableConfig) -> None:
        thread_id = config["configurable"]["thread_id"]
        if thread_id not in self.held:
            self.held[thread_id] = await held(self._log, await started(self._log, UUID(thread_id)))

    async def aput(self, config: RunnableConfig, *rest: Any, **named: Any) -> RunnableConfig:
        await self._hold(config)
        return await super().aput(config, *rest, **named)

    async def aput_writes(self, config: RunnableConfig, *rest: Any, **named: Any) -> None:
        await self._hold(config)
        await super().aput_writes(config, *rest, **named)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("through_the_writer", [False, True], ids=["by itself", "through the writer"])
async def test_the_checkpointer_conformance_suite_passes(
    database_url: str, log: Sessions, through_the_writer: bool
) -> None:
    async with open_writer(database_url) as writer:

        @checkpointer_test(name="EventLogSaver")
        async def saver() -> AsyncIterator[EventLogSaver]:
            yield HoldingSaver(log, writer) if through_the_writer else EventLogSaver(log.pool)

        report = await validate(saver, progress=ProgressCallbacks.quiet())
        assert report.passed_all_base(), report.to_dict()
        assert report.passed_all(), report.to_dict()
        assert (writer.commits > 50) == through_the_writer


async def test_a_held_turns_checkpoints_commit_through_the_writer(database_url: str, log: Sessions, pool: Pool) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        graph = _graph(EventLogSaver(pool, writer))
        held_turn.set(turn)
        config = {"configurable": {"thread_id": str(turn.session_id)}}
        await graph.ainvoke({"messages": [HumanMessage("well?", id="q")]}, config, durability="async")
        assert writer.commits > 0
        state = await graph.aget_state(config)
    assert [m.content for m in state.values["messages"]] == ["well?", "fine"]


async def test_a_fenced_turns_checkpoints_are_refused(database_url: str, log: Sessions, pool: Pool) -> None:
    turn = await holding(log, lease_seconds=0)
    await held(log, Candidate(turn.session_id, turn.turn_id, attempt=turn.attempt))
    async with open_writer(database_url) as writer:
        graph = _graph(EventLogSaver(pool, writer))
        held_turn.set(turn)
        config = {"configurable": {"thread_id": str(turn.session_id)}}
        with pytest.raises(Fenced):
            await graph.ainvoke({"messages": [HumanMessage("well?", id="q")]}, config, durability="sync")
        held_turn.set(None)
        assert (await graph.aget_state(config)).values == {}


async def test_erasing_a_session_erases_its_checkpoints(database_url: str, log: Sessions, pool: Pool) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        graph = _graph(EventLogSaver(pool, writer))
        held_turn.set(turn)
        config = {"configurable": {"thread_id": str(turn.session_id)}}
        await graph.ainvoke({"messages": [HumanMessage("well?", id="q")]}, config)
        held_turn.set(None)
    await log.erase(turn.session_id, OWNER)
    async with pool.connection() as connection:
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            cursor = await connection.execute(f"select count(*) as n from {table}".encode())
            row = await cursor.fetchone()
            assert row is not None
            assert row["n"] == 0, table


@pytest.fixture
def fresh_url(cluster_url: str) -> Iterator[str]:
    """Without a table."""
    name = f"fresh_{uuid4().hex[:8]}"
    _execute(cluster_url, f"create database {name}")
    yield _named(cluster_url, name)
    _drop(cluster_url, name)


async def test_setup_from_many_processes_at_once_is_safe(fresh_url: str) -> None:
    async with open_pool(fresh_url, max_size=6) as fresh:
        await asyncio.gather(*(EventLogSaver(fresh).setup() for _ in range(4)))
        await EventLogSaver(fresh).setup()
        assert await Sessions(fresh).candidates(1) == []


async def test_while_langgraphs_tables_are_made_no_table_is_locked_and_the_server_waits(fresh_url: str) -> None:
    """A CREATE INDEX CONCURRENTLY takes long, and waits for every transaction, those that wait for a table of ours too;
    a server such as infra/postgres has it ends transactions in which nothing happens."""
    database = fresh_url.partition("?")[0].rpartition("/")[2]
    _execute(fresh_url, f"alter database {database} set idle_in_transaction_session_timeout = '1s'")
    waiting = (
        "select now() - state_change > interval '1.2 s', array(select mode from pg_locks as held where held.pid = "
        "pg_locks.pid and locktype = 'relation') from pg_locks join pg_stat_activity using (pid) "
        "where locktype = 'advisory' and datname = current_database()"
    )
    held: list[list[str]] = []

    async def checkpointer() -> None:
        with psycopg.connect(fresh_url, autocommit=True) as connection:

            def long() -> bool:
                row = connection.execute(waiting).fetchone()
                assert row is not None, "its transaction was ended"
                held.append(row[1])
                return bool(row[0])

            await until(long)

    assert len(await migrate(fresh_url, checkpointer, 0)) == len(migrations())
    assert max(held, key=len) == []


async def test_a_stages_end_commits_with_the_writes_of_its_task(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.eventlog.writer.WAIT_FOR_WRITES_SECONDS", 60)
    turn = await holding(log)
    end = NewEvent("stage_complete", {"turn_id": str(turn.turn_id), "stage": "look", "duration_ms": 1}, task="task-1")
    later = NewEvent("stage_start", {"turn_id": str(turn.turn_id), "stage": "next"})
    note = ("insert into secrets (name, value) values ('writes', '')", None, False)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("before "), end, later)
        await until_events(log, turn.session_id, 2)
        assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "token"]
        await writer.write(turn, [note], "task-1")
        await writer.flush(turn)
    async with log.pool.connection() as connection:
        cursor = await connection.execute("select xmin::text from events where type = 'stage_complete'")
        event_xmin = await cursor.fetchone()
        cursor = await connection.execute("select xmin::text from secrets where name = 'writes'")
        assert event_xmin == await cursor.fetchone()
    assert [e.type for e in await all_events(log, turn.session_id)][-2:] == ["stage_complete", "stage_start"]


async def test_a_task_that_wrote_nothing_holds_no_event_back(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    end = NewEvent("stage_complete", {"turn_id": str(turn.turn_id), "stage": "look", "duration_ms": 1}, task="task-1")
    async with open_writer(database_url) as writer:
        await writer.append(turn, end)
        await until_events(log, turn.session_id, 2)


async def test_each_stages_end_of_a_real_turn_stands_in_the_transaction_of_its_checkpoint(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.eventlog.writer.WAIT_FOR_WRITES_SECONDS", 60)
    settings = Settings.model_validate({"model": "scripted?tokens=20&delay_ms=1", "notify": "off"})
    async with open_replica(settings, database_url, open_worker) as replica:
        turn = await replica.log.start(uuid4(), OWNER, "request", "What helps?")
        replica.started(turn)
        with replica.hub.watch(turn.session_id) as watch:
            reader = replica.hub.reader(watch, 1, 0, active=True)
            async with asyncio.timeout(30):
                while not any(frame.ends for frame in await reader.next(30)):
                    pass
        async with replica.log.pool.connection() as connection:
            found = await connection.execute(
                "select type, xmin::text in (select w.xmin::text from checkpoint_writes w where thread_id = %s) as rode"
                " from events where session_id = %s and type like %s order by seq",
                [str(turn.session_id), turn.session_id, "%complete"],
            )
            ends = [(row["type"], row["rode"]) for row in await found.fetchall()]
    assert ends == [("retrieval_complete", True), ("reranking_complete", True)]


async def test_a_held_turn_leaves_the_rows_that_langgraphs_own_saver_leaves(
    database_url: str, log: Sessions, pool: Pool
) -> None:
    """Though the rows of a batch go in one statement for each table."""
    question = {"messages": [HumanMessage("well?", id="q")]}
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        own = {"configurable": {"thread_id": "stock"}}
        await _graph(EventLogSaver(pool)).ainvoke(question, own, durability="async")
        held_turn.set(turn)
        riding = {"configurable": {"thread_id": str(turn.session_id)}}
        await _graph(EventLogSaver(pool, writer)).ainvoke(question, riding, durability="async")
        await writer.flush(turn)
    rows = {thread: await _rows(pool, thread) for thread in ("stock", str(turn.session_id))}
    assert rows["stock"] == rows[str(turn.session_id)]
    assert all(rows["stock"])


async def test_a_sessions_first_turn_reads_neither_its_log_nor_a_checkpoint(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its question came with the claim, its end from the stream. The next turn reads both."""
    read: set[str] = set()

    def noting(kind: type[Any], name: str) -> None:
        method = getattr(kind, name)

        async def noted(self: Any, *arguments: Any) -> Any:
            read.add(name)
            return await method(self, *arguments)

        monkeypatch.setattr(kind, name, noted)

    noting(Log, "events")
    noting(AsyncPostgresSaver, "aget_tuple")
    async with workshop(database_url) as shop:
        turn = await shop.ask()
        assert (await shop.ended(turn))[-1].type == "done"
        assert read == set()
        await shop.ended(await shop.ask(session_id=turn.session_id))
    assert read == {"events", "aget_tuple"}


async def _rows(pool: Pool, thread_id: str) -> list[list[Any]]:
    """Of the three tables, without what is made anew in every run: ids of checkpoints and tasks, times."""
    found = []
    async with pool.connection() as connection:
        for statement in (
            "select metadata, parent_checkpoint_id is null as first, checkpoint -> 'channel_values' as values"
            " from checkpoints where thread_id = %s order by checkpoint_id",
            "select channel, split_part(version, '.', 1) as version, type, blob from checkpoint_blobs"
            " where thread_id = %s order by channel, version",
            "select idx, channel, type, blob, task_path from checkpoint_writes"
            " where thread_id = %s order by checkpoint_id, task_path, idx",
        ):
            cursor = await connection.execute(statement.encode(), [thread_id])
            found.append([tuple(row.values()) for row in await cursor.fetchall()])
    return found
