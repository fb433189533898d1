"""The handlers under Lambda's real runtime client, in processes that stand still between invocations."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import psutil
import psycopg
import pytest

from tests.conftest import Say
from tests.support.client import ENDS, Person, Received, check_whole_turn
from tests.support.lambdas import REGION, Cloud, cloud

pytestmark = [pytest.mark.timeout(150), pytest.mark.skipif(sys.platform != "linux", reason="the runtime client is not")]
BRIEF = "scripted?tokens=60&delay_ms=20"
LONG = "scripted?tokens=400&delay_ms=50"
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.1


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


async def follow(
    person: Person, url: str, session_id: str, after: int = 0, until: Callable[[Received], bool] = lambda _: False
) -> tuple[list[Received], int]:
    """As a browser does: one response after another, each from the cursor on. Gives how many brought something."""
    frames: list[Received] = []
    windows = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (frames and (frames[-1].type in ENDS or any(until(frame) for frame in frames))):
        assert time.monotonic() < deadline, [frame.type for frame in frames]
        async with person.watch(url, session_id, last_event_id=frames[-1].seq if frames else after) as watching:
            assert watching.response.status_code == 200, watching.response.status_code
            brought = await watching.rest()
            frames += brought
            windows += bool(brought)
        await asyncio.sleep(RETRY_SECONDS)
    return frames, windows


def row_of(database_url: str, session_id: str) -> tuple[str, int, int]:
    """The turn's status, attempt and how often it was handed back."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            "select status, attempt, handed_back from turns where session_id = %s", [session_id]
        ).fetchone()
    assert row is not None
    return row


async def test_a_whole_answer_comes_in_order_over_many_responses(
    database_url: str, tmp_path: Path, person: Person, say: Say
) -> None:
    """The window is longer than the answer takes: a response ends with the first events it has."""
    with cloud(database_url, tmp_path, limits={"api": 60.0}, MODEL=BRIEF, STREAM_WINDOW_SECONDS="50") as made:
        started = await person.start(made.url)
        frames, windows = await follow(person, made.url, started["session_id"])
        check_whole_turn(frames)
        assert frames[-1].type == "done"
        assert windows > 2
        await asyncio.to_thread(made.settle)
        second = await person.start(made.url, session_id=started["session_id"])
        again, _ = await follow(person, made.url, started["session_id"], second["after"])
        check_whole_turn(again)
        await asyncio.to_thread(made.settle)
        twice = await asyncio.to_thread(made.invoke, "run", session_id=started["session_id"])
        assert twice.result == {"ran": False}, "nothing is left to do"
        _check_all_stopped(made)
        _tell_times(made, say)


def _check_all_stopped(made: Cloud) -> None:
    """The test is of frozen processes: outside an invocation none may run."""
    for function in made.functions.values():
        for environment in function.idle:
            assert psutil.Process(environment.process.pid).status() == psutil.STATUS_STOPPED


def _tell_times(made: Cloud, say: Say) -> None:
    for name, function in made.functions.items():
        cold = [call.seconds for call in function.invocations if call.cold]
        warm = [call.seconds for call in function.invocations if not call.cold]
        if cold:
            quick = f", quickest warm {min(warm) * 1000:.0f} ms of {len(warm)}" if warm else ""
            say(f"Lambda {name}: cold {statistics.median(cold) * 1000:.0f} ms{quick}")


async def test_a_cancel_ends_a_turn_that_another_function_runs(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with cloud(database_url, tmp_path, MODEL=LONG) as made:
        started = await person.start(made.url)
        session_id = started["session_id"]
        before, _ = await follow(person, made.url, session_id, until=lambda frame: frame.type == "token")
        cancelled = await person.cancel(made.url, session_id, turn_id=started["turn_id"])
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        after, _ = await follow(person, made.url, session_id, before[-1].seq)
        check_whole_turn(before + after)
        assert after[-1].type == "cancelled"
        await asyncio.to_thread(made.settle, 15.0)  # the other function has let go, long before the answer's end


async def test_a_turn_cut_by_the_time_limit_is_given_back_and_continued_by_sweep(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with cloud(database_url, tmp_path, MODEL="scripted?tokens=160&delay_ms=60") as made:
        first = await person.start(made.url)  # only so that the function is warm
        await follow(person, made.url, first["session_id"], until=lambda frame: frame.type == "token")
        await person.cancel(made.url, first["session_id"])
        await asyncio.to_thread(made.settle)
        made.functions["run"].limit = 10.0
        started = await person.start(made.url)
        session_id = started["session_id"]
        await asyncio.to_thread(made.settle)
        assert made.functions["run"].invocations[-1].result == {"ran": True}, "it stopped by itself, in time"
        assert row_of(database_url, session_id) == ("queued", 1, 1)
        made.functions["run"].limit = 60.0
        swept = await asyncio.to_thread(invoke_with_boto3, made, "sweep")
        assert swept == b'{"called": 1, "pruned": 0}'
        frames, _ = await follow(person, made.url, session_id)
        check_whole_turn(frames)
        assert [frame.data["attempt"] for frame in frames if frame.type == "reset"] == [2]
        assert frames[-1].type == "done"


def invoke_with_boto3(made: Cloud, name: str) -> bytes:
    client = boto3.client(
        "lambda",
        endpoint_url=made.endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    reply: bytes = client.invoke(FunctionName=name)["Payload"].read()
    return reply


async def test_a_reader_who_sees_a_lease_run_out_has_the_turn_continued(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    """Nothing else calls the function again here: no sweep, and no retry."""
    with cloud(database_url, tmp_path, MODEL="scripted?tokens=100&delay_ms=40", LEASE_SECONDS="2") as made:
        started = await person.start(made.url)
        session_id = started["session_id"]
        before, _ = await follow(person, made.url, session_id, until=lambda frame: frame.type == "token")
        made.functions["run"].all[0].process.kill()
        after, _ = await follow(person, made.url, session_id, before[-1].seq)
        check_whole_turn(before + after)
        assert after[-1].type == "done"
        assert [frame.data["reason"] for frame in after if frame.type == "reset"] == ["worker_lost"]
        await asyncio.to_thread(made.settle)


async def test_who_finds_all_places_taken_is_refused_and_served_later(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with cloud(database_url, tmp_path, most=1, MODEL="scripted?tokens=3&delay_ms=1") as made:
        started = await person.start(made.url)
        session_id = started["session_id"]
        await follow(person, made.url, session_id)
        last = (await person.snapshot(made.url, session_id))["last_seq"]

        async def wait() -> int:
            """A silent window: it keeps its place for three seconds."""
            async with person.watch(made.url, session_id, after=last, follow="session") as watching:
                await watching.rest()
                return watching.response.status_code

        assert sorted(await asyncio.gather(*(wait() for _ in range(4)))) == [200, 429, 429, 429]
        assert await wait() == 200


async def test_without_a_database_the_answer_is_a_503_that_says_so(tmp_path: Path, person: Person) -> None:
    with cloud("postgresql://nobody@127.0.0.1:1/none", tmp_path) as made:
        reply = await person.client.get(f"{made.url}/sessions")
        assert (reply.status_code, reply.json()["code"]) == (503, "database_unavailable")
        assert reply.headers["Retry-After"]


def test_what_serves_is_imported_quickly_and_without_langgraph(say: Say) -> None:
    program = (
        "import sys, time; began = time.perf_counter(); import functions.aws\n"
        "print(round(1000 * (time.perf_counter() - began)), [m for m in sys.modules if m.startswith('lang')])"
    )
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    took = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        milliseconds, _, modules = done.stdout.strip().partition(" ")
        assert modules == "[]", done
        took.append(int(milliseconds))
    say(f"Lambda api: its modules are imported in {min(took)} ms (the quickest of 3)")
