"""`make targets`: the original plan's targets beside what `make bench`, `make load` and the growth run have found.

Each of them leaves its figures in .cache/load. Exits 1 when a target is missed or was not measured, or when the figures
are not all of one commit, one machine and one host.
"""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from loadtests.report import OUT

SIZES = (10, 100)
NOT_MEASURED = "not measured"
INVALID = "INVALID: the load generator was too busy"
PLACE = ("commit", "machine", "cores", "host")


class Seen(NamedTuple):
    """One run: its scenario, how many people, its metrics as in the report, and whether it is to be believed."""

    scenario: str
    users: int
    metrics: dict[str, dict[str, float]]
    valid: bool = True


class Target(NamedTuple):
    """`limit` is the plan's; a share or a number of turns may not be less, everything else not more.

    `sizes`: how many people it is to be measured with; none: with as many as the run has.
    """

    name: str
    limit: float
    unit: str
    scenario: str
    metric: str
    stat: str
    sizes: tuple[int, ...] = SIZES

    def missed(self, value: float) -> bool:
        return value < self.limit if self.unit in ("%", "turns") else value > self.limit

    def shown(self, value: float) -> str:
        """A share is rounded down, so that what is not all never looks like all."""
        rounded = math.floor(10 * value) / 10 if self.unit == "%" else value
        return f"{rounded:,.1f} {self.unit}" if self.unit == "%" else f"{rounded:,.0f} {self.unit}"

    @property
    def bound(self) -> str:
        return f"{'≥' if self.unit in ('%', 'turns') else '≤'} {self.limit:,.0f} {self.unit}"


TARGETS = (
    Target("first token", 1000, "ms", "steady_chat", "first_token_ms", "p95"),
    Target("question → first token, all", 2000, "ms", "steady_chat", "first_token_ms", "max"),
    Target("question → first stage", 200, "ms", "steady_chat", "first_stage_ms", "p95"),
    Target("every stage in the model → received", 200, "ms", "steady_chat", "stage_lag_ms", "p95"),
    Target("token said → received", 50, "ms", "steady_chat", "token_lag_ms", "p99"),
    Target("frame received → on screen", 50, "ms", "page", "shown_ms", "p95", ()),
    Target("token said → on screen, both added", 100, "ms", "screen", "token_ms", "value"),
    Target("retrieval and reranking", 1500, "ms", "extractive", "search_ms", "p95"),
    Target("question → first token, offline default", 2000, "ms", "extractive", "first_token_ms", "p95"),
    Target("memory a running turn", 10_240, "KB", "steady_chat", "memory_kb_a_user", "value"),
    Target("success", 95, "%", "steady_chat", "success_percent", "value"),
    Target("success while replicas are killed", 95, "%", "replica_kill", "success_percent", "value", ()),
    Target("failure → error received", 2000, "ms", "errors", "error_ms", "max"),
    Target("first visible content sooner than blocking", 70, "%", "blocking", "sooner_percent", "value"),
    Target("turns at once that keep the limits (the knee)", 10, "turns", "growth", "knee", "value", ()),
)
HEAD = ("target of the plan", "limit", *(f"{size} people" for size in SIZES), "otherwise", "")


def rows(runs: Sequence[Seen]) -> list[tuple[tuple[object, ...], bool]]:
    """A row is marked when it misses its limit, or was not measured."""
    known = [*runs, *_sooner(runs), *_on_screen(runs)]
    return [_row(target, known) for target in TARGETS]


def _sooner(runs: Sequence[Seen]) -> Iterable[Seen]:
    """The first token of an answer that is streamed, beside the whole of one that is not, with as many people."""
    streamed = {run.users: run.metrics for run in runs if run.scenario == "steady_chat"}
    believed = {run.users for run in runs if run.scenario == "steady_chat" and run.valid}
    for run in (run for run in runs if run.scenario == "blocking" and run.users in streamed):
        first, whole = (
            metrics.get(metric, {}).get("p50", math.nan)
            for metrics, metric in ((streamed[run.users], "first_token_ms"), (run.metrics, "blocking_ms"))
        )
        if not math.isnan(first / whole):
            sooner = {"sooner_percent": {"value": 100 * (1 - first / whole)}}
            yield Seen("blocking", run.users, sooner, run.valid and run.users in believed)


def _on_screen(runs: Sequence[Seen]) -> Iterable[Seen]:
    """A token's whole way: the p99 of its way to the reader and the p95 of the page's, which is measured apart."""
    pages = [run.metrics["shown_ms"]["p95"] for run in runs if run.scenario == "page"]
    for run in (run for run in runs if run.scenario == "steady_chat" and pages):
        lag = run.metrics.get("token_lag_ms", {}).get("p99")
        if lag is not None:
            yield Seen("screen", run.users, {"token_ms": {"value": lag + max(pages)}}, run.valid)


def _row(target: Target, runs: Sequence[Seen]) -> tuple[tuple[object, ...], bool]:
    known = {
        run.users: run.metrics[target.metric][target.stat]
        for run in runs
        if run.scenario == target.scenario and target.stat in run.metrics.get(target.metric, {})
    }
    wanting = [size for size in target.sizes if size not in known]
    cells = [
        target.shown(known[size]) if size in known else NOT_MEASURED if size in target.sizes else "" for size in SIZES
    ]
    others = ", ".join(f"{users}: {target.shown(value)}" for users, value in known.items() if users not in SIZES)
    missed = any(map(target.missed, known.values()))
    unknown = bool(wanting) or not known
    doubted = any(not run.valid for run in runs if run.scenario == target.scenario)
    mark = "NOT MET" if missed else NOT_MEASURED if unknown else INVALID if doubted else "met"
    return (target.name, target.bound, *cells, others, mark), missed or unknown or doubted


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    """What the parts have left in the folder, by name."""
    files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: data for name, data in files.items() if "runs" in data}


def show(folder: Path, console: Console) -> bool:
    """Prints the table; tells whether every target was measured and met, and all at one commit and place."""
    parts, table = kept(folder), Table(*HEAD)
    every = [run for data in parts.values() for run in data["runs"]]
    found = rows([Seen(r["scenario"], r["users"], r["metrics"], r.get("valid", True)) for r in every])
    for row, marked in found:
        table.add_row(*map(str, row), style="red" if marked else "")
    console.print(table)
    places = {name: tuple(data.get(key, "") for key in PLACE) for name, data in parts.items()}
    for name, place in places.items():
        console.print(f"{name}: {parts[name].get('measured_at', 'once')}, {', '.join(filter(None, map(str, place)))}")
    mixed = len(set(places.values())) > 1
    if mixed:
        console.print("MIXED: these figures are not of one commit, machine and host", style="red")
    return not mixed and not any(marked for _, marked in found)


if __name__ == "__main__":
    sys.exit(0 if show(OUT, Console(width=140, highlight=False)) else 1)
