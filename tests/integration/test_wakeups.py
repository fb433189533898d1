"""Wake-ups between replicas: hints that may be lost. Whether they arrive at all is found out, not assumed (law 6)."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import AsyncConnection

from functions.replica import POLL_SECONDS_ALONE, POLL_SECONDS_WITH_NOTIFY, Replica, open_replica
from functions.settings import Settings
from graph.eventlog import wakeups as wakeups_module
from graph.eventlog.events import Event, GenerationStart, new_event
from graph.eventlog.log import Candidate, Claimant, Turn
from graph.eventlog.wakeups import Wakeups
from tests.support.turns import OWNER, held, open_writer, started, token
from tests.support.waiting import until

pytestmark = pytest.mark.direct  # notifications do not pass through PgBouncer


@pytest.fixture
async def killer(database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def kill_listeners(killer: AsyncConnection[Any]) -> int:
    found = await killer.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen pulseline'"
        " and datname = current_database()"
    )
    return len(await found.fetchall())


class Ears:
    """What one process's wake-ups heard."""

    def __init__(self, database_url: str) -> None:
        async def connect() -> AsyncConnection[Any]:
            return await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=None)

        self.grown: list[UUID] = []
        self.queued: list[UUID] = []
        self.changes: list[bool] = []
        self.wakeups = Wakeups(connect, self._heard, self.changes.append)

    def _heard(self, grown: list[UUID], queued: list[UUID]) -> None:
        self.grown += grown
        self.queued += queued


@asynccontextmanager
async def two_processes(database_url: str) -> AsyncIterator[tuple[Ears, Ears]]:
    one, two = Ears(database_url), Ears(database_url)
    async with one.wakeups.running(), two.wakeups.running():
        yield one, two


async def test_a_wake_up_reaches_the_other_process_and_not_ones_own(database_url: str) -> None:
    sessions = [uuid4() for _ in range(500)]
    async with two_processes(database_url) as (one, two):
        await until(lambda: one.wakeups.works and two.wakeups.works)
        one.wakeups.grown(sessions)
        one.wakeups.queued(sessions[0])
        await until(lambda: len(two.grown) == len(sessions) and two.queued)
        assert set(two.grown) == set(sessions), "more than fit into one payload go in several"
        assert two.queued == sessions[:1]
        assert one.grown == one.queued == []


async def test_many_wake_ups_of_a_moment_become_few_notifications(database_url: str) -> None:
    session_id = uuid4()
    async with two_processes(database_url) as (one, two):
        await until(lambda: two.wakeups.works)
        began = asyncio.get_running_loop().time()
        for _ in range(300):
            one.wakeups.grown([session_id])
            await asyncio.sleep(0.001)
        took = asyncio.get_running_loop().time() - began
        await until(lambda: two.grown)
        assert one.wakeups.sent <= took / wakeups_module.COALESCE_SECONDS + 2


async def test_a_listener_whose_connection_is_killed_listens_again(
    database_url: str, killer: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups_module, "RECONNECT_SECONDS", 0.05)
    session_id = uuid4()
    async with two_processes(database_url) as (one, two):
        await until(lambda: one.wakeups.works and two.wakeups.works)
        assert await kill_listeners(killer) == 2
        await until(lambda: two.changes == [True, False, True])
        one.wakeups.grown([session_id])
        await until(lambda: two.grown == [session_id])


async def test_what_others_say_on_the_channel_does_not_end_the_listening(
    database_url: str, killer: AsyncConnection[Any]
) -> None:
    session_id = uuid4()
    async with two_processes(database_url) as (one, two):
        await until(lambda: one.wakeups.works and two.wakeups.works)
        for payload in ("", " ", "grown", "grown x", "grown x not-a-uuid", "nonsense x " + str(uuid4())):
            await killer.execute("select pg_notify('pulseline', %s)", [payload])
        one.wakeups.grown([session_id])
        await until(lambda: two.grown)
        assert two.grown == [session_id]


async def test_behind_pgbouncer_a_replica_finds_out_that_nothing_arrives_and_says_so(
    through_pgbouncer: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A notification to oneself would arrive, so that only one from another connection proves anything."""
    monkeypatch.setattr(wakeups_module, "TEST_SECONDS", 1.0)
    with caplog.at_level(logging.WARNING):
        async with open_replica(Settings(notify="on", worker="off"), through_pgbouncer) as replica:
            await until(lambda: "LISTEN does not arrive" in caplog.text)
            assert "PULSELINE_NOTIFY=off" in caplog.text
            assert replica.wakeups is not None
            assert not replica.wakeups.works
            await _works_without_prepared_statements(replica)


async def _works_without_prepared_statements(replica: Replica) -> None:
    assert replica.hub.poll_seconds == POLL_SECONDS_ALONE
    assert not replica.direct
    candidate = await started(replica.log)
    await asyncio.gather(*(replica.log.gate(candidate.session_id, OWNER) for _ in range(200)))


def prepares(connection: AsyncConnection[Any]) -> bool:
    return connection.prepare_threshold is not None


async def test_statements_are_prepared_once_notifications_have_arrived(
    database_url: str, killer: AsyncConnection[Any]
) -> None:
    async with open_replica(Settings(notify="on", worker="off"), database_url) as replica:
        early = await replica.connect()
        await until(lambda: replica.direct)
        assert replica.hub.poll_seconds == POLL_SECONDS_WITH_NOTIFY
        assert prepares(early)
        async with replica.log.pool.connection() as pooled:
            assert prepares(pooled)
        await kill_listeners(killer)
        await until(lambda: replica.hub.poll_seconds == POLL_SECONDS_ALONE)
        assert not prepares(early), "the way may lead through PgBouncer now"
        async with replica.log.pool.connection() as pooled:
            assert not prepares(pooled)
        await until(lambda: replica.direct)
        assert prepares(early)
        await early.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_no_connection_waits_for_minutes_for_a_server_that_is_gone_without_a_word(database_url: str) -> None:
    async with open_replica(Settings(notify="off", worker="off"), database_url) as replica:
        own = await replica.connect()
        async with replica.log.pool.connection() as pooled:
            for connection in (own, pooled):
                with socket.socket(fileno=os.dup(connection.fileno())) as end:
                    options = [
                        end.getsockopt(socket.IPPROTO_TCP, option)
                        for option in (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
                    ]
                assert options == [10_000, 5, 2]
        await own.close()


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_a_start_does_not_wait_for_the_test_of_notifications(
    database_url: str, monkeypatch: pytest.MonkeyPatch, notify: str
) -> None:
    async def never(self: Wakeups, connection: AsyncConnection[Any]) -> bool:
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(Wakeups, "_arrive", never)
    settings = Settings.model_validate({"notify": notify, "worker": "off"})
    async with open_replica(settings, database_url) as replica:
        await _works_without_prepared_statements(replica)


def never_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("functions.replica.POLL_SECONDS_ALONE", "functions.replica.POLL_SECONDS_WITH_NOTIFY"):
        monkeypatch.setattr(name, 3600)
    monkeypatch.setattr("graph.eventlog.hub.IDLE_POLL_SECONDS", 3600)


@asynccontextmanager
async def two_replicas(database_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    settings = Settings.model_validate({"notify": "on", "worker": "off"})
    async with open_replica(settings, database_url) as one, open_replica(settings, database_url) as two:
        await until(lambda: all(replica.wakeups is not None and replica.wakeups.works for replica in (one, two)))
        yield one, two


class WorkerThatHears:
    """Counts how often it is told to look for turns, and keeps whose logs grew."""

    def __init__(self, places: bool = True) -> None:
        self.places = places
        self.looked = 0
        self.held: UUID | None = None
        self.told: list[UUID] = []

    def starting(self, session_id: UUID, turn_id: UUID) -> AbstractContextManager[None]:
        return nullcontext()

    def started(self, turn: Turn, claimant: Claimant | None) -> bool:
        return self.places

    def notified(self, works: bool) -> None: ...
    async def silent(self, session_id: UUID) -> None: ...
    async def drain(self, seconds: float) -> None: ...

    def queued(self) -> None:
        self.looked += 1

    def holds(self, session_id: UUID) -> bool:
        return session_id == self.held

    def grown(self, sessions: list[UUID]) -> None:
        self.told += sessions


@pytest.mark.parametrize(
    "worker_here", [None, WorkerThatHears(places=False)], ids=["none here", "all here have enough"]
)
async def test_what_one_replica_commits_wakes_the_others_readers_and_workers_without_a_poll(
    database_url: str, monkeypatch: pytest.MonkeyPatch, worker_here: WorkerThatHears | None
) -> None:
    never_poll(monkeypatch)
    async with two_replicas(database_url) as (one, two):
        one.worker, two.worker = worker_here, (worker := WorkerThatHears())
        queued = await one.log.start(uuid4(), OWNER, "request", "What helps?")
        one.started(queued)
        await until(lambda: worker.looked == 1)
        turn = await held(one.log, Candidate(queued.session_id, queued.turn_id))
        with two.hub.watch(turn.session_id) as watch:
            reader = two.hub.reader(watch, 1, 1, active=True)
            assert one.wakeups is not None
            elsewhere = one.wakeups._elsewhere
            await until(lambda: turn.session_id in elsewhere)
            assert await reader.next(0.1) == [], "the watch's own first look is over"
            async with open_writer(database_url, one.committed) as writer:
                await writer.append(turn, token("Iron"))
                await writer.flush(turn)
                assert [frame.seq for frame in await asyncio.wait_for(reader.next(3600), 10)] == [2]
                await one.log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated")
                one.ended(turn.session_id)
                assert [frame.ends for frame in await asyncio.wait_for(reader.next(3600), 10)] == [True]
        assert turn.session_id in worker.told


async def test_of_tokens_only_those_are_told_who_watch(database_url: str) -> None:
    """A notification for every commit would be a fifth of what a few turns cost, and every replica would hear it."""
    turn_id, watched, unwatched = uuid4(), uuid4(), uuid4()

    def rows(kind: str) -> list[Event]:
        return [Event(session, 2, turn_id, 1, kind, "{}") for session in (watched, unwatched)]

    async with two_processes(database_url) as (one, two):
        await until(lambda: one.wakeups.works and two.wakeups.works)
        one.wakeups.committed(rows("token"))
        one.wakeups.committed(rows("generation_start"))
        await until(lambda: two.grown and one.wakeups.sent)  # heard sooner, maybe, than its sender has the answer
        assert one.wakeups.sent == 1, "of the tokens nothing was said"
        assert set(two.grown) == {watched, unwatched}
        two.wakeups.watched([watched])
        await until(lambda: watched in one.wakeups._elsewhere)
        two.grown.clear()
        one.wakeups.committed(rows("token"))
        await until(lambda: two.grown)
        assert two.grown == [watched]
        one.wakeups.committed(rows("done"))
        await until(lambda: unwatched in two.grown)
        two.grown.clear()
        one.wakeups.committed(rows("token"))
        one.wakeups.queued(watched)
        await until(lambda: two.queued)
        assert not two.grown, "after its end nobody is said to watch the next turn"


def test_who_is_announced_and_never_ends_is_forgotten_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups_module, "WATCHED_MAX", 3)
    wakeups = Ears("").wakeups
    sessions = [uuid4() for _ in range(5)]
    for session in (*sessions[:3], sessions[0], *sessions[3:]):
        wakeups._hear(f"watched another {session}")
    assert list(wakeups._elsewhere) == [sessions[0], *sessions[3:]]


async def test_a_reader_elsewhere_announces_itself_for_every_turn_and_again_when_only_its_poll_finds_tokens(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_poll(monkeypatch)
    async with two_replicas(database_url) as (one, two):
        assert one.wakeups is not None
        elsewhere = one.wakeups._elsewhere
        turn = await held(one.log, await started(one.log))
        with two.hub.watch(turn.session_id) as watch:
            reader = two.hub.reader(watch, 1, 1, active=False)
            async with open_writer(database_url, one.committed) as writer:
                await writer.append(turn, new_event(GenerationStart(turn_id=turn.turn_id, model="scripted")))
                await writer.flush(turn)
                assert len(await asyncio.wait_for(reader.next(3600), 10)) == 1
                await until(lambda: turn.session_id in elsewhere)
                await writer.append(turn, token("Iron"))
                await writer.flush(turn)
                assert len(await asyncio.wait_for(reader.next(3600), 10)) == 1, "by a hint: nobody polls"
                elsewhere.clear()  # that it is watched was not heard, or another worker has the turn now
                await writer.append(turn, token("helps"))
                await writer.flush(turn)
                two.hub._poll_at(watch, 0.01)
                two.hub._wanted.set()
                assert len(await asyncio.wait_for(reader.next(3600), 10)) == 1
                await until(lambda: turn.session_id in elsewhere)


async def test_whoever_joins_in_mid_answer_announces_itself_unless_the_turn_runs_here(database_url: str) -> None:
    async with two_replicas(database_url) as (one, two):
        assert one.wakeups is not None
        elsewhere = one.wakeups._elsewhere
        here, there = uuid4(), uuid4()
        two.worker = worker = WorkerThatHears()
        worker.held = here
        for session in (here, there):
            with two.hub.watch(session) as watch:
                two.hub.reader(watch, 1, 1, active=True)
        await until(lambda: there in elsewhere)
        assert here not in elsewhere
