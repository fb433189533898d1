"""docs/bring-your-own-graph.md, done as it says, in a folder in which nothing lies. Only the port is another."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "bring-your-own-graph.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
HERE = "http://127.0.0.1:8000"
GREETING = re.compile(r"answers at (http://[\d.]+:\d+)")


def block(kind: str, *words: str) -> str:
    [found] = [text for name, text in BLOCKS if name == kind and all(word in text for word in words)]
    return str(found)


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PULSELINE_", "OPENAI_"))}
    found = f"{Path(sys.executable).parent}:{clean['PATH']}"
    return {**clean, "PATH": found, "DATABASE_URL": database_url, "PULSELINE_HOME": str(tmp_path / "home")}


def bash(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euc", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=40, check=False)


@contextmanager
def started(script: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of what the script serves, its last command."""
    script = re.sub(r"(PULSELINE_\w+=\S+ )?pulseline serve$", r"exec env \g<0> --port 0", script.strip())
    output = folder / "serve.log"
    with output.open("wb") as log:
        command = ["bash", "-euc", script]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 40
        while not (found := GREETING.search(output.read_text())):
            assert server.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        server.terminate()
        server.wait(20)


def test_the_first_step_serves_and_answers(tmp_path: Path, environment: dict[str, str]) -> None:
    made, rest = block("sh", "ten_lines").split("\n", 1)
    makefile = (ROOT / "Makefile").read_text()
    assert made.startswith("make ")
    assert all(f"\n{target}: " in makefile for target in made.split()[1:])
    [asks] = re.findall(r"`\.venv/bin/(pulseline ask [^`]+)`", GUIDE)
    with started(rest, tmp_path, environment) as url:
        page = bash(f"curl -s -o page -w '%{{http_code}}' {HERE}".replace(HERE, url), tmp_path, environment)
        asked = bash(f"{asks} --url {url}", tmp_path, environment)
    assert page.stdout == "200"
    assert "These words come from a graph of your own, one by one." in asked.stdout, asked.stderr


def test_the_second_step_without_a_key_says_what_is_missing(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "my_agent.py").write_text(block("python", "create_agent"))
    refused = bash("PULSELINE_GRAPH=my_agent:graph pulseline serve --port 0", tmp_path, environment)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert re.search(r"PULSELINE_GRAPH: 'my_agent:graph' cannot be imported: .*OPENAI_API_KEY", refused.stderr)
    assert "my_agent.py, line 3" in refused.stderr


def test_the_fourth_step_asks_and_is_answered(tmp_path: Path, environment: dict[str, str]) -> None:
    with started(block("sh", "examples.tools"), tmp_path, environment) as url:
        said = bash(block("sh", "curl").replace(HERE, url), tmp_path, environment)
    assert said.returncode == 0, said.stderr
    assert '"interrupted"' in said.stdout
    assert "I asked: a table in Lisbon is booked." in said.stdout
