"""The fault campaign: `python -m tests.faults.campaign [--seed N] [--faults N] [--seconds N]`, or `make faults`.

Two replicas and a worker on a Postgres of their own, tens of turns under way, readers with real sockets, and a seeded
schedule of faults. An independent checker then reads what the readers were given and what the tables hold; the exit
status is 1 when anything is wrong. With `--kills N` instead: kill -9 of the owner at a random token, N times.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from tests.faults.checker import Tables, read_tables, violations
from tests.faults.fleet import Fleet, fleet
from tests.faults.people import Crowd, Reading
from tests.faults.relay import relaying
from tests.faults.schedule import DECK, Schedule
from tests.support.client import Person, check_whole_turn
from tests.support.folder import temporary_folder

TOKENS, DELAY_MS, STAGE_MS = 60, 60, 150
ANSWER = "".join(f"w{n} " for n in range(TOKENS))
LEASE_SECONDS = 2.0
WAYS = 4
LAST_TURNS_SECONDS = 120.0
NOTICED_SECONDS = 0.5  # a shorter pause is no silence
KILL_LIMIT_SECONDS = 10.0


class Outcome(NamedTuple):
    schedule: Schedule
    crowd: Crowd
    tables: Tables
    violations: list[str]


async def campaign(seed: int, faults: int, seconds: float, people: int) -> Outcome:
    settings = {"LEASE_SECONDS": str(LEASE_SECONDS), "HEARTBEAT_SECONDS": "1", "DRAIN_SECONDS": "1"}
    model = f"scripted?tokens={TOKENS}&delay_ms={DELAY_MS}&stage_ms={STAGE_MS}"
    with temporary_folder() as place:
        async with fleet(place, model, ("serve", "serve", "worker"), **settings) as members, AsyncExitStack() as stack:
            addresses = [replica.address for replica in members.replicas]
            orders = [addresses if n % 2 else addresses[::-1] for n in range(WAYS)]
            ways = [await stack.enter_async_context(relaying(*order)) for order in orders]
            crowd = Crowd(ways, seed)
            schedule = Schedule(members, crowd, seed, LEASE_SECONDS)
            talking = [asyncio.create_task(crowd.converse(number)) for number in range(people)]
            await schedule.run(faults, seconds)
            crowd.leaving = True
            wrong = [*schedule.wrong, *await _left_behind(talking), *await _stopped(members)]
            tables = await read_tables(members.url)
    return Outcome(schedule, crowd, tables, wrong + violations(tables, crowd, ANSWER))


async def _left_behind(talking: list["asyncio.Task[None]"]) -> list[str]:
    """Everyone hears the end of his last turn."""
    _, waiting = await asyncio.wait(talking, timeout=LAST_TURNS_SECONDS)
    for task in waiting:
        task.cancel()
    results = await asyncio.gather(*talking, return_exceptions=True)
    return [f"a conversation did not end: {result!r}" for result in results if result is not None]


async def _stopped(members: Fleet) -> list[str]:
    statuses = await asyncio.gather(*(member.stop() for member in members.members))
    return [f"the last exit status was {status}" for status in statuses if status != 0]


def silences(schedule: Schedule, readings: list[Reading]) -> dict[str, float]:
    """Of each kind of fault the longest pause between two frames of a reader, in seconds. A pause belongs to the fault
    nearest to its beginning of those that can have touched its reader."""
    longest = dict.fromkeys(DECK, 0.0)
    for reading in readings:
        moments = [(reading.began, None), *((got.at, got) for got in reading.frames)]
        for (began, got), (ended, _) in pairwise(moments):
            if ended - began < NOTICED_SECONDS:
                continue
            near = [f for f in schedule.faults if began - NOTICED_SECONDS < f.at < ended and f.touched(reading, got)]
            fault = min(near, key=lambda fault: abs(fault.at - began), default=None)
            if fault is not None:
                longest[fault.kind] = max(longest[fault.kind], ended - began)
    return longest


def report(outcome: Outcome, console: Console, again: str) -> None:
    schedule, crowd, tables, wrong = outcome
    readings = [reading for asked in crowd.asked for reading in asked.readings]
    longest = silences(schedule, readings)
    counts = Counter(fault.kind for fault in schedule.faults)
    table = Table("fault", "times", "longest silence of a reader")
    for kind in DECK:
        table.add_row(kind, str(counts[kind]), f"{longest[kind]:.1f} s" if longest[kind] else "none")
    table.add_section()
    table.add_row("all", str(sum(counts.values())), f"{max(longest.values()):.1f} s")
    console.print(table)
    ends = Counter(turn.status for turns in tables.turns.values() for turn in turns)
    rows = [row for rows in tables.rows.values() for row in rows]
    resets = sum(row.type == "reset" for row in rows)
    lost = sum('"worker_lost"' in row.data for row in rows if row.type == "error")
    frames = sum(len(reading.frames) for reading in readings)
    connections = sum(reading.connections for reading in readings)
    console.print(f"turns {sum(ends.values())}: {', '.join(f'{status} {n}' for status, n in sorted(ends.items()))}")
    console.print(f"events {len(rows)}, attempts after the first {resets}, of them three lost {lost}")
    console.print(f"readers {len(readings)}, their connections {connections}, their frames {frames}")
    for line in wrong[:50]:
        console.print(f"[red]{line}[/red]", markup=True)
    console.print(f"violations {len(wrong)}" + (f"; again: {again}" if wrong else ""))


class Killed(NamedTuple):
    at_token: int
    seconds: float


async def kills(seed: int, times: int, console: Console) -> list[Killed]:
    """The default lease; the reader is attached to the other replica."""
    dice = random.Random(seed)
    found = []
    with temporary_folder() as place:
        async with fleet(place, "scripted?tokens=200&delay_ms=20", ("serve", "serve")) as members:
            owner, other = members.replicas
            async with Person() as person:
                await person.client.get(f"http://{other.address}/sessions")
                for _ in range(times):
                    started = await person.start(f"http://{owner.address}")
                    at_token = dice.randint(1, 150)
                    async with person.watch(f"http://{other.address}", started["session_id"], after=0) as watching:
                        await watching.until("token", count=at_token)
                        began = time.monotonic()
                        owner.kill()
                        await watching.until("reset")
                        await watching.until("token")
                        found.append(Killed(at_token, time.monotonic() - began))
                        check_whole_turn(await watching.rest())
                    assert watching.frames[-1].type == "done"
                    console.print(f"killed at token {at_token}: the next one after {found[-1].seconds:.2f} s")
                    owner.launch()
                    await owner.ready()
    return found


def report_kills(found: list[Killed], console: Console) -> bool:
    seconds = [killed.seconds for killed in found]
    middle = median(seconds)
    console.print(
        f"kill -9 of the owner, {len(found)} times: next token after {middle:.2f} s (median), "
        f"{min(seconds):.2f} to {max(seconds):.2f} s; limit {KILL_LIMIT_SECONDS:.0f} s; text exact every time"
    )
    return middle < KILL_LIMIT_SECONDS


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options.add_argument("--faults", type=int, default=60)
    options.add_argument("--seconds", type=float, default=75)
    options.add_argument("--people", type=int, default=24)
    options.add_argument("--kills", type=int, metavar="N", help="only kill the owner, N times")
    chosen = options.parse_args()
    console = Console(width=120, highlight=False)
    again = f"{options.prog} --seed {chosen.seed} --faults {chosen.faults} --seconds {chosen.seconds:g}"
    if chosen.kills:
        return 0 if report_kills(uvloop.run(kills(chosen.seed, chosen.kills, console)), console) else 1
    console.print(again)
    outcome: Outcome = uvloop.run(campaign(chosen.seed, chosen.faults, chosen.seconds, chosen.people))
    report(outcome, console, again)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
