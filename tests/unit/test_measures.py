import pytest

from tests.evaluation.measures import estimate, mrr_at_10, ndcg_at_10, recall_at_5

RANKED = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]


@pytest.mark.parametrize(
    ("relevant", "recall", "mrr", "ndcg"),
    [
        ({"a"}, 1, 1, 1),
        ({"b"}, 1, 1 / 2, 0.6309),
        ({"a", "c"}, 1, 1, 0.9197),
        ({"f"}, 0, 1 / 6, 0.3562),
        ({"k"}, 0, 0, 0),
        (set("abcdefghijk"), 1, 1, 1),
    ],
)
def test_measures_are_as_in_the_literature(relevant: set[str], recall: float, mrr: float, ndcg: float) -> None:
    wanted = frozenset(relevant)
    assert recall_at_5(RANKED, wanted) == pytest.approx(recall)
    assert mrr_at_10(RANKED, wanted) == pytest.approx(mrr)
    assert ndcg_at_10(RANKED, wanted) == pytest.approx(ndcg, abs=1e-4)


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few, many = estimate([0.0, 1.0] * 10), estimate([0.0, 1.0] * 1000)
    assert few.low < few.mean == 0.5 < few.high
    assert many.high - many.low < (few.high - few.low) / 5
