"""The page on Lambda: whole responses only, each from a process that then stands still."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.test_lost_connections import NOTICED_MS
from tests.e2e.visitor import Visitor
from tests.support.lambdas import cloud

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(150)]


async def test_an_answer_is_whole_on_a_page_behind_a_gateway_that_buffers(
    database_url: str, tmp_path: Path, visitor: Visitor
) -> None:
    with cloud(database_url, tmp_path, most=8, MODEL="scripted?tokens=60&delay_ms=40&stage_ms=1500") as made:
        tab = await visitor.open(made.url)
        await tab.ask()
        text = await tab.until("complete")
        assert text.split() == [f"w{n}" for n in range(60)]
        await tab.check_text_only_grew()
        assert len(tab.tails) > 3, "the browser's own EventSource came back again and again"
        assert max(await tab.witnessed("gaps")) > NOTICED_MS, "a response was silent for long"
        assert await tab.witnessed("notices") == []
        await visitor.leave()
        await asyncio.to_thread(made.settle)
