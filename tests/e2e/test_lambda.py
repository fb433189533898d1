"""The page on Lambda: whole responses only, each from a process that then stands still."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.e2e.test_lost_connections import NOTICED_MS
from tests.e2e.visitor import Visitor
from tests.support.lambdas import cloud

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(150)]
STARTED_SECONDS = 60  # the function that answers loads LangGraph first
OVERDUE_MS = 6_900  # after two windows of three seconds, and one more, the page says that the connection is lost


async def test_an_answer_is_whole_on_a_page_behind_a_gateway_that_buffers(
    database_url: str, tmp_path: Path, visitor: Visitor
) -> None:
    with cloud(database_url, tmp_path, most=8, MODEL="scripted?tokens=60&delay_ms=40&stage_ms=1500") as made:
        tab = await visitor.open(made.url)
        await tab.ask()
        await expect(tab.answer).to_have_attribute("data-status", "complete", timeout=STARTED_SECONDS * 1000)
        text = await tab.text()
        assert text.split() == [f"w{n}" for n in range(60)]
        await tab.check_text_only_grew()
        assert len(tab.tails) > 3, "the browser's own EventSource came back again and again"
        away = max(await tab.witnessed("gaps"))
        assert away > NOTICED_MS, "a response was silent for long"
        assert away > OVERDUE_MS or await tab.witnessed("notices") == [], away
        await visitor.leave()
        await asyncio.to_thread(made.settle)
