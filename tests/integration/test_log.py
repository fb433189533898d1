"""The laws of the log, each attacked on a real Postgres. The numbers are DESIGN.md's."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncCursor

from graph.eventlog.connection import TRANSACTION_TIMEOUT_SINCE
from graph.eventlog.errors import (
    DatabaseUnavailable,
    Fenced,
    NotTheLastTurn,
    SessionBusy,
    SessionNotFound,
    TurnNotFound,
)
from graph.eventlog.events import ENDS, Event
from graph.eventlog.log import Candidate, Claim, Claimant, Renewal, renew
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.sessions import Sessions
from graph.eventlog.snapshot import fold
from graph.eventlog.writer import HeldTurn, Statement, Writer
from tests.support.pgbouncer import PREPARE_THRESHOLD
from tests.support.turns import OWNER, all_events, done, held, holding, open_writer, started, token


async def backend_is_blocked(connection: AsyncConnection[object], marker: str) -> None:
    """Returns once a statement with this text waits for a lock: no sleep and hope."""
    async with asyncio.timeout(10):
        while True:
            waiting = await connection.execute(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like %s"
                " and datname = current_database()",
                [f"%{marker}%"],
            )
            if await waiting.fetchone():
                return


async def refused(writer: Writer, turn: HeldTurn) -> None:
    """An append of a turn that was taken away: refused when it is handed in, or when it is committed."""

    async def append() -> None:
        await writer.append(turn, token(" and more"))
        await writer.flush(turn)

    with pytest.raises(Fenced):
        await append()


async def test_law_1_rows_are_announced_only_after_their_commit(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    seen: list[bool] = []

    def announced(events: list[Event]) -> None:
        with psycopg.connect(database_url) as other:
            rows = other.execute("select seq from events where session_id = %s", [turn.session_id]).fetchall()
        seen.append({event.seq for event in events} <= {row[0] for row in rows})

    async with open_writer(database_url, announced) as writer:
        await writer.append(turn, token("Iron "))
        await writer.flush(turn)
        await writer.append(turn, token("helps."), done(turn, "Iron helps."))
        await writer.flush(turn)
    assert seen == [True, True]


@pytest.mark.usefixtures("patient")
async def test_law_1_a_row_whose_commit_waits_is_not_announced(database_url: str, log: Sessions, pool: object) -> None:
    turn = await holding(log)
    seen: list[Event] = []
    async with (
        await AsyncConnection.connect(database_url) as rival,
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url, seen.extend) as writer,
    ):
        await rival.execute("select 1 from turns where turn_id = %s for update", [turn.turn_id])
        await writer.append(turn, token("Iron "))
        await backend_is_blocked(observer, "insert into events")
        assert seen == []
        await rival.rollback()
        await writer.flush(turn)
        assert [event.type for event in seen] == ["token"]


async def test_law_2_seqs_of_a_session_are_consecutive_over_many_turns(database_url: str, log: Sessions) -> None:
    session_id = uuid4()
    async with open_writer(database_url) as writer:
        for n in range(5):
            turn = await held(log, await started(log, session_id, f"question {n}"))
            for piece in range(20):
                await writer.append(turn, token(f"{piece} "))
                if piece % 7 == 0:
                    await writer.flush(turn)
            await writer.append(turn, done(turn, "".join(f"{piece} " for piece in range(20))))
            await writer.flush(turn)
    events = await all_events(log, session_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(event.type == "done" for event in events) == 5


async def test_law_3_a_stale_attempt_writes_nothing_and_learns_it(database_url: str, log: Sessions) -> None:
    candidate = await started(log)
    stale = await held(log, candidate, lease_seconds=0)
    taken = await held(log, Candidate(stale.session_id, stale.turn_id, attempt=stale.attempt))
    fenced: list[str] = []
    stale.on_refused = lambda: fenced.append("told")
    async with open_writer(database_url) as writer:
        await writer.append(taken, token("mine"))
        await writer.append(stale, token("stale"))
        with pytest.raises(Fenced):
            await writer.flush(stale)
        await writer.flush(taken)
        with pytest.raises(Fenced):
            await writer.append(stale, token("again"))
    assert fenced == ["told"]
    events = await all_events(log, stale.session_id)
    assert [(event.type, event.attempt) for event in events] == [("turn_started", 0), ("reset", 2), ("token", 2)]


@pytest.mark.usefixtures("patient")
async def test_law_3_a_statement_that_began_before_the_take_over_writes_nothing(
    database_url: str, log: Sessions
) -> None:
    """The take-over is uncommitted while the stale INSERT already waits for the turn's row."""
    stale = await holding(log, lease_seconds=0)
    async with (
        await AsyncConnection.connect(database_url) as taker,
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url) as writer,
    ):
        await taker.execute("update turns set attempt = attempt + 1 where turn_id = %s", [stale.turn_id])
        await writer.append(stale, token("stale"))
        await backend_is_blocked(observer, "insert into events")
        await taker.commit()
        with pytest.raises(Fenced):
            await writer.flush(stale)
    assert [event.type for event in await all_events(log, stale.session_id)] == ["turn_started"]


async def test_law_3_a_stale_checkpoint_is_refused_and_harms_no_other_turn(database_url: str, log: Sessions) -> None:
    stale, healthy = await holding(log, lease_seconds=0), await holding(log)
    await held(log, Candidate(stale.session_id, stale.turn_id, attempt=stale.attempt))
    note = "insert into secrets (name, value) values (%s, '')"
    async with (
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as observer,
        open_writer(database_url) as writer,
    ):
        results = await asyncio.gather(
            writer.write(stale, [(note, ("stale",), False)]),
            writer.write(healthy, [(note, ("healthy",), False)]),
            return_exceptions=True,
        )
        assert isinstance(results[0], Fenced)
        assert results[1] is None
        rows = await (await observer.execute("select name from secrets")).fetchall()
    assert rows == [("healthy",)]


async def test_law_4_a_second_end_is_refused_by_the_index(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, done(turn, ""))
        await writer.flush(turn)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(
            "insert into events (session_id, seq, turn_id, attempt, type, data) values (%s, 99, %s, 1, 'error', '{}')",
            [turn.session_id, turn.turn_id],
        )


async def test_law_4_cancel_racing_done_gives_one_end_and_says_which(database_url: str, log: Sessions) -> None:
    async with open_writer(database_url) as writer:
        for _ in range(30):
            turn = await holding(log)
            await writer.append(turn, token("Iron"), done(turn, "Iron"))
            flushed, ended = await asyncio.gather(
                writer.flush(turn),
                log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated"),
                return_exceptions=True,
            )
            ends = [event for event in await all_events(log, turn.session_id) if event.type in ENDS]
            assert len(ends) == 1
            assert not isinstance(ended, BaseException)
            assert (ended.status, ended.last_seq) == (ends[0].type, ends[0].seq)
            assert isinstance(flushed, Fenced) == (ends[0].type == "cancelled")


async def test_law_5_cancel_keeps_the_partial_answer_and_fences_the_worker(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("Iron "), token("is"))
        await writer.flush(turn)
        first = await log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated")
        again = await log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated")
        await refused(writer, turn)
    assert first == again
    assert first.status == "cancelled"
    end = (await all_events(log, turn.session_id))[-1].parse()
    assert (end.type, getattr(end, "content", None)) == ("cancelled", "Iron is")


async def test_law_5_a_cancel_keeps_nothing_of_an_attempt_that_was_taken_over(database_url: str, log: Sessions) -> None:
    stale = await holding(log, lease_seconds=0)
    async with open_writer(database_url) as writer:
        await writer.append(stale, token("begun "))
        await writer.flush(stale)
        taken = await held(log, Candidate(stale.session_id, stale.turn_id, attempt=stale.attempt))
        await writer.append(taken, token("begun anew"))
        await writer.flush(taken)
    await log.cancel(taken.session_id, OWNER, taken.turn_id, "user_initiated")
    assert getattr((await all_events(log, taken.session_id))[-1].parse(), "content", None) == "begun anew"


async def test_a_turn_that_was_handed_back_since_it_was_looked_at_is_not_lost(log: Sessions) -> None:
    turn = await holding(log, lease_seconds=0)
    (looked_at,) = await log.candidates(1)
    assert (looked_at.turn_id, looked_at.spent) == (turn.turn_id, 1)
    assert await log.hand_back(turn.session_id, turn.turn_id, turn.attempt)
    ended = await log.lose(looked_at, "worker_lost", "Nobody answers.", retryable=True)
    assert ended.status == "queued"


async def test_law_3_a_renewal_of_a_stale_attempt_renews_nothing(log: Sessions) -> None:
    stale = await holding(log, lease_seconds=0)
    taken = await held(log, Candidate(stale.session_id, stale.turn_id, attempt=stale.attempt))
    keys = [(turn.session_id, turn.turn_id, turn.attempt, 60.0) for turn in (stale, taken)]
    async with log.pool.connection() as connection:
        assert (await renew(connection, keys[:1])).kept == set()
        assert (await renew(connection, keys)).kept == {1}


async def test_a_lease_whose_row_somebody_holds_costs_no_other_lease(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.eventlog.log.RENEW_AGAIN_SECONDS", (0.01,))
    locked, healthy = await holding(log), await holding(log)
    keys = [(turn.session_id, turn.turn_id, turn.attempt, 60.0) for turn in (locked, healthy)]
    async with await AsyncConnection.connect(database_url) as rival, log.pool.connection() as connection:
        await rival.execute("select 1 from turns where turn_id = %s for update", [locked.turn_id])
        assert await renew(connection, keys) == Renewal(kept={1}, unknown={0})
        assert await log.claim(Candidate(locked.session_id, locked.turn_id, 1), "other", 60, "worker_lost") is None
        await rival.rollback()
        assert await renew(connection, keys) == Renewal(kept={0, 1}, unknown=set())


@pytest.mark.parametrize("doing", ["an erasure", "a claim", "a thread's deletion"])
async def test_a_process_that_is_frozen_in_a_transaction_does_not_hold_a_turn_for_long(
    database_url: str, log: Sessions, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    monkeypatch.setattr("graph.eventlog.connection.FROZEN_SECONDS", 0.8)
    turn = await holding(log)
    async with log.pool.connection() as connection:
        if doing == "a claim" and connection.info.server_version < TRANSACTION_TIMEOUT_SINCE:
            pytest.skip("only Postgres 17 and newer can end a transaction in mid-pipeline")

    def transaction() -> AbstractAsyncContextManager[AsyncConnection[Any] | AsyncCursor[Any]]:
        if doing == "a thread's deletion":
            return EventLogSaver(log.pool)._cursor(pipeline=True)
        return log._transaction(pipeline=doing == "a claim")

    async def freeze(writer: Writer) -> None:
        async with transaction() as connection:
            await connection.execute("select 1 from turns where turn_id = %s for update", [turn.turn_id])
            await writer.append(turn, token("fine"))
            async with asyncio.timeout(10):
                await writer.flush(turn)

    async with open_writer(database_url) as writer:
        with pytest.raises((DatabaseUnavailable, psycopg.Error)):
            await freeze(writer)
    assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "token"]


async def test_a_turn_s_end_and_its_last_checkpoint_commit_together(database_url: str, log: Sessions) -> None:
    """The guard before the checkpoint sees a turn that this very batch has ended, and takes it for held."""
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("Iron"), done(turn, "Iron"))
        wrote = writer.hand_in(turn, [("insert into secrets (name, value) values ('last', '')", None, False)])
        await writer.flush(turn)
        await wrote
        assert writer.commits == 1
    assert [event.type for event in await all_events(log, turn.session_id)] == ["turn_started", "token", "done"]
    async with log.pool.connection() as connection:
        found = await connection.execute("select name from secrets")
        assert await found.fetchall() == [{"name": "last"}]


async def test_law_5_cancel_needs_no_living_worker_and_wins_before_the_claim(log: Sessions) -> None:
    queued = await started(log)
    ended = await log.cancel(queued.session_id, OWNER, None, "user_initiated")
    assert (ended.status, ended.last_seq) == ("cancelled", 2)
    assert await log.claim(queued, "late", 6, "worker_lost") is None


async def test_law_5_a_cancel_with_an_id_never_hits_a_later_turn(log: Sessions) -> None:
    first = await started(log)
    await log.cancel(first.session_id, OWNER, first.turn_id, "user_initiated")
    later = await started(log, first.session_id)
    ended = await log.cancel(first.session_id, OWNER, first.turn_id, "user_initiated")
    assert ended.turn_id == first.turn_id
    assert (await log.gate(later.session_id, OWNER)).active
    with pytest.raises(TurnNotFound):
        await log.cancel(first.session_id, OWNER, uuid4(), "user_initiated")


async def test_law_8_the_snapshot_is_the_fold_of_the_log(database_url: str, log: Sessions) -> None:
    session_id = uuid4()
    async with open_writer(database_url) as writer:
        finished = await held(log, await started(log, session_id, "first"))
        await writer.append(finished, token("one"), done(finished, "one"))
        await writer.flush(finished)
        running = await held(log, await started(log, session_id, "second"))
        await writer.append(running, token("tw"))
        await writer.flush(running)
    snapshot = await log.snapshot(session_id, OWNER)
    assert snapshot == fold(session_id, await all_events(log, session_id), snapshot.title)
    assert [m.content for m in snapshot.messages] == ["first", "one", "second"]
    assert snapshot.turn is not None
    assert (snapshot.turn.content, snapshot.last_seq) == ("tw", 5)
    assert snapshot.title == "first"


async def test_the_same_request_is_the_same_turn_also_at_once(log: Sessions) -> None:
    session_id = uuid4()
    turns = await asyncio.gather(*(log.start(session_id, OWNER, "same", "Hello") for _ in range(8)))
    assert len({turn.turn_id for turn in turns}) == 1
    assert sum(turn.created for turn in turns) == 1
    assert len(await all_events(log, session_id)) == 1


async def test_a_second_turn_waits_for_the_first_to_end(log: Sessions) -> None:
    first = await started(log)
    with pytest.raises(SessionBusy):
        await started(log, first.session_id)
    assert len(await all_events(log, first.session_id)) == 1


async def test_a_start_claims_its_turn_as_a_claim_would(database_url: str, log: Sessions) -> None:
    """In its own transaction; also the second of a session, and one that replaces another."""
    session_id, claimant = uuid4(), Claimant("worker", 30, 0)

    def row(turn_id: UUID) -> tuple[Any, ...] | None:
        with psycopg.connect(database_url) as connection:
            return connection.execute(
                "select status, attempt, handed_back, worker, lease_until - now() between '5 s' and '30 s'"
                " from turns where turn_id = %s",
                [turn_id],
            ).fetchone()

    first = await log.start(session_id, OWNER, "one", "first", claimant=claimant)
    assert first.began is not None
    assert first.claim is not None
    assert first.claim.age_seconds > 0
    assert first.claim._replace(age_seconds=0) == Claim(session_id, first.turn_id, 1, 1, 2, 0, first.began.data)
    assert (first.status, row(first.turn_id)) == ("running", ("running", 1, 0, "worker", True))
    assert await log.claim(Candidate(session_id, first.turn_id), "another", 30, "") is None
    again = await log.start(session_id, OWNER, "one", "first", claimant=claimant)
    assert again == first._replace(began=None, claim=None)
    with pytest.raises(SessionBusy):
        await log.start(session_id, OWNER, "two", "second", claimant=claimant)
    assert row(first.turn_id) == ("running", 1, 0, "worker", True)
    async with open_writer(database_url) as writer:
        turn = HeldTurn(session_id, first.turn_id, 1, 2)
        await writer.append(turn, done(turn, "one"))
        await writer.flush(turn)
    second = await log.start(session_id, OWNER, "two", "second", first.turn_id, claimant=claimant)
    assert second.claim is not None
    assert second.claim._replace(age_seconds=0) == Claim(session_id, second.turn_id, 1, 3, 4, 0)
    assert [event.type for event in await all_events(log, session_id)] == ["turn_started", "done", "turn_started"]


async def test_another_owner_finds_nothing(log: Sessions) -> None:
    turn = await started(log)
    stranger = "anonymous:stranger"
    for attempt in (
        log.start(turn.session_id, stranger, "r", "Hello"),
        log.cancel(turn.session_id, stranger, None, "user_initiated"),
        log.gate(turn.session_id, stranger),
        log.snapshot(turn.session_id, stranger),
        log.rename(turn.session_id, stranger, "mine"),
        log.erase(turn.session_id, stranger),
        log.judge(turn.session_id, stranger, turn.turn_id, 1, None),
    ):
        with pytest.raises(SessionNotFound):
            await attempt
    assert await log.page(stranger, "", None, 10) == []
    assert len(await all_events(log, turn.session_id)) == 1


async def test_only_the_last_turn_can_be_replaced_and_the_fold_leaves_it_out(database_url: str, log: Sessions) -> None:
    session_id = uuid4()
    async with open_writer(database_url) as writer:
        first = await held(log, await started(log, session_id, "first"))
        await writer.append(first, done(first, "one"))
        await writer.flush(first)
        second = await held(log, await started(log, session_id, "second"))
        await writer.append(second, done(second, "two"))
        await writer.flush(second)
    with pytest.raises(NotTheLastTurn):
        await log.start(session_id, OWNER, "edit-1", "first, edited", replaces=first.turn_id)
    await log.start(session_id, OWNER, "edit-2", "second, edited", replaces=second.turn_id)
    snapshot = await log.snapshot(session_id, OWNER)
    assert [m.content for m in snapshot.messages] == ["first", "one", "second, edited"]


async def test_erasure_leaves_no_row_and_the_id_is_never_used_again(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, token("secret"))
        await writer.flush(turn)
        await log.judge(turn.session_id, OWNER, turn.turn_id, 1, "good")
        await log.erase(turn.session_id, OWNER)
        await refused(writer, turn)
    assert await all_events(log, turn.session_id) == []
    with pytest.raises(SessionNotFound):
        await started(log, turn.session_id)


async def test_one_turn_that_cannot_be_stored_harms_no_other(database_url: str, log: Sessions) -> None:
    poisoned, healthy = await holding(log), await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(poisoned, token("\ud800 a lone surrogate"))
        await writer.append(healthy, token("fine"))
        await writer.flush(healthy)
        with pytest.raises(Exception, match="refused"):
            await writer.flush(poisoned)
    assert [event.type for event in await all_events(log, healthy.session_id)] == ["turn_started", "token"]
    ended = await log.cancel(poisoned.session_id, OWNER, None, "user_initiated")
    assert ended.status == "cancelled"


class Slowly(list[Statement]):
    """The server has its time to answer what it was sent before."""

    def __iter__(self) -> Iterator[Statement]:
        for statement in super().__iter__():
            yield statement
            time.sleep(0.1)


async def test_a_refusal_that_nobody_waits_for_any_more_is_no_error(
    log: Sessions, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With durability "async" nobody waits for a checkpoint. The refusal has come before the last statement is sent."""
    stale = await holding(log, lease_seconds=0)
    await held(log, Candidate(stale.session_id, stale.turn_id, attempt=stale.attempt))
    async with open_writer(database_url) as writer:
        for _ in range(2):
            writer.hand_in(stale, Slowly([("select 1", None, False)] * 3))
        with pytest.raises(Fenced):
            await writer.flush(stale)
    gc.collect()
    assert caplog.text == ""


async def test_a_failing_checkpoint_statement_fails_alone(database_url: str, log: Sessions) -> None:
    broken, healthy = await holding(log), await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(broken, token("kept"))
        results = await asyncio.gather(
            writer.write(broken, [("insert into no_such_table values (1)", None, False)]),
            writer.write(healthy, [("select 1", None, False)]),
            return_exceptions=True,
        )
        await writer.append(broken, token(" and more"))
        await writer.flush(broken)
    assert isinstance(results[0], Exception)
    assert results[1] is None
    kept = [event.parse() for event in await all_events(log, broken.session_id) if event.type == "token"]
    assert "".join(getattr(event, "content", "") for event in kept) == "kept and more"


async def test_an_append_whose_connection_is_cut_lands_once(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    async with (
        await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD) as killer,
        open_writer(database_url) as writer,
    ):
        for n in range(30):
            await writer.append(turn, token(f"{n} "))
            if n % 3 == 0:
                await killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where query like '%insert into events%'"
                    " and pid <> pg_backend_pid() and datname = current_database()"
                )
            await asyncio.sleep(0.002)
        await writer.flush(turn)
    events = await all_events(log, turn.session_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    text = "".join(getattr(event.parse(), "content", "") for event in events if event.type == "token")
    assert text == "".join(f"{n} " for n in range(30))


async def test_tokens_that_wait_together_become_one_event(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    async with open_writer(database_url) as writer:
        await writer.append(turn, *[token(f"{n} ") for n in range(50)])
        await writer.flush(turn)
    events = await all_events(log, turn.session_id)
    assert [event.type for event in events] == ["turn_started", "token"]


async def test_a_title_is_cut_between_words(log: Sessions) -> None:
    short, long, unbroken = "What helps?", "Why " + "oh why " * 20, "x" * 300
    titles = []
    for message in (short, long, unbroken):
        turn = await started(log, message=message)
        titles.append((await log.snapshot(turn.session_id, OWNER)).title)
    assert titles[0] == short
    assert titles[1].endswith((" oh…", " why…"))
    assert titles[2] == "x" * 79 + "…"


async def test_however_often_a_lost_attempt_is_excused_the_next_one_can_be_handed_back(
    log: Sessions,
) -> None:
    candidate = await started(log)
    session_id, turn_id = candidate.session_id, candidate.turn_id
    await held(log, candidate, lease_seconds=0)
    second = await held(log, candidate._replace(attempt=1, spent=1))
    for _ in range(3):
        assert not await log.hand_back(session_id, turn_id, 1)
    assert await log.hand_back(session_id, turn_id, second.attempt)
    assert [(found.attempt, found.spent) for found in await log.candidates(10)] == [(2, 0)]
