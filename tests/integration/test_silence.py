"""A proxy that acknowledges every byte and forwards none: nobody waits for ever behind it."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from psycopg import AsyncConnection

from functions.frames import encode
from functions.replica import open_replica
from functions.settings import Settings
from functions.worker import open_worker
from graph.eventlog.connection import Connection
from graph.eventlog.errors import DatabaseUnavailable
from graph.eventlog.hub import Frame
from graph.eventlog.sessions import Sessions
from tests.faults.relay import Relay, relaying
from tests.support.turns import OWNER, all_events, started
from tests.support.waiting import until

TAILS = Settings(notify="off", worker="off")
WAITING = "select query from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
SEEN_BEFORE = 20  # events, when the proxy falls silent


class Behind(NamedTuple):
    url: str
    relay: Relay


@pytest.fixture
async def behind(database_url: str) -> AsyncIterator[Behind]:
    server = urlsplit(database_url).netloc.rpartition("@")[2]
    async with relaying(server) as relay:
        yield Behind(database_url.replace(server, relay.address), relay)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.eventlog.connection.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("graph.eventlog.connection.CANCEL_SECONDS", 0.1)


async def test_a_turn_and_its_readers_elsewhere_go_on_over_other_connections(
    behind: Behind, log: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Settings.model_validate({"model": "scripted?tokens=100&delay_ms=10", "notify": "off"})
    async with open_replica(runs, behind.url, open_worker) as one, open_replica(TAILS, behind.url) as two:
        turn = await one.log.start(uuid4(), OWNER, "request", "What helps?")
        one.started(turn)
        with two.hub.watch(turn.session_id) as watch:
            reader = two.hub.reader(watch, turn.first_seq, turn.first_seq, active=True)
            seen: list[Frame] = []
            impatient(monkeypatch)  # what is under way when the proxy falls silent, too
            while len(seen) < SEEN_BEFORE:
                seen += await reader.next(10)
            assert not any(frame.ends for frame in seen)
            behind.relay.swallow()
            async with asyncio.timeout(10):
                while not seen[-1].ends:
                    seen += await reader.next(5)
    events = await all_events(log, turn.session_id, turn.first_seq)
    assert [frame.data for frame in seen] == [encode(event) for event in events]
    assert events[-1].type == "done"


async def test_a_statement_that_waits_for_a_lock_is_taken_back_from_the_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each that was given up would stay, and take one of the server's connections."""
    async with (
        open_replica(TAILS, database_url) as replica,
        await AsyncConnection.connect(database_url) as rival,
        await AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        candidate = await started(replica.log)
        await rival.execute("select 1 from turns where turn_id = %s for update", [candidate.turn_id])
        monkeypatch.setattr("graph.eventlog.connection.ANSWER_SECONDS", 0.3)
        with pytest.raises(DatabaseUnavailable):
            await replica.log.erase(candidate.session_id, OWNER)
        async with asyncio.timeout(10):  # longer than it is given up here it may not stay there
            while await (await observer.execute(WAITING)).fetchall():
                pass
        await rival.rollback()
        assert await replica.log.claim(candidate, "worker", 60, "worker_lost") is not None


async def test_a_cancel_that_comes_late_finds_no_later_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes over a connection of its own, and the statement may have its answer meanwhile."""

    async def is_under_way(connection: Connection, *, timeout: float) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("graph.eventlog.connection.ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(Connection, "cancel_safe", is_under_way)
    async with await Connection.connect(database_url, autocommit=True) as connection:
        late = await connection.execute("select 'late' from pg_sleep(0.3)")
        assert await late.fetchall() == [("late",)]
        assert connection.closed


@pytest.mark.direct  # notifications do not pass through PgBouncer
async def test_a_listener_finds_out_that_it_would_hear_nothing(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.eventlog.wakeups.LISTEN_AGAIN_SECONDS", 0.1)
    async with open_replica(Settings(notify="on", worker="off"), behind.url) as replica:
        await until(lambda: replica.direct)
        impatient(monkeypatch)
        behind.relay.swallow()
        await until(lambda: not replica.direct, "it goes on listening to nobody")
        await until(lambda: replica.direct)
