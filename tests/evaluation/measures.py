"""Measures of a ranking, and how sure they are. Pure."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
Measure = Callable[[Sequence[str], frozenset[str]], float]


class Estimate(NamedTuple):
    """A mean with its 95 % confidence interval, by bootstrap over the questions."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def recall_at_5(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    """Of the relevant ones that have room in five."""
    return len(relevant & set(ranked[:5])) / min(5, len(relevant))


def mrr_at_10(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    return next((1 / place for place, one in enumerate(ranked[:10], start=1) if one in relevant), 0.0)


def ndcg_at_10(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    gains = [1 / math.log2(place + 1) for place in range(1, 11)]
    found = sum(gain for gain, one in zip(gains, ranked, strict=False) if one in relevant)
    return found / sum(gains[: len(relevant)])


MEASURES: dict[str, Measure] = {"recall@5": recall_at_5, "MRR@10": mrr_at_10, "nDCG@10": ndcg_at_10}


def estimate(values: Sequence[float]) -> Estimate:
    """Of paired differences too: their interval says whether two systems really differ."""
    given = np.array(values, dtype=float)
    picks = np.random.default_rng(0).integers(0, len(given), (RESAMPLES, len(given)))
    low, high = np.quantile(given[picks].mean(axis=1), (0.025, 0.975))
    return Estimate(float(given.mean()), float(low), float(high))


def percentile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(np.array(values), share))
