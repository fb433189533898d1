"""What times the writer must wait as the product's tokens do: nobody asks for their commit."""

import asyncio
import time
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest

from graph.eventlog.events import Event, NewEvent, encode_data
from graph.eventlog.writer import HeldTurn, Writer
from loadtests import writer as bench
from loadtests.writer import Load, Measured, Timing

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


@pytest.mark.parametrize(("gap_seconds", "asks_each_time"), [(0.001, False), (None, True)])
async def test_a_paced_turn_asks_for_no_commit_before_its_end(gap_seconds: float | None, asks_each_time: bool) -> None:
    writer, turn = Asked(), HeldTurn(uuid4(), uuid4(), 1, 1)
    now = time.perf_counter()
    load = Load("", "token", EVENTS, gap_seconds)
    await bench._produce(cast(Writer, writer), turn, load, now, now + 0.2, Timing())
    assert writer.appended >= EVENTS
    assert writer.flushes == (writer.appended / EVENTS if asks_each_time else 0) + 1


async def test_a_paced_turn_that_was_held_up_makes_up_for_what_was_due_and_times_it_from_then() -> None:
    class Noted(Timing):
        def due(self, turn: HeldTurn, at: float, events: int) -> None:
            said_due.append(at - now)

    class Stalls(Asked):
        async def append(self, turn: HeldTurn, *events: NewEvent) -> None:
            if not self.appended:
                await asyncio.sleep(0.1)
            await super().append(turn, *events)

    writer, turn = Stalls(), HeldTurn(uuid4(), uuid4(), 1, 1)
    load = Load("", "routed", EVENTS, 0.01)
    said_due: list[float] = []
    now = time.perf_counter()
    await bench._produce(cast(Writer, writer), turn, load, now, now + 0.045, Noted())
    assert writer.appended == 5 * EVENTS
    assert said_due == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])


def test_every_event_is_timed_from_when_it_was_due_to_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((1.0, 1.0, 2.0, 4.0, 5.0))
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    turn, timing = HeldTurn(uuid4(), uuid4(), 1, 1), Timing()
    events = [bench._event(kind, turn, n) for n, kind in enumerate(("token", "token", bench.UNJOINED))]
    for due in (0.0, 1.0, 2.5):  # the last one's timer was early
        timing.due(turn, due, 1)
    timing.committed([_row(turn.session_id, *events[:2])])
    timing.committed([_row(turn.session_id, events[2])])
    assert timing.lags_ms == [4000, 3000, 3000]
    assert timing.rows == 2


def test_a_row_is_judged_by_its_p99_and_where_so_many_are_offered_by_its_events() -> None:
    offered, paced = Load("", "routed", 1, 0.1, bench.AIM_EVENTS_A_SECOND), Load("", "token", 1, 0.1)
    few = Measured(1000, 1, bench.AIM_P99_MS, 1, 1, 1000)
    assert bench.reached(paced, few)
    assert not bench.reached(paced, few._replace(p99_ms=bench.AIM_P99_MS + 1))
    assert not bench.reached(offered, few)
    assert bench.reached(offered, few._replace(rows_a_second=bench.AIM_EVENTS_A_SECOND))
