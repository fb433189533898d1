"""How well and how fast passages are found: by words, by meaning, by both, and reranked."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from graph.eventlog.log import Pool
from graph.retrieval.embed import Embedder
from graph.retrieval.rerank import Reranker
from graph.retrieval.search import CANDIDATES, DENSE_WEIGHT, LEXICAL_WEIGHT, Search
from tests.evaluation.measures import MEASURES, Estimate, estimate, percentile
from tests.evaluation.questions import Question

SYSTEMS = {
    "lexical": (0.0, LEXICAL_WEIGHT, False),
    "dense": (DENSE_WEIGHT, 0.0, False),
    "fused": (DENSE_WEIGHT, LEXICAL_WEIGHT, False),
    "fused + rerank": (DENSE_WEIGHT, LEXICAL_WEIGHT, True),
}
PEOPLE = 10
Step = Callable[[], None]


class Scores(NamedTuple):
    """`gain` is the paired difference in nDCG@10 to `dense`."""

    system: str
    measures: dict[str, Estimate]
    gain: Estimate


class Times(NamedTuple):
    """In milliseconds; encoding the question counts to retrieval."""

    people: int
    retrieval: list[float]
    reranking: list[float]

    def p(self, share: float) -> tuple[float, float]:
        return percentile(self.retrieval, share), percentile(self.reranking, share)


async def score(pool: Pool, questions: Sequence[Question], step: Step) -> list[Scores]:
    embedder = Embedder()
    rerank = Reranker(pool, embedder, CANDIDATES)
    rankings: dict[str, list[list[str]]] = {}
    for system, (dense, lexical, reranked) in SYSTEMS.items():
        search = Search(pool, embedder, dense, lexical)
        rankings[system] = []
        for question in questions:
            found, _, _, read_as = await search(question.text)
            if reranked:
                by_id = {passage["id"]: passage for passage in found}
                found = [by_id[source["id"]] for source in (await rerank(read_as, found)).sources]
            rankings[system].append(list(dict.fromkeys(passage["document_id"] for passage in found)))
            step()
    return [_scores(system, ranked, rankings["dense"], questions) for system, ranked in rankings.items()]


def _scores(system: str, ranked: list[list[str]], dense: list[list[str]], questions: Sequence[Question]) -> Scores:
    def values(of: list[list[str]], measure: str) -> list[float]:
        return [MEASURES[measure](one, q.relevant) for one, q in zip(of, questions, strict=True)]

    pairs = zip(values(ranked, "nDCG@10"), values(dense, "nDCG@10"), strict=True)
    measures = {measure: estimate(values(ranked, measure)) for measure in MEASURES}
    return Scores(system, measures, estimate([own - other for own, other in pairs]))


async def clock(pool: Pool, questions: Sequence[Question], people: int, step: Step) -> Times:
    """Each of so many people asks one question after the other, none of which the encoder has seen."""
    embedder = Embedder()
    await embedder.warm_up()
    search, rerank = Search(pool, embedder), Reranker(pool, embedder)
    await rerank("warm up", (await search("warm up")).passages)
    left = [question.text for question in questions]
    times = Times(people, [], [])

    async def ask() -> None:
        while left:
            text = left.pop()
            began = time.perf_counter()
            searched = await search(text)
            found_at = time.perf_counter()
            await rerank(searched.read_as, searched.passages)
            times.retrieval.append(1000 * (found_at - began))
            times.reranking.append(1000 * (time.perf_counter() - found_at))
            step()

    await asyncio.gather(*(ask() for _ in range(people)))
    return times
