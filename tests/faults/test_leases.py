"""Who answers a turn, and how an answer goes on: leases, attempts, take-over from the checkpoint, cancel."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from functions.turns import cancel as operator_cancel
from functions.worker import MAX_CLAIMS
from graph.eventlog.errors import DatabaseUnavailable
from graph.eventlog.events import Event
from graph.eventlog.log import Turn
from graph.parts import Parts
from graph.retrieval.rerank import Ranked
from graph.retrieval.search import Found
from tests.faults.relay import relaying
from tests.support.openai_wire import drips, hangs, says, wire
from tests.support.turns import OWNER
from tests.support.waiting import until
from tests.support.workshop import Workshop, code_of, content_of, text_of, workshop

LEASE_SECONDS = 30  # none passes by itself
LAST_CHECKPOINT = """
delete from checkpoints where thread_id = %(session)s::text and checkpoint_id = (
  select max(checkpoint_id) from checkpoints where thread_id = %(session)s::text)
"""
NOT_YET_DONE = """
with e as (delete from events where session_id = %(session)s and type = 'done')
update turns set status = 'running', ended_at = null, last_seq = null, lease_until = now() - interval '1 s'
 where session_id = %(session)s
"""


def execute(url: str, statement: str, turn: Turn) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), {"session": turn.session_id, "turn": turn.turn_id})


def counts(url: str, turn: Turn) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        row = connection.execute("select attempt, handed_back from turns where turn_id = %s", [turn.turn_id]).fetchone()
    assert row is not None
    return row[0], row[1]


async def crash(shop: Workshop, url: str, turn: Turn) -> None:
    """As if its process had died, and its lease had run out."""
    await shop.die()
    execute(url, "update turns set lease_until = now() - interval '1 s' where turn_id = %(turn)s", turn)


def types(events: list[Event]) -> list[str]:
    return [event.type for event in events if event.type != "token"]


@pytest.mark.parametrize("lost", ["done", "done and the last checkpoint"])
async def test_a_graph_that_had_finished_gets_its_done_without_the_model(database_url: str, lost: str) -> None:
    async with wire(says("Iron", " helps."), says("never")) as wired:
        async with workshop(database_url, wired) as shop:
            turn = await shop.ask()
            first = await shop.ended(turn)
        if lost != "done":
            execute(database_url, LAST_CHECKPOINT, turn)
        execute(database_url, NOT_YET_DONE, turn)
        async with workshop(database_url, wired) as shop:
            events = await shop.ended(turn)
    assert len(wired.calls) == 1
    assert content_of(events[-1]) == content_of(first[-1]) == "Iron helps."
    assert types(events) == [*types(first)[:-1], "reset", "done"]


class Counted:
    """A search that counts, and a reranking that hangs until it is let go."""

    def __init__(self) -> None:
        self.searches = 0
        self.let_go = asyncio.Event()

    def __call__(self, parts: Parts) -> Parts:
        async def search(question: str) -> Found:
            self.searches += 1
            return await parts.search(question)

        async def rerank(question: str, found: list[dict[str, Any]]) -> Ranked:
            await self.let_go.wait()
            return await parts.rerank(question, found)

        return replace(parts, search=search, rerank=rerank)


RETRIEVAL_UNSAID = (
    "delete from events where session_id = %(session)s and type in ('retrieval_complete', 'reranking_start')"
)


@pytest.mark.parametrize("lost", ["nothing", "the checkpoint", "the checkpoint and the event"])
async def test_a_finished_stage_is_not_repeated_and_its_end_is_said_once(database_url: str, lost: str) -> None:
    """Its writes may be there without the checkpoint after them, and, from an older release, without the event."""
    counted = Counted()
    async with workshop(database_url, change=counted) as shop:
        turn = await shop.ask()
        await shop.until(turn, "reranking_start")
        dead = await shop.die()
        counted.let_go.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*(lease.task for lease in dead))
        if lost != "nothing":
            execute(database_url, LAST_CHECKPOINT, turn)
        if lost == "the checkpoint and the event":
            execute(database_url, RETRIEVAL_UNSAID, turn)
        await crash(shop, database_url, turn)
        events = await shop.ended(turn)
    assert counted.searches == 1
    said = types(events)
    assert (said.count("retrieval_start"), said.count("retrieval_complete"), said.count("reset")) == (1, 1, 1)
    assert said.count("reranking_complete") == 1
    assert said[-1] == "done"


async def test_a_turn_whose_row_somebody_holds_costs_no_other_turn_anything(database_url: str) -> None:
    """Longer than a lease. The others are answered meanwhile, and what is asked meanwhile is begun."""
    async with (
        workshop(database_url, model="scripted?tokens=45&delay_ms=80", lease_seconds=3) as shop,
        await psycopg.AsyncConnection.connect(database_url) as rival,
    ):
        locked, other = await shop.ask(), await shop.ask()
        for turn in (locked, other):
            await shop.until(turn, "token")
        await rival.execute("select 1 from turns where turn_id = %s for update", [locked.turn_id])
        events = await shop.ended(other)
        later = await shop.ask()
        await shop.until(later, "token")
        await rival.rollback()
        at_last = await shop.ended(locked)
    assert "reset" not in types(events)
    assert counts(database_url, other) == (1, 0)
    assert types(at_last)[-1] == "done"


async def test_a_hand_back_costs_no_attempt(database_url: str) -> None:
    slow = "scripted?tokens=400&delay_ms=50"
    turn: Turn | None = None
    for times in range(1, 5):
        async with workshop(database_url, model=slow, drain_seconds=0) as shop:
            turn = turn or await shop.ask()
            await shop.until(turn, "reset" if times > 1 else "token", count=max(1, times - 1))
        assert counts(database_url, turn) == (times, times)
    assert turn is not None
    async with workshop(database_url, model="scripted?tokens=20&delay_ms=0") as shop:
        events = await shop.ended(turn)
    assert (events[-1].type, counts(database_url, turn)) == ("done", (5, 4))
    assert types(events).count("reset") == 4


async def test_a_turn_that_is_handed_back_again_and_again_ends_some_day(database_url: str) -> None:
    async with workshop(database_url, model="scripted?tokens=400&delay_ms=50", drain_seconds=0) as shop:
        turn = await shop.ask()
        await shop.until(turn, "token")
    often = f"update turns set attempt = {MAX_CLAIMS}, handed_back = {MAX_CLAIMS} where turn_id = %(turn)s"
    execute(database_url, often, turn)
    async with workshop(database_url) as shop:
        assert code_of((await shop.ended(turn))[-1]) == "worker_lost"


async def test_a_draining_worker_forgets_the_turns_that_have_ended(database_url: str) -> None:
    async with workshop(database_url, model="scripted?tokens=20&delay_ms=10", drain_seconds=20) as shop:
        turns = [await shop.ask() for _ in range(2)]
        for turn in turns:
            await shop.until(turn, "token")
        await shop.replica.drain()
        assert [code_of((await shop.ended(turn))[-1]) for turn in turns] == ["done", "done"]
        assert shop.worker.running == 0


async def test_a_worker_whose_search_for_turns_failed_looks_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workshop(database_url) as shop:
        failed = asyncio.Event()

        async def fails(limit: int) -> Any:
            failed.set()
            raise KeyError(limit)

        monkeypatch.setattr(shop.log, "candidates", fails)
        await failed.wait()
        monkeypatch.undo()
        turn = await shop.log.start(uuid4(), OWNER, str(uuid4()), "What helps?")
        assert (await shop.ended(turn))[-1].type == "done"


async def test_a_turn_that_starts_here_waits_for_no_look_at_the_queue(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workshop(database_url) as shop:
        looking = asyncio.Event()

        async def never(limit: int) -> Any:
            looking.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(shop.log, "candidates", never)
        await looking.wait()
        assert (await shop.ended(await shop.ask()))[-1].type == "done"


async def test_a_turn_that_starts_here_is_claimed_by_its_start(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a transaction more, where there is a place; else it waits in the queue."""
    async with wire(hangs("Iron"), says("Iron")) as wired, workshop(database_url, wired, max_turns=1) as shop:
        with monkeypatch.context() as patched:
            patched.setattr(shop.log, "claim", None)
            turns = await asyncio.gather(shop.ask(), shop.ask())
            (running,), (queued,) = ([t for t in turns if (t.claim is None) == waits] for waits in (False, True))
            await shop.until(running, "token")
            assert (shop.worker.running, types(await shop.events(queued))) == (1, ["turn_started"])
        await shop.cancel(running)
        assert (await shop.ended(queued))[-1].type == "done"


@pytest.mark.parametrize("lands", ["before", "after one has looked for it"])
async def test_a_start_whose_answer_was_lost_costs_its_turn_neither_time_nor_an_attempt(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lands: str
) -> None:
    async with workshop(database_url, lease_seconds=3600) as shop:
        start, hand_back, looked = shop.log.start, shop.log.hand_back, asyncio.Event()

        async def loses_the_answer(*arguments: Any, **settings: Any) -> Any:
            commit = asyncio.create_task(commits(*arguments, **settings))
            commits_under_way.append(commit)
            if lands == "before":
                await commit
            raise DatabaseUnavailable

        async def commits(*arguments: Any, **settings: Any) -> Turn:
            if lands != "before":
                await looked.wait()
            return await start(*arguments, **settings)

        async def looks(*arguments: Any, **settings: Any) -> bool:
            given = await hand_back(*arguments, **settings)
            looked.set()
            return given

        commits_under_way: list[asyncio.Task[Turn]] = []
        monkeypatch.setattr(shop.log, "hand_back", looks)
        with monkeypatch.context() as patched:
            patched.setattr(shop.log, "start", loses_the_answer)
            with pytest.raises(DatabaseUnavailable):
                await shop.ask()
        turn = await commits_under_way[0]
        assert turn.claim is not None
        events = await shop.ended(turn)
        assert (events[-1].type, counts(database_url, turn)) == ("done", (2, 1))


async def test_a_start_that_comes_to_nothing_leaves_its_place_to_who_waits(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once. One that had no connection is not looked for later."""
    async with workshop(database_url, max_turns=1) as shop:
        start, asked, goes_on = shop.log.start, asyncio.Event(), asyncio.Event()

        async def has_no_connection(*_: Any, **__: Any) -> Any:
            asked.set()
            await goes_on.wait()
            raise DatabaseUnavailable from PoolTimeout()

        monkeypatch.setattr("functions.worker.POLL_SECONDS", 3600)
        await shop.ended(await shop.ask())  # it has looked, and does not poll any more
        await until(lambda: shop.worker.running == 0)
        monkeypatch.setattr(shop.log, "start", has_no_connection)
        asking = asyncio.create_task(shop.ask())
        await asked.wait()
        monkeypatch.setattr(shop.log, "start", start)
        waiting = await shop.ask()
        assert waiting.claim is None
        goes_on.set()
        with pytest.raises(DatabaseUnavailable):
            await asking
        assert (await shop.ended(waiting))[-1].type == "done"
        assert not any(landing_until for _, landing_until in shop.worker.leases._given_up.values())


async def test_a_worker_that_drains_waits_for_a_start_under_way_and_answers_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with workshop(database_url, drain_seconds=20) as shop:
        start, asked, goes_on = shop.log.start, asyncio.Event(), asyncio.Event()

        async def waits(*arguments: Any, **settings: Any) -> Any:
            asked.set()
            await goes_on.wait()
            return await start(*arguments, **settings)

        monkeypatch.setattr(shop.log, "start", waits)
        asking = asyncio.create_task(shop.ask())
        await asked.wait()
        draining = asyncio.create_task(shop.replica.drain())
        await until(lambda: shop.replica.hub.draining)
        goes_on.set()
        await draining
        events = await shop.events(await asking)
        assert (events[-1].type, counts(database_url, await asking)) == ("done", (1, 0))


async def test_a_hand_back_that_is_refused_for_good_keeps_no_turn_waiting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(hangs("Iron"), says("Iron")) as wired, workshop(database_url, wired) as shop:
        turn = await shop.ask()
        await shop.until(turn, "token")
        refused = asyncio.Event()

        async def refuses(*_: Any, **__: Any) -> bool:
            refused.set()
            raise psycopg.errors.CheckViolation

        monkeypatch.setattr(shop.log, "hand_back", refuses)
        await shop.cancel(turn)
        await refused.wait()
        queued = await shop.log.start(uuid4(), OWNER, str(uuid4()), "What helps?")
        assert (await shop.ended(queued))[-1].type == "done"


async def test_three_attempts_that_are_lost_end_the_turn(database_url: str) -> None:
    async with wire(hangs("Iron")) as wired, workshop(database_url, wired) as shop:
        turn = await shop.ask()
        for attempt in (1, 2, 3):
            await wired.called(attempt)
            await shop.until(turn, "token", count=attempt)
            await crash(shop, database_url, turn)
        events = await shop.ended(turn)
        assert (code_of(events[-1]), content_of(events[-1])) == ("worker_lost", "Iron")
        assert len(wired.calls) == 3


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_a_cancel_elsewhere_stops_the_silent_model_within_a_second(database_url: str, notify: str) -> None:
    async with wire(hangs("Iron")) as wired, workshop(database_url, wired, notify=notify) as shop:
        turn = await shop.ask()
        call = await wired.called()
        await shop.until(turn, "token")
        began = time.monotonic()
        await operator_cancel(database_url, turn.session_id, turn.turn_id, "error", notify=notify == "on")
        events = await shop.ended(turn)
        assert (events[-1].type, content_of(events[-1])) == ("cancelled", "Iron")
        assert await wired.let_go(call) - began < 1


async def test_a_cancel_before_the_claim_wins_and_no_model_is_asked(database_url: str) -> None:
    async with wire(hangs("Iron"), says("never")) as wired, workshop(database_url, wired, max_turns=1) as shop:
        first = await shop.ask()
        await wired.called()
        waiting = await shop.ask()
        await shop.cancel(waiting)
        assert types(await shop.ended(waiting)) == ["turn_started", "cancelled"]
        await shop.cancel(first)
        last = await shop.ask()
        assert (await shop.ended(last))[-1].type == "done"
        assert types(await shop.events(waiting)) == ["turn_started", "cancelled"]
        assert len(wired.calls) == 2


async def test_a_cancel_that_races_done_gives_one_end_and_says_which(database_url: str) -> None:
    dice = random.Random(7)
    ends: list[str] = []
    async with workshop(database_url, model="scripted?tokens=3&delay_ms=1") as shop:
        while len(ends) < 12 or len(set(ends)) < 2:
            assert len(ends) < 100, "there was no race"
            turn = await shop.ask()
            await shop.until(turn, "token" if len(ends) % 2 else "turn_started")
            await asyncio.sleep(dice.uniform(0, 0.03))
            said = await shop.log.cancel(turn.session_id, None, turn.turn_id, "user_initiated")
            shop.replica.ended(turn.session_id)
            end = (await shop.ended(turn))[-1]
            assert (said.status, said.last_seq) == (end.type, end.seq)
            ends.append(end.type)
    assert set(ends) == {"done", "cancelled"}


async def test_a_worker_runs_so_many_turns_at_once_and_the_rest_wait(database_url: str) -> None:
    async with wire(says("Iron", " helps", pause=0.1)) as wired, workshop(database_url, wired, max_turns=2) as shop:
        turns = [await shop.ask() for _ in range(6)]
        most = 0
        for turn in turns:
            await shop.ended(turn)
            most = max(most, shop.worker.running)
        spans = [(call.at, call.let_go_at or time.monotonic()) for call in wired.calls]
        assert len(spans) == 6
        assert all(sum(began <= at < ended for began, ended in spans) <= 2 for at, _ in spans)


@pytest.mark.parametrize("way", ["stalls", "is refused"])
async def test_a_worker_that_cannot_renew_stops_before_its_lease_runs_out(database_url: str, way: str) -> None:
    """Only its own way to Postgres is broken. Nobody else answers the turn before it has let the model go."""
    lease = 2.0
    host = database_url.split("@")[1].split("/")[0]
    async with wire(drips(" on", 0.05), says("Iron", " helps.")) as wired, relaying(host) as relay:
        behind = database_url.replace(host, relay.address)
        async with AsyncExitStack() as stack:
            cut_off = await stack.enter_async_context(workshop(behind, wired, lease_seconds=lease))
            turn = await cut_off.ask()
            call = await wired.called()  # before another could have taken it
            other = await stack.enter_async_context(workshop(database_url, wired, lease_seconds=lease))
            await other.until(turn, "token", count=5)
            began = time.monotonic()
            relay.stall() if way == "stalls" else relay.close()
            let_go = await wired.let_go(call)
            assert let_go - began < lease
            events = await other.ended(turn)
            assert (events[-1].type, text_of(events)) == ("done", "Iron helps.")
            assert (await wired.called(2)).at >= let_go
            await relay.restore()


async def test_a_worker_that_was_starved_past_its_lease_goes_on_when_nobody_took_its_turn(database_url: str) -> None:
    """Nothing is said anew, no attempt is spent."""
    lease = 2.0  # a third of it is the time that a renewal has
    model = "scripted?tokens=40&delay_ms=20"
    async with workshop(database_url, model=model, lease_seconds=lease) as shop:
        turn = await shop.ask()
        await shop.until(turn, "token", count=3)
        for _ in range(2):
            time.sleep(1.2 * lease)  # noqa: ASYNC251 the whole process gets no time
            await asyncio.sleep(0.05)
        events = await shop.ended(turn)
    assert (events[-1].type, counts(database_url, turn)) == ("done", (1, 0))
    assert "reset" not in types(events)


async def test_a_database_that_was_away_for_longer_than_a_lease_costs_no_attempt(database_url: str) -> None:
    lease = 2.0
    host = database_url.split("@")[1].split("/")[0]
    async with wire(hangs("Iron"), says("Iron", " helps.")) as wired, relaying(host) as relay:
        behind = database_url.replace(host, relay.address)
        async with workshop(behind, wired, lease_seconds=lease) as shop:
            turn = await shop.ask()
            call = await wired.called()
            await shop.until(turn, "token")
            relay.close()
            await wired.let_go(call)
            await relay.restore()
            events = await shop.ended(turn)
    assert (events[-1].type, counts(database_url, turn)) == ("done", (2, 1))


async def test_a_crowd_of_requests_costs_no_turn_its_lease(database_url: str) -> None:
    """It fills the pool, and stands in line for longer than a lease lasts."""
    settings: dict[str, Any] = {"model": "scripted?tokens=150&delay_ms=20", "lease_seconds": 2.0, "pool_size": 2}
    async with workshop(database_url, **settings) as shop, asyncio.TaskGroup() as crowd:
        turn = await shop.ask()
        await shop.until(turn, "token", count=3)

        async def request() -> None:
            async with shop.log.pool.connection(timeout=30) as connection:
                await connection.execute("select pg_sleep(0.25)")

        for _ in range(24):
            crowd.create_task(request())
        events = await shop.ended(turn)
    assert (events[-1].type, counts(database_url, turn)) == ("done", (1, 0))
    assert "reset" not in types(events)


RUN_OUT = "update turns set lease_until = now() - interval '1 s' where turn_id = %(turn)s and attempt = 1"


@pytest.mark.parametrize("way", ["it slept", "it was cut off", "it slept, and has no place for another turn"])
async def test_an_attempt_that_another_took_over_from_a_living_worker_costs_nothing(
    database_url: str, way: str
) -> None:
    """It was taken for dead. As soon as it hears of that, or can speak again, it says that it lives."""
    host = database_url.split("@")[1].split("/")[0]
    async with wire(hangs("Iron")) as wired, relaying(host) as relay:
        behind = database_url.replace(host, relay.address)
        async with AsyncExitStack() as stack:
            living = await stack.enter_async_context(workshop(behind, wired, lease_seconds=2.0, max_turns=1))
            turn = await living.ask()
            await living.until(turn, "token")  # before another could have taken it
            other = await stack.enter_async_context(workshop(database_url, wired, lease_seconds=2.0))
            if way == "it was cut off":
                relay.stall()
            else:
                vars(living.worker)["_max_turns"] = 0 if "no place" in way else 1
                async with asyncio.timeout(20):
                    while len(wired.calls) < 2:  # a renewal may be quicker than the look for lost turns
                        execute(database_url, RUN_OUT, turn)
                        await asyncio.sleep(0.1)
            await wired.called(2)
            await relay.restore()
            await until(lambda: counts(database_url, turn) == (2, 1), "the attempt is not excused")
            await other.cancel(turn)
            await other.ended(turn)


LEASE_LEFT = "select extract(epoch from lease_until - now()) from turns where turn_id = %s"
A_LEASE_PASSES = f"update turns set lease_until = lease_until - interval '{LEASE_SECONDS} s' where turn_id = %(turn)s"


def lease_left(url: str, turn: Turn) -> float:
    with psycopg.connect(url) as connection:
        row = connection.execute(LEASE_LEFT.encode(), [turn.turn_id]).fetchone()
    assert row is not None
    return float(row[0])


async def test_a_last_attempt_is_left_to_its_frozen_worker_for_a_second_lease(database_url: str) -> None:
    """Nobody could take it over, only end it. Its renewals are as long."""
    host = database_url.split("@")[1].split("/")[0]
    async with (
        wire(hangs("Iron")) as wired,
        relaying(host) as relay,
        workshop(database_url.replace(host, relay.address), wired, lease_seconds=LEASE_SECONDS) as frozen,
    ):
        turn = await frozen.ask()
        for attempt in (1, 2, 3):
            await wired.called(attempt)
            await frozen.until(turn, "token", count=attempt)
            if attempt < 3:
                await crash(frozen, database_url, turn)
        execute(database_url, "update turns set lease_until = now() + interval '1 s' where turn_id = %(turn)s", turn)
        frozen.worker.grown([turn.session_id])
        await until(lambda: lease_left(database_url, turn) > LEASE_SECONDS + 1, "it is not renewed for so long")
        relay.stall()
        execute(database_url, A_LEASE_PASSES, turn)
        async with workshop(database_url, wired) as other:
            for calls in (4, 5):
                await other.log.start(uuid4(), OWNER, str(uuid4()), "What else?")
                await wired.called(calls)  # it has looked for turns, the second time after it was done with the first
            await relay.restore()
            await other.cancel(turn)
            assert code_of((await other.ended(turn))[-1]) == "cancelled"


CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and usename = current_user
"""


async def test_connections_that_are_cut_all_the_time_delay_a_turn_and_change_nothing(database_url: str) -> None:
    async with workshop(database_url, model="scripted?tokens=40&delay_ms=25") as shop:
        with psycopg.connect(database_url, autocommit=True) as knife:
            turn = await shop.ask()
            for _ in range(8):
                await asyncio.sleep(0.15)
                knife.execute(CUT.encode())
        events = await shop.ended(turn)
    assert code_of(events[-1]) == "done"
    assert content_of(events[-1]) == "".join(f"w{n} " for n in range(40))
