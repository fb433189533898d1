"""Ask, watch, resume and stop over HTTP, against real `pulseline serve` processes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.conftest import FreshDatabase
from tests.support.client import ENDS, Person, Received, check_whole_turn, text_of
from tests.support.server import Server, serving

SLOW = "scripted?tokens=120&delay_ms=20"
ENDLESS = "scripted?tokens=5000&delay_ms=50"  # for what is cancelled, or looked at while it runs


@pytest.fixture(scope="module")
def server(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of all tests here that look at nothing but their own person's sessions."""
    with fresh_database() as url, serving(url, tmp_path_factory.mktemp("streaming"), SLOW) as started:
        yield started


@pytest.fixture(scope="module")
def endless(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of those whose turn must not end by itself, however slow the machine is."""
    with fresh_database() as url, serving(url, tmp_path_factory.mktemp("endless"), ENDLESS) as started:
        yield started


@pytest.fixture
def own_server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with serving(database_url, tmp_path, SLOW) as started:
        yield started


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


async def test_a_post_streams_its_turn_from_the_first_event_to_the_end(server: Server, person: Person) -> None:
    body = {"message": "What are the symptoms?"}
    async with person.client.stream("POST", f"{server.url}/chat/stream", json=body) as reply:
        text = (await reply.aread()).decode()
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache, no-transform"
    assert reply.headers["x-accel-buffering"] == "no"
    assert text.startswith("retry: ")
    assert text.count("\nevent: done\n") == 1
    assert reply.headers["location"] == f"/chat/stream/{reply.headers['x-session-id']}?after=0"
    frames = await person.read(server.url, reply.headers["x-session-id"])
    check_whole_turn(frames)
    types = [frame.type for frame in frames if frame.type != "token"]
    assert types == [
        "turn_started",
        "routed",
        "retrieval_start",
        "retrieval_complete",
        "reranking_start",
        "reranking_complete",
        "generation_start",
        "done",
    ]
    assert all(frame.data["timestamp"].endswith("Z") for frame in frames)
    assert all(("turn_id" in frame.data) == (frame.type != "token") for frame in frames)


async def test_resume_from_every_cursor_of_a_finished_turn_gives_exactly_the_rest(
    server: Server, person: Person
) -> None:
    started = await person.start(server.url)
    whole = await person.read(server.url, started["session_id"])
    check_whole_turn(whole)
    for cursor in range(len(whole)):
        assert await person.read(server.url, started["session_id"], cursor) == whole[cursor:]
    async with person.watch(server.url, started["session_id"], after=len(whole)) as watching:
        assert watching.response.status_code == 204


async def test_resume_from_every_cursor_of_a_running_turn_gives_exactly_the_rest(
    server: Server, person: Person
) -> None:
    started = await person.start(server.url)
    session_id = started["session_id"]

    async def resume(cursor: int) -> list[object]:
        async with person.watch(server.url, session_id, after=0, last_event_id=cursor) as watching:
            return list(await watching.rest())

    async with person.watch(server.url, session_id, after=0) as watching:
        resumed = []
        for _ in range(100):
            frame = await watching.until("token", "done", *["generation_start"])
            if frame.type == "done":
                break
            resumed.append((frame.seq, asyncio.create_task(resume(frame.seq))))
        whole = await watching.rest()
    check_whole_turn(whole)
    assert len(resumed) > 50
    for cursor, task in resumed:
        assert await task == whole[cursor:]


async def test_any_replica_tails_resumes_and_cancels(database_url: str, tmp_path: Path, person: Person) -> None:
    with (
        serving(database_url, tmp_path, ENDLESS) as one,
        serving(database_url, tmp_path, ENDLESS, WORKER="off") as two,
    ):
        started = await person.start(one.url)
        session_id = started["session_id"]
        async with person.watch(two.url, session_id, after=0) as watching:
            cut = await watching.until("token", count=5)
        async with person.watch(two.url, session_id, last_event_id=cut.seq) as resumed:
            await resumed.until("token", count=5)
            ended = await person.cancel(two.url, session_id, turn_id=started["turn_id"])
            tail = await resumed.rest()
        assert ended.json()["status"] == "cancelled"
        frames = watching.frames + tail
        check_whole_turn(frames)
        assert frames[-1].type == "cancelled"
        assert frames == await person.read(one.url, session_id)


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_without_notify_everything_works_by_polling(
    database_url: str, tmp_path: Path, person: Person, notify: str
) -> None:
    """Law 6: a lost wake-up only delays."""
    with (
        serving(database_url, tmp_path, "scripted?tokens=30&delay_ms=5", NOTIFY=notify) as worker,
        serving(database_url, tmp_path, "scripted?tokens=30&delay_ms=5", NOTIFY=notify, WORKER="off") as tail,
    ):
        started = await person.start(tail.url)
        frames = await person.read(tail.url, started["session_id"])
        check_whole_turn(frames)
        assert frames == await person.read(worker.url, started["session_id"])


async def test_stop_keeps_the_partial_answer_also_for_the_next_turn(server: Server, person: Person) -> None:
    started = await person.start(server.url, "First question")
    session_id = started["session_id"]
    async with person.watch(server.url, session_id, after=0) as watching:
        await watching.until("token", count=8)
        first = await person.cancel(server.url, session_id, turn_id=started["turn_id"])
        frames = await watching.rest()
    again = await person.cancel(server.url, session_id, turn_id=started["turn_id"])
    assert first.json() == again.json()
    check_whole_turn(frames)
    snapshot = await person.snapshot(server.url, session_id)
    assert snapshot["turn"] is None
    assert [(m["role"], m["status"]) for m in snapshot["messages"]] == [
        ("user", "complete"),
        ("assistant", "cancelled"),
    ]
    assert snapshot["messages"][1]["content"] == text_of(frames) != ""

    second = await person.start(server.url, "Second question", session_id=session_id)
    assert second["after"] == frames[-1].seq
    check_whole_turn(await person.read(server.url, session_id, second["after"]))


async def test_a_snapshot_and_a_tail_meet_without_a_seam(server: Server, person: Person) -> None:
    started = await person.start(server.url)
    session_id = started["session_id"]
    async with person.watch(server.url, session_id, after=0) as watching:
        await watching.until("token", count=10)
        snapshot = await person.snapshot(server.url, session_id)
        rest = await person.read(server.url, session_id, snapshot["last_seq"])
        whole = await watching.rest()
    assert snapshot["turn"]["stage"] == "generation"
    assert snapshot["turn"]["content"] + text_of(rest) == whole[-1].data["message"]["content"]
    assert rest[0].seq == snapshot["last_seq"] + 1
    assert [source["id"] for source in snapshot["turn"]["sources"]]


async def test_the_same_request_on_two_replicas_at_once_is_one_turn(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with (
        serving(database_url, tmp_path, SLOW) as one,
        serving(database_url, tmp_path, SLOW) as two,
    ):
        await person.client.get(f"{one.url}/sessions")
        urls = [one.url, two.url] * 5
        starts = await asyncio.gather(*(person.start(url, request_id="same") for url in urls))
        assert len({(s["session_id"], s["turn_id"], s["after"]) for s in starts}) == 1
        frames = await person.read(two.url, starts[0]["session_id"])
        assert sum(frame.type == "turn_started" for frame in frames) == 1


async def test_a_second_question_while_one_is_answered_is_busy(endless: Server, person: Person) -> None:
    started = await person.start(endless.url)
    body = {"message": "And another?", "session_id": started["session_id"]}
    reply = await person.client.post(f"{endless.url}/chat/stream", json=body)
    assert (reply.status_code, reply.json()["code"]) == (409, "session_busy")
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_session_followed_stays_for_the_turns_to_come(endless: Server, person: Person) -> None:
    started = await person.start(endless.url)
    session_id = started["session_id"]
    async with person.watch(endless.url, session_id, after=0, follow="session") as watching:
        await watching.until("token")
        await person.cancel(endless.url, session_id)
        await watching.until("cancelled")
        await person.start(endless.url, "Next", session_id=session_id)
        started_again = await watching.until("turn_started")
        assert started_again.data["message"] == "Next"


async def test_a_window_ends_cleanly_and_the_client_goes_on_at_its_cursor(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with serving(database_url, tmp_path, SLOW, STREAM_WINDOW_SECONDS="0.5") as server:
        started = await person.start(server.url)
        frames: list[Received] = []
        session_id, cursor, windows = started["session_id"], 0, 0
        while not frames or frames[-1].type not in ENDS:
            part = await person.read(server.url, session_id, cursor)
            frames += part
            cursor = frames[-1].seq
            windows += 1
        check_whole_turn(frames)
        assert windows > 2


async def test_a_blocking_chat_gives_the_whole_answer(server: Server, person: Person) -> None:
    reply = await person.client.post(f"{server.url}/chat", json={"message": "Hello?"})
    assert reply.status_code == 200
    answer = reply.json()
    frames = await person.read(server.url, answer["session_id"])
    assert answer["status"] == "done"
    assert answer["message"]["content"] == text_of(frames)


async def test_a_blocking_chat_that_is_cancelled_gives_the_text_so_far_and_how_long_it_took(
    endless: Server, person: Person
) -> None:
    began = time.monotonic()
    body = {"message": "Hello?", "session_id": str(uuid4()), "request_id": "same"}
    started = await person.start(endless.url, **body)
    blocking = asyncio.create_task(person.client.post(f"{endless.url}/chat", json=body))
    async with person.watch(endless.url, started["session_id"], after=0) as watching:
        await watching.until("token", count=3)
        await person.cancel(endless.url, started["session_id"])
        frames = await watching.rest()
    answer = (await blocking).json()
    took_ms = 1000 * (time.monotonic() - began)
    assert (answer["status"], answer["message"]["content"]) == ("cancelled", text_of(frames))
    assert 0 < answer["duration_ms"] < took_ms


async def test_a_stranger_finds_nothing_and_a_forged_cookie_is_a_stranger(endless: Server, person: Person) -> None:
    started = await person.start(endless.url)
    session_id = started["session_id"]
    cookie = person.client.cookies["pulseline_owner"]
    async with Person() as stranger, Person() as forger:
        forger.client.cookies.set("pulseline_owner", cookie[:-3] + "abc")
        for other in (stranger, forger):
            for method, path, body in (
                ("GET", f"/chat/stream/{session_id}", None),
                ("POST", f"/chat/stream/{session_id}/cancel", {}),
                ("GET", f"/sessions/{session_id}", None),
                ("PATCH", f"/sessions/{session_id}", {"title": "mine"}),
                ("DELETE", f"/sessions/{session_id}", None),
                ("PUT", f"/sessions/{session_id}/turns/{started['turn_id']}/feedback", {"value": 1}),
                ("POST", "/chat/stream", {"message": "mine now", "session_id": session_id}),
            ):
                reply = await other.client.request(method, endless.url + path, json=body)
                assert (reply.status_code, reply.json()["code"]) == (404, "session_not_found"), path
            assert (await other.client.get(f"{endless.url}/sessions")).json()["sessions"] == []
    assert (await person.snapshot(endless.url, session_id))["turn"]["turn_id"] == started["turn_id"]


async def test_the_owners_cookie_is_signed_httponly_and_samesite(server: Server, person: Person) -> None:
    reply = await person.client.get(f"{server.url}/sessions")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "set-cookie" not in (await person.client.get(f"{server.url}/sessions")).headers


async def test_sessions_are_listed_searched_renamed_and_erased(server: Server, person: Person) -> None:
    ids = [(await person.start(server.url, f"About {word}"))["session_id"] for word in ("iron", "sleep")]
    for session_id in ids:
        await person.cancel(server.url, session_id)
    listed = (await person.client.get(f"{server.url}/sessions")).json()
    assert [s["title"] for s in listed["sessions"]] == ["About sleep", "About iron"]
    assert listed["next"] is None
    found = (await person.client.get(f"{server.url}/sessions?query=IRON")).json()["sessions"]
    assert [s["session_id"] for s in found] == [ids[0]]
    renamed = await person.client.patch(f"{server.url}/sessions/{ids[0]}", json={"title": "Ferritin"})
    assert renamed.status_code == 204
    assert (await person.snapshot(server.url, ids[0]))["title"] == "Ferritin"
    assert (await person.client.delete(f"{server.url}/sessions/{ids[0]}")).status_code == 204
    assert (await person.client.get(f"{server.url}/sessions/{ids[0]}")).status_code == 404
    again = await person.client.post(f"{server.url}/chat/stream", json={"message": "Hi", "session_id": ids[0]})
    assert again.status_code == 404


async def test_a_message_with_line_breaks_and_fields_forges_no_frame(server: Server, person: Person) -> None:
    message = "one\r\n\r\nid: 99\nevent: done\ndata: {}\n\n\u2028 end\x00"
    started = await person.start(server.url, message)
    frames = await person.read(server.url, started["session_id"])
    check_whole_turn(frames)
    assert frames[0].data["message"] == message.replace("\x00", "")


async def test_a_disconnect_is_not_a_stop(server: Server, person: Person) -> None:
    started = await person.start(server.url)
    async with person.watch(server.url, started["session_id"], after=0) as watching:
        await watching.until("token")
    frames = await person.read(server.url, started["session_id"])
    assert frames[-1].type == "done"


BAD_STARTS = [
    ({}, 422, "message"),
    ({"message": ""}, 422, "message"),
    ({"message": "  \n"}, 422, "message"),
    ({"message": "x" * 4001}, 422, "4000"),
    ({"message": "hi", "session_id": "not-a-uuid"}, 422, "session_id"),
    ({"message": "hi", "request_id": ""}, 422, "request_id"),
    ({"message": "hi", "request_id": "x" * 65}, 422, "64"),
    ({"message": "hi", "mesage": "typo"}, 422, "mesage"),
    ({"message": 7}, 422, "message"),
    ({"message": "hi", "replaces": str(uuid4())}, 409, "last turn"),
    ({"message": "x" * 1_000_000}, 413, "bytes"),
]


async def test_bad_input_is_refused_with_what_to_do_and_the_log_stays(
    own_server: Server, person: Person, database_url: str
) -> None:
    import psycopg

    post = person.client.post
    for body, status, words in BAD_STARTS:
        for path in ("/chat/stream", "/chat"):
            reply = await post(own_server.url + path, json=body)
            assert reply.status_code == status, (body, reply.text)
            _is_problem(reply, words)
    for content, content_type, status in (
        (b"{not json", "application/json", 422),
        (b'"text"', "application/json", 422),
        (b'{"message": "\xff"}', "application/json", 422),
        (b"message=hi", "application/x-www-form-urlencoded", 415),
        (json.dumps({"message": "hi"}).encode(), "text/plain", 415),
    ):
        reply = await post(f"{own_server.url}/chat/stream", content=content, headers={"Content-Type": content_type})
        assert reply.status_code == status, (content, reply.text)
        _is_problem(reply)
    with psycopg.connect(database_url) as connection:
        for table in ("sessions", "turns", "events"):
            assert connection.execute(f"select count(*) from {table}".encode()).fetchone() == (0,)


async def test_a_bad_cursor_or_path_is_refused_with_what_to_do(server: Server, person: Person) -> None:
    started = await person.start(server.url)
    session = f"{server.url}/chat/stream/{started['session_id']}"
    get = person.client.get
    for query, words in (
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=99999", "last_seq"),
        ("follow=all", "turn"),
    ):
        reply = await get(f"{session}?{query}")
        assert reply.status_code == 422, query
        _is_problem(reply, words)
    _is_problem(await get(session, headers={"Last-Event-ID": "1; drop table"}), "event-id")
    for path, status in ((f"/chat/stream/{uuid4()}", 404), ("/chat/stream/nonsense", 422), ("/nowhere", 404)):
        reply = await get(server.url + path)
        assert reply.status_code == status
        _is_problem(reply)
    reply = await person.client.put(session, json={})
    assert reply.status_code == 405
    _is_problem(reply)
    unknown_turn = await person.cancel(server.url, started["session_id"], turn_id=str(uuid4()))
    assert (unknown_turn.status_code, unknown_turn.json()["code"]) == (409, "turn_not_found")


def _is_problem(reply: httpx.Response, words: str = "") -> None:
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == reply.status_code
    assert problem["code"]
    assert words in problem["detail"], problem


async def test_finished_stages_commit_with_their_checkpoint_writes(
    own_server: Server, person: Person, database_url: str
) -> None:
    import psycopg

    started = await person.start(own_server.url)
    check_whole_turn(await person.read(own_server.url, started["session_id"]))
    with psycopg.connect(database_url) as connection:
        ends = connection.execute(
            "select xmin::text from events where type in ('retrieval_complete', 'reranking_complete') order by seq"
        ).fetchall()
        writes = [
            connection.execute(
                "select distinct xmin::text from checkpoint_writes where task_path like %s", [f"%{node}"]
            ).fetchall()
            for node in ("retrieve", "rerank")
        ]
    assert [[end] for end in ends] == writes


async def test_erasing_a_session_in_mid_answer_ends_its_readers_on_every_replica(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    beat = {"HEARTBEAT_SECONDS": "0.3"}
    with (
        serving(database_url, tmp_path, "scripted?tokens=500&delay_ms=20", **beat) as one,
        serving(database_url, tmp_path, SLOW, WORKER="off", **beat) as two,
    ):
        await person.client.get(f"{one.url}/sessions")
        started = await person.start(one.url, request_id="again")
        session_id = started["session_id"]
        body = {"message": "What are the symptoms?", "request_id": "again"}
        blocking = asyncio.create_task(person.client.post(f"{two.url}/chat", json=body))
        async with (
            person.watch(one.url, session_id, after=0) as here,
            person.watch(two.url, session_id, after=0) as there,
        ):
            await here.until("token")
            await there.until("token")
            erased = await person.client.delete(f"{one.url}/sessions/{session_id}")
            assert erased.status_code == 204
            for watching in (here, there):
                frames = await asyncio.wait_for(watching.rest(), 10)
                assert not any(frame.type in ENDS for frame in frames)
        assert (await asyncio.wait_for(blocking, 10)).json()["code"] == "session_not_found"
        async with person.watch(two.url, session_id, after=1) as gone:
            assert gone.response.status_code == 404


async def test_a_blocking_chat_past_the_window_goes_on_at_location(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with serving(database_url, tmp_path, SLOW, STREAM_WINDOW_SECONDS="0.4") as server:
        reply = await person.client.post(f"{server.url}/chat", json={"message": "Hello?"})
        assert reply.status_code == 202
        assert reply.headers["location"] == reply.json()["events_url"]
        first = await person.read(server.url, reply.json()["session_id"], reply.json()["after"])
        assert first[0].type == "turn_started"


async def test_prefer_is_read_as_tokens_of_any_case_in_any_header(server: Server, person: Person) -> None:
    for headers in ([("Prefer", "Respond-Async")], [("Prefer", "wait=1"), ("Prefer", "respond-async, foo=bar")]):
        body = {"message": "Hello?"}
        reply = await person.client.post(f"{server.url}/chat/stream", json=body, headers=headers)
        assert reply.status_code == 202
        await person.cancel(server.url, reply.json()["session_id"])


async def test_a_refused_start_leaves_the_session_where_it_was(endless: Server, person: Person) -> None:
    ids = [(await person.start(endless.url, word))["session_id"] for word in ("first", "second")]
    listed = (await person.client.get(f"{endless.url}/sessions")).json()["sessions"]
    body = {"message": "Busy?", "session_id": ids[0]}
    assert (await person.client.post(f"{endless.url}/chat/stream", json=body)).status_code == 409
    assert (await person.client.get(f"{endless.url}/sessions")).json()["sessions"] == listed
    assert [session["session_id"] for session in listed] == ids[::-1]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/c/11111111-1111-4111-8111-111111111111"])
async def test_head_is_answered_as_get(server: Server, person: Person, path: str) -> None:
    got, head = [await person.client.request(method, server.url + path) for method in ("GET", "HEAD")]
    assert head.status_code == got.status_code
    assert head.content == b""


async def test_never_more_turns_run_than_are_allowed(database_url: str, tmp_path: Path, person: Person) -> None:
    import psycopg

    with serving(database_url, tmp_path, "scripted?tokens=20&delay_ms=10", MAX_TURNS="1") as server:
        started = [await person.start(server.url) for _ in range(4)]
        reading = [asyncio.create_task(person.read(server.url, s["session_id"])) for s in started]
        with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
            running = []
            while not all(task.done() for task in reading):
                row = connection.execute("select count(*) from turns where status = 'running'").fetchone()
                running.append(row[0] if row else 0)
                await asyncio.wait(reading, timeout=0.01)
        assert max(running) == 1
        for task in reading:
            check_whole_turn(await task)


async def test_a_cookie_outlives_a_restart_with_the_same_key_only(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    statuses = []
    session_id = ""
    for key in ("a-key-of-sixteen-and-more", "a-key-of-sixteen-and-more", "another-key-of-sixteen-x"):
        with serving(database_url, tmp_path, "scripted?tokens=2&delay_ms=0", SECRET_KEY=key) as server:
            session_id = session_id or (await person.start(server.url))["session_id"]
            statuses.append((await person.client.get(f"{server.url}/sessions/{session_id}")).status_code)
    assert statuses == [200, 200, 404]
