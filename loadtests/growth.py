"""What grows with what: the cost of a token as running turns, watchers of a turn and rows in the log grow.

`python -m loadtests.growth`; docs/scale.md draws conclusions. Prints the knee: how many turns at once keep the limits.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from loadtests import limits, report
from loadtests.compare.client import Seen
from loadtests.compare.contestants import (
    DURABLE,
    LOADS,
    Contestant,
    contestants,
)
from loadtests.plot import Axis, Point, lines

PARTS = ("turns", "watchers", "rows")
TURNS = (1, 10, 25, 50, 100, 150, 200, 300, 400, 600)
WATCHERS = (1, 10, 100, 300)
WATCHED_TURNS = 2
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
ROWS_TURNS = 50
ROWS_A_SESSION, ROWS_A_TURN = 1_000, 200
WINDOW_SECONDS = 5.0
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"

# Finished answers, as old sessions leave them before they are pruned: their events, turns and sessions.
FILL = """
with made as (
  insert into sessions (session_id, owner, title)
  select md5('session ' || s)::uuid, 'owner ' || s %% 1000, 'What helps?'
    from generate_series(%(first)s::int, %(last)s::int) s),
answered as (
  insert into turns (session_id, turn_id, request_id, status, attempt, first_seq, last_seq, ended_at)
  select md5('session ' || s)::uuid, md5('turn ' || s || ' ' || t)::uuid, 'request ' || t, 'done', 1,
         1 + t * %(turn)s, (1 + t) * %(turn)s, now() - interval '1 day'
    from generate_series(%(first)s::int, %(last)s::int) s, generate_series(0, %(rows)s::int / %(turn)s - 1) t),
new as (
  select md5('session ' || s)::uuid as session_id, s, n from generate_series(%(first)s::int, %(last)s::int) s,
         generate_series(1, %(rows)s::int) n)
insert into events (session_id, seq, turn_id, attempt, type, data)
select session_id, n, md5('turn ' || s || ' ' || (n - 1) / %(turn)s)::uuid, 1,
       case when n %% %(turn)s = 0 then 'done' else 'token' end,
       '{"content":"word ","timestamp":"2026-11-24T10:00:00.000Z"}'::json
  from new
"""

Figures = dict[str, list[dict[str, float]]]


@asynccontextmanager
async def _durable(mode: str) -> AsyncIterator[Contestant]:
    with contestants(mode, (DURABLE,)) as every:
        await every[DURABLE].warm_up()
        with every[DURABLE].awake():
            yield every[DURABLE]


async def by_turns(console: Console) -> list[dict[str, float]]:
    """Paced answers, starts spread evenly; ends two sizes after the knee."""
    found: list[dict[str, float]] = []
    wanted = limits.load()["steady_chat"]
    over = 0
    async with _durable("paced") as durable:
        for turns in TURNS:
            one = await durable.measure(turns, LOADS["paced"])
            row = {"turns": turns, **vars(one)}
            kept = one.first_token_p95 <= wanted["first_token_ms"]["p95"]
            kept = kept and one.lag_p99 <= wanted["token_lag_ms"]["p99"]
            found.append({**row, "kept": float(kept)})
            console.print(f"{turns} turns: {one.tokens_a_second:,.0f} tokens/s, lag p99 {one.lag_p99:.1f} ms")
            over += not kept
            if over == 2:
                break
    return found


def knee(found: list[dict[str, float]]) -> float:
    """The most turns at once up to which every size kept the limits; 0 when none did."""
    best = 0.0
    for row in found:
        if not row["kept"]:
            break
        best = row["turns"]
    return best


async def by_watchers(console: Console) -> list[dict[str, float]]:
    """Paced answers, each read by many. A token counts once for each reader."""
    found: list[dict[str, float]] = []
    async with _durable("paced") as durable:
        for watchers in WATCHERS:
            found.append({"watchers": watchers, **await _watched(durable, watchers), "load_average": _load()})
            console.print(f"{watchers} watchers: {found[-1]['cpu']:.1f} µs for a token and a reader")
    return found


async def _watched(durable: Contestant, watchers: int) -> dict[str, float]:
    seen, going = Seen(WATCHED_TURNS * watchers), True
    seen.watched = False
    watching = [asyncio.create_task(durable.way.watch_on(seen, watchers, lambda: going)) for _ in range(WATCHED_TURNS)]
    await seen.begun.wait()
    await asyncio.sleep(1)
    seen.watched = True
    tokens, (cpu, database), began = seen.tokens, durable.used(), time.perf_counter()
    await asyncio.sleep(WINDOW_SECONDS)
    took, (cpu_after, database_after), tokens = time.perf_counter() - began, durable.used(), seen.tokens - tokens
    seen.watched = going = False
    await asyncio.gather(*watching)
    return {
        "tokens_a_second": tokens / took,
        "cpu": 1e6 * (cpu_after - cpu) / tokens,
        "cpu_postgres": 1e6 * (database_after - database) / tokens,
        "lag_p50": seen.lag.percentile(50),
        "lag_p99": seen.lag.percentile(99),
    }


async def by_rows(console: Console, most: int) -> list[dict[str, float]]:
    """Answers as fast as they go, on a log that has so many rows already."""
    found: list[dict[str, float]] = []
    async with _durable("saturated") as durable:
        had = 0
        for rows in (rows for rows in ROWS if rows <= most):
            filled = time.perf_counter()
            size = await asyncio.to_thread(_fill, durable.database_url, had, rows)
            filled, had = time.perf_counter() - filled, rows
            one = await durable.measure(ROWS_TURNS, LOADS["saturated"])
            row = {"rows": rows, "bytes_a_row": size / rows, **vars(one)}
            found.append(row)
            console.print(f"{rows:,} rows (filled in {filled:.0f} s): {one.tokens_a_second:,.0f} tokens/s")
    return found


def _fill(url: str, had: int, rows: int) -> int:
    """Gives the size of the log with its indexes, in bytes."""
    with psycopg.connect(url, autocommit=True) as connection:
        first, last = had // ROWS_A_SESSION + 1, rows // ROWS_A_SESSION
        connection.execute(FILL, {"first": first, "last": last, "rows": ROWS_A_SESSION, "turn": ROWS_A_TURN})
        connection.execute("vacuum analyze events, turns, sessions")
        connection.execute("checkpoint") if _may_checkpoint(connection) else None
        row = connection.execute("select pg_total_relation_size('events')").fetchone()
        assert row is not None
        return int(row[0])


def _may_checkpoint(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("select pg_has_role(current_user, 'pg_checkpoint', 'usage')").fetchone()
    return bool(row and row[0])


def _load() -> float:
    return round(os.getloadavg()[0], 1)


COLUMNS = {
    "tokens_a_second": "tokens/s",
    "cpu": "server µs/token",
    "cpu_postgres": "Postgres µs/token",
    "first_token_p95": "first token p95 ms",
    "lag_p50": "lag p50 ms",
    "lag_p99": "lag p99 ms",
    "bytes_a_row": "bytes a row",
    "load_average": "load average",
}


def head_and_rows(part: str, found: list[dict[str, float]]) -> tuple[list[str], list[list[float]]]:
    columns = [column for column in COLUMNS if column in found[0]]
    return [part, *(COLUMNS[column] for column in columns)], [[row[c] for c in (part, *columns)] for row in found]


def show(part: str, found: list[dict[str, float]], console: Console) -> None:
    head, rows = head_and_rows(part, found)
    table = Table(*head)
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def section(part: str, found: list[dict[str, float]]) -> str:
    head, rows = head_and_rows(part, found)

    def of(*names: str) -> dict[str, list[Point]]:
        return {COLUMNS[name]: [(row[part], row[name]) for row in found] for name in names if name in found[0]}

    drawn = report.plots(
        lines("Cost of a token", Axis(part, log=True), Axis("µs"), of("cpu", "cpu_postgres")),
        lines("Tokens a second", Axis(part, log=True), Axis("tokens/s"), of("tokens_a_second")),
        lines("Times", Axis(part, log=True), Axis("ms", log=True), of("first_token_p95", "lag_p50", "lag_p99")),
    )
    return f"<h2>By {part}</h2>{report.table(head, [(row, False) for row in rows])}{drawn}"


def write_docs(found: Figures, machine: dict[str, Any]) -> None:
    """Each part's table takes the place of its last one in the page, with where and when it was measured."""
    page = PAGE.read_text()
    for part, rows in found.items():
        head, cells = head_and_rows(part, rows)
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in cells]
        said = f"Measured {machine['measured_at'][:10]} at {machine['commit']} on {machine['cores']} cores"
        said += f"; {machine['knee']:.0f} turns at once kept the limits." if part == "turns" else "."
        before, _, rest = page.partition(f"<!-- {part} -->\n")
        _, end, after = rest.partition(f"<!-- end of {part} -->\n")
        assert end, f"{PAGE} has no place for {part}"
        page = f"{before}<!-- {part} -->\n{said}\n\n{chr(10).join(lines)}\n{end}{after}"
    PAGE.write_text(page)


def _cell(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


async def measure(options: argparse.Namespace, console: Console) -> Figures:
    found: Figures = {}
    for part in options.part or PARTS:
        if part == "turns":
            found[part] = await by_turns(console)
        elif part == "watchers":
            found[part] = await by_watchers(console)
        else:
            found[part] = await by_rows(console, options.rows)
        show(part, found[part], console)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.growth", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--rows", type=int, default=ROWS[-1], help="fill the log up to so many")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/scale.md")
    parser.add_argument("--out", type=Path, default=report.OUT)
    options = parser.parse_args()
    console = Console(width=140, highlight=False)
    machine = report.machine()
    found: Figures = uvloop.run(measure(options, console))
    body = [report.facts(machine), *(section(part, rows) for part, rows in found.items())]
    if "turns" in found:
        machine["knee"] = knee(found["turns"])
        metrics = {"knee": {"value": machine["knee"]}}
        machine["runs"] = [{"scenario": "growth", "users": int(machine["knee"]), "metrics": metrics}]
        console.print(f"the knee: {machine['knee']:.0f} turns at once kept the limits of slo.toml")
        body.insert(1, f"<p>The knee: {machine['knee']:.0f} turns at once kept the limits.</p>")
    if options.docs:
        write_docs(found, machine)
    console.print(report.write(options.out, "growth", "What grows with what", body, machine | found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
