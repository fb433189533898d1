"""`make load` bites: it is run against real replicas with limits and with a server that it must not let pass."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests import run
from loadtests.fleet import Served, free_port

pytestmark = pytest.mark.direct  # each brings its own replicas, and asks nothing of the database itself

# However slow this machine is at the moment: what is judged here is the gate.
CALM = "[generator]\nlag_ms.p99 = 60000\n[good_turn]\nfirst_token_ms = 60000\ngap_ms = 60000\n"
SOUND = CALM + "[every]\nviolations.most = 0\nfailed.most = 0\n"
BUSY = SOUND.replace("lag_ms.p99 = 60000", "lag_ms.p99 = 0.001\ncpu_percent.p95 = 0.001")
IMPOSSIBLE = SOUND + "[steady_chat]\nfirst_token_ms.p95 = 0.01\n"
SCENARIOS = Path(run.__file__).parent / "scenarios"  # read, not imported: Locust patches the process that imports it
QUESTIONS = {q for file in SCENARIOS.glob("*.py") for q in re.findall(r'"([^"\n]{12,}\?)"', file.read_text())}


def _load(folder: Path, wanted: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the one run of the report."""
    (folder / "slo.toml").write_text(wanted)
    command = [sys.executable, "-m", "loadtests.run", "--scenario", "steady_chat", "--warm-up", "0", *arguments]
    command += ["--limits", str(folder / "slo.toml"), "--out", str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (folder / "load.json").exists(), ended.stdout
    assert "<svg" in (folder / "load.html").read_text()
    reported = ended.stdout + "".join((folder / f"load.{kind}").read_text() for kind in ("html", "json"))
    assert QUESTIONS
    assert not [question for question in QUESTIONS if question in reported], "a name holds what a person wrote"
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


@pytest.mark.timeout(120)
def test_a_worker_elsewhere_hands_over_what_it_finds_after_the_run_and_makes_it_invalid_when_it_is_late_or_busy(
    tmp_path: Path, database_url: str
) -> None:
    """Every answer lasts longer than the run, so that all of them end later."""
    port = str(free_port())
    settings = {"DATABASE_URL": database_url, "PULSELINE_MODEL": "scripted?tokens=60&delay_ms=50&stamp=1"}
    server = Served("sound", tmp_path, ("-m", "functions", "serve"), settings)
    command = [sys.executable, "-m", "locust", "-f", str(run.LOCUSTFILE), "--worker", "--master-port", port]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server.ready()
        distributed = ("--expect-workers", "1", "--master-port", port)
        status, found = _load(tmp_path, BUSY, "--host", server.url, "--users", "25", "--seconds", "2", *distributed)
        assert worker.wait(20) == 0
    finally:
        for process in (server.process, worker):
            process.kill()
            process.wait()
    assert status == 3, found
    assert _missed(found) == {"generator_lag_ms", "generator_cpu_percent"}
    metrics = found["metrics"]
    assert metrics["whole"]["value"] == metrics["turns"]["value"] >= 1
    assert metrics["tokens"]["value"] == 60 * metrics["turns"]["value"] == metrics["token_lag_ms"]["count"]


@pytest.mark.parametrize("arguments", [("--limits", "missing.toml"), ("--scenario", "replica_kill")])
def test_what_cannot_run_exits_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert run.main([*arguments, "--host", "http://127.0.0.1:9", "--out", str(tmp_path)]) == 2


# Locust patches the process that imports it.
PERSON = """
import locust, json, random, time
from collections import Counter
from loadtests.scenarios.{module} import {kind}
from loadtests.scenarios.visitor import RESULTS
from loadtests.sse import Frame, Reading

class Person({kind}):
    abstract = True
    def __init__(self): self.dice, self.asked, self.idle, self.cursors = random.Random(), Counter(), [], {{}}
    def ask(self, due): return Reading("session", "turn", 0, time.time() - 3)
    def read(self, reading):
        reading.receive(Frame(1, "token", b'{{"content":"Iron "}}'), time.time() - 2)
        reading.receive(Frame(2, "error", b'{{"content":"Iron "}}'), time.time())

Person().chat(time.time())
print(json.dumps([dict(RESULTS.counts), RESULTS.histogram("interruption_ms").summary()]))
"""


TOKEN = b'id: 1\nevent: token\ndata: {"content":"Iron ","timestamp":"2026-01-01T00:00:00Z"}\n\n'
END = b'id: 2\nevent: done\ndata: {"message":{"content":"Iron "},"timestamp":"2026-01-01T00:00:00Z"}\n\n'
# What no correct server does, as one class's answers.
WRONG = {
    "a second end after a while": f"""
class Person(Someone, SteadyChat):
    def said(self):
        yield {TOKEN!r}
        yield {END!r}
        yield {END.replace(b"id: 2", b"id: 3")!r}
""",
    "a turn that does not begin where the one before ended": f"""
class Person(Someone, SteadyChat):
    after = 7
    def said(self):
        yield {TOKEN.replace(b"id: 1", b"id: 8")!r}
        yield {END.replace(b"id: 2", b"id: 9")!r}
""",
    "a stop that changes nothing": f"""
class Person(Someone, CancelStorm):
    def said(self):
        gevent.sleep(1)
        yield {TOKEN!r}
        yield {END!r}
""",
}
SOMEONE = """
import locust, gevent, json, random, time
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace
from loadtests.scenarios import visitor
from loadtests.scenarios.cancel_storm import CancelStorm
from loadtests.scenarios.steady_chat import SteadyChat
from loadtests.scenarios.visitor import RESULTS

visitor.SNAPSHOT_SHARE = 0

class Someone:
    abstract, after = True, 0
    def __init__(self):
        self.dice, self.asked, self.idle, self.cursors = random.Random(), Counter(), ["session"], {"session": 0}
        self.replicas = []
    def _show(self, *arguments): ...
    def request(self, method, path, well, **arguments):
        started = {"session_id": "session", "turn_id": "turn", "after": self.after}
        return SimpleNamespace(json=lambda: {"status": "cancelled"} if "cancel" in path else started)
    @contextmanager
    def opened(self, reading, base, **parameters):
        yield SimpleNamespace(status_code=200, iter_content=lambda size: self.said())
"""


@pytest.mark.parametrize("wrong", WRONG)
def test_what_no_correct_server_does_is_a_violation(wrong: str) -> None:
    shown = "\nPerson().chat(time.time())\nprint(json.dumps([dict(RESULTS.counts), RESULTS.wrong]))"
    code = SOMEONE + WRONG[wrong] + shown
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    counts, sentences = json.loads(ended.stdout)
    assert counts["violations"] == 1, sentences
    assert not counts.get("whole")


def test_each_person_has_one_task() -> None:
    """Locust runs the parents' tasks beside a class's own, also those that it overrides."""
    code = "from loadtests import locustfile as f; print({n: len(set(getattr(f, n).tasks)) for n in f.__all__})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tasks = ast.literal_eval(ended.stdout)
    assert {name for name, count in tasks.items() if count != 1} == set()
    assert tasks.keys() >= {"IdleTabs", "SlowClient"}


@pytest.mark.parametrize(("module", "kind"), [("replica_kill", "ReplicaKill"), ("steady_chat", "SteadyChat")])
def test_an_answer_that_ends_with_an_error_is_not_whole_and_spoils_the_goodput(module: str, kind: str) -> None:
    command = [sys.executable, "-c", PERSON.format(module=module, kind=kind)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    counts, interruption = json.loads(ended.stdout)
    assert (counts["turns"], counts["failed"], counts.get("whole", 0)) == (1, 1, 0)
    if kind == "ReplicaKill":
        assert interruption["max"] == pytest.approx(2000, rel=0.02)
    else:
        assert (counts["watched"], counts.get("good", 0)) == (1, 0)


def test_a_script_that_fails_exits_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "locustfile.py"
    broken.write_text("raise RuntimeError('broken')\n")
    monkeypatch.setattr(run, "LOCUSTFILE", broken)
    host = ("--host", "http://127.0.0.1:9", "--out", str(tmp_path))
    assert run.main(["--scenario", "steady_chat", *host]) == 2
