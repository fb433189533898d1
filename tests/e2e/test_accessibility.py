"""axe finds nothing to object to, in any state of the page, light or dark, wide or narrow."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import Route, ViewportSize, expect

from tests.e2e.visitor import NETWORK, Tab, Visitor
from tests.support.server import Server
from tests.support.transcripts import FOLDER, SESSION

pytestmark = pytest.mark.asyncio(loop_scope="session")
AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const { violations } = await axe.run({ resultTypes: ['violations'] })
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target).join(', ')}`)
}"""
GO = """path => {
  history.pushState(null, '', path)
  dispatchEvent(new PopStateEvent('popstate'))
}"""
SNAPSHOTS = sorted(path.name.removesuffix(".snapshot.json") for path in FOLDER.glob("*.snapshot.json"))
PHONE: ViewportSize = {"width": 390, "height": 844}


async def check(tab: Tab) -> None:
    """Light and dark."""
    for scheme in ("light", "dark"):
        await tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert await tab.page.evaluate(RUN) == [], scheme


async def opened(server: Server, visitor: Visitor, path: str = "") -> Tab:
    tab = await visitor.open(server.url + path)
    await tab.page.evaluate(AXE.read_text())
    return tab


@pytest.mark.parametrize("size", [None, PHONE], ids=["wide", "phone"])
async def test_axe_has_no_objection_to_any_state_of_a_conversation(
    brisk: Server, visitor: Visitor, size: ViewportSize | None
) -> None:
    """The golden transcripts' snapshots: answered, running, stopped, failed, an emergency, another graph …"""
    tab = await opened(brisk, visitor)
    if size:
        await tab.page.set_viewport_size(size)
    shown: dict[str, object] = {}

    async def snapshot(route: Route) -> None:
        await route.fulfill(json=shown)

    await tab.page.route("**/sessions/*", snapshot)
    await tab.page.route("**/chat/stream/*", lambda route: None)  # a running answer stays as it is
    for number, name in enumerate(SNAPSHOTS):
        session_id = f"{str(SESSION)[:-2]}{number:02}"
        shown |= json.loads((FOLDER / f"{name}.snapshot.json").read_text()) | {"session_id": session_id}
        await tab.page.evaluate(GO, f"/c/{session_id}")
        await expect(tab.by("user-message").first).to_be_visible()
        for summary in await tab.by("summary").locator("summary").all():
            await summary.click()
        await check(tab)
    await visitor.leave()


async def test_axe_has_no_objection_to_what_opens_over_a_conversation(brisk: Server, visitor: Visitor) -> None:
    tab = await opened(brisk, visitor)
    await check(tab)
    await tab.ask()
    await tab.until("complete")
    await tab.by("source-1").click()
    await expect(tab.by("source-panel")).to_be_visible()
    await check(tab)
    await tab.page.keyboard.press("Escape")
    await tab.button("Edit and ask again").click()
    await check(tab)
    await tab.page.keyboard.press("Escape")
    await tab.by("session-item").hover()
    await tab.page.get_by_role("button", name="Rename").click()
    await check(tab)
    await tab.page.keyboard.press("Escape")
    await tab.by("session-item").hover()
    await tab.page.get_by_role("button", name="Delete").click()
    await expect(tab.by("confirm-delete")).to_be_visible()
    await check(tab)
    await tab.page.keyboard.press("Escape")
    await tab.button("Keyboard shortcuts").click()
    await expect(tab.page.get_by_role("dialog")).to_be_visible()
    await check(tab)
    await tab.page.keyboard.press("Escape")
    await tab.page.set_viewport_size(PHONE)
    await tab.by("source-1").click()
    await check(tab)
    await tab.page.keyboard.press("Escape")
    await tab.button("Show conversations").click()
    await expect(tab.by("new-chat")).to_be_in_viewport()
    await check(tab)


async def test_axe_has_no_objection_to_what_went_wrong(brisk: Server, visitor: Visitor) -> None:
    tab = await opened(brisk, visitor)
    tab.expect_trouble(NETWORK)
    tab.expect_trouble("status of (404|503)")
    await tab.ask()
    await tab.until("complete")
    await tab.by("composer").fill("half a thought")
    async with visitor.person() as person:
        assert (await person.client.delete(f"{brisk.url}/sessions/{tab.session_id}")).is_success
    await expect(tab.by("error")).to_contain_text("not here")
    await expect(tab.by("user-message")).to_have_count(0)
    new_chat = tab.by("error").get_by_role("button", name="New chat")
    await expect(new_chat).to_be_focused()
    await check(tab)
    await new_chat.click()
    await expect(tab.by("composer")).to_have_value("half a thought")

    await tab.page.route("**/chat/stream", lambda route: route.fulfill(status=503, headers={"Retry-After": "0"}))
    await tab.ask()
    await expect(tab.by("error")).to_be_visible()
    await check(tab)
    await tab.page.evaluate(GO, f"/c/{uuid4()}")
    await expect(tab.by("error")).to_contain_text("not here")
    await check(tab)
    running = json.loads((FOLDER / "answering.snapshot.json").read_text())
    await tab.page.route("**/sessions/*", lambda route: route.fulfill(json=running))
    await tab.page.route("**/chat/stream/*", lambda route: route.abort())
    await tab.page.evaluate(GO, f"/c/{SESSION}")
    await expect(tab.by("connection")).to_have_attribute("data-state", "lost")
    await check(tab)
    await visitor.leave()
