"""Who is compared stands still with all that is his while another is measured, and ends all the same."""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psutil
import psycopg
import pytest

from loadtests.compare.contestants import Contestant, _Stage

pytestmark = pytest.mark.direct  # it brings its own cluster

SERVER = ("-c", "import time; print('answers at http://', flush=True); time.sleep(600)")
WAIT_SECONDS = 20
# The backend of a connection that was just closed ends as its parent stands still, which does not take it away then.
STILL = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _all_of(one: Contestant) -> list[psutil.Process]:
    postgres = one._postgres
    return [psutil.Process(one.servers[0].process.pid), postgres, *postgres.children(recursive=True)]


def _states(one: Contestant) -> set[str]:
    """Of those that are there: Postgres begins and ends processes as it likes."""
    states: set[str] = set()
    for process in _all_of(one):
        with suppress(psutil.NoSuchProcess):
            states.add(process.status())
    return states


@pytest.mark.timeout(60)
def test_a_contestants_cluster_stands_still_with_its_servers_and_ends_with_them() -> None:
    with ExitStack() as stack:
        one = _Stage(stack, "saturated").put_up("quiet", (SERVER, {}))
        with one.awake(), psycopg.connect(one.database_url) as connection:
            connection.execute("select 1")
            assert len(_all_of(one)) > 4
            assert psutil.STATUS_STOPPED not in _states(one)
        _wait_for(lambda: _states(one) <= STILL)
        with one.awake(), psycopg.connect(one.database_url) as connection:
            connection.execute("select 1")
        everything = _all_of(one)
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
