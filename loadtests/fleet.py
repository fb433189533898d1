"""Replicas as real processes on one Postgres, and a balancer before them: each connection goes to the next replica."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psutil

from functions.embedded_postgres import EmbeddedPostgres
from loadtests.histogram import Histogram
from tests.faults.relay import Relay, _Side

GREETING = re.compile(r"answers at http")
START_SECONDS = 60.0
PROBE_SECONDS = 0.02


class Balancer(Relay):
    """It carries every byte of a run: while `watched`, how late it is itself is known."""

    def __init__(self, *reaches: str) -> None:
        super().__init__(*reaches)
        self.lag_ms = Histogram()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._measure_lag())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _measure_lag(self) -> None:
        while True:
            due = time.perf_counter() + PROBE_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
            self.lag_ms.add(1000 * (time.perf_counter() - due))

    def reach(self, side: _Side) -> None:
        self.reaches = [*self.reaches[1:], self.reaches[0]]
        super().reach(side)


class Served:
    """A server process on a port of its own, so that it can be started again at the same address."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._port = free_port()
        self._command = [sys.executable, *command, "--port", str(self._port)]
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("PULSELINE_")} | environment
        self.process: subprocess.Popen[bytes]
        self.launch()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def launch(self) -> None:
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def ready(self) -> None:
        """Returns once it serves."""
        deadline = time.monotonic() + START_SECONDS
        while not GREETING.search(self._log.read_text()):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"{self.name} did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Fleet:
    def __init__(self, url: str, home: Path, replicas: list[Served]) -> None:
        self.database_url, self._home, self.replicas = url, home, replicas

    @property
    def postgres(self) -> psutil.Process:
        return postmaster(self._home)


UNLIMITED = {"MAX_TURNS_PER_MINUTE": "0", "MAX_TURNS_PER_OWNER": "0"}  # one owner stands for many here


@contextmanager
def fleet(folder: Path, names: dict[str, dict[str, str]]) -> Iterator[Fleet]:
    """Replicas by name, each with its settings, which are named without the prefix, in capitals."""
    home = folder / "home"
    with EmbeddedPostgres(home).running() as url:
        started: list[Served] = []
        try:
            for name, settings in names.items():
                environment = {f"PULSELINE_{key}": value for key, value in (UNLIMITED | settings).items()}
                environment |= {"DATABASE_URL": url, "PULSELINE_HOME": str(folder / name)}
                started.append(Served(name, folder, ("-m", "functions", "serve"), environment))
            for served in started:
                served.ready()
            yield Fleet(url, home, started)
        finally:
            for served in started:
                served.kill()


def postmaster(home: Path) -> psutil.Process:
    """The process whose children are all of an embedded Postgres."""
    place = (home / "postgres").resolve()
    return psutil.Process(int((place / "data" / "postmaster.pid").read_text().split()[0]))


def stand_still(*processes: psutil.Process) -> None:
    """Each with its children: a Postgres has many, in process groups of their own, and begins more while it runs."""
    for process in processes:
        _send(signal.SIGSTOP, process)
        _send(signal.SIGSTOP, *_children(process))


def go_on(*processes: psutil.Process) -> None:
    for process in processes:
        _send(signal.SIGCONT, *_children(process), process)


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _send(number: signal.Signals, *processes: psutil.Process) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process and its children, those that have ended included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    ended = process.cpu_times()
    return total + ended.children_user + ended.children_system


def resident_kb(process: psutil.Process) -> float:
    """0 for a process that was killed and not yet started again."""
    try:
        return float(process.memory_info().rss) / 1024
    except psutil.NoSuchProcess:
        return 0.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
