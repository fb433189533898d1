import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.citations import MarkerFilter, citations

SOURCES = [{"id": "a#1"}, {"id": "b#1"}]


def filtered(*pieces: str, count: int = 2) -> str:
    markers = MarkerFilter(count)
    return "".join([*map(markers.feed, pieces), markers.rest()])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Iron [1] helps [2].", "Iron [1] helps [2]."),
        ("Iron [3] helps.", "Iron helps."),
        ("Iron [1, 3] helps.", "Iron [1] helps."),
        ("Iron [2,1].", "Iron [2][1]."),
        ("See [the leaflet] and [0].", "See [the leaflet] and."),
        ("An open [1", "An open [1"),
        ("Twice [[2]] and [ 1", "Twice [[2]] and [ 1"),
        ("", ""),
    ],
)
def test_markers_beyond_the_sources_are_dropped(said: str, shown: str) -> None:
    assert filtered(said) == shown
    assert filtered(*said) == shown


@given(st.text(alphabet="ab [],12 9\n."), st.integers(1, 5))
def test_how_the_text_is_cut_makes_no_difference(text: str, size: int) -> None:
    assert filtered(*(text[i : i + size] for i in range(0, len(text), size))) == filtered(text)


@given(st.text(alphabet="abc .\n[x"))
def test_text_without_markers_passes_unchanged(text: str) -> None:
    assert filtered(text) == text


def test_citations_name_each_source_once_in_the_order_of_the_text() -> None:
    assert citations("b [2] a [1] b again [2][2], none [7]", SOURCES) == [
        {"number": 2, "source_id": "b#1"},
        {"number": 1, "source_id": "a#1"},
    ]
