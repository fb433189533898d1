"""Two replicas for all the clients, and one person's cookie."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import FreshDatabase
from tests.support.gated import GATED, PATIENT, SAID, Gate
from tests.support.server import Server, serving, serving_together

TOKENS = 60
MODEL = f"scripted?tokens={TOKENS}&delay_ms=20"
ANSWER = "".join(f"w{n} " for n in range(TOKENS))
assert SAID < TOKENS


@pytest.fixture(scope="package")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Holds the answers of `replicas`."""
    return Gate(tmp_path_factory.mktemp("replicas"))


@pytest.fixture(scope="package")
def replicas(fresh_database: FreshDatabase, gate: Gate) -> Iterator[tuple[Server, Server]]:
    with (
        fresh_database() as url,
        serving_together(url, gate.folder, MODEL, PATIENT, PATIENT, program=GATED) as (one, two),
    ):
        yield one, two


@pytest.fixture(scope="package")
def asking(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A graph that asks a person before it acts."""
    folder = tmp_path_factory.mktemp("asking")
    with fresh_database() as url, serving(url, folder, GRAPH="examples.tools:graph") as server:
        yield server


def cookie_of(url: str) -> str:
    """A client that is no browser keeps no cookies: it is given one."""
    with httpx.Client(trust_env=False) as browser:
        return "; ".join(f"{name}={value}" for name, value in browser.get(f"{url}/sessions").cookies.items())
