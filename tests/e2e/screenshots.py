"""Pictures of every state of the page, to be looked at: python -m tests.e2e.screenshots

They come to lie in test-results/screenshots/, named <state>-<size>-<scheme>.png. The database and the corpus stay in
test-results/home, so that the second time is quick.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psycopg
from playwright.async_api import Browser, ViewportSize, async_playwright, expect

from functions.embedded_postgres import EmbeddedPostgres
from tests.e2e.visitor import Tab, visiting
from tests.support.browser import launch_options
from tests.support.server import serving
from tests.support.transcripts import FOLDER, SESSION

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "test-results"
PICTURES = RESULTS / "screenshots"
SIZES: dict[str, ViewportSize] = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1440, "height": 900}}
SCHEMES = ("light", "dark")
MARKDOWN = """## Doses

Here is **bold**, *italics*, `inline code` and a [link](https://example.org/a/very/long/path/that/goes/on) [1].

| Medicine | Adults | Children over 12 | Notes that are long enough to wrap over several lines |
|:--|--:|:-:|---|
| Paracetamol | 500–1000 mg | 500 mg | Every 4–6 hours, at most 4 g a day, less with liver disease [1] |
| Ibuprofen | 200–400 mg | 200 mg | With food; not with stomach ulcers or kidney disease |

1. First step
   - nested one
   - nested two with `code`
2. Second step

> A quotation from a guideline, which may run over more than one line on a phone.

```python
def dose(weight_kg: float, per_kg_mg: float = 15.0, maximum_mg: float = 1000.0) -> float:
    return min(weight_kg * per_kg_mg, maximum_mg)
```
"""
MIXED_QUESTION = "מהם התסמינים של מחסור בברזל, והאם בדיקת ferritin לבדה מספיקה?\n\nIn English, please (not עברית)."
HEBREW = "מחסור בברזל גורם לעייפות [1]. בדיקת ferritin מראה כמה ברזל יש בגוף (15–30 µg/l).\n\n- ראשון [1]\n- second"
LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
HALF_WRITTEN = re.compile(".{300}", re.DOTALL)


class Servers(NamedTuple):
    product: str
    slow: str
    failing: str


async def empty(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await expect(tab.by("example").first).to_be_visible()


async def stages(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.slow)
    await tab.ask()
    await expect(tab.by("stage-reranking")).to_have_attribute("data-state", "active")


async def streaming(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.ask()
    await expect(tab.answer.get_by_test_id("answer-text")).to_have_text(HALF_WRITTEN)


async def done(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.ask()
    await tab.until("complete")
    await expect(tab.by("sources")).to_be_visible()
    await expect(tab.by("session-item").first).to_have_attribute("data-running", "false")


async def follow_up(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.ask("How is it treated?")
    await expect(tab.by("answer")).to_have_count(2)
    await tab.until("complete")


async def source(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.by("source-1").click()
    await expect(tab.by("source-panel")).to_be_visible()


async def unfolded(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.by("summary").locator("summary").click()
    await tab.by("user-message").scroll_into_view_if_needed()


async def judged(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.page.get_by_role("button", name="Helpful", exact=True).click()
    await tab.by("copy").click()


async def editing(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.page.get_by_role("button", name="Edit and ask again").click()


async def right_to_left(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.ask("ما هي أعراض نقص الحديد، وهل يكفي فحص ferritin وحده؟")
    await tab.until("complete")


async def shortcuts(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.by("composer").blur()
    await tab.page.keyboard.press("?")
    await expect(tab.page.get_by_role("dialog")).to_be_visible()


async def deletion(servers: Servers, tab: Tab) -> None:
    await conversations(servers, tab)
    await tab.page.get_by_role("button", name="Delete “How is high").click()
    await expect(tab.by("confirm-delete")).to_be_visible()


async def missing(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(f"{servers.product}/c/{uuid4()}")
    await expect(tab.by("error")).to_be_visible()


async def deleted_elsewhere(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.by("composer").fill("And what about")
    path = f"/sessions/{tab.session_id}"
    await tab.page.evaluate("path => fetch(path, { method: 'DELETE' })", path)
    await expect(tab.by("error")).to_contain_text("not here")


async def stop_offline(servers: Servers, tab: Tab) -> None:
    await offline(servers, tab)
    await tab.by("stop").click()
    await expect(tab.by("error")).to_contain_text("The stop is sent")
    await expect(tab.by("connection")).to_have_count(0)


async def unsent(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.page.context.set_offline(True)
    await tab.ask()
    await expect(tab.by("error")).to_contain_text("sent when you are back")
    await tab.ask("And how is it treated?")
    await expect(tab.by("user-message")).to_contain_text("treated")


async def unrenamed(servers: Servers, tab: Tab) -> None:
    await renaming(servers, tab)
    await tab.page.route("**/sessions/*", lambda route: route.fulfill(status=503))
    await tab.page.get_by_label("Title", exact=True).fill("Blood pressure")
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.locator(".sessions").get_by_role("alert")).to_be_visible()


async def uncopied(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.page.evaluate("() => { document.execCommand = () => false }")
    await tab.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject() }")
    await tab.by("copy").click()
    await expect(tab.answer.get_by_role("alert")).to_be_visible()


async def searching(servers: Servers, tab: Tab) -> None:
    await conversations(servers, tab)
    await tab.by("session-search").fill("blood")
    await expect(tab.by("session-item")).to_have_count(1)


async def renaming(servers: Servers, tab: Tab) -> None:
    await conversations(servers, tab)
    await tab.page.get_by_role("button", name="Rename “How is high").click()
    await expect(tab.page.get_by_label("Title", exact=True)).to_be_focused()


async def sending(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.page.route("**/chat/stream", lambda route: None)
    await tab.ask()
    await expect(tab.by("sending")).to_have_text(re.compile("."))


async def interrupted(servers: Servers, tab: Tab) -> None:
    await shown(servers, tab, "interrupted")
    await expect(tab.by("asked")).to_be_visible()


async def markdown(servers: Servers, tab: Tab) -> None:
    await shown(servers, tab, "answered", MARKDOWN)


async def mixed_directions(servers: Servers, tab: Tab) -> None:
    await shown(servers, tab, "answered", HEBREW, question=MIXED_QUESTION)


async def long_text(servers: Servers, tab: Tab) -> None:
    await shown(servers, tab, "answered", f"{LONG_WORD} [1] " * 3, question="And a long question. " * 40 + "x" * 300)


async def shown(servers: Servers, tab: Tab, transcript: str, answer: str = "", question: str = "") -> None:
    """A golden transcript's snapshot, with other words."""
    snapshot = json.loads((FOLDER / f"{transcript}.snapshot.json").read_text())
    snapshot["messages"][-1]["content"] = answer or snapshot["messages"][-1]["content"]
    snapshot["title"] = snapshot["messages"][0]["content"] = question or snapshot["messages"][0]["content"]
    await tab.page.route("**/sessions/*", lambda route: route.fulfill(json=snapshot))
    await tab.page.route("**/chat/stream/*", lambda route: None)
    await tab.page.goto(f"{servers.product}/c/{SESSION}")
    await expect(tab.by("user-message").first).to_be_visible()


async def lost(servers: Servers, tab: Tab) -> None:
    await streaming(servers, tab)
    await tab.page.route("**/*", lambda route: route.abort())
    await tab.page.evaluate("witness.source.close()")
    await tab.page.evaluate("witness.source.dispatchEvent(new Event('error'))")
    await expect(tab.by("connection")).to_be_visible()


async def stopped(servers: Servers, tab: Tab) -> None:
    await streaming(servers, tab)
    await tab.by("stop").click()
    await tab.until("cancelled")


async def failed(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.failing)
    await tab.ask()
    await tab.until("error")


async def unreachable(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.page.route("**/chat/stream", lambda route: route.abort())
    await tab.ask()
    await expect(tab.by("error")).to_be_visible()


async def offline(servers: Servers, tab: Tab) -> None:
    await streaming(servers, tab)
    await tab.page.evaluate("witness.source.close()")
    await tab.page.context.set_offline(True)
    await expect(tab.by("connection")).to_be_visible()


async def emergency(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.ask("I have crushing chest pain and my left arm is numb")
    await tab.until("complete")


async def abstained(servers: Servers, tab: Tab) -> None:
    await tab.page.goto(servers.product)
    await tab.ask("Which gearbox oil does a 1987 tractor need?")
    await tab.until("complete")


async def conversations(servers: Servers, tab: Tab) -> None:
    await done(servers, tab)
    await tab.by("new-chat").dispatch_event("click")
    await tab.ask("How is high blood pressure measured and treated? And what can I do myself, without any medicine?")
    await tab.until("complete")
    button = tab.page.get_by_role("button", name="Show conversations")
    if await button.is_visible():
        await button.click()
    await expect(tab.by("session-item").first).to_be_visible()


STATES: tuple[Callable[[Servers, Tab], Awaitable[None]], ...] = (
    empty,
    stages,
    streaming,
    done,
    follow_up,
    source,
    unfolded,
    judged,
    editing,
    right_to_left,
    stopped,
    failed,
    unreachable,
    offline,
    lost,
    missing,
    deleted_elsewhere,
    stop_offline,
    unsent,
    unrenamed,
    uncopied,
    searching,
    renaming,
    sending,
    interrupted,
    markdown,
    mixed_directions,
    long_text,
    emergency,
    abstained,
    conversations,
    deletion,
    shortcuts,
)


async def take_all(servers: Servers, wanted: list[str]) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        for state in STATES:
            if wanted and state.__name__ not in wanted:
                continue
            await asyncio.gather(*(take(browser, servers, state, size, scheme) for size in SIZES for scheme in SCHEMES))
        await browser.close()


async def take(
    browser: Browser, servers: Servers, state: Callable[[Servers, Tab], Awaitable[None]], size: str, scheme: str
) -> None:
    phone = size == "phone"
    async with visiting(
        browser,
        viewport=SIZES[size],
        color_scheme=scheme,
        reduced_motion="reduce",
        has_touch=phone,
        is_mobile=phone,
    ) as visitor:
        tab = await visitor.open("about:blank")
        await state(servers, tab)
        path = PICTURES / f"{state.__name__}-{size}-{scheme}.png"
        await tab.page.screenshot(path=path)
        print(path.relative_to(ROOT))


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        cluster = stack.enter_context(EmbeddedPostgres(RESULTS / "home").running())
        library = database(cluster, "library")
        ingest = [sys.executable, "-m", "functions", "ingest", "--starter"]
        subprocess.run(ingest, env={**os.environ, "DATABASE_URL": library}, check=True)

        def start(url: str, model: str, **settings: str) -> str:
            return stack.enter_context(serving(url, RESULTS, model, **settings)).url

        servers = Servers(
            start(library, "extractive"),
            start(database(cluster, "slow"), "scripted?tokens=60&delay_ms=20&stage_ms=700"),
            start(database(cluster, "silent"), "scripted?tokens=1&delay_ms=9000", FIRST_TOKEN_TIMEOUT_SECONDS="0.3"),
        )
        asyncio.run(take_all(servers, sys.argv[1:]))


def database(cluster_url: str, name: str) -> str:
    """Made at first use."""
    with psycopg.connect(cluster_url, autocommit=True) as connection, suppress(psycopg.errors.DuplicateDatabase):
        connection.execute(f"create database {name}".encode())
    head, _, query = cluster_url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


if __name__ == "__main__":
    main()
