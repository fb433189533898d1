"""The hub: readers are cursors; register, then read, then wait; a stalled reader costs nothing."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from starlette.types import Message

from functions.frames import encode
from functions.replica import open_replica
from functions.settings import Settings
from functions.tail import tail
from graph.eventlog import hub as hub_module
from graph.eventlog.events import Event
from graph.eventlog.hub import RING_MAX_BYTES, RING_MAX_FRAMES, TAKEN_MAX_BYTES, Frame, Hub
from graph.eventlog.log import Gate
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import HeldTurn, Writer
from tests.support.turns import OWNER, all_events, done, holding, open_writer, token
from tests.support.waiting import until

TOKENS = 400


@asynccontextmanager
async def open_hub(log: Sessions, poll_seconds: float = 0.02) -> AsyncIterator[Hub]:
    async with Hub(log.read, encode, poll_seconds).running() as hub:
        yield hub


async def read_to_end(hub: Hub, turn: HeldTurn, log: Sessions, cursor: int) -> list[Frame]:
    with hub.watch(turn.session_id) as watch:
        gate = await log.gate(turn.session_id, "anonymous:tester")
        reader = hub.reader(watch, gate.last_seq, cursor, active=gate.active)
        frames: list[Frame] = []
        while not frames or not frames[-1].ends:
            frames += await reader.next(5)
        return frames


async def write_all(writer: Writer, turn: HeldTurn, pause: float) -> None:
    for n in range(TOKENS):
        await writer.append(turn, token(f"{n} "))
        await writer.flush(turn)
        if pause:
            await asyncio.sleep(pause)
    await writer.append(turn, done(turn, "".join(f"{n} " for n in range(TOKENS))))
    await writer.flush(turn)


@pytest.mark.parametrize("own", [True, False], ids=["same process", "another replica"])
@pytest.mark.parametrize("pause", [0, 0.001], ids=["as fast as it commits", "paced"])
async def test_readers_that_come_at_any_time_get_every_event_once(
    database_url: str, log: Sessions, own: bool, pause: float
) -> None:
    """Law 2, while the turn is written: no seam between what was read and what is waited for."""
    turn = await holding(log)
    async with open_hub(log) as hub:
        async with open_writer(database_url, hub.publish if own else lambda events: None) as writer:
            writing = asyncio.create_task(write_all(writer, turn, pause))
            readers = []
            chance = random.Random(7)
            while not writing.done():
                seen = turn.next_seq - 1
                cursor = chance.randint(0, max(0, seen - 50))
                readers.append((cursor, asyncio.create_task(read_to_end(hub, turn, log, cursor))))
                await asyncio.sleep(chance.random() * 0.02)
            await writing
        results = [(cursor, await task) for cursor, task in readers]
    whole = [Frame(e.seq, e.type == "done", encode(e)) for e in await all_events(log, turn.session_id)]
    assert len(results) > 10
    for cursor, frames in results:
        assert frames == whole[cursor:]


async def test_what_is_committed_while_the_endpoint_reads_the_log_comes_without_a_poll(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It registers, then reads: between the two no event falls through."""
    for period in ("functions.replica.POLL_SECONDS_ALONE", "graph.eventlog.hub.IDLE_POLL_SECONDS"):
        monkeypatch.setattr(period, 3600)
    sent = bytearray()

    async def receive() -> Message:
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never

    async def send(message: Message) -> None:
        sent.extend(message.get("body", b""))

    async with (
        open_replica(Settings(notify="off", worker="off"), database_url) as replica,
        open_writer(database_url, replica.committed) as writer,
    ):
        turn = await holding(replica.log)
        read = replica.log.gate

        async def read_before_the_end(session_id: UUID, owner: str) -> Gate:
            gate = await read(session_id, owner)
            await writer.append(turn, token("Iron"), done(turn, "Iron"))
            await writer.flush(turn)
            return gate

        monkeypatch.setattr(replica.log, "gate", read_before_the_end)
        response = await tail(turn.session_id, OWNER, replica, after="1")
        await asyncio.wait_for(response({}, receive, send), 5)
    assert sent.count(b"\nevent: token\n") == sent.count(b"\nevent: done\n") == 1


async def test_a_reader_behind_the_ring_pages_from_the_table(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    async with open_hub(log) as hub, open_writer(database_url, hub.publish) as writer:
        with ExitStack() as stack:
            watch = stack.enter_context(hub.watch(turn.session_id))
            slow = hub.reader(watch, 1, 0, active=True)
            await write_all(writer, turn, 0)
            assert len(watch.ring) == RING_MAX_FRAMES
            frames: list[Frame] = []
            while not frames or not frames[-1].ends:
                frames += await slow.next(5)
    assert [frame.seq for frame in frames] == list(range(1, TOKENS + 3))


async def test_a_ring_is_bounded_in_bytes_too(database_url: str, log: Sessions) -> None:
    turn, sizes = await holding(log), [400_000, 10, 700_000, 20, 2_000_000, 30]
    async with open_hub(log) as hub, open_writer(database_url, hub.publish) as writer:
        with hub.watch(turn.session_id) as watch:
            reader = hub.reader(watch, 1, 1, active=True)
            for size in sizes:
                await writer.append(turn, token("x" * size))
                await writer.flush(turn)
                assert sum(len(frame.data) for frame in watch.ring) <= max(RING_MAX_BYTES, len(watch.ring[-1].data))
            taken: list[Frame] = []
            while len(taken) < len(sizes):
                taken += await reader.next(5)
    assert [frame.seq for frame in taken] == list(range(2, 2 + len(sizes)))


async def test_a_reader_takes_no_more_at_once_than_a_stalled_client_may_hold(database_url: str, log: Sessions) -> None:
    """From a page and from the ring; a frame that is larger than that comes alone."""
    turn = await holding(log)
    large = [1000, 30_000, 30_000, 30_000, 200_000, 10, 70_000, 10]
    async with open_hub(log) as hub, open_writer(database_url, hub.publish) as writer:
        with hub.watch(turn.session_id) as watch:
            paging, ringing = (hub.reader(watch, 1, cursor, active=True) for cursor in (0, 1))
            for size in large:
                await writer.append(turn, token("x" * size))
                await writer.flush(turn)
            for reader in (paging, ringing):
                first, taken = reader.cursor + 1, []
                while reader.cursor < 1 + len(large):
                    taken.append(await reader.next(5))
                assert [frame.seq for frames in taken for frame in frames] == list(range(first, 2 + len(large)))
                assert all(len(frames) == 1 or sum(len(f.data) for f in frames) <= TAKEN_MAX_BYTES for frames in taken)
                assert max(len(frames) for frames in taken) > 1


async def test_a_crowd_behind_the_ring_shares_its_reads(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    reads = 0

    async def read(cursors: dict[UUID, int], limit: int) -> list[Event]:
        nonlocal reads
        reads += 1
        return await log.read(cursors, limit)

    async with open_writer(database_url) as writer, Hub(read, encode, 0.02).running() as hub:
        await write_all(writer, turn, 0)
        cursors = [n % TOKENS for n in range(300)]
        everyone = await asyncio.gather(*(read_to_end(hub, turn, log, cursor) for cursor in cursors))
    for cursor, frames in zip(cursors, everyone, strict=True):
        assert [frame.seq for frame in frames] == list(range(cursor + 1, TOKENS + 3))
    assert reads < 50


async def test_a_read_that_began_before_ones_next_event_is_not_ones_own() -> None:
    """Two readers page the same place; what the first is waiting for was read before the second's event was there."""
    session_id, turn_id = uuid4(), uuid4()
    table = [Event(session_id, 1, turn_id, 1, "token", "{}")]
    going_on = asyncio.Event()

    async def read(cursors: dict[UUID, int], limit: int) -> list[Event]:
        found = [event for event in table if event.seq > cursors[session_id]]
        await going_on.wait()
        return found

    hub = Hub(read, encode, 0.02)
    first = asyncio.create_task(hub.page(session_id, 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    table.append(Event(session_id, 2, turn_id, 1, "token", "{}"))
    second = asyncio.create_task(hub.page(session_id, 1))
    await asyncio.sleep(0)
    going_on.set()
    assert [frame.seq for frame in await first] == [1]
    assert [frame.seq for frame in await second] == [2]


async def test_a_reader_who_leaves_takes_nobody_s_page_along(log: Sessions) -> None:
    turn = await holding(log)
    hub = Hub(log.read, encode, 0.02)
    leaving = asyncio.create_task(hub.page(turn.session_id, 0))
    await asyncio.sleep(0)
    staying = asyncio.create_task(hub.page(turn.session_id, 0))
    await asyncio.sleep(0)
    leaving.cancel()
    assert [frame.seq for frame in await staying] == [1]


async def test_own_events_that_would_leave_a_hole_are_fetched_instead(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    held_back: list[Event] = []
    async with open_hub(log) as hub, open_writer(database_url, held_back.extend) as writer:
        with hub.watch(turn.session_id) as watch:
            reader = hub.reader(watch, 1, 1, active=True)
            for word in ("a", "b", "c"):
                await writer.append(turn, token(word))
                await writer.flush(turn)
            hub.publish(held_back[2:])
            frames: list[Frame] = []
            while len(frames) < 3:
                frames += await reader.next(5)
    assert [frame.seq for frame in frames] == [2, 3, 4]


async def test_nothing_is_polled_while_nobody_watches(log: Sessions) -> None:
    turn = await holding(log)
    async with open_hub(log, poll_seconds=0.005) as hub:
        with hub.watch(turn.session_id) as watch:
            await hub.reader(watch, 1, 1, active=True).next(0.1)
        polls = hub.polls
        assert polls > 0
        await asyncio.sleep(0.1)
        assert hub.polls <= polls + 1


async def test_a_drain_ends_every_wait(log: Sessions) -> None:
    turn = await holding(log)
    async with open_hub(log) as hub:
        with hub.watch(turn.session_id) as watch:
            reader = hub.reader(watch, 1, 1, active=True)
            waiting = asyncio.create_task(reader.next(30))
            await asyncio.sleep(0)
            hub.drain()
            assert await asyncio.wait_for(waiting, 1) == []


async def test_a_push_wakes_a_reader_whatever_it_was_doing_just_then(log: Sessions) -> None:
    """No poll helps here: a push between a reader's look and its wait would be slept through."""
    turn = await holding(log)
    async with open_hub(log, poll_seconds=3600) as hub:
        with hub.watch(turn.session_id) as watch:
            for turns_of_the_loop in range(8):
                seq = (watch.head or 1) + 1
                reading = asyncio.create_task(hub.reader(watch, 1, seq - 1, active=True).next(3600))
                for _ in range(turns_of_the_loop):
                    await asyncio.sleep(0)
                hub.publish([Event(turn.session_id, seq, turn.turn_id, 1, "token", "{}")])
                assert [frame.seq for frame in await asyncio.wait_for(reading, 5)] == [seq]


@pytest.mark.parametrize("own", [True, False], ids=["same process", "another replica"])
async def test_what_is_committed_while_a_reader_looks_where_the_log_stands_needs_no_poll(
    database_url: str, log: Sessions, own: bool
) -> None:
    """Register, then read: what comes in between is kept in mind, although the hub does not know yet from where on."""
    turn = await holding(log)
    async with (
        open_hub(log, poll_seconds=3600) as hub,
        open_writer(database_url, hub.publish if own else lambda events: None) as writer,
    ):
        with hub.watch(turn.session_id) as watch:
            gate = await log.gate(turn.session_id, "anonymous:tester")
            await writer.append(turn, token("Iron"))
            await writer.flush(turn)
            if not own:
                hub.hint([turn.session_id])
            await until(lambda: not hub._hinted and watch.next_poll)
            reader = hub.reader(watch, gate.last_seq, gate.last_seq, active=True)
            frames = await asyncio.wait_for(reader.next(3600), 5)
    assert [frame.seq for frame in frames] == [gate.last_seq + 1]


@pytest.mark.parametrize("active", [False, True])
async def test_one_query_serves_all_watched_sessions_whenever_their_readers_came(
    monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    period = 0.1 if active else 0.2
    monkeypatch.setattr(hub_module, "IDLE_POLL_SECONDS", 0.2)

    asked_for: list[int] = []

    async def read(cursors: dict[UUID, int], limit: int) -> list[Event]:
        asked_for.append(len(cursors))
        await asyncio.sleep(0.0015)
        return []

    async with Hub(read, encode, 0.1).running() as hub:
        with ExitStack() as stack:
            for _ in range(200):
                watch = stack.enter_context(hub.watch(uuid4()))
                hub.reader(watch, 1, 1, active=active)
                await asyncio.sleep(0.001)
            await asyncio.sleep(period)
            asked_for.clear()
            await until(lambda: len(asked_for) >= 4)
            assert set(asked_for) == {200}


async def test_a_session_in_which_a_turn_has_begun_is_looked_at_as_often_as_any_other() -> None:
    """What came with its first events may have been committed before anybody knew that it is watched."""
    session_id, turn_id = uuid4(), uuid4()
    began = Event(session_id, 2, turn_id, 0, "turn_started", "{}")
    more = [Event(session_id, 3, turn_id, 1, "token", "{}")]
    reads: list[list[Event]] = [[began], more]

    async def read(cursors: dict[UUID, int], limit: int) -> list[Event]:
        return reads.pop(0) if reads else []

    async with Hub(read, encode, 0.05).running() as hub:
        with hub.watch(session_id) as watch:
            reader = hub.reader(watch, 1, 1, active=False)
            await asyncio.sleep(0)  # a poll is far away
            watch.next_poll = hub._next_poll = float("inf")
            hub.hint([session_id])
            assert [frame.seq for frame in await asyncio.wait_for(reader.next(3600), 5)] == [2]
            assert watch.next_poll - asyncio.get_running_loop().time() <= 0.05
            assert [frame.seq for frame in await asyncio.wait_for(reader.next(3600), 5)] == [3]


async def test_a_read_that_fails_in_whatever_way_is_tried_again(
    database_url: str, log: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """A pooler that came between gives errors that nobody thought of; the hub's task has to outlive them."""
    turn = await holding(log)
    failures: list[Exception] = [psycopg.errors.InvalidSqlStatementName("_pg3_4"), ValueError("?")]

    async def read(cursors: dict[UUID, int], limit: int) -> list[Event]:
        if failures:
            raise failures.pop()
        return await log.read(cursors, limit)

    async with Hub(read, encode, 3600).running() as hub, open_writer(database_url) as writer:
        with hub.watch(turn.session_id) as watch:
            reader = hub.reader(watch, 1, 1, active=True)
            await writer.append(turn, token("Iron"))
            await writer.flush(turn)
            hub.hint([turn.session_id])
            frames = await asyncio.wait_for(reader.next(3600), 5)
    assert [frame.seq for frame in frames] == [2]
    assert "InvalidSqlStatementName" in caplog.text


async def test_a_frame_is_encoded_once_however_many_read_it(database_url: str, log: Sessions) -> None:
    turn = await holding(log)
    encoded: list[int] = []

    def counting(event: Event) -> bytes:
        encoded.append(event.seq)
        return encode(event)

    async with Hub(log.read, counting, 3600).running() as hub, open_writer(database_url, hub.publish) as writer:
        with hub.watch(turn.session_id) as watch:
            readers = [hub.reader(watch, 1, 1, active=True) for _ in range(50)]
            for word in ("a", "b", "c"):
                reading = [asyncio.create_task(reader.next(5)) for reader in readers]
                await writer.append(turn, token(word))
                await writer.flush(turn)
                taken = await asyncio.gather(*reading)
                assert {frames[0].data for frames in taken} == {taken[0][0].data}
    assert encoded == [2, 3, 4]
