"""What the adapters take, refuse and cost, with the published Python client where it can ask for it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError

from graph.eventlog import events as e
from graph.eventlog.events import Event
from tests.support.app import calling, composed

WINDOW_SECONDS = 0.2
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "What helps?"}]}
TURNS = 1000
EVENTS_OF_A_TURN = 4
MANY_TURNS = """
with turn as (
  insert into turns (session_id, turn_id, request_id, status, first_seq, last_seq, ended_at)
  select %(session)s, gen_random_uuid(), 'r' || n, 'done', 4 * n - 3, 4 * n, now() from generate_series(1, %(turns)s) n
  returning turn_id, first_seq)
insert into events (session_id, seq, turn_id, attempt, type, data)
select %(session)s, first_seq + m, turn_id, 1, (array['turn_started', 'routed', 'generation_start', 'done'])[m + 1],
       (array[json_build_object('turn_id', turn_id, 'message', 'q', 'request_id', 'r', 'timestamp', %(now)s::text),
              json_build_object('turn_id', turn_id, 'agent', 'rag_agent', 'timestamp', %(now)s::text),
              json_build_object('turn_id', turn_id, 'model', 'm', 'timestamp', %(now)s::text),
              json_build_object('turn_id', turn_id, 'timestamp', %(now)s::text, 'message',
                                json_build_object('id', turn_id || ':assistant', 'content', 'a'))])[m + 1]
  from turn, generate_series(0, 3) m
"""


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    async with composed(
        database_url, stream_window_seconds=WINDOW_SECONDS, max_turns_per_owner=0, max_tails_per_owner=4
    ) as composed_app:
        yield composed_app


@pytest.fixture
async def person(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app) as client:
        await client.get("/sessions")
        yield client


@pytest.fixture
def sdk(person: httpx.AsyncClient) -> Any:
    return LangGraphClient(person)


def chat(**more: Any) -> dict[str, Any]:
    said = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "What helps?"}]}
    return {"id": str(uuid4()), "messages": [said], **more}


async def turns_in(database_url: str) -> int:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute("select count(*) from turns")).fetchone()
        assert row is not None
        return int(row[0])


def start(kind: str) -> tuple[str, dict[str, Any]]:
    run = {"assistant_id": "agent", "input": ASKED, "if_not_exists": "create"}
    paths = {"stream": f"/threads/{uuid4()}/runs/stream", "wait": "/runs/wait", "chat": "/api/chat"}
    return paths[kind], chat() if kind == "chat" else run


@pytest.mark.parametrize("kind", ["stream", "wait", "chat"])
async def test_each_answer_is_one_tail_and_one_too_many_starts_no_turn(
    database_url: str, person: httpx.AsyncClient, kind: str
) -> None:
    sent = [start(kind) for _ in range(5)]
    replies = await asyncio.gather(*(person.post(path, json=body) for path, body in sent))
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == ([429, 503, 503, 503, 503] if kind == "wait" else [200, 200, 200, 200, 429])
    assert await turns_in(database_url) == 4


async def test_a_thread_of_a_thousand_turns_is_folded_once(
    app: FastAPI, database_url: str, person: httpx.AsyncClient, sdk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted is how often an event is read, wherever; a fold that began anew for each turn would need 500
    times as many."""
    thread_id = (await sdk.threads.create())["thread_id"]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        given = {"session": UUID(thread_id), "turns": TURNS, "now": "2026-11-27T12:00:00.000Z"}
        await connection.execute(MANY_TURNS, given)
    read = 0
    parse = Event.parse

    def counted(event: Event) -> Any:
        nonlocal read
        read += 1
        return parse(event)

    monkeypatch.setattr(Event, "parse", counted)
    history = await sdk.threads.get_history(thread_id, limit=10)
    assert [len(state["values"]["messages"]) for state in history[:2]] == [2 * TURNS, 2 * TURNS - 2]
    assert (len(history), read) == (10, EVENTS_OF_A_TURN * TURNS)
    read = 0
    assert len(await sdk.runs.list(thread_id, limit=10)) == 10
    assert read == 2 * TURNS, "of each turn its start and its end"
    read = 0
    assert len(await sdk.runs.list(thread_id, limit=10, status="success", offset=990)) == 10
    await sdk.runs.get(thread_id, history[0]["values"]["messages"][-1]["id"].partition(":")[0])
    assert read == 2 * TURNS + 2
    read = 0
    [found] = await sdk.threads.search(status="idle", ids=[thread_id], select=["thread_id"])
    assert await sdk.threads.search(status="busy") == []
    assert (found, read) == ({"thread_id": thread_id}, EVENTS_OF_A_TURN * TURNS)
    page = await sdk.threads.get_history(thread_id, limit=2, before=history[0]["checkpoint"])
    assert page == history[1:3]


async def test_what_a_client_asks_for_in_vain_is_refused_with_what_to_do_instead(
    app: FastAPI, sdk: Any, person: httpx.AsyncClient
) -> None:
    thread_id = (await sdk.threads.create(graph_id="agent", metadata={"user": "me"}))["thread_id"]
    run_id = (await sdk.runs.create(thread_id, "agent", input=ASKED, metadata={"tag": "x"}))["run_id"]
    checkpoint = (await sdk.threads.get_state(thread_id))["checkpoint"]
    refused: list[tuple[Any, str]] = [
        (sdk.threads.update(thread_id, metadata={"a": 1}), "no labels"),
        (sdk.threads.copy(thread_id), "start a new one"),
        (sdk.threads.update_state(thread_id, {"messages": []}), "its log"),
        (sdk.threads.create(supersteps=[{"updates": [{"values": ASKED, "as_node": "x"}]}]), "supersteps"),
        (sdk.threads.create(ttl=5), "ttl"),
        (sdk.threads.search(values={"a": 1}), "values"),
        (sdk.threads.search(metadata={"user": "me"}), "no labels"),
        (sdk.threads.count(metadata={"graph_id": "agent", "user": "me"}), "no labels"),
        (sdk.threads.search(sort_by="created_at"), "sort_by"),
        (sdk.threads.search(limit=0), "limit"),
        (sdk.threads.get_history(thread_id, limit=-1), "limit"),
        (sdk.threads.get_history(thread_id, limit=10**6), "limit"),
        (sdk.runs.list(thread_id, limit=-1), "limit"),
        (sdk.runs.list(thread_id, status="cancelled"), "status"),
        (sdk.runs.delete(thread_id, run_id), "delete the thread"),
        (sdk.runs.cancel_many(thread_id=thread_id, run_ids=[run_id]), "each run by itself"),
        (sdk.runs.cancel(thread_id, run_id, action="rollback"), "interrupt"),
        (sdk.runs.create_batch([{"assistant_id": "agent", "input": ASKED}]), "each run by itself"),
        (sdk.assistants.create("agent"), "there is one"),
        (sdk.assistants.get_graph("agent"), "get_graph"),
        (sdk.assistants.get_subgraphs("agent"), "get_graph"),
        (sdk.runs.create(thread_id, "agent", input=None), "command.resume"),
        (sdk.http.get(f"/runs/{run_id}/stream"), "by its thread"),
        (sdk.crons.search(), "by the clock"),
        (sdk.store.put_item(["a"], "k", {}), "no store"),
    ]
    for call, reason in refused:
        with pytest.raises(UnprocessableEntityError, match=reason):
            await call
    options: list[tuple[dict[str, Any], str]] = [
        ({"on_completion": "delete"}, "on_completion"),
        ({"config": {"recursion_limit": 3}}, "recursion_limit"),
        ({"config": {"tags": ["x"]}}, "tags"),
        ({"config": {"configurable": {"thread_id": str(uuid4())}}}, "thread_id"),
        ({"checkpoint": {**checkpoint, "thread_id": str(uuid4())}}, "thread_id"),
        ({"context": {"user": "x"}}, "context"),
        ({"after_seconds": 5}, "after_seconds"),
    ]
    for option, reason in options:
        with pytest.raises(UnprocessableEntityError, match=reason):
            await sdk.runs.create(thread_id, "agent", input=ASKED, **option)
    for call in (
        sdk.runs.get(thread_id, str(uuid4())),
        sdk.runs.cancel(thread_id, str(uuid4())),
        sdk.threads.get_state(thread_id, checkpoint_id="12345"),
    ):
        with pytest.raises(NotFoundError, match="no such"):
            await call
    for cursor in ("99999", "garbage"):
        past = await person.get(f"/threads/{thread_id}/runs/{run_id}/stream", headers={"Last-Event-ID": cursor})
        assert (past.status_code, past.json()["code"]) == (422, "bad_cursor")
        assert "is no place in this session's log" in past.json()["detail"]


async def test_what_can_be_counted_and_looked_up_is(sdk: Any) -> None:
    assert await sdk.assistants.search(name="nothing") == []
    assert (await sdk.assistants.count(), await sdk.assistants.count(graph_id="other")) == (1, 0)
    assert await sdk.threads.count() == 0
    run = await sdk.runs.create(None, "agent", input=ASKED)
    thread_id = run["thread_id"]
    assert (await sdk.threads.count(status="busy"), await sdk.threads.count(status="idle")) == (1, 0)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await sdk.threads.count(status="busy"), await sdk.threads.count(status="idle")) == (0, 1)
    [state] = await sdk.threads.get_history(thread_id)
    assert state["parent_checkpoint"]["checkpoint_id"] == "0"
    earlier = await sdk.threads.get_state(thread_id, checkpoint_id=state["checkpoint"]["checkpoint_id"])
    assert earlier == state
    assert await sdk.threads.get_state(thread_id, checkpoint=state["checkpoint"]) == state


async def test_a_run_before_the_first_is_written_again_or_edited(sdk: Any) -> None:
    run = await sdk.runs.create(None, "agent", input={"messages": "What helps?"})
    thread_id, first = run["thread_id"], {"checkpoint_id": "0"}
    await sdk.runs.cancel(thread_id, run["run_id"])
    again = await sdk.runs.create(thread_id, "agent", checkpoint=first)
    await sdk.runs.cancel(thread_id, again["run_id"])
    [state, _] = await sdk.threads.get_history(thread_id)
    [question] = state["values"]["messages"]
    assert (question["id"], question["content"]) == (f"{again['run_id']}:user", "What helps?")
    edited = await sdk.runs.create(
        thread_id, "agent", input={"messages": "What else?"}, checkpoint=state["parent_checkpoint"]
    )
    assert (await sdk.threads.get_state(thread_id))["values"]["messages"][0]["id"] == f"{edited['run_id']}:user"
    assert len((await sdk.threads.get_state(thread_id))["values"]["messages"]) == 1


SAY = """
insert into events (session_id, seq, turn_id, attempt, type, data)
select session_id, %(seq)s, turn_id, 1, %(type)s, %(data)s from turns where session_id = %(session)s"""
END = "update turns set status = 'done', ended_at = now(), last_seq = %(seq)s where session_id = %(session)s"


@pytest.mark.parametrize("version", ["6", "7"])
async def test_a_chunk_has_one_index_before_and_after_words_were_taken_back_and_by_the_chats_id_too(
    database_url: str, person: httpx.AsyncClient, version: str
) -> None:
    sent = chat()
    run = (await person.post("/api/chat", json=sent)).headers["x-workflow-run-id"]
    again = e.Reset(turn_id=UUID(int=1), attempt=2, reason="worker_lost")
    said: list[e.StreamEvent] = [e.Token(content="Iron "), again, e.Token(content="Coffee.")]
    done = e.Done(turn_id=UUID(int=1), message=e.AnswerMessage(id="a", content="Coffee."))

    async def say(*events: tuple[int, e.StreamEvent]) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            for seq, event in events:
                event.timestamp = "2026-11-27T12:00:00.000Z"
                data = event.model_dump_json(exclude={"type"}, exclude_none=True)
                given = {"session": UUID(sent["id"]), "seq": seq, "type": event.type, "data": data}
                await connection.execute(SAY, given)
                if event.type == "done":
                    await connection.execute(END, given)

    async def chunks(name: str, start: int) -> list[str]:
        reply = await person.get(
            f"/api/chat/{name}/stream", params={"startIndex": start}, headers={"x-ai-sdk-version": version}
        )
        assert reply.status_code == 200, reply.text
        return [line for line in reply.text.split("\n\n") if line.startswith("data: {")]

    await say(*enumerate(said, 2))
    whole = await chunks(run, 0)
    assert any('"Iron "' in chunk for chunk in whole), "who counts is told of those too"
    under_way = [(name, start) for name in (run, sent["id"]) for start in (0, 4)]
    assert await asyncio.gather(*(chunks(*asked) for asked in under_way)) == [whole[start:] for _, start in under_way]
    await say((5, done))
    ended = await chunks(run, 0)
    assert ended[: len(whole)] == whole
    for name in (run, sent["id"]):
        for start in range(1, len(ended)):
            assert await chunks(name, start) == ended[start:], "also of who comes back by the chat's id after its end"
    for query in ("", "?startIndex=0", "?startIndex=-1"):
        assert (await person.get(f"/api/chat/{sent['id']}/stream{query}")).status_code == 204


@pytest.mark.parametrize("kind", [5, None, ["text"], {}])
async def test_a_part_of_no_known_form_is_refused(person: httpx.AsyncClient, kind: Any) -> None:
    said = {"id": "m", "role": "user", "parts": [{"type": kind, "text": "What helps?"}]}
    reply = await person.post("/api/chat", json=chat(messages=[said]))
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("chat_id", ["a/b", "a?b", "a#b", "50%", "a\\b", "a\nb", ".", "..", "", "x" * 201])
async def test_a_chat_whose_stream_would_have_no_address_is_not_begun(person: httpx.AsyncClient, chat_id: str) -> None:
    reply = await person.post("/api/chat", json=chat(id=chat_id))
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert "id: " in reply.json()["detail"]
    assert "leave out" in reply.json()["detail"]


@pytest.mark.parametrize("chat_id", ["a chat of mine", "ä:1+2&3=~@;", "x" * 200, "...", "a.b"])
async def test_a_chat_is_resumed_by_the_id_that_it_was_begun_with(person: httpx.AsyncClient, chat_id: str) -> None:
    assert (await person.post("/api/chat", json=chat(id=chat_id))).status_code == 200
    assert (await person.get(f"/api/chat/{chat_id}/stream")).status_code == 200
    assert (await person.post(f"/api/chat/{chat_id}/stop")).status_code == 204


async def test_an_id_that_is_no_text_is_taken_as_text(person: httpx.AsyncClient) -> None:
    body = (
        b'{"id": "\\ud800", "messages": [{"id": "\\ud800", "role": "user", "parts": [{"type": "text", "text": "x"}]}]}'
    )
    reply = await person.post("/api/chat", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200


async def test_a_question_keeps_the_id_it_had_first_however_often_it_is_edited(person: httpx.AsyncClient) -> None:
    asked = chat()
    sent: list[dict[str, Any]] = [
        {},
        {"messageId": "m"},
        {"messageId": "m"},
        {"trigger": "regenerate-message"},
        {"messageId": "m"},
    ]
    for more in sent:
        reply = await person.post("/api/chat", json={**asked, **more})
        assert reply.status_code == 200, reply.text
        assert (await person.post(f"/api/chat/{asked['id']}/stop")).status_code == 204
    messages = (await person.get(f"/sessions/{asked['id']}")).json()["messages"]
    assert [message["role"] for message in messages if message["content"]] == ["user"], "each took the last one's place"


def said(text: str, message_id: str) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("unsent", ["n", "n" * 100])
@pytest.mark.parametrize("more", [{"trigger": "regenerate-message"}, {"messageId": "the question's"}])
async def test_a_question_that_did_not_arrive_is_a_turn_of_its_own_when_it_is_edited_or_asked_again(
    person: httpx.AsyncClient, unsent: str, more: dict[str, Any]
) -> None:
    chat_id = str(uuid4())

    async def send(*messages: dict[str, Any], **more: Any) -> int:
        reply = await person.post("/api/chat", json={"id": chat_id, "messages": messages, **more})
        await person.post(f"/api/chat/{chat_id}/stop")
        return reply.status_code

    async def questions() -> list[str]:
        messages = (await person.get(f"/sessions/{chat_id}")).json()["messages"]
        return [message["content"] for message in messages if message["role"] == "user"]

    first, later = said("What helps?", "m"), said("And then?", unsent)
    named = {**more, "messageId": unsent} if "messageId" in more else more
    assert await send(first) == 200
    assert await send(first, later, **named) == 200
    assert await questions() == ["What helps?", "And then?"]
    assert await send(first, later, **named) == 200, "it has arrived: this takes its place"
    assert await questions() == ["What helps?", "And then?"]
    assert await send(first, trigger="regenerate-message") == 409, "an earlier question: it is not the last turn's"
    assert await questions() == ["What helps?", "And then?"]
