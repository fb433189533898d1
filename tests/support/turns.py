"""Turns made by hand: started, claimed and written without a graph."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from graph.eventlog.events import Event, NewEvent
from graph.eventlog.log import Candidate, Log
from graph.eventlog.writer import HeldTurn, Writer
from tests.support.pgbouncer import PREPARE_THRESHOLD

OWNER = "anonymous:tester"
LEASE_SECONDS = 30.0


async def started(log: Log, session_id: UUID | None = None, message: str = "What helps?") -> Candidate:
    turn = await log.start(session_id or uuid4(), OWNER, str(uuid4()), message)
    return Candidate(turn.session_id, turn.turn_id)


async def held(log: Log, candidate: Candidate, lease_seconds: float = LEASE_SECONDS) -> HeldTurn:
    claim = await log.claim(candidate, "tester", lease_seconds, "worker_lost")
    assert claim is not None, "the claim was lost"
    return HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)


async def holding(log: Log, lease_seconds: float = LEASE_SECONDS) -> HeldTurn:
    return await held(log, await started(log), lease_seconds)


def token(text: str) -> NewEvent:
    return NewEvent("token", {"content": text})


def done(turn: HeldTurn, text: str) -> NewEvent:
    message = {"id": f"{turn.turn_id}:assistant", "content": text, "citations": []}
    return NewEvent("done", {"turn_id": str(turn.turn_id), "message": message})


async def all_events(log: Log, session_id: UUID, after: int = 0) -> list[Event]:
    return await log.read({session_id: after}, 100_000)


async def until_events(log: Log, session_id: UUID, count: int) -> list[Event]:
    async with asyncio.timeout(30):  # another process may have to start
        events = await all_events(log, session_id)
        while len(events) < count:  # what another transaction commits, only asking can tell
            await asyncio.sleep(0.01)
            events = await all_events(log, session_id)
    return events


@asynccontextmanager
async def open_writer(database_url: str, on_committed: Any = lambda events: None) -> AsyncIterator[Writer]:
    async def connect() -> AsyncConnection[Any]:
        return await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=PREPARE_THRESHOLD)

    async with Writer(connect, on_committed) as writer:
        yield writer
