"""A worker process of its own, as in the templates: it answers, and shows how it fares at METRICS_PORT."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.app import calling, composed

START_SECONDS = 40
TOKEN = "a-token-for-prometheus"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def working(database_url: str, folder: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    environment |= {"DATABASE_URL": database_url, "PULSELINE_HOME": str(folder / "home")}
    environment |= {f"PULSELINE_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "functions", "worker"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def _ready(client: httpx.AsyncClient, process: subprocess.Popen[str]) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.poll() is None, process.stdout and process.stdout.read()
            with suppress(httpx.ConnectError):
                if (await client.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


async def _metrics(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})


def _value(metrics: str, series: str) -> float:
    return float(metrics.partition(f"\n{series} ")[2].partition("\n")[0] or 0)


async def test_a_worker_shows_what_it_has_answered_and_whether_it_is_ready(database_url: str, tmp_path: Path) -> None:
    port = _free_port()
    settings = {"METRICS_PORT": str(port), "METRICS_TOKEN": TOKEN, "MODEL": "scripted?tokens=20&delay_ms=1"}
    with working(database_url, tmp_path, **settings) as process:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as prometheus:
            await _ready(prometheus, process)
            async with composed(database_url) as app, calling(app) as person:
                answer = await person.post("/chat", json={"message": "Who counts this?"})
                assert answer.json()["status"] == "done"
            assert (await prometheus.get("/metrics")).status_code == 401
            ended = 'pulseline_turns_ended_total{code="",status="done"}'
            async with asyncio.timeout(20):  # others may read the end sooner than the worker hears of its commit
                while not _value((shown := await _metrics(prometheus)).text, ended):
                    pass
            assert shown.headers["x-content-type-options"] == "nosniff"
            for series in ("first_token_seconds_count", "commit_seconds_count", "commit_events_sum"):
                assert _value(shown.text, f"pulseline_{series}") >= 1, series
            assert _value(shown.text, ended) == 1
            assert (await prometheus.get("/sessions")).status_code == 404, "it serves nobody else"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@pytest.mark.parametrize("port", ["taken", "http"])
def test_a_port_that_cannot_be_had_is_named(database_url: str, tmp_path: Path, port: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        given = str(taken.getsockname()[1]) if port == "taken" else port
        with working(database_url, tmp_path, METRICS_PORT=given, MODEL="scripted") as process:
            said = process.communicate(timeout=30)[0]
    assert process.returncode in (1, 2)
    assert "PULSELINE_METRICS_PORT" in said
    assert "Traceback" not in said
