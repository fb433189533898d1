"""A reranker behind HTTP: used when it tells right from wrong, left out visibly when it does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from graph.eventlog.log import Pool
from graph.retrieval import rerank_service
from graph.retrieval.embed import Embedder
from graph.retrieval.ingest import STARTER, ingest
from graph.retrieval.rerank import WITHOUT_SERVICE, Ranked, Reranker
from graph.retrieval.rerank_service import RerankService
from graph.retrieval.search import Search

QUESTION = "What are the symptoms of gout?"
Answer = Callable[[dict[str, Any]], Any]


def by_words(body: dict[str, Any]) -> Any:
    """Best is what shares most words, in the order that such services answer in: best first."""
    asked = set(body["query"].lower().split())
    shares = [len(asked & set(text.lower().split())) / len(asked) for text in body["documents"]]
    order = sorted(range(len(shares)), key=lambda i: -shares[i])
    return {"id": "1", "results": [{"index": i, "relevance_score": shares[i]} for i in order]}


def backwards(body: dict[str, Any]) -> Any:
    """Passes the test of two documents, and then puts the last passage first."""
    if len(body["documents"]) == 2:
        return by_words(body)
    return {"results": [{"index": i, "relevance_score": i} for i in range(len(body["documents"]))]}


def the_same_for_all(body: dict[str, Any]) -> Any:
    return {"results": [{"index": i, "relevance_score": 0.5} for i in range(len(body["documents"]))]}


def one_missing(body: dict[str, Any]) -> Any:
    said = by_words(body)
    return said if len(body["documents"]) == 2 else {"results": said["results"][1:]}


def another_shape(body: dict[str, Any]) -> Any:
    return by_words(body) if len(body["documents"]) == 2 else [0.1]


class Served:
    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.address = ""


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Served]:
    served = Served()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        served.requests.append((head, body))
        said = json.dumps(answer(body)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(f"Content-Length: {len(said)}\r\n\r\n".encode() + said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        served.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rerank?model=tiny"
        yield served


async def ranked(pool: Pool, service: RerankService) -> tuple[list[str], Ranked]:
    """The passages as they were found, and as they were ranked."""
    embedder = Embedder()
    await ingest([STARTER / f"{name}.md" for name in ("gout", "eczema", "fever")], pool=pool, embedder=embedder)
    reranker = Reranker(pool, embedder, service=service)
    await reranker.warm_up()
    found = (await Search(pool, embedder)(QUESTION)).passages
    return [passage["id"] for passage in found], await reranker(QUESTION, found)


async def test_the_services_order_is_the_order_of_the_sources(pool: Pool) -> None:
    async with serving(backwards) as served:
        found, given = await ranked(pool, RerankService(served.address, "sk-key"))
    assert given.degraded is None
    assert [source["id"] for source in given.sources] == found[::-1][: len(given.sources)]
    assert given.fit is not None
    assert given.evidence
    head, body = served.requests[-1]
    assert head.startswith("POST /rerank HTTP/1.1")
    assert "authorization: bearer sk-key" in head.lower()
    assert body["model"] == "tiny"
    assert body["top_n"] == len(body["documents"]) == len(found)


@pytest.mark.parametrize("answer", [the_same_for_all, one_missing, another_shape])
async def test_a_service_that_answers_nonsense_is_left_out_visibly(pool: Pool, answer: Answer) -> None:
    async with serving(answer) as served:
        _, given = await ranked(pool, RerankService(served.address))
    assert given.degraded == WITHOUT_SERVICE
    assert given.sources[0]["id"].startswith("gout#")


async def test_a_service_that_fails_its_test_is_not_asked_again(pool: Pool) -> None:
    async with serving(the_same_for_all) as served:
        await ranked(pool, RerankService(served.address))
        assert len(served.requests) == 1


async def test_a_service_that_comes_up_later_is_used(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(lambda body: answers[-1](body)) as served:
        answers: list[Answer] = [the_same_for_all]
        service = RerankService(served.address)
        found, given = await ranked(pool, service)
        assert given.degraded == WITHOUT_SERVICE
        answers.append(backwards)
        passages = (await Search(pool, Embedder())(QUESTION)).passages
        monkeypatch.setattr(rerank_service, "TESTED_AGAIN_SECONDS", 0)
        service.failed()
        given = await Reranker(pool, Embedder(), service=service)(QUESTION, passages)
    assert given.degraded is None
    assert given.sources[0]["id"] == found[-1]


async def test_a_service_that_fails_is_left_alone_until_it_is_tested_again(pool: Pool) -> None:
    async with serving(one_missing) as served:
        service = RerankService(served.address)
        await ranked(pool, service)
        assert len(served.requests) == 2
        passages = (await Search(pool, Embedder())(QUESTION)).passages
        given = await Reranker(pool, Embedder(), service=service)(QUESTION, passages)
        assert given.degraded == WITHOUT_SERVICE
        assert len(served.requests) == 2


async def test_without_an_answer_the_built_in_ranking_stands(pool: Pool) -> None:
    _, given = await ranked(pool, RerankService("http://127.0.0.1:1/rerank"))
    assert given.degraded == WITHOUT_SERVICE
    assert given.sources[0]["id"].startswith("gout#")
