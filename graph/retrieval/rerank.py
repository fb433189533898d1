"""Ranks candidates by comparing the question's word pieces with the passages' (MaxSim), from vectors stored at ingest.

The numbers come from the `tune` part of tests/support/questions.tsv and from MedQuAD: `make eval`.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice, pairwise
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from graph.retrieval.embed import Embedder, Encoded, Vectors, unit
from graph.retrieval.queries import query
from graph.retrieval.reading import read_again
from graph.retrieval.rerank_service import RerankService
from graph.retrieval.tokens import project, silent_pieces, unpack
from graph.retrieval.wordpiece import vocabulary

logger = logging.getLogger(__name__)
SOURCES = 6
MAXSIM_WEIGHT = 0.5  # the rest is the cosine of the whole passage
COMMON_WORD_WEIGHT = 0.3
TIMEOUT_SECONDS = 2
WITHOUT_SERVICE = "The sources are in the order of the built-in ranking: the reranking service cannot be used."
DEGRADED = "The sources are in the order of the search: reranking failed."
COMMON_WORDS = (
    *("what", "when", "how", "is", "are", "be", "do", "does", "can", "should", "the", "a", "an", "of", "to", "for"),
    *("in", "on", "with", "and", "if", "i", "my", "me", "you", "it"),
)


class Ranked(NamedTuple):
    """`sources`: dumps of events.Source, best first. `evidence`, of each of their sentences: source (counted from 1),
    order, text, score. `fit`: how well they answer, about 0 to 1. `degraded`: what was left out."""

    sources: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    fit: float | None
    degraded: str | None = None


class Compared(NamedTuple):
    """A passage against a question; `tokens` and `likeness` have a row for each of its word pieces, `likeness` has a
    column for each of the question's."""

    passage: dict[str, Any]
    row: dict[str, Any]
    tokens: Vectors
    likeness: Vectors
    maxsim: float

    @property
    def score(self) -> float:
        return float((1 - MAXSIM_WEIGHT) * self.passage["score"] + MAXSIM_WEIGHT * self.maxsim)


class Reranker:
    """Never fails: without token vectors the order of the search stays, and the answer says so."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        embedder: Embedder,
        count: int = SOURCES,
        service: RerankService | None = None,
    ) -> None:
        self._pool, self._embedder, self._count, self._service = pool, embedder, count, service

    async def warm_up(self) -> None:
        await self._embedder.warm_up()
        if self._service is not None:
            await self._service.test()

    async def __call__(self, question: str, passages: list[dict[str, Any]]) -> Ranked:
        if not passages:
            return Ranked([], [], None)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                encoded = await self._embedder.encode_question(question)
                rows = await read_again(lambda: self._token_rows(passages))
                order, degraded = await self._order(question, passages)
                # A millisecond: on the encoder's threads it would wait for all questions that are still to be read.
                return rank(encoded, passages, rows, self._count, order)._replace(degraded=degraded)
        except Exception:
            logger.exception("reranking failed")
            best = passages[: self._count]
            return Ranked([_source(passage, passage["score"]) for passage in best], [], _cosine_fit(best), DEGRADED)

    async def _order(self, question: str, passages: list[dict[str, Any]]) -> tuple[dict[str, float], str | None]:
        """The service's scores by passage; none without a service, and none with a reason when it fails."""
        if self._service is None:
            return {}, None
        if not await self._service.ready():
            return {}, WITHOUT_SERVICE
        try:
            scores = await self._service.scores(question, [f"{p['title']}\n{p['text']}" for p in passages])
        except (httpx.HTTPError, ValueError) as error:
            self._service.failed()
            logger.warning("the reranker failed: %s", type(error).__name__)
            return {}, WITHOUT_SERVICE
        return {p["id"]: score for p, score in zip(passages, scores, strict=True)}, None

    async def _token_rows(self, passages: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
        wanted = {"documents": [p["document_id"] for p in passages], "ordinals": [p["ordinal"] for p in passages]}
        async with (
            self._pool.connection() as connection,
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            await cursor.execute(query("token_rows"), wanted)
            return {(row["document_id"], row["ordinal"]): row for row in await cursor.fetchall()}


class Question(NamedTuple):
    """Reduced as the passages are: a row for each piece, how much each counts, and the whole as one vector."""

    tokens: Vectors
    weights: Vectors
    vector: Vectors


def asked(encoded: Encoded) -> Question:
    return Question(project(encoded.tokens), piece_weights(encoded.ids), project(encoded.vector))


def rank(
    encoded: Encoded,
    passages: list[dict[str, Any]],
    rows: dict[tuple[str, int], dict[str, Any]],
    count: int,
    order: Mapping[str, float],
) -> Ranked:
    """By `order` where it is given, else by MaxSim. A passage that was deleted since the search is left out."""
    there = [(p, rows[key]) for p in passages if (key := (p["document_id"], p["ordinal"])) in rows]
    if not there:
        return Ranked([], [], None)
    question = asked(encoded)
    compared = compare(question, there)
    best = sorted(compared, key=lambda one: -order.get(one.passage["id"], one.score))[:count]
    scores = sentence_scores(question, best)
    evidence = [
        {"source": number, "order": order, "text": text, "score": round(score, 4)}
        for number, (one, own) in enumerate(zip(best, scores, strict=True), start=1)
        for order, (text, score) in enumerate(zip(one.row["sentences"], own, strict=True))
    ]
    sources = [_source(one.passage, one.score) for one in best]
    return Ranked(sources, evidence, _fit(best[0], evidence))


def compare(question: Question, passages: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Compared]:
    """Each piece of the question finds its nearest piece in each passage. All passages in one product: a call of numpy
    costs more than what it computes here, and holds up all other Python."""
    packed = [row["tokens"] for _, row in passages]
    tokens = unpack(b"".join(packed))
    likeness = tokens @ question.tokens.T
    ends = np.cumsum([len(one) for one in packed]) // tokens.shape[1]
    maxsims = (_of_spans(np.maximum, likeness, ends) @ question.weights).tolist()
    return [
        Compared(passage, row, tokens[start:end], likeness[start:end], maxsim)
        for (passage, row), (start, end), maxsim in zip(passages, pairwise([0, *ends.tolist()]), maxsims, strict=True)
    ]


def sentence_scores(question: Question, best: Sequence[Compared]) -> list[list[float]]:
    """Of each one's sentences: compared as a whole, the mean of its pieces as the passage's context made them, and by
    piece. A sentence without pieces, beyond what was encoded, scores 0."""
    lengths = [len(one.row["token_ends"]) for one in best]  # the first is the heading's
    before = np.cumsum([0, *(len(one.tokens) for one in best[:-1])])
    ends = np.concatenate([one.row["token_ends"] for one in best]) + np.repeat(before, lengths)
    sums = _of_spans(np.add, np.concatenate([one.tokens for one in best]), ends)
    nearest = _of_spans(np.maximum, np.concatenate([one.likeness for one in best]), ends)
    scores = iter(((unit(sums) @ question.vector + nearest @ question.weights) / 2).tolist())
    return [list(islice(scores, length))[1:] for length in lengths]


def _of_spans(reduce: np.ufunc, rows: Vectors, ends: NDArray[np.int64]) -> Vectors:
    """The rows in spans that follow one another, a row for each; of an empty span zeros."""
    starts = np.concatenate([[0], ends[:-1]])
    some = ends > starts
    reduced = np.zeros((len(ends), rows.shape[1]), dtype=np.float32)
    if some.any():
        reduced[some] = reduce.reduceat(rows, starts[some], axis=0)
    return reduced


def _fit(best: Compared, evidence: list[dict[str, Any]]) -> float:
    best_sentence: float = max(sentence["score"] for sentence in evidence)
    return float(round((2 * best.passage["score"] + best.maxsim + best_sentence) / 4, 4))


def _cosine_fit(best: list[dict[str, Any]]) -> float:
    """Lower than a full fit of the same passages, so that a degraded answer is declined sooner."""
    return max(float(passage["score"]) for passage in best)


def _source(passage: dict[str, Any], score: float) -> dict[str, Any]:
    return {**{key: passage[key] for key in ("id", "title", "url", "text")}, "score": round(score, 4)}


def piece_weights(ids: Sequence[int]) -> Vectors:
    """How much each piece of a question counts, 1 in all; marks and punctuation count nothing, unless that is all."""
    silent, common = silent_pieces(), _common_pieces()
    weights = np.array([0 if i in silent else COMMON_WORD_WEIGHT if i in common else 1 for i in ids], dtype=np.float32)
    if not weights.any():
        weights[:] = 1
    weights /= weights.sum()
    return weights


@cache
def _common_pieces() -> frozenset[int]:
    return frozenset(vocabulary()[word] for word in COMMON_WORDS)
