"""`make compare PEERS=1`: the same graph on Pulseline and on other servers of the LangGraph wire, read by one client.

What a turn costs when many stream at once, and what the readers of an answer get who lose their connection and come
back with their Last-Event-ID. Each server is run as its documentation says; they take turns, and while one is measured
the others stand still. Exits 1 when Pulseline lost or repeated a token, and 2 when a peer is not installed.
"""

import argparse
import os
import sys
from dataclasses import astuple
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from loadtests import report
from loadtests.compare.peer_measures import Comeback, Resumed, Streamed, Turns, resume, stream
from loadtests.compare.peers import EVERY, PULSELINE, Peer, running

WARM_UP = Turns(5, 1, 50, 0)
WORKLOADS = (Turns(10, 2, 200, 0), Turns(50, 1, 200, 0), Turns(50, 1, 100, 40))
SLOW, FAST = Turns(1, 1, 200, 40), Turns(1, 1, 200, 10)  # as most models say them, and as the fastest do
COMEBACKS = (
    *(Comeback(60, turn, together) for turn in (SLOW, FAST) for together in (False, True)),
    *(Comeback(300, SLOW, together) for together in (False, True)),
)
HEAD = (
    *("turns", "server", "tokens/s", "CPU µs/token", "of it Postgres", "of it Redis", "most MB", "bytes/token"),
    *("frames/token", "wrong answers", "reader CPU %", ""),
)
RESUMED_HEAD = (
    "readers",
    "server",
    "lost a token",
    "tokens lost",
    "had repeats",
    "tokens repeated",
    "refused",
    "no end",
)
RATIO_HEAD = ("turns", "ratio", "tokens/s", "CPU/token", "memory", "bytes/token")
SERVER_HEAD = ("server", "run as", "versions", "")
JOINED = (
    "At full speed Pulseline joins what was said during a commit into one frame (see frames/token), so that its "
    "tokens get cheaper; at 40 ms a token, as real models say them, none are joined. Tokens are counted by the "
    "numbers in the text. Memory is of the server's processes and its Redis; Postgres's is not in it."
)

Streams = dict[tuple[Turns, str], Streamed]
Resumes = dict[tuple[Comeback, str], Resumed]


async def measure(peers: list[Peer], options: argparse.Namespace, console: Console) -> tuple[Streams, Resumes]:
    streamed: dict[tuple[Turns, str], list[Streamed]] = {}
    resumed: Resumes = {}
    with running(peers) as every:
        for one in every:
            await stream(one, WARM_UP)
            one.sleep()
        for number in range(options.rounds):
            rotated = every[number % len(every) :] + every[: number % len(every)]
            for turns in WORKLOADS if "turns" in options.part else ():
                for one in rotated:
                    with one.awake():
                        streamed.setdefault((turns, one.peer.name), []).append(await stream(one, turns))
                console.print(f"round {number + 1}: {turns}, load average {os.getloadavg()[0]:.1f}")
            for what in COMEBACKS if "resume" in options.part else ():
                if options.readers and what.readers not in options.readers:
                    continue
                for one in rotated:
                    with one.awake():
                        readings = await resume(one.url, what, number)
                    resumed.setdefault((what, one.peer.name), Resumed()).add(readings)
                    console.print(f"{what}, {one.peer.name}: {resumed[what, one.peer.name]}")
    return {key: middle(runs) for key, runs in streamed.items()}, resumed


def middle(runs: list[Streamed]) -> Streamed:
    """The median of each figure; of the wrong answers, all."""
    found = Streamed(*(median(values) for values in zip(*map(astuple, runs), strict=True)))
    found.wrong = sum(run.wrong for run in runs)
    return found


def stream_rows(found: Streams) -> list[tuple[tuple[object, ...], bool]]:
    """Each with whether it is to be marked."""
    return [
        (
            (
                *(str(turns), name, m.tokens_a_second, m.whole_cpu, m.cpu_postgres, m.cpu_redis, m.memory_mb),
                *(m.bytes_a_token, m.frames_a_token, int(m.wrong), m.client_cpu_percent, "" if m.valid else "INVALID"),
            ),
            bool(m.wrong) or not m.valid,
        )
        for (turns, name), m in found.items()
    ]


def resume_rows(found: Resumes) -> list[tuple[tuple[object, ...], bool]]:
    return [
        ((str(what), name, r.losers, r.lost, r.repeaters, r.repeated, r.refused, r.unended), not r.whole)
        for (what, name), r in found.items()
    ]


def ratio_rows(found: Streams) -> list[tuple[tuple[object, ...], bool]]:
    """Pulseline ÷ each peer, where both are to be believed."""
    rows: list[tuple[tuple[object, ...], bool]] = []
    for (turns, name), theirs in found.items():
        ours = found.get((turns, PULSELINE))
        if name == PULSELINE or ours is None or not (ours.valid and theirs.valid and theirs.tokens_a_second):
            continue
        pairs = (
            (ours.tokens_a_second, theirs.tokens_a_second),
            (ours.whole_cpu, theirs.whole_cpu),
            (ours.memory_mb, theirs.memory_mb),
            (ours.bytes_a_token, theirs.bytes_a_token),
        )
        rows.append(((str(turns), f"{PULSELINE} ÷ {name}", *(f"{a / b:.2f}" for a, b in pairs)), False))
    return rows


def _shown(cell: object) -> str:
    return str(cell) if not isinstance(cell, float) else f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def print_table(
    console: Console, title: str, head: tuple[str, ...], rows: list[tuple[tuple[object, ...], bool]]
) -> None:
    table = Table(*head, title=title)
    for row, marked in rows:
        table.add_row(*map(_shown, row), style="red" if marked else "")
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    names = [peer.name for peer in EVERY]
    parser = argparse.ArgumentParser(prog="python -m loadtests.compare.with_peers", description=__doc__)
    parser.add_argument("--peer", action="append", choices=names, help="only this one; may be given again")
    parser.add_argument("--part", action="append", choices=("turns", "resume"))
    parser.add_argument("--readers", type=int, action="append", help="of one answer; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="medians and sums of so many are shown")
    parser.add_argument("--out", type=Path, default=report.OUT)
    options = parser.parse_args(arguments)
    options.part = options.part or ["turns", "resume"]
    console = Console(width=160, highlight=False)
    peers = [peer for peer in EVERY if not options.peer or peer.name in options.peer]
    if missing := [peer.name for peer in peers if not peer.installed]:
        console.print(f"NOT INSTALLED: {', '.join(missing)}. Run: make compare PEERS=1", style="bold red")
        return 2
    servers = [((peer.name, peer.said(), peer.versions(), peer.about), False) for peer in peers]
    machine = report.machine()
    streamed, resumed = uvloop.run(measure(peers, options, console))
    tables: list[tuple[str, tuple[str, ...], list[tuple[tuple[object, ...], bool]]]] = [
        ("Servers", SERVER_HEAD, list(servers)),
        ("Many answers at once", HEAD, stream_rows(streamed)),
        (
            f"Readers who come back once, of {SLOW.tokens} tokens; sums of {options.rounds} rounds",
            RESUMED_HEAD,
            resume_rows(resumed),
        ),
        ("Ratios", RATIO_HEAD, ratio_rows(streamed)),
    ]
    body = [report.facts(machine), f"<p>{JOINED}</p>"]
    for title, head, rows in tables:
        print_table(console, title, head, rows)
        body += [f"<h2>{title}</h2>", report.table(head, rows)]
    console.print(JOINED)
    data: dict[str, Any] = {
        **machine,
        "servers": [dict(zip(SERVER_HEAD[:3], row, strict=False)) for row, _ in servers],
        "turns": [{"turns": str(turns), "server": name, **vars(m)} for (turns, name), m in streamed.items()],
        "resume": [{"what": str(what), "server": name, **vars(r)} for (what, name), r in resumed.items()],
    }
    console.print(report.write(options.out, "peers", "Pulseline beside its peers", body, data))
    return int(any(not found.whole for (_, name), found in resumed.items() if name == PULSELINE))


if __name__ == "__main__":
    sys.exit(main())
