"""A graph whose node fails in the way that the message's first word names, with the whole message in
what it says; where it does not, the message is its answer."""

import asyncio
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

logger = logging.getLogger("a_library.of_somebody")


class Quoting(Exception):
    status_code = 418


async def _raises(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        raise Quoting(f"could not answer {text!r}") from error


async def _times_out(text: str) -> None:
    raise TimeoutError(text)


async def _hangs(text: str) -> None:
    await asyncio.Event().wait()


async def _warns(text: str) -> None:
    class Holds(BaseModel):
        number: int

    values: dict[str, Any] = {"number": text}
    warnings.warn(f"odd: {text}", UserWarning, stacklevel=1)
    Holds.model_construct(None, **values).model_dump_json()  # pydantic's own warning quotes the value


async def _logs(text: str) -> None:
    logger.info("asked %s", text)
    logger.warning(f"asked {text}")
    logger.error("asked", exc_info=ValueError(text), extra={"text": text})
    asyncio.get_running_loop().call_exception_handler({"message": f"odd: {text}", "exception": ValueError(text)})


class Breaks(BaseCallbackHandler):
    """LangChain swallows what a callback raises, and logs its repr."""

    def on_llm_end(self, response: object, **_: object) -> None:
        raise ValueError(response)


async def _calls_back(text: str) -> None:
    await GenericFakeChatModel(messages=iter([text])).ainvoke(text, {"callbacks": [Breaks()]})


async def _forgets(text: str) -> None:
    task = asyncio.ensure_future(_raises(text))
    await asyncio.wait((task,))


async def _drops(text: str) -> None:
    class Dropped:
        def __del__(self) -> None:
            raise ValueError(text)

        def __repr__(self) -> str:
            return text

    Dropped()


async def _threads(text: str) -> None:
    def fail() -> None:
        raise ValueError(text)

    thread = threading.Thread(target=fail, name=text)
    thread.start()
    await asyncio.to_thread(thread.join)


async def _asks(text: str) -> None:
    await ChatOpenAI(model_name="wired", max_retries=1).ainvoke(text)


FAILURES: dict[str, Callable[[str], Awaitable[None]]] = {
    "raises": _raises,
    "times_out": _times_out,
    "hangs": _hangs,
    "warns": _warns,
    "logs": _logs,
    "calls_back": _calls_back,
    "forgets": _forgets,
    "drops": _drops,
    "threads": _threads,
    "asks": _asks,
}


async def node(state: MessagesState) -> dict[str, list[AnyMessage]]:
    text = str(state["messages"][-1].content)
    way = text.split()[0]
    if way in FAILURES:
        await FAILURES[way](text)
    return {"messages": [AIMessage(text)]}


graph = StateGraph(MessagesState).add_node("fails", node).add_edge(START, "fails").compile()
