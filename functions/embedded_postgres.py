"""A Postgres of one's own on this machine: made at first use, shared by several processes, ended with the last.

It lies in HOME/postgres; that is a link to a folder elsewhere when root runs it where the account lent to Postgres may
not look. Each process that uses it holds a shared lock on `users` in there: the kernel counts, so a user that was
killed is not counted. HOME/postgres.lock is held by whoever is starting, joining, leaving or stopping.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from functions.postgres_cluster import Cluster, lock
from functions.postgres_programs import EmbeddedPostgresFailed, Programs, explained, server_account

SYSTEM_STATE = (Path("/var/lib"), Path("/var/db"))

__all__ = ["SYSTEM_STATE", "EmbeddedPostgres", "EmbeddedPostgresFailed"]


class EmbeddedPostgres:
    """Blocks while it starts or stops; every error is an `EmbeddedPostgresFailed`."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()

    def start(self) -> str:
        """Starts it or joins the one that runs, which then goes on until `stop`; returns its DATABASE_URL."""
        with self._alone():
            cluster = self._prepare()
            cluster.bring_up(self._programs())
            self._kept.touch()
            return cluster.address()

    def stop(self) -> None:
        """Stops it, whoever uses it; nothing happens when it does not run."""
        if self._link.exists():
            with self._alone():
                self._cluster.shut_down()

    def url(self) -> str | None:
        """None when it does not run."""
        return self._cluster.address() if self._cluster.ready() else None

    @contextmanager
    def running(self) -> Iterator[str]:
        """Joins the one that runs or starts it; the last to leave stops it, unless `start` had been called."""
        with self._enrolled() as users:
            try:
                with self._alone():
                    if not self._cluster.alive():
                        self._kept.unlink(missing_ok=True)
                    self._cluster.bring_up(self._programs())
                yield self._cluster.address()
            finally:
                with self._alone():
                    if lock(users, fcntl.LOCK_EX) and not self._kept.exists():
                        self._cluster.shut_down()

    @contextmanager
    def _enrolled(self) -> Iterator[IO[str]]:
        with self._alone():
            self._prepare()
            users = (self._link / "users").open("a")
            fcntl.flock(users, fcntl.LOCK_SH)
        with users:
            yield users

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            with (self._home / "postgres.lock").open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise explained(f"Cannot keep a Postgres in {self._home}", str(error)) from error

    @property
    def _link(self) -> Path:
        return self._home / "postgres"

    @property
    def _kept(self) -> Path:
        return self._link / "kept"

    @property
    def _cluster(self) -> Cluster:
        return Cluster(self._link.resolve())

    def _programs(self) -> Programs:
        place = self._link.resolve()
        programs = Programs(server_account(place / "data"))
        programs.make_usable(place)
        return programs

    def _prepare(self) -> Cluster:
        """Makes the folder at first use."""
        if not self._link.exists():
            self._link.unlink(missing_ok=True)
            account = server_account(self._link / "data")
            if account is None:
                self._link.mkdir(mode=0o700)
            elif Programs(account).can_enter(self._home):
                self._link.mkdir(mode=0o711)
            else:
                self._link.symlink_to(self._elsewhere())
        return self._cluster

    def _elsewhere(self) -> Path:
        """What lies there without a link to it was left by a checkout deleted since."""
        state = next((folder for folder in SYSTEM_STATE if folder.is_dir()), self._home.anchor)
        place = Path(state) / f"pulseline-{hashlib.sha256(bytes(self._home)).hexdigest()[:12]}"
        owner = place / "home"
        if place.exists():
            if owner.exists() and owner.read_text() not in ("", str(self._home)):
                raise EmbeddedPostgresFailed(f"{place} is not of this checkout: set PULSELINE_HOME to another folder.")
            Cluster(place).shut_down()
            shutil.rmtree(place)
        place.mkdir(mode=0o711)
        owner.write_text(str(self._home))
        return place
