"""A real Postgres for every run, and a database of its own, cloned from a migrated template, for every test."""

import asyncio
import gc
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings

from functions.embedded_postgres import SYSTEM_STATE, EmbeddedPostgres
from functions.postgres_cluster import SETTINGS, Cluster
from graph.eventlog.log import Pool, open_pool
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.sessions import Sessions
from tests.support.pgbouncer import EVERYTHING, NoPgBouncer, find, pooling, shipped
from tests.support.processes import forking

DROP_SECONDS = 20
# No power cut is tried here. Whoever has not yet signed in, as a connection whose opening was given up, holds up every
# `drop database` of the server: for a minute, were that not said.
SERVER = {"fsync": "off", "full_page_writes": "off", "authentication_timeout": "5s"}

settings.register_profile("ours", deadline=None)  # of one example: the machines are shared
settings.load_profile("ours")


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What root keeps elsewhere, because its Postgres can't enter pytest's folders, goes when the run ends."""
    yield
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    for owner in [owner for state in SYSTEM_STATE for owner in state.glob("pulseline-*/home")]:
        with suppress(FileNotFoundError):  # another run's, just going
            if run in Path(owner.read_text()).parents and not Cluster(owner.parent).alive():
                shutil.rmtree(owner.parent)


@pytest.fixture(scope="session", autouse=True)
def imported_once() -> Iterator[None]:
    with forking():
        yield


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The run's Postgres, shared by pytest's parallel processes; TEST_DATABASE_URL names another server."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in SERVER.items():
                patch.setitem(SETTINGS, name, value)
            url = stack.enter_context(EmbeddedPostgres(Path(home) / "home").running())
        yield url


@pytest.fixture(scope="session")
def serving_url(cluster_url: str) -> Iterator[str]:
    """Where the tests reach that Postgres: with TEST_PGBOUNCER set through PgBouncer, as infra/postgres has it."""
    if not EVERYTHING:
        yield cluster_url
        return
    with shipped(find(), cluster_url) as url:
        yield url


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not EVERYTHING:
        return
    direct = [item for item in items if item.get_closest_marker("direct")]
    config.hook.pytest_deselected(items=direct)
    items[:] = [item for item in items if item not in direct]


def _named(url: str, database: str) -> str:
    head, _, query = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{database}" + (f"?{query}" if query else "")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _drop(url: str, database: str) -> None:
    """A connection whose opening was cancelled stays half open until it is collected, and has no role yet; like that of
    an autovacuum at work there it is not ours to terminate."""
    deadline = time.monotonic() + DROP_SECONDS
    while True:
        try:
            return _execute(url, f"drop database {database} with (force)")
        except psycopg.errors.InsufficientPrivilege:
            if time.monotonic() > deadline:
                raise
            gc.collect()
            time.sleep(0.1)


@pytest.fixture(scope="session")
def template(cluster_url: str) -> Iterator[str]:
    name = f"template_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{uuid4().hex[:8]}"
    _execute(cluster_url, f"create database {name}")

    async def setup() -> None:
        async with open_pool(_named(cluster_url, name), max_size=2) as pool:
            await EventLogSaver(pool).setup()

    asyncio.run(setup())
    yield name
    _drop(cluster_url, name)


FreshDatabase = Callable[[], AbstractContextManager[str]]
Say = Callable[[str], None]
SAID = "said"


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """A line for the end of the run: what was counted or measured, or what could not be tested here."""
    return lambda line: request.node.user_properties.append((SAID, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report for status in ("passed", "failed", "skipped") for report in terminalreporter.stats.get(status, [])
    ]
    for report in reports:
        for name, line in report.user_properties:
            if name == SAID:
                terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def fresh_database(cluster_url: str, serving_url: str, template: str) -> FreshDatabase:
    """Opens a freshly migrated, empty database; it is dropped when it is left."""

    @contextmanager
    def fresh() -> Iterator[str]:
        name = f"test_{uuid4().hex[:12]}"
        _execute(cluster_url, f"create database {name} template {template}")
        with ExitStack() as stack:
            stack.callback(_drop, cluster_url, name)
            yield _named(serving_url, name)

    return fresh


@pytest.fixture
def database_url(fresh_database: FreshDatabase) -> Iterator[str]:
    """A database of this test's own."""
    with fresh_database() as url:
        yield url


@pytest.fixture
def through_pgbouncer(database_url: str, request: pytest.FixtureRequest, say: Say) -> Iterator[str]:
    """The test's database through PgBouncer in transaction mode; where there is none, the run says so at its end."""
    if EVERYTHING:
        yield database_url
        return
    try:
        program = find()
    except NoPgBouncer as reason:
        say(f"NOT TESTED through PgBouncer: {request.node.name}: {reason}")
        pytest.skip(str(reason))
    with pooling(program, database_url) as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, max_size=10) as opened:
        yield opened


@pytest.fixture
def log(pool: Pool) -> Sessions:
    return Sessions(pool)
