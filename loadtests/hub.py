"""From a token's emission to its frame on a socket, on the replica that runs the turn and on another one.

Compares, in one run: the same replica, with NOTIFY and without (then its writer prepares no statement), another one
woken by NOTIFY, and another one that only polls. Each is judged by its limit, another one by the aim too. All replicas
are processes that serve as ever; only the worker of one emits tokens by the clock where a graph would run, so that the
log alone is measured. Then what a tail costs that waits: memory, and bytes for each token.
"""

import asyncio
import multiprocessing
import re
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from functions import serve as serving
from functions import worker as working
from functions.embedded_postgres import EmbeddedPostgres
from functions.frames import encode
from functions.replica import Replica
from functions.settings import Settings
from graph.eventlog.events import Event, NewEvent, encode_data, timestamp
from graph.eventlog.hub import RING_MAX_FRAMES, Hub
from graph.eventlog.log import Candidate, Claimant, open_pool
from graph.eventlog.log import Turn as StartedTurn
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.writer import HeldTurn, Writer

TURNS, TOKENS_A_SECOND = 100, 100
WARM_UP_SECONDS, SECONDS = 1.5, 4.0
REPEATS = 3
TAILS = 500
WORDS, APART_MS = 400, 30  # farther than commits begin apart: none joins another
LIMIT_SAME_P99_MS, LIMIT_OTHER_P99_MS, AIM_OTHER_P99_MS = 50.0, 100.0, 25.0
LIMIT_TAIL_BYTES, LIMIT_TOKEN_BYTES = 100_000, 120
PEERS_TOKEN_BYTES = 820  # the least of those measured
SECRET_KEY = "one key for all of them"
STAMPED = re.compile(rb"id: (\d+)\nevent: token\ndata: \{\"content\":\"([\d ]+)\"")
START_SECONDS = 40
HEARTBEAT_SECONDS = 1.0
WHO = ("writes", "reads", "Postgres")


class Emitting:
    """A worker that claims what is started here and says the time, TOKENS_A_SECOND, until it is told to stop."""

    def __init__(self, replica: Replica, writer: Writer) -> None:
        self._log, self._writer = replica.log, writer
        self._turns: set[asyncio.Task[None]] = set()

    def starting(self, session_id: UUID, turn_id: UUID) -> AbstractContextManager[None]:
        return nullcontext()

    def started(self, turn: StartedTurn, claimant: Claimant | None) -> bool:
        task = asyncio.create_task(self._emit(Candidate(turn.session_id, turn.turn_id)))
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)
        return True

    async def _emit(self, candidate: Candidate) -> None:
        claim = await self._log.claim(candidate, "bench", 3600, "bench")
        assert claim is not None
        turn = HeldTurn(claim.session_id, claim.turn_id, claim.attempt, claim.next_seq)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not turn.fenced:
            await self._writer.append(turn, NewEvent("token", {"content": f"{time.monotonic_ns() // 1000} "}))
            due += 1 / TOKENS_A_SECOND
            await asyncio.sleep(due - loop.time())

    def holds(self, session_id: UUID) -> bool:
        return True

    def queued(self) -> None: ...
    def grown(self, sessions: list[UUID]) -> None: ...
    def notified(self, works: bool) -> None: ...
    async def silent(self, session_id: UUID) -> None: ...

    async def drain(self, seconds: float) -> None:
        for task in self._turns:
            task.cancel()


@asynccontextmanager
async def _open_emitting(replica: Replica) -> AsyncIterator[Emitting]:
    async with Writer(replica.connect, replica.committed) as writer:
        yield Emitting(replica, writer)


def _replica(url: str, settings: Settings, emits: bool, told: Connection) -> None:
    """The process: it tells its address and serves until it is ended."""
    if emits:
        vars(working)["open_worker"] = _open_emitting  # which `serve` imports when it begins
    serving.serve(settings, url, serving.listen("127.0.0.1", 0), told.send)


class Process(NamedTuple):
    url: str
    process: psutil.Process


@contextmanager
def _running(url: str, *, emits: bool, notify: str, model: str = "scripted") -> Iterator[Process]:
    worker = "on" if emits or model != "scripted" else "off"
    values = {"notify": notify, "worker": worker, "model": model, "heartbeat_seconds": HEARTBEAT_SECONDS}
    values |= {"secret_key": SECRET_KEY, "log_level": "error"}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_replica, args=(url, Settings.model_validate(values), emits, there), daemon=True)
    process.start()
    try:
        assert here.poll(START_SECONDS), "the replica did not start"
        yield Process(here.recv(), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.join()


class Turn(NamedTuple):
    """A running turn and the cookie of its owner."""

    session_id: str
    cookie: str


async def _start(client: httpx.AsyncClient, url: str) -> Turn:
    """A newcomer's first question."""
    client.cookies.clear()
    reply = await client.post(f"{url}/chat/stream", json={"message": "bench"}, headers={"Prefer": "respond-async"})
    assert reply.status_code == 202, reply.text
    return Turn(reply.json()["session_id"], "; ".join(f"{name}={value}" for name, value in reply.cookies.items()))


class Tail(asyncio.Protocol):
    """A client on a plain socket. Counts what it gets; `lags` are milliseconds from emission to the socket, of what was
    emitted after `since` (microseconds of the monotonic clock)."""

    def __init__(self, path: str, cookie: str) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nCookie: {cookie}\r\n\r\n".encode()
        self._rest = b""
        self._seq = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.since: float = float("inf")
        self.lags: list[float] = []
        self.bytes = self.tokens = self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns() / 1000
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self.opened.set_result(None)
        self.bytes += len(data)
        whole, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        for seq, content in STAMPED.findall(whole + b"\n\n"):
            self.missing += self._seq != 0 and int(seq) != self._seq + 1
            self._seq = int(seq)
            stamps = content.split()
            self.tokens += len(stamps)
            self.lags += [(now - emitted) / 1000 for stamp in stamps if (emitted := int(stamp)) > self.since]


async def _tails(url: str, paths: Iterable[Turn], query: str) -> list[Tail]:
    host, port = urlsplit(url).netloc.split(":")
    tails = [Tail(f"/chat/stream/{session_id}?{query}", cookie) for session_id, cookie in paths]
    for tail in tails:
        await asyncio.get_running_loop().create_connection(partial(_same, tail), host, int(port))
    await asyncio.gather(*(tail.opened for tail in tails))
    return tails


def _same(tail: Tail) -> Tail:
    return tail


class Measured(NamedTuple):
    p50_ms: float
    p99_ms: float
    tokens_a_second: float
    runs_us: float
    tails_us: float
    postgres_us: float


async def _stream(url: str, emitting: Process, tailing: Process, notify: str) -> Measured:
    """All turns run on `emitting`; each has one reader on `tailing`."""
    if notify == "on":
        await _notified(url, 2 if tailing != emitting else 1)
    async with httpx.AsyncClient(trust_env=False) as client:
        turns = [await _start(client, emitting.url) for _ in range(TURNS)]
    tails = await _tails(tailing.url, turns, "after=0")
    await asyncio.sleep(WARM_UP_SECONDS)
    servers = _backends(url)
    before = [_cpu([emitting.process]), _cpu([tailing.process]), _cpu(servers)]
    began = time.monotonic_ns() // 1000
    for tail in tails:
        tail.since, tail.tokens = began, 0
    await asyncio.sleep(SECONDS)
    after = [_cpu([emitting.process]), _cpu([tailing.process]), _cpu(servers)]
    lags = [lag for tail in tails for lag in tail.lags]
    tokens = sum(tail.tokens for tail in tails)
    for tail in tails:
        tail.transport.abort()
    assert not sum(tail.missing for tail in tails), "frames are missing"
    cpu = [1e6 * (then - now) / tokens for then, now in zip(after, before, strict=True)]
    return Measured(median(lags), quantiles(lags, n=100)[-1], tokens / SECONDS, *cpu)


async def _notified(url: str, listeners: int) -> None:
    """Until the replicas listen: before that they poll."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            found = await connection.execute("select 1 from pg_stat_activity where query = 'listen pulseline'")
            if len(await found.fetchall()) == listeners:
                return
            await asyncio.sleep(0.05)


def _backends(url: str) -> list[psutil.Process]:
    with psycopg.connect(url) as connection:
        pids = connection.execute("select pid from pg_stat_activity where pid <> pg_backend_pid()").fetchall()
    return [psutil.Process(pid) for (pid,) in pids]


def _cpu(processes: Iterable[psutil.Process]) -> float:
    """Seconds. A connection that ended meanwhile had idled in the pool."""
    used = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:2])
    return used


def _latencies(url: str, other: bool, notify: str) -> Measured:
    with ExitStack() as stack:
        emitting = stack.enter_context(_running(url, emits=True, notify=notify))
        tailing = stack.enter_context(_running(url, emits=False, notify=notify)) if other else emitting
        return uvloop.run(_stream(url, emitting, tailing, notify))


async def _idle(url: str, replica: Process, sessions: int) -> float:
    """Bytes of a tail that waits: one of TAILS, spread over so many sessions in which no turn runs."""
    async with httpx.AsyncClient(trust_env=False) as client:
        owned = await _start(client, replica.url)
    with psycopg.connect(url) as connection:
        made = connection.execute(
            "insert into sessions (session_id, owner) select gen_random_uuid(), owner from sessions,"
            " generate_series(1, %s) where session_id = %s returning session_id::text",
            [sessions, owned.session_id],
        ).fetchall()
    turns = [Turn(made[n % sessions][0], owned.cookie) for n in range(TAILS)]
    tails = await _tails(replica.url, turns[:50], "after=0&follow=session")
    await asyncio.sleep(2 * HEARTBEAT_SECONDS)
    before = replica.process.memory_full_info().uss
    tails += await _tails(replica.url, turns[50:], "after=0&follow=session")
    await asyncio.sleep(2 * HEARTBEAT_SECONDS)
    grown = replica.process.memory_full_info().uss - before
    for tail in tails:
        tail.transport.abort()
    return float(grown / (TAILS - 50))


def _idle_bytes(url: str, sessions: int) -> float:
    with _running(url, emits=False, notify="on") as replica:
        return uvloop.run(_idle(url, replica, sessions))


def _ring_bytes() -> float:
    """Of a watched session whose ring is full, without its readers."""
    sessions = [uuid4() for _ in range(50)]
    turn_id, stamp = uuid4(), timestamp()

    async def read(cursors: dict[UUID, int], limit: int) -> list[Event]:
        return []

    async def fill() -> float:
        hub = Hub(read, encode, 1.0)
        with ExitStack() as stack:
            tracemalloc.start()
            for session_id in sessions:
                stack.enter_context(hub.watch(session_id)).begin(0, active=True)
                for seq in range(1, RING_MAX_FRAMES + 1):
                    hub.publish([Event(session_id, seq, turn_id, 1, "token", encode_data({"content": "iron "}, stamp))])
            used, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return used / len(sessions)

    return asyncio.run(fill())


async def _wire(replica: Process) -> float:
    """Bytes for each of WORDS tokens on the socket, a token a frame, chunked encoding included."""
    async with httpx.AsyncClient(trust_env=False) as client:
        session_id, cookie = await _start(client, replica.url)
    address = urlsplit(replica.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET /chat/stream/{session_id}?after=0 HTTP/1.1\r\nHost: bench\r\nCookie: {cookie}\r\n\r\n".encode())
    received = b""
    while b"event: done" not in received:
        received += await reader.read(65_536)
    writer.close()
    frames = [frame for frame in received.split(b"\n\n") if b"\nevent: token\n" in frame]
    assert len(frames) > WORDS * 0.9, "tokens were joined"
    return sum(len(frame) + 2 for frame in frames) / WORDS


def _wire_bytes(url: str) -> float:
    with _running(url, emits=False, notify="on", model=f"scripted?tokens={WORDS}&delay_ms={APART_MS}") as replica:
        return uvloop.run(_wire(replica))


MODES = (
    ("the same replica, NOTIFY on", False, "on"),
    ("the same replica, NOTIFY off", False, "off"),
    ("another, NOTIFY on", True, "on"),
    ("another, NOTIFY off", True, "off"),
)


def bounds(other: bool) -> dict[str, float]:
    """Of the p99, in ms."""
    return {"limit": LIMIT_OTHER_P99_MS, "aim": AIM_OTHER_P99_MS} if other else {"limit": LIMIT_SAME_P99_MS}


def _judged(p99_ms: float, bound_ms: float | None) -> str:
    return "-" if bound_ms is None else f"{bound_ms:.0f} ms: {'met' if p99_ms < bound_ms else 'missed'}"


def run(console: Console) -> bool:
    """Prints the tables; tells whether the limits and the aims hold."""
    table = Table(
        "read on", "tokens/s", "emit → on the socket p50", "p99", "limit", "aim", *(f"CPU a token: {w}" for w in WHO)
    )
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "home").running() as url:

        async def setup() -> None:
            async with open_pool(url, max_size=2) as pool:
                await EventLogSaver(pool).setup()

        asyncio.run(setup())
        ratios: dict[str, float] = {}
        for name, other, notify in MODES:
            runs = [_latencies(url, other, notify) for _ in range(REPEATS)]
            middle = Measured(*(median(column) for column in zip(*runs, strict=True)))
            ratios |= {f"{name}: p99 / {kind}": middle.p99_ms / ms for kind, ms in bounds(other).items()}
            cpu = (middle.runs_us, middle.tails_us if other else None, middle.postgres_us)
            table.add_row(
                name,
                f"{middle.tokens_a_second:,.0f}",
                f"{middle.p50_ms:.1f} ms",
                f"{middle.p99_ms:.1f} ms",
                *(_judged(middle.p99_ms, bounds(other).get(kind)) for kind in ("limit", "aim")),
                *("-" if microseconds is None else f"{microseconds:.0f} µs" for microseconds in cpu),
            )
        tail, tail_and_session = (median(_idle_bytes(url, n) for _ in range(REPEATS)) for n in (1, TAILS))
        token = median(_wire_bytes(url) for _ in range(REPEATS))
    ring = median(_ring_bytes() for _ in range(REPEATS))
    console.print(f"{TURNS} turns of {TOKENS_A_SECOND} tokens/s, a reader each on a socket, median of {REPEATS} runs")
    console.print(table)
    costs = Table("what", "bytes", "limit")
    costs.add_row(f"a tail that waits, {TAILS} on one session", f"{tail:,.0f}", f"{LIMIT_TAIL_BYTES:,}")
    costs.add_row("the same, each on a session of its own", f"{tail_and_session:,.0f}", f"{LIMIT_TAIL_BYTES:,}")
    costs.add_row("a watched session whose ring is full, beside its tails", f"{ring:,.0f}", "-")
    costs.add_row(f"a token on the wire (peers: {PEERS_TOKEN_BYTES} and more)", f"{token:.0f}", str(LIMIT_TOKEN_BYTES))
    console.print(costs)
    ratios |= {
        "idle tail / limit": max(tail, tail_and_session) / LIMIT_TAIL_BYTES,
        "bytes a token / aim": token / LIMIT_TOKEN_BYTES,
    }
    console.print("Judged: " + "   ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    return all(ratio < 1 for ratio in ratios.values())
