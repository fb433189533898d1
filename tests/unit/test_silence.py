"""Idle tabs ask together."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from graph.eventlog.errors import DatabaseUnavailable
from graph.eventlog.silence import Silence


async def test_a_thousand_idle_tabs_ask_once() -> None:
    asked: list[Sequence[UUID]] = []
    running, idle, erased = uuid4(), uuid4(), uuid4()

    async def ask(sessions: Sequence[UUID]) -> dict[UUID, bool]:
        asked.append(sessions)
        return {running: True, idle: False}

    silence = Silence(ask)
    found = await asyncio.gather(*(silence.active(session) for session in 300 * [running, idle, erased]))
    assert found == 300 * [True, False, None]
    assert [sorted(sessions) for sessions in asked] == [sorted([running, idle, erased])]
    assert await silence.active(idle) is False, "a later silence asks anew"
    assert len(asked) == 2


async def test_a_database_that_is_away_is_told_to_all_and_asked_again() -> None:
    away = True

    async def ask(sessions: Sequence[UUID]) -> dict[UUID, bool]:
        if away:
            raise DatabaseUnavailable
        return dict.fromkeys(sessions, False)

    silence, session = Silence(ask), uuid4()
    failures = await asyncio.gather(*(silence.active(session) for _ in range(3)), return_exceptions=True)
    assert [type(failure) for failure in failures] == 3 * [DatabaseUnavailable]
    away = False
    assert await silence.active(session) is False


async def test_who_leaves_takes_nobody_elses_answer_along() -> None:
    async def ask(sessions: Sequence[UUID]) -> dict[UUID, bool]:
        return dict.fromkeys(sessions, True)

    silence, session = Silence(ask), uuid4()
    leaves, stays = asyncio.create_task(silence.active(session)), asyncio.create_task(silence.active(session))
    await asyncio.sleep(0)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert await stays is True
