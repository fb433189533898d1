"""The original plan's targets as rows, each at ten and at a hundred people, beside what was found."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIZES = (10, 100)


class Seen(NamedTuple):
    """One run: its scenario, how many people, and its metrics as in the report."""

    scenario: str
    users: int
    metrics: dict[str, dict[str, float]]


class Target(NamedTuple):
    """`limit` is the plan's; a share may not be less, everything else not more."""

    name: str
    limit: float
    unit: str
    scenario: str
    metric: str
    stat: str


TARGETS = (
    Target("first token", 1000, "ms", "steady_chat", "first_token_ms", "p95"),
    Target("question → first token, all", 2000, "ms", "steady_chat", "first_token_ms", "max"),
    Target("token said → received", 50, "ms", "steady_chat", "token_lag_ms", "p99"),
    Target("question → first stage", 200, "ms", "steady_chat", "first_stage_ms", "p95"),
    Target("stage changed → received", 200, "ms", "steady_chat", "stage_lag_ms", "p95"),
    Target("memory a running turn", 10_240, "KB", "steady_chat", "memory_kb_a_user", "value"),
    Target("success", 95, "%", "steady_chat", "success_percent", "value"),
    Target("success while replicas are killed", 95, "%", "replica_kill", "success_percent", "value"),
    Target("failure → error received", 2000, "ms", "errors", "error_ms", "max"),
)
SOONER = "first visible content sooner than blocking"
SOONER_LIMIT = 70.0
HEAD = ("target of the plan", "limit", *(f"{size} people" for size in SIZES), "")


def rows(runs: Sequence[Seen]) -> list[tuple[tuple[object, ...], bool]]:
    """What was not measured in these runs is left out; a row is marked when it misses its limit."""
    found = []
    for target in TARGETS:
        values = {run.users: run.metrics.get(target.metric, {}).get(target.stat) for run in _of(runs, target.scenario)}
        found += _row(target.name, target.limit, target.unit, values)
    blocking = [run.metrics["blocking_ms"]["p50"] for run in _of(runs, "blocking") if "blocking_ms" in run.metrics]
    if blocking:
        sooner = {
            run.users: 100 * (1 - run.metrics["first_event_ms"]["p50"] / blocking[0])
            for run in _of(runs, "steady_chat")
            if "first_event_ms" in run.metrics
        }
        found += _row(SOONER, SOONER_LIMIT, "%", sooner)
    return found


def _of(runs: Sequence[Seen], scenario: str) -> list[Seen]:
    return [run for run in runs if run.scenario == scenario]


def _row(
    name: str, limit: float, unit: str, values: Mapping[int, float | None]
) -> list[tuple[tuple[object, ...], bool]]:
    """One of another size than ten or a hundred is shown with its size."""
    known = {users: value for users, value in values.items() if value is not None}
    if not known:
        return []
    missed = any(value < limit if unit == "%" else value > limit for value in known.values())
    shown = [f"{known[size]:,.0f} {unit}" if size in known else "" for size in SIZES]
    others = ", ".join(f"{users} people: {value:,.0f} {unit}" for users, value in known.items() if users not in SIZES)
    bound = f"≥ {limit:,.0f} {unit}" if unit == "%" else f"≤ {limit:,.0f} {unit}"
    return [((name, bound, *shown, others), missed)]
