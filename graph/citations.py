"""Citations: `[n]` names the n-th source. What a model cites beyond its sources is dropped while it streams."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.constants import TAG_NOSTREAM

from graph.doses import DoseFilter
from graph.provider import patient

SOURCES = "sources"  # in a message's additional_kwargs: the numbered sources, which providers ignore
MARKER = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")
_MARKER_SO_FAR = re.compile(r"\s*\[[\d,\s]*")
_MARKER_MAX_CHARACTERS = 40


def citations(content: str, sources: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Dumps of events.Citation, each number once, in the order of the text."""
    numbers = [int(number) for marker in MARKER.findall(content) for number in marker.split(",")]
    return [
        {"number": number, "source_id": sources[number - 1]["id"]}
        for number in dict.fromkeys(numbers)
        if 0 < number <= len(sources)
    ]


class MarkerFilter:
    """Passes text on as it comes and holds back only what may become a marker; one beyond `count` is dropped."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held = ""

    def feed(self, text: str) -> str:
        passed: list[str] = []
        for character in text:
            self._held += character
            if MARKER.fullmatch(self._held.strip()):
                passed.append(self._checked())
            elif not self._may_become_a_marker():
                passed.append(self._release(character))
        return "".join(passed)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held

    def _may_become_a_marker(self) -> bool:
        space = self._held.isspace() and len(self._held) == 1
        return space or (len(self._held) <= _MARKER_MAX_CHARACTERS and _MARKER_SO_FAR.fullmatch(self._held) is not None)

    def _release(self, character: str) -> str:
        """The last character may itself begin a marker."""
        begins = character.isspace() or character == "["
        passed = self._held[:-1] if begins else self._held
        self._held = character if begins else ""
        return passed

    def _checked(self) -> str:
        held, self._held = self._held, ""
        numbers = [int(number) for number in held.strip()[1:-1].split(",")]
        known = [number for number in numbers if 0 < number <= self._count]
        space = held[: len(held) - len(held.lstrip())]
        return space + "".join(f"[{number}]" for number in known) if known else ""


class Cited(BaseChatModel):
    """A provider's model whose answer is plain text, cites only the sources that it was given, and names only doses
    that the source cited beside them has.

    The inner model's own tokens stay out of LangGraph's stream; what leaves here was checked. Raises ModelFailed.
    """

    inner: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return f"cited {self.inner._llm_type}"

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        sources = messages[-1].additional_kwargs.get(SOURCES, [])
        markers, doses = MarkerFilter(len(sources)), DoseFilter([source["text"] for source in sources])
        async for chunk in patient(lambda: self.inner.astream(messages, {"tags": [TAG_NOSTREAM]}, stop=stop, **kwargs)):
            usage = chunk.usage_metadata
            text = doses.feed(markers.feed(chunk.text))
            if text or usage:
                yield ChatGenerationChunk(message=AIMessageChunk(content=text, usage_metadata=usage))
        yield ChatGenerationChunk(message=AIMessageChunk(content=doses.feed(markers.rest()) + doses.rest()))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("this model only streams")
