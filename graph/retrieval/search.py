"""Finds candidate passages: by meaning and by words at once, in one statement."""

import re
from typing import Any, NamedTuple

from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Literal
from psycopg_pool import AsyncConnectionPool

from graph.retrieval.embed import Embedder, Vectors
from graph.retrieval.queries import query
from graph.retrieval.reading import read_again
from graph.retrieval.spelling import Spelling

CANDIDATES = 24
LEG = 40
EF_SEARCH = 64
RARE_WORDS = 12
POSTINGS = 5_000  # read for a question, about
DENSE_WEIGHT = 1.0
LEXICAL_WEIGHT = 0.5
RANK_CONSTANT = 60
DUPLICATE_OVERLAP = 0.85
DUPLICATE_SCORES_DIFFER = 0.02


class ForeignEncoder(Exception):
    """The passages in this database were made by another encoder: their vectors can't be compared with a question's."""

    def __init__(self, there: str, here: str) -> None:
        super().__init__(
            f"the passages here were encoded by {there}, not by {here}: "
            "set PULSELINE_EMBEDDINGS back, or remove all documents and ingest them again"
        )


class Found(NamedTuple):
    """`passages`, best first: id, document_id, ordinal, title, url, score, text. `degraded`: what was left out.
    `library_empty`: nothing was found because there are no documents at all. `read_as`: the question with its
    misspelt words mended."""

    passages: list[dict[str, Any]]
    degraded: str | None = None
    library_empty: bool = False
    read_as: str = ""


class Search:
    """Every failure is raised, without passages there is nothing to answer from; but a database that is away is waited
    for."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        embedder: Embedder,
        dense_weight: float = DENSE_WEIGHT,
        lexical_weight: float = LEXICAL_WEIGHT,
    ) -> None:
        self._pool, self._embedder, self._spelling = pool, embedder, Spelling(pool)
        self._weights = {"dense_weight": dense_weight, "lexical_weight": lexical_weight}

    async def __call__(self, question: str) -> Found:
        question = question.replace("\x00", " ")
        read = await self._spelling.mended(question)
        vector = await self._embedder.embed_question(read)
        parameters = {
            "question": read,
            "vector": literal(vector),
            "leg": LEG,
            "rare_words": RARE_WORDS,
            "postings": POSTINGS,
            **self._weights,
            "rank_constant": RANK_CONSTANT,
        }
        found = await read_again(lambda: self._found(parameters, vector.size))
        return found._replace(read_as=read)

    async def _found(self, parameters: dict[str, Any], dimensions: int) -> Found:
        async with (
            self._pool.connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(query("prepare_search"), {"ef_search": str(EF_SEARCH)})
            self._check((await cursor.fetchall())[0], dimensions)
            await cursor.execute(SQL(query("search")).format(dimensions=Literal(dimensions)), parameters)
            rows = await cursor.fetchall()
            if not rows:
                await cursor.execute(query("library_is_empty"))
                return Found([], library_empty=(await cursor.fetchall())[0]["empty"])
            return Found(without_duplicates([_passage(row) for row in rows])[:CANDIDATES])

    def _check(self, there: DictRow, dimensions: int) -> None:
        """Before the first ingest there is no encoder."""
        if there["encoder"] and (there["encoder"], there["dimensions"]) != (self._embedder.name, dimensions):
            raise ForeignEncoder(there["encoder"], self._embedder.name)


def _passage(row: dict[str, Any]) -> dict[str, Any]:
    heading = f": {row['heading']}" if row["heading"] else ""
    return {
        "id": f"{row['document_id']}#{row['ordinal']}",
        "document_id": row["document_id"],
        "ordinal": row["ordinal"],
        "title": row["title"] + heading,
        "url": row["url"],
        "score": round(row["cosine"], 4),
        "text": " ".join(row["sentences"]),
    }


def without_duplicates(passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of passages that say the same in nearly the same words, the first stays. Such passages have nearly one score,
    so that few pairs need a closer look."""
    kept: list[tuple[dict[str, Any], frozenset[str]]] = []
    for passage in passages:
        words = frozenset(re.findall(r"\w+", passage["text"].lower()))
        near = (other for one, other in kept if abs(one["score"] - passage["score"]) < DUPLICATE_SCORES_DIFFER)
        if all(overlap(words, other) < DUPLICATE_OVERLAP for other in near):
            kept.append((passage, words))
    return [passage for passage, _ in kept]


def overlap(some: frozenset[str], others: frozenset[str]) -> float:
    """Of all words of both, the share that both have."""
    return len(some & others) / max(1, len(some | others))


def literal(vector: Vectors) -> str:
    """As pgvector reads it."""
    return "[" + ",".join(f"{number:.6g}" for number in vector.tolist()) + "]"
