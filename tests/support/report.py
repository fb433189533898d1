"""A graph as people build them: a node that plans in JSON, a subgraph in parallel with a node, stream writers, a
question to a person, a report, and a node that fails."""

import operator
from typing import Annotated, Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

PLANNED, LOOKED, REPORT = '{"topic": "%s"}', "I looked it up.", "The report says it is fine."


class Plan(BaseModel):
    topic: str


class Notes(MessagesState):
    notes: Annotated[list[str], operator.add]


class Report(Notes):
    plan: Plan


async def say(text: str) -> AIMessage:
    return await GenericFakeChatModel(messages=iter([AIMessage(text)])).ainvoke("")


async def plan(state: Report) -> dict[str, Plan]:
    """What its model says is for the graph alone, and is not kept in the messages."""
    said = await say(PLANNED % state["messages"][-1].text.split()[-1])
    return {"plan": Plan.model_validate_json(said.text)}


async def look(state: Notes) -> dict[str, list[str]]:
    get_stream_writer()({"progress": 0.5})
    return {"notes": [(await say(LOOKED)).text]}


library = StateGraph(Notes).add_node("look", look).add_edge(START, "look").compile()


async def web(state: Report) -> dict[str, list[str]]:
    get_stream_writer()("web")
    found = await library.ainvoke({"messages": state["messages"], "notes": []})
    return {"notes": found["notes"]}


def fails(state: Report) -> dict[str, Any]:
    raise RuntimeError("a secret of the graph")


def approve(state: Report) -> Command[Any]:
    approved = interrupt({"publish?": state["notes"]})
    return Command(goto="write" if approved else END)


async def write(state: Report) -> dict[str, list[AnyMessage]]:
    return {"messages": [await say(REPORT)]}


def _ways(state: Report) -> list[str]:
    return ["fails"] if state["plan"].topic == "failure" else ["web", "library"]


_graph = StateGraph(Report)
_graph.add_node("plan", plan)
_graph.add_node("web", web)
_graph.add_node("library", library)
_graph.add_node("fails", fails)
_graph.add_node("approve", approve, destinations=("write", END))
_graph.add_node("write", write)
_graph.add_edge(START, "plan")
_graph.add_conditional_edges("plan", _ways, ["web", "library", "fails"])
_graph.add_edge(["web", "library"], "approve")
graph = _graph.compile()
