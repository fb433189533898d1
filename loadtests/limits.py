"""`slo.toml` and the verdict: which limit a run kept, which it missed, and whether the run itself can be believed."""

import math
import tomllib
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

SLO = Path(__file__).parent / "slo.toml"
BOUNDS = ("most", "least")
HARD = ("violations", "failed")  # what was seen lost stays lost, however busy the generator was

Limits = dict[str, dict[str, Any]]
Metrics = dict[str, dict[str, float]]  # metric → p50, p95, p99, max, count; of a count or a share only `value`


class Verdict(IntEnum):
    """The exit status."""

    PASSED = 0
    MISSED = 1
    SCRIPT_ERROR = 2
    INVALID = 3


class Row(NamedTuple):
    scenario: str
    metric: str
    stat: str
    limit: float
    found: float

    @property
    def kept(self) -> bool:
        """What was not measured is not kept."""
        if math.isnan(self.found):
            return False
        return self.found >= self.limit if self.stat == "least" else self.found <= self.limit


def load(path: Path = SLO) -> Limits:
    return tomllib.loads(path.read_text())


def good_turn(path: Path = SLO) -> dict[str, float]:
    return {name: float(value) for name, value in load(path)["good_turn"].items()}


def sized(scenario: str, users: int) -> str:
    return f"{scenario}, {users} people"


def compare(limits: Limits, scenario: str, users: int, metrics: Metrics) -> list[Row]:
    """The limits of this scenario, those for so many people before its others, beside what was found."""
    sections = ("every", scenario, sized(scenario, users))
    return _rows(scenario, {k: v for section in sections for k, v in limits.get(section, {}).items()}, metrics)


def compare_generator(limits: Limits, scenario: str, metrics: Metrics) -> list[Row]:
    """What the load generator itself had to keep."""
    wanted = {f"generator_{metric}": stats for metric, stats in limits.get("generator", {}).items()}
    return _rows(scenario, wanted, metrics)


def _rows(scenario: str, wanted: dict[str, Any], metrics: Metrics) -> list[Row]:
    return [
        Row(scenario, metric, stat, limit, metrics.get(metric, {}).get("value" if stat in BOUNDS else stat, math.nan))
        for metric, stats in wanted.items()
        for stat, limit in stats.items()
    ]


def whole(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several runs: one that missed a limit is not hidden by another that cannot be believed."""
    found = set(verdicts)
    return next((v for v in (Verdict.MISSED, Verdict.INVALID) if v in found), Verdict.PASSED)


def verdict(rows: list[Row], generator: list[Row]) -> Verdict:
    """Of one run. One that measured itself is invalid, unless it saw something that no correct server does."""
    missed = [row for row in rows if not row.kept]
    if any(row.metric in HARD for row in missed):
        return Verdict.MISSED
    if not all(row.kept for row in generator):
        return Verdict.INVALID
    return Verdict.MISSED if missed else Verdict.PASSED
