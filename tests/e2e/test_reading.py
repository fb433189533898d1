"""Reading, while words arrive and after: by keyboard, on a phone, in any script, and nothing moves under the eyes."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, ViewportSize, expect

from tests.e2e.visitor import Tab, Visitor, visiting
from tests.support.server import Server
from tests.support.transcripts import FOLDER, SESSION

pytestmark = pytest.mark.asyncio(loop_scope="session")
PHONE: ViewportSize = {"width": 390, "height": 844}
LAPTOP: ViewportSize = {"width": 1366, "height": 768}
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
WIDE: ViewportSize = {"width": 2200, "height": 1200}
LOW: ViewportSize = {"width": 390, "height": 500}
DISTANCE = "box => box.scrollHeight - box.scrollTop - box.clientHeight"
FOCUS_PLACE = "document.activeElement.closest('aside, main')?.tagName"
COUNT_FOCUS = """() => {
  witness.focused = []
  document.addEventListener('focusin', (event) => witness.focused.push(event.target.dataset.testid))
}"""
PLACE = """part => {
  const { x, y, width, height } = part.getBoundingClientRect()
  return [x, y, width, height]
}"""
TABLE_AND_CODE = """| Medicine | Adults | Children over 12 | Notes |
|---|---|---|---|
| Paracetamol | 500–1000 mg | 500 mg | Every 4–6 hours, at most 4 g a day |

```
dose = weight_kg * 15
```
"""
LINES = """cell => {
  const words = document.createRange()
  words.selectNodeContents(cell)
  return words.getClientRects().length
}"""
PREVENTED = """key => {
  const press = new KeyboardEvent('keydown', { ...key, altKey: true, bubbles: true, cancelable: true })
  return !document.activeElement.dispatchEvent(press)
}"""
ANIMATED = "document.getAnimations().length > 0"


async def test_the_keyboard_does_everything(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await expect(tab.by("composer")).to_be_focused()
    await tab.page.keyboard.type("A line")
    await tab.page.keyboard.press("Shift+Enter")
    await tab.page.keyboard.type("and another")
    await tab.page.keyboard.press("Enter")
    await expect(tab.by("user-message")).to_contain_text("A line\nand another", use_inner_text=True)
    await tab.until_words(3)
    await tab.page.keyboard.press("Escape")
    await tab.until("cancelled")
    await expect(tab.by("composer")).to_be_focused()

    await tab.by("composer").blur()
    await tab.page.keyboard.press("?")
    dialog = tab.page.get_by_role("dialog", name="Keyboard shortcuts")
    await expect(dialog).to_be_visible()
    for does in ("Send the question", "stop the answer", "New chat", "Search conversations"):
        await expect(dialog).to_contain_text(does)
    await tab.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await tab.page.keyboard.press("/")
    await expect(tab.by("composer")).to_be_focused()
    assert await tab.by("composer").input_value() == ""

    await tab.by("source-2").focus()
    await tab.page.keyboard.press("Enter")
    await expect(tab.by("source-panel").locator("[aria-current=true]")).to_be_focused()
    await tab.page.keyboard.press("Escape")
    await expect(tab.by("source-2")).to_be_focused()

    await tab.page.set_viewport_size(DESKTOP)
    await tab.page.keyboard.press("Enter")
    await expect(tab.by("source-panel")).to_be_visible()
    await tab.button("Answer again").click()
    await expect(tab.by("composer")).to_be_focused()
    await tab.until_words(1)
    await expect(tab.by("source-panel")).to_have_count(0)
    await tab.page.keyboard.press("Escape")
    await tab.until("cancelled")


async def test_the_keyboard_stays_in_the_list_that_lies_over_a_phones_chat(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.page.set_viewport_size(PHONE)
    await tab.button("Show conversations").focus()
    await tab.page.keyboard.press("Enter")
    await expect(tab.button("Hide conversations")).to_be_focused()
    for key in ["Tab"] * 5 + ["Shift+Tab"] * 7:
        await tab.page.keyboard.press(key)
        assert await tab.page.evaluate(FOCUS_PLACE) in ("ASIDE", None), "or outside of the page"
    await tab.by("session-search").focus()
    await tab.page.keyboard.press("Escape")
    await expect(tab.button("Show conversations")).to_be_focused()
    await tab.page.keyboard.press("Tab")
    assert await tab.page.evaluate(FOCUS_PLACE) == "MAIN"
    await tab.button("Show conversations").click()
    await expect(tab.button("Hide conversations")).to_be_focused()
    for spoken in ("announcer", "alarm"):
        assert await tab.by(spoken).evaluate("voice => voice.closest('[inert]') === null")
    await tab.page.mouse.click(PHONE["width"] - 5, PHONE["height"] / 2)
    await expect(tab.button("Show conversations")).to_be_focused()


async def test_option_and_n_write_a_letter_in_a_text_field_and_begin_a_chat_elsewhere(
    brisk: Server, visitor: Visitor
) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask()
    await tab.until("complete")
    await expect(tab.by("composer")).to_be_focused()
    assert not await tab.page.evaluate(PREVENTED, {"key": "ń", "code": "KeyN"})
    await expect(tab.by("answer")).to_have_count(1)
    await tab.by("composer").blur()
    assert await tab.page.evaluate(PREVENTED, {"key": "ń", "code": "KeyN"})
    await expect(tab.by("answer")).to_have_count(0)
    await expect(tab.by("composer")).to_be_focused()


async def test_escape_in_the_search_field_empties_it_and_stops_no_answer(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await tab.ask()
    await tab.until_words(3)
    await tab.page.keyboard.press("Alt+k")
    await expect(tab.by("session-search")).to_be_focused()
    await tab.page.keyboard.type("iron")
    await tab.page.keyboard.press("Escape")
    await expect(tab.by("session-search")).to_have_value("")
    await expect(tab.by("stop")).to_be_enabled()
    await tab.by("composer").click()
    await tab.page.keyboard.press("Escape")
    await tab.until("cancelled")


async def roll(tab: Tab) -> None:
    await tab.page.mouse.move(200, 200)
    await tab.page.mouse.wheel(0, -60)


async def press(tab: Tab) -> None:
    await tab.page.mouse.click(200, 200)
    await tab.page.keyboard.press("ArrowUp")


async def drag(tab: Tab) -> None:
    cdp = await tab.page.context.new_cdp_session(tab.page)
    for kind, y in (("touchStart", 150), *(("touchMove", y) for y in range(155, 301, 5))):
        await cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": 200, "y": y}]})
    await cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


async def test_whoever_reads_above_is_left_there_and_whoever_is_at_the_end_is_taken_along(
    endless: Server, browser: Browser
) -> None:
    """However little one moves up, and however slowly: only who comes back to the end is taken along again."""
    async with visiting(browser, viewport=LOW, has_touch=True) as visitor:
        tab = await visitor.open(endless.url)
        scroller, jump = tab.page.locator(".scroller"), tab.button("Jump to the latest")
        await tab.ask()
        await tab.until_words(200)
        for move_up in (drag, roll, press):
            assert await scroller.evaluate(DISTANCE) < 2
            await move_up(tab)
            await expect(jump).to_be_visible()
            await tab.more_words(20)
            place = await scroller.evaluate("box => box.scrollTop")
            await tab.more_words(20)
            assert await scroller.evaluate("box => box.scrollTop") == place, move_up
            await (tab.page.mouse.wheel(0, 100_000) if move_up is roll else jump.click())
            await expect(jump).to_have_count(0)
            await tab.more_words(20)
        assert await scroller.evaluate(DISTANCE) < 2
        await tab.by("stop").click()
        await tab.until("cancelled")
        await visitor.check()


async def place_of(part: Locator) -> Any:
    return await part.evaluate(PLACE)


@pytest.mark.parametrize("size", [LAPTOP, DESKTOP, WIDE, PHONE], ids=["laptop", "desktop", "wide", "phone"])
async def test_opening_a_source_moves_nothing_that_is_read(brisk: Server, visitor: Visitor, size: ViewportSize) -> None:
    tab = await visitor.open(brisk.url)
    await tab.page.set_viewport_size(size)
    await tab.ask()
    await tab.until("complete")
    parts = [tab.by("user-message"), tab.answer.get_by_test_id("answer-text"), tab.by("source-1"), tab.by("composer")]
    before = [await place_of(part) for part in parts]
    await tab.by("source-1").click()
    panel = tab.by("source-panel")
    await expect(panel).to_be_visible()
    assert [await place_of(part) for part in parts] == before
    x, _, width, _ = await place_of(panel)
    assert x + width == size["width"]
    if size is PHONE:
        assert x == 0, "a sheet"
    else:
        assert all(part[0] + part[2] <= x for part in before), "beside what is read"
    await tab.button("Close sources").click()
    await expect(panel).to_have_count(0)
    assert [await place_of(part) for part in parts] == before


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_end_of_an_answer_moves_neither_the_page_nor_the_focus(
    server: Server, worker: Server, visitor: Visitor, size: ViewportSize
) -> None:
    tab = await visitor.open(server.url)
    await tab.page.set_viewport_size(size)
    await tab.ask()
    await tab.until_words(3)
    parts = [tab.page.locator(".bubble"), tab.answer, tab.answer.get_by_test_id("answer-text")]
    with worker.held():
        await tab.page.evaluate(COUNT_FOCUS)
        before = [(await place_of(part))[:3] for part in parts]
    await tab.by("stop").click()
    await tab.until("cancelled")
    await expect(tab.button("Edit and ask again")).to_be_attached()
    assert [(await place_of(part))[:3] for part in parts] == before
    await expect(tab.by("composer")).to_be_focused()
    assert await tab.page.evaluate("witness.focused") == ["stop", "composer"]


async def test_words_in_a_table_stay_whole_on_a_phone_and_code_is_monospace(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.page.set_viewport_size(PHONE)
    written = json.loads((FOLDER / "answered.snapshot.json").read_text())
    written["messages"][-1]["content"] = TABLE_AND_CODE
    await tab.page.route("**/sessions/*", lambda route: route.fulfill(json=written))
    await tab.page.route("**/chat/stream/*", lambda route: None)  # the server does not know it
    await tab.page.goto(f"{brisk.url}/c/{SESSION}")
    table = tab.page.locator(".table")
    await expect(table).to_be_visible()
    assert await table.evaluate("box => box.scrollWidth > box.clientWidth")
    assert await table.locator("td").first.evaluate(LINES) == 1
    assert "mono" in await tab.page.locator("pre code").evaluate("code => getComputedStyle(code).fontFamily")


async def test_text_from_right_to_left_stands_on_its_own_side(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask("ما هي أعراض نقص الحديد؟ ferritin")
    await tab.until("complete")
    heading = tab.page.get_by_role("heading", level=1)
    await expect(heading).to_contain_text("ferritin")
    sides = [
        await part.evaluate("part => getComputedStyle(part).direction")
        for part in (
            tab.page.locator(".bubble"),
            heading,
            tab.by("session-item").get_by_role("link"),
            tab.answer.get_by_test_id("answer-text").locator("p").first,
        )
    ]
    assert sides == ["rtl", "rtl", "rtl", "ltr"]


@pytest.mark.parametrize(("motion", "moves"), [("no-preference", True), ("reduce", False)])
async def test_nothing_moves_for_those_who_asked_for_less_motion(
    endless: Server, browser: Browser, motion: str, moves: bool
) -> None:
    async with visiting(browser, reduced_motion=motion) as visitor:
        tab = await visitor.open(endless.url)
        await tab.ask()
        await tab.until_words(2)
        assert await tab.page.evaluate(ANIMATED) is moves
        await tab.by("stop").click()
        await tab.until("cancelled")
        await visitor.check()


async def test_an_emergency_cannot_be_taken_for_an_answer(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.page.set_viewport_size(PHONE)
    await tab.ask("I have crushing chest pain and my left arm is numb")
    await tab.until("complete")
    card = tab.by("emergency")
    await expect(card.get_by_role("heading", name="Get help now")).to_be_in_viewport()
    for call in await card.get_by_role("link", name="Call").all():
        await expect(call).to_be_in_viewport()
        assert re.fullmatch(r"tel:\d+", await call.get_attribute("href") or "")
    await expect(tab.by("alarm")).to_have_text("This may be an emergency. Get help now.")
    await expect(tab.by("announcer")).to_have_text("")
    await expect(tab.by("summary")).to_have_count(0)
    await expect(tab.page.get_by_text("Not a diagnosis, and not for emergencies")).to_be_visible()
