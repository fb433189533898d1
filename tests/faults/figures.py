"""What a campaign prints: faults by kind, turns, events, the longest silences, violations."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import orjson
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults.checker import Row, Tables, attempts_spent, was_lost
from tests.faults.fleet import KilledAt
from tests.faults.people import Crowd, Reading
from tests.faults.schedule import KINDS, ROLLING_RESTART, Fault, Happened, Schedule

NOTICED_SECONDS = 0.5  # a shorter pause is no silence
KILL_LIMIT_SECONDS = 10.0
SHOWN_MAX = 50
LINE_EVERY = 20  # faults, where there is no terminal to draw a bar in


class Outcome(NamedTuple):
    """`killed`: of each attempt that a worker said to begin, when that worker was killed, if it was."""

    schedule: Schedule
    crowd: Crowd
    tables: Tables
    killed: KilledAt
    violations: list[str]


class Killed(NamedTuple):
    at_token: int
    seconds: float


@contextmanager
def progress(console: Console, faults: int) -> Iterator[Happened]:
    """A bar in a terminal, else a line now and then."""
    columns = (TextColumn("{task.description:30}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=faults)
        count = 0

        def happened(fault: Fault) -> None:
            nonlocal count
            count += fault.kind != ROLLING_RESTART
            bar.update(task, completed=count, description=fault.kind)
            if not console.is_terminal and count % LINE_EVERY == 0 and count:
                console.print(f"{count} of {faults} faults")

        yield happened


def silences(faults: list[Fault], readings: list[Reading]) -> dict[str, float]:
    """Of each kind of fault the longest pause between two frames of a reader, in seconds. A pause belongs to the fault
    nearest to its beginning of those that can have touched its reader."""
    longest = dict.fromkeys(KINDS, 0.0)
    for reading in readings:
        moments = [(reading.began, None), *((got.at, got) for got in reading.frames)]
        for (began, got), (ended, _) in pairwise(moments):
            if ended - began < NOTICED_SECONDS:
                continue
            near = [f for f in faults if began - NOTICED_SECONDS < f.at < ended and f.touched(reading, got)]
            fault = min(near, key=lambda fault: abs(fault.at - began), default=None)
            if fault is not None:
                longest[fault.kind] = max(longest[fault.kind], ended - began)
    return longest


def measured(before: dict[str, Any]) -> str:
    """When and where; `before` is of the beginning."""
    began = datetime.fromisoformat(before["measured_at"])
    return (
        f"{began:%Y-%m-%d, %H:%M} to {datetime.now(UTC):%H:%M} UTC, commit {before['commit']}, "
        f"{before['cores']} processors, load {before['load_average_before']} before"
    )


def fates(rows: list[Row], killed: KilledAt) -> Iterator[str]:
    """Of each attempt at a turn that another went on from, or after which nobody did: what its worker was by then.
    `unheard`: the claim was made, but its worker had no time to say so, or never heard of it."""
    for earlier, row in pairwise(rows):
        if was_lost(row) or (row.type == "reset" and row.attempt > earlier.attempt):
            attempt = (row.turn_id, row.attempt - 1)
            moment = datetime.fromisoformat(orjson.loads(row.data)["timestamp"]).timestamp()
            killed_at = killed.get(attempt)
            if attempt not in killed:
                yield "unheard"
            else:
                yield "killed" if killed_at is not None and killed_at <= moment else "living"


def _counted(fates: Iterable[str]) -> str:
    counts = Counter(fates)
    return ", ".join(f"{fate} {counts[fate]}" for fate in ("killed", "living", "unheard"))


def summary(outcome: Outcome) -> list[str]:
    schedule, crowd, tables, killed, wrong = outcome
    turns = [(turn, tables.of(turn)) for turns in tables.turns.values() for turn in turns]
    readings = [reading for asked in crowd.asked for reading in asked.readings]
    ends = Counter(turn.status for turn, _ in turns)
    later = sum(row.type == "reset" for _, rows in turns for row in rows)
    spent = sum(max(0, attempts_spent(turn, rows) - 1) for turn, rows in turns)
    handed_back = sum(turn.handed_back for turn, _ in turns)
    lost = [rows for _, rows in turns if rows and was_lost(rows[-1])]
    return [
        f"faults {len(schedule.faults)}",
        f"turns {len(turns)}: {', '.join(f'{status} {n}' for status, n in sorted(ends.items()))}",
        f"events {sum(len(rows) for _, rows in turns)}",
        f"attempts after the first {later}: handed back without cost {handed_back}, after a lost one {spent}",
        f"workers of the attempts before those: {_counted(fate for _, rows in turns for fate in fates(rows, killed))}",
        f"turns that ended with worker_lost {len(lost)}; their attempts' workers: "
        f"{_counted(fate for rows in lost for fate in fates(rows, killed))}",
        f"readers {len(readings)}, their connections {sum(reading.connections for reading in readings)}, "
        f"their frames {sum(len(reading.frames) for reading in readings)}",
        f"violations {len(wrong)}",
    ]


def report(outcome: Outcome, console: Console, again: str) -> None:
    readings = [reading for asked in outcome.crowd.asked for reading in asked.readings]
    longest = silences(outcome.schedule.faults, readings)
    counts = Counter(fault.kind for fault in outcome.schedule.faults)
    table = Table("fault", "times", "longest silence of a reader", box=MARKDOWN)
    for kind in KINDS:
        table.add_row(kind, str(counts[kind]), f"{longest[kind]:.1f} s" if longest[kind] else "none")
    table.add_row("all", str(counts.total()), f"{max(longest.values()):.1f} s")
    console.print(table)
    for line in outcome.violations[:SHOWN_MAX]:
        console.print(line, style="red", markup=False)
    for line in summary(outcome):
        console.print(line)
    if outcome.violations:
        console.print(f"again: {again}")


def report_kills(found: list[Killed], console: Console) -> bool:
    seconds = [killed.seconds for killed in found]
    middle = median(seconds)
    console.print(
        f"kill -9 of the owner, {len(found)} times: next token after {middle:.2f} s (median), "
        f"{min(seconds):.2f} to {max(seconds):.2f} s; limit {KILL_LIMIT_SECONDS:.0f} s; text exact every time"
    )
    return middle < KILL_LIMIT_SECONDS
