"""The worker: claims turns, holds their leases, runs them, takes over what others left."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import psycopg

from functions import logs
from functions.replica import Replica
from graph import measures
from graph.any_graph import AnyGraph, load
from graph.builder import build_graph, open_parts
from graph.deadlines import Deadlines
from graph.eventlog.errors import LogError
from graph.eventlog.log import Candidate, Claim, Log
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.writer import HeldTurn, Writer
from graph.failures import FAILURES
from graph.parts import Parts
from graph.run_turn import Turns
from graph.served import Medical, Served

logger = logging.getLogger(__name__)
MAX_ATTEMPTS = 3
POLL_SECONDS = 0.2
CLAIMS_AT_ONCE = 4  # of the pool's connections, so that requests get theirs
FENCE_CHECK_SECONDS = 0.5  # without NOTIFY: how soon a worker learns that its turn was cancelled elsewhere
RENEW_AGAIN_SECONDS = 0.25
LEASE_MARGIN = 1 / 6  # of a lease: so long before it runs out its turn is stopped here
HAND_BACK_SECONDS = 2.0


@dataclass(eq=False)
class _Running:
    """`stop_timer` fences the turn unless its lease is renewed before."""

    turn: HeldTurn
    task: "asyncio.Task[None]"
    stop_timer: asyncio.TimerHandle


class Worker:
    """At most `max_turns` at a time; the rest stay queued for any worker."""

    def __init__(self, log: Log, turns: Turns, *, lease_seconds: float, max_turns: int) -> None:
        self._log, self._turns = log, turns
        self._lease_seconds, self._max_turns = lease_seconds, max_turns
        self._notified = False
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._running: dict[UUID, _Running] = {}
        self._claiming: set[asyncio.Task[None]] = set()
        self._renewing: set[asyncio.Task[bool]] = set()
        self._wanted = asyncio.Event()
        self._renew_now = asyncio.Event()
        self._stopping = False

    @property
    def running(self) -> int:
        return len(self._running)

    def started(self, session_id: UUID, turn_id: UUID) -> None:
        """A turn that this process has just queued: claimed at once, without a poll."""
        if not self._stopping and self._free() > 0:
            self._claim(Candidate(session_id, turn_id))

    def queued(self) -> None:
        """A turn waits somewhere, or a lease ran out: look now."""
        self._wanted.set()

    async def silent(self, session_id: UUID) -> None:
        """Somebody waits for a turn of this session, and hears nothing."""
        self.queued()

    def take(self, candidate: Candidate) -> None:
        """This turn, whoever began it."""
        self._claim(candidate)

    def grown(self, sessions: Iterable[UUID]) -> None:
        """These logs grew by another's hand: a turn of ours there was cancelled or taken."""
        if any(session in self._running for session in sessions):
            self._renew_now.set()

    def notified(self, works: bool) -> None:
        """Whether `grown` and `queued` can be relied on to be called soon."""
        self._notified = works
        self._renew_now.set()

    @property
    def _renew_seconds(self) -> float:
        return self._lease_seconds / 3 if self._notified else min(self._lease_seconds / 3, FENCE_CHECK_SECONDS)

    @asynccontextmanager
    async def working(self) -> AsyncIterator["Worker"]:
        loops = [asyncio.create_task(self._claim_loop()), asyncio.create_task(self._renew_loop())]
        try:
            yield self
        finally:
            await self._stop(loops)

    async def drain(self, seconds: float) -> None:
        """Claims nothing more and gives the running turns `seconds` to end; the rest is handed back on leaving."""
        self._stopping = True
        await self._claims_settled()
        tasks = [running.task for running in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _stop(self, loops: list["asyncio.Task[None]"]) -> None:
        self._stopping = True
        await self._claims_settled()
        held = list(self._running.values())
        tasks = [*loops, *self._claiming, *self._renewing, *(running.task for running in held)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=HAND_BACK_SECONDS)
        await asyncio.gather(*(self._hand_back(running) for running in held))

    async def _claims_settled(self) -> None:
        """A claim under way is waited for: broken off it may have taken a turn that nobody would run."""
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=HAND_BACK_SECONDS)

    async def _hand_back(self, running: _Running) -> None:
        running.stop_timer.cancel()
        turn = running.turn
        if not turn.fenced:
            with suppress(LogError, psycopg.Error, TimeoutError):
                async with asyncio.timeout(HAND_BACK_SECONDS):
                    await self._log.hand_back(turn.session_id, turn.turn_id, turn.attempt)

    def _free(self) -> int:
        return self._max_turns - len(self._running) - len(self._claiming)

    async def _claim_loop(self) -> None:
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            if self._free() > 0:
                await self._look()

    async def _look(self) -> None:
        try:
            candidates = await self._log.candidates(self._free())
        except (LogError, psycopg.Error) as error:
            logger.warning("cannot look for turns: %s", type(error).__name__)
            return
        for first in range(0, len(candidates), CLAIMS_AT_ONCE):
            if not self._stopping:
                some = candidates[first : first + CLAIMS_AT_ONCE]
                await asyncio.wait([self._claim(candidate) for candidate in some])

    def _claim(self, candidate: Candidate) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._take(candidate))
        self._claiming.add(task)
        task.add_done_callback(self._claiming.discard)
        return task

    async def _take(self, candidate: Candidate) -> None:
        """Claims the turn and runs it in a task of its own; ends it when all its attempts are spent."""
        asked = asyncio.get_running_loop().time()
        try:
            if candidate.spent >= MAX_ATTEMPTS:
                message, retryable = FAILURES["worker_lost"]
                await self._log.lose(candidate, "worker_lost", message, retryable=retryable)
                return
            claim = await self._log.claim(candidate, self.name, self._lease_seconds, "worker_lost")
        except (LogError, psycopg.Error) as error:
            logger.warning("cannot claim a turn: %s", type(error).__name__)
            return
        if claim is not None:
            self._begin(claim, asked)

    def _begin(self, claim: Claim, asked: float) -> None:
        turn = HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)
        if earlier := self._running.get(claim.session_id):
            earlier.turn.fence()  # this process lost the lease without having noticed
            earlier.stop_timer.cancel()
        task = asyncio.create_task(self._run(turn, claim), name=f"run {claim.turn_id}")
        self._running[claim.session_id] = _Running(turn, task, self._stop_at(turn, asked))

    def _stop_at(self, turn: HeldTurn, asked: float) -> asyncio.TimerHandle:
        """Before the lease, which was asked for then, runs out: nobody else may find this process still answering."""
        ends = asked + self._lease_seconds * (1 - LEASE_MARGIN)
        return asyncio.get_running_loop().call_at(ends, self._lease_ran_out, turn)

    def _lease_ran_out(self, turn: HeldTurn) -> None:
        logger.warning("a lease could not be renewed, its turn is stopped", extra={"turn_id": str(turn.turn_id)})
        turn.fence()

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
        running = self._running.get(turn.session_id)
        if running is None or running.turn is not turn or self._stopping:
            return
        running.stop_timer.cancel()
        if self._free() <= 0:
            self._wanted.set()  # others may be waiting for the place
        del self._running[turn.session_id]

    async def _renew_loop(self) -> None:
        pause = self._renew_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._renew_now.wait()
            self._renew_now.clear()
            pause = self._renew_seconds if await self._renewed() else min(RENEW_AGAIN_SECONDS, self._renew_seconds)

    async def _renewed(self) -> bool:
        """An answer that does not come is not waited for: another connection may be better."""
        task = asyncio.create_task(self._renew())
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)
        await asyncio.wait((task,), timeout=self._lease_seconds / 3)
        if task.done():
            return task.result()
        task.cancel()
        return False

    async def _renew(self) -> bool:
        held = [running for running in self._running.values() if not running.turn.fenced]
        if not held:
            return True
        asked = asyncio.get_running_loop().time()
        try:
            keys = [(running.turn.session_id, running.turn.turn_id, running.turn.attempt) for running in held]
            kept = await self._log.renew(keys, self._lease_seconds)
        except (LogError, psycopg.Error) as error:
            logger.warning("cannot renew leases: %s", type(error).__name__)
            return False
        for position, running in enumerate(held):
            if running.task.done():
                continue
            if position not in kept:
                running.turn.fence()
            elif not running.turn.fenced:
                running.stop_timer.cancel()
                running.stop_timer = self._stop_at(running.turn, asked)
        return True


@asynccontextmanager
async def open_worker(replica: Replica) -> AsyncIterator[Worker]:
    """The graph that the settings name, or the parts that they name for ours, and a worker made of them."""
    settings = replica.settings
    if settings.graph is not None:
        graph = load(settings.graph)
        async with _work(replica, lambda saver: AnyGraph(graph, saver)) as worker:
            yield worker
        return
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
    async with work_with(parts, replica) as worker:
        yield worker


@asynccontextmanager
async def work_with(parts: Parts, replica: Replica) -> AsyncIterator[Worker]:
    """A worker that runs our graph, made of these parts."""

    def serve(saver: EventLogSaver) -> Served:
        return Medical(build_graph(parts).compile(checkpointer=saver), parts.model_name)

    async with _work(replica, serve) as worker:
        yield worker


@asynccontextmanager
async def _work(replica: Replica, serve: Callable[[EventLogSaver], Served]) -> AsyncIterator[Worker]:
    """The process's one writer, the graph whose checkpoints go through it, and the worker on top of them."""
    settings = replica.settings
    deadlines = Deadlines(
        settings.first_token_timeout_seconds, settings.token_timeout_seconds, settings.turn_timeout_seconds
    )
    async with Writer(replica.connect, replica.committed) as writer:
        turns = Turns(serve(EventLogSaver(replica.log.pool, writer)), replica.log, writer, deadlines)
        worker = Worker(
            replica.log,
            turns,
            lease_seconds=settings.lease_seconds,
            max_turns=settings.max_turns,
        )
        measures.RUNNING.set_function(lambda: worker.running)
        async with worker.working():
            yield worker
