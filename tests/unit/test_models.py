import asyncio
import re
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk

from graph.citations import SOURCES, Cited
from graph.doses import NOT_SAID
from graph.models import Piece, hearing, open_model, script, speak
from graph.offline_models import Extractive, Reciter, Scripted
from tests.support.provider import SHOWN, Provider


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("scripted?token=3", "unknown option 'token'; allowed are tokens, delay_ms, stage_ms, stamp"),
        ("scripted?tokens=many", "tokens=many must be a whole number"),
        ("scripted?tokens=-1", "tokens=-1 must be a whole number"),
        ("scripted?tokens=", "tokens= must be a whole number"),
        ("scripted?tokens", "after '?' come options such as tokens=200"),
        ("extractive?pace=1", "unknown option 'pace'; allowed are pace_ms"),
        ("no-such-model", "'no-such-model' is no model that can be opened"),
        ("anthropic:claude-9", "'anthropic:claude-9' needs a Python package that is not installed"),
        ("", "is no model that can be opened"),
    ],
)
def test_a_wrong_name_is_refused_with_what_is_allowed(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        open_model(name)


def test_the_pace_of_the_extractive_model_can_be_set() -> None:
    paces = [
        open_model("extractive"),
        open_model("extractive", 5),
        open_model("extractive?pace_ms=0", 5),
    ]
    assert [opened.model.pace_ms for opened in paces if isinstance(opened.model, Extractive)] == [35, 5, 0]
    assert {opened.name for opened in paces} == {"extractive"}
    assert not any(opened.writes for opened in paces)


async def test_scripted_says_as_many_numbered_tokens_as_it_was_told() -> None:
    opened = open_model("scripted?tokens=3&delay_ms=0&stage_ms=7")
    assert opened.name == "scripted"
    assert (await speak(opened.model, [HumanMessage("?")])).content == "w0 w1 w2 "
    assert (script("scripted?stage_ms=7") or {})["stage_ms"] == 7
    assert script("extractive") is None


async def test_stamps_are_microseconds_and_rise() -> None:
    said = await speak(Scripted(tokens=5, stamp=True), [HumanMessage("?")])
    numbers, moments = zip(*(stamped.split(":") for stamped in said.content.split()), strict=True)
    assert numbers == ("0", "1", "2", "3", "4")
    assert all(int(earlier) <= int(later) for earlier, later in pairwise(moments))
    assert len(moments[0]) == 16


async def test_a_stamp_is_of_the_moment_after_the_pause() -> None:
    asked = time.time()
    said = await speak(Scripted(tokens=1, stamp=True, pace_ms=50), [HumanMessage("?")])
    assert int(said.content.split(":")[1]) / 1e6 - asked > 0.045


@pytest.mark.parametrize("text", ["", "one", "  Two  words\n\n- a **list** \n", "ends with space ", "\n\nstarts"])
async def test_the_pieces_are_the_text_byte_for_byte(text: str) -> None:
    pieces = [chunk.text async for chunk in Reciter().astream([HumanMessage(text)])]
    assert "".join(pieces) == text
    assert all(len(piece.split()) <= 1 for piece in pieces)


async def test_a_provider_cites_only_what_it_was_given_and_reports_its_usage() -> None:
    question = HumanMessage("?", additional_kwargs={SOURCES: [{"id": "a#1", "text": "Iron helps a lot."}]})
    spoken = await speak(Cited(inner=Provider()), [question])
    assert spoken.content == SHOWN
    assert spoken.usage is not None
    assert spoken.usage["output_tokens"] == 5


async def test_a_provider_names_no_dose_that_the_cited_source_does_not_have() -> None:
    class Prescriber(Provider):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
            for text in ("Take 5", "00 mg", " [1]", ". Or 80", "0 mg [1].", " Or 500 mg [2]. Rest."):
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    sources = [{"id": "a#1", "text": "The dose is 500 mg."}, {"id": "b#1", "text": "Rest."}]
    spoken = await speak(Cited(inner=Prescriber()), [HumanMessage("?", additional_kwargs={SOURCES: sources})])
    assert spoken.content == f"Take 500 mg [1]. Or {NOT_SAID} [1]. Or {NOT_SAID} [2]. Rest."


async def test_a_model_says_no_more_than_is_heard() -> None:
    """Who hears may take its time, and may end it: its call is over then, and no word was said in vain."""
    said: list[str] = []
    heard: list[Piece] = []
    left = asyncio.Event()

    class Counts(Scripted):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
            try:
                async for chunk in super()._astream(*args, **kwargs):
                    said.append(chunk.text)
                    yield chunk
            finally:
                left.set()

    async def hears(piece: Piece) -> None:
        await asyncio.sleep(0.01)
        heard.append(piece)
        if len(heard) == 3:
            raise ConnectionError

    hearing.set(hears)
    with pytest.raises(ConnectionError):
        await speak(Counts(tokens=50), [HumanMessage("?")])
    assert (left.is_set(), said) == (True, [piece.text for piece in heard])
    assert said == ["w0 ", "w1 ", "w2 "]


async def test_what_is_recited_is_heard_as_that_and_what_is_not_shown_is_not() -> None:
    heard: list[Piece] = []

    async def hears(piece: Piece) -> None:
        heard.append(piece)

    hearing.set(hears)
    await speak(Reciter(), [HumanMessage("Call now.")])
    await speak(Scripted(tokens=1), [HumanMessage("?")])
    assert (await speak(Scripted(tokens=2), [HumanMessage("?")], shown=False)).content == "w0 w1 "
    assert heard == [Piece("Call ", True), Piece("now.", True), Piece("w0 ", False)]
