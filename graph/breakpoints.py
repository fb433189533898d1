"""Where a graph has stopped and waits for a person. LangGraph, asked to go on from there, takes that for leave."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.constants import START
from langgraph.types import PregelTask, StateSnapshot

from graph.served import Graph


async def waits(graph: Graph, state: StateSnapshot, turn_id: UUID) -> bool:
    """Whether this very turn has brought the graph to where it waits. What an earlier turn's checkpoint waits for is
    answered by this turn; from that checkpoint on it has not met a breakpoint of its own."""
    return _asked_by(turn_id, state) or await _at_breakpoint(graph, graph, state, turn_id)


def _asked_by(turn_id: UUID, state: StateSnapshot) -> bool:
    """All that this step began has ended, or asks something."""
    stopped = all(task.interrupts or task.result is not None for task in state.tasks)
    return _is_of(turn_id, state) and stopped and any(task.interrupts for task in state.tasks)


def _is_of(turn_id: UUID, state: StateSnapshot) -> bool:
    return (state.metadata or {}).get("turn_id") == str(turn_id)


async def _at_breakpoint(whole: Graph, part: Any, state: StateSnapshot, turn_id: UUID) -> bool:
    """`part` is the graph itself or one of its subgraphs, which has checkpoints and breakpoints of its own."""
    if _is_of(turn_id, state) and state.tasks:
        if _meets(part.interrupt_before_nodes, state.tasks):
            return True
        if _meets(part.interrupt_after_nodes, await _finished(whole, state)):
            return True
    subgraphs = dict(part.get_subgraphs())
    for task in state.tasks:
        if task.result is None and isinstance(task.state, dict):
            within = await whole.aget_state(RunnableConfig(**task.state))
            if await _at_breakpoint(whole, subgraphs[task.name], within, turn_id):
                return True
    return False


async def _finished(whole: Graph, state: StateSnapshot) -> Iterable[PregelTask]:
    """The tasks whose end made this checkpoint: those that the one before it had planned."""
    if (state.metadata or {}).get("source") != "loop" or state.parent_config is None:
        return ()
    return (await whole.aget_state(state.parent_config)).tasks


def _meets(nodes: Any, tasks: Iterable[PregelTask]) -> bool:
    return any(task.name != START and (nodes == "*" or task.name in nodes) for task in tasks)
