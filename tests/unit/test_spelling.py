import pytest

from graph.retrieval.spelling import ASKING, MEDICINE, Kind, slips, strange

KNOWN: dict[str, Kind] = {
    "symptoms": "asks",
    "shingles": "names",
    "fevers": "names",
    "levers": "names",
    "worsening": "says",
    "clonazepam": "names",
    "prednisolone": "says",
    "arnica": "medicine",
}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("simptoms", "symptoms"),
        ("symtoms", "symptoms"),
        ("shingels", "shingles"),
        ("simptms", None),
        ("fivers", "fevers"),
        ("worsenning", "worsening"),
        ("clonazepan", None),
        ("prednisolon", None),
        ("arnicca", None),
    ],
)
def test_a_word_is_mended_by_one_letter_and_never_into_a_medicine(word: str, meant: str | None) -> None:
    assert slips([word], KNOWN).get(word) == meant


def test_a_word_that_may_mean_two_is_left_as_it_is() -> None:
    assert slips(["fevres"], {"fevers": "names", "fevre": "names"}) == {}
    assert slips(["arnicas"], {"arnica": "medicine", "arnicals": "says"}) == {}


def test_nothing_is_mended_into_what_would_be_two_words_here() -> None:
    """Postgres counts a combining mark among the letters, Python does not."""
    assert slips(["fevexrs"], {"feve\u0301rs": "names"}) == {}


def test_beside_a_word_that_stays_strange_only_the_name_of_a_subject_is_mended() -> None:
    """Or the rest would be about the symptoms of anything."""
    assert slips(["simptoms", "shingels"], KNOWN) == {"simptoms": "symptoms", "shingels": "shingles"}
    assert slips(["simptoms", "meisles"], KNOWN) == {}
    assert slips(["worsenning", "meisles"], KNOWN) == {}
    assert slips(["simptoms", "shingels", "grandaughterr"], KNOWN) == {"shingels": "shingles"}
    assert slips(["shingels", "clonazepan"], KNOWN) == {"shingels": "shingles"}


def test_a_word_that_people_ask_with_is_known_though_no_article_has_it() -> None:
    asking: dict[str, Kind] = dict.fromkeys(ASKING, "asks")
    assert slips(["contageous"], asking) == {"contageous": "contagious"}
    assert slips(["contagious", "simptoms"], {**asking, **KNOWN}) == {
        "contagious": "contagious",
        "simptoms": "symptoms",
    }
    assert not any(MEDICINE.fullmatch(word) for word in ASKING)


def test_only_what_the_encoder_does_not_know_may_be_misspelt() -> None:
    assert strange("What are the Simptoms of contagious fevers?") == ["contagious", "fevers", "simptoms"]


@pytest.mark.parametrize("word", ["disease", "anaemia", "medicine", "vaccine", "kidney", "vitamin", "wine", "machine"])
def test_no_illness_is_taken_for_a_medicine(word: str) -> None:
    assert not MEDICINE.fullmatch(word)


@pytest.mark.parametrize(
    "word", ["methadone", "ketamine", "tramadol", "fentanyl", "warfarin", "digitalis", "amiodarone"]
)
def test_a_medicine_whose_name_has_no_common_stem_is_known(word: str) -> None:
    assert MEDICINE.fullmatch(word)
