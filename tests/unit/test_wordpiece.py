import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.retrieval.wordpiece import piece_ids, vocabulary, words

# As the package `tokenizers` 0.23 reads the model's own tokenizer.json.
GOLDEN = [
    ("What are the symptoms of iron deficiency?", [101, 2054, 2024, 1996, 8030, 1997, 3707, 18888, 1029, 102]),
    ("Héllo WÖRLD, naïve café", [101, 7592, 2088, 1010, 15743, 7668, 102]),
    (
        "don't take 1,200 mg (or 38.5 °C)",
        [101, 2123, 1005, 1056, 2202, 1015, 1010, 3263, 11460, 1006, 2030, 4229, 1012, 1019, 6362, 1007, 102],
    ),
    (
        "hyperparathyroidism & \xb5g/dL",
        [101, 23760, 28689, 16921, 22943, 2964, 1004, 1085, 2290, 1013, 21469, 102],
    ),
    ("中文 and 日本", [101, 1746, 1861, 1998, 1864, 1876, 102]),
    ("a\tb\xa0c\u200bd\x00e", [101, 1037, 1038, 3729, 2063, 102]),
    ("☃ " + "x" * 101, [101, 100, 100, 102]),
    ("", [101, 102]),
]


@pytest.mark.parametrize(("text", "ids"), GOLDEN)
def test_pieces_are_those_of_the_model(text: str, ids: list[int]) -> None:
    assert piece_ids([text], 256)[0] == ids


def test_parts_read_as_one_text_and_their_ends_are_known() -> None:
    ids, ends = piece_ids(["Gout. Symptoms.", "Sudden pain.", "It hurts."], 256)
    assert ids == piece_ids(["Gout. Symptoms. Sudden pain. It hurts."], 256)[0]
    assert ids[ends[0] : ends[1]] == piece_ids(["Sudden pain."], 256)[0][1:-1]
    assert ends[-1] == len(ids) - 1


def test_what_is_too_long_is_cut_at_its_end() -> None:
    ids, ends = piece_ids(["one two three", "four five six"], 6)
    assert ids == [101, 2028, 2048, 2093, 2176, 102]
    assert ends == [4, 5]


@given(st.text())
def test_any_text_has_pieces(text: str) -> None:
    ids, _ = piece_ids([text], 64)
    assert len(ids) <= 64
    assert all(0 <= number < len(vocabulary()) for number in ids)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_cut_the_short_way_as_any_other(text: str) -> None:
    assert list(words(text)) == list(words(f"{text} \u2603"))[:-1]
