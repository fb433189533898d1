"""All passages are compared at once; here each sentence by itself, as the decision record has it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from graph.retrieval.embed import DIMENSIONS, Encoded, unit
from graph.retrieval.rerank import MAXSIM_WEIGHT, asked, rank
from graph.retrieval.tokens import unpack

random = np.random.default_rng(0)
QUESTION = Encoded(
    unit(random.normal(size=DIMENSIONS).astype(np.float32)),
    unit(random.normal(size=(7, DIMENSIONS)).astype(np.float32)),
    [101, 2054, 2003, 26316, 9765, 1029, 102],
    [6],
)


def stored(number: int, *pieces: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A passage as it was found and as it is stored; `pieces` of its heading and of each sentence."""
    ends = np.cumsum(pieces).tolist()
    packed = random.integers(-60, 60, (ends[-1], 64)).astype(np.int8).tobytes()
    found = {"document_id": "d", "ordinal": number, "id": f"d#{number}", "score": 0.5}
    found |= dict.fromkeys(("title", "url", "text"), "")
    sentences = [f"{number}.{n}" for n in range(len(pieces) - 1)]
    return found, {"tokens": packed, "token_ends": ends, "sentences": sentences}


PASSAGES = [stored(1, 5, 9, 4), stored(2, 3, 12, 0, 0), stored(3, 1, 1), stored(4, 0, 7, 0, 6), stored(5, 6, 0)]


def alone(row: dict[str, Any]) -> tuple[float, list[float]]:
    question, tokens = asked(QUESTION), unpack(row["tokens"])
    likeness = tokens @ question.tokens.T
    scores = []
    for start, end in pairwise(row["token_ends"]):
        if start == end:
            scores.append(0.0)
            continue
        whole = unit(tokens[start:end].mean(axis=0)) @ question.vector
        scores.append(float(whole + likeness[start:end].max(axis=0) @ question.weights) / 2)
    return float(likeness.max(axis=0) @ question.weights), scores


@pytest.mark.parametrize("count", [1, 3, 5])
def test_passages_that_are_compared_together_score_as_each_does_alone(count: int) -> None:
    rows = {("d", found["ordinal"]): row for found, row in PASSAGES}
    ranked = rank(QUESTION, [found for found, _ in PASSAGES], rows, count, {})
    expected = {found["id"]: alone(row) for found, row in PASSAGES}
    score = {number: (1 - MAXSIM_WEIGHT) * 0.5 + MAXSIM_WEIGHT * expected[number][0] for number in expected}
    best = sorted(expected, key=lambda number: -score[number])[:count]
    assert [source["id"] for source in ranked.sources] == best
    assert [source["score"] for source in ranked.sources] == pytest.approx([score[n] for n in best], abs=1e-4)
    assert [said["score"] for said in ranked.evidence] == pytest.approx(
        [value for number in best for value in expected[number][1]], abs=1e-4
    )


def test_a_passage_that_was_deleted_since_the_search_is_left_out() -> None:
    (first, row), (second, _), *_ = PASSAGES
    ranked = rank(QUESTION, [first, second], {("d", 1): row}, 6, {})
    assert [source["id"] for source in ranked.sources] == ["d#1"]
    assert rank(QUESTION, [first], {}, 6, {}).fit is None
