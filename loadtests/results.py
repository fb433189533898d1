"""What a load generator found: latencies by metric and second, counts, and what was wrong, in words."""

import time
from collections import Counter, defaultdict
from typing import Any

from loadtests.histogram import Histogram

WRONG_MAX = 20  # sentences that are kept; all are counted


class Results:
    """Several can be added up, in any order: those of Locust's workers are."""

    def __init__(self) -> None:
        self.latencies: dict[str, dict[int, Histogram]] = defaultdict(lambda: defaultdict(Histogram))
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, metric: str, *milliseconds: float) -> None:
        histogram = self.latencies[metric][int(time.time())]
        for value in milliseconds:
            histogram.add(value)

    def note(self, kind: str, sentence: str) -> None:
        """`kind` is a count; the sentence says what happened."""
        self.counts[kind] += 1
        if len(self.wrong) < WRONG_MAX:
            self.wrong.append(sentence)

    def histogram(self, metric: str) -> Histogram:
        total = Histogram()
        for histogram in self.latencies.get(metric, {}).values():
            total.merge(histogram)
        return total

    def timeline(self, metric: str, percent: float) -> list[tuple[int, float]]:
        """(second since 1970, percentile of that second)."""
        seconds = self.latencies.get(metric, {})
        return [(second, seconds[second].percentile(percent)) for second in sorted(seconds) if seconds[second].count]

    def dump(self) -> dict[str, Any]:
        """Lists and numbers only, for JSON and for Locust's own wire."""
        return {
            "latencies": {
                metric: [[second, list(map(list, histogram.buckets.items()))] for second, histogram in seconds.items()]
                for metric, seconds in self.latencies.items()
            },
            "counts": dict(self.counts),
            "wrong": self.wrong,
        }

    def merge(self, dumped: dict[str, Any]) -> None:
        for metric, seconds in dumped["latencies"].items():
            for second, buckets in seconds:
                self.latencies[metric][second].merge(Histogram((bucket, n) for bucket, n in buckets))
        self.counts.update(dumped["counts"])
        self.wrong = [*self.wrong, *dumped["wrong"]][:WRONG_MAX]

    def clear(self) -> None:
        self.latencies.clear()
        self.counts.clear()
        self.wrong = []
