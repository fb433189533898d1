"""Schemathesis against a running server: every operation of the OpenAPI document, alone and one after the other.

`python -m tests.support.openapi_attack 300` for a long run; a short one is among the tests.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.server import Server, serving

MODEL = "scripted?tokens=3&delay_ms=0&stage_ms=0"
SETTINGS = {"STREAM_WINDOW_SECONDS": "0.1", "MAX_TURNS_PER_MINUTE": "0", "MAX_TURNS_PER_OWNER": "0"}
# Not the phase `coverage`: Python 3.11's own parser fails in it, in Hypothesis, on a schema that allows anything.
PHASES = "fuzzing,stateful"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
RUN_SECONDS = 3000
HOOKS = "tests.support.openapi_hooks"


class Attacked(NamedTuple):
    passed: bool
    cases: int
    operations: int
    said: str


def attack(server: Server, examples: int, folder: Path, seed: int = 1) -> Attacked:
    """As one owner, so that what one case makes another finds."""
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False)
    cookie = httpx.get(f"{server.url}/sessions", trust_env=False).headers["set-cookie"].partition(";")[0]
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"]
    command += ["--phases", PHASES, "--checks", CHECKS, "--max-examples", str(examples), "--seed", str(seed)]
    command += ["--header", f"Cookie: {cookie}", "--no-color", "--warnings", "off", "--continue-on-failure"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment["NO_PROXY"] = "127.0.0.1"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=RUN_SECONDS
    )
    generated = re.search(r"([\d,]+) generated", done.stdout)
    return Attacked(
        done.returncode == 0,
        int(generated[1].replace(",", "")) if generated else 0,
        sum(len(operations) for operations in document.json()["paths"].values()),
        done.stdout + done.stderr,
    )


def main() -> int:
    from functions.embedded_postgres import EmbeddedPostgres

    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedPostgres(Path(name) / "home").running() as url,
        serving(url, Path(name), MODEL, **SETTINGS) as server,
    ):
        attacked = attack(server, int(sys.argv[1]), Path(name))
        print(attacked.said[-6000:])
        print(f"{attacked.cases} cases, {attacked.operations} operations, {'passed' if attacked.passed else 'FAILED'}")
    return 0 if attacked.passed else 1


if __name__ == "__main__":
    sys.exit(main())
