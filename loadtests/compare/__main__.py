"""`make compare`: the price of durability. The same graph, model and number of turns, kept and not kept, in one run.

volatile: StreamingResponse over astream_events, no log. volatile, best: astream(messages), tuned garbage collection,
LangGraph's Postgres checkpointer. durable: Pulseline, one replica. durable, other: read at another replica.
They take turns, each with a cluster of its own; the others and theirs stand still. The ratios are the result. Every
reader gets whole answers, from idle to idle, so that its tokens pay for its start. Exits 1 when an aim is missed.
"""

import argparse
import asyncio
import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from loadtests import report
from loadtests.compare.claims import Found, claims
from loadtests.compare.contestants import (
    BEST,
    DURABLE,
    LOADS,
    MODELS,
    OTHER,
    VOLATILE,
    WAYS,
    Contestant,
    Load,
    Measured,
    contestants,
)
from loadtests.plot import Axis, lines

Runs = dict[tuple[int, str], list[Measured]]

PROFILED_TURNS, PROFILE_SECONDS = 100, 5
PROFILED = (VOLATILE, DURABLE)
TURNS = (1, 10, 50, 100, 200, 500)
PACED_TURNS = (10, 100, 200)
COLUMNS = (
    *("tokens/s", "CPU µs/token", "of it Postgres", "first token p50", "p95", "lag p50", "p99"),
    *("KB a turn", "frames/token", "reader CPU %", "load"),
)
HEAD = ("turns", "way", *COLUMNS, "")
RATIO_HEAD = ("turns", "ways", "tokens/s", "CPU/token", "without Postgres", "first token p50", "lag p99")
CLAIM_HEAD = ("", "what", "durable", "volatile", "÷", "aim", "")
JOINED = (
    "Saturated, Pulseline joins what was said during a commit into one row and one frame (see frames/token); the "
    "volatile ways send every token by itself. Real models say 20 to 100 tokens a second, of which none are joined: "
    "what durability costs with them is the paced table."
)


async def measure_all(
    mode: str, options: argparse.Namespace, console: Console
) -> dict[tuple[int, str], list[Measured]]:
    """Every number of turns with every way, the whole of it `options.rounds` times; each time another way begins."""
    found: Runs = {}
    ways = options.way or list(WAYS)
    load = Load(LOADS[mode].answers, options.seconds or LOADS[mode].seconds, LOADS[mode].spread)
    with contestants(mode, ways) as every:
        for one in every.values():
            await one.warm_up()
        for number in range(options.rounds):
            for n, turns in enumerate(options.turns or (TURNS if mode == "saturated" else PACED_TURNS)):
                for one in _rotated(list(every.values()), number + n):
                    with one.awake():
                        measured = await one.measure(turns, load)
                    if number:  # what an earlier round left may be used again: growth shows in the first alone
                        measured.memory_kb = math.nan
                    found.setdefault((turns, one.name), []).append(measured)
                console.print(f"{mode}, round {number + 1}, {turns} turns: measured, load average {_load():.1f}")
        if options.profile:
            for name in (name for name in PROFILED if name in every):
                with every[name].awake():
                    await profile(every[name], load, options.out / picture(mode, name), console)
    return found


def picture(mode: str, way: str) -> str:
    """The file of its flame graph."""
    return f"{way}_{mode}.svg"


def _rotated(every: list[Contestant], by: int) -> list[Contestant]:
    return every[by % len(every) :] + every[: by % len(every)]


async def profile(one: Contestant, load: Load, to: Path, console: Console) -> None:
    """A flame graph of it under load."""
    seconds = round(load.spread + PROFILE_SECONDS)
    command = ["py-spy", "record", "-d", str(seconds), "-r", "200", "-f", "flamegraph", "-o", str(to)]
    running = asyncio.create_task(one.measure(PROFILED_TURNS, Load(1, seconds + 1, load.spread)))
    spied = await asyncio.to_thread(
        subprocess.run,
        [str(Path(sys.executable).with_name(command[0])), *command[1:], "--pid", str(one.servers[0].process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    await running
    if spied.returncode:
        console.print(f"no flame graph of {one.name}: {spied.stderr.strip().splitlines()[-1:]}", markup=False)


def middle(runs: list[Measured]) -> Measured:
    """The median of each figure, of the runs in which it was looked at; one whose reader was too busy counts only where
    all were."""
    believed = [run for run in runs if run.valid] or runs
    return Measured(*(_median(values) for values in zip(*(vars(run).values() for run in believed), strict=True)))


def _median(values: tuple[float, ...]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def _load() -> float:
    return os.getloadavg()[0]


def ratios(found: Found) -> list[tuple[object, ...]]:
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
                        ours.whole_cpu / theirs.whole_cpu,
                        ours.cpu / theirs.cpu,
                        ours.first_token_p50 / theirs.first_token_p50,
                        ours.lag_p99 / theirs.lag_p99,
                    )
                )
    return rows


def rows_of(found: Found) -> list[tuple[tuple[object, ...], bool]]:
    """Each with whether it is to be believed."""
    ordered = sorted(found.items(), key=lambda item: (item[0][0], WAYS.index(item[0][1])))
    return [((*size_and_way, *m.row(), "" if m.valid else "INVALID"), m.valid) for size_and_way, m in ordered]


def _shown(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    if math.isnan(cell):
        return ""
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def show(mode: str, found: Found, console: Console) -> None:
    table = Table(*HEAD, title=f"{mode}: {MODELS[mode]}")
    for row, valid in rows_of(found):
        table.add_row(*map(_shown, row), style="" if valid else "red")
    console.print(table)
    for (turns, way), measured in sorted(found.items()):
        if measured.refused or measured.resets:
            console.print(f"{turns} turns, {way}: {measured.refused:g} starts refused, {measured.resets:g} resets")
    table = Table(*RATIO_HEAD, title=f"{mode}: ratios")
    for turns_and_ways in ratios(found):
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in turns_and_ways))
    console.print(table)


def plotted(found: Found) -> str:
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
        drawn("Memory by turn", "KB", "memory_kb"),
    )


def sections(mode: str, found: Found) -> list[str]:
    return [
        f"<h2>{mode}: {MODELS[mode]}</h2>",
        report.table(HEAD, [(row, not valid) for row, valid in rows_of(found)]),
        report.table(RATIO_HEAD, [(row, False) for row in ratios(found)]),
        plotted(found),
    ]


def flames(out: Path) -> list[str]:
    parts = []
    for mode, way in product(MODELS, PROFILED):
        drawn = picture(mode, way)
        if (out / drawn).exists():
            parts.append(f'<h2>Where the time goes, {mode}, {PROFILED_TURNS} turns: <a href="{drawn}">{way}</a></h2>')
            parts.append(f'<object data="{drawn}" type="image/svg+xml" width="1400"></object>')
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare", description=__doc__)
    parser.add_argument("--turns", type=int, action="append", help="at once; may be given again")
    parser.add_argument("--seconds", type=float, help="that each reader goes on, once it has its whole answers")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison; medians are shown")
    parser.add_argument("--way", action="append", choices=WAYS, help="only this one; may be given again")
    parser.add_argument("--mode", action="append", choices=list(MODELS))
    parser.add_argument("--no-profile", dest="profile", action="store_false")
    parser.add_argument("--out", type=Path, default=report.OUT)
    options = parser.parse_args()
    console = Console(width=160, highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    machine = report.machine()
    for mode, way in product(MODELS, PROFILED):
        (options.out / picture(mode, way)).unlink(missing_ok=True)
    body, data, everything = [report.facts(machine)], dict[str, Any](machine), dict[str, Found]()
    for mode in options.mode or MODELS:
        runs = uvloop.run(measure_all(mode, options, console))
        found = everything[mode] = {key: middle(measured) for key, measured in runs.items()}
        show(mode, found, console)
        body += sections(mode, found)
        data[mode] = [
            {"turns": key[0], "way": key[1], **vars(measured), "rounds": [vars(run) for run in runs[key]]}
            for key, measured in found.items()
        ]
    claimed = claims(everything)
    table = Table(*CLAIM_HEAD, title="The price of durability, each way at its best number of turns")
    for claim in claimed:
        table.add_row(*map(_shown, claim.row()), style="red" if claim.missed else "")
    console.print(table)
    console.print(JOINED)
    head = [report.table(CLAIM_HEAD, [(claim.row(), claim.missed) for claim in claimed]), f"<p>{JOINED}</p>"]
    data["claims"] = [claim._asdict() | {"ratio": claim.ratio, "missed": claim.missed} for claim in claimed]
    body = [body[0], *head, *body[1:], *flames(options.out)]
    console.print(report.write(options.out, "compare", "The price of durability", body, data))
    return int(any(claim.missed for claim in claimed))


if __name__ == "__main__":
    sys.exit(main())
