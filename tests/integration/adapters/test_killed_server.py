"""All JavaScript clients at once, when the replica that they read from is killed, which was writing their answers too.

They go on at another replica, as through a load balancer. The second attempt says truly other words.
"""

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.adapters.conftest import cookie_of
from tests.support.gated import GATED, PATIENT, Gate
from tests.support.node import Said, Talk, talking
from tests.support.proxy import proxying
from tests.support.server import lapse, serving_together

TOKENS = 120
STAMPED = f"scripted?tokens={TOKENS}&delay_ms=20&stamp=1"  # each word has the moment at which it was said
SIXTH = re.compile(r"\b5:\d{16} ")
QUESTION = "What helps?"


def writing(said: Said) -> bool:
    return bool(SIXTH.search(json.dumps(said)))


def ready(said: Said) -> bool:
    return bool(said.get("status") == "ready" and said["text"])


def heard(talk: Talk, what: str) -> list[Any]:
    return [said[what] for said in talk.heard if what in said]


def text_of_frames(frames: list[Any]) -> str:
    text = ""
    for message, _ in (frame["data"] for frame in frames if frame["event"] == "messages"):
        text = "" if message["type"] == "remove" else text + message["content"]
    return text


def text_of_chunks(chunks: list[Any]) -> str:
    text = ""
    for chunk in chunks:
        text = "" if chunk["type"] == "reset-step" else text + chunk.get("delta", "")
    return text


async def written(url: str, cookie: str) -> tuple[str, str]:
    """The id and the text of the person's one answer, as the log has them."""
    async with httpx.AsyncClient(trust_env=False, headers={"cookie": cookie}) as client:
        [session] = (await client.get(f"{url}/sessions")).json()["sessions"]
        [_, answer] = (await client.get(f"{url}/sessions/{session['session_id']}")).json()["messages"]
    assert [int(word.partition(":")[0]) for word in answer["content"].split()] == list(range(TOKENS))
    return answer["id"], answer["content"]


def told(chat: Said) -> list[str]:
    """The text parts in their order, and where the words before no longer hold."""
    return [part.get("text", part["type"]) for part in chat["parts"] if part["type"] in ("text", "data-reset")]


@pytest.mark.timeout(150)
async def test_every_client_goes_on_at_another_replica_with_the_words_of_the_second_attempt(
    database_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        gate, each = Gate(tmp_path), (PATIENT, PATIENT, {"WORKER": "off"})
        together = serving_together(database_url, tmp_path, STAMPED, *each, program=GATED)
        one, two, reading = stack.enter_context(together)
        proxy = await stack.enter_async_context(proxying(one.url, reading.url))
        cookies: dict[Talk, str] = {}

        async def talk_of(script: str, *before: str, url: str = proxy.url, after: tuple[str, ...] = ()) -> Talk:
            cookie = cookie_of(reading.url)
            talk = await stack.enter_async_context(talking(script, *before, url, cookie, *after))
            cookies[talk] = cookie
            return talk

        client, hook = await talk_of("langgraph.mjs"), await talk_of("langgraph.mjs")
        workflow = await talk_of("workflow.mjs", after=("workflow",))
        six, seven = [await talk_of("use_chat.mjs", version, after=("chat",)) for version in "67"]
        never_cut = await talk_of("use_chat.mjs", "6", url=reading.url, after=("chat",))
        hook.tell("use", history=False)
        await hook.until(lambda said: said.get("loading") is False)
        for chat in (six, seven, never_cut):
            await chat.until(lambda said: said["status"] == "ready")

        with two.held(), gate.closed():  # so that it is the one to be killed that writes, and goes on until then
            client.tell("stream", text=QUESTION, modes=["messages-tuple", "values"])
            hook.tell("submit", text=QUESTION)
            for talk in (workflow, six, seven, never_cut):
                talk.tell("send", text=QUESTION)
            for talk in cookies:
                await talk.until(writing)
            one.kill()
            for talk in (six, seven):
                await talk.until(lambda said: said["status"] == "error")
                talk.tell("resume")
                await talk.until(lambda said: said["status"] == "streaming")
            lapse(database_url)
        for talk in (client, workflow):
            await talk.until(lambda said: "ended" in said)
        shown = await hook.until(lambda said: said["loading"] is False)
        ends = {talk: await talk.until(ready) for talk in (six, seven, never_cut)}
        answers = {talk: await written(reading.url, cookie) for talk, cookie in cookies.items()}

    frames = heard(client, "frame")
    assert [frame["data"]["attempt"] for frame in frames if frame["event"] == "metadata"] == [1, 2]
    assert len({frame["id"] for frame in frames}) == len(frames), "no frame came twice"
    assert text_of_frames(frames) == answers[client][1]
    assert [(message["id"], message["content"]) for message in shown["messages"][1:]] == [answers[hook]]
    assert shown["error"] is None
    chunks = heard(workflow, "chunk")
    assert text_of_chunks(chunks) == answers[workflow][1]
    assert [chunk["type"] for chunk in chunks].count("finish") == 1
    for talk, end in ends.items():
        assert (end["id"], told(end)[-1]) == answers[talk]
        assert [part["type"] for part in end["parts"]].count("source-document") == 3
    assert told(ends[seven]) == [answers[seven][1]]
    for talk in (six, never_cut):  # version 6 cannot forget; six came back before the second attempt
        first, reset, second = told(ends[talk])
        assert reset == "data-reset"
        assert SIXTH.findall(first) != SIXTH.findall(second)
