"""What one process holds while it serves: the pool, the log, the hub, the wake-ups and, unless it only tails, a worker.

Nothing of it is needed by another process: any replica serves any request.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol
from uuid import UUID
from weakref import WeakSet

from fastapi import Depends, Request
from psycopg import AsyncConnection

from functions.frames import encode
from functions.limits import Limits
from functions.settings import Settings
from functions.tracing import Spans, open_spans
from graph.eventlog.connection import SILENCE, Connection
from graph.eventlog.events import Event
from graph.eventlog.hub import Hub
from graph.eventlog.log import PREPARE_THRESHOLD, Claimant, Turn, open_pool
from graph.eventlog.sessions import Sessions
from graph.eventlog.silence import Silence
from graph.eventlog.wakeups import Wakeups

POLL_SECONDS_WITH_NOTIFY = 0.25
POLL_SECONDS_ALONE = 0.025
OWNER_KEY = "owner_key"


class TurnWorker(Protocol):
    """What a replica asks of the worker in its process; the tail path must not import the worker itself."""

    def starting(self, session_id: UUID, turn_id: UUID) -> AbstractContextManager[Claimant | None]: ...
    def started(self, turn: Turn, claimant: Claimant | None) -> bool: ...
    def holds(self, session_id: UUID) -> bool: ...
    def queued(self) -> None: ...
    async def silent(self, session_id: UUID) -> None: ...
    def grown(self, sessions: list[UUID]) -> None: ...
    def notified(self, works: bool) -> None: ...
    async def drain(self, seconds: float) -> None: ...


@dataclass
class Replica:
    """`direct`: notifications arrive, so no PgBouncer in transaction mode lies between, and statements may be prepared.
    While that is not known, and wherever NOTIFY is off, it works without. `buffered`: the host delivers nothing of a
    response before its end, so a tail ends with the first events it has. `single`: this process serves one response at
    a time, so one that waits holds all of it."""

    settings: Settings
    database_url: str
    log: Sessions
    hub: Hub
    silence: Silence
    limits: Limits
    spans: Spans
    secret_key: str = ""
    wakeups: Wakeups | None = None
    worker: TurnWorker | None = None
    direct: bool = False
    buffered: bool = False
    single: bool = False
    connections: WeakSet[AsyncConnection[Any]] = field(default_factory=WeakSet)

    async def connect(self) -> AsyncConnection[Any]:
        """A connection of its own, outside the pool: for the writer, for LISTEN and for NOTIFY."""
        connection = await Connection.connect(self.database_url, autocommit=True, prepare_threshold=None, **SILENCE)
        connection.prepare_threshold = PREPARE_THRESHOLD if self.direct else None
        self.connections.add(connection)
        return connection

    def committed(self, events: list[Event]) -> None:
        """Rows of this process's writer, right after their commit."""
        self.hub.publish(events)
        self.spans.committed(events)
        if self.wakeups is not None:
            self.wakeups.committed(events)

    def starting(self, session_id: UUID, turn_id: UUID) -> AbstractContextManager[Claimant | None]:
        """Around a start, and what it tells `started`: who claims that turn as it begins, or None."""
        return nullcontext() if self.worker is None else self.worker.starting(session_id, turn_id)

    def started(self, turn: Turn, claimant: Claimant | None = None) -> None:
        """A turn that this process has queued: its first event for who watches here; and to the worker, who runs it
        when its start has claimed it. Else hints, here or elsewhere, only for speed."""
        if turn.began is not None:
            self.hub.publish([turn.began])
        taken = self.worker is not None and self.worker.started(turn, claimant)
        if not taken and self.wakeups is not None:
            self.wakeups.queued(turn.session_id)

    def ended(self, session_id: UUID) -> None:
        """A turn that this process cancelled: tell its readers and its worker, wherever they are."""
        self.spans.cancelled(session_id)
        self.hub.hint([session_id])
        if self.worker is not None:
            self.worker.grown([session_id])
        if self.wakeups is not None:
            self.wakeups.grown([session_id])

    def _announce(self, sessions: set[UUID]) -> None:
        """Readers here wait for events of these; what this process runs it hears of by itself."""
        others = [one for one in sessions if self.worker is None or not self.worker.holds(one)]
        if self.wakeups is not None and others:
            self.wakeups.watched(others)

    def _heard(self, grown: list[UUID], queued: list[UUID]) -> None:
        self.hub.hint(grown)
        if self.worker is not None:
            self.worker.grown(grown)
            if queued:
                self.worker.queued()

    def notified(self, works: bool) -> None:
        """Notifications arrive, or arrive no more: readers and the worker look less, or more, often by themselves."""
        self.hub.poll_seconds = POLL_SECONDS_WITH_NOTIFY if works else POLL_SECONDS_ALONE
        if self.worker is not None:
            self.worker.notified(works)
        self.direct = works
        for connection in self.connections:
            connection.prepare_threshold = PREPARE_THRESHOLD if works else None

    async def drain(self) -> None:
        """Before the server stops: tails end so that clients come back elsewhere, short turns may finish."""
        self.hub.drain()
        if self.worker is not None:
            await self.worker.drain(self.settings.drain_seconds)


OpenWorker = Callable[[Replica], AbstractAsyncContextManager[TurnWorker]]


@asynccontextmanager
async def open_replica(
    settings: Settings, database_url: str, open_worker: OpenWorker | None = None
) -> AsyncIterator[Replica]:
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(open_spans(settings))
        pool = open_pool(
            database_url,
            max_size=settings.pool_size,
            prepare=lambda: replica.direct,
            connection_class=Connection,
        )
        log = Sessions(await stack.enter_async_context(pool))
        hub = Hub(log.read, encode, POLL_SECONDS_ALONE, lambda sessions: replica._announce(sessions))
        replica = Replica(settings, database_url, log, hub, Silence(log.silent), Limits(settings), spans)
        replica.secret_key = settings.secret_key or await log.secret(OWNER_KEY, secrets.token_urlsafe(32))
        await stack.enter_async_context(hub.running())
        if settings.notify == "on":
            replica.wakeups = Wakeups(replica.connect, replica._heard, replica.notified)
            await stack.enter_async_context(replica.wakeups.running())
        if open_worker is not None:
            replica.worker = await stack.enter_async_context(open_worker(replica))
            replica.worker.notified(replica.wakeups is not None and replica.wakeups.works)
        yield replica


async def _replica(request: Request) -> Replica:
    """Async, so that no thread is asked for it."""
    replica: Replica = request.app.state.replica
    return replica


Serving = Annotated[Replica, Depends(_replica)]
