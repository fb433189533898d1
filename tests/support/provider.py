"""A provider's chat model at its wire: content blocks, usage at the end, a citation of a source that is not there."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult

SAYS = ("Iron ", "helps [1", "] a lot", " [4", "].")
SHOWN = "Iron helps [1] a lot."


class Provider(BaseChatModel):
    @property
    def _llm_type(self) -> str:
        return "provider"

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for text in SAYS:
            block = {"type": "text", "text": text, "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk(content=[block]))
        usage = UsageMetadata(input_tokens=7, output_tokens=5, total_tokens=12)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError
