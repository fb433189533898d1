"""A provider that fails at the wire: each failure has its code, the text so far is kept, and nothing of it leaks."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from graph.parts import Parts
from graph.provider import patient
from graph.red_flags import topic_line
from tests.support.openai_wire import Act, breaks, drips, fails, hangs, refuses, says, wire
from tests.support.workshop import code_of, content_of, workshop

FRAME_SECONDS = 2.0

FAILURES: dict[str, tuple[tuple[Act, ...], str, int, str]] = {
    "busy for good": ((refuses(429, retry_after="0.1"),), "model_rate_limited", 3, ""),
    "busy for longer than anyone waits": ((refuses(429, retry_after="60"),), "model_rate_limited", 1, ""),
    "no money left": ((refuses(429, "insufficient_quota"),), "model_unavailable", 1, ""),
    "broken": ((refuses(500),), "model_unavailable", 3, ""),
    "overloaded": ((refuses(529),), "model_unavailable", 3, ""),
    "its gateway waits in vain": ((refuses(504),), "model_timeout", 1, ""),
    "a wrong key": ((refuses(401),), "model_unavailable", 1, ""),
    "no such model": ((refuses(404),), "model_unavailable", 1, ""),
    "a refusal": ((refuses(400, "content_policy_violation"),), "model_refused", 1, ""),
    "a request that is wrong": ((refuses(400, "invalid_request_error"),), "graph_failed", 1, ""),
    "a refusal in mid-answer": ((says("Well,", " I", finish="content_filter"),), "model_refused", 1, "Well, I"),
    "cut before a word": ((breaks(),), "model_unavailable", 3, ""),
    "cut in mid-answer": ((breaks("Iron", " is"),), "model_unavailable", 1, "Iron is"),
    "an error in mid-answer": ((fails("Iron", code="server_error"),), "model_unavailable", 1, "Iron"),
    "busy in mid-answer": ((fails("Iron", code="rate_limit_exceeded"),), "model_rate_limited", 1, "Iron"),
    "nothing said": ((says(),), "model_unavailable", 3, ""),
}


async def test_each_failure_has_its_code_and_keeps_the_text(database_url: str) -> None:
    """Tried again only before the first token; from the last failure to the committed `error` in under two seconds."""
    async with wire(says("never")) as wired, workshop(database_url, wired) as shop:
        for name, (acts, code, calls, text) in FAILURES.items():
            wired.acts, wired.calls = list(acts), []
            turn = await shop.ask()
            end = (await shop.ended(turn))[-1]
            took = time.monotonic() - wired.calls[-1].over_at
            assert (code_of(end), len(wired.calls), content_of(end)) == (code, calls, text), name
            assert took < FRAME_SECONDS, name


async def test_a_provider_that_is_busy_is_asked_again_when_it_said(database_url: str) -> None:
    async with (
        wire(refuses(429, retry_after="1"), refuses(503, retry_after="0.2"), says("Iron", " helps.")) as wired,
        workshop(database_url, wired) as shop,
    ):
        end = (await shop.ended(await shop.ask()))[-1]
        assert (end.type, content_of(end)) == ("done", "Iron helps.")
        first, second, third = wired.calls
        assert 1 <= second.at - first.at < 5
        assert 0.2 <= third.at - second.at < 4


async def test_nobody_listening_is_told_within_two_seconds(database_url: str) -> None:
    async with wire(says("never")) as wired:
        pass
    async with workshop(database_url, wired) as shop:
        turn = await shop.ask()
        await shop.until(turn, "generation_start")
        began = time.monotonic()
        assert code_of((await shop.ended(turn))[-1]) == "model_unavailable"
        assert time.monotonic() - began < FRAME_SECONDS


HANGING: dict[str, tuple[Act, dict[str, Any], str, str]] = {
    "no status": (hangs(headers=False), {"first_token_timeout_seconds": 0.6}, "model_timeout", ""),
    "no word": (hangs(), {"first_token_timeout_seconds": 0.6}, "model_timeout", ""),
    "in mid-answer": (hangs("Iron", " is"), {"token_timeout_seconds": 0.6}, "model_timeout", "Iron is"),
    "too slow as a whole": (drips(" on", 0.02), {"turn_timeout_seconds": 2.0}, "turn_timeout", " on on"),
}


@pytest.mark.parametrize("name", HANGING)
async def test_a_provider_that_hangs_meets_its_deadline(database_url: str, name: str) -> None:
    """The call is let go within a second of the deadline, and the text so far is kept."""
    act, deadline, code, text = HANGING[name]
    (seconds,) = deadline.values()
    async with wire(act) as wired, workshop(database_url, wired, **deadline) as shop:
        turn = await shop.ask()
        call = await wired.called()
        events = await shop.ended(turn)
        assert code_of(events[-1]) == code
        assert content_of(events[-1]).startswith(text)
        since = call.failed_at or call.at
        assert await wired.let_go(call) - since < seconds + 1
        assert time.monotonic() - since < seconds + FRAME_SECONDS


async def test_a_model_has_its_time_to_the_first_token_also_after_an_opening(database_url: str) -> None:
    """The line about an emergency comes first, and is recited."""
    deadlines: dict[str, Any] = {"first_token_timeout_seconds": 20, "token_timeout_seconds": 1.5}
    async with wire(says("Iron", pause=2.5)) as wired, workshop(database_url, wired, **deadlines) as shop:
        end = (await shop.ended(await shop.ask("What are the signs of a stroke?")))[-1]
        assert (code_of(end), len(wired.calls)) == ("done", 1)
        assert content_of(end).startswith(topic_line("stroke", "international"))


async def test_a_search_that_hangs_meets_the_turns_deadline(database_url: str) -> None:
    async def never(question: str) -> Any:
        await asyncio.Event().wait()

    def hanging(parts: Parts) -> Parts:
        return replace(parts, search=never)

    async with workshop(database_url, change=hanging, turn_timeout_seconds=0.6) as shop:
        end = (await shop.ended(await shop.ask()))[-1]
        assert (code_of(end), content_of(end)) == ("turn_timeout", "")


async def test_a_search_that_fails_says_so(database_url: str) -> None:
    async def failing(question: str) -> Any:
        raise ConnectionError("the index is away")

    def broken(parts: Parts) -> Parts:
        return replace(parts, search=failing)

    async with workshop(database_url, change=broken) as shop:
        assert code_of((await shop.ended(await shop.ask()))[-1]) == "retrieval_failed"


async def test_a_task_that_does_not_let_go_delays_no_end(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The deadline's error is committed all the same, and what the task still says is refused, without a complaint."""
    let_go = asyncio.Event()

    async def stubborn(question: str) -> Any:
        while not let_go.is_set():
            try:
                await asyncio.wait_for(let_go.wait(), 30)
            except asyncio.CancelledError:
                continue
        raise ConnectionError("too late")

    def changed(parts: Parts) -> Parts:
        return replace(parts, search=stubborn)

    async with workshop(database_url, change=changed, turn_timeout_seconds=0.5) as shop:
        turn = await shop.ask()
        events = await shop.ended(turn)
        assert code_of(events[-1]) == "turn_timeout"
        (left_behind,) = (task for task in asyncio.all_tasks() if task.get_name() == f"turn {turn.turn_id}")
        let_go.set()
        await asyncio.wait((left_behind,))
        del left_behind
        gc.collect()
        assert await shop.events(turn) == events
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_cancel_that_a_library_swallows_stops_the_model_all_the_same() -> None:
    """As Python 3.11's wait_for does when a chunk comes in the same moment: the call would go on for nobody."""

    waits = asyncio.Event()

    async def swallowing() -> AsyncIterator[AIMessageChunk]:
        yield AIMessageChunk(content="Iron")
        waits.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        while True:
            yield AIMessageChunk(content=" on")
            await asyncio.sleep(0)

    async def listen() -> None:
        async for _ in patient(swallowing):
            pass

    listening = asyncio.create_task(listen())
    await waits.wait()
    listening.cancel()
    await asyncio.wait((listening,), timeout=5)
    assert listening.cancelled()
