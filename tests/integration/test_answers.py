"""Does the whole starter corpus answer what it should, and decline the rest? The floors stand below what was measured
(docs/decisions/0007), so that a small change passes and a broken stage does not. `make eval` prints the whole."""

import pytest

from graph.eventlog.log import Pool
from graph.retrieval.embed import Embedder
from graph.retrieval.ingest import STARTER, ingest
from graph.retrieval.rerank import Reranker
from graph.retrieval.search import Search
from tests.conftest import Say
from tests.evaluation import abstention
from tests.evaluation.questions import starter

RIGHT_FIRST_AT_LEAST = 0.93
AT_MOST = {"tune": (0.12, 0.10), "judge": (0.15, 0.31)}  # false answers, false abstentions


@pytest.mark.timeout(300)
async def test_the_starter_corpus_answers_what_it_should_and_declines_the_rest(pool: Pool, say: Say) -> None:
    embedder = Embedder()
    await ingest([STARTER], pool=pool, embedder=embedder)
    search, rerank = Search(pool, embedder), Reranker(pool, embedder)
    asked = starter()
    first = []
    found = []
    for question in asked:
        searched = await search(question.text)
        ranked = await rerank(searched.read_as, searched.passages)
        found.append(abstention.Fit(question, ranked.fit or 0.0))
        if question.relevant:
            first.append(ranked.sources[0]["id"].split("#")[0] in question.relevant)
    assert sum(first) / len(first) >= RIGHT_FIRST_AT_LEAST
    for split in ("tune", "judge"):
        here = abstention.point(found, split)
        say(f"{split}: {here.false_answers:.1%} false answers, {here.false_abstentions:.1%} false abstentions")
        assert here.false_answers <= AT_MOST[split][0]
        assert here.false_abstentions <= AT_MOST[split][1]


def test_the_questions_are_many_and_in_no_article() -> None:
    asked = starter()
    articles = " ".join(file.read_text().lower() for file in STARTER.glob("*.md"))
    assert sum(bool(question.relevant) for question in asked) >= 120
    assert sum(not question.relevant for question in asked) >= 60
    assert len({question.text.lower() for question in asked}) == len(asked)
    known = {file.stem for file in STARTER.glob("*.md")}
    for question in asked:
        assert question.text.lower() not in articles
        assert question.relevant <= known
