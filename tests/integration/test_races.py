"""Races of the log, each stopped at its worst moment: one is seen waiting in pg_stat_activity for its rival."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from psycopg import AsyncConnection

from graph.eventlog.connection import TRANSACTION_TIMEOUT_SINCE
from graph.eventlog.errors import Fenced, SessionNotFound
from graph.eventlog.log import CANCEL_LOCK_TIMEOUT_SECONDS, Candidate, renew
from graph.eventlog.saver import EventLogSaver, held_turn
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import HeldTurn, Statement, Writer
from tests.faults.relay import relaying
from tests.support.pgbouncer import PREPARE_THRESHOLD
from tests.support.turns import OWNER, all_events, done, held, holding, open_writer, started, token

pytestmark = pytest.mark.usefixtures("patient")
NEW_EVENT = """insert into events (session_id, seq, turn_id, attempt, type, data)
 select session_id, %s, turn_id, attempt, %s, %s from turns where turn_id = %s"""


class Rival:
    """A connection in a transaction of its own, and another that sees who waits for it."""

    def __init__(self, connection: AsyncConnection[Any], observer: AsyncConnection[Any]) -> None:
        self.connection, self._observer = connection, observer

    async def locks(self, turn: HeldTurn | Candidate) -> None:
        await self.connection.execute(
            "select 1 from turns where session_id = %s and turn_id = %s for no key update",
            [turn.session_id, turn.turn_id],
        )

    async def writes(self, turn: HeldTurn | Candidate, seq: int, kind: str, data: str) -> None:
        """What a worker's append would do, not committed yet."""
        await self.locks(turn)
        await self.connection.execute(NEW_EVENT, [seq, kind, data, turn.turn_id])

    async def sees_waiting(self, words: str, count: int = 1) -> None:
        await self.sees(f"wait_event_type = 'Lock' and query like '%{words}%'", count)

    async def sees(self, what: str, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while True:
                found = await self._observer.execute(
                    f"select count(*) from pg_stat_activity where {what} and datname = current_database()".encode()
                )
                row = await found.fetchone()
                if row and row[0] >= count:
                    return


@pytest.fixture
async def rival(database_url: str) -> AsyncIterator[Rival]:
    async with (
        await AsyncConnection.connect(database_url) as connection,
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
    ):
        yield Rival(connection, observer)


@asynccontextmanager
async def cuttable_writer(database_url: str) -> AsyncIterator[tuple[Writer, Any]]:
    address = urlsplit(database_url)
    async with relaying(f"{address.hostname}:{address.port}") as relay:
        through = database_url.replace(f"{address.hostname}:{address.port}", relay.address)
        async with open_writer(through) as writer:
            yield writer, relay


async def renewed(log: Sessions, turns: list[HeldTurn]) -> set[int]:
    async with log.pool.connection() as connection:
        keys = [(turn.session_id, turn.turn_id, turn.attempt, 30.0) for turn in turns]
        return (await renew(connection, keys)).kept


async def test_a_batch_sent_again_while_the_lost_one_is_still_under_way_lands_once(
    database_url: str, log: Sessions, rival: Rival
) -> None:
    """The client's connection breaks; the server's side does not know and commits later."""
    turn = await holding(log)
    async with cuttable_writer(database_url) as (writer, relay):
        await rival.locks(turn)
        await writer.append(turn, token("Iron "))
        flushing = asyncio.create_task(writer.flush(turn))
        await rival.sees_waiting("insert into events")
        relay.cut()
        await rival.sees_waiting("insert into events", count=2)
        await rival.connection.rollback()
        await flushing
        await writer.append(turn, token("helps."))
        await writer.flush(turn)
    events = await all_events(log, turn.session_id)
    assert [(event.seq, event.type) for event in events] == [(1, "turn_started"), (2, "token"), (3, "token")]


class Frozen(list[Statement]):
    """Statements of a process that stops between its append and its commit, until `thaw`."""

    def __init__(self) -> None:
        super().__init__([("select 1", None, False)])
        self.thaw = threading.Event()

    def __iter__(self) -> Iterator[Statement]:
        self.thaw.wait(20)
        return super().__iter__()


async def test_a_process_frozen_before_its_commit_does_not_keep_a_cancel_waiting(
    database_url: str, log: Sessions, rival: Rival
) -> None:
    """The connection lives, and nothing more comes: Postgres itself gives the turn's lock back."""
    async with log.pool.connection() as connection:
        if connection.info.server_version < TRANSACTION_TIMEOUT_SINCE:
            pytest.skip("only Postgres 17 and newer can end a transaction in mid-flight")
    turn, frozen = await holding(log), Frozen()

    async def other_process() -> None:
        async with open_writer(database_url) as writer:
            await writer.append(turn, token("Iron"))
            await writer.write(turn, frozen)

    frozen_process = asyncio.create_task(asyncio.to_thread(asyncio.run, other_process()))
    try:
        await rival.sees("wait_event = 'ClientRead' and state = 'active' and query like '%bool_and%'")
        began = time.monotonic()
        ended = await log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated")
        took = time.monotonic() - began
    finally:
        frozen.thaw.set()
    with pytest.raises(Fenced):
        await frozen_process
    assert (ended.status, ended.last_seq) == ("cancelled", 2)
    assert took < CANCEL_LOCK_TIMEOUT_SECONDS
    assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "cancelled"]


async def test_a_cancel_behind_an_uncommitted_append_keeps_its_words(log: Sessions, rival: Rival) -> None:
    turn = await holding(log)
    await rival.writes(turn, 2, "token", '{"content": "Iron"}')
    cancelling = asyncio.create_task(log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated"))
    await rival.sees_waiting("from turns")
    await rival.connection.commit()
    assert (await cancelling).last_seq == 3
    assert getattr((await all_events(log, turn.session_id))[-1].parse(), "content", None) == "Iron"


async def test_a_cancel_behind_an_uncommitted_end_finds_that_end(log: Sessions, rival: Rival) -> None:
    turn = await holding(log)
    end = f'{{"turn_id": "{turn.turn_id}", "message": {{"id": "a", "content": "Iron"}}}}'
    await rival.writes(turn, 2, "done", end)
    await rival.connection.execute(
        "update turns set status = 'done', lease_until = null, ended_at = now(), last_seq = 2 where turn_id = %s",
        [turn.turn_id],
    )
    cancelling = asyncio.create_task(log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated"))
    await rival.sees_waiting("from turns")
    starting = asyncio.create_task(started(log, turn.session_id))
    await rival.sees_waiting("insert into turns")
    await rival.connection.commit()
    ended = await cancelling
    assert (ended.status, ended.last_seq) == ("done", 2)
    await starting
    assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "done", "turn_started"]


async def test_a_take_over_behind_an_uncommitted_append_begins_after_it(log: Sessions, rival: Rival) -> None:
    stale = await holding(log, lease_seconds=0)
    await rival.writes(stale, 2, "token", '{"content": "Iron"}')
    taking = asyncio.create_task(held(log, Candidate(stale.session_id, stale.turn_id, attempt=stale.attempt)))
    await rival.sees_waiting("from turns")
    await rival.connection.commit()
    assert (await taking).next_seq == 4
    assert [event.type for event in await all_events(log, stale.session_id)] == ["turn_started", "token", "reset"]


async def test_a_checkpoint_that_began_before_the_take_over_is_refused(
    database_url: str, log: Sessions, rival: Rival
) -> None:
    """The zombie's statements wait for the turn's row already; nothing of them lands, healthy turns' do."""
    zombie, healthy = await holding(log, lease_seconds=0), await holding(log)
    async with open_writer(database_url) as writer:
        await rival.connection.execute("update turns set attempt = attempt + 1 where turn_id = %s", [zombie.turn_id])
        checkpointing = [asyncio.create_task(_run_graph(log, writer, turn)) for turn in (zombie, healthy)]
        await rival.sees_waiting("insert into events")
        await rival.connection.commit()
        refused, ran = await asyncio.gather(*checkpointing, return_exceptions=True)
    assert isinstance(refused, Fenced)
    assert ran is None
    counts = await _checkpoint_rows(log)
    assert str(zombie.session_id) not in counts
    assert counts[str(healthy.session_id)] > 2


async def _run_graph(log: Sessions, writer: Writer, turn: HeldTurn) -> None:
    async def answer(state: MessagesState) -> dict[str, Any]:
        await writer.append(turn, token("fine"))
        return {"messages": [AIMessage("fine", id="a")]}

    nodes = StateGraph(MessagesState).add_node("answer", answer)
    graph = nodes.add_edge(START, "answer").add_edge("answer", END).compile(EventLogSaver(log.pool, writer))
    held_turn.set(turn)
    question = MessagesState(messages=[HumanMessage("well?", id="q")])
    await graph.ainvoke(question, {"configurable": {"thread_id": str(turn.session_id)}}, durability="sync")
    await writer.flush(turn)


async def _checkpoint_rows(log: Sessions) -> dict[str, int]:
    counts: dict[str, int] = {}
    async with log.pool.connection() as connection:
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            found = await connection.execute(f"select thread_id, count(*) as n from {table} group by 1".encode())
            for row in await found.fetchall():
                counts[row["thread_id"]] = counts.get(row["thread_id"], 0) + row["n"]
    return counts


async def test_an_erasure_behind_an_uncommitted_append_takes_its_rows_along(log: Sessions, rival: Rival) -> None:
    turn = await holding(log)
    await rival.writes(turn, 2, "token", '{"content": "secret"}')
    erasing = asyncio.create_task(log.erase(turn.session_id, OWNER))
    await rival.sees_waiting("from turns")
    await rival.connection.commit()
    await erasing
    assert await all_events(log, turn.session_id) == []


async def test_an_append_start_cancel_or_judgement_behind_an_erasure_leaves_nothing(
    database_url: str, log: Sessions, rival: Rival
) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("secret"))
        await writer.flush(turn)
        for statement in (
            "update sessions set deleted_at = now(), title = '', owner = '' where session_id = %s",
            "delete from turns where session_id = %s",
            "delete from events where session_id = %s",
        ):
            await rival.connection.execute(statement, [turn.session_id])
        late = [
            asyncio.create_task(work)
            for work in (
                writer.flush(turn),
                log.start(turn.session_id, OWNER, str(uuid4()), "again"),
                log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated"),
                log.judge(turn.session_id, OWNER, turn.turn_id, 1, "secret"),
            )
        ]
        await writer.append(turn, token("more"))
        for words in ("insert into events", "insert into sessions", "from turns where", "insert into feedback"):
            await rival.sees_waiting(words)
        await rival.connection.commit()
        outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [True] * 4, outcomes
    assert isinstance(outcomes[1], SessionNotFound)
    assert isinstance(outcomes[3], SessionNotFound)
    await _nothing_is_left(log, turn)


async def test_an_erasure_behind_an_uncommitted_judgement_takes_it_along(log: Sessions, rival: Rival) -> None:
    turn = await holding(log)
    await rival.connection.execute(
        "insert into feedback (session_id, turn_id, value, comment) select t.session_id, t.turn_id, 1, 'secret'"
        " from turns t join sessions s using (session_id) where t.turn_id = %s for share of s",
        [turn.turn_id],
    )
    erasing = asyncio.create_task(log.erase(turn.session_id, OWNER))
    await rival.sees_waiting("update sessions")
    await rival.connection.commit()
    await erasing
    await _nothing_is_left(log, turn)


async def _nothing_is_left(log: Sessions, turn: HeldTurn) -> None:
    async with log.pool.connection() as connection:
        for table in ("turns", "events", "feedback"):
            found = await connection.execute(f"select * from {table} where session_id = %s".encode(), [turn.session_id])
            assert await found.fetchall() == [], table


async def test_two_processes_with_the_same_turns_in_opposite_order_do_not_deadlock(
    database_url: str, log: Sessions, rival: Rival
) -> None:
    """Every statement that locks turns takes them in the order of their keys."""
    turns = [await holding(log) for _ in range(2)]
    again = [HeldTurn(turn.session_id, turn.turn_id, turn.attempt, turn.next_seq + 1) for turn in turns]
    async with open_writer(database_url) as one, open_writer(database_url) as two:
        await rival.locks(min(turns, key=lambda turn: (turn.session_id, turn.turn_id)))
        for turn in turns:
            await one.append(turn, token("one"))
        for turn in reversed(again):
            await two.append(turn, token("two"))
        renewing = asyncio.create_task(renewed(log, turns[::-1]))
        await rival.sees_waiting("insert into events", count=2)
        await rival.connection.rollback()
        await asyncio.gather(*(one.flush(turn) for turn in turns), *(two.flush(turn) for turn in again))
        assert await renewing == {0, 1}
        assert one.commits == two.commits == 1, "nothing had to be sent again"
    for turn in turns:
        assert [event.seq for event in await all_events(log, turn.session_id)] == [1, 2, 3]


async def test_a_done_turn_that_is_not_over_keeps_the_next_one_waiting(
    database_url: str, log: Sessions, rival: Rival
) -> None:
    """A start waits for an end under way; when that is taken back, the session is busy."""
    turn = await holding(log)
    await rival.locks(turn)
    await rival.connection.execute(
        "update turns set status = 'done', lease_until = null, ended_at = now(), last_seq = 2 where turn_id = %s",
        [turn.turn_id],
    )
    starting = asyncio.create_task(started(log, turn.session_id))
    await rival.sees_waiting("insert into turns")
    await rival.connection.rollback()
    with pytest.raises(Exception, match="still answering"):
        await starting
    async with open_writer(database_url) as writer:
        await writer.append(turn, done(turn, ""))
        await writer.flush(turn)
    assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "done"]
