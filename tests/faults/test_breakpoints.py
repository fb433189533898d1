"""A graph that waits for a person: whatever happens to its worker, nothing goes on without the person."""

from typing import Any
from uuid import UUID

import psycopg
import pytest
from langgraph.graph.state import CompiledStateGraph

from graph.eventlog.events import Done, Event
from graph.eventlog.log import Turn
from tests.faults.test_leases import counts, crash
from tests.support.graphs import Held, steps
from tests.support.waiting import until
from tests.support.workshop import Workshop, content_of, workshop

YES = {"command": {"resume": "yes"}}
NOT_YET_DONE = """
with e as (delete from events where turn_id = %(turn)s and type = 'done')
update turns set status = 'running', ended_at = null, last_seq = null, lease_until = now() - interval '1 s'
 where turn_id = %(turn)s
"""

Graph = CompiledStateGraph[Any, Any, Any, Any]


BREAKPOINTS: dict[str, dict[str, Any]] = {
    "before": {"interrupt_before": ["act"]},
    "after": {"interrupt_after": ["plan"]},
    "before all": {"interrupt_before": "*"},
    "after all": {"interrupt_after": "*"},
}


def stopping(way: str) -> tuple[Held, Graph]:
    """plan → act, where nothing may be done without leave, as a graph or within one."""
    where, within, _ = way.partition(" of a subgraph")
    held = Held()
    asks = held.asks("asks")
    graph = steps(held, "plan", "act") if where in BREAKPOINTS else steps(held, "plan", "asks", asks=asks)
    inner = graph.compile(**BREAKPOINTS.get(where, {}))
    return held, steps(held, "inner", inner=inner).compile() if within else inner


def done_of(events: list[Event]) -> Done:
    end = events[-1].parse()
    assert isinstance(end, Done)
    return end


async def unsaid(shop: Workshop, url: str, turn: Turn) -> list[Event]:
    """The turn's events after another attempt: its worker had died just before `done`."""
    leases = shop.worker.leases  # of a turn that has ended they may hear later than the log's readers
    await until(lambda: turn.session_id not in leases and not leases._given_up and not leases._renewing)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(NOT_YET_DONE.encode(), {"turn": turn.turn_id})
    shop.worker.queued()
    return await shop.ended(turn)


@pytest.mark.parametrize("way", [*BREAKPOINTS, "interrupt", "before of a subgraph", "after of a subgraph"])
async def test_a_take_over_stops_where_the_graph_had_stopped(database_url: str, way: str) -> None:
    held, graph = stopping(way)
    async with workshop(database_url, graph=graph) as shop:
        turn = await shop.ask("Clean up")
        first, ran = done_of(await shop.ended(turn)), list(held.ran)
        assert first.interrupted
        again = done_of(await unsaid(shop, database_url, turn))
        assert counts(database_url, turn) == (2, 0)
        assert held.ran == ran, "a step ran that nobody had allowed, or one ran twice"
        assert (again.message.content, again.interrupted) == (first.message.content, first.interrupted)


@pytest.mark.parametrize("way", ["before", "after", "before of a subgraph"])
async def test_a_resumed_turn_whose_worker_dies_goes_on_past_what_was_allowed(database_url: str, way: str) -> None:
    held, graph = stopping(way)
    async with workshop(database_url, graph=graph) as shop:
        turn = await shop.ask("Clean up")
        await shop.ended(turn)
        held.let_go.clear()
        allowed = await shop.ask("yes", turn.session_id, given=YES)
        while "act" not in held.ran:
            await shop.until(allowed, "turn_started")
        await crash(shop, database_url, allowed)
        held.let_go.set()
        end = done_of(await shop.ended(allowed))
        assert (end.message.content.split()[-1], end.interrupted) == ("act.", None)
        assert counts(database_url, allowed) == (2, 0)


@pytest.mark.parametrize("inner", [False, True])
async def test_what_was_allowed_once_allows_nothing_further(database_url: str, inner: bool) -> None:
    held = Held()
    graph = steps(held, "plan", "act", "send").compile(interrupt_before=["act", "send"])
    if inner:
        graph = steps(held, "inner", inner=graph).compile()
    async with workshop(database_url, graph=graph) as shop:
        session: UUID = (turn := await shop.ask("Clean up")).session_id
        await shop.ended(turn)
        allowed = await shop.ask("yes", session, given=YES)
        first = done_of(await shop.ended(allowed))
        assert first.interrupted
        again = done_of(await unsaid(shop, database_url, allowed))
        assert held.ran == ["plan", "act"]
        assert (again.interrupted, again.message.content) == (first.interrupted, first.message.content)
        last = await shop.ask("yes", session, given=YES)
        assert "send." in content_of((await shop.ended(last))[-1])
        assert held.ran == ["plan", "act", "send"]
