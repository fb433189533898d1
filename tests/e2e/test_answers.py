"""Ask, watch, reload, stop, in a real browser."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Page, Route, TimeoutError, expect

from tests.conftest import FreshDatabase
from tests.e2e.conftest import Serve
from tests.e2e.visitor import DEADLINE_SECONDS, TAIL, Tab, Visitor
from tests.support.client import check_whole_turn
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
WORDS = 120
UNHURRIED = "scripted?tokens=120&delay_ms=40&stage_ms=1500"  # each stage outlasts a slow browser's paint
FOUND_AND_WRITING = ["retrieval done", "reranking done", "generation active"]
CLOSED_MS = 1000
RECONNECT_SECONDS = 1.0  # twice the server's `retry`: an EventSource left open would have come back by then
BEFORE = """button => {
  const range = document.createRange()
  range.setStart(button.closest('p'), 0)
  range.setEndBefore(button)
  return range.toString()
}"""
SEND_TWICE = """field => {
  for (const _ of [1, 2]) field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))
}"""


@pytest.mark.timeout(180)  # the first one reads the whole starter corpus
async def test_a_question_shows_three_stages_then_tokens_then_the_answer_with_its_sources(
    librarian: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(librarian.url)
    await tab.ask("What are the symptoms of iron deficiency?")
    text = await tab.until("complete")
    stages = await tab.witnessed("stages")
    assert [stage for stage in stages if stage in FOUND_AND_WRITING] == FOUND_AND_WRITING
    assert len((await tab.witnessed("texts"))[await tab.answer.get_attribute("data-turn")]) > 10
    await tab.check_text_only_grew()
    assert "tired" in text.lower()
    await expect(tab.by("sources")).to_contain_text("Iron deficiency")
    await expect(tab.by("source-1")).to_have_attribute("data-cited", "true")


@pytest.mark.timeout(180)
async def test_a_citation_opens_the_passage_that_it_quotes(librarian: Server, visitor: Visitor) -> None:
    tab = await visitor.open(librarian.url)
    await tab.ask("What are the symptoms of iron deficiency?")
    await tab.until("complete")
    citation = tab.answer.get_by_role("button", name="Source 1:").first
    sentence = await citation.evaluate(BEFORE)
    await citation.click()
    passage = tab.by("source-panel").locator("[aria-current=true]")
    await expect(passage).to_be_focused()
    await expect(passage).to_contain_text(sentence.strip())
    await tab.page.keyboard.press("Escape")
    await expect(tab.by("source-panel")).to_have_count(0)
    await expect(citation).to_be_focused()


async def test_each_stage_is_shown_while_it_is_under_way(
    fresh_database: FreshDatabase, serve: Serve, visitor: Visitor
) -> None:
    """Nobody answers at first, so that the page has to show a turn that waits; then a worker comes."""
    with fresh_database() as url, serve(url, WORKER="off") as server:
        tab = await visitor.open(server.url)
        await tab.ask()
        await expect(tab.by("stage-reading")).to_have_attribute("data-state", "active")
        with serve(url, UNHURRIED):
            await tab.until_words(1)
            stages = await tab.witnessed("stages")
            await tab.by("stop").click()
            await tab.until("cancelled")
            await visitor.leave()
    assert [stage for stage in stages if not stage.endswith("pending")] == [
        "reading active",
        *("retrieval active", "retrieval done"),
        *("reranking active", "reranking done"),
        "generation active",
    ]
    assert {stage for stage in stages if stage.endswith("pending")} >= {"reranking pending", "generation pending"}


async def test_a_reload_in_mid_answer_shows_the_text_so_far_before_any_token_and_then_the_rest(
    server: Server, worker: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(server.url)
    await tab.ask()
    before = await tab.until_words(20)
    with worker.held():
        async with _tails_held(tab.page), tab.page.expect_response(f"**/sessions/{tab.session_id}") as response:
            await tab.page.reload()
            snapshot = await (await response.value).json()
            so_far = snapshot["turn"]["content"]
            assert so_far.startswith(before)
            await expect(tab.answer).to_have_attribute("data-status", "running")
            assert (await tab.text()).rstrip() == so_far.rstrip()
            await tab.until_tails(2)
            assert len(tab.tails) == 2
    whole = await tab.until("complete")
    await tab.check_text_only_grew()
    async with visitor.person() as person:
        frames = await person.read(server.url, tab.session_id)
    check_whole_turn(frames)
    assert frames[-1].type == "done"
    assert whole == frames[-1].data["message"]["content"]
    assert len(whole.split()) == WORDS


@asynccontextmanager
async def _tails_held(page: Page) -> AsyncIterator[None]:
    """No event reaches the page in here; what it shows, it has from elsewhere."""
    go = asyncio.Event()

    async def hold(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route(TAIL, hold)
    try:
        yield
    finally:
        go.set()
        await page.unroute_all(behavior="wait")


async def test_stop_ends_the_answer_and_keeps_its_text_also_after_a_reload(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await tab.ask()
    before = await tab.until_words(10)
    await tab.by("stop").click()
    partial = await tab.until("cancelled")
    await expect(tab.by("send")).to_be_visible()
    assert partial.startswith(before)
    async with visitor.person() as person:
        frames = await person.read(endless.url, tab.session_id)
    check_whole_turn(frames)
    assert (frames[-1].type, frames[-1].data["content"].rstrip()) == ("cancelled", partial.rstrip())
    await tab.page.reload()
    assert await tab.until("cancelled") == partial


async def test_stop_pressed_before_the_server_has_the_question_stops_its_turn(
    endless: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(endless.url)
    go = asyncio.Event()

    async def hold(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await tab.page.route("**/chat/stream", hold)
    await tab.ask()
    await tab.by("stop").click()
    await expect(tab.by("stop")).to_be_disabled()
    go.set()
    await tab.until("cancelled")


async def test_enter_pressed_twice_asks_once(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await tab.by("composer").fill("Once?")
    await tab.by("composer").evaluate(SEND_TWICE)
    await tab.until_words(1)
    await tab.by("stop").click()
    await tab.until("cancelled")
    await expect(tab.by("user-message")).to_have_count(1)
    async with visitor.person() as person:
        frames = await person.read(endless.url, tab.session_id)
        sessions = (await person.client.get(f"{endless.url}/sessions")).json()["sessions"]
    assert sum(frame.type == "turn_started" for frame in frames) == 1
    assert len(sessions) == 1


async def test_a_second_tab_shows_the_same_running_answer_and_can_stop_it(endless: Server, visitor: Visitor) -> None:
    one = await visitor.open(endless.url)
    await one.ask()
    before = await one.until_words(5)
    two = await visitor.open(one.page.url)
    assert (await two.until("running")).startswith(before)
    await two.by("stop").click()
    stopped = await two.until("cancelled")
    assert await one.until("cancelled") == stopped
    assert await one.answer.get_attribute("data-turn") == await two.answer.get_attribute("data-turn")


async def test_the_connection_is_closed_at_the_end_of_an_answer(server: Server, visitor: Visitor) -> None:
    """The server ends the response after the last event, so an EventSource that was not closed would ask again."""
    tab = await visitor.open(server.url)
    await tab.ask()
    await tab.until("complete")
    await _check_closed(tab)


async def test_the_connection_is_closed_when_an_answer_is_stopped(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await tab.ask()
    await tab.until_words(5)
    await tab.by("stop").click()
    await tab.until("cancelled")
    await _check_closed(tab)


async def _stream(tab: Tab) -> dict[str, Any]:
    [stream] = [seen for seen in await tab.witnessed("streams") if TAIL.search(seen["url"])]
    return dict(stream)


async def _check_closed(tab: Tab) -> None:
    """By the page's own clock, so that a slow machine cannot tell against it."""
    await asyncio.wait_for(tab.nothing_open.wait(), DEADLINE_SECONDS)
    async with asyncio.timeout(DEADLINE_SECONDS):  # the snapshot may have told of the end before the stream did
        while (stream := await _stream(tab))["closed"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert 0 <= stream["closed"] - stream["ended"] < CLOSED_MS
    with pytest.raises(TimeoutError):
        async with tab.page.expect_request(TAIL, timeout=RECONNECT_SECONDS * 1000):
            pass
