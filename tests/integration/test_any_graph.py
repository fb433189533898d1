"""`PULSELINE_GRAPH`: other people's graphs, unchanged, served by real processes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from graph.eventlog.log import open_pool
from graph.eventlog.saver import EventLogSaver
from graph.loading import load
from tests.conftest import FreshDatabase
from tests.support.client import Person, Received, check_whole_turn
from tests.support.graphs import FIRST, WORDS
from tests.support.report import LOOKED, PLANNED, REPORT
from tests.support.server import Server, serving

SCRIPT = "".join(f"w{n} " for n in range(WORDS))
SLOW = FIRST + "\n\n" + SCRIPT


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    async with Person() as someone:
        yield someone


@pytest.fixture(scope="module")
def tools(fresh_database: FreshDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The example with tools, and its database."""
    with (
        fresh_database() as url,
        serving(url, tmp_path_factory.mktemp("tools"), GRAPH="examples.tools:graph") as server,
    ):
        yield server, url


async def asked(person: Person, server: Server, message: str, session_id: str | None = None) -> list[Received]:
    """The frames of one whole turn."""
    body = {"session_id": session_id} if session_id else {}
    started = await person.start(server.url, message, **body)
    frames = await person.read(server.url, started["session_id"], started["after"])
    check_whole_turn(frames)
    return frames


async def answered(
    person: Person, server: Server, session_id: str, resume: Any, request_id: str | None = None
) -> httpx.Response:
    body = {"session_id": session_id, "command": {"resume": resume}, "request_id": request_id or str(uuid4())}
    return await person.client.post(f"{server.url}/chat/stream", json=body, headers={"Prefer": "respond-async"})


async def resumed(person: Person, server: Server, session_id: str, resume: Any) -> Received:
    """The end of the turn that this answer began."""
    reply = await answered(person, server, session_id, resume)
    assert reply.status_code == 202, reply.text
    frames = await person.read(server.url, session_id, reply.json()["after"])
    check_whole_turn(frames)
    return frames[-1]


def content(end: Received) -> str:
    text: str = end.data["message"]["content"]
    return text


async def kept(url: str, session_id: str, graph: str = "examples.tools:graph") -> list[str]:
    """The kinds of messages that the graph itself remembers."""
    async with open_pool(url, max_size=1) as pool:
        saved = (await load(graph)).copy({"checkpointer": EventLogSaver(pool)})
        state = await saved.aget_state({"configurable": {"thread_id": session_id}})
        return [message.type for message in state.values["messages"]]


async def session_of(person: Person, server: Server) -> str:
    found: str = (await person.client.get(f"{server.url}/sessions")).json()["sessions"][0]["session_id"]
    return found


async def test_the_ten_line_example_is_a_stage_and_its_words(database_url: str, tmp_path: Path, person: Person) -> None:
    with serving(database_url, tmp_path, GRAPH="examples.ten_lines:graph") as server:
        frames = await asked(person, server, "Hello")
    types = [frame.type for frame in frames if frame.type != "token"]
    assert types == ["turn_started", "stage_start", "stage_complete", "done"]
    assert content(frames[-1]) == "These words come from a graph of your own, one by one."


async def test_the_example_with_tools_streams_asks_and_is_answered(tools: tuple[Server, str], person: Person) -> None:
    server, url = tools
    frames = await asked(person, server, "Is it warm in Lisbon?")
    stages = [frame.data["stage"] for frame in frames if frame.type == "stage_start"]
    assert stages == ["model", "tools", "model"]
    assert content(frames[-1]) == "Let me see.\n\nI asked: 22 degrees in Lisbon."
    [custom] = [frame.data["value"] for frame in frames if frame.type == "custom"]
    assert custom == {"asking": "weather station", "city": "Lisbon"}

    session_id = await session_of(person, server)
    asking = (await asked(person, server, "Book a table in Lisbon", session_id))[-1]
    [question] = asking.data["interrupted"]
    assert question["value"] == {"question": "Book a table in Lisbon?"}
    assert (await person.snapshot(server.url, session_id))["messages"][-1]["interrupted"] == [question]
    end = await resumed(person, server, session_id, "yes")
    assert content(end) == "I asked: a table in Lisbon is booked."
    assert "interrupted" not in end.data
    assert await kept(url, session_id) == ["human", "ai", "tool", "ai"] * 2, "nothing of it is lost or there twice"


async def test_a_command_is_taken_only_while_something_waits_for_it(tools: tuple[Server, str], person: Person) -> None:
    server, _ = tools
    nowhere = await answered(person, server, str(uuid4()), "yes")
    assert (nowhere.status_code, nowhere.json()["code"]) == (409, "not_interrupted")
    await asked(person, server, "Book a table in Lisbon")
    session_id = await session_of(person, server)
    once, again = [await answered(person, server, session_id, "yes", "the-same") for _ in range(2)]
    assert once.json()["turn_id"] == again.json()["turn_id"], "sent twice, it is one turn"
    check_whole_turn(await person.read(server.url, session_id, once.json()["after"]))
    late = await answered(person, server, session_id, "yes")
    assert (late.status_code, late.json()["code"]) == (409, "not_interrupted")


async def test_a_new_question_drops_what_waited(tools: tuple[Server, str], person: Person) -> None:
    """A tool call without its result would be refused by a provider: only its words stay."""
    server, url = tools
    await asked(person, server, "Book a table in Lisbon")
    session_id = await session_of(person, server)
    end = (await asked(person, server, "Is it warm in Porto?", session_id))[-1]
    assert content(end) == "Let me see.\n\nI asked: 22 degrees in Porto."
    assert await kept(url, session_id) == ["human", "ai", "human", "ai", "tool", "ai"]


async def test_each_of_two_questions_gets_its_own_answer(database_url: str, tmp_path: Path, person: Person) -> None:
    with serving(database_url, tmp_path, GRAPH="tests.support.graphs:pair") as server:
        asking = (await asked(person, server, "Where?"))[-1].data["interrupted"]
        session_id = await session_of(person, server)
        assert {question["value"] for question in asking} == {"left?", "right?"}
        refused = await answered(person, server, session_id, "both")
        assert refused.status_code == 422
        assert all(question["id"] in refused.json()["detail"] for question in asking)
        by_id = {question["id"]: question["value"].upper() for question in asking}
        assert content(await resumed(person, server, session_id, by_id)) == "LEFT?\n\nRIGHT?"


async def test_our_own_graph_takes_no_command_and_no_other_input(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    with serving(database_url, tmp_path) as server:
        for given in ({"command": {"resume": 1}}, {"input": {"alarm": ""}}):
            reply = await person.client.post(f"{server.url}/chat", json={"message": "Hello", **given})
            assert reply.status_code == 422
            assert "PULSELINE_GRAPH" in reply.json()["detail"]


async def test_a_killed_workers_graph_goes_on_and_its_text_is_exact(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    settings = {"GRAPH": "tests.support.graphs:slow", "LEASE_SECONDS": "1.5"}
    with serving(database_url, tmp_path, **settings) as one, serving(database_url, tmp_path, **settings) as two:
        with two.held():  # so that it is the other that answers
            started = await person.begin(one.url, input={"topic": "iron"})
        async with person.watch(two.url, started["session_id"], after=0) as watching:
            await watching.until("token", count=5)
            one.kill()
            reset = await watching.until("reset")
            frames = await watching.rest()
        check_whole_turn(frames)
        assert content(frames[-1]) == SLOW
        again = [frame.data["stage"] for frame in frames if frame.type == "stage_start" and frame.seq > reset.seq]
        assert again == ["second"], "what was finished is not done again"
        assert sum(frame.type == "reset" for frame in frames) == 1, "its words were said with the new attempt's first"
        [custom] = [frame.data["value"] for frame in frames if frame.type == "custom"]
        assert custom == {"topic": "iron", "odd": [1, 2], "3": None}


async def test_an_answer_reaches_its_question_though_its_worker_dies_after_it(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    settings = {"GRAPH": "tests.support.graphs:questions", "LEASE_SECONDS": "1.5"}
    with serving(database_url, tmp_path, **settings) as one, serving(database_url, tmp_path, **settings) as two:
        assert (await asked(person, one, "Hello"))[-1].data["interrupted"][0]["value"] == "Who are you?"
        session_id = await session_of(person, one)
        reply = await answered(person, one, session_id, "Ann")
        async with person.watch(two.url, session_id, after=reply.json()["after"]) as watching:
            await watching.until("stage_start")
            one.kill()
            frames = await watching.rest()
        [question] = frames[-1].data["interrupted"]
        assert question["value"] == {"how old": "Ann"}
        assert content(await resumed(person, two, session_id, 7)) == "Ann is 7."


def test_a_graph_that_is_not_there_is_refused_at_start(database_url: str, tmp_path: Path) -> None:
    for name, reason in (("nowhere:graph", "PULSELINE_GRAPH: 'nowhere:graph'"), ("nonsense", "must be module:name")):
        with pytest.raises(AssertionError, match=reason), serving(database_url, tmp_path, GRAPH=name):
            pass


async def test_what_nodes_say_to_themselves_is_no_answer_and_reaches_no_persons_messages(
    database_url: str, tmp_path: Path, person: Person
) -> None:
    name = "tests.support.report:graph"
    with serving(database_url, tmp_path, GRAPH=name) as server:
        frames = await asked(person, server, "Write of iron")
        stages = [frame.data["stage"] for frame in frames if frame.type == "stage_complete"]
        assert (stages[0], set(stages)) == ("plan", {"plan", "web", "library"})
        customs = [frame.data["value"] for frame in frames if frame.type == "custom"]
        assert (customs.count("web"), customs.count({"progress": 0.5})) == (1, 2)
        assert PLANNED % "iron" in "".join(frame.data["content"] for frame in frames if frame.type == "token")
        assert [frame.type for frame in frames[-2:]] == ["reset", "done"], "they were seen, and are taken back"
        assert content(frames[-1]) == ""
        assert frames[-1].data["interrupted"][0]["value"] == {"publish?": [LOOKED, LOOKED]}

        session_id = await session_of(person, server)
        failed = (await asked(person, server, "Write of failure", session_id))[-1]
        assert (failed.type, failed.data["code"]) == ("error", "graph_failed")
        assert "secret" not in failed.data["message"]
        await asked(person, server, "Write of tea", session_id)
        assert content(await resumed(person, server, session_id, True)) == REPORT
        given = {"message": "Hello", "input": {"messages": ["from elsewhere"]}}
        reply = await person.client.post(f"{server.url}/chat", json=given)
        assert (reply.status_code, "input.messages" in reply.text) == (422, True)
    assert (await kept(database_url, session_id, name))[0] == "human"
    assert (await kept(database_url, session_id, name))[-2:] == ["human", "ai"]
    assert await kept(database_url, session_id, name) == ["human", "human", "ai", "human", "ai"]
