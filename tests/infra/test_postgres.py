"""The roles, a schema newer than a replica, a restored backup: against a real Postgres, with the settings we ship."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from functions.embedded_postgres import EmbeddedPostgres
from functions.postgres_cluster import SETTINGS as OF_ITS_START
from functions.postgres_programs import Programs
from tests.support.client import Person, check_whole_turn
from tests.support.server import serving

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "infra" / "postgres" / "roles.sql"
SETTINGS = ROOT / "infra" / "postgres" / "postgresql.conf"
DOCUMENT = ROOT / "graph" / "retrieval" / "corpus" / "gastroenteritis.md"
SCRIPTED = "scripted?tokens=20&delay_ms=1"
SLOWLY = "extractive?pace_ms=300"
MIDWAY = "scripted?tokens=150&delay_ms=20"
PASSWORD = "canary"
DATABASE = "product"
PATIENCE_SECONDS = 20.0
TABLES = ("sessions", "turns", "events", "checkpoints", "checkpoint_writes", "checkpoint_blobs")


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


class Server:
    """A Postgres of this module's own, for roles and settings belong to a whole server. `postgres` logs in without a
    password."""

    def __init__(self, url: str, programs: Programs) -> None:
        self._parts, self._programs = urlsplit(url), programs

    def url(self, role: str = "postgres", database: str = DATABASE) -> str:
        login = role if role == "postgres" else f"{role}:{PASSWORD}"
        return f"postgresql://{login}@{self._parts.hostname}:{self._parts.port}/{database}"

    def run(self, program: str, *arguments: str | Path) -> None:
        command = [str(self._programs[program]), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("roles")
    with EmbeddedPostgres(home).running():
        data = (home / "postgres").resolve() / "data"
    with (data / "postgresql.conf").open("a") as file:
        file.write(SETTINGS.read_text())
    with EmbeddedPostgres(home).running() as url:
        access = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (data / "pg_hba.conf").write_text(access)
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
        made = Server(url, Programs(None))
        _until_reachable(made.url(database="postgres"))
        made.run("psql", "-c", f"create database {DATABASE}", made.url(database="postgres"))
        variables = ("-v", f"owner_password={PASSWORD}", "-v", f"app_password={PASSWORD}")
        made.run("psql", *variables, "-f", ROLES, made.url())
        migrated = pulseline(made.url("pulseline_owner"), "migrate")
        assert migrated.returncode == 0, migrated.stderr
        yield made


def _until_reachable(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def pulseline(url: str, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
    return subprocess.run(
        [sys.executable, "-m", "functions", *command],
        env={**environment, "DATABASE_URL": url, **{f"PULSELINE_{name}": value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_postgres_takes_every_setting(server: Server) -> None:
    """But those that the test's own server is started with: a wrong value of these would have stopped it."""
    named = set(re.findall(r"^(\w+) = ", SETTINGS.read_text(), re.MULTILINE)) - OF_ITS_START.keys()
    with psycopg.connect(server.url(database="postgres")) as connection:
        wrong = connection.execute("select name, error from pg_file_settings where error is not null").fetchall()
        taken = connection.execute("select name from pg_settings where source = 'configuration file'").fetchall()
    assert [(name, error) for name, error in wrong if name not in OF_ITS_START] == []
    assert named - {name for (name,) in taken} == set()


@pytest.mark.timeout(120)
async def test_a_replica_serves_as_a_role_that_may_change_no_table(
    server: Server, tmp_path: Path, person: Person
) -> None:
    app = server.url("pulseline_app")
    await asyncio.to_thread(server.run, "psql", "-c", "create database empty", server.url())
    refused = await asyncio.to_thread(pulseline, server.url("pulseline_app", "empty"), "migrate")
    assert refused.returncode != 0, "an empty database needs its owner first"
    snapshot = await _ask(app, tmp_path, person)
    for forbidden in ("alter table turns add column x int", "drop table events", "create table mine (x int)"):
        with psycopg.connect(app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden.encode())
    await _restored(server, snapshot, tmp_path, person)
    await _beside_a_newer_release(server, tmp_path, person)


async def _ask(url: str, folder: Path, person: Person) -> dict[str, Any]:
    with serving(url, folder, SCRIPTED) as replica:
        started = await person.start(replica.url)
        frames = await person.read(replica.url, started["session_id"])
        check_whole_turn(frames)
        assert frames[-1].type == "done"
        return await person.snapshot(replica.url, started["session_id"])


async def _restored(server: Server, snapshot: dict[str, Any], folder: Path, person: Person) -> None:
    """A backup, restored into an empty database: the conversation is there, and goes on."""
    backup = folder / "pulseline.dump"
    await asyncio.to_thread(server.run, "pg_dump", "--format=custom", "--file", backup, server.url())
    await asyncio.to_thread(server.run, "psql", "-c", "create database restored", server.url())
    restored = server.url(database="restored")
    await asyncio.to_thread(server.run, "pg_restore", "--exit-on-error", "--dbname", restored, backup)
    with serving(server.url("pulseline_app", "restored"), folder, SCRIPTED) as replica:
        session_id = snapshot["session_id"]
        assert await person.snapshot(replica.url, session_id) == snapshot
        second = await person.start(replica.url, session_id=session_id)
        frames = await person.read(replica.url, session_id, second["after"])
        check_whole_turn(frames)
        assert frames[0].seq == snapshot["last_seq"] + 1


async def _beside_a_newer_release(server: Server, folder: Path, person: Person) -> None:
    """The next release has expanded the schema; a replica of this one still starts and answers."""
    with psycopg.connect(server.url()) as connection:
        connection.execute("alter table turns add column of_the_next_release text")
        connection.execute("alter table sessions add column of_the_next_release integer not null default 0")
        connection.execute("insert into pulseline_migrations (version, name) values (9999, 'of the next release')")
    await _ask(server.url("pulseline_app"), folder, person)


async def test_the_owner_ingests_and_all_else_can_be_done_by_the_role_that_serves(
    server: Server, tmp_path: Path, person: Person
) -> None:
    """By people, and by operators."""
    app = server.url("pulseline_app")

    async def done(url: str, *command: str, **settings: str) -> str:
        ended = await asyncio.to_thread(pulseline, url, *command, **settings)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    await done(server.url("pulseline_owner"), "ingest", str(DOCUMENT))
    with serving(app, tmp_path, SLOWLY) as replica:
        one, two = [await person.start(replica.url, "What are the symptoms of gastroenteritis?") for _ in range(2)]
        session = f"{replica.url}/sessions/{one['session_id']}"
        async with person.watch(replica.url, two["session_id"], after=0) as watching:
            await watching.until("token")
            assert await done(app, "turns", "cancel", two["session_id"]) == f"{two['turn_id']} cancelled\n"
            (found,) = [frame for frame in await watching.rest() if frame.type == "retrieval_complete"]
        assert (found.data["passages"] > 0, found.data.get("degraded")) == (True, None)
        stopped = await person.cancel(replica.url, one["session_id"])
        voted = await person.client.put(f"{session}/turns/{one['turn_id']}/feedback", json={"value": 1})
        erased = await person.client.delete(session)
    assert [reply.status_code for reply in (stopped, voted, erased)] == [200, 204, 204]
    with psycopg.connect(server.url()) as connection:
        for change in (
            "turns set ended_at = now() - interval '2 d'",
            "sessions set updated_at = now() - interval '9 d'",
        ):
            connection.execute(f"update {change} where session_id = %s".encode(), [two["session_id"]])
    _, _, swept = await asyncio.gather(done(app, "doctor"), done(app, "turns"), done(app, "sweep", RETENTION_DAYS="7"))
    assert swept == "pruned 1 turns\nerased 1 sessions\n"


async def test_an_answer_goes_on_while_the_schema_is_expanded(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with serving(database_url, tmp_path, MIDWAY) as replica:
        started = await person.start(replica.url)
        async with person.watch(replica.url, started["session_id"], after=0) as watching:
            await watching.until("token", count=20)
            with psycopg.connect(database_url) as connection:
                connection.execute("set lock_timeout = '5s'")  # as the owner has it
                for table in TABLES:
                    statement = f"alter table {table} add column of_the_next_release integer not null default 0"
                    connection.execute(statement.encode())
            assert len(watching.frames) < 100, "it was in mid-answer"
            frames = await watching.rest()
        check_whole_turn(frames)
        assert (frames[-1].type, [frame for frame in frames if frame.type == "reset"]) == ("done", [])
        second = await person.start(replica.url, session_id=started["session_id"])
        assert (await person.read(replica.url, started["session_id"], second["after"]))[-1].type == "done"


@pytest.mark.timeout(120)
async def test_a_turn_that_ran_when_the_backup_was_made_is_taken_over(
    server: Server, tmp_path: Path, person: Person
) -> None:
    backup = tmp_path / "pulseline.dump"
    for database in ("busy", "restored_busy"):
        await asyncio.to_thread(server.run, "psql", "-c", f"create database {database}", server.url())
    with serving(server.url(database="busy"), tmp_path, MIDWAY, LEASE_SECONDS="2") as replica:
        started = await person.start(replica.url)
        async with person.watch(replica.url, started["session_id"], after=0) as watching:
            await watching.until("token", count=20)
            dump = ("--format=custom", "--file", backup, server.url(database="busy"))
            await asyncio.to_thread(server.run, "pg_dump", *dump)
    restored = server.url(database="restored_busy")
    await asyncio.to_thread(server.run, "pg_restore", "--exit-on-error", "--dbname", restored, backup)
    with serving(restored, tmp_path, MIDWAY) as replica:
        frames = await person.read(replica.url, started["session_id"])
    check_whole_turn(frames)
    assert [frame.data["reason"] for frame in frames if frame.type == "reset"] == ["worker_lost"]
    assert frames[-1].type == "done"
