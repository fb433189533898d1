"""One browser for the run; a person with tabs for every test; servers that several tests share."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.conftest import FreshDatabase
from tests.e2e.visitor import Visitor, visiting
from tests.support.browser import launch_options
from tests.support.server import Server, serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "frontend" / "dist" / "index.html"
RESULTS = ROOT / "test-results"
SLOW = "scripted?tokens=120&delay_ms=40&stage_ms=150"
ENDLESS = "scripted?tokens=100000&delay_ms=10&stage_ms=50"
BRISK = "scripted?tokens=30&delay_ms=0"
PATIENCE = {  # of a worker that is held still in mid-answer
    "LEASE_SECONDS": "3600",
    "FIRST_TOKEN_TIMEOUT_SECONDS": "3600",
    "TOKEN_TIMEOUT_SECONDS": "3600",
    "TURN_TIMEOUT_SECONDS": "3600",
}
FAILED = pytest.StashKey[bool]()


class Serve(Protocol):
    def __call__(self, database_url: str, model: str = SLOW, **settings: str) -> AbstractContextManager[Server]: ...


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    assert PAGE.exists(), "The page is not built: run `make page`."

    def start(database_url: str, model: str = SLOW, **settings: str) -> AbstractContextManager[Server]:
        return serving(database_url, tmp_path_factory.mktemp("serve"), model, **settings)

    return start


@pytest.fixture(scope="session")
def shared_url(fresh_database: FreshDatabase) -> Iterator[str]:
    with fresh_database() as url:
        yield url


@pytest.fixture(scope="session")
def worker(shared_url: str, serve: Serve) -> Iterator[Server]:
    """Writes the answers that `server` shows, slowly, in plain words: about five seconds for all of them.

    While it is `held`, an answer stays where it is, however long a test takes for what it does in mid-answer.
    """
    with serve(shared_url, **PATIENCE) as started:
        yield started


@pytest.fixture(scope="session")
def server(shared_url: str, serve: Serve, worker: Server) -> Iterator[Server]:
    """Shows what `worker` writes."""
    with serve(shared_url, WORKER="off") as started:
        yield started


@pytest.fixture(scope="session")
def endless(fresh_database: FreshDatabase, serve: Serve) -> Iterator[Server]:
    """Its answers end only when they are stopped."""
    with fresh_database() as url, serve(url, ENDLESS, TURN_TIMEOUT_SECONDS="3600") as started:
        yield started


@pytest.fixture(scope="session")
def brisk(fresh_database: FreshDatabase, serve: Serve) -> Iterator[Server]:
    """Its answers are short, and there at once."""
    with fresh_database() as url, serve(url, BRISK, MAX_TURNS_PER_MINUTE="0", MAX_TURNS_PER_OWNER="0") as started:
        yield started


@pytest.fixture(scope="session")
def librarian(fresh_database: FreshDatabase, serve: Serve) -> Iterator[Server]:
    """The product as it comes: the starter corpus, quoted."""
    with fresh_database() as url:
        ingest = [sys.executable, "-m", "functions", "ingest", "--starter"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PULSELINE_")}
        subprocess.run(ingest, env={**environment, "DATABASE_URL": url}, cwd=ROOT, check=True, capture_output=True)
        with serve(url, "extractive?pace_ms=15") as started:
            yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(**launch_options())
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Visitor]:
    """Nothing may go wrong behind the page unseen: no console error, no exception, no violation of the policy."""
    async with visiting(browser) as someone:
        yield someone
        if request.node.stash.get(FAILED, False):
            await _keep(someone, request.node.name)
        else:
            await someone.check()


async def _keep(visitor: Visitor, name: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    for number, tab in enumerate(visitor.tabs):
        await tab.page.screenshot(path=RESULTS / f"{name}-{number}.png")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
