"""Two replicas and a worker as real processes on a Postgres of their own, each behind its own relay to it."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from functions.embedded_postgres import EmbeddedPostgres
from functions.postgres_cluster import Cluster
from tests.faults.relay import Relay, relaying
from tests.support.processes import Process, launch

READY = {"serve": re.compile(r"answers at http"), "worker": re.compile(r"functions\.serve working")}
CLAIMED = re.compile(r"turn claimed .*turn_id=(\S+) attempt=(\d+)")
START_SECONDS, STOP_SECONDS = 60.0, 30.0

KilledAt = dict[tuple[str, int], float | None]


class Member:
    """One process, started anew after each end. `busy`: a fault has it in hand."""

    def __init__(self, name: str, kind: str, folder: Path, database: Relay, environment: dict[str, str]) -> None:
        self.name, self.kind, self.database, self.busy = name, kind, database, False
        self._folder, self._environment = folder, environment
        self._port = _free_port() if kind == "serve" else 0
        self._starts = 0
        self._killed_at: dict[int, float] = {}
        self.process: Process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def output(self) -> str:
        return self._said(self._starts)

    def _said(self, start: int) -> str:
        return (self._folder / f"{self.name}-{start}.log").read_text(errors="replace")

    def killed(self) -> KilledAt:
        """Of each attempt (turn, number) that its processes said to begin: when the process was killed, if it was."""
        return {
            (turn_id, int(attempt)): self._killed_at.get(start)
            for start in range(1, self._starts + 1)
            for turn_id, attempt in CLAIMED.findall(self._said(start))
        }

    def launch(self) -> None:
        self._starts += 1
        arguments = ["serve", "--port", str(self._port)] if self.kind == "serve" else ["worker"]
        self.process = launch(arguments, self._environment, self._folder / f"{self.name}-{self._starts}.log")

    async def ready(self) -> None:
        """Launches it again when it could not start, as while the database is away."""
        deadline = time.monotonic() + START_SECONDS
        while not READY[self.kind].search(self.output):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not start:\n{self.output}")
            if self.process.poll() is not None:
                self.launch()
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._killed_at[self._starts] = time.time()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> int:
        """SIGTERM; gives the exit status, or -1 when it does not end."""
        self.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                return -1
            await asyncio.sleep(0.02)
        return self.process.wait()


class Fleet:
    def __init__(self, postgres: EmbeddedPostgres, home: Path, url: str, members: list[Member]) -> None:
        self._postgres, self._home, self.url, self.members = postgres, home, url, members

    @property
    def replicas(self) -> list[Member]:
        return [member for member in self.members if member.kind == "serve"]

    async def crash_postgres(self) -> None:
        """An immediate shutdown: nothing is written out, the log is replayed at the start."""
        place = (self._home / "postgres").resolve()
        postmaster = int((place / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        deadline = time.monotonic() + STOP_SECONDS
        while Cluster(place).alive():
            assert time.monotonic() < deadline, "Postgres does not end"
            await asyncio.sleep(0.02)
        assert await asyncio.to_thread(self._postgres.start) == self.url, "Postgres has another address now"


@asynccontextmanager
async def fleet(folder: Path, model: str, kinds: tuple[str, ...], **settings: str) -> AsyncIterator[Fleet]:
    """Settings are named without the prefix, in capitals."""
    home = folder / "home"
    postgres = EmbeddedPostgres(home)
    url = await asyncio.to_thread(postgres.start)
    async with AsyncExitStack() as stack:
        stack.callback(postgres.stop)
        members = []
        for number, kind in enumerate(kinds, 1):
            relay = await stack.enter_async_context(relaying(_host(url)))
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
            environment |= {"PULSELINE_MAX_TURNS_PER_MINUTE": "0", "PULSELINE_MAX_TURNS_PER_OWNER": "0"}
            environment |= {f"PULSELINE_{name}": value for name, value in settings.items()}
            environment |= {"PULSELINE_MODEL": model, "PULSELINE_HOME": str(folder / f"home-{number}")}
            environment |= {"DATABASE_URL": url.replace(_host(url), relay.address)}
            members.append(Member(f"{kind}-{number}", kind, folder, relay, environment))
        stack.callback(_end, members)
        for member in members:
            member.launch()
            if member is members[0]:
                await member.ready()  # it migrates, the others need not wait for each other
        await asyncio.gather(*(member.ready() for member in members))
        yield Fleet(postgres, home, url, members)


def _end(members: list[Member]) -> None:
    for member in members:
        if hasattr(member, "process") and member.process.poll() is None:
            member.process.send_signal(signal.SIGCONT)
            member.kill()


def _host(url: str) -> str:
    return url.split("@")[1].split("/")[0]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
