"""Runs one held turn: reconcile → stream the graph → translate → append → end. The only caller of the writer."""

import asyncio
import logging
import time
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from graph import measures
from graph.breakpoints import waits
from graph.deadlines import Clock, Deadlines
from graph.eventlog.errors import DatabaseUnavailable, Fenced
from graph.eventlog.events import Event, NewEvent, Reset, new_event
from graph.eventlog.log import Candidate, Claim, Log
from graph.eventlog.saver import held_turn
from graph.eventlog.writer import AppendFailed, HeldTurn, Writer
from graph.failures import FAILURES, error_event
from graph.provider import code_of
from graph.served import Served
from graph.translate import done

logger = logging.getLogger(__name__)
STOP_SECONDS = 1.0  # how long a model call may take to let go
READ_AGAIN_SECONDS = 0.25


class Turns:
    """Runs turns of one graph; its checkpointer is an EventLogSaver on the same writer."""

    def __init__(self, served: Served, log: Log, writer: Writer, deadlines: Deadlines) -> None:
        self.served, self.log, self.writer, self.deadlines = served, log, writer, deadlines

    async def run(self, turn: HeldTurn, claim: Claim) -> None:
        """Returns when the turn has ended or was taken away. Cancelled (a worker that stops), the turn stays held."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def stop() -> None:
            if not over.done():
                over.set_result(None)

        turn.on_refused = stop
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
        self.translator = turns.served.translator(turn.turn_id)
        self.note = ""
        self.config: RunnableConfig = {"configurable": {"thread_id": str(turn.session_id)}}

    async def answer(self) -> None:
        """Goes on from the checkpoint, wherever an earlier attempt stopped: also after the last step of the graph."""
        held_turn.set(self.turn)
        state = await self._state()
        known: dict[str, Any] = dict(state.metadata or {}) if state is not None else {}
        if known.get("turn_id") != str(self.turn.turn_id):
            graph_input, note = self.turns.served.enter(self.turn.turn_id, await self._events(), state)
            self._remember(note)
            await self._go_on(state, graph_input)
        else:
            self._remember(known.get("note", ""))
            if state is not None and state.tasks:
                await self._recall(state)
                await self._go_on(state, None)
        await self._finish(await self._end())

    async def _end(self) -> NewEvent:
        """As the stream has told it; from the checkpoint when an earlier attempt came so far, or for another graph."""
        if self.translator.answered is not None:
            return done(self.turn.turn_id, self.translator.answered, self._lasted_ms())
        final = await self.turns.served.graph.aget_state(self.config)
        return self.turns.served.done(self.turn.turn_id, final, self.note, "".join(self.text), self._lasted_ms())

    def _lasted_ms(self) -> int:
        return round(1000 * (time.monotonic() - self.began))

    def _remember(self, note: str) -> None:
        self.note = note
        self.config["metadata"] = {"turn_id": str(self.turn.turn_id), **({"note": note} if note else {})}

    async def _finish(self, end: NewEvent) -> None:
        """The answer is there, so no deadline may end the turn any more. A text that this attempt has said otherwise,
        or not at all, comes with its end, so that the tokens are the answer for every reader."""
        self.clock.stop()
        content, said = end.data["message"]["content"], "".join(self.text)
        if content != said and said:
            await self._append(new_event(Reset(turn_id=self.turn.turn_id, attempt=self.turn.attempt, reason="revised")))
        if content != said and content:
            await self._append(NewEvent("token", {"content": content}))
        await self._append(end)
        await self.turns.writer.flush(self.turn, at_once=False)

    async def _state(self) -> StateSnapshot | None:
        """The session's checkpoint; a session's very first attempt has none to read."""
        if self.claim.fresh:
            return None
        return await self.turns.served.graph.aget_state(self.config)

    async def _events(self) -> list[Event]:
        """The session's log; while the database is away it is asked again, for as long as the deadlines allow."""
        if self.claim.question is not None:
            return [Event(self.turn.session_id, 1, self.turn.turn_id, 0, "turn_started", self.claim.question)]
        while True:
            try:
                return await self.turns.log.events(self.turn.session_id)
            except DatabaseUnavailable:
                await asyncio.sleep(READ_AGAIN_SECONDS)

    async def _recall(self, state: StateSnapshot) -> None:
        """Says what an earlier attempt's finished tasks found, unless it had time to; they are not run again."""
        finished = [task for task in state.tasks if task.result is not None]
        text = self.turns.served.recalled(state, self.note)
        ids = frozenset(task.id for task in finished)
        self.translator = self.turns.served.translator(self.turn.turn_id, ids, text)
        said = {_what(e.type, e.parse()) for e in await self._events() if e.turn_id == self.turn.turn_id}
        for task in finished:
            event = self.translator.completed(task.name, dict(task.result or {}), 0)
            if event is not None and _what(event.type, event) not in said:
                await self._append(new_event(event))
        if text:
            await self._append(NewEvent("token", {"content": text}))

    async def _go_on(self, state: StateSnapshot | None, graph_input: Any) -> None:
        """Unless an earlier attempt has brought the graph to where it waits for a person: its words are said again, of
        which the checkpoint of a graph that stopped within a subgraph knows nothing yet."""
        if state is None or not await waits(self.turns.served.graph, state, self.turn.turn_id):
            await self._stream(graph_input)
        elif not self.text and (text := _heard(await self._events(), self.turn.turn_id)):
            await self._append(NewEvent("token", {"content": text}))

    async def _stream(self, graph_input: Any) -> None:
        await self.turns.served.stream(graph_input, self.config, self._feed)

    async def _feed(self, mode: str, data: Any) -> None:
        if events := self.translator.feed(mode, data, time.monotonic()):
            await self._append(*events)

    async def _append(self, *events: NewEvent) -> None:
        if self.stopped:
            raise Fenced
        for event in events:
            if event.type == "token":
                if not self.text and self.turn.attempt == 1:
                    measures.FIRST_TOKEN.observe(time.monotonic() - self.began)
                self.text.append(event.data["content"])
                if self.turns.served.timed:
                    deadlines = self.turns.deadlines
                    self.clock.wait_for(deadlines.first_token if self.translator.recites else deadlines.token)
            elif event.type == "generation_start":
                self.clock.wait_for(self.turns.deadlines.first_token)
        await self.turns.writer.append(self.turn, *events)

    async def stop(self, task: "asyncio.Task[None]") -> None:
        """A task that does not let go is left behind; what it still says is refused."""
        self.stopped = True
        task.cancel()
        await asyncio.wait((task,), timeout=STOP_SECONDS)
        if not task.done():
            task.add_done_callback(_looked_at)
            logger.error("a model call does not stop", extra={"turn_id": str(self.turn.turn_id)})

    async def settle(self, task: "asyncio.Task[None]", expired: str | None) -> None:
        """After the answer's task: a turn that failed ends with `error` and keeps its partial text."""
        failure = task.exception() if task.done() and not task.cancelled() else self.turn.failure
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
        except AppendFailed:
            await self._lose(code)

    async def _lose(self, code: str) -> None:
        """The database refused something of this attempt for good: the log ends the turn with what it has of it."""
        message, retryable = FAILURES[code]
        held = Candidate(self.turn.session_id, self.turn.turn_id, self.turn.attempt)
        await self.turns.log.lose(held, code, message, retryable=retryable, held=True)


def _looked_at(task: "asyncio.Task[None]") -> None:
    """What was left behind ends by being refused: nobody waits for that any more, and asyncio would complain."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, Fenced):
        logger.error("what was left behind failed", exc_info=error)


def _heard(events: list[Event], turn_id: UUID) -> str:
    """What the last attempt that spoke has said."""
    heard = text = ""
    for event in (event.parse() for event in events if event.turn_id == turn_id):
        if event.type == "token":
            heard = text = text + event.content
        elif event.type == "reset":
            text = ""
    return heard


def _what(kind: str, event: Any) -> tuple[str, str]:
    """An event that tells a stage's end is said once a turn."""
    return kind, getattr(event, "stage", "")
