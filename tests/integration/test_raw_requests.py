"""Headers and bodies that no client would send: whatever the bytes, the answer is no 5xx."""

import itertools
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import FreshDatabase
from tests.support.openapi_attack import MODEL, SETTINGS
from tests.support.server import Server, serving

HEADERS = ("Origin", "Authorization", "Cookie", "Prefer", "Last-Event-ID")
WAIT_SECONDS = 10
NUMBERS = re.compile(r"\{[^}]*\}")
LINE_ENDS = re.compile(rb"[\r\n]")
ODD_VALUES = [
    b"null",
    b"Bearer ",
    b"Bearer a.b.c",
    b"Bearer \xff.\xfe.",
    b"respond-async, wait=-1",
    b"wait=" + b"9" * 40,
]
ODD_VALUES += [b"9" * 30, b"-1", b"1\x002", b"https://[::1", b"http://a:b:c", b"pulseline=\xff; =;;", b"a=b" * 2000]
values = st.binary(max_size=60) | st.sampled_from(ODD_VALUES)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = [
    "message",
    "messages",
    "input",
    "command",
    "id",
    "session_id",
    "thread_id",
    "config",
    "metadata",
    "parts",
    "role",
]
KEYS += ["content", "type", "stream_mode", "resume", "configurable", "request_id", "limit", "values", "role"]
objects = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)
bodies = objects.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)


@pytest.fixture(scope="module")
def served(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fresh_database() as url, serving(url, tmp_path_factory.mktemp("raw"), MODEL, **SETTINGS) as server:
        yield server


@pytest.fixture(scope="module")
def routes(served: Server) -> list[tuple[str, str]]:
    """With a session of nobody's wherever a path names something."""
    paths = httpx.get(f"{served.url}/openapi.json", trust_env=False).json()["paths"]
    found = [(method.upper(), NUMBERS.sub(str(UUID(int=7)), path)) for path in paths for method in paths[path]]
    return sorted(route for route in found if route[1] not in ("/readyz", "/metrics"))


def _status(server: Server, method: str, path: str, headers: dict[str, bytes], body: bytes) -> int:
    address = urlsplit(server.url)
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: here", b"Connection: close"]
    lines += [name.encode() + b": " + LINE_ENDS.sub(b"", value) for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}".encode()]
    with socket.create_connection((address.hostname or "", address.port or 0), WAIT_SECONDS) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        return int(connection.recv(64).split()[1])


def test_no_header_and_no_body_makes_a_5xx(served: Server, routes: list[tuple[str, str]]) -> None:
    turn = itertools.cycle(routes)
    asked: list[int] = []

    @given(st.dictionaries(st.sampled_from(HEADERS), values, max_size=3), bodies)
    @settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    def ask(headers: dict[str, bytes], body: bytes) -> None:
        method, path = next(turn)
        status = _status(served, method, path, {"Content-Type": b"application/json"} | headers, body)
        asked.append(status)
        assert status < 500, (method, path, headers, body)

    ask()
    assert len(asked) >= 300
    assert len(set(asked)) >= 4, "not all was refused for one and the same reason"
    assert "unexpected error" not in served.output
