"""The command line as a person meets it: real processes, real signals, sentences instead of tracebacks."""

import asyncio
import http.server
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.lossy import losing
from tests.support.server import serving

pytestmark = pytest.mark.timeout(150)  # each starts commands one after the other, which a slow machine takes long for
COMMAND = [sys.executable, "-m", "functions"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    return subprocess.run(
        [*COMMAND, *arguments], env={**clean, **environment}, capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PULSELINE_MODLE": "scripted"}, "PULSELINE_MODLE"),
        ({"PULSELINE_HEARTBEAT_SECONDS": "often"}, "PULSELINE_HEARTBEAT_SECONDS"),
        ({"PULSELINE_HEARTBEAT_SECONDS": "20"}, "PULSELINE_HEARTBEAT_SECONDS"),
        ({"PULSELINE_RERANKER": "best"}, "PULSELINE_RERANKER"),
        ({"PULSELINE_EMBEDDINGS": "best"}, "PULSELINE_EMBEDDINGS"),
        ({"PULSELINE_LEASE_SECONDS": "inf"}, "PULSELINE_LEASE_SECONDS"),
        ({"DATABASE_URL": "localhost"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://user:canary%et@localhost/db"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://nobody:canary@127.0.0.1:1/none"}, "cannot be reached"),
    ],
)
def test_a_wrong_start_is_refused_with_what_to_do(environment: dict[str, str], words: str) -> None:
    refused = run("serve", "--port", "0", **environment)
    assert refused.returncode in (1, 2)
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "canary" not in refused.stderr


@pytest.mark.parametrize("model", ["scripted?tokens=many", "scripted?tokenz=5", "no-such-provider:model"])
def test_a_wrong_model_is_refused_with_what_to_do(database_url: str, model: str, tmp_path: Path) -> None:
    refused = run(
        "serve", "--port", "0", DATABASE_URL=database_url, PULSELINE_MODEL=model, PULSELINE_HOME=str(tmp_path)
    )
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr, refused.stderr
    assert "PULSELINE_MODEL" in refused.stderr
    assert model.partition("?")[2].partition("=")[0] in refused.stderr


def test_a_port_that_is_taken_is_said(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path) as server:
        port = server.url.rpartition(":")[2]
        refused = run("serve", "--port", port, DATABASE_URL=database_url, PULSELINE_MODEL="scripted")
        assert refused.returncode == 1
        assert "--port" in refused.stderr


def test_ask_prints_the_answer_and_goes_on_with_its_session(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, "scripted?tokens=20&delay_ms=1") as server:
        home = {"PULSELINE_HOME": str(tmp_path / "mine")}
        first = run("ask", "What helps?", "--url", server.url, **home)
        assert first.returncode == 0, first.stderr
        assert first.stdout.split()[:2] == ["w0", "w1"]
        assert "searching" in first.stderr
        session = first.stderr.split("session ")[1].split(",")[0]
        second = run("ask", "And then?", "--url", server.url, "--session", session, **home)
        assert second.returncode == 0, second.stderr
        stranger = run(
            "ask", "Mine?", "--url", server.url, "--session", session, PULSELINE_HOME=str(tmp_path / "other")
        )
        assert stranger.returncode == 1
        assert "no such session" in stranger.stderr


def test_ask_comes_back_as_often_as_windows_end(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, "scripted?tokens=450&delay_ms=10", STREAM_WINDOW_SECONDS="0.15") as server:
        asked = run("ask", "What helps?", "--url", server.url, PULSELINE_HOME=str(tmp_path / "mine"))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split() == [f"w{n}" for n in range(450)]


async def test_ask_repeats_a_question_whose_answer_was_lost_and_it_is_one_turn(
    database_url: str, tmp_path: Path
) -> None:
    """The server takes the question and its answer does not come through; then nobody listens; then it is lost again.
    Whoever asks for the first time has no cookie yet."""
    home = str(tmp_path / "mine")
    with serving(database_url, tmp_path, "scripted?tokens=20&delay_ms=1") as server:
        async with losing(server.url, losses=2, away_seconds=0.4) as network:
            asked = await asyncio.to_thread(run, "ask", "What helps?", "--url", network.url, PULSELINE_HOME=home)
        assert (asked.returncode, network.lost) == (0, 2), asked.stderr
        assert asked.stdout.split()[:2] == ["w0", "w1"]
        with psycopg.connect(database_url) as connection:
            assert connection.execute("select count(*) from turns").fetchone() == (1,)


def test_ctrl_c_in_ask_stops_the_answer_and_keeps_it(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, "scripted?tokens=6000&delay_ms=10") as server:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
        asking = subprocess.Popen(
            [*COMMAND, "ask", "What helps?", "--url", server.url],
            env={**clean, "PULSELINE_HOME": str(tmp_path / "mine"), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asking.stdout is not None
        assert asking.stdout.read(20).startswith("w0 w1")
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=20)
        assert asking.returncode == 130, said
        assert "stopped" in said


def test_ctrl_c_before_the_server_has_answered_stops_the_turn_all_the_same(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, "scripted?tokens=6000&delay_ms=10") as server:
        server.signal(signal.SIGSTOP)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
        asking = subprocess.Popen(
            [*COMMAND, "ask", "What helps?", "--url", server.url],
            env={**clean, "PULSELINE_HOME": str(tmp_path / "mine")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        client = psutil.Process(asking.pid)
        port = int(server.url.rpartition(":")[2])
        while not any(c.raddr.port == port for c in client.net_connections() if c.status == psutil.CONN_ESTABLISHED):
            assert asking.poll() is None
        asking.send_signal(signal.SIGINT)
        server.signal(signal.SIGCONT)
        _, said = asking.communicate(timeout=30)
        assert asking.returncode == 130, said


def test_ask_says_what_is_no_pulseline(tmp_path: Path) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(502)
            self.end_headers()
            self.wfile.write(b"<html>bad gateway [/x]</html>")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        for url, words in ((f"http://127.0.0.1:{other.server_port}", "--url"), ("foo", "no address")):
            refused = run("ask", "Anyone?", "--url", url, PULSELINE_HOME=str(tmp_path))
            assert refused.returncode == 1
            assert words in refused.stderr
            assert "Traceback" not in refused.stderr
        other.shutdown()


def test_ask_says_when_nothing_answers(tmp_path: Path) -> None:
    refused = run("ask", "Anyone?", "--url", "http://127.0.0.1:9", PULSELINE_HOME=str(tmp_path))
    assert refused.returncode == 1
    assert "make run" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_serve_ends_on_ctrl_c_with_what_it_started(tmp_path: Path) -> None:
    """With an embedded Postgres of its own, which must end too."""
    home = {"PULSELINE_HOME": str(tmp_path / "home"), "PULSELINE_MODEL": "scripted", "DATABASE_URL": ""}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    server = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"], env={**clean, **home}, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "answers at" in line:
            break
    shown = run("postgres", "url", **home)
    assert shown.returncode == 0, (shown.stderr, said)
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=30)
    assert server.returncode == 0
    stopped = run("postgres", "url", **home)
    assert stopped.returncode == 1
    assert "does not run" in stopped.stderr


def test_the_embedded_postgres_runs_by_itself_until_it_is_stopped(tmp_path: Path) -> None:
    home = {"PULSELINE_HOME": str(tmp_path / "home"), "DATABASE_URL": ""}
    try:
        url = run("postgres", "start", **home).stdout.strip()
        assert url.startswith("postgresql://")
        assert run("postgres", "url", **home).stdout.strip() == url
        migrated = run("migrate", PULSELINE_HOME=home["PULSELINE_HOME"], DATABASE_URL=url)
        assert migrated.returncode == 0, migrated.stderr
        assert run("postgres", "url", **home).returncode == 0, "a command that joined it must leave it running"
    finally:
        assert run("postgres", "stop", **home).returncode == 0
    assert run("postgres", "url", **home).returncode == 1


def test_ingest_names_what_it_skips_and_takes_documents_out_again(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "articles"
    folder.mkdir()
    (folder / "tea.md").write_text("# Tea\n\nTea is hot.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    home = {"DATABASE_URL": database_url, "PULSELINE_HOME": str(tmp_path / "home")}
    read = run("ingest", str(folder), **home)
    assert read.returncode == 1
    assert "broken.pdf: no PDF that can be read" in " ".join(read.stderr.split())
    assert "read 1 articles, 1 passages" in read.stderr
    assert "Traceback" not in read.stderr
    missing = run("ingest", "--remove", "tea", "--remove", "coffee", **home)
    assert missing.returncode == 1
    assert "no document coffee is here" in missing.stderr
    assert "removed 1 documents" in missing.stderr
    assert "read 1 articles" in run("ingest", str(folder), **home).stderr
    assert run("ingest", "--clear", **home).returncode == 0
    assert run("ingest", "--remove", "tea", **home).returncode == 1
    assert run("ingest", "--clear", "--starter", **home).returncode == 2
