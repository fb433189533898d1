import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.doses import NOT_SAID, DoseFilter, amounts

SOURCES = [
    "Adults may take 500 mg to 1 g every 4 to 6 hours, at most four doses a day.",
    "The usual dose is two tablets.",
]


def filtered(*pieces: str) -> str:
    doses = DoseFilter(SOURCES)
    return "".join([*map(doses.feed, pieces), doses.rest()])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Take 500 mg. [1] Then rest.", "Take 500 mg. [1] Then rest."),
        ("Take 500 mg [1]. Then rest.", "Take 500 mg [1]. Then rest."),
        ("Take 1000 mg every 4 hours [1].", "Take 1000 mg every 4 hours [1]."),
        ("Take 1,000 mg [1].", "Take 1,000 mg [1]."),
        ("Take 0.5 g [1].", "Take 0.5 g [1]."),
        ("Take 2 tablets [2].", "Take 2 tablets [2]."),
        ("Take 400 mg [1].", f"Take {NOT_SAID} [1]."),
        ("Take 500 mg [2].", f"Take {NOT_SAID} [2]."),
        ("Take 500 mg.", f"Take {NOT_SAID}."),
        ("Take 500 mg. It helps [1].", f"Take {NOT_SAID}. It helps [1]."),
        ("Take three tablets every 2 hours [2]!", f"Take {NOT_SAID} {NOT_SAID} [2]!"),
        ("Take 500–750 mg [1].", f"Take {NOT_SAID} [1]."),
        ("Take it twice a day [1].", f"Take it {NOT_SAID} [1]."),
        ("Take 500mg [1] or 800mg [1].", f"Take 500mg [1] or {NOT_SAID} [1]."),
        ("- 5 ml\n- rest", f"- {NOT_SAID}\n- rest"),
        ("A fever of 39 °C for 3 days, on one side.", "A fever of 39 °C for 3 days, on one side."),
        ("1. Rest.\n2. Drink.", "1. Rest.\n2. Drink."),
        ("", ""),
    ],
)
def test_an_amount_stands_only_beside_a_source_that_has_it(said: str, shown: str) -> None:
    assert filtered(said) == shown
    assert filtered(*said) == shown


@given(st.text(alphabet="ae 15mg.[]\n,two"), st.integers(1, 5))
def test_how_the_text_is_cut_makes_no_difference(text: str, size: int) -> None:
    assert filtered(*(text[i : i + size] for i in range(0, len(text), size))) == filtered(text)


def test_text_without_numbers_is_not_held_back() -> None:
    doses = DoseFilter(SOURCES)
    assert doses.feed("Drink enough and") == "Drink enough and"
    assert doses.feed(" rest") == " rest"


def test_amounts_are_compared_in_one_unit() -> None:
    assert amounts("1 g") == amounts("1000 mg") == amounts("1,000 milligrams") == {(1000.0, "mg")}
    assert amounts("10 µg or 20 micrograms") == {(0.01, "mg"), (0.02, "mg")}
    assert amounts("five to ten drops") == {(5.0, "drop"), (10.0, "drop")}
    assert amounts("5 mg/ml, page 3, [4]") == set()
