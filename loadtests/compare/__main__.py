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
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from loadtests import report
from loadtests.compare.contestants import (
    BEST,
    DURABLE,
    MODELS,
    OTHER,
    PACED_RAMP_SECONDS,
    RAMP_SECONDS,
    SPREAD_SECONDS,
    VOLATILE,
    WAYS,
    Contestant,
    Measured,
    contestants,
)
from loadtests.plot import Axis, lines

WINDOW_SECONDS = 3.0
PROFILED_TURNS, PROFILE_SECONDS = 100, 5
OUT = Path(".cache/load")
TURNS = (1, 10, 50, 100, 200, 500)
PACED_TURNS = (10, 100, 200)
HEAD = ("turns", "way", "tokens/s", "CPU µs/token", "of it Postgres", "first token p50", "p95", "lag p50", "p99", "MB")


async def measure_all(
    mode: str, options: argparse.Namespace, console: Console
) -> dict[tuple[int, str], list[Measured]]:
    """Every number of turns with every way, the ways in turn, the whole of it `options.rounds` times."""
    found: dict[tuple[int, str], list[Measured]] = {}
    sizes = options.turns or (TURNS if mode == "saturated" else PACED_TURNS)
    ramp, spread = (RAMP_SECONDS, 0.0) if mode == "saturated" else (PACED_RAMP_SECONDS, SPREAD_SECONDS)
    with contestants(mode) as every:
        for one in every.values():
            await one.way.introduce("/sessions")
            await one.measure(10, 0.5, 0.5)
        for number in range(options.rounds if mode == "saturated" else 1):
            for turns in sizes:
                for one in (every[way] for way in options.way or WAYS):
                    found.setdefault((turns, one.name), []).append(
                        await one.measure(turns, ramp, options.seconds, spread)
                    )
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
                if (turns, way) not in found or (turns, against) not in found:
                    continue
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
    for (turns, way), measured in sorted(found.items()):
        if measured.refused or measured.resets:
            console.print(f"{turns} turns, {way}: {measured.refused:g} starts refused, {measured.resets:g} resets")
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
    parser.add_argument("--way", action="append", choices=WAYS, help="only this one; may be given again")
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
