"""What a forked `pulseline` has in common with one that was started: everything that the other tests rest on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import Forked, launch
from tests.support.server import serving

WAIT_SECONDS = 30.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")


def _environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")} | more


def test_a_forked_command_has_its_own_environment_output_and_status(tmp_path: Path) -> None:
    settings = ("PULSELINE_ONE", "PULSELINE_TWO")
    started = [launch(["worker"], _environment(**{name: "1"}), tmp_path / name) for name in settings]
    assert all(isinstance(process, Forked) for process in started)
    assert [process.wait(WAIT_SECONDS) for process in started] == [2, 2]
    for name in settings:
        assert f"Unknown setting {name}. " in (tmp_path / name).read_text()


def test_a_forked_server_ends_by_signals_as_any_other(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, WORKER="off") as stopped, serving(database_url, tmp_path) as killed:
        assert len({os.getpid(), stopped.process.pid, killed.process.pid}) == 3
        with killed.held(), pytest.raises(subprocess.TimeoutExpired):
            killed.process.wait(0.01)
        killed.kill()
        assert killed.process.returncode == -signal.SIGKILL
        assert stopped.stop() == 0
        assert "Traceback" not in stopped.output


def test_a_variable_of_a_library_is_there_before_anything_is_imported(tmp_path: Path) -> None:
    process = launch(["--version"], _environment(LANGSMITH_TRACING="true"), tmp_path / "said")
    assert isinstance(process, subprocess.Popen)
    assert process.wait(WAIT_SECONDS) == 0
    assert "version" in (tmp_path / "said").read_text()
