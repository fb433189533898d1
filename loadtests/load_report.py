"""The report of `make load`: the verdict, every limit, then each run with its curves."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests import report, targets
from loadtests.limits import Row, Verdict, sized
from loadtests.plot import Axis, Point, lines

if TYPE_CHECKING:
    from loadtests.run import Outcome

CURVES = ("accepted_ms", "first_event_ms", "first_token_ms", "token_lag_ms", "stage_lag_ms", "generator_lag_ms")
MORE_CURVES = ("resume_first_ms", "caught_up_ms", "stop_ms", "error_ms", "interruption_ms", "blocking_ms")
HEAD = ("run", "metric", "stat", "found", "limit", "")


def write(out: Path, outcomes: list["Outcome"], verdict: Verdict, asked: dict[str, str]) -> Path:
    machine = report.machine() | asked | {"verdict": verdict.name}
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    plan = report.table(targets.HEAD, targets.rows(seen(outcomes)))
    body = [
        report.facts(machine),
        "<h2>The plan's targets</h2>",
        plan,
        "<h2>Limits</h2>",
        report.table(HEAD, rows),
        *map(_section, outcomes),
    ]
    data = machine | {"runs": [_data(outcome) for outcome in outcomes]}
    return report.write(out, "load", "Pulseline under load", body, data)


def seen(outcomes: list["Outcome"]) -> list[targets.Seen]:
    return [targets.Seen(o.run.scenario, o.run.users, o.metrics, valid=o.valid) for o in outcomes]


def title(outcome: "Outcome") -> str:
    return sized(outcome.run.scenario, outcome.run.users)


def _rows(outcome: "Outcome") -> list[tuple[tuple[object, ...], bool]]:
    return [
        ((title(outcome), row.metric, row.stat, row.found, row.limit, _mark(row)), not row.kept)
        for row in [*outcome.rows, *outcome.generator]
    ]


def _mark(row: Row) -> str:
    if row.kept:
        return ""
    return "invalid" if row.metric.startswith("generator_") else "missed"


def _section(outcome: "Outcome") -> str:
    results = outcome.results
    stats = ("count", "p50", "p95", "p99", "max", "value")
    every = [((name, *(m.get(stat, "") for stat in stats)), False) for name, m in outcome.metrics.items()]
    curves = {
        name.removesuffix("_ms"): [(value, 100 * share) for value, share in results.histogram(name).curve()]
        for name in (*CURVES, *MORE_CURVES)
    }
    wrong = f"<pre>{escape(chr(10).join(results.wrong))}</pre>" if results.wrong else ""
    drawn = [
        lines("How long it took", Axis("ms", log=True), Axis("% of all took no longer"), curves),
        lines("Over the run", Axis("second"), Axis("ms", log=True), _timelines(outcome)),
        lines("Processor", Axis("second"), Axis("% of a core"), _samples(outcome, memory=False)),
        lines("Memory", Axis("second"), Axis("MB"), _samples(outcome, memory=True)),
    ]
    about = f"<p>{outcome.run.seconds:g} s, load average {outcome.load_average:.1f}.</p>"
    return f"<h2>{title(outcome)}</h2>{about}{wrong}{report.plots(*drawn)}{report.table(('metric', *stats), every)}"


def _timelines(outcome: "Outcome") -> dict[str, list[Point]]:
    shown = {}
    for metric in ("token_lag_ms", "first_token_ms", "caught_up_ms", "stop_ms"):
        for percent in (50, 99):
            points = outcome.results.timeline(metric, percent)
            shown[f"{metric.removesuffix('_ms')} p{percent}"] = [(s - outcome.began, value) for s, value in points]
    return shown


def _samples(outcome: "Outcome", *, memory: bool) -> dict[str, list[Point]]:
    shown: dict[str, list[Point]] = {}
    for at, values in outcome.samples:
        for name, value in values.items():
            if name.endswith(" MB") == memory:
                shown.setdefault(name.removesuffix(" MB"), []).append((at - outcome.began, value))
    return dict(sorted(shown.items()))


def _data(outcome: "Outcome") -> dict[str, Any]:
    return {
        "scenario": outcome.run.scenario,
        "users": outcome.run.users,
        "seconds": outcome.run.seconds,
        "load_average": outcome.load_average,
        "valid": outcome.valid,
        "metrics": outcome.metrics,
        "limits": [{**row._asdict(), "kept": row.kept} for row in [*outcome.rows, *outcome.generator]],
        "wrong": outcome.results.wrong,
    }
