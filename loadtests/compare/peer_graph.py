"""The graph that `make compare PEERS=1` gives to every server. It needs LangGraph alone.

The question is two numbers, as "200 40": how many numbered tokens to say, and how many milliseconds apart.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph


class Numbered(BaseChatModel):
    """Says `w0 w1 w2 …`; 0 ms apart, every other turn still gets its chance between two tokens."""

    @property
    def _llm_type(self) -> str:
        return "numbered"

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        tokens, pause_ms = map(int, messages[-1].text.split())
        for number in range(tokens):
            await asyncio.sleep(pause_ms / 1000)
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"w{number} "))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("this model only streams")


async def answer(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [await Numbered().ainvoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
