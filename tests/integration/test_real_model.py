"""A real model behind a real port: its own tokens, and a stop that reaches it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.chat_models import init_chat_model
from langchain_core.messages import AnyMessage

from graph.citations import Cited
from graph.eventlog.events import Done, RerankingComplete
from graph.parts import Parts
from graph.retrieval.embed import Embedder
from graph.retrieval.ingest import STARTER, ingest
from graph.supervisor import Asked, Supervisor
from tests.conftest import Say
from tests.support.real_model import WEIGHTS, real_model
from tests.support.workshop import code_of, text_of, workshop

PATIENCE_SECONDS = 90.0
FREED_SECONDS = 20.0  # left alone, the model would talk for longer


async def until_slots(address: str, busy: int, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once so many of the model's slots are at work."""
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        while sum(slot["is_processing"] for slot in (await client.get(f"{address}/slots")).json()) != busy:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_a_stop_reaches_a_real_model_and_frees_its_slot(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    if not WEIGHTS.exists():
        say("NOT TESTED with a real model: `make test` installs one")
        pytest.skip("no real model is installed")
    with real_model(tmp_path) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none-needed")
        endless = {"ignore_eos": True}
        model = Cited(inner=init_chat_model("openai:smollm2", max_retries=0, temperature=0, extra_body=endless))

        def real(parts: Parts) -> Parts:
            return replace(parts, model=model, model_name="smollm2")

        patience: dict[str, Any] = {
            "first_token_timeout_seconds": PATIENCE_SECONDS,
            "token_timeout_seconds": PATIENCE_SECONDS,
            "turn_timeout_seconds": 2 * PATIENCE_SECONDS,
        }
        async with workshop(database_url, change=real, **patience) as shop:
            turn = await shop.ask("Tell me everything that there is to say about water, in a long list.")
            await shop.until(turn, "token", count=3, seconds=PATIENCE_SECONDS)
            await until_slots(url.removesuffix("/v1"), 1)
            await shop.cancel(turn)
            end = (await shop.ended(turn, PATIENCE_SECONDS))[-1]
            assert code_of(end) == "cancelled"
            assert len(text_of(await shop.events(turn)).split()) >= 2
            await until_slots(url.removesuffix("/v1"), 0, FREED_SECONDS)
            again = await shop.ask("And about ice?", turn.session_id)
            await shop.until(again, "token", count=2, seconds=PATIENCE_SECONDS)
            await shop.cancel(again)
            await shop.ended(again, PATIENCE_SECONDS)


@pytest.mark.timeout(300)
async def test_a_real_model_is_asked_for_the_way_and_answers_with_sources_and_with_support(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    """Through the whole graph, as `PULSELINE_MODEL=openai:…` opens it. What so small a model says is not judged: it may
    fail to say where a message goes, and then the rules' guess stands."""
    if not WEIGHTS.exists():
        say("NOT TESTED with a real model: `make test` installs one")
        pytest.skip("no real model is installed")
    asked: list[Asked | None] = []

    async def ask(supervisor: Supervisor, messages: Sequence[AnyMessage]) -> Asked | None:
        asked.append(await ask_model(supervisor, messages))
        return asked[-1]

    ask_model = Supervisor._ask
    monkeypatch.setattr(Supervisor, "_ask", ask)
    with real_model(tmp_path) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none-needed")
        patience: dict[str, Any] = {
            "first_token_timeout_seconds": PATIENCE_SECONDS,
            "token_timeout_seconds": PATIENCE_SECONDS,
            "turn_timeout_seconds": 2 * PATIENCE_SECONDS,
        }
        async with workshop(database_url, model="openai:smollm2", change=brief, **patience) as shop:
            await ingest([STARTER / "gout.md"], pool=shop.log.pool, embedder=Embedder())
            turn = await shop.ask("Which foods can bring on a gout attack?")
            end = (await shop.ended(turn, PATIENCE_SECONDS))[-1].parse()
            assert isinstance(end, Done)
            assert not end.abstained
            assert end.message.content
            assert asked == []  # the rules saw it
            said = [event.parse() for event in await shop.events(turn)]
            sources = {source.id for e in said if isinstance(e, RerankingComplete) for source in e.sources}
            assert {c.source_id for c in end.message.citations} <= sources

            turn = await shop.ask("my brother, on holiday", turn.session_id)
            end = (await shop.ended(turn, PATIENCE_SECONDS))[-1].parse()
            assert isinstance(end, Done)
            assert len(asked) == 1

            turn = await shop.ask("I feel so lonely")
            end = (await shop.ended(turn, PATIENCE_SECONDS))[-1].parse()
            assert isinstance(end, Done)
            assert "988" in end.message.content
            assert [e.type for e in await shop.events(turn)].count("token") == 1
            say(f"real model: the way, asked for once: {asked[0]!r}")


def brief(parts: Parts) -> Parts:
    """Its answers end soon."""
    limited = {"max_tokens": 12}
    assert isinstance(parts.model, Cited)
    model = Cited(inner=parts.model.inner.model_copy(update=limited))
    return replace(parts, model=model, router=parts.router and parts.router.model_copy(update={"max_tokens": 40}))
