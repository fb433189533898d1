"""Postgres dies, its connections break, its notifications stop: turns go on, every reader gets every event once."""

import asyncio
import json
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from graph.eventlog.log import open_pool
from graph.retrieval.embed import Embedder
from graph.retrieval.ingest import STARTER, ingest
from tests.conftest import Say
from tests.evaluation.questions import starter
from tests.faults.fleet import Fleet, fleet
from tests.faults.relay import relaying
from tests.support.client import Person
from tests.support.crowd import Resumed, frames_of_table, read_to_the_end
from tests.support.server import serving
from tests.support.waiting import until
from tests.support.workshop import code_of, workshop

SEARCHING = """
select 1 from pg_stat_activity
 where datname = current_database() and wait_event_type = 'Lock' and query like '%passages%'
"""
LISTENING = "select pid from pg_stat_activity where query = 'listen pulseline'"
LOCKED = "lock table passages in access exclusive mode"
MODEL = "scripted?tokens=200&delay_ms=15"
NOTICED = ("append interrupted", "readers wait", "no wake-ups", "a lease could not be renewed")
OUTAGE_SECONDS, OUTAGE_MAX_LINES = 10, 10
TURNS, READERS_A_TURN = 6, 4
SEEN_BEFORE = 30  # events of the last turn, when the fault comes


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


class Watched:
    """Turns on the first replica, each with readers on both."""

    def __init__(self, running: Fleet, person: Person) -> None:
        self._fleet, self._person = running, person
        self._reads: dict[str, list[tuple[int, asyncio.Task[Resumed]]]] = {}
        self.answers: list[tuple[str, list[Any]]] = []

    async def ask(self, questions: Sequence[str]) -> list[str]:
        urls = [f"http://{replica.address}" for replica in self._fleet.replicas]
        sessions = [(await self._person.start(urls[0], question))["session_id"] for question in questions]
        for session_id in sessions:
            self._reads[session_id] = [self._read(urls[n % 2], session_id, 0) for n in range(READERS_A_TURN)]
        return sessions

    async def begin(self) -> None:
        """Returns in mid-stream, with one more reader, who came late."""
        urls = [f"http://{replica.address}" for replica in self._fleet.replicas]
        sessions = await self.ask([f"question {n}" for n in range(TURNS)])
        async with self._person.watch(urls[1], sessions[-1], after=0) as watching:
            while len(watching.frames) < SEEN_BEFORE:
                await watching.until("token")
            late = random.randint(0, watching.frames[-1].seq)
        self._reads[sessions[-1]].append(self._read(urls[1], sessions[-1], late))

    def _read(self, url: str, session_id: str, cursor: int) -> tuple[int, "asyncio.Task[Resumed]"]:
        cookie = f"pulseline_owner={self._person.client.cookies['pulseline_owner']}"
        return cursor, asyncio.create_task(read_to_the_end(url, f"/chat/stream/{session_id}", cookie, cursor))

    async def exact(self) -> str:
        """Waits for every reader's terminal frame; gives how often they had to come back, and keeps the answers."""
        came_back = 0
        for session_id, reads in self._reads.items():
            got = [(cursor, await task) for cursor, task in reads]
            table = await asyncio.to_thread(frames_of_table, self._fleet.url, session_id)
            assert b"\nevent: done\n" in table[-1], table[-1]
            for cursor, resumed in got:
                assert resumed.frames == b"".join(table[cursor:])
                came_back += resumed.came_back
            message = json.loads(table[-1].partition(b"\ndata: ")[2])["message"]
            self.answers.append((message["content"], message["citations"]))
        readers = sum(len(reads) for reads in self._reads.values())
        return f"{len(self._reads)} turns, {readers} readers, 0 missing, 0 repeated; came back {came_back} times"


@pytest.mark.timeout(120)
async def test_postgres_crashes_in_mid_stream_and_every_turn_goes_on(tmp_path: Path, person: Person, say: Say) -> None:
    async with fleet(tmp_path, MODEL, ("serve", "serve")) as running:
        watched = Watched(running, person)
        await watched.begin()
        await running.crash_postgres()
        say(f"Postgres crashed: {await watched.exact()}")
        assert "append interrupted" in running.replicas[0].output


@pytest.mark.timeout(120)
async def test_postgres_crashes_while_turns_search_and_their_answers_are_those_of_a_quiet_day(
    tmp_path: Path, person: Person, say: Say
) -> None:
    asked = [question for question in starter() if question.relevant][:TURNS]
    questions = [question.text for question in asked]
    articles = {STARTER / f"{article}.md" for question in asked for article in question.relevant}
    async with fleet(tmp_path, "extractive?pace_ms=5", ("serve", "serve")) as running:
        async with open_pool(running.url, max_size=4) as pool:
            await ingest(sorted(articles), pool=pool, embedder=Embedder())
        quiet, searching = Watched(running, person), Watched(running, person)
        await quiet.ask(questions)
        await quiet.exact()

        locking = await psycopg.AsyncConnection.connect(running.url)
        await locking.execute(LOCKED)
        await searching.ask(questions)
        await asyncio.to_thread(_until_searching, running.url, TURNS)
        await running.crash_postgres()
        await locking.close()
        say(f"Postgres crashed under {TURNS} searches: {await searching.exact()}")
        assert searching.answers == quiet.answers
        assert all(citations for _, citations in quiet.answers)


def _until_searching(url: str, count: int) -> None:
    deadline = time.monotonic() + 20
    with psycopg.connect(url, autocommit=True) as connection:
        while len(connection.execute(SEARCHING).fetchall()) < count:
            assert time.monotonic() < deadline, "nobody searches"
            time.sleep(0.02)


@pytest.mark.timeout(120)
async def test_connections_break_and_listeners_are_killed_in_mid_stream(
    tmp_path: Path, person: Person, say: Say
) -> None:
    async with fleet(tmp_path, MODEL, ("serve", "serve")) as running:
        cut = Watched(running, person)
        await cut.begin()
        for _ in range(4):
            for replica in running.replicas:
                replica.database.cut()
                await asyncio.sleep(0.2)
        say(f"database connections cut: {await cut.exact()}")
        assert "append interrupted" in running.replicas[0].output

        deaf = Watched(running, person)
        await deaf.begin()
        await asyncio.to_thread(_kill_listeners, running.url, 2)
        say(f"LISTEN killed: {await deaf.exact()}")
        for replica in running.replicas:
            assert "no wake-ups, readers poll" in replica.output


@contextmanager
def swallowing(port: int) -> Iterator[None]:
    """Every packet from or to this port of the machine gets lost, and nobody hears of it."""
    rules = [["INPUT", "-i", "lo", "-p", "tcp", side, str(port), "-j", "DROP"] for side in ("--dport", "--sport")]
    made: list[list[str]] = []
    try:
        for rule in rules:
            done = subprocess.run(["iptables", "-I", *rule], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"no packet can be dropped here: {done.stderr}")
            made.append(rule)
        yield
    finally:
        for rule in made:
            subprocess.run(["iptables", "-D", *rule], check=True)


@pytest.mark.timeout(120)
@pytest.mark.skipif(shutil.which("iptables") is None, reason="packets are dropped with iptables, by root")
async def test_a_network_that_swallows_packets_is_noticed_in_bounded_time(
    tmp_path: Path, person: Person, say: Say
) -> None:
    """No connection is closed and none refused. The turns go on elsewhere, and the readers get every event once."""
    async with fleet(tmp_path, MODEL, ("serve", "serve")) as running:
        owner = running.replicas[0]
        watched = Watched(running, person)
        await watched.begin()
        began = time.monotonic()
        with swallowing(int(owner.database.address.partition(":")[2])):
            await until(lambda: all(words in owner.output for words in NOTICED), "not everybody noticed")
            took = time.monotonic() - began
        say(f"packets swallowed, noticed by all after {took:.1f} s: {await watched.exact()}")


def _kill_listeners(url: str, count: int) -> None:
    """As soon as there are so many: after a connection that broke, one listens again when a second is over."""
    deadline = time.monotonic() + 20
    with psycopg.connect(url, autocommit=True) as connection:
        while len(connection.execute(LISTENING).fetchall()) < count:
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.02)
        connection.execute(f"select pg_terminate_backend(pid) from ({LISTENING}) as listening".encode())


async def test_an_outage_is_said_in_a_few_lines_and_its_end_too(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    host = database_url.split("@")[1].split("/")[0]
    async with relaying(host) as relay:
        behind = database_url.replace(host, relay.address)
        with ExitStack() as stack:  # it starts through the relay, which this loop runs
            model = "scripted?tokens=200&delay_ms=20"
            server = await asyncio.to_thread(stack.enter_context, serving(behind, tmp_path, model))
            started = await person.start(server.url)
            async with person.watch(server.url, started["session_id"], after=0) as watching:
                await watching.until("token", count=3)
                before = len(server.output.splitlines())
                relay.close()
                await asyncio.sleep(OUTAGE_SECONDS)
                during = server.output.splitlines()[before:]
                await relay.restore()
                await watching.rest()
            assert 0 < len(during) <= OUTAGE_MAX_LINES, during
            assert "database back after" in server.output


@pytest.mark.parametrize("away_seconds", [0, 1])
async def test_a_search_whose_connection_breaks_is_made_again(database_url: str, away_seconds: float) -> None:
    host = database_url.split("@")[1].split("/")[0]
    async with relaying(host) as relay, await psycopg.AsyncConnection.connect(database_url) as other:
        behind = database_url.replace(host, relay.address)
        async with workshop(behind, model="extractive?pace_ms=0") as shop:
            await other.execute(LOCKED)
            turn = await shop.ask()
            await shop.until(turn, "retrieval_start")
            async with asyncio.timeout(30), shop.log.pool.connection() as looking:
                while not (await (await looking.execute(SEARCHING)).fetchall()):
                    await shop.events(turn)
            relay.close()
            await other.rollback()
            await asyncio.sleep(away_seconds)
            await relay.restore()
            assert code_of((await shop.ended(turn))[-1]) == "done"
