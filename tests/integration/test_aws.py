"""The handlers under Lambda's real runtime client, in processes that stand still between invocations."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import psutil
import psycopg
import pytest

from functions.frames import IDLE
from tests.conftest import Say
from tests.support.client import ENDS, Person, Received, check_whole_turn
from tests.support.lambdas import REGION, Cloud, cloud
from tests.support.server import serving_together

pytestmark = [pytest.mark.timeout(150), pytest.mark.skipif(sys.platform != "linux", reason="the runtime client is not")]
BRIEF = "scripted?tokens=60&delay_ms=20"
LONG = "scripted?tokens=400&delay_ms=50"
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.1
FIRST_STAGE_SECONDS = 0.2
LIGHT = {
    *("functions", "graph", "mangum", "fastapi", "starlette", "anyio", "sniffio", "annotated_doc"),
    *("pydantic", "pydantic_core", "pydantic_settings", "annotated_types", "typing_inspection", "dotenv"),
    *("psycopg", "psycopg_binary", "psycopg_pool", "orjson", "itsdangerous", "prometheus_client", "typing_extensions"),
    "opentelemetry",  # its interface alone, which FastAPI imports too
}
WINDOW_SECONDS = 50.0


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
    with cloud(
        database_url, tmp_path, limits={"api": 60.0}, MODEL=BRIEF, STREAM_WINDOW_SECONDS=f"{WINDOW_SECONDS}"
    ) as made:
        started = await person.start(made.url)
        frames, windows = await follow(person, made.url, started["session_id"])
        check_whole_turn(frames)
        assert frames[-1].type == "done"
        assert windows > 2
        await asyncio.to_thread(made.settle)
        second = await person.start(made.url, session_id=started["session_id"])
        served = len(made.functions["api"].invocations)
        again, _ = await follow(person, made.url, started["session_id"], second["after"])
        check_whole_turn(again)
        await asyncio.to_thread(made.settle)
        api = [call.seconds for call in made.functions["api"].invocations[served:]]
        ran = made.functions["run"].invocations[-1].seconds
        say(f"Lambda, 60 tokens in 1.2 s, warm: run {ran:.1f} s; api {sum(api):.2f} s in {len(api)} responses")
        twice = await asyncio.to_thread(made.invoke, "run", session_id=started["session_id"])
        assert twice.result == {"ran": False}, "nothing is left to do"
        await _check_idle(made, person, started["session_id"], again[-1].seq)
        _check_all_stopped(made)
        _tell_times(made, say)


async def _check_idle(made: Cloud, person: Person, session_id: str, last: int) -> None:
    """An open tab in which nobody answers holds no place for a whole window."""
    idle: dict[str, int | str] = {"after": last, "follow": "session"}
    reply = await person.client.get(f"{made.url}/chat/stream/{session_id}", params=idle)
    assert made.functions["api"].invocations[-1].seconds < WINDOW_SECONDS
    assert (reply.status_code, reply.content) == (200, IDLE)
    assert reply.headers["Content-Type"].startswith("text/event-stream")


async def test_where_a_response_holds_a_whole_process_none_is_open_while_nobody_answers(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    """As the function `Stream` serves, with windows of 300 s: an open tab would hold a place there all day."""
    stream = {"WORKER": "off", "RUN_FUNCTION": "run", "STREAM_WINDOW_SECONDS": "300"}
    with serving_together(database_url, tmp_path, "scripted?tokens=20&delay_ms=20", {}, stream) as (worker, streaming):
        started = await person.start(worker.url)
        where = f"{streaming.url}/chat/stream/{started['session_id']}"
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with person.watch(streaming.url, started["session_id"], after=0, follow="session") as watching:
                frames = await watching.rest()
            idle: dict[str, int | str] = {"after": frames[-1].seq, "follow": "session"}
            reply = await person.client.get(where, params=idle)
        check_whole_turn(frames)
        assert (reply.status_code, reply.content) == (200, IDLE)


def _check_all_stopped(made: Cloud) -> None:
    """The test is of frozen processes: outside an invocation none may run."""
    for function in made.functions.values():
        for environment in function.idle:
            assert environment.child.status() == psutil.STATUS_STOPPED


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
    """Which also erases what is older than RETENTION_DAYS."""
    with cloud(database_url, tmp_path, MODEL="scripted?tokens=100&delay_ms=60", RETENTION_DAYS="7") as made:
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
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "insert into sessions (session_id, owner, updated_at) "
                "values (gen_random_uuid(), 'x', now() - interval '9 d')"
            )
        swept = await asyncio.to_thread(invoke_with_boto3, made, "sweep")
        assert swept == b'{"called": 1, "pruned": 0, "erased": 1}'
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


async def test_a_reader_has_a_turn_begun_whose_first_call_was_lost(
    database_url: str, tmp_path: Path, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sweep here either."""
    with cloud(database_url, tmp_path, MODEL="scripted?tokens=3&delay_ms=1") as made:
        lost: list[str] = []
        with monkeypatch.context() as losing:
            losing.setattr(made, "later", lambda name, _: lost.append(name))
            started = await person.start(made.url)
        assert lost == ["run"]
        frames, _ = await follow(person, made.url, started["session_id"])
        check_whole_turn(frames)
        await asyncio.to_thread(made.settle)


async def test_the_function_that_runs_turns_loads_its_parts_once(
    database_url: str, tmp_path: Path, person: Person, say: Say
) -> None:
    """The encoder of questions takes longer to load than the first stage may let wait for itself."""
    with cloud(database_url, tmp_path, MODEL="extractive?pace_ms=0") as made:
        waited: list[float] = []  # the quickest counts: on a starved machine more are tried
        while len(waited) < 4 or (min(waited[1:]) >= FIRST_STAGE_SECONDS and len(waited) < 10):
            started = await person.start(made.url)
            frames, _ = await follow(person, made.url, started["session_id"])
            await asyncio.to_thread(made.settle)
            stamps = {frame.type: datetime.fromisoformat(frame.data["timestamp"]) for frame in frames}
            waited.append((stamps["routed"] - stamps["turn_started"]).total_seconds())
        calls = made.functions["run"].invocations
        billed = min(call.seconds for call in calls if not call.cold and call.result == {"ran": True})
        say(f"Lambda run: first stage {min(waited[1:]) * 1000:.0f} ms after the start, warm; billed {billed:.2f} s")
        assert min(waited[1:]) < FIRST_STAGE_SECONDS


async def test_who_finds_all_places_taken_is_refused_and_served_later(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with cloud(database_url, tmp_path, most=1, MODEL="scripted?tokens=3&delay_ms=1&stage_ms=12000") as made:
        started = await person.start(made.url)
        session_id = started["session_id"]
        frames, _ = await follow(person, made.url, session_id, until=lambda frame: frame.type == "retrieval_start")

        async def wait() -> int:
            """A silent window: it keeps its place for three seconds."""
            async with person.watch(made.url, session_id, after=frames[-1].seq) as watching:
                await watching.rest()
                return watching.response.status_code

        assert sorted(await asyncio.gather(*(wait() for _ in range(4)))) == [200, 429, 429, 429]
        assert await wait() == 200


async def test_without_a_database_the_answer_is_a_503_that_says_so(tmp_path: Path, person: Person) -> None:
    with cloud("postgresql://nobody@127.0.0.1:1/none", tmp_path) as made:
        reply = await person.client.get(f"{made.url}/sessions")
        assert (reply.status_code, reply.json()["code"]) == (503, "database_unavailable")
        assert reply.headers["Retry-After"]


def test_what_serves_imports_nothing_heavy(say: Say) -> None:
    """Nothing but what answers HTTP from Postgres: a new package here is a longer cold start of every environment."""
    program = (
        "import sys, time; began = time.perf_counter(); import functions.aws\n"
        "took = round(1000 * (time.perf_counter() - began))\n"
        "made = {m.partition('.')[0] for m in sys.modules if getattr(sys.modules[m], '__file__', None)}\n"
        "print(took, *sorted(m for m in made - set(sys.stdlib_module_names) if not m.startswith('_')))"
    )
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    took = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        milliseconds, *packages = done.stdout.split()
        assert set(packages) <= LIGHT, done
        took.append(int(milliseconds))
    say(f"Lambda api: its modules are imported in {min(took)} ms (the quickest of 3)")


def test_a_server_without_a_worker_loads_no_langgraph(database_url: str) -> None:
    """The function `Stream` starts one at every cold start, with little memory."""
    program = (
        "import sys; from functions import cli, serve\n"
        "def run(settings, *_):\n"
        "    serve._opener(settings)\n"
        "    print(*{module.partition('.')[0] for module in sys.modules})\n"
        "    return 0\n"
        "serve.serve = run\n"
        "cli.main(['serve', '--port', '0'])"
    )
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "PULSELINE_WORKER": "off",
        "PULSELINE_RUN_FUNCTION": "run",
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "psycopg" in done.stdout, done.stderr
    assert {"langgraph", "langchain_core", "numpy", "onnxruntime"} & set(done.stdout.split()) == set()


def test_the_log_quotes_no_error_though_lambda_has_a_handler_of_its_own() -> None:
    program = (
        "import logging; logging.basicConfig(); import functions.aws\n"
        "logging.getLogger('some.library').error('odd: canary', exc_info=ValueError('canary'))"
    )
    environment = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "canary" not in done.stderr
    assert "ValueError" in done.stderr
