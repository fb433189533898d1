"""Runs one held turn: reconcile → stream the graph → translate → append → end. The only caller of the writer."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from graph.deadlines import Clock, Deadlines
from graph.eventlog.errors import DatabaseUnavailable, Fenced
from graph.eventlog.events import Event, NewEvent, new_event
from graph.eventlog.log import Claim, Log
from graph.eventlog.saver import held_turn
from graph.eventlog.snapshot import Message, fold
from graph.eventlog.writer import HeldTurn, Writer
from graph.failures import error_event
from graph.provider import code_of
from graph.state import turn_input
from graph.translate import Translator, done

logger = logging.getLogger(__name__)
STOP_SECONDS = 1.0  # how long a model call may take to let go
READ_AGAIN_SECONDS = 0.25
Graph = CompiledStateGraph[Any, Any, Any, Any]


class Turns:
    """Runs turns of one compiled graph; its checkpointer is an EventLogSaver on the same writer."""

    def __init__(self, graph: Graph, model_name: str, log: Log, writer: Writer, deadlines: Deadlines) -> None:
        self.graph, self.model_name, self.log, self.writer, self.deadlines = graph, model_name, log, writer, deadlines

    async def run(self, turn: HeldTurn, claim: Claim) -> None:
        """Returns when the turn has ended or was taken away. Cancelled (a worker that stops), the turn stays held."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def stop() -> None:
            if not over.done():
                over.set_result(None)

        turn.on_fenced = stop
        clock = Clock(stop, self.deadlines.turn)
        attempt = _Attempt(self, turn, claim, clock)
        task = asyncio.create_task(attempt.answer(), name=f"turn {turn.turn_id}")
        try:
            await asyncio.wait((task, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            clock.stop()
            await attempt.stop(task)
        if not turn.fenced:
            await attempt.settle(task, clock.expired)


class _Attempt:
    def __init__(self, turns: Turns, turn: HeldTurn, claim: Claim, clock: Clock) -> None:
        self.turns, self.turn, self.claim, self.clock = turns, turn, claim, clock
        self.text: list[str] = []
        self.stopped = False
        self.began = time.monotonic() - claim.age_seconds
        self.translator = Translator(turn.turn_id, turns.model_name)
        self.config: RunnableConfig = {
            "configurable": {"thread_id": str(turn.session_id)},
            "metadata": {"turn_id": str(turn.turn_id)},
        }

    async def answer(self) -> None:
        """Goes on from the checkpoint, wherever an earlier attempt stopped: also after the last step of the graph."""
        held_turn.set(self.turn)
        state = await self._state()
        started = state is not None and (state.metadata or {}).get("turn_id") == str(self.turn.turn_id)
        if not started:
            await self._stream(await self._input(state))
        elif state is not None and state.tasks:
            await self._recall(state)
            await self._stream(None)
        final = await self.turns.graph.aget_state(self.config)
        await self._finish(done(self.turn.turn_id, final.values, round(1000 * (time.monotonic() - self.began))))

    async def _finish(self, end: NewEvent) -> None:
        """The answer is there, so no deadline may end the turn any more. A text that no attempt of ours has said comes
        with its end, so that the tokens are the answer for every reader."""
        self.clock.stop()
        content = end.data["message"]["content"]
        if content and not self.text:
            await self._append(NewEvent("token", {"content": content}))
        await self._append(end)
        await self.turns.writer.flush(self.turn)

    async def _state(self) -> StateSnapshot | None:
        """The session's checkpoint; a session's very first attempt has none to read."""
        if self.claim.first_seq == 1 and self.turn.attempt == 1:
            return None
        return await self.turns.graph.aget_state(self.config)

    async def _input(self, state: StateSnapshot | None) -> Any:
        """The turn's question, and before it what the checkpoint's messages lack or have too much (law 8)."""
        snapshot = fold(self.turn.session_id, await self._events())
        mine = str(self.turn.turn_id)
        question = next(m for m in snapshot.messages if str(m.turn_id) == mine)
        said = [_spoken(m) for m in snapshot.messages if str(m.turn_id) != mine and m.content]
        known: Sequence[AnyMessage] = state.values.get("messages", []) if state is not None else []
        return turn_input(mine, question.content, reconcile(known, said))

    async def _events(self) -> list[Event]:
        """The session's log; while the database is away it is asked again, for as long as the deadlines allow."""
        while True:
            try:
                return await self.turns.log.events(self.turn.session_id)
            except DatabaseUnavailable:
                await asyncio.sleep(READ_AGAIN_SECONDS)

    async def _recall(self, state: StateSnapshot) -> None:
        """Says what an earlier attempt's finished tasks found, unless it had time to; they are not run again."""
        finished = [task for task in state.tasks if task.result is not None]
        self.translator = Translator(self.turn.turn_id, self.turns.model_name, frozenset(task.id for task in finished))
        said = {_what(e.type, e.parse()) for e in await self._events() if e.turn_id == self.turn.turn_id}
        for task in finished:
            event = self.translator.completed(task.name, dict(task.result or {}), 0)
            if event is not None and _what(event.type, event) not in said:
                await self._append(new_event(event))

    async def _stream(self, graph_input: Any) -> None:
        stream = self.turns.graph.astream(
            graph_input, self.config, stream_mode=["tasks", "messages"], durability="async"
        )
        feed = self.translator.feed
        async for mode, data in stream:
            events = feed(mode, data, time.monotonic())
            if events:
                await self._append(*events)

    async def _append(self, *events: NewEvent) -> None:
        if self.stopped:
            raise Fenced
        for event in events:
            if event.type == "token":
                self.text.append(event.data["content"])
                self.clock.wait_for(self.turns.deadlines.token)
            elif event.type == "generation_start":
                self.clock.wait_for(self.turns.deadlines.first_token)
        await self.turns.writer.append(self.turn, *events)

    async def stop(self, task: "asyncio.Task[None]") -> None:
        """A task that does not let go is left behind; what it still says is refused."""
        self.stopped = True
        task.cancel()
        await asyncio.wait((task,), timeout=STOP_SECONDS)
        if not task.done():
            logger.error("a model call does not stop", extra={"turn_id": str(self.turn.turn_id)})

    async def settle(self, task: "asyncio.Task[None]", expired: str | None) -> None:
        """After the answer's task: a turn that failed ends with `error` and keeps its partial text."""
        failure = task.exception() if task.done() and not task.cancelled() else None
        if expired is None and failure is None:
            return
        code = expired or code_of(failure, self.translator.stage)  # type: ignore[arg-type]
        if failure is not None and expired is None:
            logger.error("turn failed: %s", code, exc_info=failure, extra={"turn_id": str(self.turn.turn_id)})
        try:
            await self.turns.writer.append(self.turn, error_event(self.turn.turn_id, code, "".join(self.text)))
            await self.turns.writer.flush(self.turn)
        except Fenced:
            logger.info("turn ended elsewhere first", extra={"turn_id": str(self.turn.turn_id)})


def _what(kind: str, event: Any) -> tuple[str, str]:
    """An event that tells a stage's end is said once a turn."""
    return kind, getattr(event, "stage", "")


def reconcile(known: Sequence[BaseMessage], said: Sequence[BaseMessage]) -> list[BaseMessage]:
    """What brings a checkpoint's messages to those of the log: what is missing at the end, else all of them anew."""
    prefix = [(m.id, m.text) for m in said[: len(known)]]
    if [(m.id, m.text) for m in known] == prefix:
        return list(said[len(known) :])
    return [RemoveMessage(id=REMOVE_ALL_MESSAGES), *said]


def _spoken(message: Message) -> AnyMessage:
    kind = HumanMessage if message.role == "user" else AIMessage
    return kind(message.content, id=message.id)
