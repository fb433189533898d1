"""What fails with a message in its hands tells nobody of it: not in the log, metrics, traces, nor Postgres's log."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
import pytest

from functions.postgres_cluster import SETTINGS
from tests.conftest import FreshDatabase
from tests.support.client import Person, Received
from tests.support.collector import Collector, collecting
from tests.support.dump import holding
from tests.support.failing import FAILURES
from tests.support.openai_wire import MODEL, Act, breaks, fails, refuses, wire
from tests.support.server import Server, serving
from tests.support.waiting import until

CANARY = "canary4e81 oriole"
WORDS = CANARY.split()
OWNERS_TABLES = ("sessions", "turns", "events", "checkpoints", "checkpoint_blobs", "checkpoint_writes")
REFUSING = "alter table events add constraint kept_out check (type <> 'token' or data::text not like '%refused%')"
SHIPPED = Path(__file__).parents[2] / "infra/postgres/postgresql.conf"
ENDS = {
    "raises": "model_unavailable",  # for its status
    "refused": "graph_failed",
    "times_out": "model_timeout",
    "hangs": "turn_timeout",
    "asks": "model_unavailable",
}


class Watched(NamedTuple):
    server: Server
    collector: Collector
    database_url: str
    postgres_log: Path | None

    async def said(self) -> dict[str, str]:
        """All that is said to anybody but the owner."""
        async with httpx.AsyncClient(trust_env=False) as stranger:
            metrics = (await stranger.get(f"{self.server.url}/metrics")).text
        found = {
            "log": self.server.output,
            "metrics": metrics,
            "traces": b"".join(self.collector.bodies).decode(errors="replace"),
        }
        return found | ({"Postgres": self.postgres_log.read_text()} if self.postgres_log else {})


@pytest.fixture(scope="module")
def postgres_log(cluster_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """None: TEST_DATABASE_URL names a server whose log is not here to be read."""
    if "TEST_DATABASE_URL" in os.environ:
        return None
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return (home / "home" / "postgres").resolve() / "log"


@pytest.fixture(scope="module")
def watched(
    fresh_database: FreshDatabase,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_log: Path | None,
) -> Iterator[Watched]:
    """At its loudest; its database refuses some events."""
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database())
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(REFUSING.encode())
        collector = stack.enter_context(collecting())
        settings = {"LOG_LEVEL": "debug", "LOG_FORMAT": "json", "TRACES": collector.url}
        settings |= {"GRAPH": "tests.support.failing:graph", "TURN_TIMEOUT_SECONDS": "6", "MAX_TURNS_PER_MINUTE": "0"}
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        environment.setenv("OPENAI_API_KEY", "none-needed")
        named = {f"PULSELINE_{name}": value for name, value in settings.items()}
        server = Server(
            url, tmp_path_factory.mktemp("watched"), MODEL, named
        )  # not `serving`: its tasks may fail unheard
        stack.callback(server.kill)
        yield Watched(server, collector, url, postgres_log)


async def _asked(person: Person, url: str, message: str) -> list[Received]:
    started = await person.start(url, message)
    return await person.read(url, started["session_id"], started["after"])


async def test_a_node_that_fails_with_a_message_in_its_hands_tells_nobody(watched: Watched) -> None:
    ways = [*FAILURES, "refused"]
    async with Person() as owner, Person() as other:
        await owner.client.get(f"{watched.server.url}/sessions")  # one owner for all that follows at once
        ended = await asyncio.gather(*(_asked(owner, watched.server.url, f"{way} {CANARY}") for way in ways))
        ends = {way: frames[-1] for way, frames in zip(ways, ended, strict=True)}
        assert {way: ends[way].data["code"] for way in ENDS} == ENDS
        assert "canary" not in (await other.client.get(f"{watched.server.url}/sessions")).text
    await until(lambda: any(span["name"] == "tail" for span in watched.collector.spans), "no trace")
    for place, text in (await watched.said()).items():
        assert len(text) > 100, f"nothing was said in {place}, so nothing was tested"
        for word in WORDS:
            lines = [line for line in text.splitlines() if word in line]
            assert not lines, f"{place} quotes a message: {lines[0][:1000]}"
    assert {table.removeprefix("public.") for table in holding(watched.database_url, WORDS[0])} <= set(OWNERS_TABLES)


async def test_the_log_still_says_what_went_wrong_and_where(watched: Watched) -> None:
    async with Person() as owner:
        for way in ("raises", "warns", "logs", "forgets", "drops", "threads"):
            await _asked(owner, watched.server.url, f"{way} {CANARY}")
    for wanted in (
        "Quoting(418) from ValueError",
        "UserWarning at ",
        "a_library.of_somebody",
        "Task exception was never retrieved",
        "an error in a destructor or a callback",
        "a thread ended with an error",
    ):
        assert wanted in watched.server.output
    assert watched.server.output.count("support/failing.py") >= 5, "the place is named"


def _acts() -> dict[str, Act]:
    said = f"cannot answer {CANARY}"
    return {
        "refused": refuses(400, "invalid_request", said),
        "limited": refuses(429, "rate_limit_exceeded", said, retry_after="0"),
        "failed in the stream": fails("Some words. ", code="server_error", message=said),
        "broken off": breaks("Some words. "),
    }


async def test_a_provider_that_fails_and_quotes_the_message_is_not_repeated(
    database_url: str, tmp_path: Path, postgres_log: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")
    settings = {"LOG_LEVEL": "debug", "TOKEN_TIMEOUT_SECONDS": "1", "FIRST_TOKEN_TIMEOUT_SECONDS": "3"}
    async with wire(*_acts().values()) as wired, Person() as owner:
        monkeypatch.setenv("OPENAI_BASE_URL", wired.url)
        with collecting() as traces, serving(database_url, tmp_path, MODEL, TRACES=traces.url, **settings) as server:
            for name, act in _acts().items():
                wired.acts, before = [act], len(wired.calls)
                frames = await _asked(owner, server.url, f"I feel sad and alone, says {CANARY}")
                assert (name, frames[-1].type) == (name, "error")
                assert WORDS[0] not in str([frame.data for frame in frames[1:]]), "what a provider says is not shown"
                assert len(wired.calls) > before, name
            said = await Watched(server, traces, database_url, postgres_log).said()
    for place, text in said.items():
        for word in WORDS:
            assert word not in text, f"{place} quotes a message"
    assert "turn failed: model_unavailable" in said["log"]


def test_postgres_logs_no_value_of_a_row_or_of_a_statement_that_it_refuses(
    database_url: str, postgres_log: Path | None
) -> None:
    if postgres_log is None:
        pytest.skip("this server's log is not here to be read")
    refused = [
        ("insert into feedback values (gen_random_uuid(), gen_random_uuid(), 7, %s)", [CANARY]),
        ("insert into events values (null, 1, null, 1, 'token', %s)", [f'"{CANARY}"']),
        ("select %s::text::json", [f"[{CANARY}]"]),
        (f"select '{CANARY}' from nowhere_known", []),
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement, values in refused:
            with pytest.raises(psycopg.Error):
                connection.execute(statement.encode(), values)
        with pytest.raises(psycopg.Error), connection.cursor().copy("copy events from stdin") as copy:
            copy.write_row((None, 1, None, 1, "token", f'"{CANARY}"', None))
    said = postgres_log.read_text()
    assert "nowhere_known" in said
    for word in WORDS:
        assert word not in said


PRIVATE = ("log_error_verbosity", "log_min_error_statement", "log_parameter_max_length_on_error")


def test_the_shipped_settings_of_postgres_keep_as_silent() -> None:
    lines = [line.partition("#")[0].partition("=") for line in SHIPPED.read_text().splitlines()]
    shipped = {name.strip(): value.strip() for name, equals, value in lines if equals}
    assert {name: shipped.get(name) for name in PRIVATE} == {name: SETTINGS.get(name) for name in PRIVATE}
    assert shipped["log_parameter_max_length"] == "0"
