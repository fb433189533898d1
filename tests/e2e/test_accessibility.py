"""axe finds nothing to object to, in any state of the page, light or dark, wide or narrow."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.visitor import Tab, visiting
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const { violations } = await axe.run({ resultTypes: ['violations'] })
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target).join(', ')}`)
}"""


async def check(tab: Tab) -> None:
    assert await tab.page.evaluate(RUN) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_has_no_objection_to_any_state(endless: Server, browser: Browser, scheme: str) -> None:
    async with visiting(browser, color_scheme=scheme, reduced_motion="reduce") as visitor:
        tab = await visitor.open(endless.url)
        await tab.page.evaluate(AXE.read_text())
        await check(tab)
        await tab.ask()
        await tab.until_words(5)
        await check(tab)
        await tab.by("stop").click()
        await tab.until("cancelled")
        await check(tab)
        await tab.by("source-1").click()
        await expect(tab.by("source-panel")).to_be_visible()
        await check(tab)
        await tab.page.keyboard.press("Escape")
        await tab.page.set_viewport_size({"width": 390, "height": 844})
        await tab.page.get_by_role("button", name="Show conversations").click()
        await expect(tab.by("new-chat")).to_be_in_viewport()
        await check(tab)
        await tab.page.route("**/chat/stream", lambda route: route.abort("accessdenied"))
        tab.expect_trouble("net::ERR_")
        await tab.by("new-chat").click()
        await tab.ask()
        await expect(tab.by("error")).to_be_visible()
        await check(tab)
        await visitor.check()
