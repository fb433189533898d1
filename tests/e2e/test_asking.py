"""From the text field to the server: what is pressed, written and chosen while a question is on its way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, Route, expect

from tests.conftest import FreshDatabase
from tests.e2e.conftest import Serve
from tests.e2e.visitor import NETWORK, Visitor
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
START = "**/chat/stream"
BOOKING = "Book a table in Lisbon"
FOCUSED = "document.activeElement.dataset.testid ?? document.activeElement.tagName"


@asynccontextmanager
async def starts_held(page: Page) -> AsyncIterator[None]:
    """No question reaches the server in here."""
    go = asyncio.Event()

    async def hold(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route(START, hold)
    try:
        yield
    finally:
        go.set()
        await page.unroute_all(behavior="wait")


async def test_a_double_click_on_send_asks_and_does_not_stop_the_answer(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await tab.by("composer").fill("Double click?")
    await tab.by("send").dblclick(delay=30)
    await tab.until_words(3)
    await expect(tab.by("stop")).to_be_enabled()
    await tab.by("stop").focus()
    await tab.page.keyboard.press("Enter")
    await tab.until("cancelled")
    assert await tab.page.evaluate(FOCUSED) == "composer"


async def test_whoever_opens_another_conversation_meanwhile_stays_there(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask("First conversation")
    await tab.until("complete")
    first = tab.page.url
    await tab.by("new-chat").click()
    async with starts_held(tab.page):
        await tab.ask("Second, on a slow network")
        await tab.by("session-item").first.click()
        await tab.until("complete")
        await tab.by("composer").fill("half a thought")
    await expect(tab.by("session-item")).to_have_count(2)
    assert tab.page.url == first
    await expect(tab.by("composer")).to_have_value("half a thought")


async def test_arrow_up_while_an_answer_is_written_does_not_open_the_editor_at_its_end(
    endless: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(endless.url)
    await tab.ask()
    await tab.until_words(3)
    await tab.by("composer").press("ArrowUp")
    await tab.by("composer").press_sequentially("my next")
    await tab.by("stop").click()
    await tab.until("cancelled")
    await expect(tab.button("Edit and ask again")).to_be_attached()
    await expect(tab.page.get_by_label("Edit your question")).to_have_count(0)


async def test_a_question_that_was_sent_at_the_second_try_leaves_no_draft(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    tab.expect_trouble(NETWORK)
    await tab.page.route(START, lambda route: route.abort())
    await tab.ask("Is it there?")
    await expect(tab.by("error")).to_be_visible()
    await tab.page.unroute(START)
    await tab.by("error").get_by_role("button", name="Try again").click()
    await tab.until("complete")
    await tab.by("new-chat").click()
    await expect(tab.by("example").first).to_be_visible()
    await expect(tab.by("composer")).to_have_value("")


async def test_what_is_written_while_the_first_question_is_on_its_way_stays_with_it(
    brisk: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(brisk.url)
    async with starts_held(tab.page):
        await tab.ask("One")
        await tab.by("composer").press_sequentially("And tw")
    await tab.until("complete")
    await tab.page.reload()
    await tab.until("complete")
    await expect(tab.by("composer")).to_have_value("And tw")
    await tab.by("new-chat").click()
    await expect(tab.by("example").first).to_be_visible()
    await expect(tab.by("composer")).to_have_value("")


async def test_a_new_chats_draft_survives_a_reload_and_a_look_elsewhere(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask("One")
    await tab.until("complete")
    await tab.by("new-chat").click()
    await expect(tab.by("example").first).to_be_visible()
    await tab.by("composer").fill("What abo")
    await tab.page.reload()
    await expect(tab.by("composer")).to_have_value("What abo")
    await tab.by("session-item").click()
    await tab.until("complete")
    await tab.by("new-chat").click()
    await expect(tab.by("composer")).to_have_value("What abo")


async def test_a_start_that_hangs_says_so(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    async with starts_held(tab.page):
        await tab.ask()
        await expect(tab.by("sending")).to_have_text("Still sending…")
    await tab.until("complete")
    await expect(tab.by("sending")).to_have_count(0)


async def test_a_question_that_is_asked_offline_goes_out_once_the_browser_is_back(
    brisk: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(brisk.url)
    tab.expect_trouble(NETWORK)
    await visitor.context.set_offline(True)
    await tab.ask("Am I offline?")
    await expect(tab.by("error")).to_contain_text("You are offline")
    await visitor.context.set_offline(False)
    await tab.until("complete")
    await expect(tab.by("user-message")).to_have_count(1)
    await expect(tab.by("session-item")).to_have_count(1)
    assert tab.session_id


async def test_nothing_that_was_asked_offline_is_lost(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    tab.expect_trouble(NETWORK)
    await tab.ask("Before")
    await tab.until("complete")
    await expect(tab.by("session-item")).to_have_attribute("data-running", "false")
    await tab.by("new-chat").click()
    await visitor.context.set_offline(True)
    await tab.ask("One")
    await expect(tab.by("error")).to_contain_text("sent when you are back, if you stay in this chat")
    await tab.ask("Two")
    await expect(tab.by("user-message")).to_contain_text("Two")
    await expect(tab.by("composer")).to_have_value("One")
    await tab.by("session-item").click()
    await expect(tab.by("error")).to_contain_text("The conversation opens when you are back")
    await tab.by("new-chat").click()
    await expect(tab.by("composer")).to_have_value("Two\nOne")
    await visitor.context.set_offline(False)
    await tab.by("composer").press("Enter")
    await tab.until("complete")
    await expect(tab.by("session-item")).to_have_count(2)


async def test_a_question_to_the_person_is_shown_and_answered(
    fresh_database: FreshDatabase, serve: Serve, visitor: Visitor
) -> None:
    with fresh_database() as url, serve(url, GRAPH="examples.tools:graph") as server:
        tab = await visitor.open(server.url)
        await tab.ask(BOOKING)
        for reloaded in (False, True):
            if reloaded:
                await tab.page.reload()
            await expect(tab.by("asked")).to_contain_text(f"{BOOKING}?")
            await expect(tab.by("asked")).to_have_attribute("data-waiting", "true")
        await tab.ask("yes")
        await expect(tab.by("answer")).to_have_count(2)
        assert "a table in Lisbon is booked" in await tab.until("complete")
        await expect(tab.by("asked")).not_to_have_attribute("data-waiting", "true")
        await visitor.leave()
