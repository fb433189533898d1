"""The writer under pressure: nothing is lost, and what one turn does to a batch harms no other turn."""

import asyncio
import tracemalloc
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from functions.replica import open_replica
from functions.settings import Settings
from functions.worker import Worker, open_worker
from graph.eventlog.connection import TRANSACTION_TIMEOUT_SINCE
from graph.eventlog.errors import Fenced
from graph.eventlog.events import Event, NewEvent
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import BUFFER_MAX_EVENTS, GATHER_EVENTS, AppendFailed, Writer
from tests.integration.test_log import backend_is_blocked
from tests.support.pgbouncer import PREPARE_THRESHOLD
from tests.support.turns import OWNER, all_events, done, holding, open_writer, token, until_events
from tests.support.waiting import until

FLOOD = 4000
TOKEN_BYTES = 2000
FLAT_BYTES = 2 * BUFFER_MAX_EVENTS * TOKEN_BYTES
NOTE = "insert into secrets (name, value) values (%s, '')"


def text_of(events: list[Event]) -> str:
    return "".join(getattr(event.parse(), "content", "") for event in events if event.type == "token")


@pytest.mark.usefixtures("patient")
async def test_a_turn_that_outruns_the_database_waits_at_its_append_and_memory_stays_flat(
    database_url: str, log: Sessions
) -> None:
    """The commit under way cannot go on; whoever has more to say than the buffer takes waits, and nothing is lost."""
    turn = await holding(log)
    words = [f"{n} ".ljust(TOKEN_BYTES, ".") for n in range(8)]
    said = 0

    async def flood(writer: Writer) -> None:
        nonlocal said
        for n in range(FLOOD):
            await writer.append(turn, token(words[n % 8] + ""))
            said += 1

    async with (
        await AsyncConnection.connect(database_url) as rival,
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url) as writer,
    ):
        await rival.execute("select 1 from turns where turn_id = %s for update", [turn.turn_id])
        await writer.append(turn, token("first "))
        await backend_is_blocked(observer, "insert into events")
        tracemalloc.start()
        flooding = asyncio.create_task(flood(writer))
        async with asyncio.timeout(10):
            while len(turn.pending) <= BUFFER_MAX_EVENTS:  # noqa: ASYNC110 the flood fills it
                await asyncio.sleep(0.005)
        await asyncio.wait((flooding,), timeout=0.1)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not flooding.done()
        assert said == BUFFER_MAX_EVENTS
        assert len(turn.pending) == BUFFER_MAX_EVENTS + 1
        assert held < FLAT_BYTES
        await rival.rollback()
        await flooding
        await writer.append(turn, done(turn, ""))
        await writer.flush(turn)
    assert said == FLOOD
    assert text_of(await all_events(log, turn.session_id)) == "first " + "".join(words[n % 8] for n in range(FLOOD))


async def test_a_batch_that_one_turn_poisons_is_sent_again_turn_by_turn(database_url: str, log: Sessions) -> None:
    """Its rows collide with rows that are there: the database refuses the statement of all turns."""
    one, poisoned, other, writes = [await holding(log) for _ in range(4)]
    poisoned.next_seq = 1
    batches: list[list[Event]] = []
    async with open_writer(database_url, batches.append) as writer:
        for turn in (one, poisoned, other):
            await writer.append(turn, token("Iron "), token("helps."))
        results = await asyncio.gather(
            *(writer.flush(turn) for turn in (one, poisoned, other)),
            writer.write(writes, [(NOTE, ("note",), False)]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), AppendFailed, type(None), type(None)]
        assert writer.commits == 5, "one flight for all, then one for each"
        with pytest.raises(AppendFailed):
            await writer.append(poisoned, token("more"))
        await writer.append(one, token(" Really."))
        await writer.flush(one)
    assert text_of(await all_events(log, one.session_id)) == "Iron helps. Really."
    assert text_of(await all_events(log, other.session_id)) == "Iron helps."
    assert [event.type for event in await all_events(log, poisoned.session_id)] == ["turn_started"]
    assert poisoned.turn_id not in {event.turn_id for batch in batches for event in batch}
    async with log.pool.connection() as connection:
        found = await connection.execute("select count(*) as n from secrets where name = 'note'")
        assert await found.fetchone() == {"n": 1}


NO_ROOM = "do $$ begin if not exists (select from secrets) then raise sqlstate '53100'; end if; end $$"
CANCEL = """select pg_cancel_backend(pid) from pg_stat_activity
 where wait_event_type = 'Lock' and query like '%insert into events%' and datname = current_database()"""


@pytest.mark.usefixtures("patient")
async def test_nothing_of_a_turn_lands_after_something_of_it_was_refused(database_url: str, log: Sessions) -> None:
    """Law 2: what it said while the refused batch was under way would leave a gap."""
    turn = await holding(log)
    async with (
        await AsyncConnection.connect(database_url) as rival,
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url) as writer,
    ):
        await rival.execute("select 1 from turns where turn_id = %s for update", [turn.turn_id])
        turn.next_seq = 1  # a row that is there
        await writer.append(turn, token("first "))
        await backend_is_blocked(observer, "insert into events")
        await writer.append(turn, token("second "))
        late = [
            asyncio.create_task(writer.flush(turn)),
            asyncio.create_task(writer.write(turn, [(NOTE, ("late",), False)])),
        ]
        await asyncio.sleep(0)
        await rival.rollback()
        results = await asyncio.gather(*late, return_exceptions=True)
        assert [type(result) for result in results] == [AppendFailed, AppendFailed]
        healthy = await holding(log)
        await writer.append(healthy, token("fine"))
        await writer.flush(healthy)
    assert [event.seq for event in await all_events(log, turn.session_id)] == [1]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("checkpoint", [False, True], ids=["events", "a checkpoint too"])
async def test_a_cancelled_statement_goes_again_before_anything_newer(
    database_url: str, log: Sessions, checkpoint: bool
) -> None:
    """A statement_timeout and an operator's pg_cancel_backend end the statement, not the connection."""
    turn = await holding(log)
    end = NewEvent("stage_complete", {"turn_id": str(turn.turn_id), "stage": "look", "duration_ms": 1}, task="task-1")
    async with (
        await AsyncConnection.connect(database_url) as rival,
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url) as writer,
    ):
        await rival.execute("select 1 from turns where turn_id = %s for update", [turn.turn_id])
        await writer.append(turn, token("first "), end)
        wrote = writer.hand_in(
            turn, [(NOTE, ("note",), False)] if checkpoint else [("select 1", None, False)], "task-1"
        )
        await backend_is_blocked(observer, "insert into events")
        await writer.append(turn, token("second "))
        commits = writer.commits
        await observer.execute(CANCEL)
        await until(lambda: writer.commits > commits)
        await rival.rollback()
        await wrote
        await writer.flush(turn)
        kinds = [(event.seq, event.type) for event in await all_events(log, turn.session_id)]
        notes = await (await observer.execute("select count(*) from secrets")).fetchone()
    assert kinds == [(1, "turn_started"), (2, "token"), (3, "stage_complete"), (4, "token")]
    assert notes == (int(checkpoint),)


@pytest.mark.parametrize("bound", ["by the flight's own limit", "by the role's statement_timeout"])
async def test_what_takes_too_long_each_time_fails_for_its_turn_and_is_not_tried_for_ever(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Else its turn would never end, and all others wait for it again and again."""
    monkeypatch.setattr("graph.eventlog.writer.FLIGHT_TIMEOUT_MS", 100)
    monkeypatch.setattr("graph.eventlog.writer.OVERLONG_TIMES", 3)
    slow, healthy = await holding(log), await holding(log)
    timeout = "set local statement_timeout = 50" if bound.startswith("by the role") else "select 1"
    async with (
        await AsyncConnection.connect(database_url) as connection,
        open_writer(database_url) as writer,
    ):
        if not bound.startswith("by the role") and connection.info.server_version < TRANSACTION_TIMEOUT_SINCE:
            pytest.skip("NOT TESTED: this Postgres bounds no transaction")
        await writer.append(slow, token("first "))
        wrote = writer.hand_in(slow, [(timeout, None, False), ("select pg_sleep(0.4)", None, False)])
        async with asyncio.timeout(20):
            while not wrote.done():
                await writer.append(healthy, token("fine "))
                await writer.flush(healthy)
            with pytest.raises(psycopg.Error):
                await wrote
            await writer.append(slow, token("second "))
            await writer.flush(slow)
    assert text_of(await all_events(log, slow.session_id)) == "first second "
    assert text_of(await all_events(log, healthy.session_id)).startswith("fine fine ")


async def test_who_waits_at_the_buffers_end_waits_while_nothing_of_it_can_be_committed(
    database_url: str, log: Sessions
) -> None:
    """A stage's end waits for its writes, and all behind it: that this turn was looked at is no commit."""
    turn = await holding(log)
    end = NewEvent("stage_complete", {"turn_id": str(turn.turn_id), "stage": "look", "duration_ms": 1}, task="task-1")
    async with open_writer(database_url) as writer:
        await writer.append(turn, end)
        waiting = asyncio.create_task(writer.append(turn, *[token("a")] * (BUFFER_MAX_EVENTS + 1)))
        for _ in range(50):  # it is looked at meanwhile, and its writes may still come
            writer._touch(turn)
            await asyncio.sleep(0)
        assert not waiting.done() or not turn.pending
        await waiting
        assert not turn.pending


async def test_a_full_disk_only_delays_and_holds_no_other_turn_up(database_url: str, log: Sessions) -> None:
    """What comes with the checkpoint waits with it; nothing is dropped."""
    waiting, healthy = await holding(log), await holding(log)
    async with (
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url) as writer,
    ):
        await writer.append(waiting, token("first "))
        wrote = writer.hand_in(waiting, [(NO_ROOM, None, False)])
        await until(lambda: waiting.again is not None)
        await writer.append(waiting, token("second "))
        assert text_of(await all_events(log, waiting.session_id)) == ""
        async with asyncio.timeout(5):
            for word in ("fine", " and", " well"):
                await writer.append(healthy, token(word))
                await writer.flush(healthy)
        assert not wrote.done()
        await observer.execute(NOTE, ["room"])
        await wrote
        await writer.flush(waiting)
    assert text_of(await all_events(log, waiting.session_id)) == "first second "


@pytest.mark.parametrize("checkpoint", [False, True], ids=["events", "a checkpoint too"])
async def test_a_turn_whose_row_somebody_holds_holds_no_other_turn_up(
    database_url: str, log: Sessions, checkpoint: bool
) -> None:
    """A process that was frozen in the middle of an erasure, or a person with psql."""
    locked, healthy = await holding(log), await holding(log)
    async with await AsyncConnection.connect(database_url) as rival, open_writer(database_url) as writer:
        await rival.execute("select 1 from turns where turn_id = %s for update", [locked.turn_id])
        wrote = writer.hand_in(locked, [(NOTE, ("note",), False)]) if checkpoint else None
        async with asyncio.timeout(8):
            for word in ("fine", " and", " well"):
                await writer.append(locked, token(word))
                await writer.append(healthy, token(word))
                await writer.flush(healthy)
        assert text_of(await all_events(log, healthy.session_id)) == "fine and well"
        await rival.rollback()
        await writer.flush(locked)
        assert wrote is None or wrote.done()
    assert text_of(await all_events(log, locked.session_id)) == "fine and well"


async def test_many_turns_whose_rows_somebody_holds_cost_the_others_one_wait(database_url: str, log: Sessions) -> None:
    """However often they are tried again, no append waits for them."""
    locked, healthy = [await holding(log) for _ in range(12)], await holding(log)
    async with await AsyncConnection.connect(database_url) as rival, open_writer(database_url) as writer:
        rows = [turn.turn_id for turn in locked]
        await rival.execute("select 1 from turns where turn_id = any(%s) for update", [rows])
        for turn in locked:
            await writer.append(turn, token("late"))
        said = 0
        while any(turn.refusals < 3 for turn in locked):
            await writer.append(healthy, token("fine "))
            await writer.flush(healthy)
            said += 1
        assert writer.commits == 1 + said, "the one that waited, and those of the healthy turn alone"
        await rival.rollback()
        for turn in locked:
            await writer.flush(turn)
    for turn in locked:
        assert text_of(await all_events(log, turn.session_id)) == "late"
    assert text_of(await all_events(log, healthy.session_id)) == "fine " * said


async def test_a_turn_that_is_erased_by_who_held_its_row_is_told_so(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.eventlog.writer.LOCK_PATIENCE", "20ms")
    turn = await holding(log)
    async with await AsyncConnection.connect(database_url) as rival, open_writer(database_url) as writer:
        await rival.execute("delete from turns where turn_id = %s", [turn.turn_id])
        await writer.append(turn, token("late"))
        await until(lambda: turn.refusals > 1)
        await rival.commit()
        async with asyncio.timeout(10):
            with pytest.raises(Fenced):
                await writer.flush(turn)


@pytest.mark.direct  # behind PgBouncer what a session sets stays with the server's connection, whoever gets that
async def test_a_server_that_only_reads_now_is_left_for_another(database_url: str, log: Sessions) -> None:
    """After a failover the old primary still answers; a new connection leads to the new one."""
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("first "))
        await writer.flush(turn)
        old = writer._connection
        assert old is not None
        await old.execute("set default_transaction_read_only = on")
        await writer.append(turn, token("second "))
        await writer.flush(turn)
        assert writer._connection is not old
    assert text_of(await all_events(log, turn.session_id)) == "first second "


async def test_an_event_that_is_none_ends_its_turn_and_not_the_writer(database_url: str, log: Sessions) -> None:
    broken, healthy = await holding(log), await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(broken, NewEvent("token", {"text": "what the type does not have"}))
        await writer.append(healthy, token("fine"))
        await writer.flush(healthy)
        with pytest.raises(AppendFailed):
            await writer.flush(broken)


async def test_what_is_committed_counts_also_when_it_cannot_be_announced(
    database_url: str, log: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    turn = await holding(log)

    def announce(events: list[Event]) -> None:
        raise RuntimeError("no span")

    async with open_writer(database_url, announce) as writer:
        for word in ("first ", "second "):
            await writer.append(turn, token(word))
            await writer.flush(turn)
    assert text_of(await all_events(log, turn.session_id)) == "first second "
    assert "were not announced" in caplog.text


async def test_a_turn_whose_append_is_refused_for_good_ends_with_what_the_log_has(database_url: str) -> None:
    """Its reader hears so at once, not when the lease has run out three times."""
    settings = Settings.model_validate({"model": "scripted?tokens=400&delay_ms=5", "notify": "off"})
    async with open_replica(settings, database_url, open_worker) as replica:
        turn = await replica.log.start(uuid4(), OWNER, "request", "What helps?")
        replica.started(turn)
        with replica.hub.watch(turn.session_id) as watch:
            reader = replica.hub.reader(watch, 1, 0, active=True)
            seen = await reader.next(10)
            while not any(b"event: token" in frame.data for frame in seen):
                seen += await reader.next(10)
            assert isinstance(replica.worker, Worker)
            (lease,) = replica.worker.leases
            lease.turn.next_seq = 1
            async with asyncio.timeout(5):
                while not seen[-1].ends:
                    seen += await reader.next(5)
        events = await all_events(replica.log, turn.session_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1)) == [frame.seq for frame in seen]
    end = events[-1].parse()
    assert end.type == "error"
    assert (end.code, end.retryable, end.content) == ("graph_failed", True, text_of(events[:-1]))


async def test_the_last_words_of_a_connection_are_its_end_although_its_socket_is_still_open(
    database_url: str, log: Sessions
) -> None:
    """What a server says when it ends a connection can be read a moment before the end itself."""
    async with await AsyncConnection.connect(database_url, autocommit=True) as ending:
        with pytest.raises(psycopg.Error) as last_words:
            await ending.execute("select pg_terminate_backend(pg_backend_pid())")
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("first "))
        await writer.flush(turn)
        connection = writer._connection
        assert connection is not None
        assert await writer._lost_with(last_words.value)
        assert connection.closed
        await writer.append(turn, token("second "))
        await writer.flush(turn)
    assert text_of(await all_events(log, turn.session_id)) == "first second "


async def test_what_comes_soon_after_a_commit_shares_the_next_one_unless_somebody_waits(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.eventlog.writer.GATHER_SECONDS", 60)
    first, second = await holding(log), await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(first, token("a lone token "))
        await until_events(log, first.session_id, 2)
        assert writer.commits == 1
        for turn in (first, second, first, second):
            await writer.append(turn, token("one of a crowd "))
            await asyncio.sleep(0.01)  # time in which it could commit alone
        assert writer.commits == 1
        await writer.flush(second)
        assert writer.commits == 2
    assert [event.type for event in await all_events(log, first.session_id)] == ["turn_started", "token", "token"]


async def test_who_can_wait_goes_with_what_others_have_and_alone_at_once(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a turn's end does."""
    monkeypatch.setattr("graph.eventlog.writer.GATHER_SECONDS", 60)
    first, second = await holding(log), await holding(log)
    async with open_writer(database_url) as writer:
        for n in (1, 2):
            await writer.append(first, token("a lone token "))
            async with asyncio.timeout(10):
                await writer.flush(first, at_once=False)
            assert writer.commits == n
        await writer.append(second, token("another's "))
        await writer.append(first, token("the last "))
        waiting = asyncio.create_task(writer.flush(first, at_once=False))
        await asyncio.sleep(0.05)  # time in which it could commit alone
        assert (waiting.done(), writer.commits) == (False, 2)
        await writer.flush(second)
        await waiting
        assert writer.commits == 3


async def test_a_crowd_that_is_large_enough_waits_for_nobody_more(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.eventlog.writer.GATHER_SECONDS", 60)
    first, second = await holding(log), await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(first, token("a lone token "))
        await until_events(log, first.session_id, 2)
        for _ in range(GATHER_EVENTS // 2):
            await writer.append(first, token("one of many "))
            await writer.append(second, token("one of many "))
        await until_events(log, second.session_id, 2)
        await until_events(log, first.session_id, 3)
        assert writer.commits == 2
