"""What one owner, or everybody together, may ask at once: refused with 429, told when to come back, and let in then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from functions import body_limit
from functions.limits import Limits, RateLimited
from functions.sweep import sweep
from tests.support.app import calling, composed
from tests.support.waiting import until

ASYNC = {"Prefer": "respond-async"}


async def start(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    body = {"message": "What helps?", "session_id": str(uuid4()), **body}
    return await client.post("/chat/stream", json=body, headers=ASYNC)


@asynccontextmanager
async def people(app: FastAPI, count: int = 2) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(calling(app)) for _ in range(count)]
        for client in clients:
            await client.get("/sessions")
        yield clients


def refused(reply: httpx.Response) -> int:
    """The seconds after which to come back."""
    assert (reply.status_code, reply.json()["code"]) == (429, "rate_limited"), reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    return int(reply.headers["retry-after"])


async def test_an_owner_starts_so_many_turns_a_minute_and_others_are_not_touched(database_url: str) -> None:
    async with (
        composed(database_url, max_turns_per_minute=3, max_turns_per_owner=0) as app,
        people(app) as (one, other),
    ):
        started = [await start(one, request_id="first")]
        started += [await start(one) for _ in range(2)]
        assert [reply.status_code for reply in started] == [202] * 3
        assert 50 <= refused(await start(one)) <= 60
        assert (await start(other)).status_code == 202
        again = await start(one, session_id=started[0].json()["session_id"], request_id="first")
        assert again.json()["turn_id"] == started[0].json()["turn_id"], "sent again, it is the same turn"
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("update starts set since = since - interval '61 s'")
        assert (await start(one)).status_code == 202


async def test_a_crowd_of_starts_in_one_instant_does_not_slip_past_the_count(database_url: str) -> None:
    async with (
        composed(database_url, max_turns_per_minute=4, max_turns_per_owner=0) as app,
        people(app, 1) as (one,),
    ):
        replies = await asyncio.gather(*(start(one) for _ in range(20)))
        assert sorted(reply.status_code for reply in replies) == [202] * 4 + [429] * 16


async def test_erasing_what_was_asked_gives_no_start_back(database_url: str) -> None:
    async with composed(database_url, max_turns_per_minute=3) as app, people(app, 1) as (one,):
        for _ in range(3):
            started = await start(one)
            assert (await one.delete(f"/sessions/{started.json()['session_id']}")).status_code == 204
        assert refused(await start(one)) > 50
        await app.state.replica.log.forget_starts()
        refused(await start(one))


@pytest.mark.parametrize("setting", ["max_turns_per_minute", "max_turns_per_owner"])
async def test_a_crowd_of_starts_on_many_replicas_does_not_slip_past_the_count(database_url: str, setting: str) -> None:
    limits: dict[str, Any] = {"max_turns_per_minute": 0, "max_turns_per_owner": 0, setting: 4}
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(composed(database_url, **limits)) for _ in range(3)]
        clients = [await stack.enter_async_context(calling(app)) for app in replicas]
        await clients[0].get("/sessions")
        for client in clients[1:]:
            client.cookies = clients[0].cookies
        replies = await asyncio.gather(*(start(clients[n % 3]) for n in range(24)))
        assert sorted(reply.status_code for reply in replies) == [202] * 4 + [429] * 20


async def test_what_was_counted_is_swept_when_its_minute_is_over(database_url: str) -> None:
    async with composed(database_url) as app, people(app) as (one, other):
        await start(one)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("update starts set since = since - interval '61 s'")
            await start(other)
            await sweep(app.state.replica.log, 3600)
            assert (await (await connection.execute("select count(*) from starts")).fetchone()) == (1,)


async def test_an_owner_has_so_many_turns_running_and_one_more_when_one_ends(database_url: str) -> None:
    async with (
        composed(database_url, max_turns_per_owner=2, max_turns_per_minute=0) as app,
        people(app) as (one, other),
    ):
        first, second = await start(one), await start(one)
        assert (first.status_code, second.status_code) == (202, 202)
        assert refused(await start(one)) > 0
        assert (await start(other)).status_code == 202
        assert (await one.post(f"/chat/stream/{first.json()['session_id']}/cancel")).status_code == 200
        assert (await start(one)).status_code == 202


async def test_a_refused_start_leaves_no_session_behind(database_url: str) -> None:
    async with composed(database_url, max_turns_per_owner=1) as app, people(app, 1) as (one,):
        await start(one)
        session_id = str(uuid4())
        refused(await start(one, session_id=session_id))
        assert (await one.get(f"/sessions/{session_id}")).status_code == 404


@pytest.mark.parametrize(("setting", "others"), [({"max_tails": 2}, 429), ({"max_tails_per_owner": 2}, 200)])
async def test_open_tails_are_counted_and_freed(database_url: str, setting: dict[str, Any], others: int) -> None:
    async with composed(database_url, **setting) as app, people(app) as (one, other):
        session_id, its = [(await start(person)).json()["session_id"] for person in (one, other)]
        await other.post(f"/chat/stream/{its}/cancel")
        path = f"/chat/stream/{session_id}"
        limits: Limits = app.state.replica.limits
        watching = [asyncio.create_task(one.get(path)) for _ in range(2)]
        await until(lambda: limits.tails == 2)
        assert refused(await one.get(path)) > 0
        assert refused(await one.post("/chat/stream", json={"message": "x"})) > 0, "a start that is watched is a tail"
        assert (await start(one)).status_code == 202, "a start that nobody watches is none"
        assert (await other.get(f"/chat/stream/{its}")).status_code == others
        await one.post(f"/chat/stream/{session_id}/cancel")
        assert [reply.status_code for reply in await asyncio.gather(*watching)] == [200, 200]
        assert limits.tails == 0
        assert (await one.get(path)).status_code == 200


async def test_a_tail_that_is_refused_or_fails_is_not_counted(database_url: str) -> None:
    async with composed(database_url, max_tails=1) as app, people(app, 1) as (one,):
        assert (await one.get(f"/chat/stream/{uuid4()}")).status_code == 404
        limits: Limits = app.state.replica.limits
        with limits.tail("somebody"), pytest.raises(RateLimited), limits.tail("somebody"):
            pass
        assert limits.tails == 0


async def test_a_message_and_a_body_have_the_length_that_the_settings_say(database_url: str) -> None:
    async with (
        composed(database_url, max_message_characters=10, max_body_bytes=1024) as app,
        people(app, 1) as (one,),
    ):
        assert (await start(one, message="ä" * 10)).status_code == 202
        long = await start(one, message="ä" * 11)
        assert (long.status_code, long.json()["code"]) == (422, "invalid_request")
        assert "at most 10" in long.json()["detail"]
        large = await start(one, message="x" * 1024)
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


async def test_a_chat_may_send_its_history_and_nobody_else_so_much(database_url: str) -> None:
    """DefaultChatTransport sends the whole conversation with every question. The last one is no longer for that."""

    def chat(answer: str, question: str) -> dict[str, Any]:
        said = [("assistant", answer), ("user", question)]
        return {"id": "c", "messages": [{"role": r, "parts": [{"type": "text", "text": text}]} for r, text in said]}

    async with composed(database_url, stream_window_seconds=0.1) as app, people(app, 1) as (one,):
        for asked, status in (
            (chat("x" * 2**18, "What helps?"), 200),
            (chat("x" * 2**20, "What helps?"), 413),
            (chat("x" * 2**18, "x" * 4001), 422),
        ):
            assert (await one.post("/api/chat", json=asked)).status_code == status
        assert (await one.post("/chat", json=chat("x" * 2**18, "What helps?"))).status_code == 413


async def test_a_body_that_does_not_come_is_given_up(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"message": '
        await asyncio.Event().wait()

    async with composed(database_url) as app, calling(app) as client:
        reply = await client.post("/chat", content=slowly(), headers={"Content-Type": "application/json"})
        assert (reply.status_code, reply.json()["code"]) == (408, "request_timeout")
