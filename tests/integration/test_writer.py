"""The writer under pressure: nothing is lost, and what one turn does to a batch harms no other turn."""

import asyncio
import tracemalloc

import pytest
from psycopg import AsyncConnection

from graph.eventlog.events import Event
from graph.eventlog.sessions import Sessions
from graph.eventlog.writer import BUFFER_MAX_EVENTS, AppendFailed, Writer
from tests.integration.test_log import backend_is_blocked
from tests.support.turns import all_events, done, holding, open_writer, token

FLOOD = 4000
TOKEN_BYTES = 2000
FLAT_BYTES = 2 * BUFFER_MAX_EVENTS * TOKEN_BYTES
NOTE = "insert into secrets (name, value) values (%s, '')"


def text_of(events: list[Event]) -> str:
    return "".join(getattr(event.parse(), "content", "") for event in events if event.type == "token")


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
        await AsyncConnection.connect(database_url, autocommit=True) as observer,
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
