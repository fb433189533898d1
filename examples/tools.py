"""An agent with tools, one of which asks a person before it acts. Its model is scripted, so it needs no key.

`PULSELINE_GRAPH=examples.tools:graph make run`, then "Is it warm in Lisbon?" or "Book a table in Lisbon".
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.types import interrupt


def weather(city: str) -> str:
    """How warm it is in a city."""
    get_stream_writer()({"asking": "weather station", "city": city})
    return f"22 degrees in {city}"


def book_table(city: str) -> str:
    """Books a table, when the person agrees."""
    agreed = interrupt({"question": f"Book a table in {city}?"})
    return f"a table in {city} is booked" if agreed == "yes" else "nothing is booked"


class Scripted(BaseChatModel):
    """Says what it will do, calls a tool, and then tells what the tool found."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> "Scripted":
        return self

    def _reply(self, messages: list[BaseMessage]) -> AIMessage:
        if messages[-1].type == "tool":
            return AIMessage(f"I asked: {messages[-1].text}.")
        tool = "book_table" if "book" in messages[-1].text.lower() else "weather"
        city = messages[-1].text.rstrip("?.!").split()[-1]
        return AIMessage("Let me see.", tool_calls=[{"name": tool, "args": {"city": city}, "id": f"call-{uuid4()}"}])

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        reply = self._reply(messages)
        for word in re.findall(r"\S+\s*", reply.text):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", tool_calls=reply.tool_calls, chunk_position="last")
        )


graph = create_agent(Scripted(), [weather, book_table])
