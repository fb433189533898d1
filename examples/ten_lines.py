"""A graph of ten lines. `PULSELINE_GRAPH=examples.ten_lines:graph make run` serves it."""

from itertools import repeat

from langchain_core.language_models import GenericFakeChatModel
from langgraph.graph import START, MessagesState, StateGraph

model = GenericFakeChatModel(messages=repeat("These words come from a graph of your own, one by one."))


def answer(state: MessagesState) -> MessagesState:
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
