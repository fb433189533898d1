"""Serves somebody else's LangGraph graph without a change to it: `PULSELINE_GRAPH=module:name`.

Its nodes become stages, the text of its messages tokens, what its nodes give their stream writer `custom` events. It
needs `messages` in its state. Subgraphs speak too, but only the outer graph's nodes are stages.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.message import add_messages
from langgraph.types import Command, StateSnapshot, StreamMode
from pydantic import BaseModel

from graph.eventlog import events as e
from graph.eventlog.events import Event, NewEvent, new_event, storable
from graph.eventlog.saver import EventLogSaver
from graph.eventlog.snapshot import Message, fold
from graph.served import Feed, Graph, reconcile, spoken

PARAGRAPH = "\n\n"  # between two messages of one answer
INTEGER_MAX = 2**63


class AnyGraph:
    """A graph as it was loaded, with our checkpointer in place of any of its own. Only the turn's deadline holds: a
    tool may work for long between two tokens."""

    timed = False

    def __init__(self, graph: Graph, saver: EventLogSaver) -> None:
        self.graph = graph.copy({"checkpointer": saver})

    def translator(self, turn_id: UUID, finished: frozenset[str] = frozenset(), said: str = "") -> "Translator":
        return Translator(turn_id, finished, said)

    def enter(self, turn_id: UUID, events: Sequence[Event], state: StateSnapshot | None) -> tuple[Any, str]:
        """The note is the id of the message that the answer's messages come after."""
        known: Sequence[BaseMessage] = state.values.get("messages", []) if state is not None else []
        starts = [event.parse() for event in events if event.type == "turn_started"]
        started = {start.turn_id: start for start in starts if isinstance(start, e.TurnStarted)}
        mine = started[turn_id]
        if mine.command is not None:
            return _answers(mine.command.resume, _asked(events), state), known[-1].id or "" if known else ""
        resumes = {turn for turn, event in started.items() if event.command is not None}
        earlier = [message for message in fold(turn_id, events).messages if message.turn_id != turn_id]
        question = HumanMessage(mine.message, id=f"{turn_id}:user")
        missing = reconcile(known, history(known, earlier, resumes)) if self._adds_messages else []
        return {**(mine.input or {}), "messages": [*missing, question]}, f"{turn_id}:user"

    @property
    def _adds_messages(self) -> bool:
        """Law 8 holds for these; a graph that keeps its messages in another way is left alone."""
        return getattr(self.graph.channels["messages"], "operator", None) is add_messages

    async def stream(self, graph_input: Any, config: RunnableConfig, feed: Feed) -> None:
        modes: list[StreamMode] = ["tasks", "messages", "custom"]
        async for namespace, mode, data in self.graph.astream(
            graph_input, config, stream_mode=modes, subgraphs=True, durability="async"
        ):
            if mode != "tasks" or not namespace:
                await feed(mode, data)

    def recalled(self, state: StateSnapshot, note: str) -> str:
        found = [*state.values.get("messages", []), *(m for task in state.tasks for m in _messages(task.result))]
        return _text(_after(found, note))

    def done(self, turn_id: UUID, state: StateSnapshot, note: str, said: str, duration_ms: int) -> NewEvent:
        """The answer is the text of the turn's messages, at an interrupt too: what a node says to itself is not there.
        Of a graph that does not add its messages up it is what was heard."""
        answer = _after(state.values.get("messages", []), note)
        content = _text(answer) if answer or self._adds_messages else said
        usage: UsageMetadata | None = None
        for message in answer:
            usage = add_usage(usage, message.usage_metadata)
        return new_event(
            e.Done(
                turn_id=turn_id,
                message=e.AnswerMessage(id=f"{turn_id}:assistant", content=content),
                usage=e.Usage(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"])
                if usage
                else e.Usage(),
                duration_ms=duration_ms,
                interrupted=_interrupts(state) or None,
            )
        )


def _interrupts(state: StateSnapshot) -> list[e.Interrupt]:
    """What the graph waits for; at a breakpoint nothing was asked, but it waits all the same."""
    asked = [e.Interrupt(id=i.id, value=plain(i.value)) for task in state.tasks for i in task.interrupts]
    return asked or ([e.Interrupt(id="")] if state.next else [])


def _asked(events: Sequence[Event]) -> list[str]:
    """What the turn before waited for: by the log, which an earlier attempt at this turn did not change."""
    ends = [event.parse() for event in events if event.type == "done"]
    last = ends[-1] if ends else None
    return [question.id for question in last.interrupted or []] if isinstance(last, e.Done) else []


def _answers(resume: Any, asked: Sequence[str], state: StateSnapshot | None) -> Command[Any] | None:
    """To those of the questions that were asked which still wait. An earlier attempt may have given the answer already,
    and the graph may have asked the next question since, which is not for this answer: then the graph just goes on."""
    given = resume if isinstance(resume, dict) and resume and resume.keys() <= set(asked) else None
    by_id = given or (dict.fromkeys(asked, resume) if len(asked) == 1 else {})
    pending = {i.id for task in state.tasks for i in task.interrupts} if state is not None else set()
    waiting = {question: answer for question, answer in by_id.items() if question in pending}
    return Command(resume=waiting) if waiting else None


def _after(messages: Sequence[BaseMessage], note: str) -> list[AIMessage]:
    """The model's messages after the one with that id; where the graph has dropped it, after the last of a person."""
    start = next((n for n, m in enumerate(messages, 1) if m.id == note), 0) or max(
        (n for n, m in enumerate(messages, 1) if isinstance(m, HumanMessage)), default=0
    )
    return [message for message in messages[start:] if isinstance(message, AIMessage)]


def _text(messages: Iterable[BaseMessage]) -> str:
    return storable(PARAGRAPH.join(message.text for message in messages if message.text))


def _messages(result: Any) -> list[BaseMessage]:
    """Of a task that has finished in a step that has not."""
    found = result.get("messages", []) if isinstance(result, dict) else []
    return [m for m in (found if isinstance(found, list) else [found]) if isinstance(m, BaseMessage)]


class _Group(NamedTuple):
    """A turn with those that answered its interrupts: in the graph's messages they are one."""

    user_id: str
    messages: list[Message]

    @property
    def whole(self) -> bool:
        last = self.messages[-1]
        return last.role == "assistant" and last.status == "complete" and not last.interrupted


def history(known: Sequence[BaseMessage], said: Sequence[Message], resumes: Container[UUID]) -> list[BaseMessage]:
    """What the graph's messages should be before the next turn; `resumes` are the turns that answered an interrupt.

    Of an answer that ended well they stay as the graph made them, tool calls and all, or dropped them; of any other
    only the words stay, as the log tells them."""
    groups: list[_Group] = []
    for message in said:
        if not groups or (message.role == "user" and message.turn_id not in resumes):
            groups.append(_Group(f"{message.turn_id}:user", []))
        groups[-1].messages.append(message)
    ids = [message.id for message in known]
    starts = [n for n, message in enumerate(known) if isinstance(message, HumanMessage) and _ours(message.id)]
    ends = dict(zip(starts, [*starts[1:], len(known)], strict=False))
    kept: list[BaseMessage] = list(known[: starts[0]] if starts else known)
    newest = max((n for n, group in enumerate(groups) if group.user_id in ids), default=-1)
    for n, group in enumerate(groups):
        start = ids.index(group.user_id) if group.user_id in ids else None
        if start is not None and group.whole:
            kept += known[start : ends[start]]
        elif start is not None or n > newest:
            kept += [spoken(message) for message in group.messages if message.content]
    return kept


def _ours(message_id: str | None) -> bool:
    return (message_id or "").endswith(":user")


class Translator:
    """A node that runs many times at once is one stage. One task has the floor at a time: what others say meanwhile
    follows when its node has ended, so that two answers never mix."""

    def __init__(self, turn_id: UUID, finished: frozenset[str] = frozenset(), said: str = "") -> None:
        self._turn_id, self._finished = turn_id, finished
        self._running: dict[str, dict[str, float]] = {}
        self._speaker: str | None = None
        self._waiting: dict[str, list[tuple[str | None, str]]] = {}
        self._message: str | None = None
        self._said = bool(said)
        self.stage: str | None = None
        self.recites = False
        self.answered: dict[str, Any] | None = None  # the whole state tells the end of a graph that is not ours

    def feed(self, mode: str, data: Any, now: float) -> list[NewEvent]:
        if mode == "messages":
            return self._heard(*data)
        if mode == "custom":
            return [new_event(e.Custom(turn_id=self._turn_id, value=plain(data)))]
        if data["id"] in self._finished or data["name"].startswith("__"):
            return []
        if "input" in data:
            return self._start(data["id"], data["name"], now)
        return [*self._leave(data["id"]), *self._end(data, now)]

    def _heard(self, message: Any, metadata: dict[str, Any]) -> list[NewEvent]:
        text = message.text if isinstance(message, AIMessage | AIMessageChunk) else ""
        if not text:
            return []
        task = str(metadata.get("langgraph_checkpoint_ns", "")).partition("|")[0].rpartition(":")[2]
        if self._speaker not in (None, task):
            self._waiting.setdefault(task, []).append((message.id, text))
            return []
        self._speaker = task
        return [self._say(message.id, text)]

    def _say(self, message_id: str | None, text: str) -> NewEvent:
        new = self._said and message_id != self._message
        self._message, self._said = message_id, True
        return NewEvent("token", {"content": (PARAGRAPH if new else "") + storable(text)})

    def _leave(self, task: str) -> list[NewEvent]:
        """The floor is free: whoever waits longest has it next; those who have ended as well just say it all."""
        if self._speaker not in (None, task):
            return []
        self._speaker = next(iter(self._waiting), None)
        if self._speaker is None:
            return []
        tokens = [self._say(*piece) for piece in self._waiting.pop(self._speaker)]
        still = any(self._speaker in tasks for tasks in self._running.values())
        return tokens if still else [*tokens, *self._leave(self._speaker)]

    def _start(self, task: str, node: str, now: float) -> list[NewEvent]:
        running = self._running.setdefault(node, {})
        running[task] = now
        self.stage = node
        return [new_event(e.StageStart(turn_id=self._turn_id, stage=node))] if len(running) == 1 else []

    def _end(self, data: dict[str, Any], now: float) -> list[NewEvent]:
        running = self._running.get(data["name"], {})
        began = min(running.values(), default=now)
        running.pop(data["id"], None)
        if data["error"] is not None or data.get("interrupts") or data["result"] is None or running:
            return []
        event = self.completed(data["name"], data["result"], round(1000 * (now - began)))
        return [new_event(event)._replace(task=data["id"])]

    def completed(self, node: str, result: dict[str, Any], duration_ms: int) -> e.StageComplete:
        return e.StageComplete(turn_id=self._turn_id, stage=node, duration_ms=duration_ms)


def plain(value: Any) -> Any:
    """What JSON and Postgres can hold of it; what they cannot becomes its text."""
    match value:
        case None | bool():
            return value
        case int():
            return value if -INTEGER_MAX <= value < INTEGER_MAX else str(value)
        case float():
            return value
        case str():
            return storable(value)
        case dict():
            return {storable(str(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in _items(value)]
        case BaseModel():
            return plain(value.model_dump(mode="python"))
        case _:
            return storable(str(value))


def _items(value: Iterable[Any]) -> list[Any]:
    return sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
