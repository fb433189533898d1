"""Brings a database to the schema of this release. Safe to run from many processes at once, and again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files

import psycopg
from psycopg import AsyncConnection

from graph.eventlog.errors import LogError

MIGRATIONS_LOCK = 7_208_143_001
LOCK_POLL_SECONDS = 0.2
CONNECT_SECONDS = 5
ENCODING = "UTF8"
OF_ANOTHER_ENCODING = "Make another database: create database NAME encoding 'UTF8' template template0"
TABLE = """
create table if not exists pulseline_migrations (
  version integer primary key, name text not null, applied_at timestamptz not null default now())
"""


class MigrationFailed(LogError):
    """The database could not be migrated."""

    code = "migration_failed"


def migrations() -> list[tuple[int, str, str]]:
    folder = files(__package__).joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), name, folder.joinpath(name).read_text()) for name in names]


async def migrated(database_url: str) -> bool:
    """Whether nothing of ours is missing, and LangGraph's tables have been made; of which version, a worker asks."""
    async with await AsyncConnection.connect(
        database_url, autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_SECONDS
    ) as connection:
        return await _current(connection, checkpoints=1)


async def migrate(database_url: str, checkpointer: Callable[[], Awaitable[None]], checkpoints: int) -> list[str]:
    """Calls `checkpointer` (LangGraph's own tables, of so many versions), then applies what is missing of ours and
    gives its names.

    One process does it; the others wait until it has. Where nothing is missing it only reads, so that a role that may
    not change the schema can start; a database that is newer than this release is left as it is.

    All of ours go in one transaction, so no migration of ours may be a CREATE INDEX CONCURRENTLY. The checkpointer's
    may: it waits for everybody who is in a transaction, so none of our tables may be locked meanwhile.
    """
    async with await AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        if await _current(connection, checkpoints):
            return []
        _check_encoding(connection)
        async with _alone(connection):
            await connection.execute("set local idle_in_transaction_session_timeout = 0")
            await checkpointer()
        async with _alone(connection):
            return await _apply(connection)


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction that no other migrator has at the same time.

    The lock is a transaction's, so that it also holds through PgBouncer; those who wait poll for it and keep no
    snapshot open, for which the checkpointer's CREATE INDEX CONCURRENTLY would have to wait.
    """
    while True:
        async with connection.transaction():
            locked = await connection.execute("select pg_try_advisory_xact_lock(%s)", [MIGRATIONS_LOCK])
            row = await locked.fetchone()
            if row and row[0]:
                yield
                return
        await asyncio.sleep(LOCK_POLL_SECONDS)


def encoding(connection: AsyncConnection) -> str | None:
    """Of the database."""
    return connection.info.parameter_status("server_encoding")


def _check_encoding(connection: AsyncConnection) -> None:
    if (found := encoding(connection)) != ENCODING:
        raise MigrationFailed(f"The database's encoding is {found}, but texts are in UTF8. {OF_ANOTHER_ENCODING}")


async def _current(connection: AsyncConnection, checkpoints: int) -> bool:
    try:
        ours = await (await connection.execute("select version from pulseline_migrations")).fetchall()
        theirs = await (await connection.execute("select max(v) from checkpoint_migrations")).fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    newest = -1 if theirs is None or theirs[0] is None else theirs[0]
    return {version for version, _, _ in migrations()} <= {row[0] for row in ours} and newest >= checkpoints - 1


async def _apply(connection: AsyncConnection) -> list[str]:
    await connection.execute(TABLE)
    done = await (await connection.execute("select version from pulseline_migrations")).fetchall()
    versions = {row[0] for row in done}
    missing = [m for m in migrations() if m[0] not in versions]
    for version, name, statements in missing:
        try:
            await connection.execute(statements.encode())
        except psycopg.Error as error:
            raise MigrationFailed(f"{name} failed: {str(error).strip()}{_hint(error)}") from error
        await connection.execute("insert into pulseline_migrations (version, name) values (%s, %s)", [version, name])
    return [name for _, name, _ in missing]


def _hint(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.FeatureNotSupported | psycopg.errors.UndefinedFile):
        return (
            " Install the pgvector extension in this Postgres (package pgvector), then run `pulseline migrate` again."
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return " Run `pulseline migrate` once as a role that may create tables and the extension vector."
    return ""
