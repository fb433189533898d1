"""A replica with a worker inside the test's own process, whose model is at the end of a wire that the test holds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from functions.leases import Lease
from functions.replica import Replica, open_replica
from functions.settings import Settings
from functions.worker import Worker, ours, work
from graph.any_graph import AnyGraph
from graph.eventlog.errors import DatabaseUnavailable
from graph.eventlog.events import ENDS, Event
from graph.eventlog.log import Turn
from graph.models import open_model
from graph.parts import Parts, open_parts
from graph.served import Graph
from tests.support.openai_wire import MODEL, Wire
from tests.support.turns import OWNER
from tests.support.waiting import until

API_KEY = "sk-test-key-of-the-workshop"
PATIENCE_SECONDS = 30.0


class Workshop:
    def __init__(self, replica: Replica, worker: Worker) -> None:
        self.replica, self.worker, self.log = replica, worker, replica.log

    async def ask(
        self,
        message: str = "What helps?",
        session_id: UUID | None = None,
        replaces: UUID | None = None,
        given: dict[str, Any] | None = None,
    ) -> Turn:
        session_id, turn_id = session_id or uuid4(), uuid4()
        with self.replica.starting(session_id, turn_id) as claimant:
            turn = await self.log.start(
                session_id,
                OWNER,
                str(uuid4()),
                message,
                replaces,
                given,
                turn_id=turn_id,
                claimant=claimant,
            )
            self.replica.started(turn, claimant)
        return turn

    async def die(self) -> list[Lease]:
        """As if the worker's process had: it writes nothing more, and never says that it lives, nor does a renewal that
        was under way. Gives what it held."""
        held = list(self.worker.leases)
        vars(self.worker.leases)["_held"].clear()
        for lease in held:
            lease.turn.fence()
        await until(lambda: not vars(self.worker.leases)["_renewing"], "a lease is being renewed")
        return held

    async def cancel(self, turn: Turn) -> None:
        await self.log.cancel(turn.session_id, OWNER, turn.turn_id, "user_initiated")
        self.replica.ended(turn.session_id)

    async def events(self, turn: Turn) -> list[Event]:
        """Read again while the database is away."""
        while True:
            with suppress(DatabaseUnavailable):
                events = await self.log.read({turn.session_id: turn.first_seq - 1}, 100_000)
                return [event for event in events if event.turn_id == turn.turn_id]

    async def until(self, turn: Turn, *types: str, count: int = 1, seconds: float = PATIENCE_SECONDS) -> list[Event]:
        """The turn's events once `count` of these types are there."""
        deadline = time.monotonic() + seconds
        while True:
            events = await self.events(turn)
            if sum(event.type in types for event in events) >= count:
                return events
            assert time.monotonic() < deadline, [event.type for event in events]
            await asyncio.sleep(0.01)

    async def said(self, turn: Turn, text: str) -> None:
        """Returns once the log has this text of the turn."""
        while text_of(await self.events(turn)) != text:
            await self.until(turn, "token")
            await asyncio.sleep(0.01)

    async def ended(self, turn: Turn, seconds: float = PATIENCE_SECONDS) -> list[Event]:
        events = await self.until(turn, *ENDS, seconds=seconds)
        check_turn(events)
        return events


@asynccontextmanager
async def workshop(
    database_url: str,
    wired: Wire | None = None,
    change: Callable[[Parts], Parts] = lambda parts: parts,
    graph: Graph | None = None,
    **settings: Any,
) -> AsyncIterator[Workshop]:
    """Without a wire the model is scripted, as `model` among the settings says. With `graph` that one is served."""
    chosen = Settings.model_validate({"model": "scripted?tokens=5&delay_ms=1", **settings})

    @asynccontextmanager
    async def opened(replica: Replica) -> AsyncIterator[Worker]:
        if graph is not None:
            async with work(replica, lambda saver: AnyGraph(graph, saver)) as worker:
                yield worker
            return
        parts = open_parts(
            model=chosen.model, embeddings=chosen.embeddings, reranker=chosen.reranker, pool=replica.log.pool
        )
        if wired is not None:
            parts = replace(parts, model=_connected(wired), model_name="wired")
        async with work(replica, ours(change(parts))) as worker:
            yield worker

    async with open_replica(chosen, database_url, opened) as replica:
        assert isinstance(replica.worker, Worker)
        yield Workshop(replica, replica.worker)


def _connected(wired: Wire) -> Any:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", wired.url)
        environment.setenv("OPENAI_API_KEY", API_KEY)
        return open_model(MODEL).model


def check_turn(events: list[Event]) -> None:
    """Consecutive, one end and it is the last, and the tokens are its text."""
    first = events[0].seq
    assert [event.seq for event in events] == list(range(first, first + len(events)))
    assert [event.type in ENDS for event in events] == [False] * (len(events) - 1) + [True]
    assert text_of(events) == content_of(events[-1])


def text_of(events: list[Event]) -> str:
    """The tokens after the last reset."""
    text = ""
    for event in events:
        said = event.parse()
        text = "" if said.type == "reset" else text + said.content if said.type == "token" else text
    return text


def content_of(end: Event) -> str:
    said = end.parse()
    if said.type == "done":
        return said.message.content
    assert said.type in ("cancelled", "error")
    return said.content


def code_of(end: Event) -> str:
    said = end.parse()
    return said.code if said.type == "error" else said.type
