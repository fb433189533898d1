"""The worker: claims turns, holds their leases, runs them, takes over what others left."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID

import langsmith
import psycopg
from psycopg_pool import PoolTimeout

from functions import logs
from functions.leases import Connect, Leases
from functions.replica import Replica
from graph import measures
from graph.any_graph import AnyGraph
from graph.builder import build_graph, open_parts
from graph.deadlines import Deadlines
from graph.eventlog.errors import DatabaseUnavailable, LogError, TurnLocked
from graph.eventlog.log import Candidate, Claim, Claimant, Log, Turn
from graph.eventlog.outage import Outage
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.writer import HeldTurn, Writer
from graph.failures import FAILURES
from graph.loading import load
from graph.parts import Parts
from graph.run_turn import Turns
from graph.served import Medical, Served

logger = logging.getLogger(__name__)
MAX_ATTEMPTS = 3
LAST_LEASES = 2  # of the last attempt: who is frozen or cut off comes back to it, for nobody may take it over
MAX_CLAIMS = 20  # a turn that is handed back again and again must end some day
POLL_SECONDS = 0.2
PASSED_OVER_SECONDS = 1.0
CLAIMS_AT_ONCE = 4  # of the pool's connections, so that requests get theirs
STOP_SECONDS = 2.0


class Worker:
    """At most `max_turns` at a time; the rest stay queued for any worker."""

    def __init__(self, log: Log, connect: Connect, turns: Turns, *, lease_seconds: float, max_turns: int) -> None:
        self._log, self._turns, self._max_turns = log, turns, max_turns
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.leases = Leases(log, connect, lease_seconds)
        self._places = asyncio.Semaphore(CLAIMS_AT_ONCE)
        self._outage = Outage(logger, "no turn is claimed")
        self._claiming: set[asyncio.Future[None]] = set()
        self._refused: dict[UUID, float] = {}
        self._wanted = asyncio.Event()
        self._stopping = self._leaving = False

    @property
    def running(self) -> int:
        return len(self.leases)

    @contextmanager
    def starting(self, session_id: UUID, turn_id: UUID) -> Iterator[Claimant | None]:
        """Keeps a place for a turn that this process is about to queue, so that its start claims it too, which saves a
        transaction. None: there is no place. A start without an answer may have claimed it all the same."""
        if self._stopping or self._free() <= 0:
            yield None
            return
        loop = asyncio.get_running_loop()
        place = loop.create_future()
        self._claiming.add(place)
        try:
            yield Claimant(self.name, self.leases.seconds, loop.time())
        except BaseException as error:
            if _may_have_committed(error):
                self.leases.unsure(HeldTurn(session_id, turn_id, attempt=1, next_seq=0), place)
            raise
        finally:
            if self._free() <= 0:
                self._wanted.set()  # others may be waiting for the place
            self._claiming.discard(place)
            if not place.done():  # a worker that stops waits no longer
                place.set_result(None)

    def started(self, turn: Turn, claimant: Claimant | None) -> bool:
        """A turn that this process has just queued: it runs at once, without a poll; false where there is no place."""
        if turn.claim is not None and claimant is not None:
            self._begin(turn.claim, claimant.asked, claimant.lease_seconds)
            return True
        if self._stopping or self._free() <= 0:
            return False
        self._claim(Candidate(turn.session_id, turn.turn_id))
        return True

    def holds(self, session_id: UUID) -> bool:
        """Whether a turn of it runs here."""
        return session_id in self.leases

    def queued(self) -> None:
        """A turn waits somewhere, or a lease ran out: look now."""
        self._wanted.set()

    async def silent(self, session_id: UUID) -> None:
        """Somebody waits for a turn of this session, and hears nothing."""
        self.queued()

    async def take(self, candidate: Candidate) -> None:
        """This turn, whoever began it. Returns when it is claimed or another's: a drain before would refuse it."""
        await asyncio.wait((self._claim(candidate),))

    def grown(self, sessions: Iterable[UUID]) -> None:
        """These logs grew by another's hand: a turn of ours there was cancelled or taken."""
        self.leases.grown(sessions)

    def notified(self, works: bool) -> None:
        """Whether `grown` and `queued` can be relied on to be called soon."""
        self.leases.notified(works)

    @asynccontextmanager
    async def working(self) -> AsyncIterator["Worker"]:
        loops = [asyncio.create_task(self._claim_loop()), asyncio.create_task(self.leases.keep())]
        try:
            yield self
        finally:
            await self._stop(loops)

    async def drain(self, seconds: float) -> None:
        """Claims nothing more and gives the running turns `seconds` to end; the rest is handed back on leaving."""
        self._stopping = True
        await self._claims_settled()
        tasks = [lease.task for lease in self.leases]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _stop(self, loops: list["asyncio.Task[None]"]) -> None:
        self._stopping = self._leaving = True
        await self._claims_settled()
        tasks = [*loops, *self._claiming, *(lease.task for lease in self.leases)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
        await self.leases.hand_back()

    async def _claims_settled(self) -> None:
        """A claim under way is waited for: broken off it may have taken a turn that nobody would run."""
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=STOP_SECONDS)

    def _free(self) -> int:
        return self._max_turns - len(self.leases) - len(self._claiming)

    async def _claim_loop(self) -> None:
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.leases.hand_back_given_up()
                if self._free() > 0:
                    await self._look()
            except (LogError, psycopg.Error) as error:
                self._outage.failed(error)
            except Exception:
                logger.exception("looking for turns failed")  # a worker that looks no more would seem well

    async def _look(self) -> None:
        """What was refused is passed over for a moment: the oldest of all may have a row that somebody holds."""
        now = asyncio.get_running_loop().time()
        self._refused = {turn_id: at for turn_id, at in self._refused.items() if now - at < PASSED_OVER_SECONDS}
        found = await self._log.candidates(self._free() + len(self._refused))
        self._outage.over()
        open_ = [one for one in found if one.turn_id not in self._refused and not self.leases.still(one)]
        if claims := [self._claim(candidate) for candidate in open_[: self._free()]]:
            await asyncio.wait(claims)

    def _claim(self, candidate: Candidate) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._take(candidate))
        self._claiming.add(task)
        task.add_done_callback(self._claiming.discard)
        return task

    async def _take(self, candidate: Candidate) -> None:
        """Claims the turn and runs it in a task of its own; ends it when all its attempts are spent."""
        try:
            async with self._places:
                if not self._stopping:
                    await self._try(candidate)
        except (LogError, psycopg.Error) as error:
            self._outage.failed(error)

    async def _try(self, candidate: Candidate) -> None:
        asked = asyncio.get_running_loop().time()
        if candidate.spent >= MAX_ATTEMPTS or candidate.attempt >= MAX_CLAIMS:
            message, retryable = FAILURES["worker_lost"]
            try:
                await self._log.lose(candidate, "worker_lost", message, retryable=retryable)
            except TurnLocked:
                self._refused[candidate.turn_id] = asked
            return
        seconds = self.leases.seconds * (LAST_LEASES if candidate.spent == MAX_ATTEMPTS - 1 else 1)
        claim = await self._log.claim(candidate, self.name, seconds, "worker_lost")
        if claim is None:
            self._refused[candidate.turn_id] = asked
        else:
            self._begin(claim, asked, seconds)

    def _begin(self, claim: Claim, asked: float, seconds: float) -> None:
        turn = HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq, claim.fresh)
        task = asyncio.create_task(self._run(turn, claim), name=f"run {claim.turn_id}")
        self.leases.take(turn, task, asked, seconds)

    async def _run(self, turn: HeldTurn, claim: Claim) -> None:
        logs.speak_of(turn.session_id, turn.turn_id, turn.attempt)
        logger.info("turn claimed")
        try:
            await self._turns.run(turn, claim)
        except Exception:
            logger.exception("a turn was left to its lease", extra={"turn_id": str(turn.turn_id)})
        finally:
            logger.info("turn left")
            self._forget(turn)

    def _forget(self, turn: HeldTurn) -> None:
        if self._leaving:
            return  # what stops now is handed back
        if self._free() <= 0:
            self._wanted.set()  # others may be waiting for the place
        self.leases.drop(turn)


def _may_have_committed(error: BaseException) -> bool:
    """Unless the log has refused it, or it had no connection."""
    if isinstance(error, DatabaseUnavailable):
        return not isinstance(error.__cause__, PoolTimeout)
    return not isinstance(error, LogError)


Serve = Callable[[EventLogSaver], Served]


async def open_served(replica: Replica) -> Serve:
    """The graph that the settings name, or ours, of the parts that they name; loaded, and ready for a question."""
    settings = replica.settings
    if settings.graph is not None:
        graph = await load(settings.graph)
        return lambda saver: AnyGraph(graph, saver)
    parts = open_parts(
        model=settings.model,
        embeddings=settings.embeddings,
        reranker=settings.reranker,
        reranker_key=settings.reranker_key,
        region=settings.region,
        history_tokens=settings.history_tokens,
        pool=replica.log.pool,
    )
    await parts.warm_up()
    return ours(parts)


def ours(parts: Parts) -> Serve:
    """Our graph, made of these parts."""
    return lambda saver: Medical(build_graph(parts).compile(checkpointer=saver), parts.model_name)


@asynccontextmanager
async def open_worker(replica: Replica) -> AsyncIterator[Worker]:
    async with work(replica, await open_served(replica)) as worker:
        yield worker


@asynccontextmanager
async def work(replica: Replica, serve: Serve) -> AsyncIterator[Worker]:
    """The process's one writer, the graph whose checkpoints go through it, and the worker on top of them."""
    settings = replica.settings
    if settings.langsmith == "off":
        langsmith.configure(enabled=False)  # else LANGSMITH_TRACING alone would send away what people write
    deadlines = Deadlines(
        settings.first_token_timeout_seconds, settings.token_timeout_seconds, settings.turn_timeout_seconds
    )
    async with Writer(replica.connect, replica.committed) as writer:
        turns = Turns(serve(EventLogSaver(replica.log.pool, writer)), replica.log, writer, deadlines)
        worker = Worker(
            replica.log,
            replica.connect,
            turns,
            lease_seconds=settings.lease_seconds,
            max_turns=settings.max_turns,
        )
        measures.RUNNING.set_function(lambda: worker.running)
        async with worker.working():
            yield worker
