"""The way to the server breaks in mid-answer, and no word is lost or said twice."""

import pytest
from playwright.async_api import Route, expect

from tests.conftest import FreshDatabase
from tests.e2e.conftest import PATIENCE, Serve
from tests.e2e.visitor import NETWORK, TAIL, Tab, Visitor
from tests.support.proxy import proxying
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

SILENCE_MS = 20_000  # the page gives up on a connection after 15 s in which not even a heartbeat came
THINKING = "scripted?tokens=1&delay_ms=3000"  # time enough for a slow browser before the first word
PROTOCOL = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
NOTICED_MS = 900  # after a second without a connection the page says so


async def check_exact(tab: Tab, visitor: Visitor, server: Server) -> None:
    """What is on the screen is what the log says, and at no moment was there anything but a beginning of it."""
    whole = await tab.until("complete")
    await tab.check_text_only_grew()
    async with visitor.person() as person:
        frames = await person.read(server.url, tab.session_id)
    assert whole == frames[-1].data["message"]["content"]


async def test_an_answer_goes_on_when_the_replica_that_it_came_through_is_killed(
    server: Server, worker: Server, shared_url: str, serve: Serve, visitor: Visitor
) -> None:
    with serve(shared_url, WORKER="off") as tailing:
        async with proxying(tailing.url, server.url) as proxy:
            tab = await visitor.open(proxy.url)
            tab.expect_trouble(NETWORK)
            await tab.ask()
            await tab.until_words(20)
            with worker.held():
                assert proxy.went_to[server.url] == 0
                tailing.kill()
            await check_exact(tab, visitor, server)
            assert proxy.went_to[server.url] > 0


async def test_a_cut_network_is_said_and_when_it_is_back_the_answer_goes_on(
    server: Server, worker: Server, visitor: Visitor
) -> None:
    async with proxying(server.url) as proxy:
        tab = await visitor.open(proxy.url)
        tab.expect_trouble(NETWORK)
        await tab.ask()
        before = await tab.until_words(10)
        with worker.held():
            proxy.refuse()
            await expect(tab.by("connection")).to_have_attribute("data-state", "lost")
            assert (await tab.text()).startswith(before)
            assert await tab.answer.get_attribute("data-status") == "running"
            await proxy.restore()
            await expect(tab.by("connection")).not_to_have_attribute("data-state", "lost")
        await check_exact(tab, visitor, server)
        await expect(tab.by("connection")).to_have_count(0)
        assert await tab.witnessed("notices") == ["lost", "caughtUp"]


async def test_an_answer_that_ends_while_the_network_is_cut_is_there_when_it_is_back(
    server: Server, worker: Server, visitor: Visitor
) -> None:
    async with proxying(server.url) as proxy:
        tab = await visitor.open(proxy.url)
        tab.expect_trouble(NETWORK)
        await tab.ask()
        await tab.until_words(5)
        with worker.held():
            proxy.refuse()
        async with visitor.person() as person:
            await person.read(server.url, tab.session_id)
        assert await tab.answer.get_attribute("data-status") == "running"
        await proxy.restore()
        await check_exact(tab, visitor, server)


async def test_a_gateway_that_refuses_the_tail_for_a_while_costs_no_word(
    server: Server, worker: Server, visitor: Visitor
) -> None:
    """Unlike after a broken connection the browser gives up, so the page itself has to come back."""
    tab = await visitor.open(server.url)
    tab.expect_trouble("status of 503")
    refusals = iter(range(2))

    async def gateway(route: Route) -> None:
        if next(refusals, None) is None:
            await route.continue_()
        else:
            await route.fulfill(status=503)

    await tab.page.route(TAIL, gateway)
    with worker.held():
        await tab.ask()
        await tab.until_tails(3)
    await check_exact(tab, visitor, server)
    assert len(tab.tails) == 3


async def test_a_browser_that_goes_offline_says_so_and_catches_up(
    server: Server, worker: Server, visitor: Visitor
) -> None:
    async with proxying(server.url) as proxy:
        tab = await visitor.open(proxy.url)
        tab.expect_trouble(NETWORK)
        await tab.ask()
        await tab.until_words(10)
        with worker.held():
            await visitor.context.set_offline(True)
            proxy.cut()  # what Chromium calls offline leaves a running response alone
            await expect(tab.by("connection")).to_have_attribute("data-state", "offline")
            await visitor.context.set_offline(False)
        await expect(tab.by("connection")).to_have_count(0)
        await check_exact(tab, visitor, server)


async def test_a_stop_that_is_pressed_offline_says_so_and_is_sent_when_the_browser_is_back(
    endless: Server, visitor: Visitor
) -> None:
    async with proxying(endless.url) as proxy:
        tab = await visitor.open(proxy.url)
        tab.expect_trouble(NETWORK)
        await tab.ask()
        await tab.until_words(3)
        await visitor.context.set_offline(True)
        proxy.cut()
        await expect(tab.by("connection")).to_have_attribute("data-state", "offline")
        await tab.by("stop").click()
        await expect(tab.by("error")).to_have_text("You are offline. The stop is sent when you are back.")
        await expect(tab.by("connection")).to_have_count(0)
        await visitor.context.set_offline(False)
        await tab.until("cancelled")
        await expect(tab.by("error")).to_have_count(0)


async def test_a_connection_that_went_silent_is_replaced(server: Server, worker: Server, visitor: Visitor) -> None:
    async with proxying(server.url) as proxy:
        tab = await visitor.open("about:blank")
        await tab.page.clock.install()
        await tab.page.goto(proxy.url)
        await tab.ask()
        await tab.until_words(5)
        with worker.held():
            proxy.silence()
            await tab.page.clock.fast_forward(SILENCE_MS)
            await tab.until_tails(2)
        await check_exact(tab, visitor, server)
        assert len(tab.tails) == 2
        await visitor.leave()


async def test_a_laptop_that_was_closed_for_an_hour_shows_what_was_written_meanwhile(
    server: Server, worker: Server, visitor: Visitor
) -> None:
    """Its timers stood still, and its connection is dead without knowing."""
    async with proxying(server.url) as proxy:
        tab = await visitor.open("about:blank")
        await tab.page.clock.install()
        await tab.page.goto(proxy.url)
        await tab.ask()
        await tab.until_words(5)
        with worker.held():
            proxy.silence()
        async with visitor.person() as person:
            await person.read(server.url, tab.session_id)
        assert await tab.answer.get_attribute("data-status") == "running"
        await tab.page.clock.fast_forward("01:00:00")
        await check_exact(tab, visitor, server)
        await visitor.leave()


async def test_ten_tabs_over_http_1_all_work(endless: Server, visitor: Visitor) -> None:
    """A browser opens at most six connections to a server: a hidden tab lets its own go, and catches up when shown."""
    tabs = []
    for number in range(10):
        tab = await visitor.open(endless.url)
        await tab.ask(f"Question {number}")
        await tab.until_words(2)
        await tab.hide()
        tabs.append(tab)
    assert await tabs[0].page.evaluate(PROTOCOL) == "http/1.1"
    for number, tab in enumerate(tabs):
        seen = len((await tab.text()).split())
        await tab.hide(False)
        await tab.until_words(seen + 20)
        await tab.by("stop").click()
        await tab.until("cancelled")
        await expect(tab.by("user-message")).to_contain_text(f"Question {number}")
        await tab.check_text_only_grew()
        await tab.hide()


async def test_an_answer_whose_worker_dies_says_that_it_starts_again_and_does(
    fresh_database: FreshDatabase, serve: Serve, visitor: Visitor
) -> None:
    with fresh_database() as url, serve(url, WORKER="off") as server:
        tab = await visitor.open(server.url)
        await tab.ask()
        with serve(url, LEASE_SECONDS="1") as first:
            await tab.until_words(10)
            first.kill()
        note = tab.page.get_by_text("Starting this answer again…", exact=True)
        with serve(url, THINKING, **PATIENCE) as second:
            await expect(note.first).to_be_visible()
            with second.held():
                assert await tab.text() == ""
                await expect(tab.by("stage-retrieval")).to_have_attribute("data-state", "done")
            assert (await tab.until("complete")).strip() == "w0"
        await expect(note).to_have_count(0)
        await visitor.leave()


async def test_an_answer_in_windows_of_two_seconds_is_one_answer_and_their_ends_go_unnoticed(
    server: Server, worker: Server, shared_url: str, serve: Serve, visitor: Visitor
) -> None:
    """As on Lambda. A connection that takes longer than a second to come back may be noticed: it is lost, then."""
    with serve(shared_url, WORKER="off", STREAM_WINDOW_SECONDS="2") as lambda_like:
        tab = await visitor.open(lambda_like.url)
        await tab.ask()
        await tab.until_words(5)
        with worker.held():
            await tab.until_tails(2)
        await tab.until_words(20)
        with worker.held():
            await tab.until_tails(3)
        await check_exact(tab, visitor, server)
        away = max(await tab.witnessed("gaps"))
        assert away > NOTICED_MS or await tab.witnessed("notices") == [], away
        await visitor.leave()


async def test_a_question_that_cannot_be_sent_is_kept_and_sent_again(server: Server, visitor: Visitor) -> None:
    async with proxying(server.url) as proxy:
        tab = await visitor.open(proxy.url)
        tab.expect_trouble(NETWORK)
        proxy.refuse()
        await tab.ask("Is it there?")
        await expect(tab.by("error")).to_contain_text("could not be reached")
        await expect(tab.by("user-message")).to_contain_text("Is it there?")
        await proxy.restore()
        await tab.by("error").get_by_role("button", name="Try again").click()
        await check_exact(tab, visitor, server)
        await expect(tab.by("error")).to_have_count(0)
        await expect(tab.by("user-message")).to_have_count(1)


async def test_a_conversation_that_cannot_be_opened_says_so_and_opens_on_request(
    endless: Server, visitor: Visitor
) -> None:
    async with proxying(endless.url) as proxy:
        tab = await visitor.open(proxy.url)
        tab.expect_trouble(NETWORK)
        await tab.ask()
        await tab.until_words(5)
        await tab.by("stop").click()
        text = await tab.until("cancelled")
        await tab.by("new-chat").click()
        await expect(tab.by("session-item")).to_have_attribute("data-running", "false")
        proxy.refuse()
        await tab.by("session-item").click()
        await expect(tab.by("error")).to_contain_text("could not be reached")
        await proxy.restore()
        await tab.by("error").get_by_role("button", name="Try again").click()
        assert await tab.until("cancelled") == text
