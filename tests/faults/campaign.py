"""The fault campaign: `make faults`, or `python -m tests.faults.campaign [--seed N] [--faults N] [--seconds N]`.

Two replicas and a worker on a Postgres of their own, tens of turns under way, readers with real sockets: a rolling
restart, and then a seeded schedule of faults. An independent checker then reads what the readers were given and what
the tables hold; the exit status is 1 when anything is wrong. With `--kills N` instead: kill -9 of the owner at a
random token, N times. With `--graph medical` the default graph answers, offline: its stages really search and rank.
"""

import argparse
import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack

import uvloop
from rich.console import Console

from graph.eventlog.log import open_pool
from graph.retrieval.embed import Embedder
from graph.retrieval.ingest import STARTER, ingest
from loadtests.report import machine
from tests.faults.checker import read_tables, violations
from tests.faults.figures import Killed, Outcome, measured, progress, report, report_kills
from tests.faults.fleet import Fleet, fleet
from tests.faults.people import Crowd
from tests.faults.relay import relaying
from tests.faults.schedule import Happened, Schedule
from tests.support.client import Person, check_whole_turn
from tests.support.folder import temporary_folder

TOKENS, DELAY_MS, STAGE_MS = 60, 60, 150
ANSWER = "".join(f"w{n} " for n in range(TOKENS))
MODELS = {
    "scripted": f"scripted?tokens={TOKENS}&delay_ms={DELAY_MS}&stage_ms={STAGE_MS}",
    "medical": f"extractive?pace_ms={DELAY_MS}",
}
MEMBERS = ("serve", "serve", "worker")
ARTICLES = ("iron-deficiency.md", "blood-count.md", "fatigue.md")
LEASE_SECONDS, DRAIN_SECONDS = 2.0, 1.0
WAYS = 4
LAST_TURNS_SECONDS = 120.0
FAULTS, SECONDS, PEOPLE = 200, 240.0, 24


async def campaign(
    seed: int,
    faults: int,
    seconds: float,
    people: int,
    graph: str = "scripted",
    happened: Happened = lambda fault: None,
) -> Outcome:
    settings = {"LEASE_SECONDS": str(LEASE_SECONDS), "HEARTBEAT_SECONDS": "1"}
    settings["DRAIN_SECONDS"] = str(DRAIN_SECONDS)
    with temporary_folder() as place:
        async with (
            fleet(place, MODELS[graph], MEMBERS, **settings) as members,
            AsyncExitStack() as stack,
        ):
            if graph == "medical":
                await _ingested(members.url)
            addresses = [replica.address for replica in members.replicas]
            orders = [addresses if n % 2 else addresses[::-1] for n in range(WAYS)]
            ways = [await stack.enter_async_context(relaying(*order)) for order in orders]
            crowd = Crowd(ways, seed)
            schedule = Schedule(members, crowd, seed, LEASE_SECONDS, happened)
            talking = [asyncio.create_task(crowd.converse(number)) for number in range(people)]
            await schedule.rolling_restart()
            await schedule.run(faults, seconds)
            crowd.leaving = True
            wrong = [*schedule.wrong, *await _left_behind(talking), *await _stopped(members)]
            tables = await read_tables(members.url)
            killed = {attempt: at for member in members.members for attempt, at in member.killed().items()}
    wrong += violations(tables, crowd, ANSWER if graph == "scripted" else None)
    return Outcome(schedule, crowd, tables, killed, wrong)


async def _ingested(url: str) -> None:
    async with open_pool(url, max_size=2) as pool:
        await ingest([STARTER / article for article in ARTICLES], pool=pool, embedder=Embedder())


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


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options.add_argument("--faults", type=int, default=FAULTS)
    options.add_argument("--seconds", type=float, default=SECONDS, help="over which the faults are spread")
    options.add_argument("--people", type=int, default=PEOPLE)
    options.add_argument("--graph", choices=MODELS, default="scripted")
    options.add_argument("--kills", type=int, metavar="N", help="only kill the owner, N times")
    chosen = options.parse_args()
    console = Console(width=120, highlight=False)
    sizes = f"--faults {chosen.faults} --seconds {chosen.seconds:g} --people {chosen.people} --graph {chosen.graph}"
    again = f"{options.prog} --seed {chosen.seed} {sizes}"
    before = machine()
    if chosen.kills:
        found = uvloop.run(kills(chosen.seed, chosen.kills, console))
        console.print(measured(before))
        return 0 if report_kills(found, console) else 1
    console.print(again)
    with progress(console, chosen.faults) as happened:
        what = (chosen.seed, chosen.faults, chosen.seconds, chosen.people, chosen.graph, happened)
        outcome: Outcome = uvloop.run(campaign(*what))
    console.print(f"{measured(before)}, lease {LEASE_SECONDS:g} s, drain {DRAIN_SECONDS:g} s")
    report(outcome, console, again)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
