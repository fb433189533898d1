"""Sessions in which nothing was asked for long are erased when the setting says so, and no others."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from functions.sweep import expire
from graph.eventlog.errors import SessionNotFound
from graph.eventlog.sessions import Sessions
from tests.support.dump import holding
from tests.support.turns import OWNER, done, held, open_writer, started, token

CANARY = "canary-b71e"


async def _session(log: Sessions, database_url: str, days: float, *, ended: bool) -> UUID:
    candidate = await started(log, message=CANARY)
    if ended:
        async with open_writer(database_url) as writer:
            turn = await held(log, candidate)
            await writer.append(turn, token(CANARY), done(turn, CANARY))
            await writer.flush(turn)
    async with log.pool.connection() as connection:
        older = "update sessions set updated_at = now() - make_interval(secs => %s) where session_id = %s"
        await connection.execute(older, [days * 24 * 3600, candidate.session_id])
    return candidate.session_id


async def test_what_is_older_than_the_setting_goes_and_nothing_else(log: Sessions, database_url: str) -> None:
    old = await _session(log, database_url, 31, ended=True)
    young = await _session(log, database_url, 29, ended=True)
    answering = await _session(log, database_url, 31, ended=False)
    assert await expire(log, 30) == 1
    assert {row["session_id"] for row in await log.page(OWNER, "", None, 10)} == {young, answering}
    assert holding(database_url, str(old)) == ["public.sessions"]
    assert await expire(log, 30) == 0


async def test_a_session_that_was_asked_something_since_it_was_looked_at_stays(
    log: Sessions, database_url: str
) -> None:
    old = await _session(log, database_url, 31, ended=True)
    (row,) = await log._rows("expired_sessions", age_seconds=30 * 24 * 3600, limit=10)
    await started(log, old, "And now?")
    with pytest.raises(SessionNotFound):
        await log.erase(row["session_id"], row["owner"], 30 * 24 * 3600)
    assert (await log.snapshot(old, OWNER)).messages[-1].content == "And now?"


async def test_many_go_in_batches(log: Sessions, database_url: str) -> None:
    async with log.pool.connection() as connection:
        await connection.execute(
            "insert into sessions (session_id, owner, updated_at) "
            "select gen_random_uuid(), %s, now() - interval '40 days' from generate_series(1, 250)",
            [OWNER],
        )
    assert await expire(log, 30) == 250
    assert await log.page(OWNER, "", None, 10) == []


def test_the_command_erases_where_the_setting_is_set(database_url: str, tmp_path: Path) -> None:
    def sweep(**settings: str) -> str:
        environment = {**os.environ, "DATABASE_URL": database_url, "PULSELINE_HOME": str(tmp_path), **settings}
        command = [sys.executable, "-m", "functions", "sweep"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=50)
        return done.stderr.strip()

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into sessions (session_id, owner, updated_at) "
            "values (gen_random_uuid(), 'x', now() - interval '9 d')"
        )
    assert sweep() == "pruned 0 turns"
    assert sweep(PULSELINE_RETENTION_DAYS="7") == "pruned 0 turns\nerased 1 sessions"
