from typing import Any

import psycopg
import pytest

from graph.retrieval.reading import read_again
from graph.retrieval.search import without_duplicates


def found(number: int, text: str, score: float = 0.5) -> dict[str, Any]:
    return {"id": number, "text": text, "score": score}


WORDS = "gout is a kind of arthritis that comes in sudden attacks of severe pain mostly in the big toe at night"


@pytest.mark.parametrize(
    ("text", "score", "kept"),
    [
        (WORDS, 0.5, [1]),
        (f"{WORDS} indeed", 0.51, [1]),
        (WORDS.replace("gout", "it"), 0.5, [1]),
        (WORDS, 0.6, [1, 2]),  # they can't say the same
        (WORDS[: len(WORDS) // 2], 0.5, [1, 2]),
        (f"{WORDS} {WORDS.replace('a', 'o')}", 0.5, [1, 2]),
        ("asthma narrows the airways", 0.5, [1, 2]),
        ("", 0.5, [1, 2]),
    ],
)
def test_of_passages_that_say_the_same_the_first_stays(text: str, score: float, kept: list[int]) -> None:
    assert [one["id"] for one in without_duplicates([found(1, WORDS), found(2, text, score)], 9)] == kept


def test_no_more_passages_are_read_than_are_kept() -> None:
    broken: Any = {"id": 4}
    passages = [found(1, "one"), found(2, "one"), found(3, "three"), broken]
    assert [one["id"] for one in without_duplicates(passages, 2)] == [1, 3]


async def test_a_wrong_statement_in_a_pipeline_is_not_read_again_as_if_the_database_were_away() -> None:
    async def read() -> None:
        raise psycopg.errors.PipelineAborted

    with pytest.raises(psycopg.errors.PipelineAborted):
        await read_again(read)
