"""Three parsers of Server-Sent Events that share no code: httpx-sse, sseclient-py, and Node's EventSource."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import sseclient
from httpx_sse import EventSource

NODE_SECONDS = 30
SCRIPT = """
const [url, ...types] = process.argv.slice(1)
const source = new EventSource(url)
const seen = []
for (const type of new Set([...types, 'message']))
  source.addEventListener(type, (e) => seen.push([e.lastEventId, type, e.data]))
source.addEventListener('end', end)
function end() { source.close(); console.log(JSON.stringify(seen)) }
source.onerror = () => source.readyState === 2 && end()
"""
END = b"event: end\ndata: {}\n\n"


class Seen(NamedTuple):
    id: str
    type: str
    data: str


def by_httpx_sse(body: bytes) -> list[Seen]:
    response = httpx.Response(200, content=body, headers={"Content-Type": "text/event-stream"})
    return [Seen(event.id, event.event, event.data) for event in EventSource(response).iter_sse()]


def by_sseclient(body: bytes) -> list[Seen]:
    return [Seen(event.id or "", event.event, event.data) for event in sseclient.SSEClient(iter([body])).events()]


def node_has_eventsource() -> bool:
    node = shutil.which("node")
    if node is None:
        return False
    return (
        subprocess.run([node, "--experimental-eventsource", "-e", ""], check=False, capture_output=True).returncode == 0
    )


def by_node(body: bytes, types: Sequence[str]) -> list[Seen]:
    """Node's EventSource, as a browser's, tells only of the types that it is asked for."""
    with _serving(body + END) as url:
        command = ["node", "--no-warnings", "--experimental-eventsource", "-e", SCRIPT, url, *types]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=NODE_SECONDS)
    return [Seen(*event) for event in json.loads(done.stdout)]


@contextmanager
def _serving(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
