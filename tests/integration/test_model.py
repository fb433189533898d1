"""The laws under any history: two replicas' writers and hubs on a real Postgres, step by step and several at once.

An independent checker reads the tables after every step. `LAWS_EXAMPLES=1000 pytest tests/integration/test_model.py`
looks for longer.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from psycopg import AsyncConnection

from functions.frames import encode
from graph.eventlog import hub as hub_module
from graph.eventlog import log as log_module
from graph.eventlog.errors import Fenced, NotTheLastTurn, SessionBusy, SessionNotFound, TurnLocked, TurnNotFound
from graph.eventlog.events import Event
from graph.eventlog.hub import Frame, Hub, Reader
from graph.eventlog.log import Candidate, Claim, Claimant, open_pool, renew
from graph.eventlog.log import Row as LogRow
from graph.eventlog.sessions import Sessions
from graph.eventlog.snapshot import Snapshot
from graph.eventlog.writer import HeldTurn, Writer
from tests.conftest import FreshDatabase, Say
from tests.faults.relay import Relay, relaying
from tests.support.checker import History, Row, TurnRow, told
from tests.support.turns import OWNER, done, token

EXAMPLES = int(os.environ.get("LAWS_EXAMPLES", "24"))
STEPS_AN_EXAMPLE = 50
SESSIONS = 2
SEED = st.integers(0, 2**32 - 1)
POLL_SECONDS = 0.02
STEP_SECONDS = 15.0
CAUGHT_UP_SECONDS = 8.0
HESITATION_SECONDS = 0.004
IN_MID_STATEMENT_SECONDS = 0.03
# For a turn's row: steps at once refuse each other as they do in production; a step alone waits for what the one before
# has left under way, however slow the machine is.
PATIENT: dict[str, Any] = {"LOCK_PATIENCE_ALONE": "5s", "RENEW_AGAIN_SECONDS": (0.02,) * 250}
HASTY = {name: vars(log_module)[name] for name in PATIENT}
NOTE = """insert into notes select %s, %s, t.attempt, t.status, t.ended_at = now() from turns t
 where t.session_id = %s and t.turn_id = %s"""
TABLES = """select s,
  (select coalesce(json_agg(json_build_array(seq, turn_id, attempt, type, data::text) order by seq), '[]')
     from events where session_id = s),
  (select coalesce(json_agg(json_build_array(turn_id, status, attempt, first_seq, last_seq, pruned_at is not null)
          order by first_seq), '[]') from turns where session_id = s),
  (select json_agg(n) from notes n where session_id = s and (attempt <> held or not (status = 'running' or ending)))
  from unnest(%(sessions)s::uuid[]) as s"""


@dataclass(eq=False)
class Replica:
    """A process that runs turns and one hub. Deaf, its hub hears of nothing and must poll."""

    hub: Hub
    writer: Writer
    relay: Relay
    deaf: bool = False


@dataclass(eq=False)
class Held:
    """One attempt, with the diary of what its worker handed in and what it was told is committed."""

    turn: HeldTurn
    replica: Replica
    handed: str = ""
    committed: str = ""
    ended: bool = False


@dataclass(eq=False)
class Reading:
    """`pages` reads the table in small pages; without a hub's reader that is all it does."""

    session_id: UUID
    start: int
    reader: Reader | None
    watching: ExitStack
    cursor: int
    page: int
    frames: list[bytes] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class World:
    """What lives as long as the test: one event loop, one database, two replicas. Every example has fresh sessions."""

    url: str
    runner: asyncio.Runner
    log: Sessions
    observer: psycopg.Connection[Any]
    killer: AsyncConnection[Any]
    replicas: list[Replica]
    histories: dict[UUID, History]
    steps: Counter[str]
    announced_wrongly: list[BaseException]
    failure: BaseException | None = None


class Hesitant(Sessions):
    """Between what its transactions have done and their commit there is time for others."""

    @asynccontextmanager
    async def _transaction(self, *, pipeline: bool = False) -> AsyncIterator[AsyncConnection[LogRow]]:
        async with super()._transaction(pipeline=pipeline) as connection:
            yield connection
            await asyncio.sleep(random.choice((0, HESITATION_SECONDS)))


def _row(event: Event) -> Row:
    return Row(event.seq, str(event.turn_id), event.attempt, event.type, event.data)


@asynccontextmanager
async def open_world(url: str, runner: asyncio.Runner) -> AsyncIterator[World]:
    histories: dict[UUID, History] = {}
    replicas: list[Replica] = []
    announced_wrongly: list[BaseException] = []
    async with AsyncExitStack() as stack:
        observer = stack.enter_context(psycopg.connect(url, autocommit=True))
        observer.execute("create table notes (session_id uuid, attempt int, held int, status text, ending bool)")

        def connecting(through: str) -> Callable[[], Awaitable[AsyncConnection[Any]]]:
            async def connect() -> AsyncConnection[Any]:
                return await AsyncConnection.connect(through, autocommit=True, prepare_threshold=5)

            return connect

        def committed(mine: int) -> Callable[[list[Event]], None]:
            def announce(events: list[Event]) -> None:
                try:
                    _check_committed(observer, events)
                    for event in events:
                        histories[event.session_id].announced(_row(event))
                except BaseException as wrong:  # a writer goes on after that
                    announced_wrongly.append(wrong)
                for n, replica in enumerate(replicas):
                    if n == mine and not replica.deaf:
                        replica.hub.publish(events)
                    elif not replica.deaf:
                        replica.hub.hint({event.session_id for event in events})

            return announce

        log = Hesitant(await stack.enter_async_context(open_pool(url, max_size=10)))
        server = urlsplit(url).netloc.rpartition("@")[2]
        for n in range(2):
            hub = await stack.enter_async_context(Hub(log.read, encode, POLL_SECONDS).running())
            relay = await stack.enter_async_context(relaying(server))
            connect = connecting(url.replace(server, relay.address))
            writer = await stack.enter_async_context(Writer(connect, committed(n)))
            replicas.append(Replica(hub, writer, relay))
        killer = await stack.enter_async_context(await connecting(url)())
        yield World(url, runner, log, observer, killer, replicas, histories, Counter(), announced_wrongly)


def _check_committed(observer: psycopg.Connection[Any], events: list[Event]) -> None:
    """Law 1: what a writer announces, another connection can read."""
    for event in events:
        found = observer.execute(
            "select turn_id, attempt, type, data::text from events where session_id = %s and seq = %s",
            [event.session_id, event.seq],
        ).fetchone()
        if found is None and _is_pruned(observer, event):
            continue
        assert found == event[2:], f"law 1: {event} is announced, the table has {found}"


def _is_pruned(observer: psycopg.Connection[Any], event: Event) -> bool:
    gone = observer.execute("select pruned_at is not null from turns where turn_id = %s", [event.turn_id]).fetchone()
    erased = observer.execute("select deleted_at is not null from sessions where session_id = %s", [event.session_id])
    return bool((gone and gone[0] and event.type == "token") or (erased.fetchone() or [False])[0])


Step = Callable[[int, int], Awaitable[bool]]


class Conversations(RuleBasedStateMachine):
    """A step is (what, who, how much); the two numbers pick among what there is, so that every example shrinks well."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.log = self.world.log
        self.sessions = [uuid4() for _ in range(SESSIONS)]
        self.erased: set[UUID] = set()
        self.held: list[Held] = []
        self.readings: list[Reading] = []
        self.racing = False
        self.past: list[str] = []
        for session_id in self.sessions:
            self.world.histories[session_id] = History()
        for replica in self.world.replicas:
            replica.deaf = False

    # What can happen. Each tells whether it did anything.

    async def start(self, who: int, how: int) -> bool:
        """A request_id may have been sent before; `how` may ask to replace the newest turn, or to claim the new one."""
        session_id = self._session(who)
        request_id = f"request-{how % 12}"
        before = self._turns(session_id)
        replaces = UUID(before[-1].turn_id) if before and how % 5 == 0 else None
        known = self._requests(session_id).get(request_id)
        busy = any(turn.status in ("queued", "running") for turn in before)
        try:
            claimant = Claimant("starter", 0 if how % 2 else 60, 0) if how % 3 == 0 else None
            turn = await self.log.start(session_id, OWNER, request_id, f"question {how}", replaces, claimant=claimant)
        except SessionNotFound:
            assert session_id in self.erased
            return True
        except SessionBusy:
            assert self.racing or (busy and known is None)
            return True
        except NotTheLastTurn:
            assert self.racing or (replaces is not None and known is None)
            return True
        assert self.racing or (str(turn.turn_id) == known) == (known is not None), "the same request is the same turn"
        assert self.racing or turn.created == (known is None and not busy)
        assert (turn.claim is not None) == (turn.created and claimant is not None), "who starts a turn claims it"
        if turn.claim is not None:
            assert turn.claim.attempt == 1
            self._hold(turn.claim, how)
        return True

    async def claim(self, who: int, how: int) -> bool:
        """A claim or a take-over, perhaps by a worker who saw the turn long ago; half of the leases run out at once."""
        turns = self._turns(self._session(who))
        if not turns:
            return False
        seen = turns[-1]
        attempt = seen.attempt - 1 if how % 7 == 6 else seen.attempt
        free = self._free(seen.turn_id)
        candidate = Candidate(self._session(who), UUID(seen.turn_id), attempt)
        claim = await self.log.claim(candidate, f"worker {how % 2}", 0 if how % 2 else 60, "worker_lost")
        assert self.racing or (claim is not None) == (free and attempt == seen.attempt), (seen, free, claim)
        if claim is None:
            return True
        self._hold(claim, how)
        return True

    def _hold(self, claim: Claim, how: int) -> None:
        turn = HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)
        self.held.append(Held(turn, self.world.replicas[how // 2 % 2]))

    async def answer(self, who: int, how: int) -> bool:
        """The usual beginning, so that the rest has something to disturb."""
        return await self.start(who, how) and await self.claim(who, how) and await self.emit(who, how)

    async def emit(self, who: int, how: int) -> bool:
        """Tokens and, mostly, a wait for their commit. Whoever lost the turn is a zombie, and learns it."""
        held = self._held(who)
        if held is None or (held.ended and self.racing):
            return False
        tokens = [token(f"{random.getrandbits(16)} ") for _ in range(how % 6)]
        stands = self._stands(held)
        try:
            for new in tokens:
                await held.replica.writer.append(held.turn, new)
                held.handed += new.data["content"]
                if how % 3 == 0:
                    await held.replica.writer.flush(held.turn)
            if how % 4 and tokens:
                await self._flush(held, stands)
        except Fenced:
            self._fenced(held, stands)
        return True

    async def finish(self, who: int, how: int) -> bool:
        """The worker ends its turn, in the same breath as its last words."""
        held = self._held(who)
        if held is None or (held.ended and self.racing):
            return False
        stands, held.ended = self._stands(held), True
        try:
            await held.replica.writer.append(held.turn, token("end."))
            held.handed += "end."
            await held.replica.writer.append(held.turn, done(held.turn, held.handed))
            await self._flush(held, stands)
        except Fenced:
            self._fenced(held, stands)
        return True

    async def _flush(self, held: Held, stands: bool) -> None:
        handed = held.handed
        await held.replica.writer.flush(held.turn)
        assert self.racing or stands, "law 3: a stale attempt's append was accepted"
        held.committed = handed

    def _fenced(self, held: Held, stands: bool) -> None:
        assert self.racing or not stands, "the holder of a turn was refused"
        self.held = [other for other in self.held if other is not held]

    async def checkpoint(self, who: int, how: int) -> bool:
        held = self._held(who)
        if held is None or (held.ended and self.racing):
            return False
        turn, stands = held.turn, self._stands(held)
        parameters = (turn.session_id, turn.attempt, turn.session_id, turn.turn_id)
        try:
            if how % 2:
                await held.replica.writer.append(turn, token("with it "))
                held.handed += "with it "
            await held.replica.writer.write(turn, [(NOTE, parameters, False)])
            assert self.racing or stands, "law 3: a stale attempt's checkpoint was written"
        except Fenced:
            self._fenced(held, stands)
        return True

    async def cancel(self, who: int, how: int) -> bool:
        session_id = self._session(who)
        turns = self._turns(session_id)
        picked = turns[how % len(turns)] if turns and how % 3 == 0 else None
        active = [turn for turn in turns if turn.status in ("queued", "running")]
        aim = picked or next(iter(active), None) or (turns[-1] if turns else None)
        try:
            ended = await self.log.cancel(session_id, OWNER, picked and UUID(picked.turn_id), "user_initiated")
        except (SessionNotFound, TurnNotFound):
            assert self.racing or aim is None
            return False
        assert ended.status in ("done", "cancelled", "error")
        if not self.racing:
            assert aim is not None
            was = aim.status if aim.last_seq else "cancelled"
            assert (str(ended.turn_id), ended.status) == (aim.turn_id, was)
        return True

    async def lose(self, who: int, how: int) -> bool:
        turns = self._turns(self._session(who))
        if not turns:
            return False
        seen = turns[-1]
        free = self._free(seen.turn_id)
        candidate = Candidate(self._session(who), UUID(seen.turn_id), seen.attempt - how % 2)
        try:
            ended = await self.log.lose(candidate, "worker_lost", "Nobody answers.", retryable=True)
        except (TurnNotFound, TurnLocked):
            assert self.racing
            return False
        assert self.racing or (ended.status == "error") == ((free and not how % 2) or seen.status == "error")
        return True

    async def hand_back(self, who: int, how: int) -> bool:
        held = self._held(who)
        if held is None:
            return False
        stands = self._stands(held)
        try:
            given = await self.log.hand_back(held.turn.session_id, held.turn.turn_id, held.turn.attempt)
        except TurnLocked:
            assert self.racing
            return False
        assert self.racing or given == stands
        return True

    async def renew(self, who: int, how: int) -> bool:
        """All at once, as a worker does; some with a lease that runs out at once."""
        seconds = 0.0 if how % 2 else 60.0
        keys = [(held.turn.session_id, held.turn.turn_id, held.turn.attempt, seconds) for held in self.held]
        stand = {n for n, held in enumerate(self.held) if self._stands(held)}
        if keys:
            async with self.log.pool.connection() as connection:
                kept = (await renew(connection, keys)).kept
            assert self.racing or kept == stand
        return bool(keys)

    async def prune(self, who: int, how: int) -> bool:
        return await self.log.prune(0, 1 + how % 3) > 0

    async def erase(self, who: int, how: int) -> bool:
        if how % 8:
            return False
        session_id = self._session(who)
        try:
            await self.log.erase(session_id, OWNER)
        except SessionNotFound:
            assert self.racing or session_id in self.erased or not self._turns(session_id)
            return False
        self.erased.add(session_id)
        return True

    async def cut(self, who: int, how: int) -> bool:
        """A writer's connection is killed, or breaks between the next commit and its answer."""
        replica = self.world.replicas[who % 2]
        if how % 3 == 0:
            replica.relay.loses_answer = True
            return True
        return how % 3 == 1 and await self._tell_backend("pg_terminate_backend", replica)

    async def interrupt(self, who: int, how: int) -> bool:
        """A writer's statement is cancelled, as soon as it is seen to wait."""
        replica = self.world.replicas[who % 2]
        connection = replica.writer._connection
        if connection is None or connection.closed:
            return False
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + IN_MID_STATEMENT_SECONDS
        while loop.time() < patience_ends and not await self._waits(connection.info.backend_pid):
            pass
        return await self._tell_backend("pg_cancel_backend", replica)

    async def _waits(self, pid: int) -> bool:
        async with self.log.pool.connection() as observer:
            found = await observer.execute(
                "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'", [pid]
            )
            return await found.fetchone() is not None

    async def _tell_backend(self, function: str, replica: Replica) -> bool:
        connection = replica.writer._connection
        if connection is None or connection.closed:
            return False
        await self.world.killer.execute(f"select {function}(%s)".encode(), [connection.info.backend_pid])
        return True

    async def deafen(self, who: int, how: int) -> bool:
        replica = self.world.replicas[who % 2]
        replica.deaf = not replica.deaf
        return True

    async def watch(self, who: int, how: int) -> bool:
        """A reader that comes with any cursor: through a replica's hub, or paging the table."""
        session_id = self._session(who)
        page, through = 1 + how % 4, how // 4 % 3
        watching = ExitStack()
        if through == 2:
            cursor = how // 12 % (self._history(session_id).last_seq + 1)
            self.readings.append(Reading(session_id, cursor, None, watching, cursor, page))
            return True
        hub = self.world.replicas[through].hub
        with ExitStack() as opening:
            watch = opening.enter_context(hub.watch(session_id))
            try:
                gate = await self.log.gate(session_id, OWNER)
            except SessionNotFound:
                return False
            watching = opening.pop_all()
        cursor = how // 12 % (gate.last_seq + 1)
        reader = hub.reader(watch, gate.last_seq, cursor, active=gate.active)
        self.readings.append(Reading(session_id, cursor, reader, watching, cursor, page))
        return True

    async def read(self, who: int, how: int) -> bool:
        if not self.readings:
            return False
        reading = self.readings[how // 5 % len(self.readings)]
        async with reading.turn:
            return await self._read(reading, 0.001 * (how % 5))

    async def _read(self, reading: Reading, timeout: float) -> bool:
        if reading.reader is None:
            events = await self.log.read({reading.session_id: reading.cursor}, reading.page)
            reading.cursor = events[-1].seq if events else reading.cursor
            reading.frames += [encode(event) for event in events]
            return bool(events)
        frames: list[Frame] = await reading.reader.next(timeout)
        reading.cursor = reading.reader.cursor
        reading.frames += [frame.data for frame in frames]
        return bool(frames)

    async def leave(self, who: int, how: int) -> bool:
        if len(self.readings) < 4:
            return False
        reading = self.readings[how % len(self.readings)]
        async with reading.turn:
            self.readings.remove(reading)
        reading.watching.close()
        self._check_reading(reading)
        return True

    # How it happens.

    STEPS = (
        *("answer", "answer", "answer", "start", "claim", "claim", "emit", "emit", "emit", "finish", "checkpoint"),
        *("watch", "watch", "read", "read", "read", "leave", "renew", "prune"),
        *("cancel", "lose", "hand_back", "erase", "cut", "interrupt", "deafen"),
    )
    RARE = frozenset(STEPS[-7:])

    @initialize(seed=SEED)
    def some_past(self, seed: int) -> None:
        """Turns that ended long ago, and what this example is about: some kinds of steps come often, some never."""
        chance = random.Random(seed)
        self.weights = [chance.choice((0, 1, 1, 4)) if name in self.RARE else 1 for name in self.STEPS]
        for n in range(chance.randrange(3)):
            for name, how in (("start", n + 1), ("claim", 0), ("emit", 5), ("finish", 0)):
                self._run([(name, n % SESSIONS, how)])

    @rule(seed=SEED)
    def then(self, seed: int) -> None:
        self._run(self._steps(seed, 1))

    @rule(seed=SEED)
    def at_once(self, seed: int) -> None:
        self._run(self._steps(seed, 2 + seed % 5))

    def _steps(self, seed: int, count: int) -> list[tuple[str, int, int]]:
        """Drawn here and not by Hypothesis, whose small numbers would make most of the steps the same."""
        chance = random.Random(seed)
        names = chance.choices(self.STEPS, self.weights, k=count)
        return [(name, chance.randrange(SESSIONS), chance.randrange(500)) for name in names]

    def _run(self, steps: list[tuple[str, int, int]]) -> None:
        with self._first_failure():
            self.past.append(str(steps))
            self.racing = len(steps) > 1
            vars(log_module).update(HASTY if self.racing else PATIENT)
            done = self.world.runner.run(self._all(steps))
            for (name, _, _), did in zip(steps, done, strict=True):
                self.world.steps[name if did else "nothing"] += 1
            self.world.steps["at once"] += len(steps) if self.racing else 0
            self._check()

    @contextmanager
    def _first_failure(self) -> Iterator[None]:
        """Races seldom happen twice, and Hypothesis tries again: what it found first is kept, and how it came to it."""
        if self.world.failure is not None:
            raise self.world.failure
        try:
            yield
        except BaseException as failure:
            failure.add_note("\n".join(self.past))
            self.world.failure = failure
            raise

    async def _all(self, steps: list[tuple[str, int, int]]) -> list[bool]:
        async with asyncio.timeout(STEP_SECONDS):
            did: list[bool] = await asyncio.gather(*(getattr(self, name)(who, how) for name, who, how in steps))
            return did

    # What must hold after every step.

    def _check(self) -> None:
        for wrong in self.world.announced_wrongly:
            raise wrong
        snapshots = self.world.runner.run(self._snapshots())
        for session_id, (rows, turns) in self._tables().items():
            if session_id in self.erased:
                assert (rows, turns) == ([], []), "something of an erased session is left"
                continue
            history = self._history(session_id)
            history.look(rows, turns)
            if snapshot := snapshots[session_id]:
                assert told(snapshot.model_dump()) == history.fold(snapshot.last_seq), "law 8"
            else:
                assert (rows, turns) == ([], [])
        for reading in self.readings:
            self._check_reading(reading)
        for held in self.held:
            self._check_diary(held)

    async def _snapshots(self) -> dict[UUID, Snapshot | None]:
        async def snapshot(session_id: UUID) -> Snapshot | None:
            with suppress(SessionNotFound):
                return await self.log.snapshot(session_id, OWNER)
            return None

        return dict(zip(self.sessions, await asyncio.gather(*map(snapshot, self.sessions)), strict=True))

    def _check_reading(self, reading: Reading) -> None:
        if reading.session_id not in self.erased:
            cursor = self._history(reading.session_id).check_reader(reading.start, reading.frames)
            assert cursor == reading.cursor

    def _check_diary(self, held: Held) -> None:
        """What a worker was told is committed stands in the log, in order and once; what it never said does not."""
        if held.turn.session_id in self.erased:
            return
        history = self._history(held.turn.session_id)
        mine = [
            row
            for _, row in sorted(history.rows.items())
            if (row.turn_id, row.attempt, row.type) == (str(held.turn.turn_id), held.turn.attempt, "token")
        ]
        written = "".join(row.content for row in mine)
        assert held.handed.startswith(written), f"{written!r} stands in the log, {held.handed!r} was handed in"
        assert written.startswith(held.committed) or history.holes, f"{held.committed!r} was committed: {written!r}"

    def teardown(self) -> None:
        """Every reader that goes on gets everything, wherever it stands and whatever its hub has not heard."""
        try:
            with self._first_failure():
                self.past.append("at the end")
                self.world.runner.run(self._catch_up())
                self._check()
                for reading in self.readings:
                    last_seq = self._history(reading.session_id).last_seq
                    assert reading.session_id in self.erased or reading.cursor == last_seq, (
                        "law 2: a reader lacks the end"
                    )
        finally:
            for reading in self.readings:
                reading.watching.close()

    async def _catch_up(self) -> None:
        async with asyncio.timeout(CAUGHT_UP_SECONDS):
            await asyncio.gather(*(held.replica.writer.flush(held.turn) for held in self.held), return_exceptions=True)
            await asyncio.gather(*map(self._to_the_end, self.readings))

    async def _to_the_end(self, reading: Reading) -> None:
        while reading.session_id not in self.erased:
            rows, _ = self._tables()[reading.session_id]
            if not rows or reading.cursor >= rows[-1].seq:
                return
            await self._read(reading, 0.5)

    # What the steps look at.

    def _session(self, who: int) -> UUID:
        return self.sessions[who % SESSIONS]

    def _history(self, session_id: UUID) -> History:
        return self.world.histories[session_id]

    def _held(self, who: int) -> Held | None:
        """Mostly the newest, sometimes one that another has taken over from long ago."""
        return random.choice(self.held[-2:] if random.random() < 0.7 else self.held) if self.held else None

    def _tables(self) -> dict[UUID, tuple[list[Row], list[TurnRow]]]:
        """Both sessions' rows and turns, of one instant."""
        found = self.world.observer.execute(TABLES, {"sessions": self.sessions})
        tables = {}
        for session_id, rows, turns, wrong in found:
            assert not wrong, f"law 3: checkpoint writes of a stale attempt: {wrong}"
            tables[session_id] = ([Row(*row) for row in rows], [TurnRow(*turn) for turn in turns])
        return tables

    def _turns(self, session_id: UUID) -> list[TurnRow]:
        found = self.world.observer.execute(
            "select turn_id::text, status, attempt, first_seq, last_seq, pruned_at is not null"
            " from turns where session_id = %s order by first_seq",
            [session_id],
        )
        return [TurnRow(*row) for row in found]

    def _requests(self, session_id: UUID) -> dict[str, str]:
        found = self.world.observer.execute(
            "select request_id, turn_id::text from turns where session_id = %s", [session_id]
        )
        return dict(found.fetchall())

    def _free(self, turn_id: str) -> bool:
        """Whether anybody may claim it."""
        found = self.world.observer.execute(
            "select status in ('queued', 'running') and coalesce(lease_until < now(), true) from turns"
            " where turn_id = %s",
            [turn_id],
        ).fetchone()
        return bool(found and found[0])

    def _stands(self, held: Held) -> bool:
        """Whether this attempt holds its turn."""
        found = self.world.observer.execute(
            "select attempt = %s and status = 'running' from turns where turn_id = %s",
            [held.turn.attempt, held.turn.turn_id],
        ).fetchone()
        return bool(found and found[0]) and not held.turn.fenced


@pytest.mark.direct  # it kills connections of the server by their process, which PgBouncer does not tell
@pytest.mark.timeout(60 + 8 * EXAMPLES)  # an example takes a second, on a machine that does much else some five
def test_every_law_holds_under_any_history(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    for name, value in HASTY.items():
        monkeypatch.setattr(log_module, name, value)  # so that it is put back
    monkeypatch.setattr(hub_module, "RING_MAX_FRAMES", 8)
    monkeypatch.setattr(hub_module, "PAGE_EVENTS", 5)
    monkeypatch.setattr(hub_module, "IDLE_POLL_SECONDS", 2 * POLL_SECONDS)
    with fresh_database() as url, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        world: World = runner.run(stack.enter_async_context(open_world(url, runner)))
        try:
            run_state_machine_as_test(
                type("Here", (Conversations,), {"world": world}),
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS_AN_EXAMPLE,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except BaseException:
            if world.failure is None:
                raise
        finally:
            runner.run(stack.aclose())
    if world.failure is not None:
        raise world.failure
    did = {name: count for name, count in world.steps.items() if name not in ("at once", "nothing")}
    say(
        f"laws: {sum(did.values())} steps did something, {world.steps['at once']} of all ran at once with others; "
        + ", ".join(f"{name} {count}" for name, count in sorted(did.items()))
    )
    assert set(did) == set(Conversations.STEPS), f"never happened: {set(Conversations.STEPS) - set(did)}"
