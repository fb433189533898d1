"""The process's one way into the database for running turns: group commit.

Whatever the turns hand in while one commit is under way goes into the next: one INSERT for all turns' events, their
checkpoint statements behind it, one transaction, one flight. A batch is fenced per turn in the statement itself, so a
stale turn's rows are refused and nobody else's suffer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import AsyncConnection

from graph import measures
from graph.eventlog.connection import LOCK_PATIENCE, LOCK_PATIENCE_ALONE, TRANSACTION_TIMEOUT_SINCE
from graph.eventlog.errors import Fenced, LogError
from graph.eventlog.events import ENDS, Event, NewEvent, encode_data, timestamp
from graph.eventlog.outage import Outage
from graph.eventlog.queries import query

logger = logging.getLogger(__name__)
BUFFER_MAX_EVENTS = 512
BUFFER_MAX_CUSTOM = 16  # a graph's own events, of which each may be large
GATHER_SECONDS = 0.02  # from one commit's begin to the next one's, while nobody waits
GATHER_EVENTS = 64  # so many share a commit's costs well enough
WAIT_FOR_WRITES_SECONDS = 0.05  # a task that wrote nothing has no writes to wait for
PLANS_SECONDS = 1.0
# For a small batch Postgres would plan anew each time, which costs three times as much as to carry it out.
PLAN_FOR_ALL_VALUES = "set plan_cache_mode = force_generic_plan; discard plans"
SEPARATOR = "\x1e"
AGAIN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)
# A process frozen in mid-flight must not hold its turns' locks: cancel waits for them, a little longer than this.
# Not less: a flight to a slow disk or on a starved machine must not be ended.
FLIGHT_TIMEOUT_MS = 2000

# A statement that took too long, or was cancelled. So often in a row, of a turn alone, it or a flight that lasted up to
# its timeout is that turn's own: it would go again for ever, and everybody else wait for it each time.
OVERLONG = "57014"
OVERLONG_TIMES = 10  # half a minute: a disk may stand still for a while

# Refusals that pass. SQLSTATEs by their beginning: no room or no memory; a deadlock, a serialisation failure; a lock
# that was waited for, a statement that took too long or was cancelled.
PASSING = ("53", "40", "55P03", OVERLONG)
# A server that another has replaced, and only reads now; a prepared statement that is not there, behind a new pooler.
PASSING_ELSEWHERE = ("25006", "26000", "42P05")

# Query, parameters. True: these are rows; the query takes the texts of their first column as an array of JSON, and each
# other column as an array.
Statement = tuple[Any, Any, bool]


class AppendFailed(LogError):
    """The database refused an append."""

    code = "append_failed"


@dataclass(eq=False)
class HeldTurn:
    """A turn that this process holds for one attempt. Its events are numbered from `next_seq` by the writer alone."""

    session_id: UUID
    turn_id: UUID
    attempt: int
    next_seq: int
    fresh: bool = False  # see Claim
    on_refused: Callable[[], object] | None = None  # this attempt may write no more
    fenced: bool = False
    failure: Exception | None = None
    has_put: bool = False
    put_failure: BaseException | None = None  # of a checkpoint that nobody waited for
    pending: list[NewEvent] = field(default_factory=list)
    again: "_Part | None" = None  # what the database refused for the moment: it goes before anything newer
    refusals: int = 0  # of that, one after the other
    rests: bool = False  # until the pause after a refusal is over
    overlong: int = 0  # flights of it alone that the server ended for their length, one after the other
    alone: bool = False  # what was refused may be this turn's fault: nobody else's events go with it
    locked: bool = False  # somebody held its row when it was last tried: one looks before it goes again
    jobs: list["_Job"] = field(default_factory=list)
    waiting: list["asyncio.Future[None]"] = field(default_factory=list)
    written: set[str] = field(default_factory=set)  # tasks whose writes were handed in, or are waited for no longer

    @cached_property
    def names(self) -> tuple[str, str]:
        """Of session and turn, as every batch writes them."""
        return str(self.session_id), str(self.turn_id)

    def fence(self) -> None:
        """Called when the database refused an append, or by whoever learns earlier that the turn is lost."""
        if not self.fenced:
            self.fenced = True
            self._refused()

    def fail(self, failure: Exception) -> None:
        """The database refused something of this attempt for good. Its model may be silent: nothing else would tell."""
        if not self.fenced and self.failure is None:
            self.failure = failure
            self._refused()

    def _refused(self) -> None:
        if self.on_refused is not None:
            self.on_refused()


@dataclass(eq=False)
class _Job:
    statements: Sequence[Statement]
    done: "asyncio.Future[None]"


@dataclass(eq=False)
class _Part:
    """One turn's share of a batch."""

    turn: HeldTurn
    rows: list[Event]
    jobs: list[_Job]
    waiting: list["asyncio.Future[None]"]
    settled: bool = False

    @property
    def ends(self) -> str:
        return self.rows[-1].type if self.rows and self.rows[-1].type in ENDS else ""


class Writer:
    """`on_committed` is called, in order, with the rows of every commit after it returned; it must not block."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AsyncConnection[Any]]],
        on_committed: Callable[[list[Event]], None] = lambda events: None,
    ) -> None:
        self._connect = connect
        self._on_committed = on_committed
        self._connection: AsyncConnection[Any] | None = None
        self._touched: dict[HeldTurn, None] = {}
        self._wanted = asyncio.Event()
        self._awaited = asyncio.Event()
        self._gathering = 0  # events since the last batch was taken
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage(logger, "appends wait")
        self._planned_until = 0.0
        self.commits = 0

    async def __aenter__(self) -> "Writer":
        self._task = asyncio.create_task(self._run(), name="writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def append(self, turn: HeldTurn, *events: NewEvent) -> None:
        """Hands events in, one at least; waits only while the turn is BUFFER_MAX_EVENTS ahead of the database, or
        BUFFER_MAX_CUSTOM. Raises Fenced."""
        self._check(turn)
        turn.pending.extend(events)
        self._touch(turn)
        self._gathering += len(events)
        if self._gathering >= GATHER_EVENTS:
            self._awaited.set()
        for event in events:
            if event.task and event.task not in turn.written:
                asyncio.get_running_loop().call_later(WAIT_FOR_WRITES_SECONDS, self._written, turn, event.task)
        if len(turn.pending) > BUFFER_MAX_EVENTS or (
            events[-1].type == "custom" and sum(event.type == "custom" for event in turn.pending) > BUFFER_MAX_CUSTOM
        ):
            await self._next_commit(turn)

    async def flush(self, turn: HeldTurn, *, at_once: bool = True) -> None:
        """Returns when everything that this turn handed in is committed. Raises Fenced when it was refused. Not at
        once: where other turns have handed something in it goes with theirs, GATHER_SECONDS after the last commit
        began at the latest."""
        self._check(turn)
        turn.written.update(event.task for event in turn.pending)
        await self._next_commit(turn, at_once=at_once)

    async def _next_commit(self, turn: HeldTurn, *, at_once: bool = True) -> None:
        future = asyncio.get_running_loop().create_future()
        turn.waiting.append(future)
        self._touch(turn)
        if at_once or len(self._touched) == 1:
            self._awaited.set()
        await future

    async def write(self, turn: HeldTurn, statements: Sequence[Statement], task: str = "") -> None:
        """Commits statements (a checkpoint) under this turn's fence, together with its events so far.

        `task` is the LangGraph task whose writes these are: the event that tells its end has waited for them.
        """
        await self.hand_in(turn, statements, task)

    def hand_in(self, turn: HeldTurn, statements: Sequence[Statement], task: str = "") -> "asyncio.Future[None]":
        """As `write`, without waiting: what the turn hands in later commits with these statements or after them."""
        self._check(turn)
        job = _Job(statements, asyncio.get_running_loop().create_future())
        turn.jobs.append(job)
        turn.has_put = True
        self._written(turn, task)
        return job.done

    def _written(self, turn: HeldTurn, task: str) -> None:
        turn.written.add(task)
        self._touch(turn)

    def _check(self, turn: HeldTurn) -> None:
        if turn.fenced:
            raise Fenced
        if turn.failure is not None:
            raise turn.failure

    def _touch(self, turn: HeldTurn) -> None:
        self._touched[turn] = None
        self._wanted.set()

    async def _gathered(self, began: float) -> None:
        """What comes soon after a commit waits for more, unless somebody waits for it or it is many already: a lone
        token is not delayed, and those of a crowd share the costs of a commit."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(began + GATHER_SECONDS):
                await self._awaited.wait()
        self._awaited.clear()

    async def _run(self) -> None:
        began = float("-inf")
        while True:
            await self._wanted.wait()
            await self._gathered(began)
            began = asyncio.get_running_loop().time()
            self._wanted.clear()
            parts: list[_Part] = []
            try:
                parts = self._take()
                locked = await self._locked([part for part in parts if part.turn.locked])
                self._again(locked)
                free = [part for part in parts if part not in locked]
                together = [part for part in free if not part.turn.alone]
                for batch in (together, *([part] for part in free if part.turn.alone)):
                    if batch:
                        await self._commit(batch)
            except Exception as error:
                logger.exception("append failed")
                await self._drop()
                for part in parts:
                    if not part.settled and part.turn.again is None:
                        _fail(part, error)

    def _take(self) -> list[_Part]:
        stamp = timestamp()
        turns, self._touched, self._gathering = list(self._touched), {}, 0
        parts = []
        for turn in turns:
            if turn.again is not None and _may_write(turn):
                if not turn.rests:
                    self._touch(turn)  # for what came in meanwhile
                    parts.append(turn.again)
                    turn.again = None
            elif (part := _take_part(turn, stamp)) is not None:
                parts.append(part)
        return parts

    async def _commit(self, parts: list[_Part]) -> None:
        """One flight for all. If the database refuses the batch as a whole, each turn goes alone, so that only the one
        at whose door it lies has to wait, or fails."""
        await self._connected()
        began = asyncio.get_running_loop().time()
        try:
            with measures.COMMIT_SECONDS.time():
                accepted = await self._flight(parts)
        except psycopg.Error as error:
            overlong = error.sqlstate == OVERLONG or _timed_out(began)
            for part in parts:
                part.turn.overlong += part.turn.alone and overlong
            if await self._lost_with(error):
                await self._after_lost_answer(parts, error, overlong)
            elif error.sqlstate in PASSING_ELSEWHERE:
                await self._drop()
                self._refused_for_now(parts, error)
            elif isinstance(error, psycopg.errors.LockNotAvailable) and (locked := await self._locked(parts)):
                self._refused_for_now(locked, error)
                if free := [part for part in parts if part not in locked]:
                    await self._commit(free)
            elif len(parts) > 1:
                for part in parts:
                    part.turn.alone = True
                for part in parts:
                    await self._commit([part])
            elif _passes(error) and not (overlong and parts[0].turn.overlong >= OVERLONG_TIMES):
                self._refused_for_now(parts, error)
            else:
                await self._alone(parts[0], error)
        else:
            self._settle([p for n, p in enumerate(parts, 1) if n in accepted])
            _refuse([p for n, p in enumerate(parts, 1) if n not in accepted])

    async def _locked(self, parts: list[_Part]) -> list[_Part]:
        """Those whose rows somebody holds at this moment: one look, however many they are. An append would wait for
        each of them, and everybody else with it. Nobody is accepted or refused by this: only an append does that."""
        if not parts:
            return []
        locked = parts
        try:
            connection = await self._connected()
            found = await connection.execute(query("locked"), _turns([part.turn for part in parts]), prepare=False)
            numbers = {row[0] for row in await found.fetchall()}
            locked = [part for n, part in enumerate(parts, 1) if n in numbers]
        except psycopg.Error:  # they are looked at again
            await self._drop()
        for part in parts:
            part.turn.locked = part in locked
        return locked

    def _lost(self) -> bool:
        return self._connection is None or self._connection.closed or self._connection.broken

    async def _lost_with(self, error: psycopg.Error) -> bool:
        """Whether this error ended the connection: its last words may be read before its end is."""
        if not self._lost() and error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
            await self._drop()
        return self._lost()

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _refused_for_now(self, parts: list[_Part], error: psycopg.Error) -> None:
        if not any(part.turn.refusals for part in parts):  # else it is said already
            logger.warning("append refused for now, %d turns go again: %s", len(parts), type(error).__name__)
        self._again(parts)

    def _again(self, parts: list[_Part]) -> None:
        """After a pause, before anything newer of these turns; others' goes on meanwhile."""
        for part in parts:
            turn = part.turn
            turn.again, turn.rests = part, True
            asyncio.get_running_loop().call_later(_pause_seconds(turn.refusals), self._rested, turn)
            turn.refusals += 1

    def _rested(self, turn: HeldTurn) -> None:
        turn.rests = False
        self._touch(turn)

    async def _after_lost_answer(self, parts: list[_Part], error: psycopg.Error, overlong: bool) -> None:
        """The connection broke: what had committed stays, the rest goes again, each turn alone: what ended the
        connection may lie at one of them."""
        logger.warning("append interrupted, %d turns go again: %s", len(parts), type(error).__name__)
        for part in parts:
            if await self._stands(part):
                self._settle([part])
            elif overlong and part.turn.overlong >= OVERLONG_TIMES:
                await self._alone(part, error)
            else:
                part.turn.alone = True
                self._again([part])

    async def _stands(self, part: _Part) -> bool:
        """Whether the part's last row is in the log. A turn's rows of a batch are all there or none."""
        if not part.rows:
            return False
        row = part.rows[-1]._asdict()
        while True:
            try:
                connection = await self._connected()
                return await (await connection.execute(query("committed"), row)).fetchone() is not None
            except psycopg.Error as error:
                if not await self._lost_with(error):
                    if not _passes(error):
                        raise
                    await asyncio.sleep(_pause_seconds(0))

    async def _alone(self, part: _Part, error: psycopg.Error) -> None:
        """A single turn that the database refuses, and not for now: without its checkpoint statements, whose writer is
        told; else its rows are the fault."""
        if isinstance(error, psycopg.errors.UniqueViolation) and await self._stands(part):
            self._settle([part])
        elif isinstance(error, psycopg.errors.DivisionByZero):
            _refuse([part])
        elif part.jobs:
            _fail_jobs(part, error)
            part.jobs, part.turn.overlong = [], 0
            await self._commit([part])
        else:
            logger.error("append refused for one turn: %s", type(error).__name__)
            _fail(part, error)

    async def _flight(self, parts: list[_Part]) -> set[int]:
        connection = await self._connected()
        await self._plan_anew(connection)
        self.commits += 1
        append = _parameters(parts)
        if not any(part.jobs for part in parts):
            cursor = await connection.execute(query("append"), append, prepare=True)
            return {row[0] for row in await cursor.fetchall()}
        return await self._flight_with_jobs(connection, parts, append)

    async def _plan_anew(self, connection: AsyncConnection[Any]) -> None:
        """One plan for all values stays until the next ANALYZE. One that was made while `turns` was small goes on
        reading all of it, once for each turn of a batch: 88 ms a commit of 500 turns, in a new database's first
        minute."""
        now = asyncio.get_running_loop().time()
        if connection.prepare_threshold is not None and now >= self._planned_until:
            self._planned_until = now + PLANS_SECONDS
            await connection.execute(PLAN_FOR_ALL_VALUES)

    async def _flight_with_jobs(
        self, connection: AsyncConnection[Any], parts: list[_Part], append: dict[str, Any]
    ) -> set[int]:
        """BEGIN … COMMIT in one pipelined flight: no decision in between, so the turns' locks last one round trip."""
        guard = _turns([part.turn for part in parts if part.jobs])
        refusal: psycopg.Error | None = None
        appended = connection.cursor()
        try:
            async with connection.pipeline():
                try:
                    await connection.execute("begin isolation level read committed")
                    if connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
                        await connection.execute(f"set local transaction_timeout = {FLIGHT_TIMEOUT_MS}")
                    await appended.execute(query("append"), append, prepare=True)
                    await connection.execute(query("guard"), guard, prepare=True)
                    for statement, parameters in _merged(s for p in parts for job in p.jobs for s in job.statements):
                        await connection.execute(statement, parameters)
                    await connection.execute("commit")
                except psycopg.Error as error:
                    refusal = error  # the pipeline's end says the same once more, and psycopg would log that
        except psycopg.Error as error:
            refusal = refusal or error
        if refusal is not None:
            await self._roll_back()
            raise refusal
        return {row[0] for row in await appended.fetchall()}

    async def _roll_back(self) -> None:
        """A connection that ends in mid-pipeline can do nothing more, not even this."""
        try:
            if self._connection is not None and not self._lost():
                await self._connection.rollback()
        except psycopg.Error:
            await self._drop()

    async def _connected(self) -> AsyncConnection[Any]:
        """The writer's connection; while the database is away it keeps trying, and the turns wait at their append."""
        attempt = 0
        while self._lost():
            try:
                self._connection = await self._connect()
            except psycopg.OperationalError as error:
                pause = _pause_seconds(attempt)
                self._outage.failed(error)
                await asyncio.sleep(pause)
                attempt += 1
        assert self._connection is not None
        self._outage.over()
        return self._connection

    def _settle(self, parts: list[_Part]) -> None:
        rows = [row for part in parts for row in part.rows]
        try:
            if rows:
                _count(rows)
                self._on_committed(rows)
        except Exception:  # it is committed all the same
            logger.exception("committed events were not announced, readers poll")
        for part in parts:
            part.turn.refusals, part.turn.overlong, part.turn.alone = 0, 0, False
            _resolve(part)


def _pause_seconds(times: int) -> float:
    return AGAIN_SECONDS[min(times, len(AGAIN_SECONDS) - 1)]


def _count(rows: list[Event]) -> None:
    measures.COMMIT_EVENTS.observe(len(rows))
    for row in rows:
        if row.type in ENDS:
            measures.ENDED.labels(row.type, orjson.loads(row.data).get("code", "")).inc()


def _passes(error: psycopg.Error) -> bool:
    state = error.sqlstate or ""
    return state.startswith(PASSING) or state in PASSING_ELSEWHERE


def _timed_out(began: float) -> bool:
    """The server ends the connection of a flight that lasts too long; in mid-pipeline its reason is not read."""
    return asyncio.get_running_loop().time() - began >= FLIGHT_TIMEOUT_MS / 1000


def _resolve(part: _Part) -> None:
    part.settled = True
    for future in (*part.waiting, *(job.done for job in part.jobs)):
        if not future.done():
            future.set_result(None)


def _may_write(turn: HeldTurn) -> bool:
    return not turn.fenced and turn.failure is None


def _take_part(turn: HeldTurn, stamp: str) -> _Part | None:
    """A turn's share of the next batch, or None: it has none, or it fails, alone, because something of it was refused
    before (what comes after would leave a gap) or cannot be encoded."""
    if not _may_write(turn):
        _fail_all(turn)
        return None
    ready = next((n for n, event in enumerate(turn.pending) if event.task and event.task not in turn.written), None)
    pending, jobs = turn.pending[:ready], turn.jobs
    turn.pending, turn.jobs = turn.pending[len(pending) :], []
    waiting, turn.waiting = ([], turn.waiting) if turn.pending else (turn.waiting, [])  # for what is not ready too
    part = _Part(turn, [], jobs, waiting)
    try:
        for event in _joined(pending):
            data = encode_data(event.data, stamp)
            seq = turn.next_seq + len(part.rows)
            part.rows.append(Event(turn.session_id, seq, turn.turn_id, turn.attempt, event.type, data))
    except Exception as error:
        _fail(part, error)
        return None
    turn.next_seq += len(part.rows)
    if part.rows or part.jobs:
        return part
    _resolve(part)  # all that it handed in had been committed with an earlier batch
    return None


def _joined(pending: Sequence[NewEvent]) -> Iterator[NewEvent]:
    """Consecutive tokens become one `token` event."""
    for is_token, events in groupby(pending, key=lambda event: event.type == "token"):
        if is_token:
            yield NewEvent("token", {"content": "".join(event.data["content"] for event in events)})
        else:
            yield from events


def _turns(turns: Sequence[HeldTurn]) -> dict[str, str]:
    return {
        "sessions": ",".join(turn.names[0] for turn in turns),
        "turns": ",".join(turn.names[1] for turn in turns),
        "attempts": ",".join(str(turn.attempt) for turn in turns),
    }


def _parameters(parts: Sequence[_Part]) -> dict[str, Any]:
    numbered = [(n, row) for n, part in enumerate(parts, 1) for row in part.rows]
    return {
        "patience": LOCK_PATIENCE_ALONE if parts[0].turn.alone else LOCK_PATIENCE,
        **_turns([part.turn for part in parts]),
        "ends": ",".join(part.ends for part in parts),
        "last_seqs": ",".join(str(part.rows[-1].seq) if part.ends else "" for part in parts),
        "row_turns": ",".join(str(n) for n, _ in numbered),
        "seqs": ",".join(str(row.seq) for _, row in numbered),
        "types": ",".join(row.type for _, row in numbered),
        "data": SEPARATOR.join(row.data for _, row in numbered),
    }


def _merged(statements: Iterable[Statement]) -> Iterator[tuple[Any, Any]]:
    """Statements of many rows once for the whole batch; then the others."""
    rows: dict[Any, list[Sequence[Any]]] = {}
    singles = []
    for statement, parameters, many in statements:
        if many:
            rows.setdefault(statement, []).extend(parameters)
        else:
            singles.append((statement, parameters))
    for statement, its_rows in rows.items():
        texts, *others = zip(*its_rows, strict=True)
        yield statement, [f"[{','.join(texts)}]", *map(list, others)]
    yield from singles


def _refuse(parts: Sequence[_Part]) -> None:
    measures.FENCED.inc(len(parts))
    for part in parts:
        part.turn.fence()
        _fail(part, Fenced())


def _fail_all(turn: HeldTurn) -> None:
    """What the turn has handed in since something of it was refused."""
    part, again = _Part(turn, [], turn.jobs, turn.waiting), turn.again
    turn.jobs, turn.waiting, turn.again = [], [], None
    for lost in (again, part):
        if lost is not None:
            _fail(lost, turn.failure or Fenced())


def _fail(part: _Part, error: Exception) -> None:
    """Nothing more of its turn is written by this attempt: what came after would leave a gap."""
    failure = error if isinstance(error, LogError) else AppendFailed()
    part.turn.pending.clear()
    part.turn.fail(failure)
    for future in part.waiting:
        _reject(future, failure)
    _fail_jobs(part, failure)


def _fail_jobs(part: _Part, error: Exception) -> None:
    for job in part.jobs:
        _reject(job.done, error)


def _reject(future: "asyncio.Future[None]", error: Exception) -> None:
    """Whoever waits gets it. Where nobody does, as when a fenced turn's tasks were just cancelled, it is no error."""
    if not future.done():
        future.set_exception(error)
        future.exception()
