"""The leases of the turns that run here: renewed together by timer, and given up in time when they cannot be."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from graph.eventlog.errors import LogError, TurnLocked
from graph.eventlog.log import Candidate, Log, renew
from graph.eventlog.outage import Outage
from graph.eventlog.writer import HeldTurn

logger = logging.getLogger(__name__)
FENCE_CHECK_SECONDS = 0.5  # without NOTIFY: how soon a worker learns that its turn was cancelled elsewhere
RENEW_AGAIN_SECONDS = 0.25
SLEPT_SECONDS = 0.25  # a timer that rings so late tells of a frozen or starved process
MARGIN = 1 / 6  # of a lease: so long before it runs out its turn is stopped here
HAND_BACK_SECONDS = 2.0
LANDING_SECONDS = 10.0  # a commit without an answer takes effect by then, or never

Connect = Callable[[], Awaitable[AsyncConnection[Any]]]


@dataclass(eq=False)
class Lease:
    """`seconds` is how long the database lets the turn be this process's; `stop_timer` gives it up unless its lease is
    renewed before; `task` runs it."""

    turn: HeldTurn
    task: "asyncio.Task[None]"
    seconds: float
    stop_timer: asyncio.TimerHandle


class _GivenUp(NamedTuple):
    """`over` has to be done before the turn is handed back. Until `landing_until` the commit that claimed it may be
    under way, and there may be nothing to hand back yet."""

    over: "asyncio.Future[None]"
    landing_until: float = 0.0


class Leases:
    """At most one a session. `seconds` is how long each lasts at least. Renewals have a connection of their own: in the
    pool they would stand in line behind requests, and a crowd of those would cost turns their leases."""

    def __init__(self, log: Log, connect: Connect, seconds: float) -> None:
        self._log, self._connect, self.seconds = log, connect, seconds
        self._connection: AsyncConnection[Any] | None = None
        self._held: dict[UUID, Lease] = {}
        self._given_up: dict[HeldTurn, _GivenUp] = {}
        self._notified = False
        self._outage = Outage(logger, "no lease is renewed")
        self._renewing: set[asyncio.Task[bool]] = set()
        self._renew_now = asyncio.Event()
        self._asking_since: float | None = None  # when the first renewal that has had no answer was asked for

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, session_id: UUID) -> bool:
        return session_id in self._held

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._held.values()))

    def still(self, candidate: Candidate) -> bool:
        """Whether this attempt is still here: its lease ran out while the process slept, and is renewed now; or it was
        given up and is handed back as soon as its task is over. Nothing of that costs an attempt."""
        held = self._held.get(candidate.session_id)
        if held is not None and not held.turn.fenced and _same(held.turn, candidate):
            self._renew_now.set()
            return True
        return any(_same(turn, candidate) for turn in self._given_up)

    def take(self, turn: HeldTurn, task: "asyncio.Task[None]", asked: float, seconds: float) -> None:
        """Of a turn just claimed for so long; `asked` is the loop's time before the claim."""
        if earlier := self._held.get(turn.session_id):
            self._give_up(earlier)  # this process lost the lease without having noticed
        self._held[turn.session_id] = Lease(turn, task, seconds, self._timer(turn, self._ends(asked)))

    def unsure(self, turn: HeldTurn, over: "asyncio.Future[None]") -> None:
        """Its claim had no answer. If it is this process's after all, then nobody runs it: it is handed back."""
        self._given_up[turn] = _GivenUp(over, asyncio.get_running_loop().time() + LANDING_SECONDS)

    def drop(self, turn: HeldTurn) -> None:
        """Its task is over."""
        lease = self._held.get(turn.session_id)
        if lease is not None and lease.turn is turn:
            lease.stop_timer.cancel()
            if turn.fenced:
                self._give_up(lease)
            del self._held[turn.session_id]

    def grown(self, sessions: Iterable[UUID]) -> None:
        """These logs grew by another's hand: a turn of ours there was cancelled or taken."""
        if any(session in self._held for session in sessions):
            self._renew_now.set()

    def notified(self, works: bool) -> None:
        """Whether `grown` can be relied on to be called soon."""
        self._notified = works
        self._renew_now.set()

    async def keep(self) -> None:
        """Renews for ever."""
        pause = self._pause_seconds
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._renew_now.wait()
                self._renew_now.clear()
                pause = self._pause_seconds if await self._renewed() else min(RENEW_AGAIN_SECONDS, self._pause_seconds)
        finally:
            for task in self._renewing:
                task.cancel()
            await asyncio.gather(*self._renewing, return_exceptions=True)
            if self._connection is not None:
                await self._connection.close()

    async def hand_back(self) -> None:
        """All of them, as far as that is possible in HAND_BACK_SECONDS: it costs no attempt."""
        for lease in self:
            self._give_up(lease)
        given_up = sorted(self._given_up, key=lambda turn: self._given_up[turn].landing_until)
        self._given_up = {}
        with suppress(LogError, psycopg.Error, TimeoutError):
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await asyncio.gather(*map(self._hand_back, given_up), return_exceptions=True)

    async def hand_back_given_up(self) -> None:
        """The turns that were stopped because their leases could not be renewed; those that were taken away: by a
        cancel, or by somebody who could not know that this process lives; and the unsure ones. Raises
        DatabaseUnavailable; a turn whose row somebody holds waits for the next time, and what is refused for good is
        left to its lease."""
        now = asyncio.get_running_loop().time()
        for turn, (over, landing_until) in list(self._given_up.items()):
            if not over.done():
                continue
            try:
                if not await self._hand_back(turn, excuse=not landing_until) and now < landing_until:
                    continue
            except TurnLocked:
                continue
            except psycopg.Error:
                logger.exception("a turn cannot be handed back", extra={"turn_id": str(turn.turn_id)})
            self._given_up.pop(turn, None)

    def _give_up(self, lease: Lease) -> None:
        """The turn stops here, and is handed back once its task is over."""
        lease.stop_timer.cancel()
        self._given_up[lease.turn] = _GivenUp(lease.task)
        lease.turn.fence()

    async def _hand_back(self, turn: HeldTurn, *, excuse: bool = True) -> bool:
        return await self._log.hand_back(turn.session_id, turn.turn_id, turn.attempt, excuse=excuse)

    @property
    def _pause_seconds(self) -> float:
        return self.seconds / 3 if self._notified else min(self.seconds / 3, FENCE_CHECK_SECONDS)

    def _ends(self, asked: float) -> float:
        """Before the lease, which was asked for then, runs out: nobody else may find this process still answering."""
        return asked + self.seconds * (1 - MARGIN)

    def _timer(self, turn: HeldTurn, rings_at: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(rings_at, self._not_renewed, turn, rings_at)

    def _not_renewed(self, turn: HeldTurn, rings_at: float) -> None:
        """Gives the turn up once the database has had its time to answer. A process that slept, or that had no time to
        ask, asks first whether the turn is still its own; until it knows, the fence keeps it from writing."""
        lease = self._held.get(turn.session_id)
        if lease is None or lease.turn is not turn:
            return
        now = asyncio.get_running_loop().time()
        if self._asking_since is None or now - rings_at > SLEPT_SECONDS:
            self._asking_since = now
            self._renew_now.set()
        answer_due = self._asking_since + self.seconds / 3
        if now < answer_due:
            lease.stop_timer = self._timer(turn, answer_due)
            return
        logger.warning("a lease could not be renewed, its turn is stopped", extra={"turn_id": str(turn.turn_id)})
        self._give_up(lease)

    async def _renewed(self) -> bool:
        """An answer that does not come is not waited for: another connection may be better."""
        self._asking_since = self._asking_since or asyncio.get_running_loop().time()
        task = asyncio.create_task(self._renew())
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)
        await asyncio.wait((task,), timeout=self.seconds / 3)
        if not task.done():
            task.cancel()
            return False
        if task.result():
            self._asking_since = None
        return task.result()

    async def _renew(self) -> bool:
        held = [lease for lease in self if not lease.turn.fenced]
        if not held:
            return True
        asked = asyncio.get_running_loop().time()
        try:
            keys = [(lease.turn.session_id, lease.turn.turn_id, lease.turn.attempt, lease.seconds) for lease in held]
            async with self._connected() as connection:
                renewal = await renew(connection, keys)
        except (LogError, psycopg.Error) as error:
            self._outage.failed(error)
            return False
        except Exception:
            logger.exception("renewing leases failed")  # who renews no more would seem well
            return False
        self._outage.over()
        for position, lease in enumerate(held):
            if lease.task.done() or position in renewal.unknown:
                continue  # its stop_timer goes on
            if position not in renewal.kept:
                lease.turn.fence()
            elif not lease.turn.fenced:
                lease.stop_timer.cancel()
                lease.stop_timer = self._timer(lease.turn, self._ends(asked))
        return not renewal.unknown

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection[Any]]:
        """One that failed, or whose answer was not waited for, is not asked again."""
        connection, self._connection = self._connection, None
        if connection is None or connection.closed:
            connection = await self._connect()
        try:
            yield connection
        except BaseException:
            await connection.close()
            raise
        self._connection = connection


def _same(turn: HeldTurn, candidate: Candidate) -> bool:
    return (turn.turn_id, turn.attempt) == (candidate.turn_id, candidate.attempt)
