import pytest

from graph.retrieval.spelling import MEDICINE, slips

TITLES = ["symptoms", "shingles", "fevers", "levers", "clonazepam", "prednisolone"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("simptoms", "symptoms"),
        ("symtoms", "symptoms"),
        ("shingels", "shingles"),
        ("simptms", None),
        ("fivers", "fevers"),
        ("clonazepan", None),
        ("prednisolon", None),
    ],
)
def test_a_word_is_mended_by_one_letter_and_never_into_a_medicine(word: str, meant: str | None) -> None:
    assert slips([word], TITLES).get(word) == meant


def test_a_word_that_may_mean_two_is_left_as_it_is() -> None:
    assert slips(["fevres"], ["fevers", "fevre"]) == {}


def test_nothing_is_mended_into_what_would_be_two_words_here() -> None:
    """Postgres counts a combining mark among the letters, Python does not."""
    assert slips(["fevexrs"], ["feve\u0301rs"]) == {}


def test_a_question_is_mended_wholly_or_not_at_all() -> None:
    assert slips(["simptoms", "shingels"], TITLES) == {"simptoms": "symptoms", "shingels": "shingles"}
    assert slips(["simptoms", "meisles"], TITLES) == {}


@pytest.mark.parametrize("word", ["disease", "anaemia", "medicine", "vaccine", "kidney", "vitamin", "wine", "machine"])
def test_no_illness_is_taken_for_a_medicine(word: str) -> None:
    assert not MEDICINE.fullmatch(word)
