"""The published Python client of LangGraph servers, `langgraph-sdk`, against real replicas."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from httpx_sse import aconnect_sse
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from tests.integration.adapters.conftest import ANSWER, MODEL
from tests.support.client import Person
from tests.support.gated import GATED, PATIENT, Gate
from tests.support.proxy import proxying
from tests.support.server import Server, holder, lapse, serving_together

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "What helps?"}]}
MODES = ["values", "updates", "messages", "messages-tuple", "custom", "events"]
Connect = Callable[[str], Awaitable[Any]]  # its types lag behind what servers answer


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Clients of one person, closed at the end; the cookie is fetched once and given to each."""
    clients: list[LangGraphClient] = []
    cookies: dict[str, str] = {}

    async def connected(url: str) -> Any:
        if not cookies:
            async with httpx.AsyncClient(trust_env=False) as browser:
                cookies.update((await browser.get(f"{url}/sessions")).cookies)
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        clients.append(get_client(url=url, api_key=None, headers={"cookie": header}, timeout=20))
        return clients[-1]

    yield connected
    for client in clients:
        await client.aclose()


class Heard:
    """What a client makes of a stream: chunks of a message are joined, a removed one is forgotten."""

    def __init__(self) -> None:
        self.text = ""
        self.chunks = 0
        self.run_ids: set[str] = set()
        self.message_ids: set[str] = set()
        self.attempts: list[int] = []
        self.values: list[Any] = []
        self.ids: list[str] = []

    def take(self, part: Any) -> None:
        self.ids.append(part.id)
        if part.event == "metadata":
            self.run_ids.add(part.data["run_id"])
            self.attempts.append(part.data["attempt"])
        elif part.event == "messages":
            message, _ = part.data
            self.chunks += 1
            self.message_ids.add(message["id"])
            self.text = "" if message["type"] == "remove" else self.text + message["content"]
        elif part.event == "values":
            self.values.append(part.data)


async def heard(stream: AsyncIterator[Any]) -> Heard:
    hearing = Heard()
    async for part in stream:
        hearing.take(part)
    return hearing


async def test_a_run_streams_its_text_and_its_state(replicas: tuple[Server, Server], connect: Connect) -> None:
    client = await connect(replicas[0].url)
    thread = await client.threads.create()
    created: list[Any] = []
    modes = ["messages-tuple", "values"]
    stream = client.runs.stream(
        thread["thread_id"], "agent", input=ASKED, stream_mode=modes, on_run_created=created.append
    )
    hearing = await heard(stream)
    assert hearing.text == ANSWER
    assert hearing.run_ids == {created[0]["run_id"]}
    assert [[message["type"] for message in values["messages"]] for values in hearing.values] == [
        ["human"],
        ["human", "ai"],
    ]
    assert hearing.values[-1]["messages"][-1]["content"] == ANSWER
    state = await client.threads.get_state(thread["thread_id"])
    assert state["values"] == hearing.values[-1]
    assert (await client.threads.get(thread["thread_id"]))["status"] == "idle"
    assert (await client.runs.get(thread["thread_id"], created[0]["run_id"]))["status"] == "success"


async def test_a_cut_stream_is_resumed_by_the_client_on_another_replica(
    replicas: tuple[Server, Server], gate: Gate, connect: Connect
) -> None:
    one, two = replicas
    async with proxying(one.url) as proxy:
        client = await connect(proxy.url)
        thread = await client.threads.create()
        hearing = Heard()
        stream = client.runs.stream(thread["thread_id"], "agent", input=ASKED, stream_mode="messages-tuple")
        with gate.closed():
            async for part in stream:
                hearing.take(part)
                if hearing.chunks == 5:
                    proxy._upstreams = (two.url,)
                    proxy.cut()
                    gate.open()
        assert proxy.went_to[two.url], "the cut came in mid-stream"
        assert hearing.text == ANSWER
        assert len(hearing.ids) == len(set(hearing.ids)), "no frame came twice"
        run_id = hearing.run_ids.pop()
        state = await (await connect(one.url)).threads.get_state(thread["thread_id"])
        answer_id = state["values"]["messages"][-1]["id"]
        assert hearing.message_ids == {answer_id} == {f"{run_id}:assistant"}, "the ids are those of the other replica"


async def test_every_frame_after_every_id_is_the_same_from_every_replica(
    replicas: tuple[Server, Server], person: Person
) -> None:
    one, two = replicas
    body = {"assistant_id": "agent", "input": ASKED, "stream_mode": MODES, "if_not_exists": "create"}
    path = f"/threads/{uuid4()}/runs"

    async def frames(response: Any) -> list[tuple[str, str, str]]:
        return [(frame.id, frame.event, frame.data) async for frame in response.aiter_sse()]

    async with aconnect_sse(person.client, "POST", f"{one.url}{path}/stream", json=body) as source:
        location = source.response.headers["location"]
        whole = await frames(source)
    assert {event for _, event, _ in whole} == {
        "metadata", "values", "updates", "messages", "messages/partial", "messages/complete", "custom", "events"
    }  # fmt: skip
    assert len({frame_id for frame_id, _, _ in whole}) == len(whole), "each frame has an id of its own"
    for place in range(0, len(whole), 7):
        resumed = {"Last-Event-ID": whole[place][0]}
        async with aconnect_sse(person.client, "GET", f"{two.url}{location}", headers=resumed) as source:
            assert await frames(source) == whole[place + 1 :]
    garbage = await person.client.get(f"{two.url}{location}", headers={"Last-Event-ID": "garbage"})
    assert (garbage.status_code, garbage.json()["code"]) == (422, "bad_cursor")
    partial = [json.loads(data)[0]["content"] for _, event, data in whole if event == "messages/partial"]
    assert partial[-1] == ANSWER
    assert all(later.startswith(earlier) for earlier, later in pairwise(partial))


async def test_a_killed_servers_run_goes_on_and_its_text_is_exact(
    database_url: str, tmp_path: Path, connect: Connect
) -> None:
    gate = Gate(tmp_path)
    with serving_together(database_url, tmp_path, MODEL, PATIENT, PATIENT, program=GATED) as (one, two), gate.closed():
        async with proxying(one.url, two.url) as proxy:
            client = await connect(proxy.url)
            thread = await client.threads.create()
            hearing = Heard()
            modes = ["messages-tuple", "values"]
            killed: Server | None = None
            async for part in client.runs.stream(thread["thread_id"], "agent", input=ASKED, stream_mode=modes):
                hearing.take(part)
                if killed is None and hearing.chunks == 5:  # what follows need not be a chunk
                    killed = holder(database_url, one, two)
                    killed.kill()
                    lapse(database_url)
                    gate.open()
            assert hearing.attempts == [1, 2], "the second attempt is told"
            assert hearing.text == ANSWER == hearing.values[-1]["messages"][-1]["content"]
            assert len(hearing.run_ids) == 1


async def test_cancel_keeps_the_partial_answer(replicas: tuple[Server, Server], gate: Gate, connect: Connect) -> None:
    one, two = [await connect(server.url) for server in replicas]
    thread_id = (await one.threads.create())["thread_id"]
    hearing = Heard()
    with gate.closed():
        async for part in one.runs.stream(thread_id, "agent", input=ASKED, stream_mode="messages-tuple"):
            hearing.take(part)
            if hearing.chunks == 5:
                await two.runs.cancel(thread_id, next(iter(hearing.run_ids)), wait=True)
    [run] = await two.runs.list(thread_id)
    assert run["status"] == "interrupted"
    [_, answer] = (await two.threads.get_state(thread_id))["values"]["messages"]
    assert answer["content"] == hearing.text
    assert len(hearing.text) < len(ANSWER)
    assert answer["response_metadata"]["status"] == "cancelled"


async def test_a_run_can_be_started_joined_and_waited_for(
    replicas: tuple[Server, Server], gate: Gate, connect: Connect
) -> None:
    one, two = [await connect(server.url) for server in replicas]
    thread_id = (await one.threads.create())["thread_id"]
    with gate.closed():
        run = await one.runs.create(thread_id, "agent", input=ASKED)
        assert run["status"] in ("pending", "running")
        assert (await two.threads.get(thread_id))["status"] == "busy"
        with pytest.raises(ConflictError, match="still answering"):
            await two.runs.create(thread_id, "agent", input=ASKED)
    hearing = await heard(two.runs.join_stream(thread_id, run["run_id"], stream_mode="messages-tuple"))
    assert hearing.text == ANSWER, "also what was said before it came"
    joined = await one.runs.join(thread_id, run["run_id"])
    waited = await two.runs.wait(thread_id, "agent", input=ASKED)
    assert [message["content"] for message in waited["messages"]] == ["What helps?", ANSWER] * 2
    assert joined["messages"] == waited["messages"][:2], "a run's values are those at its end"
    newest, oldest = await one.threads.get_history(thread_id)
    assert (len(newest["values"]["messages"]), len(oldest["values"]["messages"])) == (4, 2)
    assert newest["parent_checkpoint"] == oldest["checkpoint"]
    again = await heard(one.runs.join_stream(thread_id, run["run_id"], stream_mode="messages-tuple"))
    assert again.text == ANSWER, "also after its end"

    forked = await one.runs.wait(thread_id, "agent", input=ASKED, checkpoint=oldest["checkpoint"])
    assert len(forked["messages"]) == 4, "the last run was replaced"
    alone = await one.runs.wait(None, "agent", input=ASKED)
    assert len(alone["messages"]) == 2


async def test_threads_and_assistants(replicas: tuple[Server, Server], connect: Connect) -> None:
    one, two = [await connect(server.url) for server in replicas]
    [assistant] = await one.assistants.search()
    assert await two.assistants.get(assistant["assistant_id"]) == assistant
    assert "messages" in (await one.assistants.get_schemas("agent"))["state_schema"]["properties"]
    minted = str(uuid4())
    made = await one.threads.create(thread_id=minted)
    assert (made["thread_id"], made["status"], made["values"]) == (minted, "idle", {"messages": []})
    with pytest.raises(ConflictError):
        await two.threads.create(thread_id=minted)
    assert await two.threads.create(thread_id=minted, if_exists="do_nothing") == made
    assert await two.threads.get_history(minted) == []
    run = await one.runs.create(minted, assistant["assistant_id"], input=ASKED)
    await two.runs.join(minted, run["run_id"])
    assert (await two.http.get("/sessions"))["sessions"][0]["title"] == "What helps?", "as of any session"
    [found] = await two.threads.search(ids=[minted])
    assert len(found["values"]["messages"]) == 2
    assert await one.threads.search(status="busy") == []
    await two.threads.delete(minted)
    with pytest.raises(NotFoundError):
        await one.threads.get(minted)


async def test_what_the_log_cannot_give_is_refused_by_name(
    replicas: tuple[Server, Server], connect: Connect, person: Person
) -> None:
    client = await connect(replicas[0].url)
    thread_id = (await client.threads.create())["thread_id"]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"stream_mode": "debug"}, "'debug' is not in the log"),
        ({"multitask_strategy": "enqueue"}, "nothing is queued"),
        ({"interrupt_before": ["retrieve"]}, "interrupt_before"),
        ({"webhook": "http://localhost"}, "webhook"),
        ({"config": {"configurable": {"model": "other"}}}, "configurable"),
        ({"checkpoint_id": "12345"}, "checkpoint"),
        ({"input": {"messages": [*ASKED["messages"], *ASKED["messages"]]}}, "one message"),
        ({"input": {"messages": [{"role": "user", "content": [{"type": "image"}]}]}}, "only text"),
        ({"input": {"messages": [{"role": "user", "content": "x" * 5000}]}}, "4000 characters"),
        ({"input": None, "command": {"goto": "generate"}}, "resume"),
        ({"input": {**ASKED, "alarm": ""}}, "PULSELINE_GRAPH"),
    ]
    for more, reason in refused:
        with pytest.raises(UnprocessableEntityError, match=reason):
            await client.runs.create(thread_id, "agent", **{"input": ASKED, **more})
    with pytest.raises(NotFoundError, match="one assistant"):
        await client.runs.create(thread_id, "other", input=ASKED)
    with pytest.raises(NotFoundError, match="no such session"):
        await client.runs.create(str(uuid4()), "agent", input=ASKED)
    assert await client.runs.list(thread_id) == []
    for method, path in (("GET", ""), ("GET", "/state"), ("GET", "/runs"), ("POST", "/history"), ("DELETE", "")):
        stranger = await person.client.request(method, f"{replicas[0].url}/threads/{thread_id}{path}", json={})
        assert stranger.status_code == 404, path


async def test_a_run_that_is_in_the_way_is_stopped_or_forgotten(
    replicas: tuple[Server, Server], gate: Gate, connect: Connect
) -> None:
    client = await connect(replicas[0].url)
    thread_id = (await client.threads.create())["thread_id"]
    with gate.closed():
        first = await client.runs.create(thread_id, "agent", input=ASKED)
        second = await client.runs.create(thread_id, "agent", input=ASKED, multitask_strategy="interrupt")
        assert (await client.runs.get(thread_id, first["run_id"]))["status"] == "interrupted"
        third = await client.runs.create(thread_id, "agent", input=ASKED, multitask_strategy="rollback")
    joined = await client.runs.join(thread_id, third["run_id"])
    ids = {message["id"].partition(":")[0] for message in joined["messages"]}
    assert first["run_id"] in ids
    assert second["run_id"] not in ids


async def test_a_disconnect_stops_a_run_only_where_that_was_asked_for(
    replicas: tuple[Server, Server], gate: Gate, connect: Connect
) -> None:
    client = await connect(replicas[0].url)
    cases = [("cancel", "interrupted"), ("continue", "success")]
    for asked, status in cases:
        thread_id = (await client.threads.create())["thread_id"]
        stream = client.runs.stream(thread_id, "agent", input=ASKED, stream_mode="messages-tuple", on_disconnect=asked)
        with gate.closed():
            async with aclosing(stream):
                async for part in stream:
                    if part.event == "messages":
                        break
            [run] = await client.runs.list(thread_id)
            if status == "interrupted":
                await heard(client.runs.join_stream(thread_id, run["run_id"]))
        await client.runs.join(thread_id, run["run_id"])
        assert (await client.runs.get(thread_id, run["run_id"]))["status"] == status


@pytest.mark.parametrize("calls", ["wait", "join"])
async def test_whoever_waits_may_ask_that_the_run_stops_when_they_go(
    replicas: tuple[Server, Server], gate: Gate, connect: Connect, calls: str
) -> None:
    one, two = [await connect(server.url) for server in replicas]
    thread_id = (await one.threads.create())["thread_id"]
    with gate.closed():
        if calls == "wait":
            waiting = asyncio.create_task(one.runs.wait(thread_id, "agent", input=ASKED, on_disconnect="cancel"))
        else:
            run = await one.runs.create(thread_id, "agent", input=ASKED)
            path = f"/threads/{thread_id}/runs/{run['run_id']}/join"
            waiting = asyncio.create_task(one.http.get(path, params={"cancel_on_disconnect": "1"}))
        async with asyncio.timeout(20):
            while not (listed := await two.runs.list(thread_id)):
                pass
            stream = two.runs.join_stream(thread_id, listed[0]["run_id"], stream_mode="messages-tuple")
            async with aclosing(stream):
                async for part in stream:
                    if part.event == "messages":
                        waiting.cancel()
    assert (await two.runs.get(thread_id, listed[0]["run_id"]))["status"] == "interrupted"


async def test_a_page_of_another_site_cannot_stop_a_run_by_leaving(
    replicas: tuple[Server, Server], connect: Connect
) -> None:
    client = await connect(replicas[0].url)
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "agent", input=ASKED)
    path = f"/threads/{thread_id}/runs/{run['run_id']}/stream"
    strange, asked = {"Sec-Fetch-Site": "cross-site"}, {"cancel_on_disconnect": "1"}
    async with client.http.client.stream("GET", path, params=asked, headers=strange) as reply:
        await anext(reply.aiter_bytes())
    await client.runs.join(thread_id, run["run_id"])
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "success"


async def test_an_interrupt_is_answered_with_a_command(asking: Server, connect: Connect) -> None:
    client = await connect(asking.url)
    thread_id = (await client.threads.create())["thread_id"]
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "Book a table in Lisbon"}]}
    hearing = await heard(client.runs.stream(thread_id, "agent", input=question, stream_mode=["values", "updates"]))
    [asked] = hearing.values[-1]["__interrupt__"]
    assert asked["value"] == {"question": "Book a table in Lisbon?"}
    assert (await client.threads.get(thread_id))["status"] == "interrupted"
    state = await client.threads.get_state(thread_id)
    assert state["tasks"][0]["interrupts"] == [asked]
    answered = await client.runs.wait(thread_id, "agent", command={"resume": "yes"})
    assert answered["messages"][-1]["content"] == "I asked: a table in Lisbon is booked."
    assert (await client.threads.get_state(thread_id))["next"] == []
    assert (await client.threads.get(thread_id))["status"] == "idle"
