"""PgBouncer in transaction mode in front of a test's Postgres: the installed one, or Debian's package.

The package is only unpacked, which needs no root: apt downloads it, and what it lacks, into .cache/pgbouncer, once.
"""

import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "pgbouncer"
SHIPPED = ROOT / "infra" / "postgres" / "pgbouncer.ini"
EVERYTHING = "TEST_PGBOUNCER" in os.environ  # every test's database is then reached through it
PREPARE_THRESHOLD = None if EVERYTHING else 5  # 5 is psycopg's own; what is prepared is not found again behind it
INSTALLED = Path("/usr/sbin/pgbouncer")
DOWNLOAD_SECONDS = 60
START_SECONDS = 10.0
CONFIG = """\
[databases]
* = host={host} port={server_port} user={user} password='{password}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 1000
logfile = {folder}/log
"""


class NoPgBouncer(Exception):
    """There is no PgBouncer to test with."""


class Program(NamedTuple):
    path: Path
    environment: dict[str, str]


def find() -> Program:
    """Raises NoPgBouncer with the reason."""
    path = shutil.which("pgbouncer") or (INSTALLED if INSTALLED.exists() else None)
    if path:
        return Program(Path(path), dict(os.environ))
    unpacked = CACHE / "root"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            _unpack(unpacked)
    libraries = {str(library.parent) for library in unpacked.rglob("*.so*")}
    return Program(unpacked / "usr/sbin/pgbouncer", {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(libraries))})


def _unpack(unpacked: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoPgBouncer("pgbouncer is not installed, and this is no Debian that could unpack its package")
    folder = CACHE / "unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lists/partial", "cache/archives/partial", "root"):
        (folder / part).mkdir(parents=True)
    try:
        _apt(folder, "apt-get", "download", *_lacking(folder))
    except NoPgBouncer:  # no package lists on this machine, or old ones
        own = (f"-oDir::State::Lists={folder}/lists", f"-oDir::Cache={folder}/cache")
        _apt(folder, "apt-get", *own, "update")
        _apt(folder, "apt-get", *own, "download", *_lacking(folder, *own))
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)
    (folder / "root").rename(unpacked)
    shutil.rmtree(folder)


def _lacking(folder: Path, *options: str) -> list[str]:
    """The package and those libraries of it that are not installed."""
    needed = [
        line.split(":", 1)[1].strip()
        for line in _apt(folder, "apt-cache", *options, "depends", "pgbouncer").splitlines()
        if line.strip().startswith("Depends: lib")
    ]
    states = [subprocess.run(["dpkg", "-s", name], capture_output=True, check=False).returncode for name in needed]
    return ["pgbouncer", *(name for name, state in zip(needed, states, strict=True) if state != 0)]


def _apt(folder: Path, command: str, *arguments: str) -> str:
    limits = ("-oAcquire::Retries=0", "-oAcquire::http::Timeout=10", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User=")
    try:
        done = subprocess.run(
            [command, "-q", *limits, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoPgBouncer(f"pgbouncer is not installed, and {command} takes too long") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [""]
        raise NoPgBouncer(f"pgbouncer is not installed, and its package cannot be downloaded: {said[0]}")
    return done.stdout


@contextmanager
def pooling(program: Program, database_url: str, server_connections: int = 8) -> Iterator[str]:
    """Gives the address of the same database through PgBouncer, which has so many connections to it."""
    server = urlsplit(database_url)
    settings = {
        "host": server.hostname,
        "server_port": server.port or 5432,
        "user": server.username or pwd.getpwuid(os.geteuid()).pw_name,
        "password": server.password or "",
        "size": server_connections,
    }
    with _running(program, lambda port, folder: CONFIG.format(**settings, port=port, folder=folder)) as port:
        yield f"postgresql://{server.username}@127.0.0.1:{port}{server.path}"


@contextmanager
def shipped(program: Program, server_url: str) -> Iterator[str]:
    """The settings of infra/postgres, in front of all databases of a server; gives its address with another port."""
    server = urlsplit(server_url)

    def settings(port: int, folder: Path) -> str:
        (folder / "userlist.txt").write_text(f'"{server.username}" "{server.password}"')
        text = SHIPPED.read_text()
        for ours, here in (
            ("pulseline = host=postgres port=5432 dbname=pulseline", f"* = host={server.hostname} port={server.port}"),
            ("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1\nunix_socket_dir =\nlogfile = " + str(folder / "log")),
            ("listen_port = 5432", f"listen_port = {port}"),
            ("/etc/pgbouncer/userlist.txt", str(folder / "userlist.txt")),
        ):
            assert ours in text, ours
            text = text.replace(ours, here)
        return text

    with _running(program, settings) as port:
        yield urlunsplit(server._replace(netloc=f"{server.username}:{server.password}@127.0.0.1:{port}"))


@contextmanager
def _running(program: Program, settings: Callable[[int, Path], str]) -> Iterator[int]:
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(settings(port, folder))
    account = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses root
    if account:
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    command = [str(program.path), "-q", *account, str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(command, env=program.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _accepting(port, process, folder)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _accepting(port: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    log = folder / "log"
    raise AssertionError(f"pgbouncer did not start:\n{log.read_text() if log.exists() else ''}")
