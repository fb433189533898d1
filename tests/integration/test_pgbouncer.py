"""Everything through PgBouncer in transaction mode: migrations, writer, pool, wake-ups, command line."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from tests.support.client import Person, check_whole_turn
from tests.support.server import Server, serving

SLOW = "scripted?tokens=150&delay_ms=20"
STATEMENTS_LOST = re.compile("PreparedStatement|SqlStatementName|prepared statement")


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """Gives the name of a database without a single table."""
    name = f"empty_{uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
        yield name
        connection.execute(f"drop database {name} with (force)".encode())


def pulseline(database_url: str, *command: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    environment |= {"DATABASE_URL": database_url, "PULSELINE_NOTIFY": "off"}
    return subprocess.Popen(
        [sys.executable, "-m", "functions", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_empty_database_is_migrated_through_pgbouncer_by_several_at_once(
    database_url: str, through_pgbouncer: str
) -> None:
    with empty_database(database_url) as name:
        through = through_pgbouncer.replace(urlsplit(through_pgbouncer).path, f"/{name}")
        migrating = [pulseline(through, "migrate") for _ in range(3)]
        said = [process.communicate(timeout=50)[0] for process in migrating]
        assert [process.returncode for process in migrating] == [0, 0, 0], said
        sweeping = pulseline(through, "sweep")
        said = [sweeping.communicate(timeout=50)[0]]
        assert (sweeping.returncode, "pruned 0 turns" in said[0]) == (0, True), said


@pytest.mark.timeout(120)
@pytest.mark.parametrize("notify", ["off", "on"])
async def test_two_replicas_behind_pgbouncer_serve_as_ever(
    through_pgbouncer: str, tmp_path: Path, person: Person, notify: str
) -> None:
    """With NOTIFY left on by mistake too: that is found out, and said."""
    with (
        serving(through_pgbouncer, tmp_path, SLOW, NOTIFY=notify) as one,
        serving(through_pgbouncer, tmp_path, SLOW, NOTIFY=notify, WORKER="off") as two,
    ):
        await _answers(person, two, one)
        await _stops(person, one, two)
        for server in (one, two):
            assert not STATEMENTS_LOST.search(server.output), server.output
            if notify == "on":
                await _says(server, "LISTEN does not arrive")


async def _answers(person: Person, asked: Server, other: Server) -> None:
    """Ten conversations at once, so that statements of several clients meet on the same server connections."""
    starts = [await person.start(asked.url, f"question {n}") for n in range(10)]
    reads = await asyncio.gather(*(person.read(other.url, started["session_id"]) for started in starts))
    for started, frames in zip(starts, reads, strict=True):
        check_whole_turn(frames)
        assert frames[-1].type == "done"
        again = await person.start(asked.url, "And then?", session_id=started["session_id"])
        await person.cancel(asked.url, started["session_id"], turn_id=again["turn_id"])
        snapshot = await person.snapshot(other.url, started["session_id"])
        assert snapshot["messages"][-2]["content"] == "And then?"


async def _stops(person: Person, worker: Server, other: Server) -> None:
    """Without a wake-up too the worker learns soon that its turn was taken away."""
    started = await person.start(worker.url)
    async with person.watch(worker.url, started["session_id"], after=0) as watching:
        await watching.until("token", count=3)
        await person.cancel(other.url, started["session_id"])
        frames = await watching.rest()
    check_whole_turn(frames)
    assert frames[-1].type == "cancelled"


async def _says(server: Server, words: str) -> None:
    async with asyncio.timeout(20):
        while words not in server.output:  # noqa: ASYNC110 another process says it
            await asyncio.sleep(0.05)
