"""`pulseline doctor`: tries everything that Pulseline needs and says of each thing that is wrong how to mend it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection
from rich.table import Table
from rich.text import Text

from functions.settings import Settings
from graph.eventlog.migrate import ENCODING, OF_ANOTHER_ENCODING, encoding, migrations

CONNECT_SECONDS = 5
NOTIFY_SECONDS = 3.0
CLOCK_SECONDS = 1.0
POSTGRES_VERSIONS = range(15, 19)
PGVECTOR = (0, 8)  # hnsw.iterative_scan came with it
WRITTEN = (
    *("sessions", "turns", "events", "feedback", "secrets", "starts"),
    *("library", "documents", "passages", "passage_vectors", "postings", "word_counts"),
    *("checkpoints", "checkpoint_blobs", "checkpoint_writes"),
)
READ = ("pulseline_migrations", "checkpoint_migrations")
MIGRATE = "Run `pulseline migrate`."
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
        connection = await AsyncConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, client_encoding="utf8"
        )  # else what a database without an encoding says would be bytes
    except psycopg.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        mend = "Check that Postgres runs and that DATABASE_URL is right, or unset it to use the embedded one."
        yield Finding("database", "wrong", reason, mend)
    else:
        async with connection:
            for what, look in _looks(settings, url, connection).items():
                yield await _tried(what, look, connection.info.user)
    if settings.graph is not None:
        yield await _in_thread("graph", lambda: _graph(settings))
    else:
        yield await _in_thread("model", lambda: _model(settings))
    if _searches(settings):
        yield await _in_thread("embeddings", lambda: _embeddings(settings))
    if settings.jwt_issuer and not settings.jwt_secret:
        yield await _issuer(settings)


def _looks(
    settings: Settings, url: str, connection: AsyncConnection[Any]
) -> dict[str, Callable[[], Awaitable[Finding]]]:
    looks: dict[str, Callable[[], Awaitable[Finding]]] = {
        "database": lambda: _version(connection),
        "extension vector": lambda: _extension(connection),
        "schema": lambda: _schema(connection),
        "privileges": lambda: _privileges(connection),
        "clock": lambda: _clock(connection),
        "articles": lambda: _passages(settings, connection),
        "NOTIFY": lambda: _notify(settings, url, connection),
    }
    if (days := settings.retention_days) is not None:
        looks["retention"] = lambda: _retention(connection, days)
    return looks


async def _tried(what: str, look: Callable[[], Awaitable[Finding]], role: str) -> Finding:
    """What a look runs into is a finding too, so that the others still come."""
    try:
        return await look()
    except psycopg.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        match error:
            case psycopg.errors.UndefinedTable():
                mend = MIGRATE
            case psycopg.errors.InsufficientPrivilege():
                mend = _grant(role)
            case _:
                mend = "Check that this Postgres runs and is whole; its own log says more."
        return Finding(what, "wrong", reason, mend)


def _grant(role: str) -> str:
    return f"As the owner of the tables: grant select, insert, update, delete on all tables in schema public to {role}"


def _searches(settings: Settings) -> bool:
    """Whether answers are made of articles here."""
    return settings.graph is None and not settings.model.startswith("scripted")


async def _one(connection: AsyncConnection[Any], statement: str, *parameters: Any) -> Any:
    row = await (await connection.execute(statement.encode(), parameters)).fetchone()
    return row[0] if row else None


async def _version(connection: AsyncConnection[Any]) -> Finding:
    if await _one(connection, "select pg_is_in_recovery()"):
        mend = "Let DATABASE_URL name the primary."
        return Finding("database", "wrong", "a standby, which takes no writes", mend)
    if await _one(connection, "select current_setting('transaction_read_only')") == "on":
        name = connection.info.dbname
        mend = (
            f"Run: alter database {name} reset default_transaction_read_only (or alter role, where it stands there), "
            "then restart Pulseline"
        )
        return Finding("database", "wrong", "takes no writes: default_transaction_read_only is on", mend)
    if (found := encoding(connection)) != ENCODING:
        return Finding("database", "wrong", f"its encoding is {found}, but texts are in UTF8", OF_ANOTHER_ENCODING)
    major = connection.info.server_version // 10_000
    if major in POSTGRES_VERSIONS:
        return Finding("database", "ok", f"Postgres {major} answers")
    mend = f"Use Postgres {POSTGRES_VERSIONS[0]} to {POSTGRES_VERSIONS[-1]}."
    return Finding("database", "warning", f"Postgres {major}, with which this was not tried", mend)


async def _extension(connection: AsyncConnection[Any]) -> Finding:
    if version := await _one(connection, "select extversion from pg_extension where extname = 'vector'"):
        if _parts(version) >= PGVECTOR:
            return Finding("extension vector", "ok", f"{version} is there")
        mend = "Install pgvector 0.8 or newer, and run in this database: alter extension vector update"
        return Finding("extension vector", "wrong", f"{version} is too old to search with", mend)
    if await _one(connection, "select 1 from pg_available_extensions where name = 'vector'"):
        mend = "Run `pulseline migrate` as a role that may create it, or have it created once: create extension vector"
        return Finding("extension vector", "wrong", "can be had, but is not in this database", mend)
    mend = "Install the package pgvector for this version of Postgres."
    return Finding("extension vector", "wrong", "this server does not have it", mend)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


async def _schema(connection: AsyncConnection[Any]) -> Finding:
    known = {version for version, _, _ in migrations()}
    try:
        rows = await (await connection.execute("select version from pulseline_migrations")).fetchall()
    except psycopg.errors.UndefinedTable:
        return Finding("schema", "wrong", "the tables have not been made", MIGRATE)
    done = {row[0] for row in rows}
    if missing := known - done:
        return Finding("schema", "wrong", f"{len(missing)} migrations are missing", MIGRATE)
    statement = "select string_agg(name, ', ') from unnest(%s::text[]) as name where to_regclass(name) is null"
    if lost := await _one(connection, statement, [*WRITTEN, *READ]):
        mend = "Restore them from a backup; `pulseline migrate` makes no table a second time."
        return Finding("schema", "wrong", f"these tables are gone: {lost}", mend)
    if done - known:
        return Finding("schema", "warning", "is of a newer release", "Bring this Pulseline up to the newest release.")
    return Finding("schema", "ok", "is this release's")


async def _privileges(connection: AsyncConnection[Any]) -> Finding:
    statement = """select string_agg(distinct name, ', ')
                     from (select name, may from unnest(%s::text[]) as name,
                                  unnest(array['select', 'insert', 'update', 'delete']) as may
                           union all select name, 'select' from unnest(%s::text[]) as name) as needed
                    where to_regclass(name) is not null and not has_table_privilege(to_regclass(name), may)"""
    role = connection.info.user
    if missing := await _one(connection, statement, list(WRITTEN), list(READ)):
        return Finding("privileges", "wrong", f"{role} may not do everything with {missing}", _grant(role))
    return Finding("privileges", "ok", f"{role} may read and write")


async def _clock(connection: AsyncConnection[Any]) -> Finding:
    before = asyncio.get_running_loop().time()
    apart = abs(await _one(connection, "select extract(epoch from clock_timestamp())::float8") - time.time())
    apart = max(0.0, apart - (asyncio.get_running_loop().time() - before))
    if apart < CLOCK_SECONDS:
        return Finding("clock", "ok", f"{apart:.2f} s from the database's at most")
    mend = "Set both by NTP. Leases go by the database's clock alone, but times shown and measured would be wrong."
    return Finding("clock", "warning", f"{apart:.1f} s from the database's", mend)


async def _passages(settings: Settings, connection: AsyncConnection[Any]) -> Finding:
    try:
        count = await _one(connection, "select count(*) from (select 1 from documents limit 100000) as d")
        encoder = await _one(connection, "select encoder from library")
    except psycopg.errors.UndefinedTable:
        count, encoder = 0, None
    if not count:
        mend = "Run `pulseline ingest --starter`, or `pulseline ingest FOLDER` for your own."
        return Finding("articles", "warning", "there are none, so that no question can be answered from them", mend)
    from graph.retrieval.embed import Embedder

    name = Embedder.name if settings.embeddings == "minilm" else settings.embeddings
    if _searches(settings) and encoder != name:
        mend = (
            "Set PULSELINE_EMBEDDINGS to what they were read with, or run `pulseline ingest --clear` and ingest again."
        )
        return Finding("articles", "wrong", f"their vectors are of {encoder}, the questions' of {name}", mend)
    return Finding("articles", "ok", f"{count} are here")


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
    if not await _one(connection, statement, days + 1):
        return Finding("retention", "ok", "no session is older than it may be")
    mend = "Run `pulseline sweep` every day, by cron or a CronJob: nobody else erases them."
    return Finding("retention", "warning", f"sessions are older than {days:g} days by a day and more", mend)


async def _in_thread(what: str, look: Callable[[], str]) -> Finding:
    setting = f"PULSELINE_{what.upper()}"
    try:
        return Finding(what, "ok", await asyncio.to_thread(look))
    except ValueError as error:
        return Finding(what, "wrong", str(error), f"Set {setting} to what the README lists, or unset it.")


def _graph(settings: Settings) -> str:
    from graph.loading import load

    assert settings.graph is not None
    asyncio.run(load(settings.graph))
    return f"{settings.graph} loads"


def _model(settings: Settings) -> str:
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
    line.add_row(finding.what, finding.verdict, Text(f"{finding.says}. {finding.mend}".rstrip()))
    return line
