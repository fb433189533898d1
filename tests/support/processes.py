"""`pulseline` as real processes, without two seconds of imports for each.

On Linux they are forked from a process that has imported what they need and has run nothing of it. Each has its own
environment and output, and is signalled, killed and waited for as any other. The command itself is started where a
test sets variables that are not ours, for a library may have read them when it was imported, and outside `forking`:
what measures gets what people run.
"""

import atexit
import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

OURS = ("PULSELINE_", "PYTEST_")
PULSELINE = "functions"
imported_with: dict[str, str] | None = None


class Forked:
    """As a `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("pulseline", timeout or 0)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[bytes] | Forked


@contextmanager
def forking() -> Iterator[None]:
    """In here `launch` forks, where it may."""
    global imported_with
    if sys.platform == "linux":
        multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.support.imported"])
        imported_with = _of_others(os.environ)
    try:
        yield
    finally:
        imported_with = None


def _of_others(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(OURS) and name != "DATABASE_URL"}


def launch(arguments: list[str], environment: dict[str, str], output: Path, program: str = PULSELINE) -> Process:
    """`pulseline ARGUMENTS`, with this environment alone; the file gets what it says. Another program is a module that
    is run, or has a `change` that makes of `pulseline` what it is when it is run."""
    output.touch()
    if imported_with != _of_others(environment):
        with output.open("wb") as said:
            command = [sys.executable, "-m", program, *arguments]
            return subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    process = multiprocessing.get_context("forkserver").Process(
        target=_become, args=(program, arguments, environment, output), daemon=True
    )
    process.start()
    return Forked(process)


def _become(program: str, arguments: list[str], environment: dict[str, str], output: Path) -> None:
    said = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    os.environ.clear()
    os.environ.update(environment)
    from functions.cli import main

    if program != PULSELINE:
        importlib.import_module(program).change()
    try:
        main(arguments, "pulseline")
    finally:  # as an interpreter ends: who was never retrieved says so, and what is left is flushed
        gc.collect()
        atexit._run_exitfuncs()
