"""The Caddyfile that is shipped, run on loopback in front of replicas."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

CADDY = Path(sys.executable).parent / "caddy"
CADDYFILE = Path(__file__).parents[2] / "infra" / "compose" / "Caddyfile"
START_SECONDS = 30.0


@contextmanager
def proxying(*replicas: str, file: Path = CADDYFILE) -> Iterator[str]:
    """Gives the proxy's address, when a replica answers there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    to = " ".join(url.removeprefix("http://") for url in replicas)
    environment = {**os.environ, "PULSELINE_ADDRESS": f":{port}", "PULSELINE_REPLICAS": f"to {to}"}
    command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(file)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "no replica answers through the proxy"
        time.sleep(0.05)
