"""`make load` bites: it is run against real replicas with limits and with a server that it must not let pass."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests import run
from loadtests.fleet import Served

# However slow this machine is at the moment: what is judged here is the gate.
CALM = "[generator]\nlag_ms.p99 = 60000\n[good_turn]\nfirst_token_ms = 60000\ngap_ms = 60000\n"
SOUND = CALM + "[every]\nviolations.most = 0\nfailed.most = 0\n"
IMPOSSIBLE = SOUND + "[steady_chat]\nfirst_token_ms.p95 = 0.01\n"


def _load(folder: Path, wanted: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the one run of the report."""
    (folder / "slo.toml").write_text(wanted)
    command = [sys.executable, "-m", "loadtests.run", "--scenario", "steady_chat", "--warm-up", "0", *arguments]
    command += ["--limits", str(folder / "slo.toml"), "--out", str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (folder / "load.json").exists(), ended.stdout
    assert "<svg" in (folder / "load.html").read_text()
    (found,) = json.loads((folder / "load.json").read_text())["runs"]
    return ended.returncode, found


def _missed(found: dict[str, Any]) -> set[str]:
    return {row["metric"] for row in found["limits"] if not row["kept"]}


@pytest.mark.timeout(120)
def test_an_impossible_limit_exits_1_also_with_workers(tmp_path: Path) -> None:
    arguments = ("--users", "8", "--seconds", "4", "--processes", "2", "--model", "scripted?tokens=20&stamp=1")
    status, found = _load(tmp_path, IMPOSSIBLE, *arguments)
    assert status == 1
    assert _missed(found) == {"first_token_ms"}, found
    assert found["metrics"]["whole"]["value"] >= 1
    assert found["metrics"]["token_lag_ms"]["count"] == found["metrics"]["tokens"]["value"]


@pytest.mark.timeout(120)
def test_a_server_that_drops_one_event_in_a_thousand_is_caught(tmp_path: Path, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "PULSELINE_MODEL": "scripted?tokens=150&delay_ms=12&stamp=1"}
    server = Served("dropping", tmp_path, ("-m", "tests.support.dropping", "serve"), settings)
    try:
        server.ready()
        status, found = _load(tmp_path, SOUND, "--host", server.url, "--users", "30", "--seconds", "5")
    finally:
        server.kill()
    assert status == 1, found
    assert "violations" in _missed(found)
    assert any("lost" in sentence for sentence in found["wrong"])


def test_a_script_that_fails_exits_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "locustfile.py"
    broken.write_text("raise RuntimeError('broken')\n")
    monkeypatch.setattr(run, "LOCUSTFILE", broken)
    monkeypatch.setattr(run, "OUT", tmp_path)
    assert run.main(["--scenario", "steady_chat", "--host", "http://127.0.0.1:9", "--warm-up", "0"]) == 2
