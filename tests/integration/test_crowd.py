"""300 readers who come back at once to a replica that does not run the turn: nothing missing, nothing repeated.

With NOTIFY, without, and through PgBouncer in transaction mode, where prepared statements and LISTEN do not work.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from tests.conftest import Say
from tests.support.client import Person
from tests.support.crowd import Resumed, frames_of_table, read_to_the_end
from tests.support.server import Server, serving

CROWD = 300
TURNS = {"100 tokens/s": "scripted?tokens=600&delay_ms=10", "no delay": "scripted?tokens=8000&delay_ms=0"}
# Events, when the crowd comes back. The worker without delay stands still then until half are there, for it may be over
# before that, and goes on as the others come; where even its first words came too late, another turn is begun.
SEEN_BEFORE = {"100 tokens/s": 40, "no delay": 5}
TRIES = 5
OPEN_TAILS = re.compile(r"^pulseline_open_tails (\d+)", re.MULTILINE)


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


async def crowd_resumes(person: Person, worker: Server, tail: Server, database_url: str, pace: str) -> str:
    """Starts a turn on one replica and has the crowd come back on another."""
    with ExitStack() as still:
        session_id, seen = await _under_way(person, worker, tail, database_url, pace, still)
        chance = random.Random(session_id)
        cookie = f"pulseline_owner={person.client.cookies['pulseline_owner']}"
        cursors = [chance.randint(0, seen) for _ in range(CROWD)]
        path = f"/chat/stream/{session_id}"

        def come(some: list[int]) -> list[asyncio.Task[Resumed]]:
            return [asyncio.create_task(read_to_the_end(tail.url, path, cookie, cursor)) for cursor in some]

        before = CROWD // 2 if pace == "no delay" else 0
        reads = come(cursors[:before])
        if before:
            await _there(person, tail, reads)
        still.close()
        reads += come(cursors[before:])
    everyone = await asyncio.gather(*reads)
    expected = frames_of_table(database_url, session_id)
    assert _is_over(expected)
    for cursor, resumed in zip(cursors, everyone, strict=True):
        assert resumed.frames == b"".join(expected[cursor:]), _difference(resumed.frames, expected[cursor:])
    during = sum(resumed.heard_at < _said_at(expected[-1]) for resumed in everyone[before:])
    assert pace == "no delay" or during == CROWD, f"the turn was over before all but {during} had come"
    came_back = sum(resumed.came_back for resumed in everyone)
    return (
        f"{len(expected) - seen} of {len(expected)} events were to come, {during} of {CROWD - before} who came as "
        f"it ran had their first before its end, {came_back} had to come back once more"
    )


async def _under_way(
    person: Person, worker: Server, tail: Server, database_url: str, pace: str, still: ExitStack
) -> tuple[str, int]:
    """A session whose turn has said its first words and has more to say, and the seq of the last that was heard."""
    for _ in range(TRIES):
        session_id = (await person.start(tail.url))["session_id"]
        async with person.watch(worker.url, session_id, after=0) as watching:
            last = await watching.until("token", "done")
            while len(watching.frames) < SEEN_BEFORE[pace] and last.type != "done":
                last = await watching.until("token", "done")
            if pace == "no delay":
                still.enter_context(worker.held())
        if not _is_over(frames_of_table(database_url, session_id)):
            return session_id, last.seq
        still.close()
    pytest.fail(f"{TRIES} turns were over before they could be held")


def _is_over(frames: list[bytes]) -> bool:
    return frames[-1].split(b"\n")[1] == b"event: done"


async def _there(person: Person, tail: Server, reads: list["asyncio.Task[Resumed]"]) -> None:
    """Returns when all of these wait at this replica."""
    async with asyncio.timeout(60):
        while not all(read.done() for read in reads):
            shown = (await person.client.get(f"{tail.url}/metrics")).text
            found = OPEN_TAILS.search(shown)
            if found and int(found[1]) == len(reads):
                return
            await asyncio.sleep(0.05)
    pytest.fail("the turn was over before all had come")


def _said_at(frame: bytes) -> float:
    """By the loop's clock."""
    stamp = json.loads(frame.split(b"\ndata: ")[1])["timestamp"]
    return datetime.fromisoformat(stamp).timestamp() - time.time() + asyncio.get_running_loop().time()


def _difference(frames: bytes, expected: list[bytes]) -> str:
    got = [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]
    missing, repeated = set(expected) - set(got), len(got) - len(set(got))
    return f"{len(missing)} missing, {repeated} repeated, ends with {got[-1:]!r}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("notify", ["on", "off"])
async def test_a_crowd_that_resumes_on_another_replica_gets_every_event_once(
    database_url: str, tmp_path: Path, person: Person, say: Say, notify: str
) -> None:
    with serving(database_url, tmp_path, WORKER="off", NOTIFY=notify) as tail:
        for pace, model in TURNS.items():
            with serving(database_url, tmp_path, model, NOTIFY=notify) as worker:
                seen = await crowd_resumes(person, worker, tail, database_url, pace)
                say(f"{CROWD} readers resumed, NOTIFY {notify}, {pace}: 0 missing, 0 repeated; {seen}")


@pytest.mark.timeout(120)
async def test_a_crowd_that_resumes_through_pgbouncer_gets_every_event_once(
    database_url: str, through_pgbouncer: str, tmp_path: Path, person: Person, say: Say
) -> None:
    with serving(through_pgbouncer, tmp_path, WORKER="off", NOTIFY="off") as tail:
        for pace, model in TURNS.items():
            with serving(through_pgbouncer, tmp_path, model, NOTIFY="off") as worker:
                seen = await crowd_resumes(person, worker, tail, database_url, pace)
                say(f"{CROWD} readers resumed, through PgBouncer, {pace}: 0 missing, 0 repeated; {seen}")
