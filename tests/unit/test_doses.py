import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.doses import NOT_SAID, Amount, DoseFilter, amounts
from graph.retrieval.ingest import STARTER
from tests.evaluation.doses import passages, quotations

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
        ("Take approx. 500 mg [1].", "Take approx. 500 mg [1]."),
        ("Take 500 mg. It helps [1].", f"Take {NOT_SAID}. It helps [1]."),
        ("Take three tablets every 2 hours [2]!", f"Take {NOT_SAID} [2]!"),
        ("Take 500–750 mg [1].", f"Take {NOT_SAID} [1]."),
        ("Take it twice a day [1].", f"Take it {NOT_SAID} [1]."),
        ("Take 500mg [1] or 800mg [1].", f"Take {NOT_SAID} [1]."),
        ("- 5 ml\n- rest", f"- {NOT_SAID}\n- rest"),
        ("Take **400** mg or `600 mg` [1].", f"Take {NOT_SAID} [1]."),
        ("Take **400 mg** [1].", f"Take {NOT_SAID} [1]."),
        ("**Take 400 mg** [1].", f"**Take {NOT_SAID}** [1]."),
        ("Take **500 mg** [1].", "Take **500 mg** [1]."),
        ("A fever of 39 °C for 3 days, on one side.", "A fever of 39 °C for 3 days, on one side."),
        ("It helps 90% of people.", "It helps 90% of people."),
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


TABLETS = "Take one or two 500 mg tablets up to four times a day. No more than eight 500 mg tablets (4 g) in 24 hours."


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("Digoxin is given as 0.125 mg tablets.", "Take 125 mg"),
        ("Take 0.250 mg once a day.", "Take 250 mg once a day"),
        ("Take 1.000 mg once a day.", "Take 1 mg once a day"),
        (TABLETS, "Take three 500 mg tablets"),
        (TABLETS, "Take 8 x 500 mg at once"),
        (TABLETS, "Take eight 500 mg tablets four times a day"),
        ("Adults take 500 mg.", "Take 500 mg six times in 24 hours"),
        ("Take 10 mg per kg of body weight.", "Take 10 mg"),
        ("Take 10 mg to 15 mg/kg.", "Take 10 mg"),
        ("Do not take more than 4000 mg a day.", "Take 4000 mg every hour"),
        ("Do not take more than 4000 mg a day.", "Take 4000 mg"),
        ("Take 500 mg once a week.", "Take 500 mg once a day"),
        ("Take 5 mg for 3 days.", "Take 5 mg for 30 days"),
        ("Take 5 mg.", "Take .5 mg"),
        ("Take 20 mg.", "Take **80** mg"),
        ("Take 20 mg.", "Take _80_ mg"),
        ("Take 20 mg.", "Take <b>80</b>&nbsp;mg"),
        ("Take 20 mg.", "Take 80 (eighty) mg"),
        ("Take 20 mg.", "Toma 80 miligramos"),
        ("Take two tablets.", "Take half a tablet"),
        ("Take two tablets.", "Take two and a half tablets"),
        ("Take two tablets.", "Take eight paracetamol tablets"),
        ("Take two tablets.", "Take a dozen tablets"),
        ("Take six mg.", "Take sixty mg"),
        ("Take 20 mg.", "Take twenty-five mg"),
        ("Take 200 mg.", "Take two hundred and fifty mg"),
        ("Use a 1% cream.", "Use a 10% cream"),
    ],
)
def test_a_dose_that_the_source_does_not_give_is_not_said(source: str, said: str) -> None:
    doses = DoseFilter([source])
    assert NOT_SAID in doses.feed(f"{said} [1].") + doses.rest()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (TABLETS, "Adults can take two 500 mg tablets four times daily"),
        (TABLETS, "No more than **eight 500 mg tablets** (4 g) within 24 hours"),
        ("Take 0.125 mg.", "Take 125 micrograms"),
        ("Take 0.5 g.", "Take .5 g, which is 500 mg"),
        ("Take 10 mg per kg of body weight.", "Give 10 mg/kg"),
        ("The maximum daily dose is 4,000 mg.", "Take no more than 4 g a day"),
        ("Take half a tablet in the morning.", "Take ½ tablet"),
        ("Take 2 tablets daily for 7 days.", "For seven days take two tablets a day"),
        ("Take sixty mg every 4 to 6 hours.", "Every 4-6 hours, take 60 mg"),
        ("Children aged 12 years take 5 ml twice a day.", "From 12 on: 5 ml two times per day"),
        ("Rest.", "Of one in three people the fever is 39 °C for 3 days"),
    ],
)
def test_a_dose_that_the_source_gives_in_other_words_is_said(source: str, said: str) -> None:
    doses = DoseFilter([source])
    assert doses.feed(f"{said} [1].") + doses.rest() == f"{said} [1]."


def test_whatever_the_starter_articles_say_can_be_quoted() -> None:
    """`python -m tests.evaluation.doses` tries it on any corpus."""
    quoted = [one for file in STARTER.glob("*.md") for passage in passages(file) for one in quotations(passage)]
    assert sum(one.has_dose for one in quoted) > 10
    assert not [one for one in quoted if one.said != one.shown]


def test_amounts_are_compared_in_one_unit() -> None:
    gram = Amount(1000.0, "mg")
    assert amounts("1 g") == amounts("1000 mg") == amounts("1,000 milligrams") == {gram}
    assert amounts("10 µg or 20 micrograms") == {Amount(0.01, "mg"), Amount(0.02, "mg")}
    assert amounts("five to ten drops") == {Amount(5.0, "drop"), Amount(10.0, "drop")}
    assert amounts("10 to 15 mg per kg a day") == {Amount(n, "mg", frozenset({"kg", "day"})) for n in (10.0, 15.0)}
    assert not any(amount.is_dose for amount in amounts("5 mg/ml, page 3, [4]"))
