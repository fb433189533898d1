"""One Postgres data folder with its server: make, launch, look, shut down.

What makes the data, the server and their children hold a lock on the file `alive`. The kernel takes it back when the
last of them is gone, however they went, so it tells the truth where a process table (zombies, pid reuse, containers)
and postmaster.pid lie. Callers see to it that only one of them launches or shuts down at a time.
"""

import fcntl
import os
import random
import secrets
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import IO

from functions.postgres_programs import EmbeddedPostgresFailed, Programs, explained

ROLE = DATABASE = "pulseline"
HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)  # systems take none of these for outgoing connections: still free at the next start
MAJOR_VERSION = "18"
START_SECONDS = 120  # crash recovery included
STOP_SECONDS = 60
LOOK_AGAIN_SECONDS = 0.01
LOG_TAIL_BYTES = 4_000
PORT_TAKEN = "could not bind"

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # such a path may have 107 bytes only
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # Rows and statements that are refused hold what people wrote.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}

# Libc's character classes split words for full-text search; macOS has no C.UTF-8.
CHARACTER_CLASSES = "en_US.UTF-8" if os.uname().sysname == "Darwin" else "C.UTF-8"
LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", f"--lc-ctype={CHARACTER_CLASSES}")

# The product's role is no superuser, as with any hosted Postgres; vector is there because only a superuser can add it.
# In single-user mode a line is a statement.
FIRST_STATEMENTS = """\
create role {role} login createdb in role pg_monitor password '{password}';
create extension vector;
create database {database} owner {role};
"""


def lock(file: IO[str], kind: int) -> bool:
    """False when another process holds it in a way that excludes `kind`."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


class Cluster:
    def __init__(self, place: Path) -> None:
        self._place = place
        self._data = place / "data"
        self._log = place / "log"
        self._password = place / "password"
        self._port = place / "port"

    def address(self) -> str:
        return f"postgresql://{ROLE}:{self._password.read_text()}@{HOST}:{self._port.read_text()}/{DATABASE}"

    def alive(self) -> bool:
        """Whether a server, what makes its data or a child that outlives them still has the data open."""
        try:
            with (self._place / "alive").open() as alive:
                return not lock(alive, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def ready(self) -> bool:
        return self.alive() and [line.strip() for line in self._pid_file()[7:]] == ["ready"] and self._listens()

    def bring_up(self, programs: Programs) -> None:
        """Returns when the server takes connections, also when it ran before, is still starting or is just ending."""
        deadline = time.monotonic() + START_SECONDS
        launched = False
        while not self.ready():
            if not self.alive():
                if launched and PORT_TAKEN not in self._log_tail():
                    raise explained("Postgres ended as it started", self._log_tail())
                launched = self._launch(programs)
            if time.monotonic() > deadline:
                raise explained(f"Postgres did not get ready in {START_SECONDS} s, see {self._log}", self._log_tail())
            time.sleep(LOOK_AGAIN_SECONDS)

    def shut_down(self) -> None:
        """Ends running statements, not committed ones; returns when the data folder is at rest."""
        deadline = time.monotonic() + STOP_SECONDS
        told = False
        while self.alive():
            if not told and self._listens():
                self._tell(int(self._pid_file()[0]))
                told = True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(f"Postgres has not stopped after {STOP_SECONDS} s, see {self._log}.")
            time.sleep(LOOK_AGAIN_SECONDS)

    def _tell(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGINT)
        except OSError as error:
            raise EmbeddedPostgresFailed(
                f"Postgres (process {pid}) belongs to another user or container: stop it there."
            ) from error

    def _pid_file(self) -> list[str]:
        """Its lines: pid, data folder, start, port, socket folder, host, shared memory, status."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _listens(self) -> bool:
        """Children close the listening socket: it answers only while the postmaster itself lives."""
        if len(lines := self._pid_file()) < 4:
            return False
        with socket.socket() as probe:
            return probe.connect_ex((HOST, int(lines[3]))) == 0

    def _launch(self, programs: Programs) -> bool:
        with (self._place / "alive").open("a") as alive:
            if not lock(alive, fcntl.LOCK_EX):
                return False  # somebody is looking at it just now
            if not self._data.exists():
                self._create(programs, alive.fileno())
            self._check_version()
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            settings = {**SETTINGS, "port": str(self._choose_port())}
            options = [f"--{name}={value}" for name, value in settings.items()]
            with self._new_log() as output:
                programs.spawn("postgres", "-D", str(self._data), *options, output=output, held=alive.fileno())
        return True

    def _create(self, programs: Programs, held: int) -> None:
        """A folder `data` is always complete: it gets its name last."""
        unfinished = self._place / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        programs.own(unfinished)
        what = "Cannot make the Postgres database"
        auth = ("--auth=reject", "--username=postgres", "--encoding=UTF8")
        programs.run(what, "initdb", "-D", str(unfinished), *auth, *LOCALE, held=held)
        (unfinished / "pg_hba.conf").write_text(f"host all {ROLE} {HOST}/32 scram-sha-256\n")
        statements = FIRST_STATEMENTS.format(role=ROLE, database=DATABASE, password=self._make_password())
        alone = ("--single", "--exit_on_error=on", "-D", str(unfinished), "template1")
        programs.run(what, "postgres", *alone, typed=statements, held=held)
        unfinished.rename(self._data)

    def _make_password(self) -> str:
        password = secrets.token_urlsafe(24)
        _write(self._password, password)
        return password

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != MAJOR_VERSION:
            raise EmbeddedPostgresFailed(
                f"{self._data} was made by Postgres {found}, this is {MAJOR_VERSION}: move it away to start anew."
            )

    def _choose_port(self) -> int:
        kept = [int(self._port.read_text())] if self._port.exists() else []
        port = next(port for port in (*kept, *random.sample(PORTS, 100)) if _is_free(port))
        _write(self._port, str(port))
        return port

    def _new_log(self) -> IO[bytes]:
        if self._log.exists():
            self._log.rename(self._log.with_name("log.old"))
        return self._log.open("wb")

    def _log_tail(self) -> str:
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if self._log.exists() else ""


def _write(path: Path, text: str) -> None:
    """Whole or not at all, whenever it is interrupted; readable by its owner only."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return True
        except OSError:
            return False
