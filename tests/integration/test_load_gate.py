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
from loadtests.sse import STAGES

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
    lags = [found["metrics"][f"{stage}_lag_ms"] for stage in STAGES]
    assert {lag["count"] for lag in lags} == {found["metrics"]["whole"]["value"]}
    assert found["metrics"]["stage_lag_ms"]["max"] == max(lag["max"] for lag in lags)


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


# Servers that one person meets, one after the other; the first is sound.
SERVERS = """
import locust, gevent, json, random, time
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace
from loadtests.scenarios.cancel_storm import CancelStorm
from loadtests.scenarios.double_send import DoubleSend
from loadtests.scenarios.steady_chat import SteadyChat
from loadtests.scenarios.visitor import RESULTS

class Person:
    abstract, after, kept, stopped = True, 0, "Iron ", "cancelled"
    dice = SimpleNamespace(choice=lambda of: of[0], random=lambda: 0)
    def __init__(self):
        self.asked, self.idle, self.cursors, self.replicas = Counter(), ["session"], {"session": 0}, []
        self.turns = iter(["turn", "other turn"])
    def _show(self, *arguments): ...
    def request(self, method, path, well, **arguments):
        return SimpleNamespace(json=lambda: self.answer(method, path))
    def answer(self, method, path):
        if method == "GET":
            return {"messages": [{"turn_id": "turn", "role": "assistant", "content": self.kept}]}
        if "cancel" in path:
            return {"status": self.stopped}
        return {"session_id": "session", "turn_id": self.turn(), "after": self.after}
    def turn(self):
        return "turn"
    @contextmanager
    def opened(self, reading, base, **parameters):
        yield SimpleNamespace(status_code=200, iter_content=lambda size: self.said())
    def said(self):
        yield self.frame(1, "token", content="Iron ")
        yield self.frame(2, "done", message={"content": "Iron "})
    def frame(self, seq, kind, **data):
        data["timestamp"] = "2026-01-01T00:00:00Z"
        return f"id: {self.after + seq}\\nevent: {kind}\\ndata: {json.dumps(data)}\\n\\n".encode()

class Sound(Person, SteadyChat): ...
class SecondEnd(Person, SteadyChat):
    def said(self):
        yield from super().said()
        yield self.frame(3, "done", message={"content": "Iron "})
class BeginsLater(Person, SteadyChat):
    after = 7
class OtherSnapshot(Person, SteadyChat):
    kept = "Zinc "
class UselessStop(Person, CancelStorm):
    def said(self):
        gevent.sleep(0.2)
        yield from super().said()
class StopThatCameTooLate(Person, CancelStorm):
    stopped = "done"
    def said(self):
        gevent.sleep(0.2)
        yield self.frame(1, "token", content="Iron ")
        yield self.frame(2, "cancelled", content="Iron ")
class TwoTurns(Person, DoubleSend):
    def turn(self):
        return next(self.turns)
class StoppedByNobody(Person, SteadyChat):
    def said(self):
        yield self.frame(1, "cancelled", content="")

for kind in (Sound, SecondEnd, BeginsLater, OtherSnapshot, UselessStop, StopThatCameTooLate, TwoTurns, StoppedByNobody):
    RESULTS.clear()
    kind().chat(time.time())
    print(json.dumps([kind.__name__, RESULTS.counts, RESULTS.wrong]))
"""


def test_what_no_correct_server_does_is_a_violation() -> None:
    ended = subprocess.run([sys.executable, "-c", SERVERS], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    met = {name: (counts, wrong) for name, counts, wrong in map(json.loads, ended.stdout.splitlines())}
    assert {name: [sentence.partition(" ")[2] for sentence in wrong] for name, (_, wrong) in met.items()} == {
        "Sound": [],
        "SecondEnd": ["repeated: done 3 after the end"],
        "BeginsLater": ["out of order: a turn begins after 7, the one before ended with 0"],
        "OtherSnapshot": ["text differs from the snapshot's"],
        "UselessStop": ["the cancel was answered cancelled, the turn ended done"],
        "StopThatCameTooLate": ["the cancel was answered done, the turn ended cancelled"],
        "TwoTurns": ["one question became two turns"],
        "StoppedByNobody": ["ended with cancelled: {'content': '', 'timestamp': '2026-01-01T00:00:00Z'}"],
    }
    found = {name: counts.get("violations", 0) for name, (counts, _) in met.items()}
    assert found == {name: int(name not in ("Sound", "StoppedByNobody")) for name in met}
    assert [counts.get("failed", 0) for name, (counts, _) in met.items() if name == "StoppedByNobody"] == [1]


# A master of which one worker hands over what it found; `expected` have been asked for.
MASTER = """
import sys
import locust
from types import SimpleNamespace
from locust.env import Environment
from loadtests import locustfile

environment = Environment()
master = environment.create_master_runner("127.0.0.1", int(sys.argv[1]))
for expected in (1, 2):
    environment.parsed_options = SimpleNamespace(expect_workers=expected, results="")
    def hand_over(message):
        found = {"latencies": {}, "counts": {"turns": 5}, "wrong": []}
        locustfile._finished(SimpleNamespace(data=found, node_id="worker"))
    master.send_message = hand_over
    locustfile.LAST_SECONDS = 0.05
    locustfile._wait_for_workers(environment)
    locustfile._write(environment)
    print(environment.process_exit_code)
"""


def test_a_worker_that_was_lost_is_a_script_error() -> None:
    command = [sys.executable, "-c", MASTER, str(free_port())]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["0", "2"], ended.stderr


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


LEAVES_RESULTS = """
import pathlib, sys
pathlib.Path(sys.argv[sys.argv.index("--results") + 1]).write_text('{"latencies": {}, "counts": {}, "wrong": []}')
"""


@pytest.mark.parametrize("before", ["", LEAVES_RESULTS])
def test_a_script_that_fails_exits_2(before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "locustfile.py"
    broken.write_text(f"{before}raise RuntimeError('broken')\n")
    monkeypatch.setattr(run, "LOCUSTFILE", broken)
    host = ("--host", "http://127.0.0.1:9", "--out", str(tmp_path))
    assert run.main(["--scenario", "steady_chat", *host]) == 2
