"""Tailing: one hub per process. For each session that someone here watches it keeps the newest frames, wakes readers.

A reader is a cursor. It registers, then reads, then waits; what the ring does not hold it pages from the table. Events
enter a ring only in seq order: those of this process right after their commit, all others by one query for all
watched sessions, hinted by wake-ups and paced by a poll that needs no hint.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple
from uuid import UUID

from graph import measures
from graph.eventlog.errors import LogError
from graph.eventlog.events import ENDS, Event
from graph.eventlog.outage import Outage

logger = logging.getLogger(__name__)
RING_MAX_FRAMES = 256
RING_MAX_BYTES = 1024 * 1024  # a graph's own events may be large; the newest is kept in any case
PAGE_EVENTS = 256
TAKEN_MAX_BYTES = 64 * 1024  # by a reader at once: what it holds while its client takes nothing
IDLE_POLL_SECONDS = 1.0
FAILED_READ_PAUSE_SECONDS = 0.25

Read = Callable[[dict[UUID, int], int], Awaitable[list[Event]]]


class Frame(NamedTuple):
    """One event as SSE bytes. `ends` tells a turn's terminal event."""

    seq: int
    ends: bool
    data: bytes


class Watch:
    """What the hub keeps for one session while it has readers. `head` is the newest seq in order, None before the first
    read; `grown`: the log may have grown before that. The ring holds the frames up to `head`, without a hole."""

    def __init__(self, session_id: UUID) -> None:
        self.session_id = session_id
        self.readers = 0
        self.head: int | None = None
        self.grown = False
        self.floor = 0  # the ring holds every frame with floor < seq ≤ head
        self.ring: deque[Frame] = deque()
        self._ring_bytes = 0
        self.active = True
        self.next_poll = 0.0
        self.hinted = False  # it is looked at because of a hint
        self.announced: UUID | None = None  # the turn of which other replicas know that it is watched here
        self._waiters: set[asyncio.Future[None]] = set()

    def begin(self, head: int, active: bool) -> None:
        """The first reader says where the log stood; everything newer comes through the hub."""
        if self.head is None:
            self.head = self.floor = head
            self.active = active

    def push(self, frame: Frame) -> None:
        self.ring.append(frame)
        self.head = frame.seq
        self.active = not frame.ends
        self._ring_bytes += len(frame.data)
        while len(self.ring) > RING_MAX_FRAMES or (len(self.ring) > 1 and self._ring_bytes > RING_MAX_BYTES):
            oldest = self.ring.popleft()
            self._ring_bytes -= len(oldest.data)
            self.floor = oldest.seq
        self.wake()

    def after(self, cursor: int) -> list[Frame] | None:
        """The ring's frames after the cursor, or None when the ring does not reach back that far."""
        if self.head is None or cursor < self.floor:
            return None
        if cursor >= self.head:
            return []
        behind = []
        for frame in reversed(self.ring):
            if frame.seq <= cursor:
                break
            behind.append(frame)
        return behind[::-1]

    def wake(self) -> None:
        for waiter in self._waiters:
            _end(waiter)
        self._waiters.clear()

    async def changed(self, timeout: float) -> None:
        """Returns at the next push, or after `timeout` seconds. `asyncio.wait` would cost three times as much."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(timeout, _end, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)


def _end(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class Reader:
    """One client's place in a session. It holds no database connection while it waits."""

    def __init__(self, hub: "Hub", watch: Watch, cursor: int) -> None:
        self._hub, self._watch, self.cursor = hub, watch, cursor

    @property
    def session_id(self) -> UUID:
        return self._watch.session_id

    async def next(self, timeout: float) -> list[Frame]:
        """The next frames in order, one at least, or none after `timeout` seconds, a `wake`, or when the hub drains."""
        frames = await self._ready()
        if not frames and not self._hub.draining:
            await self._watch.changed(timeout)
            frames = await self._ready()
        taken = _beginning(frames)
        if taken:
            self.cursor = taken[-1].seq
        return taken

    async def _ready(self) -> list[Frame]:
        frames = self._watch.after(self.cursor)
        return await self._hub.page(self._watch.session_id, self.cursor) if frames is None else frames


def _beginning(frames: list[Frame]) -> list[Frame]:
    """Up to TAKEN_MAX_BYTES, one frame at least."""
    size = 0
    for n, frame in enumerate(frames):
        size += len(frame.data)
        if n and size > TAKEN_MAX_BYTES:
            return frames[:n]
    return frames


def _next_poll(now: float, period: float) -> float:
    """All sessions are due at the same instants, whenever they came, so that one query serves them all."""
    return (now // period + 1) * period


class Hub:
    """`encode` makes a frame's bytes; `poll_seconds` paces the look for other replicas' events while a turn runs.
    `announce(sessions)` is called for those whose events are waited for here, and may be other replicas'."""

    def __init__(
        self,
        read: Read,
        encode: Callable[[Event], bytes],
        poll_seconds: float,
        announce: Callable[[set[UUID]], None] = lambda sessions: None,
    ) -> None:
        self._read, self._encode, self._announce, self.poll_seconds = read, encode, announce, poll_seconds
        self._watches: dict[UUID, Watch] = {}
        self._pages: dict[tuple[UUID, int], asyncio.Task[list[Frame]]] = {}
        self._hinted: set[UUID] = set()
        self._next_poll = float("inf")  # the earliest of all watches; until then only those with a hint are looked at
        self._wanted = asyncio.Event()
        self.draining = False
        self._outage = Outage(logger, "readers wait")
        self.polls = 0

    @property
    def readers(self) -> int:
        return sum(watch.readers for watch in self._watches.values())

    @contextmanager
    def watch(self, session_id: UUID) -> Iterator[Watch]:
        """Registers interest; from here on nothing that is committed can be missed."""
        watch = self._watches.get(session_id)
        if watch is None:
            watch = self._watches[session_id] = Watch(session_id)
            self._poll_at(watch, self.poll_seconds)
            self._wanted.set()
        watch.readers += 1
        try:
            yield watch
        finally:
            watch.readers -= 1
            if not watch.readers:
                self._watches.pop(session_id, None)

    def reader(self, watch: Watch, head: int, cursor: int, *, active: bool) -> Reader:
        """A reader from `cursor`; `head` is the session's newest seq, read after the watch was registered."""
        watch.begin(head, active)
        if active:
            self._announce({watch.session_id})
        if watch.grown:
            watch.grown = False
            self.hint([watch.session_id])
        return Reader(self, watch, cursor)

    def publish(self, events: Iterable[Event]) -> None:
        """Rows that this process has just committed."""
        for event in events:
            watch = self._watches.get(event.session_id)
            if watch is not None:
                self._offer(watch, event, own=True)

    def hint(self, sessions: Iterable[UUID]) -> None:
        """These logs may have grown. A hint carries nothing and may be lost without harm."""
        hinted = [session for session in sessions if session in self._watches]
        if hinted:
            self._hinted.update(hinted)
            self._wanted.set()

    def wake(self, session_id: UUID) -> None:
        """Ends the wait of a session's readers once, without an event: the session may be gone."""
        watch = self._watches.get(session_id)
        if watch is not None:
            watch.wake()

    def drain(self) -> None:
        """Ends every reader's wait for good, so that clients come back elsewhere."""
        self.draining = True
        for watch in self._watches.values():
            watch.wake()

    async def page(self, session_id: UUID, cursor: int) -> list[Frame]:
        """From the table. Readers who come at once share a read: pages begin at multiples of PAGE_EVENTS."""
        place = (session_id, cursor - cursor % PAGE_EVENTS)
        while True:
            joined = place in self._pages
            frames = await asyncio.shield(self._pages[place] if joined else self._begin_page(place))
            behind = [frame for frame in frames if frame.seq > cursor]
            if behind or not joined:  # what one joins may have been read before one's own next event
                return behind

    def _begin_page(self, place: tuple[UUID, int]) -> asyncio.Task[list[Frame]]:
        async def read() -> list[Frame]:
            session_id, start = place
            return [self._frame(event) for event in await self._read({session_id: start}, PAGE_EVENTS)]

        def end(task: asyncio.Task[list[Frame]]) -> None:
            del self._pages[place]
            if not task.cancelled():
                task.exception()  # those who wait for it get it; perhaps they have all gone

        task = self._pages[place] = asyncio.create_task(read(), name="page")
        task.add_done_callback(end)
        return task

    def _frame(self, event: Event) -> Frame:
        return Frame(event.seq, event.type in ENDS, self._encode(event))

    def _offer(self, watch: Watch, event: Event, *, own: bool = False) -> None:
        """Pushes the event if it is the next one; else the table is asked. What was read from the table is in order,
        and may jump only where pruned tokens were (law 9)."""
        if watch.head is None:
            watch.grown = True
            return
        if event.seq <= watch.head:
            return
        if own and event.seq != watch.head + 1:
            self.hint([watch.session_id])
            return
        watch.push(self._frame(event))
        if own:
            watch.next_poll = _next_poll(asyncio.get_running_loop().time(), IDLE_POLL_SECONDS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Hub"]:
        task = asyncio.create_task(self._run(), name="hub")
        try:
            yield self
        finally:
            self.drain()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wait()
            due = self._due()
            try:
                if due:
                    await self._fetch(due)
            except LogError as error:
                self._outage.failed(error)
                await asyncio.sleep(FAILED_READ_PAUSE_SECONDS)
            except Exception:  # whatever it is: without this task nobody here hears anything any more
                logger.exception("tail read failed, again in %.2f s", FAILED_READ_PAUSE_SECONDS)
                await asyncio.sleep(FAILED_READ_PAUSE_SECONDS)
                self.hint(due)

    def _poll_at(self, watch: Watch, period: float) -> None:
        """At the period's next instant."""
        watch.next_poll = _next_poll(asyncio.get_running_loop().time(), period)
        self._next_poll = min(self._next_poll, watch.next_poll)

    async def _wait(self) -> None:
        """Until a hint, or until the next poll is due; for ever while nobody watches."""
        try:
            async with asyncio.timeout_at(self._next_poll if self._watches else None):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()

    def _due(self) -> dict[UUID, Watch]:
        """Idle tabs are many: all watches are looked through when a poll is due, not at every hint."""
        now = asyncio.get_running_loop().time()
        hinted, self._hinted = self._hinted, set()
        looked_at = {session_id: self._watches[session_id] for session_id in hinted if session_id in self._watches}
        if self._next_poll <= now:
            looked_at, self._next_poll = self._watches, float("inf")
        due = {}
        for session_id, watch in looked_at.items():
            if watch.head is None:
                watch.grown = watch.grown or session_id in hinted
                self._poll_at(watch, self.poll_seconds)
            elif session_id in hinted or watch.next_poll <= now:
                self._poll_at(watch, self.poll_seconds if watch.active else IDLE_POLL_SECONDS)
                watch.hinted = session_id in hinted
                due[session_id] = watch
            else:
                self._next_poll = min(self._next_poll, watch.next_poll)
        return due

    async def _fetch(self, due: dict[UUID, Watch]) -> None:
        self.polls += 1
        measures.POLLS.inc()
        events = await self._read({s: watch.head or 0 for s, watch in due.items()}, PAGE_EVENTS)
        self._outage.over()
        counts: dict[UUID, int] = {}
        unannounced = set()
        for event in events:
            watch = due[event.session_id]
            counts[event.session_id] = counts.get(event.session_id, 0) + 1
            self._offer(watch, event)
            if not watch.hinted or watch.announced != event.turn_id:
                watch.announced = event.turn_id
                unannounced.add(event.session_id)
        for session_id in counts:
            if due[session_id].active:  # perhaps since this read
                self._poll_at(due[session_id], self.poll_seconds)
        if unannounced:
            self._announce(unannounced)
        self.hint(session for session, count in counts.items() if count == PAGE_EVENTS)
