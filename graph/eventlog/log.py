"""The log's short transactions: start, claim, take over, cancel, end, read, fold.

Appends of a running turn do not come this way; they go through the process's one `Writer`.
"""

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection, AsyncCursor, IsolationLevel
from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from graph import measures
from graph.eventlog import errors
from graph.eventlog.connection import LOCK_PATIENCE_ALONE, SILENCE, bound
from graph.eventlog.events import CancelReason, Event, TurnStatus, encode_data, timestamp
from graph.eventlog.queries import query
from graph.eventlog.snapshot import Snapshot, fold, judge

Row = dict[str, Any]
Pool = AsyncConnectionPool[AsyncConnection[Row]]
TITLE_MAX_CHARACTERS = 80
CANCEL_LOCK_TIMEOUT_SECONDS = 3
POOL_TIMEOUT_SECONDS = 5
NOT_PREPARED = ("26000", "42P05")  # a prepared statement that another's connection has: a pooler came between
QUOTA_SECONDS = 60
RENEW_AGAIN_SECONDS = (0.01, 0.02, 0.05)
PREPARE_THRESHOLD = 5  # executions; never behind PgBouncer in transaction mode


class Claimant(NamedTuple):
    """A worker with a free place. `asked`, its clock before the claim, tells it when the lease ends at the latest."""

    worker: str
    lease_seconds: float
    asked: float


class Turn(NamedTuple):
    """A turn's row as `start` leaves it. `first_seq` is the seq of its `turn_started`; `began` that event, when this
    start has made the turn; `claim` the claimant's, who is to run it."""

    session_id: UUID
    turn_id: UUID
    first_seq: int
    status: TurnStatus
    began: Event | None
    claim: "Claim | None" = None

    @property
    def created(self) -> bool:
        return self.began is not None


class Quota(NamedTuple):
    """How many turns one owner may begin in a minute, and have under way at once; 0: any number."""

    per_minute: int
    at_once: int


UNLIMITED = Quota(0, 0)


class Candidate(NamedTuple):
    """A turn that could be claimed; `attempt` is what claim compares with, `spent` counts real tries so far."""

    session_id: UUID
    turn_id: UUID
    attempt: int = 0
    spent: int = 0


class Claim(NamedTuple):
    session_id: UUID
    turn_id: UUID
    attempt: int
    first_seq: int
    next_seq: int
    age_seconds: float
    question: str | None = None

    @property
    def fresh(self) -> bool:
        """The first attempt at a session's first turn: there is no checkpoint yet."""
        return self.first_seq == 1 and self.attempt == 1


class Ended(NamedTuple):
    turn_id: UUID
    status: TurnStatus
    last_seq: int


class Gate(NamedTuple):
    """A session's newest seq and whether a turn is queued or running, of one instant."""

    last_seq: int
    active: bool


def open_pool(
    database_url: str,
    *,
    max_size: int,
    prepare: Callable[[], bool] = lambda: False,
    connection_class: type[AsyncConnection[Row]] = AsyncConnection,
) -> Pool:
    """The process's one pool, not opened yet. `prepare` tells whether statements may be prepared by now."""

    async def configure(connection: AsyncConnection[Row]) -> None:
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)

    async def check(connection: AsyncConnection[Row]) -> None:
        connection.prepare_threshold = PREPARE_THRESHOLD if prepare() else None
        await _check(connection)

    return AsyncConnectionPool(
        database_url,
        connection_class=connection_class,
        min_size=1,
        max_size=max_size,
        open=False,
        configure=configure,
        timeout=POOL_TIMEOUT_SECONDS,
        check=check,
        kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": None, **SILENCE},
        name="pulseline",
    )


async def _check(connection: AsyncConnection[Row]) -> None:
    """Asks the server only when its side of the socket has something to say, which on an idle connection is its end."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def _title(message: str) -> str:
    words = " ".join(message.split())
    return words if len(words) <= TITLE_MAX_CHARACTERS else words[: TITLE_MAX_CHARACTERS - 1].rsplit(" ", 1)[0] + "…"


async def _ask_quota(connection: AsyncConnection[Row], parameters: Row) -> AsyncCursor[Row] | None:
    """Of a start without a quota: nothing."""
    if parameters["owner_hash"] is None:
        return None
    await connection.execute(query("start_count"), parameters)
    return await connection.execute(query("start_quota"), parameters)


def _refuse_beyond_quota(asked: Row | None) -> None:
    assert asked is not None
    if not asked["let_in"]:
        raise errors.TooManyTurns(asked["active"], asked["seconds"])


def _claim_parameters(candidate: Candidate, worker: str, lease_seconds: float, reason: str = "") -> Row:
    """`reason` is said to the readers of an attempt that is not the first."""
    return {**candidate._asdict(), "worker": worker, "lease_seconds": lease_seconds, "reason": reason}


class Renewal(NamedTuple):
    """Positions: of the leases that last on, and of those of which nothing is known, for somebody holds their rows."""

    kept: set[int]
    unknown: set[int]


LeaseKey = tuple[UUID, UUID, int, float]  # session, turn, attempt, seconds


async def renew(connection: AsyncConnection[Any], held: Sequence[LeaseKey]) -> Renewal:
    """Renews these leases; those whose rows somebody holds are tried again, for an append holds them for a moment."""
    kept, unknown = set[int](), list(range(len(held)))
    for pause in (*RENEW_AGAIN_SECONDS, None):
        keys = [held[position] for position in unknown]
        renewed = await _positions(connection, "renew", keys)
        kept.update(unknown[n] for n in renewed)
        if len(renewed) < len(keys):
            still = await _positions(connection, "still_held", keys) - renewed
            unknown = [unknown[n] for n in sorted(still)]
        else:
            unknown = []
        if not unknown or pause is None:
            break
        await asyncio.sleep(pause)
    return Renewal(kept, set(unknown))


async def _positions(connection: AsyncConnection[Any], statement: str, held: Sequence[LeaseKey]) -> set[int]:
    """Planned each time: a plan from when there were few turns would read all of them for each that is held."""
    sessions, turns, attempts, seconds = zip(*held, strict=True)
    parameters = {
        "sessions": list(sessions),
        "turns": list(turns),
        "attempts": list(attempts),
        "seconds": list(seconds),
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query(statement), parameters, prepare=False)
        return {row["n"] - 1 for row in await cursor.fetchall()}


def tail_parameters(cursors: Mapping[UUID, int], limit: int) -> Row:
    return {
        "sessions": ",".join(map(str, cursors)),
        "after": ",".join(map(str, cursors.values())),
        "limit": limit,
    }


class Log:
    """Every method but `prune` is one transaction, or one statement; none holds a connection while it waits."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Row]]:
        try:
            async with self.pool.connection() as connection:
                yield connection
        except LockNotAvailable as error:
            raise errors.TurnLocked from error
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
            if error.sqlstate in NOT_PREPARED:
                raise errors.DatabaseUnavailable from error
            raise  # the caller's fault
        except (psycopg.Error, PoolTimeout) as error:
            raise errors.DatabaseUnavailable from error

    @asynccontextmanager
    async def _transaction(self, *, pipeline: bool = False) -> AsyncIterator[AsyncConnection[Row]]:
        """With `pipeline` all statements go in one flight; their results can be read after it."""
        async with self._connection() as connection, AsyncExitStack() as stack:
            if pipeline:
                await stack.enter_async_context(connection.pipeline())
            await stack.enter_async_context(connection.transaction())
            await bound(connection, pipeline=pipeline)
            yield connection

    async def _rows(self, statement: str, /, **parameters: Any) -> list[Row]:
        async with self._connection() as connection:
            return await (await connection.execute(query(statement), parameters)).fetchall()

    async def start(
        self,
        session_id: UUID,
        owner: str,
        request_id: str,
        message: str,
        replaces: UUID | None = None,
        given: Mapping[str, Any] | None = None,
        quota: Quota = UNLIMITED,
        turn_id: UUID | None = None,
        claimant: Claimant | None = None,
    ) -> Turn:
        """Commits a queued turn and its `turn_started`. The same request_id gives the same turn, never a second. A turn
        that is made here is claimed for the `claimant`, if there is one, in the same transaction.

        `given` are the fields that only another graph's turn has: `command`, `input`.

        Raises SessionNotFound (another owner's, or erased), SessionBusy, NotTheLastTurn, TooManyTurns. After
        DatabaseUnavailable nobody knows whether there is a turn `turn_id`, and whether the claimant has it.
        """
        turn_id = turn_id or uuid4()
        data = {"message": message, "request_id": request_id, "turn_id": str(turn_id), **(given or {})}
        if replaces is not None:
            data["replaces"] = str(replaces)
        title = _title(message)
        parameters = {
            "session_id": session_id,
            "owner": owner,
            "title": title,
            "turn_id": turn_id,
            "request_id": request_id,
            "replaces": replaces,
            "data": encode_data(data, timestamp()),
            "owner_hash": sha256(owner.encode()).digest() if any(quota) else None,
            "window_seconds": QUOTA_SECONDS,
            **quota._asdict(),
        }
        while True:  # again only when the active turn that was in the way ended in between
            turn = await self._try_start(parameters, claimant)
            if turn is not None:
                return turn

    async def _try_start(self, parameters: Row, claimant: Claimant | None) -> Turn | None:
        """One flight. For a stranger the first statement gives no row and the others insert nothing.

        With `replaces` it may have made a session in which there is nothing to replace: that is rolled back.
        """
        replaces = parameters["replaces"] is not None
        claimed: AsyncCursor[Row] | None = None
        async with self._transaction(pipeline=not replaces) as connection:
            asked = await _ask_quota(connection, parameters)
            session = await connection.execute(query("start_session"), parameters)
            await connection.execute(query("start_turn"), parameters)
            await connection.execute(query("start_event"), parameters)
            result = await connection.execute(query("start_result"), parameters)
            if replaces and session.rowcount and not result.rowcount:
                raise errors.NotTheLastTurn
            if claimant is not None:  # no lock_turn: until the commit nobody else can append to this turn, or end it
                new = Candidate(parameters["session_id"], parameters["turn_id"])
                claimed = await connection.execute(query("claim"), _claim_parameters(new, *claimant[:2]))
        if asked is not None:
            _refuse_beyond_quota(await asked.fetchone())
        if await session.fetchone() is None:
            raise errors.SessionNotFound
        row = await result.fetchone()
        if row is None:
            return None
        if row["request_id"] != parameters["request_id"]:
            raise errors.SessionBusy
        turn = Turn(parameters["session_id"], row["turn_id"], row["first_seq"], row["status"], None)
        if turn.turn_id != parameters["turn_id"]:
            return turn
        measures.STARTED.inc()
        began = Event(turn.session_id, turn.first_seq, turn.turn_id, 0, "turn_started", parameters["data"])
        if claimed is None or (claim := await claimed.fetchone()) is None:
            return turn._replace(began=began)
        return turn._replace(began=began, status="running", claim=Claim(turn.session_id, turn.turn_id, **claim))

    async def candidates(self, limit: int) -> list[Candidate]:
        return [Candidate(**row) for row in await self._rows("candidates", limit=limit)]

    async def claim(self, candidate: Candidate, worker: str, lease_seconds: float, reason: str) -> Claim | None:
        """Takes the turn for one attempt, or None when another was first, or holds its row. A later attempt appends
        `reset`."""
        parameters = _claim_parameters(candidate, worker, lease_seconds, reason)
        try:
            async with self._transaction(pipeline=True) as connection:
                await connection.execute(f"set local lock_timeout = '{LOCK_PATIENCE_ALONE}'")
                await connection.execute(query("lock_turn"), parameters)
                result = await connection.execute(query("claim"), parameters)
        except errors.TurnLocked:
            return None
        row = await result.fetchone()
        measures.TAKEN_OVER.inc(int(row is not None and row["attempt"] > 1))
        return Claim(candidate.session_id, candidate.turn_id, **row) if row else None

    async def hand_back(self, session_id: UUID, turn_id: UUID, attempt: int, *, excuse: bool = True) -> bool:
        """By the worker that held the attempt and lives: it costs the turn nothing; with `excuse` also when another has
        taken over since. Tells whether the turn was still its own."""
        parameters = {"session_id": session_id, "turn_id": turn_id, "attempt": attempt}
        async with self._transaction(pipeline=True) as connection:
            await connection.execute(f"set local lock_timeout = '{LOCK_PATIENCE_ALONE}'")
            given = await connection.execute(query("hand_back"), parameters)
            if excuse:  # of a turn that was given back just now: nothing
                await connection.execute(query("excuse"), parameters)
        return bool(given.rowcount)

    async def cancel(self, session_id: UUID, owner: str | None, turn_id: UUID | None, reason: CancelReason) -> Ended:
        """Takes the pen: raises the attempt, folds the tokens and appends `cancelled`, in one transaction.

        Idempotent: a turn that had ended says how. `owner=None` is an operator. Raises SessionNotFound, TurnNotFound.
        """
        if owner is not None and not await self._rows("owned", session_id=session_id, owner=owner):
            raise errors.SessionNotFound
        found = await self._rows("turn_to_cancel", session_id=session_id, turn_id=turn_id)
        if not found:
            raise errors.TurnNotFound
        return await self._end(Candidate(session_id, found[0]["turn_id"]), "cancelled", {"reason": reason})

    async def lose(
        self, candidate: Candidate, code: str, message: str, *, retryable: bool, held: bool = False
    ) -> Ended:
        """Ends a turn that no worker can go on with, while its lease is still run out and its tries still count, or as
        the worker that holds it.

        The content is what the log has of the answer. Raises TurnNotFound, and TurnLocked: only who holds the turn
        waits for its row.
        """
        data = {"code": code, "message": message, "retryable": retryable}
        return await self._end(candidate, "error", data, candidate.attempt, held)

    async def _end(
        self, turn: Candidate, status: str, data: Row, attempt: int | None = None, held: bool = False
    ) -> Ended:
        waits = held or attempt is None
        patience = f"{CANCEL_LOCK_TIMEOUT_SECONDS}s" if waits else LOCK_PATIENCE_ALONE
        parameters = {
            **turn._asdict(),
            "status": status,
            "attempt": attempt,
            "held": held,
            "data": encode_data(data, timestamp()),
        }
        async with self._transaction(pipeline=True) as connection:
            await connection.execute(f"set local lock_timeout = '{patience}'")
            await connection.execute(query("lock_turn"), parameters)
            ended = await connection.execute(query("end_by_anyone"), parameters)
            result = await connection.execute(query("turn"), parameters)
        row = await result.fetchone()
        if row is None:
            raise errors.TurnNotFound
        if ended.rowcount:
            measures.ENDED.labels(status, data.get("code", "")).inc()
        return Ended(**row)

    async def gate(self, session_id: UUID, owner: str) -> Gate:
        rows = await self._rows("tail_gate", session_id=session_id, owner=owner)
        if not rows:
            raise errors.SessionNotFound
        return Gate(**rows[0])

    async def silent(self, sessions: Sequence[UUID]) -> dict[UUID, bool]:
        """Of these sessions those that are not erased, and whether a turn of theirs is under way."""
        rows = await self._rows("silent", sessions=",".join(map(str, sessions)))
        return {sessions[row["n"] - 1]: row["active"] for row in rows}

    async def read(self, cursors: dict[UUID, int], limit: int) -> list[Event]:
        """The next events (at most `limit` a session) of many sessions, each after its cursor, in order."""
        sessions = list(cursors)
        async with self._connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query("tail"), tail_parameters(cursors, limit))
            return [Event(sessions[n - 1], *columns) for n, *columns in await cursor.fetchall()]

    async def events(self, session_id: UUID) -> list[Event]:
        """A session's events without the tokens of ended turns, of one instant."""
        rows = await self._rows("snapshot", session_id=session_id)
        return [Event(session_id=session_id, **row) for row in rows]

    async def own_events(self, session_id: UUID, owner: str) -> list[Event]:
        """As `events`; of a session that is another's, erased or not there yet: none."""
        rows = await self._rows("owned", session_id=session_id, owner=owner)
        return await self.events(session_id) if rows else []

    async def snapshot(self, session_id: UUID, owner: str) -> Snapshot:
        events = await self.events(session_id)
        rows = await self._rows("session_head", session_id=session_id, owner=owner)
        if not rows:  # asked last: what is erased in between is not found
            raise errors.SessionNotFound
        snapshot = fold(session_id, events, rows[0]["title"])
        judge(snapshot, rows[0]["feedback"])
        return snapshot

    async def forget_starts(self) -> None:
        async with self._connection() as connection:
            await connection.execute(query("forget_starts"), {"window_seconds": QUOTA_SECONDS})

    async def prune(self, age_seconds: float, limit: int) -> int:
        """Removes the tokens of up to `limit` turns that ended longer ago than that, each turn's in a transaction of
        its own; gives how many turns."""
        turns = await self._rows("prunable", age_seconds=age_seconds, limit=limit)
        async with self._connection() as connection:
            return sum([(await connection.execute(query("prune"), turn)).rowcount for turn in turns])

    async def secret(self, name: str, fresh: str) -> str:
        """The secret that all replicas share; `fresh` becomes it when there is none yet."""
        async with self._connection() as connection:
            await connection.execute(query("make_secret"), {"name": name, "value": fresh})
        return str((await self._rows("secret", name=name))[0]["value"])
