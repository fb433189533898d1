"""A person with a browser: what they do, what they see, and what went wrong behind it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Locator, Page, Request, expect

from tests.support.client import Person

WITNESS = Path(__file__).with_name("witness.js")
DEADLINE_SECONDS = 15.0
QUESTION = "What are the symptoms of iron deficiency?"
NETWORK = r"net::ERR_|status of 502"  # the tests' proxy says 502 while its server is away
TAIL = re.compile(r"/chat/stream/[^/]+\?after=\d+$")
WATCH = re.compile(r"/chat/stream/[^/]+\?after=\d+&follow=session$")
Status = Literal["running", "complete", "cancelled", "error"]

expect.set_options(timeout=DEADLINE_SECONDS * 1000)


class Tab:
    """`troubles` are console messages and uncaught exceptions that no test expected. `tails` are all requests that
    follow a turn, and `nothing_open` is set while none of them is open; `watches` wait for the next turn.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        self.tails: list[Request] = []
        self.watches: list[Request] = []
        self.nothing_open = asyncio.Event()
        self._tailed = asyncio.Event()
        self._open: set[Request] = set()
        self._expected: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", self._raised)
        page.on("request", self._requested)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def expect_trouble(self, pattern: str) -> None:
        """What the browser itself says of a network that the test cuts, or of a refusal that it provokes."""
        self._expected.append(pattern)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(re.search(known, message.text) for known in self._expected):
            self.troubles.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _raised(self, error: Error) -> None:
        self.troubles.append(f"uncaught: {error}")

    def _requested(self, request: Request) -> None:
        if WATCH.search(request.url):
            self.watches.append(request)
        if TAIL.search(request.url):
            self.tails.append(request)
            self._open.add(request)
            self.nothing_open.clear()
            self._tailed.set()

    def _ended(self, request: Request) -> None:
        self._open.discard(request)
        if not self._open:
            self.nothing_open.set()

    async def until_tails(self, count: int) -> None:
        """Waits for so many requests of an EventSource."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.tails) < count:
                self._tailed.clear()
                await self._tailed.wait()

    def by(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    @property
    def answer(self) -> Locator:
        """The last one."""
        return self.by("answer").last

    @property
    def session_id(self) -> str:
        return self.page.url.rpartition("/c/")[2]

    async def ask(self, question: str = QUESTION) -> None:
        await self.by("composer").fill(question)
        await self.by("composer").press("Enter")

    async def until(self, status: Status) -> str:
        """Waits for the last answer to be so; gives its text."""
        await expect(self.answer).to_have_attribute("data-status", status)
        return await self.text()

    async def text(self) -> str:
        return await self.answer.get_by_test_id("answer-text").text_content() or ""

    async def until_words(self, count: int) -> str:
        """Waits for a running answer of the `scripted` model to have so many words; gives its text."""
        await expect(self.answer.get_by_test_id("answer-text")).to_contain_text(re.compile(rf"\bw{count - 1}\b"))
        await expect(self.answer).to_have_attribute("data-status", "running")
        return await self.text()

    async def more_words(self, count: int) -> str:
        return await self.until_words(len((await self.text()).split()) + count)

    async def hide(self, hidden: bool = True) -> None:
        await self.page.evaluate("hidden => witness.hide(hidden)", hidden)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def witnessed(self, what: Literal["texts", "stages", "notices", "violations", "streams", "gaps"]) -> Any:
        return await self.page.evaluate("what => witness[what]", what)

    async def check_text_only_grew(self) -> None:
        """Since the page was loaded, its one answer was at every moment a beginning of what it is now."""
        await expect(self.by("user-message")).to_have_count(1)
        await expect(self.by("answer")).to_have_count(1)
        turn_id = await self.answer.get_attribute("data-turn")
        whole = await self.text()
        texts = (await self.witnessed("texts"))[turn_id]
        assert all(whole.startswith(text) for text in texts), [t for t in texts if not whole.startswith(t)][:1]
        assert sorted(texts, key=len) == texts


class Visitor:
    """One owner: the tabs share their cookie."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.tabs: list[Tab] = []

    async def open(self, url: str) -> Tab:
        tab = Tab(await self.context.new_page())
        self.tabs.append(tab)
        await tab.page.goto(url)
        return tab

    async def check(self) -> None:
        for tab in self.tabs:
            violations = await tab.witnessed("violations")
            assert not tab.troubles + violations, (tab.troubles, violations)

    async def leave(self) -> None:
        """Closes the tabs, before a server of the test's own goes away under them."""
        await self.check()
        for tab in self.tabs:
            await tab.page.close()
        self.tabs.clear()

    @asynccontextmanager
    async def person(self) -> AsyncIterator[Person]:
        """The independent client, as the same owner."""
        async with Person() as person:
            for cookie in await self.context.cookies():
                person.client.cookies.set(cookie.get("name", ""), cookie.get("value", ""))
            yield person


@asynccontextmanager
async def visiting(browser: Browser, **options: Any) -> AsyncIterator[Visitor]:
    context = await browser.new_context(**options)
    context.set_default_timeout(DEADLINE_SECONDS * 1000)
    await context.add_init_script(path=WITNESS)
    try:
        yield Visitor(context)
    finally:
        await context.close()
