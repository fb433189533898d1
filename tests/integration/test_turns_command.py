"""`pulseline turns` and `pulseline turns cancel`, as an operator types them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result

from functions.cli import main
from graph.eventlog.log import Candidate, open_pool
from graph.eventlog.sessions import Sessions
from tests.support.turns import all_events, done, held, open_writer, started, token

T = TypeVar("T")


def on_the_log(url: str, act: Callable[[Sessions], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_pool(url, max_size=2) as pool:
            return await act(Sessions(pool))

    return asyncio.run(run())


def pulseline(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"DATABASE_URL": url})


def running(url: str, *words: str) -> Candidate:
    """A turn that someone works on and that has said these words."""

    async def act(log: Sessions) -> Candidate:
        candidate = await started(log)
        turn = await held(log, candidate)
        async with open_writer(url) as writer:
            for word in words:
                await writer.append(turn, token(word))
                await writer.flush(turn)
        return candidate

    return on_the_log(url, act)


def test_turns_lists_what_is_queued_runs_and_is_stuck(database_url: str) -> None:
    assert "no turn is queued or running" in pulseline(database_url, "turns").output
    queued, lost = on_the_log(database_url, started), running(database_url)
    held_one = running(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("update turns set lease_until = now() - interval '11 s' where turn_id = %s", [lost.turn_id])
    listed = pulseline(database_url, "turns").output.splitlines()
    assert listed[0].split() == ["session", "turn", "state", "tries", "worker", "age", "lease", "left"]
    rows = {row.split()[1]: row.split() for row in listed[1:]}
    states = {str(queued.turn_id): "queued", str(lost.turn_id): "stuck", str(held_one.turn_id): "running"}
    assert {turn: row[2] for turn, row in rows.items()} == states
    assert rows[str(held_one.turn_id)][0] == str(held_one.session_id)
    assert rows[str(held_one.turn_id)][3:5] == ["1", "tester"]


@pytest.mark.parametrize(("options", "reason"), [((), "error"), (("--reason", "timeout"), "timeout")])
def test_an_operator_cancels_a_turn_and_its_words_are_kept(
    database_url: str, options: tuple[str, ...], reason: str
) -> None:
    turn = running(database_url, "Iron ", "is")
    for _ in range(2):
        said = pulseline(database_url, "turns", "cancel", str(turn.session_id), "--turn", str(turn.turn_id), *options)
        assert (said.exit_code, said.output) == (0, f"{turn.turn_id} cancelled\n")
    events = on_the_log(database_url, lambda log: all_events(log, turn.session_id))
    end = events[-1].parse()
    assert end.type == "cancelled"
    assert (end.reason, end.content) == (reason, "Iron is")


def test_a_cancel_that_comes_too_late_says_how_the_turn_ended(database_url: str) -> None:
    async def answered(log: Sessions) -> Candidate:
        candidate = await started(log)
        turn = await held(log, candidate)
        async with open_writer(database_url) as writer:
            await writer.append(turn, token("Iron"), done(turn, "Iron"))
            await writer.flush(turn)
        return candidate

    turn = on_the_log(database_url, answered)
    assert pulseline(database_url, "turns", "cancel", str(turn.session_id)).output == f"{turn.turn_id} done\n"


@pytest.mark.parametrize("command", ["turns", "sweep"])
def test_a_database_without_our_tables_is_said(database_url: str, command: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("drop table turns, starts")
    said = pulseline(database_url, command)
    assert (said.exit_code, "Run `pulseline migrate`." in said.output) == (1, True)


def test_a_database_that_refuses_is_said(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("revoke select on turns from current_user")
    said = pulseline(database_url, "turns")
    assert (said.exit_code, "permission denied" in said.output, "pulseline doctor" in said.output) == (1, True, True)


def test_a_cancel_of_what_is_not_there_is_refused(database_url: str) -> None:
    said = pulseline(database_url, "turns", "cancel", str(uuid4()))
    assert (said.exit_code, "no such turn" in said.output) == (1, True)
    assert pulseline(database_url, "turns", "cancel", str(uuid4()), "--reason", "user_initiated").exit_code == 2
    assert pulseline(database_url, "turns", "cancel", "nonsense").exit_code == 2
