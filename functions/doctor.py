"""`pulseline doctor`: tries everything that Pulseline needs and says of each thing that is wrong how to mend it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection
from rich.table import Table

from functions.settings import Settings
from graph.eventlog.migrate import migrations

CONNECT_SECONDS = 5
NOTIFY_SECONDS = 3.0
CLOCK_SECONDS = 1.0
POSTGRES_VERSIONS = range(15, 19)
TABLES = (
    *("sessions", "turns", "events", "feedback", "secrets", "starts"),
    *("checkpoints", "checkpoint_blobs", "checkpoint_writes"),
)
VERDICTS = {"ok": "green", "warning": "yellow", "wrong": "red"}


class Finding(NamedTuple):
    """`mend` says what to do; nothing where all is well."""

    what: str
    verdict: Literal["ok", "warning", "wrong"]
    says: str
    mend: str = ""


async def examine(settings: Settings, url: str) -> AsyncIterator[Finding]:
    """One finding after the other, as they are made; without a database the rest of what needs one is left out."""
    try:
        connection = await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        mend = "Check that Postgres runs and that DATABASE_URL is right, or unset it to use the embedded one."
        yield Finding("database", "wrong", reason, mend)
    else:
        async with connection:
            for look in (_version, _extension, _schema, _privileges, _clock, _passages):
                yield await look(connection)
            yield await _notify(settings, url, connection)
            if settings.retention_days is not None:
                yield await _retention(connection, settings.retention_days)
    yield await _in_thread("model", lambda: _model(settings))
    if settings.graph is None and not settings.model.startswith("scripted"):
        yield await _in_thread("embeddings", lambda: _embeddings(settings))
    if settings.jwt_issuer and not settings.jwt_secret:
        yield await _issuer(settings)


async def _one(connection: AsyncConnection[Any], statement: str, *parameters: Any) -> Any:
    row = await (await connection.execute(statement.encode(), parameters)).fetchone()
    return row[0] if row else None


async def _version(connection: AsyncConnection[Any]) -> Finding:
    major = connection.info.server_version // 10_000
    if major in POSTGRES_VERSIONS:
        return Finding("database", "ok", f"Postgres {major} answers")
    mend = f"Use Postgres {POSTGRES_VERSIONS[0]} to {POSTGRES_VERSIONS[-1]}."
    return Finding("database", "warning", f"Postgres {major}, with which this was not tried", mend)


async def _extension(connection: AsyncConnection[Any]) -> Finding:
    if version := await _one(connection, "select extversion from pg_extension where extname = 'vector'"):
        return Finding("extension vector", "ok", f"{version} is there")
    if await _one(connection, "select 1 from pg_available_extensions where name = 'vector'"):
        mend = "Run `pulseline migrate` as a role that may create it, or have it created once: create extension vector"
        return Finding("extension vector", "wrong", "can be had, but is not in this database", mend)
    mend = "Install the package pgvector for this version of Postgres."
    return Finding("extension vector", "wrong", "this server does not have it", mend)


async def _schema(connection: AsyncConnection[Any]) -> Finding:
    known = {version for version, _, _ in migrations()}
    try:
        rows = await (await connection.execute("select version from pulseline_migrations")).fetchall()
    except psycopg.errors.UndefinedTable:
        return Finding("schema", "wrong", "the tables have not been made", "Run `pulseline migrate`.")
    done = {row[0] for row in rows}
    if missing := known - done:
        return Finding("schema", "wrong", f"{len(missing)} migrations are missing", "Run `pulseline migrate`.")
    if done - known:
        return Finding("schema", "warning", "is of a newer release", "Bring this Pulseline up to the newest release.")
    return Finding("schema", "ok", "is this release's")


async def _privileges(connection: AsyncConnection[Any]) -> Finding:
    statement = """select string_agg(distinct name, ', ')
                     from unnest(%s::text[]) as name, unnest(array['select', 'insert', 'update', 'delete']) as may
                    where to_regclass(name) is not null and not has_table_privilege(to_regclass(name), may)"""
    role = connection.info.user
    if missing := await _one(connection, statement, list(TABLES)):
        mend = (
            f"As the owner of the tables: grant select, insert, update, delete on all tables in schema public to {role}"
        )
        return Finding("privileges", "wrong", f"{role} may not do everything with {missing}", mend)
    return Finding("privileges", "ok", f"{role} may read and write")


async def _clock(connection: AsyncConnection[Any]) -> Finding:
    before = asyncio.get_running_loop().time()
    apart = abs(await _one(connection, "select extract(epoch from clock_timestamp())::float8") - time.time())
    apart = max(0.0, apart - (asyncio.get_running_loop().time() - before))
    if apart < CLOCK_SECONDS:
        return Finding("clock", "ok", f"{apart:.2f} s from the database's at most")
    mend = "Set both by NTP. Leases go by the database's clock alone, but times shown and measured would be wrong."
    return Finding("clock", "warning", f"{apart:.1f} s from the database's", mend)


async def _passages(connection: AsyncConnection[Any]) -> Finding:
    try:
        count = await _one(connection, "select count(*) from (select 1 from documents limit 100000) as d")
    except psycopg.errors.UndefinedTable:
        count = 0
    if count:
        return Finding("articles", "ok", f"{count} are here")
    mend = "Run `pulseline ingest --starter`, or `pulseline ingest FOLDER` for your own."
    return Finding("articles", "warning", "there are none, so that no question can be answered from them", mend)


async def _notify(settings: Settings, url: str, connection: AsyncConnection[Any]) -> Finding:
    if settings.notify == "off":
        return Finding("NOTIFY", "ok", "is off: everything goes by polling")
    channel = f"pulseline_doctor_{uuid4().hex[:8]}"
    await connection.execute(f"listen {channel}".encode())
    async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as other:
        await other.execute("select pg_notify(%s, '')", [channel])
    heard = [notification async for notification in connection.notifies(timeout=NOTIFY_SECONDS, stop_after=1)]
    with suppress(psycopg.Error):
        await connection.execute(f"unlisten {channel}".encode())
    if heard:
        return Finding("NOTIFY", "ok", "arrives")
    mend = "Nothing is lost, all goes by polling. Behind PgBouncer in transaction mode set PULSELINE_NOTIFY=off."
    return Finding("NOTIFY", "warning", "does not arrive", mend)


async def _retention(connection: AsyncConnection[Any], days: float) -> Finding:
    """A day's grace, for a sweep that comes once a day."""
    statement = """select exists (select 1 from sessions
                   where deleted_at is null and updated_at < now() - %s * interval '1 day'
                     and session_id not in (select session_id from turns where status in ('queued', 'running')))"""
    try:
        overdue = await _one(connection, statement, days + 1)
    except psycopg.errors.UndefinedTable:
        overdue = False
    if not overdue:
        return Finding("retention", "ok", "no session is older than it may be")
    mend = "Run `pulseline sweep` every day, by cron or a CronJob: nobody else erases them."
    return Finding("retention", "warning", f"sessions are older than {days:g} days by a day and more", mend)


async def _in_thread(what: str, look: Callable[[], str]) -> Finding:
    setting = f"PULSELINE_{what.upper()}"
    try:
        return Finding(what, "ok", await asyncio.to_thread(look))
    except ValueError as error:
        return Finding(what, "wrong", str(error), f"Set {setting} to what the README lists, or unset it.")


def _model(settings: Settings) -> str:
    if settings.graph is not None:
        from graph.loading import load

        asyncio.run(load(settings.graph))
        return f"the graph {settings.graph} loads"
    from graph.models import open_model

    open_model(settings.model)
    return f"{settings.model} opens (a provider is not called)"


def _embeddings(settings: Settings) -> str:
    from graph.retrieval.embed import open_embedder

    open_embedder(settings.embeddings)
    return f"{settings.embeddings} open"


async def _issuer(settings: Settings) -> Finding:
    from functions.tokens import IssuerKeys

    try:
        count = await IssuerKeys(settings).count()
    except Exception as error:  # whatever stands between here and there
        mend = (
            "Check PULSELINE_JWT_ISSUER, and that this machine reaches it; or name the keys by PULSELINE_JWT_JWKS_URL."
        )
        return Finding("issuer", "wrong", f"its keys cannot be fetched ({type(error).__name__})", mend)
    return Finding("issuer", "ok", f"has {count} keys")


async def findings(settings: Settings, url: str, found: Callable[[Finding], object]) -> bool:
    """Calls `found` with each; gives whether nothing is wrong."""
    well = True
    async for finding in examine(settings, url):
        found(finding)
        well = well and finding.verdict != "wrong"
    return well


def row(finding: Finding) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=16)
    line.add_column(width=7, style=VERDICTS[finding.verdict])
    line.add_row(finding.what, finding.verdict, f"{finding.says}. {finding.mend}".removesuffix(" "))
    return line
