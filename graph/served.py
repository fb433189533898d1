"""How a turn goes into a graph and how its answer comes out: what each graph must give, and how ours does."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from graph.eventlog.events import Event, NewEvent, StreamEvent
from graph.eventlog.snapshot import Message, fold
from graph.models import hearing
from graph.state import turn_input
from graph.translate import Translator, done

Graph = CompiledStateGraph[Any, Any, Any, Any]
Feed = Callable[[str, Any], Awaitable[None]]


class Translates(Protocol):
    """Of one attempt at one turn: see translate.Translator. `answered`: what the graph's last step gave, where that is
    all that the turn's end tells. `recites`: the last token was not the model's, whose first is still to come."""

    stage: str | None
    answered: dict[str, Any] | None
    recites: bool

    def feed(self, mode: str, data: Any, now: float) -> list[NewEvent]: ...
    def completed(self, node: str, result: dict[str, Any], duration_ms: int) -> StreamEvent | None: ...


class Served(Protocol):
    """A compiled graph, its checkpointer an EventLogSaver. `note` is kept with the checkpoints of the turn's first
    attempt and given to every later one. `timed`: the model's deadlines hold between its tokens."""

    timed: bool

    @property
    def graph(self) -> Graph: ...
    def translator(self, turn_id: UUID, finished: frozenset[str] = frozenset(), said: str = "") -> Translates:
        """For an attempt after which `said` and what those tasks have found is already in the log."""

    def enter(self, turn_id: UUID, events: Sequence[Event], state: StateSnapshot | None) -> tuple[Any, str]:
        """The graph's input and the note. `events` are the session's, this turn's first one with them."""

    async def stream(self, graph_input: Any, config: RunnableConfig, feed: Feed) -> None:
        """Runs the graph; `feed` gets, in order, all that its translator is to be fed with."""

    def recalled(self, state: StateSnapshot, note: str) -> str:
        """Of the answer, what a checkpoint holds in mid-turn: a `reset` has taken it from the readers."""

    def done(self, turn_id: UUID, state: StateSnapshot, note: str, said: str, duration_ms: int) -> NewEvent: ...


class Medical:
    """The graph of builder.py."""

    timed = True

    def __init__(self, graph: Graph, model_name: str) -> None:
        self.graph, self.model_name = graph, model_name

    def translator(self, turn_id: UUID, finished: frozenset[str] = frozenset(), said: str = "") -> Translator:
        return Translator(turn_id, self.model_name, finished)

    def enter(self, turn_id: UUID, events: Sequence[Event], state: StateSnapshot | None) -> tuple[Any, str]:
        """The turn's question, and before it what the checkpoint's messages lack or have too much (law 8)."""
        snapshot = fold(turn_id, events)
        question = next(m for m in snapshot.messages if m.turn_id == turn_id)
        said = [spoken(m) for m in snapshot.messages if m.turn_id != turn_id and m.content]
        known: Sequence[AnyMessage] = state.values.get("messages", []) if state is not None else []
        return turn_input(str(turn_id), question.content, reconcile(known, said)), ""

    async def stream(self, graph_input: Any, config: RunnableConfig, feed: Feed) -> None:
        """A node begins only when its task has been fed: no word comes before its stage."""
        hearing.set(partial(feed, "said"))
        async for task in self.graph.astream(graph_input, config, stream_mode="tasks", durability="async"):
            await feed("task", task)

    def recalled(self, state: StateSnapshot, note: str) -> str:
        return ""

    def done(self, turn_id: UUID, state: StateSnapshot, note: str, said: str, duration_ms: int) -> NewEvent:
        return done(turn_id, state.values, duration_ms)


def reconcile(known: Sequence[BaseMessage], said: Sequence[BaseMessage]) -> list[BaseMessage]:
    """What brings a checkpoint's messages to those of the log: what is missing at the end, else all of them anew."""
    prefix = [(m.id, m.text) for m in said[: len(known)]]
    if [(m.id, m.text) for m in known] == prefix:
        return list(said[len(known) :])
    return [RemoveMessage(id=REMOVE_ALL_MESSAGES), *said]


def spoken(message: Message) -> AnyMessage:
    kind = HumanMessage if message.role == "user" else AIMessage
    return kind(message.content, id=message.id)
