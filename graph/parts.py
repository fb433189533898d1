"""What the graph is made of. `open_parts` builds it from settings; tests put in their own."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from psycopg_pool import AsyncConnectionPool

from graph.models import open_model, script
from graph.offline_models import Reciter
from graph.red_flags import INTERNATIONAL, regions
from graph.retrieval.embed import open_embedder
from graph.retrieval.rerank import Ranked, Reranker
from graph.retrieval.rerank_service import RerankService
from graph.retrieval.search import Found, Search

HISTORY_TOKENS = 2000


async def _nothing() -> None: ...


@dataclass(frozen=True)
class Parts:
    """`writes`: see models.Opened. `reciter` says fixed texts at reading pace, `urgent` at once.

    `search` raises when it fails; `rerank` degrades instead.
    """

    model: BaseChatModel
    model_name: str
    search: Callable[[str], Awaitable[Found]]
    rerank: Callable[[str, list[dict[str, Any]]], Awaitable[Ranked]]
    writes: bool = True
    reciter: BaseChatModel = field(default_factory=Reciter)
    urgent: BaseChatModel = field(default_factory=Reciter)
    router: BaseChatModel | None = None
    region: str = INTERNATIONAL
    history_tokens: int = HISTORY_TOKENS
    warm_up: Callable[[], Awaitable[None]] = _nothing


def open_parts(
    *,
    model: str,
    embeddings: str,
    reranker: str,
    reranker_key: str | None = None,
    pool: AsyncConnectionPool[Any],
    pace_ms: int | None = None,
    region: str = INTERNATIONAL,
    history_tokens: int = HISTORY_TOKENS,
) -> Parts:
    """Quick: the encoder is loaded by the first question, or by `warm_up`. Raises ValueError for an unknown name."""
    if region not in regions():
        raise ValueError(f"PULSELINE_REGION: {region!r} is none of {', '.join(regions())}")
    opened = open_model(model, pace_ms)
    embedder = open_embedder(embeddings)
    service = None if reranker == "maxsim" else RerankService(reranker, reranker_key)
    rerank = Reranker(pool, embedder, service=service)
    reciter = Reciter(pace_ms=getattr(opened.model, "pace_ms", 0))
    scripted = script(model)
    if scripted is not None:
        stages = _scripted(scripted["stage_ms"], stamp=bool(scripted["stamp"]))
        return Parts(opened.model, opened.name, *stages, reciter=reciter, region=region)
    return Parts(
        opened.model,
        opened.name,
        Search(pool, embedder),
        rerank,
        writes=opened.writes,
        reciter=reciter,
        router=opened.router,
        region=region,
        history_tokens=history_tokens,
        warm_up=rerank.warm_up,
    )


def _scripted(
    stage_ms: int, *, stamp: bool
) -> tuple[Callable[[str], Awaitable[Found]], Callable[[str, list[dict[str, Any]]], Awaitable[Ranked]]]:
    passages: list[dict[str, Any]] = [
        {"id": f"scripted-{n}", "title": f"Scripted passage {n}", "url": "", "score": 1 / n, "text": "Words. " * 20}
        for n in (1, 2, 3)
    ]

    async def staged(stage: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Stamped as its tokens are, in the first passage: when the stage began and ended, for whoever measures how
        late each is shown."""
        began = time.time_ns() // 1000
        await asyncio.sleep(stage_ms / 1000)
        if not stamp:
            return found
        stamps = f"{stage}_start:{began} {stage}_complete:{time.time_ns() // 1000} "
        return [{**found[0], "text": stamps + found[0]["text"]}, *found[1:]]

    async def search(question: str) -> Found:
        return Found(await staged("retrieval", passages))

    async def rerank(question: str, found: list[dict[str, Any]]) -> Ranked:
        return Ranked(await staged("reranking", found), [], None)

    return search, rerank
