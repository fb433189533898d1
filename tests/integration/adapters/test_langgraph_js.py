"""The published JavaScript client of LangGraph servers, `@langchain/langgraph-sdk`, in Node, against real replicas."""

from collections.abc import Iterable

import pytest

from tests.integration.adapters.conftest import ANSWER, cookie_of
from tests.support.gated import Gate
from tests.support.node import Said, Talk, talking
from tests.support.proxy import proxying
from tests.support.server import Server

QUESTION = "What helps?"
pytestmark = pytest.mark.timeout(150)  # a new process of Node for each client


def frames(talk: Talk, event: str) -> list[Said]:
    return [said["frame"] for said in talk.heard if said.get("frame", {}).get("event") == event]


def text_of(chunks: Iterable[Said]) -> str:
    return "".join(chunk["data"][0]["content"] for chunk in chunks)


def writing(said: Said) -> bool:
    frame = said.get("frame", {})
    return frame.get("event") == "messages" and "w5 " in frame["data"][0]["content"]


async def test_a_cut_stream_is_resumed_by_the_client_on_another_replica(
    replicas: tuple[Server, Server], gate: Gate
) -> None:
    one, two = replicas
    async with proxying(one.url) as proxy, talking("langgraph.mjs", proxy.url, cookie_of(one.url)) as talk:
        with gate.closed():
            talk.tell("stream", text=QUESTION, modes=["messages-tuple", "values"])
            await talk.until(writing)
            proxy._upstreams = (two.url,)
            proxy.cut()
        await talk.until(lambda said: "ended" in said)
        assert proxy.went_to[two.url], "the cut came in mid-stream"
        assert text_of(frames(talk, "messages")) == ANSWER
        assert frames(talk, "values")[-1]["data"]["messages"][-1]["content"] == ANSWER
        ids = [said["frame"]["id"] for said in talk.heard if "frame" in said]
        assert len(ids) == len(set(ids)), "no frame came twice"
        assert len({frame["data"][0]["id"] for frame in frames(talk, "messages")}) == 1, "it is one message"
        [run] = [said["run"] for said in talk.heard if "run" in said]
        assert {frame["data"]["run_id"] for frame in frames(talk, "metadata")} == {run}


async def test_cancel_keeps_the_partial_answer(replicas: tuple[Server, Server], gate: Gate) -> None:
    one, _ = replicas
    async with talking("langgraph.mjs", one.url, cookie_of(one.url)) as talk:
        with gate.closed():
            talk.tell("stream", text=QUESTION, modes=["messages-tuple"])
            await talk.until(writing)
            known = {name: said[name] for said in talk.heard for name in ("thread", "run") if name in said}
            talk.tell("cancel", **known)
            after = await talk.until(lambda said: "state" in said)
            if not any("ended" in said for said in talk.heard):
                await talk.until(lambda said: "ended" in said)
    partial = text_of(frames(talk, "messages"))
    assert after["status"] == "interrupted"
    assert after["state"]["values"]["messages"][-1]["content"] == partial
    assert ANSWER.startswith(partial)
    assert partial != ANSWER


async def test_use_stream_writes_the_answer_and_goes_on_in_the_same_thread(
    replicas: tuple[Server, Server], gate: Gate
) -> None:
    one, _ = replicas
    async with talking("langgraph.mjs", one.url, cookie_of(one.url)) as talk:
        talk.tell("use", history=False)
        await talk.until(lambda said: said.get("loading") is False)
        for turns in (1, 2):
            with gate.closed():
                talk.tell("submit", text=QUESTION)
                begun = await talk.until(lambda said: grows(said, turns))  # noqa: B023
            assert begun["messages"][-1]["content"] != ANSWER, "it came piece by piece"
            end = await talk.until(lambda said: not said["loading"] and len(said["messages"]) == 2 * turns)  # noqa: B023
            assert [message["type"] for message in end["messages"]] == ["human", "ai"] * turns
            assert end["messages"][-1]["content"] == ANSWER
            assert end["error"] is None


async def test_use_stream_shows_the_answer_grow_after_a_reload_and_writes_it_again(
    replicas: tuple[Server, Server], gate: Gate
) -> None:
    one, _ = replicas

    def text(said: Said) -> str:
        return str(said["messages"][-1]["content"]) if len(said.get("messages", [])) == 2 else ""

    async with talking("langgraph.mjs", one.url, cookie_of(one.url)) as talk:
        talk.tell("use", history=True)
        await talk.until(lambda said: said.get("loading") is False)
        with gate.closed():
            talk.tell("submit", text=QUESTION)
            await talk.until(lambda said: "w5 " in text(said))
            talk.tell("reload")
            await talk.until(lambda said: "reloaded" in said)
            so_far = await talk.until(lambda said: said["loading"] and "w5 " in text(said))
        assert text(so_far) != ANSWER, "word by word"
        end = await talk.until(lambda said: not said["loading"] and text(said) == ANSWER)
        talk.tell("regenerate")
        first = end["messages"][-1]["id"]
        again = await talk.until(
            lambda said: not said["loading"] and text(said) == ANSWER and said["messages"][-1]["id"] != first
        )
        assert [message["type"] for message in again["messages"]] == ["human", "ai"]
        assert again["error"] is None


def answered(said: Said, question: str, answers: int) -> bool:
    """So many answers are there, the last of them of this question, and no more comes."""
    messages = said.get("messages", [])
    return said.get("loading") is False and len(messages) == 2 * answers and messages[-2]["content"] == question


async def test_use_stream_survives_a_cut_edits_its_first_question_and_stops(
    replicas: tuple[Server, Server], gate: Gate
) -> None:
    one, two = replicas
    async with proxying(one.url) as proxy, talking("langgraph.mjs", proxy.url, cookie_of(one.url)) as talk:
        talk.tell("use", history=True)
        await talk.until(lambda said: said.get("loading") is False)
        with gate.closed():
            talk.tell("submit", text=QUESTION)
            begun = await talk.until(lambda said: grows(said, 1))
            proxy._upstreams = (two.url,)
            proxy.cut()
        end = await talk.until(lambda said: answered(said, QUESTION, 1))
        assert proxy.went_to[two.url], "the cut came in mid-stream"
        assert (end["messages"][-1]["content"], end["error"]) == (ANSWER, None)
        shown = [said["messages"][1]["content"] for said in talk.heard if len(said.get("messages", [])) == 2]
        assert all(ANSWER.startswith(text) for text in shown), "no word is missing or there twice, at any moment"
        assert end["messages"][-1]["id"] == begun["messages"][-1]["id"], "the ids are those of the other replica"

        talk.tell("edit", text="What else?")
        edited = await talk.until(lambda said: answered(said, "What else?", 1))
        assert (edited["messages"][-1]["content"], edited["error"]) == (ANSWER, None)

        with gate.closed():
            talk.tell("submit", text="And then?")
            await talk.until(lambda said: grows(said, 2))
            talk.tell("stop")
            await talk.until(lambda said: said["loading"] is False)
            await stopped_early(talk, ["What else?", ANSWER, "And then?"])

        talk.tell("use", history=False)
        await talk.until(lambda said: said.get("loading") is False and not said["messages"])
        with gate.closed():
            talk.tell("submit", text=QUESTION)
            await talk.until(lambda said: grows(said, 1))
            talk.tell("stop")  # it only hangs up, having asked that this stops the run
            await talk.until(lambda said: said["loading"] is False)
            await stopped_early(talk, [QUESTION])


def grows(said: Said, answers: int) -> bool:
    messages = said.get("messages", [])
    return len(messages) == 2 * answers and "w5 " in messages[-1]["content"]


async def stopped_early(talk: Talk, before: list[str]) -> None:
    """The run was stopped, and what it had said is kept after what was there before."""
    talk.tell("join")
    after = await talk.until(lambda said: "state" in said)
    *earlier, partial = [message["content"] for message in after["state"]["values"]["messages"]]
    assert (after["status"], earlier) == ("interrupted", before)
    assert ANSWER.startswith(partial)
    assert "w5 " in partial != ANSWER


async def test_use_stream_shows_what_a_graph_asks_and_answers_it(asking: Server) -> None:
    async with talking("langgraph.mjs", asking.url, cookie_of(asking.url)) as talk:
        talk.tell("use", history=True)
        await talk.until(lambda said: said.get("loading") is False)
        talk.tell("submit", text="Book a table in Lisbon")
        asked = await talk.until(lambda said: not said["loading"] and said["interrupt"])
        assert asked["interrupt"] == {"question": "Book a table in Lisbon?"}
        talk.tell("answer", resume="yes")
        end = await talk.until(lambda said: not said["loading"] and not said["interrupt"])
        assert end["messages"][-1]["content"] == "I asked: a table in Lisbon is booked."
        assert end["error"] is None
