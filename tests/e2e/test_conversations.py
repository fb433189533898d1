"""What a person does with an answer, and with the conversations that they have had."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.async_api import Browser, Request, TimeoutError, expect

from tests.conftest import Say
from tests.e2e.visitor import NETWORK, Visitor, visiting
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")
FOUND = re.compile(r"^Searched 3 passages, 3 chosen · \S+ m?s$")
LIST = re.compile(r"/sessions$")
LATE_MS = 500  # five times as long as the page collects changes of the list before it reads it
MOST_GROWN_A_TURN = {"JSHeapUsedSize": 60_000, "Nodes": 120}  # bytes; a turn stays on the screen
MOST_LISTENERS = 25  # beside those of the turns; a tail has 19
# React hangs an empty listener on every button, and one for its unfolding on every <details>.
CONTROLS = """
  document.querySelectorAll(':is([data-testid=user-message], [data-testid=answer]) :is(button, details)').length"""
ASK_ON = """async ([from, to]) => {
  const field = document.querySelector('[data-testid=composer]')
  const write = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set
  for (let number = from; number < to; number += 1) {
    write.call(field, `Question ${number}: what helps against it?`)
    field.dispatchEvent(new Event('input', { bubbles: true }))
    while (!document.querySelector('[data-testid=send]:enabled')) await new Promise((next) => setTimeout(next, 5))
    document.querySelector('[data-testid=send]').click()
    const answered = () => document.querySelectorAll('[data-testid=answer][data-status=complete]').length
    while (answered() <= number) await new Promise((next) => setTimeout(next, 5))
  }
  return witness.streams.filter(({ closed }) => closed === null)
}"""


async def test_an_answer_keeps_its_stages_and_the_readers_vote(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask()
    await tab.until("complete")
    async with tab.page.expect_response("**/feedback") as stored:
        await tab.button("Helpful").click()
    assert (await stored.value).ok
    for _ in range(2):
        await expect(tab.by("summary").locator("summary")).to_have_text(FOUND)
        await expect(tab.by("summary").locator("summary")).to_have_attribute("title", re.compile(r"^Ended .*20\d\d"))
        await expect(tab.by("stage-generation")).to_be_hidden()
        await tab.by("summary").locator("summary").click()
        for stage in ("retrieval", "reranking", "generation"):
            await expect(tab.by(f"stage-{stage}")).to_have_attribute("data-state", "done")
            await expect(tab.by(f"stage-{stage}").locator(".duration")).to_have_text(re.compile(r"^\d\S* m?s$"))
        await expect(tab.button("Helpful")).to_have_attribute("aria-pressed", "true")
        await expect(tab.button("Not helpful")).to_have_attribute("aria-pressed", "false")
        await tab.page.reload()


async def test_the_last_question_is_asked_again_and_in_other_words(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask("One?")
    await tab.until("complete")
    turns = [await tab.answer.get_attribute("data-turn")]
    await tab.button("Answer again").press("Enter")
    await expect(tab.by("composer")).to_be_focused()
    await expect(tab.answer).not_to_have_attribute("data-turn", turns[-1] or "")
    await tab.until("complete")
    await expect(tab.by("user-message")).to_have_text(re.compile("One\\?"))

    await tab.by("composer").press("ArrowUp")
    editor = tab.page.get_by_label("Edit your question")
    await expect(editor).to_be_focused()
    await editor.press("Escape")
    await expect(tab.by("composer")).to_be_focused()
    await tab.button("Edit and ask again").click()
    await editor.fill("Two?")
    await tab.page.reload()
    await expect(editor).to_have_value("Two?")
    await editor.press("Enter")
    await expect(tab.by("user-message")).to_have_text(re.compile("Two\\?"))
    await tab.until("complete")
    await expect(tab.by("answer")).to_have_count(1)
    await expect(tab.by("user-message")).to_have_count(1)
    async with visitor.person() as person:
        snapshot = await person.snapshot(brisk.url, tab.session_id)
        frames = await person.read(brisk.url, tab.session_id)
    assert [message["content"] for message in snapshot["messages"]][:1] == ["Two?"]
    assert len(snapshot["messages"]) == 2
    assert frames[0].data["turn_id"] == turns[0], "the log keeps what was replaced"


async def test_an_answer_is_copied_as_it_was_written(brisk: Server, visitor: Visitor) -> None:
    await visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = await visitor.open(brisk.url)
    await tab.ask()
    text = await tab.until("complete")
    await tab.by("copy").click()
    await expect(tab.button("Copied")).to_be_visible()
    assert (await tab.page.evaluate("navigator.clipboard.readText()")).strip() == text.strip()


async def test_a_conversation_is_exported_as_markdown(brisk: Server, visitor: Visitor, tmp_path: Path) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask("What helps?")
    text = await tab.until("complete")
    await expect(tab.page).to_have_title(re.compile("What helps"))
    async with tab.page.expect_download() as download:
        await tab.by("export").click()
    assert (await download.value).suggested_filename == "What-helps.md"
    await (await download.value).save_as(tmp_path / "export.md")
    written = (tmp_path / "export.md").read_text()
    assert written.startswith("# What helps?\n")
    for part in ("## Question\n\nWhat helps?", f"## Answer\n\n{text.strip()}", "1. Scripted passage 1"):
        assert part in written


async def test_conversations_are_found_renamed_and_deleted_for_good(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await expect(tab.by("example")).not_to_have_count(0)
    async with visitor.person() as person:
        about = {word: (await person.start(brisk.url, f"About {word}"))["session_id"] for word in ("iron", "sleep")}
    await tab.page.reload()
    items = tab.by("session-item")
    await expect(items).to_have_text([re.compile("About sleep"), re.compile("About iron")])

    await tab.page.keyboard.press("Alt+k")
    await expect(tab.by("session-search")).to_be_focused()
    await tab.page.keyboard.type("IRON")
    await expect(items).to_have_text([re.compile("About iron")])
    await tab.by("session-search").fill("")
    await expect(items).to_have_count(2)

    await items.filter(has_text="iron").get_by_role("link").click()
    await tab.until("complete")
    assert tab.session_id == about["iron"]
    await items.filter(has_text="iron").hover()
    await tab.button("Rename “About iron”").click()
    await tab.page.get_by_label("Title", exact=True).fill("Ferritin")
    await tab.page.keyboard.press("Enter")
    for _ in range(2):
        await expect(items.filter(has_text="Ferritin")).to_have_count(1)
        await expect(tab.page.get_by_role("heading", level=1)).to_have_text("Ferritin")
        await expect(tab.page).to_have_title("Ferritin – Pulseline")
        await tab.page.reload()

    await items.filter(has_text="Ferritin").hover()
    await tab.button("Delete “Ferritin”").click()
    await tab.button("Keep it").click()
    await expect(items).to_have_count(2)
    await tab.button("Delete “Ferritin”").click()
    await tab.by("confirm-delete").click()
    await expect(items).to_have_text([re.compile("About sleep")])
    await expect(tab.by("example").first).to_be_visible()
    async with visitor.person() as person:
        assert (await person.client.get(f"{brisk.url}/sessions/{about['iron']}")).status_code == 404

    await items.hover()
    await tab.button("Delete “About sleep”").click()
    await tab.by("confirm-delete").click()
    await expect(items).to_have_count(0)
    await expect(tab.by("new-chat")).to_be_focused()


async def test_a_new_title_stays_while_the_list_is_searched(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask("Old words")
    await tab.until("complete")
    await tab.page.reload()
    await tab.until("complete")
    await tab.by("session-item").hover()
    await tab.page.get_by_role("button", name="Rename").click()
    await tab.page.get_by_label("Title", exact=True).fill("Ferritin")
    await tab.page.keyboard.press("Enter")
    await expect(tab.by("session-item").get_by_role("link", name="Ferritin")).to_be_focused()
    await tab.by("session-search").fill("zzz")
    await expect(tab.by("session-item")).to_have_count(0)
    await expect(tab.page.get_by_role("heading", level=1)).to_have_text("Ferritin")


async def test_the_mark_of_a_running_answer_goes_out_when_it_ends_elsewhere(endless: Server, visitor: Visitor) -> None:
    tab = await visitor.open(endless.url)
    await tab.ask()
    await tab.until_words(2)
    item, session_id = tab.by("session-item").first, tab.session_id
    await expect(item).to_have_attribute("data-running", "true")
    await tab.by("new-chat").click()
    async with visitor.person() as person:
        await person.cancel(endless.url, session_id)
    await expect(item).to_have_attribute("data-running", "false")


async def test_older_conversations_stay_unfolded_after_an_answer(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await expect(tab.by("example").first).to_be_visible()
    async with visitor.person() as person:
        for number in range(52):
            await person.start(brisk.url, f"Number {number}")
    await tab.page.reload()
    await expect(tab.by("session-item")).to_have_count(50)
    await tab.button("Show older").click()
    await expect(tab.by("session-item")).to_have_count(52)
    await expect(tab.by("session-item").last.get_by_role("link")).to_be_focused()
    async with tab.page.expect_response(re.compile(r"/sessions\?before=")):
        await tab.ask("One more")
        await tab.until("complete")
    await expect(tab.by("session-item")).to_have_count(53)


async def test_a_vote_that_could_not_be_stored_is_taken_back_with_a_word(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    tab.expect_trouble(NETWORK)
    await tab.ask()
    await tab.until("complete")
    await tab.page.route("**/feedback", lambda route: route.abort())
    await tab.button("Helpful").click()
    await expect(tab.answer.get_by_role("alert")).to_contain_text("could not be stored")
    await expect(tab.button("Helpful")).to_have_attribute("aria-pressed", "false")


async def test_a_link_and_the_back_button_lead_to_a_conversation(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.by("example").first.click()
    await expect(tab.by("composer")).to_be_focused()
    text = await tab.until("complete")
    address = tab.page.url
    await tab.page.keyboard.press("Alt+n")
    await expect(tab.by("example").first).to_be_visible()
    assert tab.page.url != address
    await tab.page.go_back()
    assert await tab.until("complete") == text
    other = await visitor.open(address)
    assert await other.until("complete") == text


async def test_a_draft_survives_a_reload_and_belongs_to_its_conversation(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await tab.ask()
    await tab.until("complete")
    await tab.by("composer").fill("And what about")
    await tab.page.reload()
    await expect(tab.by("composer")).to_have_value("And what about")
    await tab.by("new-chat").click()
    await expect(tab.by("composer")).to_have_value("")


async def test_a_turn_reads_the_list_of_conversations_at_most_twice(brisk: Server, visitor: Visitor) -> None:
    tab = await visitor.open(brisk.url)
    await expect(tab.page.get_by_text("Your conversations will be kept here.")).to_be_visible()
    reads: list[str] = []

    def note(request: Request) -> None:
        if LIST.search(request.url):
            reads.append(request.url)

    tab.page.on("request", note)
    await tab.ask()
    await tab.until("complete")
    await expect(tab.by("session-item")).to_have_attribute("data-running", "false")
    with suppress(TimeoutError):
        # The first read may know of the end before the page does, and the second then comes after it.
        while len(reads) <= 2:
            async with tab.page.expect_request(LIST, timeout=LATE_MS):
                pass
    assert 1 <= len(reads) <= 2


async def test_another_device_shows_and_stops_a_turn_that_was_started_elsewhere(
    endless: Server, visitor: Visitor, browser: Browser
) -> None:
    here = await visitor.open(endless.url)
    await here.ask("First")
    await here.until_words(1)
    await here.by("stop").click()
    await here.until("cancelled")
    async with visiting(browser, storage_state=await visitor.context.storage_state()) as elsewhere:
        there = await elsewhere.open(here.page.url)
        await there.until("cancelled")
        await here.ask("Second")
        await expect(there.by("user-message").last).to_contain_text("Second")
        await there.until_words(5)
        await there.by("stop").click()
        await expect(here.by("answer")).to_have_count(2)
        assert await there.until("cancelled") == await here.until("cancelled")
        await expect(there.by("answer")).to_have_count(2)
        assert await there.page.evaluate("performance.getEntriesByType('navigation').length") == 1
        await elsewhere.check()


async def test_fifty_questions_leave_nothing_behind_but_themselves(brisk: Server, visitor: Visitor, say: Say) -> None:
    tab = await visitor.open(brisk.url)
    cdp = await visitor.context.new_cdp_session(tab.page)
    await cdp.send("Performance.enable")

    async def held() -> dict[str, float]:
        await tab.hide()  # whatever the page waits for, it has no connection now
        await tab.page.evaluate("witness.forget()")
        await cdp.send("HeapProfiler.collectGarbage")
        metrics = (await cdp.send("Performance.getMetrics"))["metrics"]
        controls = await tab.page.evaluate(CONTROLS)
        return {"controls": controls} | {metric["name"]: metric["value"] for metric in metrics}

    await tab.page.evaluate(ASK_ON, [0, 5])
    before = await held()
    await tab.hide(False)
    assert await tab.page.evaluate(ASK_ON, [5, 55]) == [], "no connection is open before the page waits for others"
    after = await held()
    await expect(tab.by("user-message")).to_have_count(55)
    a_turn = {name: (after[name] - before[name]) / 50 for name in MOST_GROWN_A_TURN}
    controls = after["controls"] - before["controls"]
    listeners = after["JSEventListeners"] - before["JSEventListeners"] - controls
    say(f"the page for each of 50 more questions: {a_turn}, {controls / 50} controls; {listeners:.0f} other listeners")
    assert all(a_turn[name] < most for name, most in MOST_GROWN_A_TURN.items()), a_turn
    assert listeners < MOST_LISTENERS
