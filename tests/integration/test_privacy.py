"""What a person writes is nowhere but in its owner's responses and rows, and after an erasure nowhere at all."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.conftest import FreshDatabase
from tests.support.client import Person
from tests.support.collector import Collector, collecting, receiving
from tests.support.dump import dump, holding
from tests.support.server import Server, serving
from tests.support.waiting import until

CANARY = "canary7f3a9c zebrafish"
OTHER = "otherbird51d0"


class Observed(NamedTuple):
    server: Server
    collector: Collector
    database_url: str


@pytest.fixture(scope="module")
def observed(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """One server that says all it can: JSON logs at their loudest, traces, metrics."""
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database())
        collector = stack.enter_context(collecting())
        settings = {"LOG_LEVEL": "debug", "LOG_FORMAT": "json", "TRACES": collector.url}
        folder: Path = tmp_path_factory.mktemp("observed")
        server = stack.enter_context(serving(url, folder, "scripted?tokens=20&delay_ms=1", **settings))
        yield Observed(server, collector, url)


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


async def _asked(person: Person, url: str, message: str) -> dict[str, Any]:
    started = await person.start(url, message, request_id=f"request-{message}")
    await person.read(url, started["session_id"])
    return started


def _lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]


async def test_langsmiths_own_variables_alone_send_nothing_away(
    database_url: str, tmp_path: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as (address, paths):
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_API_KEY", "no-key")
        for setting in ("off", "on"):
            monkeypatch.setenv("LANGSMITH_ENDPOINT", f"{address}/{setting}")
            with serving(database_url, tmp_path, "scripted?tokens=5", LANGSMITH=setting) as server:
                await _asked(person, server.url, f"{CANARY} {setting}")
                if setting == "on":
                    await until(lambda: any("runs" in path for path in paths), "it must send where it is told to")
                server.stop()
    assert not [path for path in paths if path.startswith("/off")]


async def test_what_a_person_writes_is_in_no_log_no_metric_and_no_trace(observed: Observed, person: Person) -> None:
    server, collector, url = observed
    started = await _asked(person, server.url, CANARY)
    path = f"{server.url}/sessions/{started['session_id']}"
    await person.client.put(f"{path}/turns/{started['turn_id']}/feedback", json={"value": 1, "comment": CANARY})
    await person.client.patch(path, json={"title": CANARY, CANARY: CANARY})
    await person.client.patch(path, json={"title": CANARY})
    await person.client.get(f"{server.url}/sessions", params={"query": CANARY, "before": CANARY})
    await person.client.post(f"{server.url}/chat", content=f'{{"message": "{CANARY}'.encode(), headers=JSON)
    await until(
        lambda: any(s["trace_id"] == _hex(started) and s["name"] == "tail" for s in collector.spans), "no trace"
    )
    said = [
        server.output,
        (await person.client.get(f"{server.url}/metrics")).text,
        b"".join(collector.bodies).decode(errors="replace"),
    ]
    for text in said:
        assert len(text) > 100, "nothing was said, so nothing was tested"
        for word in CANARY.split():
            assert word not in text
    assert holding(url, CANARY.split()[0]), "the canary must be in its owner's rows, or this looks at nothing"


JSON = {"Content-Type": "application/json"}


def _hex(started: dict[str, Any]) -> str:
    return str(started["turn_id"]).replace("-", "")


async def test_an_erased_session_is_nowhere_in_the_database(observed: Observed, person: Person) -> None:
    server, _, url = observed
    started = await _asked(person, server.url, CANARY)
    kept = await _asked(person, server.url, OTHER)
    again = await person.start(server.url, CANARY, session_id=started["session_id"])
    await person.read(server.url, started["session_id"], again["after"])
    path = f"{server.url}/sessions/{started['session_id']}"
    comment = {"value": -1, "comment": CANARY}
    assert (await person.client.put(f"{path}/turns/{started['turn_id']}/feedback", json=comment)).status_code == 204
    held = holding(url, started["session_id"])
    assert {"public.events", "public.turns", "public.checkpoints", "public.feedback"} <= set(held)
    assert (await person.client.delete(path)).status_code == 204
    for table, rows in dump(url).items():
        mine = [row for row in rows.splitlines() if started["session_id"] in row]
        assert not mine or table == "public.sessions", f"{table} still holds rows of the session"
        for row in mine:
            assert CANARY.split()[0] not in row
            assert "anonymous:" not in row, "the tombstone names nobody"
    assert {"public.events", "public.checkpoints"} <= set(holding(url, kept["session_id"])), "another session is whole"


async def test_a_line_of_the_log_names_the_turn_and_its_trace(observed: Observed, person: Person) -> None:
    server, *_ = observed
    started = await _asked(person, server.url, "And now?")
    about = {"session_id": started["session_id"], "turn_id": started["turn_id"], "trace_id": _hex(started)}
    wanted = [
        {"message": "turn started", **about},
        {"message": "turn claimed", **about, "attempt": 1},
        {"message": "turn left", **about, "attempt": 1},
    ]
    await until(lambda: all(any(want.items() <= line.items() for line in _lines(server)) for want in wanted), "no line")


async def test_a_turns_trace_goes_from_the_post_through_the_stages_to_the_last_frame(
    observed: Observed, person: Person
) -> None:
    server, collector, _ = observed
    started = await _asked(person, server.url, "Trace me")

    def spans() -> dict[str, dict[str, Any]]:
        return {span["name"]: span for span in collector.spans if span["trace_id"] == _hex(started)}

    names = {"start turn", "answer", "retrieval", "reranking", "tail"}
    await until(lambda: names <= set(spans()), "a span is missing")
    found = spans()
    root = found["start turn"]["span_id"]
    assert found["start turn"]["parent_id"] == ""
    assert (found["answer"]["parent_id"], found["tail"]["parent_id"]) == (root, root)
    assert found["retrieval"]["parent_id"] == found["answer"]["span_id"]
    assert found["answer"]["pulseline.status"] == "done"
    assert all(span["seconds"] >= 0 for span in found.values())


async def test_metrics_tell_of_turns_commits_tails_and_errors(observed: Observed, person: Person) -> None:
    server, *_ = observed
    session_id = (await _asked(person, server.url, "Begin"))["session_id"]
    before = await _metrics(person.client, server)
    seen = (await person.snapshot(server.url, session_id))["last_seq"]
    async with person.watch(server.url, session_id, seen, follow="session") as watching:
        await person.start(server.url, "Count me", session_id=session_id)
        await watching.until("done")
        slow = await person.start(server.url, "Stop me")
        await person.cancel(server.url, slow["session_id"])
        assert (await _metrics(person.client, server))["pulseline_open_tails"] == 1
    assert (await person.client.get(f"{server.url}/sessions/{slow['turn_id']}")).status_code == 404
    after = await _metrics(person.client, server)

    def grew(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert grew("pulseline_turns_started_total") == 2
    assert grew('pulseline_turns_ended_total{code="",status="done"}') >= 1
    assert (
        grew('pulseline_turns_ended_total{code="",status="done"}')
        + grew('pulseline_turns_ended_total{code="",status="cancelled"}')
        == 2
    )
    assert grew("pulseline_first_token_seconds_count") >= 1
    assert grew("pulseline_commit_seconds_count") >= 1
    assert grew("pulseline_commit_events_sum") >= 8
    assert grew("pulseline_delivery_lag_seconds_count") >= 1
    assert grew('pulseline_requests_refused_total{code="session_not_found"}') == 1


async def _metrics(client: httpx.AsyncClient, server: Server) -> dict[str, float]:
    text = (await client.get(f"{server.url}/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
