"""What a person sees when an answer fails, and what the page may not do."""

import re

import pytest
from playwright.async_api import Response, expect

from tests.conftest import FreshDatabase
from tests.e2e.conftest import Serve
from tests.e2e.visitor import Visitor
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
INLINE_SCRIPT = """() => {
  const script = document.createElement('script')
  script.textContent = 'document.title = "taken over"'
  document.head.append(script)
}"""
HASHED = re.compile(r"/assets/\w+-[\w-]{8}\.\w+$")
SILENT = "scripted?tokens=5&delay_ms=5000"


async def test_a_model_that_stays_silent_is_an_error_that_can_be_tried_again(
    fresh_database: FreshDatabase, serve: Serve, visitor: Visitor
) -> None:
    with fresh_database() as url, serve(url, SILENT, FIRST_TOKEN_TIMEOUT_SECONDS="0.5") as server:
        tab = await visitor.open(server.url)
        await tab.ask()
        await tab.until("error")
        await expect(tab.by("error")).to_contain_text("did not answer in time")
        first = await tab.answer.get_attribute("data-turn")
        assert first is not None
        await tab.by("error").get_by_role("button", name="Try again").click()
        await expect(tab.answer).to_have_attribute("data-turn", re.compile(f"^(?!{first})"))
        await tab.until("error")
        await expect(tab.by("answer")).to_have_count(1)
        await expect(tab.by("user-message")).to_have_count(1)
        async with visitor.person() as person:
            frames = await person.read(server.url, tab.session_id)
        assert (frames[-1].type, frames[-1].data["code"]) == ("error", "model_timeout")
        await visitor.leave()


async def test_a_strangers_conversation_is_not_shown(server: Server, visitor: Visitor) -> None:
    async with visitor.person() as stranger:
        session_id = (await stranger.start(server.url, "Mine alone"))["session_id"]
    tab = await visitor.open(server.url)
    tab.expect_trouble("status of 404")
    await tab.page.goto(f"{server.url}/c/{session_id}")
    await expect(tab.by("error")).to_contain_text("not here")
    await expect(tab.page.get_by_text("Mine alone")).to_have_count(0)
    await expect(tab.by("composer")).to_have_count(0)


async def test_the_page_loads_nothing_but_its_own_hashed_assets(server: Server, visitor: Visitor) -> None:
    tab = await visitor.open("about:blank")
    answered: list[Response] = []
    tab.page.on("response", lambda response: answered.append(response))
    await tab.page.goto(server.url)
    await expect(tab.by("example").first).to_be_visible()
    assert {response.url.startswith(f"{server.url}/") for response in answered} == {True}
    assets = [response for response in answered if "/assets/" in response.url]
    assert {response.url.rpartition(".")[2] for response in assets} >= {"js", "css"}
    for response in assets:
        assert HASHED.search(response.url), response.url
        assert "immutable" in response.headers["cache-control"]
    [document] = [response for response in answered if response.url == f"{server.url}/"]
    policy = dict(rule.strip().split(" ", 1) for rule in document.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")


async def test_the_policy_refuses_scripts_that_are_not_the_pages_own(server: Server, visitor: Visitor) -> None:
    """It also shows that a violation would not go unseen in any of these tests."""
    tab = await visitor.open(server.url)
    async with tab.page.expect_console_message():
        await tab.page.evaluate(INLINE_SCRIPT)
    assert await tab.page.title() != "taken over"
    assert await tab.witnessed("violations") == ["script-src-elem"]
    with pytest.raises(AssertionError, match=r"Content Security Policy.*script-src-elem"):
        await visitor.check()
    visitor.tabs.clear()
