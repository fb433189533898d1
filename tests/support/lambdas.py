"""Lambda in small, on loopback: real `awslambdaric` processes that are stopped between invocations (SIGSTOP), killed at
their time limit, at most so many of them; the Invoke API for boto3; and an HTTP gateway that buffers whole responses.
"""

import base64
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

ROOT = Path(__file__).parents[2]
START_SECONDS = 40.0
POLL_SECONDS = 0.05
REGION = "eu-central-1"


class Throttled(Exception):
    """So many at once are not allowed."""


class Invocation(NamedTuple):
    """What one call brought. `cold`: its process was started for it. `error`: why there is no result."""

    result: Any
    error: str | None
    seconds: float
    cold: bool


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None: ...

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: bytes = b"", headers: list[tuple[str, str]] | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers or []:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_SECONDS}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(eq=False)
class Environment:
    """One process. It runs only while it has an invocation; `log` is what it has said. `child`: the one in which the
    handler runs, where `process` is only what has started it."""

    process: "subprocess.Popen[bytes]"
    log: Path
    child: psutil.Process = field(init=False)
    events: "queue.Queue[tuple[str, bytes, float]]" = field(default_factory=queue.Queue)
    answers: "dict[str, Future[tuple[Any, str | None]]]" = field(default_factory=dict)
    waiting: threading.Event = field(default_factory=threading.Event)
    cold: bool = True

    def freeze(self) -> None:
        """Returns when it stands still: the signal alone may take its time."""
        with suppress(psutil.NoSuchProcess):
            self.child.suspend()
            while self.child.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                time.sleep(0.001)

    def thaw(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.child.resume()


class Function:
    """`handler` as in the template; `limit` is its time limit in seconds; `most` its reserved concurrency."""

    def __init__(self, name: str, handler: str, limit: float, most: int, settings: dict[str, str], folder: Path):
        self.name, self.handler, self.limit, self.most = name, handler, limit, most
        self.settings, self.folder = settings, folder
        self.idle: list[Environment] = []
        self.all: list[Environment] = []
        self.places = threading.Semaphore(most)
        self.invocations: list[Invocation] = []
        self._lock = threading.Lock()

    def invoke(self, payload: bytes, *, patient: bool = False) -> Invocation:
        """Raises Throttled when all places are taken, unless it is patient."""
        if not self.places.acquire(blocking=patient):
            raise Throttled
        try:
            began = time.monotonic()
            with self._lock:
                environment = self.idle.pop() if self.idle else None
            environment = environment or self._start()
            cold, environment.cold = environment.cold, False
            result, error = self._ask(environment, payload)
            invocation = Invocation(result, error, time.monotonic() - began, cold)
            self.invocations.append(invocation)
            return invocation
        finally:
            self.places.release()

    def _ask(self, environment: Environment, payload: bytes) -> tuple[Any, str | None]:
        name = str(uuid4())
        answer: Future[tuple[Any, str | None]] = Future()
        environment.answers[name] = answer
        environment.thaw()
        environment.events.put((name, payload, time.time() + self.limit))
        ends_at = time.monotonic() + self.limit
        while not (answer.done() and environment.waiting.wait(POLL_SECONDS)):
            with suppress(TimeoutError):
                answer.result(POLL_SECONDS)
            if environment.process.poll() is not None:
                return None, "Runtime exited"
            if time.monotonic() > ends_at:
                environment.process.kill()
                environment.process.wait()
                return None, f"Task timed out after {self.limit:.2f} seconds"
        result = answer.result()
        environment.freeze()
        with self._lock:
            self.idle.append(environment)
        return result

    def _start(self) -> Environment:
        """The init phase; it is no part of the time limit, but of the caller's wait."""
        log = self.folder / f"{self.name}-{time.monotonic_ns()}.log"
        made: list[Environment] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), _runtime(made))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_SECONDS}, daemon=True).start()
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PULSELINE_", "AWS_"))}
        variables |= self.settings | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_address[1]}"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(variables), cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT
            )
        environment = Environment(process, log)
        made.append(environment)
        self.all.append(environment)
        deadline = time.monotonic() + START_SECONDS
        while not environment.waiting.wait(POLL_SECONDS):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        environment.child = self.child(process)
        return environment

    def command(self, variables: dict[str, str]) -> list[str]:
        return [sys.executable, "-m", "awslambdaric", self.handler]

    def child(self, process: "subprocess.Popen[bytes]") -> psutil.Process:
        return psutil.Process(process.pid)

    def end(self) -> None:
        for environment in self.all:
            environment.process.kill()
            environment.process.wait()

    @property
    def output(self) -> str:
        return "\n".join(environment.log.read_text() for environment in self.all)


def _runtime(made: list[Environment]) -> type[BaseHTTPRequestHandler]:
    """The Runtime API of one environment, as its process sees it."""

    class Runtime(_Http):
        def do_GET(self) -> None:
            while not made:
                time.sleep(POLL_SECONDS)
            made[0].waiting.set()
            name, payload, deadline = made[0].events.get()
            made[0].waiting.clear()
            headers = [
                ("Content-Type", "application/json"),
                ("Lambda-Runtime-Aws-Request-Id", name),
                ("Lambda-Runtime-Deadline-Ms", str(round(deadline * 1000))),
                ("Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:{REGION}:0:function:f"),
            ]
            with suppress(OSError):
                self.reply(200, payload, headers)

        def do_POST(self) -> None:
            body, parts = self.body(), self.path.split("/")
            self.reply(202, b"{}")
            if len(parts) > 4 and parts[3] == "invocation":
                said = json.loads(body or b"null")
                answer = (said, None) if parts[5] == "response" else (None, str(said))
                with suppress(InvalidStateError):
                    made[0].answers.pop(parts[4]).set_result(answer)

    return Runtime


class Cloud:
    """`url` is the gateway in front of the function `api`; `endpoint` the Invoke API, for boto3."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.url = self.endpoint = ""
        self.throttled = 0
        self._calls: list[threading.Thread] = []

    def invoke(self, name: str, **event: Any) -> Invocation:
        return self.functions[name].invoke(json.dumps(event).encode(), patient=True)

    def later(self, name: str, payload: bytes) -> None:
        """An asynchronous call: it waits for a place."""

        def call() -> None:
            self.functions[name].invoke(payload, patient=True)

        thread = threading.Thread(target=call, daemon=True)
        self._calls.append(thread)
        thread.start()

    def settle(self, seconds: float = START_SECONDS) -> None:
        """Waits for the asynchronous calls so far."""
        for thread in list(self._calls):
            thread.join(seconds)
            assert not thread.is_alive(), "an asynchronous call does not end"


@contextmanager
def cloud(
    database_url: str, folder: Path, *, most: int = 4, limits: dict[str, float] | None = None, **settings: str
) -> Iterator[Cloud]:
    """The three functions; settings without the prefix, in capitals."""
    made = Cloud()
    limits = {"api": 15.0, "run": 60.0, "sweep": 15.0, **(limits or {})}
    with _listening(_invoke_api(made)) as invoke_port, _listening(_gateway(made)) as gateway_port:
        made.endpoint, made.url = f"http://127.0.0.1:{invoke_port}", f"http://127.0.0.1:{gateway_port}"
        variables = {
            "DATABASE_URL": database_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL_LAMBDA": made.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PULSELINE_RUN_FUNCTION": "run",
            **{f"PULSELINE_{name}": value for name, value in settings.items()},
        }
        for name, limit in limits.items():
            made.functions[name] = Function(name, f"functions.aws.{name}", limit, most, variables, folder)
        try:
            yield made
        finally:
            for function in made.functions.values():
                function.end()


def _invoke_api(made: Cloud) -> type[BaseHTTPRequestHandler]:
    class InvokeApi(_Http):
        def do_POST(self) -> None:
            body, name = self.body(), self.path.split("/")[3]
            if self.headers["X-Amz-Invocation-Type"] == "Event":
                made.later(name, body)
                self.reply(202)
                return
            try:
                done = made.functions[name].invoke(body or b"{}")
            except Throttled:
                self.reply(429, b'{"Type": "User"}', [("x-amzn-ErrorType", "TooManyRequestsException")])
                return
            self.reply(200, json.dumps(done.result or done.error).encode())

    return InvokeApi


def _gateway(made: Cloud) -> type[BaseHTTPRequestHandler]:
    """HTTP to an event of payload format 2.0 and back, as a function URL and an HTTP API do."""

    class Gateway(_Http):
        def answer(self) -> None:
            body = self.body()
            try:
                done = made.functions["api"].invoke(json.dumps(self._event(body)).encode())
            except Throttled:
                made.throttled += 1
                self.reply(429, b'{"message": "Too Many Requests"}', [("Content-Type", "application/json")])
                return
            if done.error is not None or done.result is None:
                self.reply(502, b'{"message": "Bad Gateway"}', [("Content-Type", "application/json")])
                return
            result = done.result
            said = result.get("body") or ""
            raw = base64.b64decode(said) if result.get("isBase64Encoded") else said.encode()
            headers = [(k, v) for k, v in result.get("headers", {}).items() if k.lower() != "content-length"]
            with suppress(OSError):
                self.reply(
                    result["statusCode"], raw, headers + [("Set-Cookie", c) for c in result.get("cookies") or []]
                )

        def _event(self, body: bytes) -> dict[str, Any]:
            address = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            cookies = [part.strip() for part in headers.pop("cookie", "").split(";") if part.strip()]
            where = {"method": self.command, "path": address.path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"}
            return {
                "version": "2.0",
                "routeKey": "$default",
                "rawPath": address.path,
                "rawQueryString": address.query,
                "headers": headers | {"x-forwarded-proto": "http", "x-forwarded-port": "80"},
                "cookies": cookies,
                "requestContext": {"http": where, "stage": "$default", "domainName": headers.get("host", "")},
                "body": base64.b64encode(body).decode(),
                "isBase64Encoded": True,
            }

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

    return Gateway
