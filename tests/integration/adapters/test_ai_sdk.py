"""Vercel's AI SDK, versions 6 and 7, with useChat and the workflow transport, against real replicas."""

from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.integration.adapters.conftest import ANSWER, MODEL, cookie_of
from tests.support.gated import GATED, PATIENT, Gate
from tests.support.node import Said, talking
from tests.support.proxy import proxying
from tests.support.server import Server, lapse, serving, serving_together

QUESTION = "What helps?"
VERSIONS = ["6", "7"]
pytestmark = pytest.mark.timeout(150)  # a new process of Node for each client


def ready(said: Said) -> bool:
    return bool(said["status"] == "ready" and said["text"])


def writing(said: Said) -> bool:
    return "w5 " in said.get("text", "")


def kinds(said: Said) -> list[str]:
    return [part["type"] for part in said["parts"]]


def stages(said: Said) -> dict[str, str]:
    return {part["id"]: part["data"]["state"] for part in said["parts"] if part["type"] == "data-stage"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_use_chat_shows_stages_sources_and_the_text(
    replicas: tuple[Server, Server], gate: Gate, version: str
) -> None:
    one, two = replicas
    cookie, chat = cookie_of(one.url), "a-chat-of-mine"
    async with talking("use_chat.mjs", version, one.url, cookie, chat) as talk:
        with gate.closed():
            talk.tell("send", text=QUESTION)
            begun = await talk.until(writing)
        assert begun["text"] != ANSWER, "it came piece by piece"
        end = await talk.until(ready)
        assert end["text"] == ANSWER
        assert stages(end) == {"retrieval": "done", "reranking": "done", "generation": "done"}
        assert kinds(end).count("source-document") == 3

        talk.tell("send", text="And then?")
        again = await talk.until(lambda said: ready(said) and said["id"] != end["id"])
        assert again["text"] == ANSWER
        talk.tell("regenerate")
        other = await talk.until(lambda said: ready(said) and said["id"] not in (end["id"], again["id"]))
        assert other["roles"] == ["user", "assistant"] * 2
    async with httpx.AsyncClient(trust_env=False, headers={"cookie": cookie}) as client:
        [kept] = (await client.get(f"{two.url}/sessions")).json()["sessions"]
        messages = (await client.get(f"{two.url}/sessions/{kept['session_id']}")).json()["messages"]
        assert (await client.get(f"{two.url}/api/chat/{chat}/stream")).status_code == 204
    assert [message["id"] for message in messages if message["role"] == "assistant"] == [end["id"], other["id"]]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_cut_answer_is_resumed_on_another_replica_exactly(
    replicas: tuple[Server, Server], gate: Gate, version: str
) -> None:
    one, two = replicas
    async with (
        proxying(one.url) as proxy,
        talking("use_chat.mjs", version, proxy.url, cookie_of(one.url), "cut") as talk,
    ):
        with gate.closed():
            talk.tell("send", text=QUESTION)
            begun = await talk.until(writing)
            proxy._upstreams = (two.url,)
            proxy.cut()
            await talk.until(lambda said: said["status"] == "error")
            talk.tell("resume")
            await talk.until(lambda said: said["status"] == "streaming")
        end = await talk.until(ready)
        assert end["text"] == ANSWER
        assert end["id"] == begun["id"], "the same message, from the other replica"
        assert end["roles"] == ["user", "assistant"]
        assert kinds(end).count("source-document") == 3, "nothing is there twice"


async def messages_of(url: str, cookie: str) -> list[Said]:
    """What the log has of the person's one conversation, read from any replica."""
    async with httpx.AsyncClient(trust_env=False, headers={"cookie": cookie}) as client:
        [session] = [item["session_id"] for item in (await client.get(f"{url}/sessions")).json()["sessions"]]
        return list((await client.get(f"{url}/sessions/{session}")).json()["messages"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stopped_answer_is_kept_its_question_is_edited_twice_and_whoever_left_comes_back(
    replicas: tuple[Server, Server], gate: Gate, version: str
) -> None:
    one, two = replicas
    cookie = cookie_of(one.url)
    async with talking("use_chat.mjs", version, one.url, cookie, "edited") as talk:
        with gate.closed():
            talk.tell("send", text=QUESTION)
            seen = set[str]()
            for edit in ("What else?", "And what harms?"):
                await talk.until(lambda said: writing(said) and said["id"] not in seen)
                talk.tell("stop")
                stopped = await talk.until(lambda said: said["status"] in ("ready", "error"))
                *_, kept = await messages_of(two.url, cookie)
                assert (kept["status"], kept["content"]) == ("cancelled", stopped["text"])
                assert ANSWER.startswith(stopped["text"])
                assert stopped["text"] != ANSWER
                seen.add(stopped["id"])
                talk.tell("edit", text=edit)
            begun = await talk.until(lambda said: writing(said) and said["id"] not in seen)
            talk.tell("leave")
            await talk.until(lambda said: "left" in said)
            talk.tell("resume")
            await talk.until(lambda said: said["status"] == "streaming")
        end = await talk.until(ready)
    assert (end["id"], end["text"]) == (begun["id"], ANSWER), "useChat's own stop only hangs up"
    assert (end["asked"], end["roles"]) == (edit, ["user", "assistant"])
    assert [message["content"] for message in await messages_of(two.url, cookie)] == [edit, ANSWER]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_question_that_did_not_arrive_is_asked_by_a_retry_and_takes_no_answers_place(
    replicas: tuple[Server, Server], version: str
) -> None:
    one, two = replicas
    cookie = cookie_of(one.url)
    async with (
        proxying(two.url) as proxy,
        talking("use_chat.mjs", version, proxy.url, cookie, "unsent") as talk,
    ):
        seen = set[str]()
        for question in (QUESTION, "And then?"):  # the chat's first, and one after an answer
            proxy.refuse()
            talk.tell("send", text=question)
            await talk.until(lambda said: said["status"] == "error")
            await proxy.restore()
            talk.tell("regenerate")
            await talk.until(lambda said: said["status"] == "submitted")
            end = await talk.until(lambda said: said["error"] or (ready(said) and said["id"] not in seen))
            seen.add(end["id"])
            assert (end["error"], end["roles"]) == (None, ["user", "assistant"] * len(seen))
    kept = [message["content"] for message in await messages_of(one.url, cookie)]
    assert kept == [QUESTION, ANSWER, "And then?", ANSWER]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_graph_asks_is_shown_and_answered(asking: Server, version: str) -> None:
    async with talking("use_chat.mjs", version, asking.url, cookie_of(asking.url), "asking") as talk:
        talk.tell("send", text="Book a table in Lisbon")
        asked = await talk.until(ready)
        [[interrupt]] = [part["data"] for part in asked["parts"] if part["type"] == "data-interrupt"]
        assert interrupt["value"] == {"question": "Book a table in Lisbon?"}
        talk.tell("send", text="yes", body={"command": {"resume": "yes"}})
        end = await talk.until(lambda said: ready(said) and said["id"] != asked["id"])
        assert end["text"] == "I asked: a table in Lisbon is booked."
        assert "data-interrupt" not in kinds(end)


async def test_a_killed_servers_answer_is_taken_over_and_its_text_is_exact(database_url: str, tmp_path: Path) -> None:
    """The clients read from one that lives: their streams are never cut, and a second attempt begins under them."""
    gate = Gate(tmp_path)
    with serving_together(database_url, tmp_path, MODEL, {"WORKER": "off"}, PATIENT, program=GATED) as (reading, one):
        cookie = cookie_of(reading.url)
        async with (
            talking("use_chat.mjs", "6", reading.url, cookie, "killed-6") as six,
            talking("use_chat.mjs", "7", reading.url, cookie, "killed-7") as seven,
        ):
            for talk in (six, seven):  # both are there before either asks
                await talk.until(lambda said: said["status"] == "ready")
            with gate.closed():
                for talk in (six, seven):
                    talk.tell("send", text=QUESTION)
                begun = [await talk.until(writing) for talk in (six, seven)]
                one.kill()
                lapse(database_url)
            with serving(database_url, tmp_path, MODEL, **PATIENT):
                ends = [await talk.until(lambda said: ready(said) or said["error"]) for talk in (six, seven)]
    for end, first in zip(ends, begun, strict=True):
        assert end["text"] == ANSWER
        assert end["id"] == first["id"]
        assert kinds(end).count("text") == 1
        assert stages(end) == {"retrieval": "done", "reranking": "done", "generation": "done"}
    shown = [said["text"] for said in seven.heard]
    assert any(len(later) < len(earlier) for earlier, later in pairwise(shown)), "the first attempt was forgotten"


def index(talk: Any) -> list[Any]:
    return [said["chunk"] for said in talk.heard if "chunk" in said]


async def test_the_workflow_transport_goes_on_at_its_chunk(replicas: tuple[Server, Server], gate: Gate) -> None:
    one, two = replicas
    cookie, chat = cookie_of(one.url), str(uuid4())
    async with proxying(one.url) as proxy, talking("workflow.mjs", proxy.url, cookie, chat) as talk:
        with gate.closed():
            talk.tell("send", text=QUESTION)
            await talk.until(lambda said: "w5 " in said["chunk"].get("delta", ""))
            proxy._upstreams = (two.url,)
            proxy.cut()
        await talk.until(lambda said: "ended" in said)
        assert proxy.went_to[two.url]
        whole = index(talk)
        assert "".join(chunk.get("delta", "") for chunk in whole) == ANSWER
        assert [chunk["type"] for chunk in whole].count("finish") == 1

        run = f"{chat}.{whole[0]['messageMetadata']['turn_id']}"
        step = next(n for n, chunk in enumerate(whole) if chunk["type"] == "start-step")
        starts = {0: 0, 7: 7, len(whole) - 1: len(whole) - 1, -1: len(whole) - 1, -3: step, -20: step, -1000: 0}
        for start, begins in starts.items():
            talk.heard.clear()
            talk.tell("join", run=run, startIndex=start)
            await talk.until(lambda said: "ended" in said)
            assert index(talk) == whole[begins:], start


async def test_through_the_workflow_transport_an_answer_is_stopped_edited_and_written_again(
    replicas: tuple[Server, Server], gate: Gate
) -> None:
    one, two = replicas
    cookie = cookie_of(one.url)
    async with talking("workflow.mjs", one.url, cookie, str(uuid4())) as talk:
        for question, more in ((QUESTION, {}), ("What else?", {"messageId": "asked"})):
            talk.heard.clear()
            with gate.closed():
                talk.tell("send", text=question, id="asked", **more)
                await talk.until(lambda said: "w5 " in said["chunk"].get("delta", ""))
                talk.tell("stop")
                await talk.until(lambda said: "ended" in said)
            partial = "".join(chunk.get("delta", "") for chunk in index(talk))
            assert [chunk["type"] for chunk in index(talk)][-2:] == ["abort", "finish"]
            asked, kept = await messages_of(two.url, cookie)
            assert (asked["content"], kept["status"], kept["content"]) == (question, "cancelled", partial)
            assert partial != ANSWER
        talk.heard.clear()
        talk.tell("send", text=question, id="asked", trigger="regenerate-message")
        await talk.until(lambda said: "ended" in said)
        assert "".join(chunk.get("delta", "") for chunk in index(talk)) == ANSWER
    _, again = await messages_of(two.url, cookie)
    assert again["id"] == index(talk)[0]["messageId"]


async def test_what_a_graph_asks_is_answered_through_the_workflow_transport(asking: Server) -> None:
    async with talking("workflow.mjs", asking.url, cookie_of(asking.url), str(uuid4())) as talk:
        talk.tell("send", text="Book a table in Lisbon")
        await talk.until(lambda said: "ended" in said)
        assert "data-interrupt" in [chunk["type"] for chunk in index(talk)]
        talk.heard.clear()
        talk.tell("send", text="yes", body={"command": {"resume": "yes"}})
        await talk.until(lambda said: "ended" in said)
        said = "".join(chunk.get("delta", "") for chunk in index(talk))
    assert said == "I asked: a table in Lisbon is booked."


async def test_the_workflow_transport_counts_on_from_where_a_step_begins(
    replicas: tuple[Server, Server], gate: Gate
) -> None:
    """It is cut after a resume by a negative index, and goes on at the next chunk."""
    one, two = replicas
    cookie, chat = cookie_of(one.url), str(uuid4())
    async with (
        proxying(one.url) as proxy,
        talking("workflow.mjs", one.url, cookie, chat) as talk,
        talking("workflow.mjs", proxy.url, cookie, chat) as other,
    ):
        other.tell("greet")
        await other.until(lambda said: "ready" in said)
        with gate.closed():
            talk.tell("send", text=QUESTION)
            begun = await talk.until(lambda said: said["chunk"].get("messageMetadata"))
            await talk.until(lambda said: "w5 " in said["chunk"].get("delta", ""))
            run = f"{chat}.{begun['chunk']['messageMetadata']['turn_id']}"
            other.tell("join", run=run, startIndex=-2)
            await other.until(lambda said: "w12 " in said["chunk"].get("delta", ""))
            proxy._upstreams = (two.url,)
            proxy.cut()
        await other.until(lambda said: "ended" in said)
        assert proxy.went_to[two.url], "the cut came in mid-stream"
        assert index(other)[0]["type"] == "start-step"
        assert "".join(chunk.get("delta", "") for chunk in index(other)) == ANSWER


def test_requests_are_refused_in_the_words_of_our_own(replicas: tuple[Server, Server]) -> None:
    url = f"{replicas[0].url}/api/chat"
    text = {"id": "m", "role": "user", "parts": [{"type": "text", "text": QUESTION}]}
    picture = {"id": "m", "role": "user", "parts": [{"type": "file", "url": "data:"}]}
    with httpx.Client(trust_env=False) as client:
        for body, status, reason in (
            ({"messages": [text]}, 422, "id"),
            ({"id": "c", "messages": []}, 422, "no message of a user"),
            ({"id": "c", "messages": [picture]}, 422, "only text"),
            ({"id": "c", "messages": [text], "messageId": "other"}, 409, "last turn"),
            ({"id": "c", "messages": [text], "command": {"resume": 1}}, 422, "PULSELINE_GRAPH"),
        ):
            reply = client.post(url, json=body)
            assert reply.status_code == status, reply.text
            assert reason in reply.text
        assert client.get(f"{url}/nothing/stream").status_code == 204
        assert client.post(f"{url}/nothing/stop").status_code == 404
        chat = {"id": str(uuid4()), "messages": [text]}
        with client.stream("POST", url, json=chat) as first:
            assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
            run = first.headers["x-workflow-run-id"]
            again = client.post(url, json=chat)
            assert again.headers["x-workflow-run-id"] == run, "sent twice, it is one turn"
        stranger = httpx.get(f"{url}/{run}/stream", trust_env=False)
        assert stranger.status_code == 404
