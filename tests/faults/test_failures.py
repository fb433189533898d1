"""From a failure to its frame: under two seconds for every code, at a reader of a replica that runs no turn."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from langgraph.graph import MessagesState

from graph.failures import FAILURES
from graph.parts import Parts
from tests.conftest import Say
from tests.faults.test_provider import FAILURES as FAILING
from tests.faults.test_provider import FRAME_SECONDS, HANGING
from tests.support.client import ENDS, Person
from tests.support.graphs import Held, steps
from tests.support.openai_wire import hangs, says, wire
from tests.support.server import serving
from tests.support.workshop import Workshop, workshop

LEASE_LEFT_SECONDS = 0.3
LEFT_WITH_A_LEASE = """
update turns set lease_until = clock_timestamp() + make_interval(secs => %s) where turn_id = %s
"""
UNSPEAKABLE = "Unspeakable"
REFUSES_A_WORD = f"alter table events add constraint refuses check (data::text not like '%{UNSPEAKABLE}%')"
SPEAKS_AGAIN = "alter table events drop constraint refuses"


class Told(NamedTuple):
    """By the reader's clock, which is the provider's too: when it asked, and when it had the end's frame."""

    asked: float
    code: str
    at: float


class Failed(NamedTuple):
    """`at`: when the provider, the search, the graph or the lease failed, or the deadline was over."""

    name: str
    code: str
    at: float
    told: Told


Ask = Callable[[], Awaitable[Told]]


@pytest.mark.timeout(120)
async def test_every_failure_is_a_frame_on_another_replica_within_two_seconds(
    database_url: str, tmp_path: Path, say: Say
) -> None:
    failed: list[Failed] = []
    with serving(database_url, tmp_path, WORKER="off", MAX_TURNS_PER_MINUTE="0") as other:
        async with Person() as person:
            for fail in (provider_fails, provider_hangs, search_fails, graph_raises, word_is_refused, worker_is_lost):
                failed += await fail(database_url, lambda: told(person, other.url))
    late = {one.name: one.told.at - one.at for one in failed}
    assert [one.told.code for one in failed] == [one.code for one in failed]
    assert {one.code for one in failed} == set(FAILURES)
    worst = max(failed, key=lambda one: late[one.name])
    say(f"from failure to frame: {len(failed)} ways, at worst {late[worst.name]:.2f} s ({worst.code}: {worst.name})")
    assert late[worst.name] < FRAME_SECONDS, late


async def told(person: Person, url: str) -> Told:
    asked = time.monotonic()
    started = await person.start(url, "What helps?")
    async with person.watch(url, started["session_id"], after=0) as watching:
        end = await watching.until(*ENDS)
        return Told(asked, end.data.get("code", end.type), time.monotonic())


async def provider_fails(database_url: str, ask: Ask) -> list[Failed]:
    """From the last of its failures: before the first word it is asked again."""
    failed = []
    async with wire(says("never")) as wired, workshop(database_url, wired):
        for name, (acts, code, _, _) in FAILING.items():
            wired.acts, wired.calls = list(acts), []
            end = await ask()
            failed.append(Failed(name, code, wired.calls[-1].over_at, end))
    return failed


async def provider_hangs(database_url: str, ask: Ask) -> list[Failed]:
    """From the end of its deadline."""
    failed = []
    for name, (act, deadline, code, _) in HANGING.items():
        async with wire(act) as wired, workshop(database_url, wired, **deadline):
            end = await ask()
        since = end.asked if code == "turn_timeout" else wired.calls[0].failed_at or wired.calls[0].at
        failed.append(Failed(name, code, since + sum(deadline.values()), end))
    return failed


class Raises:
    """A part that raises, and remembers when."""

    def __init__(self) -> None:
        self.at = 0.0

    async def search(self, question: str) -> Any:
        self.at = time.monotonic()
        raise ConnectionError("the index is away")

    async def node(self, state: MessagesState) -> Any:
        self.at = time.monotonic()
        raise KeyError("an error of the graph")

    def without_search(self, parts: Parts) -> Parts:
        return replace(parts, search=self.search)


async def search_fails(database_url: str, ask: Ask) -> list[Failed]:
    raises = Raises()
    async with workshop(database_url, change=raises.without_search):
        end = await ask()
    return [Failed("a search that raises", "retrieval_failed", raises.at, end)]


async def graph_raises(database_url: str, ask: Ask) -> list[Failed]:
    raises = Raises()
    async with workshop(database_url, graph=steps(Held(), "speaks", "breaks", breaks=raises.node).compile()):
        end = await ask()
    return [Failed("a node that raises", "graph_failed", raises.at, end)]


async def word_is_refused(database_url: str, ask: Ask) -> list[Failed]:
    """By the database, for good, and so is an end that repeats it: the log ends the turn with what it has. The model's
    silence hides nothing of that."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(REFUSES_A_WORD)
        async with wire(hangs(UNSPEAKABLE)) as wired, workshop(database_url, wired):
            end = await ask()
        connection.execute(SPEAKS_AGAIN)
    return [Failed("an append that is refused", "graph_failed", wired.calls[0].over_at, end)]


async def worker_is_lost(database_url: str, ask: Ask) -> list[Failed]:
    """From the end of the third attempt's lease."""
    async with wire(hangs("Iron")) as wired, workshop(database_url, wired) as shop:
        asking = asyncio.ensure_future(ask())
        over = 0.0
        for attempt in (1, 2, 3):
            await wired.called(attempt)
            over = await abandon(shop, database_url)
        end = await asking
    return [Failed("three workers lost", "worker_lost", over, end)]


async def abandon(shop: Workshop, database_url: str) -> float:
    """As if its worker had died; gives when the lease that it leaves is over."""
    (lease,) = await shop.die()
    await asyncio.wait((lease.task,))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(LEFT_WITH_A_LEASE, [LEASE_LEFT_SECONDS, lease.turn.turn_id])
    return time.monotonic() + LEASE_LEFT_SECONDS
