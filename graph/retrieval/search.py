"""Finds candidate passages: by meaning and by words at once, in one statement."""

import struct
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Literal
from psycopg_pool import AsyncConnectionPool

from graph.retrieval.embed import Embedder, Vectors
from graph.retrieval.queries import query
from graph.retrieval.reading import read_again
from graph.retrieval.spelling import Spelling, strange

CANDIDATES = 24
LEG = 40
EF_SEARCH = 64
RARE_WORDS = 12
POSTINGS = 2_500  # read for a question, about
DENSE_WEIGHT = 1.0
LEXICAL_WEIGHT = 0.5
RANK_CONSTANT = 60
DUPLICATE_OVERLAP = 0.85
DUPLICATE_SCORES_DIFFER = 0.02


class HalfVector(bytes):
    """Its numbers, two bytes each, in the order of the wire: pgvector need not read them from a text."""


class HalfVectorDumper(Dumper):
    """Of no type for Postgres, which takes it for what it is cast to."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: HalfVector) -> bytes:
        return struct.pack(">hh", len(obj) // 2, 0) + obj


psycopg.adapters.register_dumper(HalfVector, HalfVectorDumper)


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
        self._weights = dense_weight, lexical_weight

    async def __call__(self, question: str) -> Found:
        """Few words are misspelt: the question is searched as it stands, and once more when the library does not know a
        word of it that can be read as another."""
        question = question.replace("\x00", " ")
        found, unknown = await self._read_as(question, strange(question))
        read = await self._spelling.mended(question, unknown) if unknown else question
        if read != question:
            found, _ = await self._read_as(read, [])
        return found._replace(read_as=read)

    async def _read_as(self, question: str, words: list[str]) -> tuple[Found, list[str]]:
        """Also those of the words that no passage has."""
        vector = await self._embedder.embed_question(question)
        said = {"question": question, "vector": HalfVector(vector.astype(">f2").tobytes())}
        rows, unknown = await read_again(lambda: self._rows(said, vector.size, words))
        return await self._found(rows), unknown

    async def _rows(self, said: dict[str, Any], dimensions: int, words: list[str]) -> tuple[list[DictRow], list[str]]:
        """There and back once. Until the pipeline ends, its statements are one transaction."""
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as prepared,
            connection.cursor(row_factory=dict_row) as searched,
        ):
            try:
                async with connection.pipeline():
                    await prepared.execute(query("prepare_search"), {"ef_search": str(EF_SEARCH), "words": words})
                    await searched.execute(statement(dimensions, *self._weights), said)
            except psycopg.DataError:  # vectors of another dimension
                self._check((await prepared.fetchall())[0], dimensions)
                raise
            there = (await prepared.fetchall())[0]
            self._check(there, dimensions)
            return await searched.fetchall(), there["unknown"]

    async def _found(self, rows: list[DictRow]) -> Found:
        if rows:
            return Found(without_duplicates([_passage(row) for row in rows], CANDIDATES))
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query("library_is_empty"))
            return Found([], library_empty=(await cursor.fetchall())[0]["empty"])

    def _check(self, there: DictRow, dimensions: int) -> None:
        """Before the first ingest there is no encoder."""
        if there["encoder"] and (there["encoder"], there["dimensions"]) != (self._embedder.name, dimensions):
            raise ForeignEncoder(there["encoder"], self._embedder.name)


@cache
def statement(dimensions: int, dense_weight: float, lexical_weight: float) -> bytes:
    """With its numbers written into it: a plan that must serve any limit is a bad one for these."""
    numbers = {
        "dimensions": dimensions,
        "leg": LEG,
        "rare_words": RARE_WORDS,
        "postings": POSTINGS,
        "dense_weight": dense_weight,
        "lexical_weight": lexical_weight,
        "rank_constant": RANK_CONSTANT,
    }
    return SQL(query("search")).format(**{name: Literal(number) for name, number in numbers.items()}).as_bytes(None)


def _passage(row: dict[str, Any]) -> dict[str, Any]:
    heading = f": {row['heading']}" if row["heading"] else ""
    return {
        "id": f"{row['document_id']}#{row['ordinal']}",
        "document_id": row["document_id"],
        "ordinal": row["ordinal"],
        "title": row["title"] + heading,
        "url": row["url"],
        "score": round(row["cosine"], 4),
        "text": row["text"],
    }


def without_duplicates(passages: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first of them; of those that say the same in nearly the same words, one. Such passages have nearly one score,
    so that few pairs need a closer look."""
    kept: list[tuple[dict[str, Any], frozenset[str]]] = []
    for passage in passages:
        if len(kept) == most:
            break
        words = frozenset(passage["text"].lower().split())
        near = (other for one, other in kept if abs(one["score"] - passage["score"]) < DUPLICATE_SCORES_DIFFER)
        if not any(_alike(words, other) for other in near):
            kept.append((passage, words))
    return [passage for passage, _ in kept]


def _alike(some: frozenset[str], others: frozenset[str]) -> bool:
    """Whether of all words of both, both have nearly all; which they can't when one has many fewer."""
    fewer, more = sorted((len(some), len(others)))
    if fewer < DUPLICATE_OVERLAP * more:
        return False
    shared = len(some & others)
    return shared >= DUPLICATE_OVERLAP * max(1, fewer + more - shared)


def literal(vector: Vectors) -> str:
    """As pgvector reads it."""
    return "[" + ",".join(f"{number:.6g}" for number in vector.tolist()) + "]"
