"""The graph: safety → supervisor → retrieve → rerank → generate | emotional_support; an alarm goes to emergency."""

from typing import Literal

from langgraph.graph import END, START, StateGraph

from graph.emotional_support import EmotionalSupport
from graph.parts import Parts, open_parts
from graph.rag_agent import RagAgent
from graph.safety import Safety
from graph.state import State
from graph.supervisor import Supervisor

__all__ = ["Parts", "build_graph", "open_parts"]


def build_graph(parts: Parts) -> StateGraph[State]:
    """Not compiled. Without subgraphs, so that who streams it with `messages` finds every token under its node."""
    safety, rag, support = Safety(parts), RagAgent(parts), EmotionalSupport(parts)
    supervisor = Supervisor(parts)
    graph = StateGraph(State)
    graph.add_node("safety", safety.check)
    graph.add_node("supervisor", supervisor.route)
    graph.add_node("retrieve", rag.retrieve)
    graph.add_node("rerank", rag.rerank)
    graph.add_node("generate", rag.generate)
    graph.add_node("emotional_support", support.answer)
    graph.add_node("emergency", safety.emergency)

    graph.add_edge(START, "safety")
    graph.add_conditional_edges("safety", _after_safety)
    graph.add_conditional_edges("supervisor", _after_supervisor)
    graph.add_edge("retrieve", "rerank")
    graph.add_edge("rerank", "generate")
    for last in ("generate", "emotional_support", "emergency"):
        graph.add_edge(last, END)
    return graph


async def _after_safety(state: State) -> Literal["emergency", "supervisor"]:
    return "emergency" if state["alarm"] else "supervisor"


async def _after_supervisor(state: State) -> Literal["emergency", "retrieve", "emotional_support"]:
    if state["alarm"]:
        return "emergency"
    return "retrieve" if state["agent"] == "rag_agent" else "emotional_support"
