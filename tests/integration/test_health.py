"""What tells an operator that something is wrong, and what to do: /readyz, /metrics and `pulseline doctor`."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from rich.console import Console

from functions import doctor, probes
from functions.doctor import READ, WRITTEN, Finding, examine, row
from functions.replica import open_replica
from functions.settings import Settings
from graph.eventlog.migrate import MigrationFailed, migrate
from tests.conftest import _drop
from tests.support.app import calling, composed
from tests.support.openai_wire import Act, Call, refuses, wire
from tests.support.workshop import workshop

NEEDED = ["database", "extension vector", "schema", "privileges", "clock", "articles", "NOTIFY", "model"]
COUNTER = re.compile(r"^pulseline_(\w+)_total ([\d.]+)", re.MULTILINE)
MOVED = ("take_overs", "fenced_appends", "polls", "notifies_sent", "notifies_heard")
TOKEN = "a-token-for-prometheus"


def _execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def _found(url: str, **settings: object) -> dict[str, Finding]:
    given = Settings(model="scripted", **settings)  # type: ignore[arg-type]
    return {finding.what: finding async for finding in examine(given, url)}


async def test_readyz_names_the_part_that_is_not_ready(database_url: str) -> None:
    async with composed(database_url) as app, calling(app) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert set(ready.json()["parts"].values()) == {"ok"}
        _execute(database_url, "delete from pulseline_migrations where version = 3")
        old = await client.get("/readyz")
        assert (old.status_code, old.json()["parts"]["database"]) == (503, "ok")
        assert "pulseline migrate" in old.json()["parts"]["schema"]
        _execute(database_url, "drop table pulseline_migrations")
        assert "pulseline migrate" in (await client.get("/readyz")).json()["parts"]["schema"]
        app.state.replica.hub.drain()
        assert "draining" in (await client.get("/readyz")).json()["parts"]["serving"]
        await app.state.replica.log.pool.close()
        away = (await client.get("/readyz")).json()["parts"]
        assert away["database"].startswith("does not answer")
        assert (await client.head("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


async def test_metrics_ask_for_their_token_where_one_is_set(database_url: str) -> None:
    async with composed(database_url, metrics_token=TOKEN) as app, calling(app) as client:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            assert (await client.get("/metrics", headers=header)).status_code == 401
        reply = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert reply.status_code == 200
        assert "pulseline_running_turns" in reply.text


@pytest.mark.direct  # NOTIFY is not well behind PgBouncer
async def test_take_overs_fenced_appends_polls_and_notifications_are_counted(database_url: str) -> None:
    """Another takes the turn and is lost: what its worker says next is refused, and then it takes the turn back."""
    async with (
        workshop(database_url, model="scripted?tokens=5000&delay_ms=5") as shop,
        open_replica(Settings(), database_url) as reader,
        calling(probes.create_app(shop.replica)) as client,
    ):

        async def counts() -> dict[str, float]:
            return {name: float(count) for name, count in COUNTER.findall((await client.get("/metrics")).text)}

        before = await counts()
        assert set(MOVED) <= before.keys()
        turn = await shop.ask()
        with reader.hub.watch(turn.session_id) as watch:
            reader.hub.reader(watch, turn.first_seq, turn.first_seq - 1, active=True)
            await shop.until(turn, "token")
            assert (await counts())["take_overs"] == before["take_overs"]
            _execute(database_url, "update turns set attempt = attempt + 1, lease_until = now() - interval '1 s'")
            async with asyncio.timeout(20):
                while any(before[name] == count for name, count in (await counts()).items() if name in MOVED):
                    await shop.events(turn)
        await shop.cancel(turn)


def held_until(event: asyncio.Event, act: Act) -> Act:
    async def waits(call: Call, writer: asyncio.StreamWriter) -> None:
        await event.wait()
        await act(call, writer)

    return waits


async def test_running_turns_and_ends_by_code_are_counted(database_url: str) -> None:
    async with (
        wire(held_until(looked := asyncio.Event(), refuses(504))) as wired,
        workshop(database_url, wired) as shop,
        calling(probes.create_app(shop.replica)) as client,
    ):

        async def metrics() -> str:
            return (await client.get("/metrics")).text

        ended = re.compile(
            r'^pulseline_turns_ended_total\{code="model_timeout",status="error"\} ([\d.]+)', re.MULTILINE
        )
        before = sum(map(float, ended.findall(await metrics())))
        turn = await shop.ask()
        await wired.called()
        assert "\npulseline_running_turns 1.0\n" in await metrics()
        looked.set()
        await shop.ended(turn)
        async with asyncio.timeout(10):
            while "\npulseline_running_turns 0.0\n" not in await metrics():
                await shop.events(turn)
        assert sum(map(float, ended.findall(await metrics()))) == before + 1


@pytest.mark.direct  # NOTIFY is not well behind PgBouncer
async def test_the_doctor_finds_a_healthy_system_well(database_url: str) -> None:
    found = await _found(database_url)
    assert list(found) == NEEDED
    assert {finding.what for finding in found.values() if finding.verdict != "ok"} == {"articles"}


@pytest.fixture
def empty_database(cluster_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"empty_{uuid4().hex[:12]}"
    _execute(cluster_url, f"create database {name} template template0 {getattr(request, 'param', '')}")
    head, _, query = cluster_url.partition("?")
    yield f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    _drop(cluster_url, name)


async def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(database_url: str, empty_database: str) -> None:
    _execute(database_url, "revoke delete on turns, events from current_user")
    found = await _found(database_url)
    assert found["privileges"].verdict == "wrong"
    assert found["privileges"].says.endswith("everything with events, turns")
    assert "grant select, insert, update, delete" in found["privileges"].mend
    _execute(database_url, "delete from pulseline_migrations where version > 1")
    assert (await _found(database_url))["schema"].mend == "Run `pulseline migrate`."
    found = await _found(empty_database, jwt_issuer="http://127.0.0.1:9", jwt_audience="x")
    assert (found["schema"].verdict, found["extension vector"].verdict) == ("wrong", "wrong")
    assert "create extension vector" in found["extension vector"].mend
    assert (found["issuer"].verdict, found["issuer"].says) == (
        "wrong",
        "its keys cannot be fetched (IssuerUnavailable)",
    )


@pytest.mark.parametrize("empty_database", ["encoding 'SQL_ASCII' locale_provider libc locale 'C'"], indirect=True)
async def test_a_database_that_cannot_hold_every_text_is_refused_with_what_to_do(empty_database: str) -> None:
    async def never() -> None:
        raise AssertionError("it has begun")

    found = await _found(empty_database)
    assert found["database"].verdict == found["schema"].verdict == "wrong", "and the doctor looks on"
    with pytest.raises(MigrationFailed) as refused:
        await migrate(empty_database, never, 0)
    for said in (str(found["database"]), str(refused.value)):
        assert "encoding is SQL_ASCII" in said
        assert "encoding 'UTF8'" in said


def test_the_doctor_knows_every_table(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    assert {name for (name,) in tables} == {*WRITTEN, *READ}


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("revoke all on passages, postings, word_counts, library, passage_vectors from current_user", "privileges"),
        ("revoke select on documents from current_user", "articles"),
        ("revoke select on pulseline_migrations from current_user", "schema"),
    ],
)
async def test_the_doctor_looks_on_where_it_may_not(database_url: str, statement: str, what: str) -> None:
    _execute(database_url, statement)
    found = await _found(database_url)
    assert list(found) == NEEDED
    for ill in (what, "privileges"):
        assert (found[ill].verdict, "grant select, insert, update, delete" in found[ill].mend) == ("wrong", True)


async def test_the_doctor_misses_a_table_that_was_dropped(database_url: str) -> None:
    _execute(database_url, "drop table checkpoint_writes")
    found = (await _found(database_url))["schema"]
    assert (found.verdict, found.says) == ("wrong", "these tables are gone: checkpoint_writes")


@pytest.mark.direct  # a pooler's own connections keep the old default
async def test_a_database_that_takes_no_writes_is_not_ready(database_url: str) -> None:
    _execute(
        database_url,
        "do $$ begin execute format("
        "'alter database %I set default_transaction_read_only = on', current_database()); end $$",
    )
    found = (await _found(database_url))["database"]
    assert (found.verdict, "reset default_transaction_read_only" in found.mend) == ("wrong", True)
    async with composed(database_url, secret_key="k" * 16) as app, calling(app) as client:
        reply = await client.get("/readyz")
        assert reply.status_code == 503
        assert "no writes" in reply.json()["parts"]["database"]


async def test_the_doctor_compares_the_librarys_encoder_with_the_setting(database_url: str) -> None:
    _execute(
        database_url,
        "insert into library (encoder, dimensions) values ('openai:text-embedding-3-small', 1536)",
        "insert into documents (document_id, title, content_hash, encoder) "
        "select 'tea', 'Tea', '', encoder from library",
    )
    settings = Settings(model="extractive")
    found = {finding.what: finding async for finding in examine(settings, database_url)}["articles"]
    assert (found.verdict, "PULSELINE_EMBEDDINGS" in found.mend) == ("wrong", True)


async def test_the_doctor_knows_a_pgvector_that_is_too_old(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too old by a bound that is moved: an old one cannot be had here."""
    assert (await _found(database_url))["extension vector"].verdict == "ok"
    monkeypatch.setattr(doctor, "PGVECTOR", (99, 0))
    found = (await _found(database_url))["extension vector"]
    assert (found.verdict, "alter extension vector update" in found.mend) == ("wrong", True)


async def test_the_doctor_of_a_broken_graph_names_its_setting(database_url: str) -> None:
    found = (await _found(database_url, graph="json:nothing"))["graph"]
    assert (found.verdict, "PULSELINE_GRAPH" in found.mend) == ("wrong", True)


def test_what_looks_like_markup_is_printed_as_it_is() -> None:
    console = Console(record=True, width=200)
    console.print(row(Finding("model", "wrong", "no 'scripted?x=[/red]'", "Mend [it]")))
    assert "no 'scripted?x=[/red]'. Mend [it]" in console.export_text()


async def test_the_doctor_notices_that_nobody_sweeps(database_url: str) -> None:
    made = "insert into sessions (session_id, owner, updated_at) values (gen_random_uuid(), 'o', now() - interval '%s')"
    assert "retention" not in await _found(database_url)
    _execute(database_url, made % "30 days 20 hours")
    assert (await _found(database_url, retention_days=30))["retention"].verdict == "ok"
    _execute(database_url, made % "31 days 4 hours")
    found = (await _found(database_url, retention_days=30))["retention"]
    assert (found.verdict, "pulseline sweep" in found.mend) == ("warning", True)


async def test_the_doctor_without_a_database_still_looks_at_the_rest() -> None:
    settings = Settings(model="provider-that-is-not:there")
    found = {finding.what: finding async for finding in examine(settings, "postgresql://127.0.0.1:9/none")}
    assert found["database"].verdict == "wrong"
    assert "DATABASE_URL" in found["database"].mend
    assert found["model"].verdict == "wrong"
    assert "PULSELINE_MODEL" in found["model"].mend


def test_the_command_prints_its_findings_and_fails_when_something_is_wrong(database_url: str, tmp_path: Path) -> None:
    def examined(url: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PULSELINE_MODEL": "scripted",
            "PULSELINE_HOME": str(tmp_path),
        }
        command = [sys.executable, "-m", "functions", "doctor"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=50)

    well = examined(database_url)
    assert (well.returncode, well.stderr) == (0, "")
    assert "NOTIFY" in well.stdout
    _execute(database_url, "drop table pulseline_migrations")
    ill = examined(database_url)
    assert ill.returncode == 1
    assert "Run `pulseline migrate`." in ill.stdout
