"""Wake-ups: hints between replicas that a log has grown or a turn waits. They carry pointers only and may be lost.

Of tokens only those replicas are told that have said they watch: a hint for each commit would be a fifth of the costs
of a few turns, and every replica would hear it. One that is not told finds them by its poll, and says that it watches.

NOTIFY has a connection of its own and is coalesced, off the write path: in an append's transaction its commit lock
would serialise all writers of the database.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection

from graph import measures
from graph.eventlog.events import ENDS, Event
from graph.eventlog.outage import Outage
from graph.eventlog.queries import query

logger = logging.getLogger(__name__)
COALESCE_SECONDS = 0.005
PAYLOAD_MAX_SESSIONS = 200  # 37 bytes each; a payload may have 7,999
KNOWN_SESSIONS = 4096  # whose names are heard again and again while their turns run
WATCHED_MAX = 10_000  # the longest announced are forgotten, and announced again by whoever then has to poll
RECONNECT_SECONDS = 1.0
TEST_SECONDS = 5.0  # nothing waits for it: until notifications are known to arrive, readers poll
TEST_AGAIN_SECONDS = 60.0
LISTEN_AGAIN_SECONDS = 5.0

Connect = Callable[[], Awaitable[AsyncConnection[Any]]]
Heard = Callable[[list[UUID], list[UUID]], None]
Changed = Callable[[bool], None]

_session = lru_cache(KNOWN_SESSIONS)(UUID)


class Wakeups:
    """`heard(grown, queued)` is called with sessions whose log grew and with sessions that have a queued turn.

    `changed(works)` is called when notifications turn out to arrive, or to arrive no more. Behind PgBouncer in
    transaction mode they never do, without an error, and polling is the only mode.
    """

    def __init__(self, connect: Connect, heard: Heard, changed: Changed = lambda works: None) -> None:
        self._connect, self._heard, self._changed = connect, heard, changed
        self._me = uuid4().hex[:8]
        self._grown: set[UUID] = set()
        self._queued: set[UUID] = set()
        self._watched: set[UUID] = set()
        self._elsewhere: dict[UUID, None] = {}  # watched there, the longest announced first
        self._wanted = asyncio.Event()
        self._outage = Outage(logger, "no wake-ups, readers poll")
        self.works = False
        self.sent = 0

    def committed(self, events: Iterable[Event]) -> None:
        """Rows of this process's writer: of everything but tokens all replicas are told."""
        grown = {e.session_id for e in events if e.type != "token" or e.session_id in self._elsewhere}
        if grown:
            self.grown(grown)
        for event in events:
            if event.type in ENDS:
                self._elsewhere.pop(event.session_id, None)

    def grown(self, sessions: Iterable[UUID]) -> None:
        self._grown.update(sessions)
        self._wanted.set()

    def watched(self, sessions: Iterable[UUID]) -> None:
        """Readers here wait for what others commit to these logs: for the turn that is under way, or comes next."""
        self._watched.update(sessions)
        self._wanted.set()

    def queued(self, session_id: UUID) -> None:
        self._queued.add(session_id)
        self._wanted.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Wakeups"]:
        tasks = [asyncio.create_task(self._listen(), name="listen"), asyncio.create_task(self._send(), name="notify")]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    if await self._arrive(connection):
                        await self._hear_all(connection)
                await asyncio.sleep(TEST_AGAIN_SECONDS)
            except psycopg.Error as error:
                self._outage.failed(error)
                self._tell(False)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear_all(self, connection: AsyncConnection[Any]) -> None:
        """Until the connection fails. To listen once more changes nothing, but has to be answered."""
        while True:
            await connection.execute("listen pulseline")
            self._outage.over()
            self._tell(True)
            async for notification in connection.notifies(timeout=LISTEN_AGAIN_SECONDS):
                self._hear(notification.payload)

    async def _arrive(self, connection: AsyncConnection[Any]) -> bool:
        """Whether a notification from another connection comes through. One of its own would, through PgBouncer too.

        On a channel of its own: PgBouncer's server connection goes on listening, and gives what it hears to anyone.
        """
        channel = f"pulseline_test_{self._me}"
        await connection.execute(f"listen {channel}".encode())
        async with await self._connect() as other:
            await other.execute("select pg_notify(%s, '')", [channel])
        heard = [notification async for notification in connection.notifies(timeout=TEST_SECONDS, stop_after=1)]
        if not heard:
            logger.warning(
                "LISTEN does not arrive, tails poll. Behind PgBouncer in transaction mode set PULSELINE_NOTIFY=off"
            )
        return bool(heard)

    def _tell(self, works: bool) -> None:
        if works != self.works:
            self.works = works
            self._changed(works)

    def _hear(self, payload: str) -> None:
        kind, sender, sessions = [*payload.split(" "), "", ""][:3]
        if sender == self._me:
            return
        try:
            named = [_session(name) for name in sessions.split(",")]
        except ValueError:
            logger.debug("not a wake-up of ours: %r", payload)
            return
        measures.NOTIFIES_HEARD.inc()
        if kind == "watched":
            self._note(named)
        else:
            self._heard(named if kind == "grown" else [], named if kind == "queued" else [])

    def _note(self, sessions: list[UUID]) -> None:
        for session in sessions:
            self._elsewhere.pop(session, None)
            self._elsewhere[session] = None
        while len(self._elsewhere) > WATCHED_MAX:
            del self._elsewhere[next(iter(self._elsewhere))]

    async def _send(self) -> None:
        connection: AsyncConnection[Any] | None = None
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                kinds = {"queued": self._queued, "watched": self._watched, "grown": self._grown}
                payloads = [payload for kind, sessions in kinds.items() for payload in self._payloads(kind, sessions)]
                for sessions in kinds.values():
                    sessions.clear()
                try:
                    if connection is None or connection.closed:
                        connection = await self._connect()
                    await connection.execute(query("notify"), {"payloads": payloads})
                    self._outage.over()
                    self.sent += len(payloads)
                    measures.NOTIFIES_SENT.inc(len(payloads))
                except psycopg.Error as error:
                    self._outage.failed(error)
                    await asyncio.sleep(RECONNECT_SECONDS)
                await asyncio.sleep(COALESCE_SECONDS)
        finally:
            if connection is not None:
                await connection.close()

    def _payloads(self, kind: str, sessions: set[UUID]) -> list[str]:
        names = [str(session) for session in sessions]
        chunks = [names[n : n + PAYLOAD_MAX_SESSIONS] for n in range(0, len(names), PAYLOAD_MAX_SESSIONS)]
        return [f"{kind} {self._me} {','.join(chunk)}" for chunk in chunks]
