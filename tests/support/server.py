"""Real `pulseline` processes on loopback: started, signalled and ended by the tests."""

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from tests.support.pgbouncer import EVERYTHING
from tests.support.processes import PULSELINE, launch

GREETING = re.compile(r"answers at (http://[\d.]+:\d+)")
START_SECONDS = 40.0
STOP_SECONDS = 15.0
SCRIPTED = "scripted?tokens=200&delay_ms=10"


class Server:
    """One `pulseline serve` process. `url` is its address; `output` is what it said so far."""

    def __init__(
        self, database_url: str, folder: Path, model: str, settings: dict[str, str], program: str = PULSELINE
    ) -> None:
        self._output = folder / f"serve-{time.monotonic_ns()}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
        if EVERYTHING:
            environment["PULSELINE_NOTIFY"] = "off"
        environment.update(
            DATABASE_URL=database_url, PULSELINE_MODEL=model, PULSELINE_HOME=str(folder / "home"), **settings
        )
        self.process = launch(["serve", "--port", "0"], environment, self._output, program)
        self.url = self._greeted()

    @property
    def output(self) -> str:
        return self._output.read_text()

    def _greeted(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if found := GREETING.search(self.output):
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.output}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """In here the process stands still, whatever it was doing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(STOP_SECONDS)


@contextmanager
def serving(
    database_url: str, folder: Path, model: str = SCRIPTED, program: str = PULSELINE, **settings: str
) -> Iterator[Server]:
    """Settings are named without the prefix, in capitals: `NOTIFY="off"`."""
    environment = {f"PULSELINE_{name}": value for name, value in settings.items()}
    server = Server(database_url, folder, model, environment, program)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGCONT)
            server.kill()
    assert "never retrieved" not in server.output, server.output


@contextmanager
def serving_together(
    database_url: str, folder: Path, model: str, *each: dict[str, str], program: str = PULSELINE
) -> Iterator[list[Server]]:
    """One server for each of the settings, all started at once."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:

        def started(settings: dict[str, str]) -> Server:
            return stack.enter_context(serving(database_url, folder, model, program, **settings))

        yield list(pool.map(started, each))


def lapse(database_url: str) -> None:
    """All leases are over at once, however long they were."""
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute("update turns set lease_until = now() - interval '1 s' where status = 'running'")


def holder(database_url: str, *servers: Server) -> Server:
    """Which of them answers the one turn that is running."""
    with psycopg.connect(database_url, prepare_threshold=None) as connection:
        row = connection.execute("select worker from turns where status = 'running'").fetchone()
    assert row is not None
    return next(server for server in servers if row[0].endswith(f":{server.process.pid}"))
