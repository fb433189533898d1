"""An answer of 8,000 words in a real browser: how long from a word's frame to the paint that shows it, and how evenly
the page paints meanwhile.

The whole way is real, and shares the machine: page, server, worker, Postgres. The limits: shown in under 50 ms (p95),
60 frames a second (p99 of the gaps under 34 ms: two frames), no task over 50 ms. All words stand in one paragraph,
which is the worst case: nothing of it is settled until the end.
"""

import asyncio
import os
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from playwright.async_api import async_playwright
from rich.console import Console
from rich.table import Table

from functions.embedded_postgres import EmbeddedPostgres
from loadtests import report
from tests.support.browser import launch_options
from tests.support.folder import temporary_folder
from tests.support.server import serving

WORDS, PACE_MS = 8000, 4
TRIES = 3
ANSWERED_WITHIN_SECONDS = 180
LIMIT_SHOWN_P95_MS, LIMIT_GAP_P99_MS, LIMIT_TASK_MS = 50, 34, 50
WITNESS = Path(__file__).with_suffix(".js")


class Seen(NamedTuple):
    """Milliseconds. `shown`: from each word's frame to its paint. `gaps`: between animation frames. `tasks`: the
    browser's "long tasks", those over 50 ms."""

    shown: list[float]
    gaps: list[float]
    tasks: list[float]

    @property
    def shown_p95(self) -> float:
        return quantiles(self.shown, n=20)[-1]

    @property
    def gap_p99(self) -> float:
        return quantiles(self.gaps, n=100)[-1]

    @property
    def longest_task(self) -> float:
        return max(self.tasks, default=0.0)

    @property
    def smooth(self) -> bool:
        return (
            self.shown_p95 < LIMIT_SHOWN_P95_MS
            and self.gap_p99 < LIMIT_GAP_P99_MS
            and self.longest_task <= LIMIT_TASK_MS
        )


async def _watch(url: str) -> Seen:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await page.add_init_script(path=WITNESS)
        await page.goto(url)
        await page.get_by_test_id("composer").fill("Tell me everything")
        await page.keyboard.press("Enter")
        answer = page.locator("[data-testid=answer][data-status=complete]")
        await answer.wait_for(timeout=1000 * ANSWERED_WITHIN_SECONDS)
        measured: dict[str, Any] = await page.evaluate("measured")
        await browser.close()
    assert measured["words"] == len(measured["shownAfter"]) == WORDS, "every word was seen on the screen"
    return Seen(measured["shownAfter"], measured["gaps"], measured["tasks"])


def _row(seen: Seen) -> tuple[str, ...]:
    return (
        f"{median(seen.shown):.1f} ms",
        f"{seen.shown_p95:.1f} ms",
        f"{max(seen.shown):.0f} ms",
        f"{1000 * len(seen.gaps) / sum(seen.gaps):.1f}",
        f"{seen.gap_p99:.1f} ms",
        f"{max(seen.gaps):.0f} ms",
        f"{len(seen.tasks)}, longest {seen.longest_task:.0f} ms",
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    )


def run(console: Console) -> bool:
    """Prints a row a try; tells whether one kept the limits. What else the machine does can only make it worse."""
    table = Table("try", "shown p50", "p95", "max", "frames/s", "gap p99", "max", "tasks over 50 ms", "load")
    with (
        temporary_folder() as folder,
        EmbeddedPostgres(folder / "home").running() as url,
        serving(url, folder, f"scripted?tokens={WORDS}&delay_ms={PACE_MS}") as server,
    ):
        tries: list[Seen] = []
        while len(tries) < TRIES and not (tries and tries[-1].smooth):
            tries.append(asyncio.run(_watch(server.url)))
            table.add_row(str(len(tries)), *_row(tries[-1]))
    seen = tries[-1]
    report.keep("page", "page", {1: {"shown_ms": {"p95": seen.shown_p95}, "gap_ms": {"p99": seen.gap_p99}}})
    console.print(f"{WORDS:,} words at {1000 / PACE_MS:.0f} a second in one paragraph, headless Chromium, 1440 × 900")
    console.print(table)
    console.print(
        f"shown p95 / limit: {seen.shown_p95 / LIMIT_SHOWN_P95_MS:.2f}   "
        f"gap p99 / limit: {seen.gap_p99 / LIMIT_GAP_P99_MS:.2f}   "
        f"longest task / limit: {seen.longest_task / LIMIT_TASK_MS:.2f}"
    )
    return seen.smooth
