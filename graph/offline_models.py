"""Chat models that need no network: one recites, one quotes its sources, one is scripted for tests and load.

All stream pieces of about a word; the pieces' concatenation is the answer, byte for byte.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import Field

from graph.citations import SOURCES
from graph.quotes import EVIDENCE, FOLLOW_UP, QUESTION, SAID, quote

RECITED = "recited"  # the tag of what is said before, or without, the model
PIECE = re.compile(r"\s*\S+\s?|\s+")


class _Offline(BaseChatModel):
    """`pace_ms` is the pause between pieces; 0 is at once, though other turns still get their chance."""

    pace_ms: float = 0
    waits_first: bool = False

    @property
    def _llm_type(self) -> str:
        return type(self).__name__.lower()

    def pieces(self, message: BaseMessage) -> Iterable[str]:
        raise NotImplementedError

    def said(self, piece: str) -> str:
        """The piece as it is said, now that the pause before it is over."""
        return piece

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        waits = self.waits_first
        for piece in self.pieces(messages[-1]):
            await asyncio.sleep(self.pace_ms / 1000 if waits else 0)
            waits = True
            yield ChatGenerationChunk(message=AIMessageChunk(content=self.said(piece)))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", chunk_position="last"))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("this model only streams")


class Reciter(_Offline):
    """Says the last message, unchanged."""

    tags: list[str] | None = Field(default_factory=lambda: [RECITED])

    def pieces(self, message: BaseMessage) -> Iterable[str]:
        return PIECE.findall(message.text)


class Extractive(_Offline):
    """Quotes the best sentences of the sources that came with the last message, verbatim and each with its `[n]`."""

    def pieces(self, message: BaseMessage) -> Iterable[str]:
        extra = message.additional_kwargs
        known = extra.get(QUESTION, ""), extra.get(SOURCES, []), extra.get(EVIDENCE, [])
        return PIECE.findall(quote(*known, extra.get(FOLLOW_UP, ""), extra.get(SAID, "")))


class Scripted(_Offline):
    """Says `w0 w1 w2 …`; stamped, each is `<i>:<microseconds since 1970>` of the moment that it is said."""

    tokens: int = 200
    stamp: bool = False
    waits_first: bool = True

    def pieces(self, message: BaseMessage) -> Iterator[str]:
        for i in range(self.tokens):
            yield f"w{i} "

    def said(self, piece: str) -> str:
        return f"{piece[1:-1]}:{time.time_ns() // 1000} " if self.stamp else piece
