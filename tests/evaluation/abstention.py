"""The curve of false answers against false abstentions, and what the threshold in the code does on unseen questions."""

from collections.abc import Sequence
from typing import NamedTuple

from graph.eventlog.log import Pool
from graph.rag_agent import FIT_NEEDED
from graph.retrieval.embed import Embedder
from graph.retrieval.rerank import Reranker
from graph.retrieval.search import Search
from tests.evaluation.questions import Question
from tests.evaluation.retrieval import Step


class Fit(NamedTuple):
    question: Question
    fit: float


class Point(NamedTuple):
    """At a threshold: the shares of unanswerable questions that get an answer, and of answerable ones that get none."""

    threshold: float
    false_answers: float
    false_abstentions: float


async def fits(pool: Pool, questions: Sequence[Question], step: Step) -> list[Fit]:
    embedder = Embedder()
    search, rerank = Search(pool, embedder), Reranker(pool, embedder)
    found = []
    for question in questions:
        searched = await search(question.text)
        ranked = await rerank(searched.read_as, searched.passages)
        found.append(Fit(question, ranked.fit or 0.0))
        step()
    return found


def point(found: Sequence[Fit], split: str, threshold: float = FIT_NEEDED) -> Point:
    known = [one.fit for one in found if one.question.split == split and one.question.relevant]
    unknown = [one.fit for one in found if one.question.split == split and not one.question.relevant]
    return Point(
        threshold,
        sum(fit >= threshold for fit in unknown) / len(unknown),
        sum(fit < threshold for fit in known) / len(known),
    )


def curve(found: Sequence[Fit], split: str) -> list[Point]:
    return [point(found, split, threshold / 200) for threshold in range(100, 151)]


def errors(found: Sequence[Fit], split: str, threshold: float = FIT_NEEDED) -> list[Fit]:
    return [
        one for one in found if one.question.split == split and (one.fit >= threshold) != bool(one.question.relevant)
    ]
