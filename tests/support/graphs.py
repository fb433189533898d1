"""Graphs of other people, served by the tests with PULSELINE_GRAPH."""

import asyncio
from itertools import pairwise
from typing import Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from graph.offline_models import Scripted

FIRST, WORDS = "First words. ", 60


class Topic(MessagesState):
    topic: str


async def first(state: Topic) -> dict[str, list[AnyMessage]]:
    model = GenericFakeChatModel(messages=iter([FIRST]))
    return {"messages": [await model.ainvoke(state["messages"])]}


async def second(state: Topic) -> dict[str, list[AnyMessage]]:
    """Slow, so that there is time to kill its worker; its text goes on after the first node's."""
    reply = await Scripted(tokens=WORDS, pace_ms=30).ainvoke(state["messages"])
    get_stream_writer()({"topic": state.get("topic", ""), "odd": {1, 2}, 3: float("nan")})
    return {"messages": [reply]}


def slow() -> StateGraph[Topic]:
    graph = StateGraph(Topic)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    return graph


async def asks_twice(state: MessagesState) -> dict[str, list[AnyMessage]]:
    name = interrupt("Who are you?")
    await asyncio.sleep(0.4)  # a worker may be killed between the two
    age = interrupt({"how old": name})
    return {"messages": [AIMessage(f"{name} is {age}.")]}


questions = StateGraph(MessagesState).add_node("asks", asks_twice).add_edge(START, "asks").compile()


async def asks(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [AIMessage(str(interrupt("left?")))]}


async def asks_too(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [AIMessage(str(interrupt("right?")))]}


def _pair() -> StateGraph[MessagesState]:
    graph = StateGraph(MessagesState)
    for name, node in (("left", asks), ("right", asks_too)):
        graph.add_node(name, node)
        graph.add_edge(START, name)
    return graph


pair = _pair().compile()


class Held:
    """Nodes that say their name, and one that can be held until it is let go."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.let_go = asyncio.Event()
        self.let_go.set()

    def node(self, name: str) -> Any:
        async def run(state: MessagesState) -> dict[str, list[AnyMessage]]:
            self.ran.append(name)
            await self.let_go.wait()
            return {"messages": [AIMessage(f"{name}.")]}

        return run

    def asks(self, name: str) -> Any:
        async def run(state: MessagesState) -> dict[str, list[AnyMessage]]:
            self.ran.append(name)
            return {"messages": [AIMessage(str(interrupt("May I?")))]}

        return run


def steps(held: Held, *names: str, **others: Any) -> StateGraph[MessagesState]:
    """A chain of such nodes; `others` take the place of those that have their names."""
    graph = StateGraph(MessagesState)
    for name in names:
        graph.add_node(name, others.get(name) or held.node(name))
    for before, after in pairwise((START, *names)):
        graph.add_edge(before, after)
    return graph


class Nothing(TypedDict):
    text: str


no_messages = StateGraph(Nothing).add_node("n", lambda _: {"text": ""}).add_edge(START, "n")
not_a_graph = 7
