"""What times the writer must wait as the product's tokens do: nobody asks for their commit."""

import asyncio
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest

from graph.eventlog.events import Event, NewEvent, encode_data
from graph.eventlog.writer import HeldTurn, Writer
from loadtests import writer as bench
from loadtests.writer import Load, Timing

STAMP = "2026-11-24T10:00:00.000Z"
EVENTS = 40


def _row(session_id: UUID, *events: NewEvent) -> Event:
    """The tokens joined, as the writer does."""
    joined = events[0].data | ({"content": "".join(event.data["content"] for event in events)} if events[1:] else {})
    return Event(session_id, 1, uuid4(), 1, events[0].type, encode_data(joined, STAMP))


class Asked:
    """A writer that commits when it is asked to, and counts how often that is."""

    def __init__(self) -> None:
        self.appended = self.flushes = 0

    async def append(self, turn: HeldTurn, *events: NewEvent) -> None:
        self.appended += len(events)

    async def flush(self, turn: HeldTurn) -> None:
        self.flushes += 1
        await asyncio.sleep(0)


@pytest.mark.parametrize(("gap_seconds", "asks_each_time"), [(0.0, False), (None, True)])
async def test_a_paced_turn_asks_for_no_commit_before_its_end(gap_seconds: float | None, asks_each_time: bool) -> None:
    writer, turn = Asked(), HeldTurn(uuid4(), uuid4(), 1, 1)
    until = asyncio.get_running_loop().time() + 0.02
    load = Load("", "token", EVENTS, gap_seconds)
    await bench._produce(cast(Writer, writer), turn, load, until, Timing())
    assert writer.appended >= EVENTS
    assert writer.flushes == (writer.appended / EVENTS if asks_each_time else 0) + 1


def test_every_event_is_timed_from_its_append_to_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((0.0, 1.0, 2.0, 4.0, 5.0))
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    turn, timing = HeldTurn(uuid4(), uuid4(), 1, 1), Timing()
    events = [bench._event(kind, turn, n) for n, kind in enumerate(("token", "token", "custom"))]
    for _ in events:
        timing.appended(turn, 1)
    timing.committed([_row(turn.session_id, *events[:2])])
    timing.committed([_row(turn.session_id, events[2])])
    assert timing.lags_ms == [4000, 3000, 3000]
    assert timing.rows == 2
