"""`make compare`: the price of durability. The same graph, model and number of turns, kept and not kept, in one run.

volatile: StreamingResponse over astream_events, no log. volatile, best: astream(messages), tuned garbage collection,
LangGraph's Postgres checkpointer. durable: Pulseline, one replica. durable, other: read at another replica.
The four take turns, so that what else the machine does falls on all alike; the ratios are the result.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from functions.embedded_postgres import EmbeddedPostgres
from loadtests import report
from loadtests.compare.client import Seen, Way
from loadtests.fleet import Served, cpu_seconds, postmaster, resident_kb
from loadtests.plot import Axis, lines
from tests.support.folder import temporary_folder

OUT = Path(".cache/load")
TURNS = (1, 10, 50, 100, 200, 500)
PACED_TURNS = (10, 100, 200)
TOKENS = {"saturated": 200, "paced": 100}
MODELS = {
    "saturated": f"scripted?tokens={TOKENS['saturated']}&delay_ms=0&stage_ms=0&stamp=1",
    "paced": f"scripted?tokens={TOKENS['paced']}&delay_ms=40&stage_ms=0&stamp=1",
}
START_SECONDS = 60
RAMP_SECONDS, WINDOW_SECONDS, PACED_RAMP_SECONDS = 1.0, 3.0, 4.0
PROFILED_TURNS, PROFILE_SECONDS = 100, 5
VOLATILE, BEST, DURABLE, OTHER = "volatile", "volatile, best", "durable", "durable, other"
WAYS = (VOLATILE, BEST, DURABLE, OTHER)
HEAD = ("turns", "way", "tokens/s", "CPU µs/token", "of it Postgres", "first token p50", "p95", "lag p50", "p99", "MB")


@dataclass
class Measured:
    """Of one window. CPU in µs a token; times in ms; memory of the server processes in MB."""

    tokens_a_second: float
    cpu: float
    cpu_postgres: float
    first_token_p50: float
    first_token_p95: float
    lag_p50: float
    lag_p99: float
    memory_mb: float
    frames_a_token: float
    bytes_a_token: float
    client_cpu_percent: float

    def row(self) -> tuple[float, ...]:
        whole = self.cpu + self.cpu_postgres
        times = (self.first_token_p50, self.first_token_p95, self.lag_p50, self.lag_p99)
        return (self.tokens_a_second, whole, self.cpu_postgres, *times, self.memory_mb)


class Contestant:
    """One way to serve, with the processes that it takes."""

    def __init__(self, name: str, servers: list[Served], way: Way, postgres: psutil.Process) -> None:
        self.name, self.way, self.servers = name, way, servers
        self._processes = [psutil.Process(server.process.pid) for server in servers]
        self._postgres = postgres

    def used(self) -> tuple[float, float]:
        """CPU seconds so far, of the servers and of Postgres."""
        return sum(map(cpu_seconds, self._processes)), cpu_seconds(self._postgres)

    async def measure(self, turns: int, ramp: float, window: float) -> Measured:
        """`turns` at a time for a while; what is counted falls into a window that begins when all have begun."""
        seen, going = Seen(turns), True
        asking = [asyncio.create_task(self.way.ask_on(seen, lambda: going)) for _ in range(turns)]
        await asyncio.sleep(ramp)
        async with asyncio.timeout(START_SECONDS):
            await seen.begun.wait()
        seen.watched = True
        tokens, frames, size = seen.tokens, seen.frames, seen.bytes
        began, (cpu, database), client = time.perf_counter(), self.used(), time.process_time()
        await asyncio.sleep(window)
        client = time.process_time() - client
        took, (cpu_after, database_after) = time.perf_counter() - began, self.used()
        memory = sum(map(resident_kb, self._processes)) / 1024
        tokens, frames, size = seen.tokens - tokens, seen.frames - frames, seen.bytes - size
        going = False
        await asyncio.gather(*asking)
        if seen.short:
            raise AssertionError(f"{self.name}: {seen.short} of {seen.turns} answers were short of tokens")
        return Measured(
            tokens / took,
            1e6 * (cpu_after - cpu) / tokens,
            1e6 * (database_after - database) / tokens,
            seen.first_token.percentile(50),
            seen.first_token.percentile(95),
            seen.lag.percentile(50),
            seen.lag.percentile(99),
            memory,
            frames / tokens,
            size / tokens,
            100 * client / took,
        )


@contextmanager
def contestants(mode: str, chosen: tuple[str, ...] = WAYS) -> Iterator[dict[str, Contestant]]:
    """Each with a database of its own in one Postgres, so that no worker takes another's turns."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        url = stack.enter_context(EmbeddedPostgres(folder / "home").running())
        other = url.rsplit("/", 1)[0] + "/other"
        with psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
            connection.execute("create database other template pulseline")

        def serve(name: str, command: tuple[str, ...], database: str, **settings: str) -> Served:
            environment = {"PULSELINE_MODEL": MODELS[mode], "DATABASE_URL": database, **settings}
            served = Served(name, folder, command, environment)
            stack.callback(served.kill)
            return served

        pulseline = ("-m", "functions", "serve")
        many = {"PULSELINE_MAX_TURNS": "2000"}
        durable = serve("durable", pulseline, url, **many)
        asked = serve("asked", pulseline, other, **many)
        read = serve("read", pulseline, other, **many, PULSELINE_WORKER="off")
        volatile = serve("volatile", ("-m", "loadtests.compare.volatile", "events"), url)
        best = serve("best", ("-m", "loadtests.compare.volatile", "messages"), url)
        for served in (durable, asked, read, volatile, best):
            served.ready()
        database = postmaster(folder / "home")
        tokens = TOKENS[mode]
        every = (
            Contestant(VOLATILE, [volatile], Way(volatile.url, tokens), database),
            Contestant(BEST, [best], Way(best.url, tokens), database),
            Contestant(DURABLE, [durable], Way(durable.url, tokens), database),
            Contestant(OTHER, [asked, read], Way(asked.url, tokens, read.url), database),
        )
        yield {one.name: one for one in every if one.name in chosen}


async def measure_all(
    mode: str, options: argparse.Namespace, console: Console
) -> dict[tuple[int, str], list[Measured]]:
    """Every number of turns with every way, the ways in turn, the whole of it `options.rounds` times."""
    found: dict[tuple[int, str], list[Measured]] = {}
    sizes = options.turns or (TURNS if mode == "saturated" else PACED_TURNS)
    ramp = RAMP_SECONDS if mode == "saturated" else PACED_RAMP_SECONDS
    with contestants(mode) as every:
        for one in every.values():
            await one.way.introduce("/sessions")
            await one.measure(10, 0.5, 0.5)
        for number in range(options.rounds if mode == "saturated" else 1):
            for turns in sizes:
                for one in every.values():
                    found.setdefault((turns, one.name), []).append(await one.measure(turns, ramp, options.seconds))
                console.print(f"{mode}, round {number + 1}, {turns} turns: measured, load average {_load():.1f}")
        if mode == "saturated" and options.profile:
            await profile(every[DURABLE], options.out, console)
    return found


async def profile(durable: Contestant, out: Path, console: Console) -> None:
    """A flame graph of the durable way under load."""
    picture = out / "durable.svg"
    command = ["py-spy", "record", "-d", str(PROFILE_SECONDS), "-r", "200", "-f", "flamegraph", "-o", str(picture)]
    running = asyncio.create_task(durable.measure(PROFILED_TURNS, 1.0, PROFILE_SECONDS))
    spied = await asyncio.to_thread(
        subprocess.run,
        [str(Path(sys.executable).with_name(command[0])), *command[1:], "--pid", str(durable.servers[0].process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    await running
    if spied.returncode:
        console.print(f"no flame graph: {spied.stderr.strip().splitlines()[-1:]}", markup=False)


def middle(runs: list[Measured]) -> Measured:
    return Measured(*(median(values) for values in zip(*(vars(run).values() for run in runs), strict=True)))


def _load() -> float:
    return os.getloadavg()[0]


def ratios(found: dict[tuple[int, str], Measured]) -> list[tuple[object, ...]]:
    """Of both durable ways to the volatile one, and to its best form."""
    rows: list[tuple[object, ...]] = []
    for turns in sorted({turns for turns, _ in found}):
        for way in (DURABLE, OTHER):
            for against in (VOLATILE, BEST):
                ours, theirs = found[turns, way], found[turns, against]
                rows.append(
                    (
                        turns,
                        f"{way} ÷ {against}",
                        ours.tokens_a_second / theirs.tokens_a_second,
                        (ours.cpu + ours.cpu_postgres) / (theirs.cpu + theirs.cpu_postgres),
                        ours.cpu / theirs.cpu,
                        ours.first_token_p50 / theirs.first_token_p50,
                        ours.lag_p99 / theirs.lag_p99,
                    )
                )
    return rows


RATIO_HEAD = ("turns", "ways", "tokens/s", "CPU/token", "without Postgres", "first token p50", "lag p99")


def show(mode: str, found: dict[tuple[int, str], Measured], console: Console) -> None:
    table = Table(*HEAD, title=f"{mode}: {MODELS[mode]}")
    for (turns, way), measured in sorted(found.items(), key=lambda item: (item[0][0], WAYS.index(item[0][1]))):
        table.add_row(
            str(turns), way, *(f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in measured.row())
        )
    console.print(table)
    table = Table(*RATIO_HEAD, title=f"{mode}: ratios")
    for turns_and_ways in ratios(found):
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in turns_and_ways))
    console.print(table)


def plotted(found: dict[tuple[int, str], Measured]) -> str:
    def drawn(title: str, label: str, value: str, *, log: bool = True) -> str:
        series = {
            way: [(float(turns), getattr(m, value)) for (turns, of), m in sorted(found.items()) if of == way]
            for way in WAYS
        }
        return lines(title, Axis("turns at once", log=True), Axis(label, log=log), series)

    return report.plots(
        drawn("Tokens a second", "tokens/s", "tokens_a_second", log=False),
        drawn("CPU of the server", "µs/token", "cpu", log=False),
        drawn("CPU of Postgres", "µs/token", "cpu_postgres", log=False),
        drawn("First token, p50", "ms", "first_token_p50"),
        drawn("Delivery lag, p99", "ms", "lag_p99"),
        drawn("Memory of the server processes", "MB", "memory_mb", log=False),
    )


def sections(mode: str, found: dict[tuple[int, str], Measured]) -> list[str]:
    rows = [((turns, way, *measured.row()), False) for (turns, way), measured in sorted(found.items())]
    return [
        f"<h2>{mode}: {MODELS[mode]}</h2>",
        report.table(HEAD, rows),
        report.table(RATIO_HEAD, [(row, False) for row in ratios(found)]),
        plotted(found),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare", description=__doc__)
    parser.add_argument("--turns", type=int, action="append", help="at once; may be given again")
    parser.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="of each window")
    parser.add_argument("--rounds", type=int, default=2, help="of the saturated comparison; medians are shown")
    parser.add_argument("--mode", action="append", choices=list(MODELS))
    parser.add_argument("--no-profile", dest="profile", action="store_false")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    console = Console(width=140, highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    machine = report.machine()
    body, data = [report.facts(machine)], dict[str, Any](machine)
    for mode in options.mode or MODELS:
        runs = uvloop.run(measure_all(mode, options, console))
        found = {key: middle(measured) for key, measured in runs.items()}
        show(mode, found, console)
        body += sections(mode, found)
        data[mode] = [{"turns": turns, "way": way, **vars(measured)} for (turns, way), measured in found.items()]
    if (options.out / "durable.svg").exists():
        body.append(f"<h2>Where the durable way's time goes, {PROFILED_TURNS} turns</h2>")
        body.append('<object data="durable.svg" type="image/svg+xml" width="1400"></object>')
    console.print(report.write(options.out, "compare", "The price of durability", body, data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
