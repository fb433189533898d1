"""Latencies, counted in buckets of 1 %, so that those of several seconds, workers and runs can be added up."""

import math
from collections import Counter
from collections.abc import Iterable

SMALLEST_MS = 0.001
STEP = math.log(1.01)


class Histogram:
    """Values are in milliseconds; what is read back is within 1 % of what was added, above SMALLEST_MS."""

    def __init__(self, buckets: Iterable[tuple[int, int]] = ()) -> None:
        self.buckets: Counter[int] = Counter(dict(buckets))

    def add(self, value: float) -> None:
        self.buckets[round(math.log(max(value, SMALLEST_MS) / SMALLEST_MS) / STEP)] += 1

    def merge(self, other: "Histogram") -> None:
        self.buckets.update(other.buckets)

    @property
    def count(self) -> int:
        return self.buckets.total()

    def percentile(self, percent: float) -> float:
        """The smallest value that `percent` of the values do not exceed; nan when there is none."""
        wanted, seen = math.ceil(self.count * percent / 100), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return SMALLEST_MS * math.exp(bucket * STEP)
        return math.nan

    def curve(self) -> list[tuple[float, float]]:
        """(value, share of the values that do not exceed it), rising."""
        points, seen = [], 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            points.append((SMALLEST_MS * math.exp(bucket * STEP), seen / self.count))
        return points

    def summary(self) -> dict[str, float]:
        if not self.count:
            return {"count": 0}
        percentiles = {f"p{percent}": round(self.percentile(percent), 3) for percent in (50, 95, 99)}
        return {"count": self.count, **percentiles, "max": round(self.percentile(100), 3)}
