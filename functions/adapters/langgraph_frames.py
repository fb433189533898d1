"""Our events → the frames of a LangGraph server's run stream. Pure; one Translator a response."""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import orjson

from functions.adapters.runs import Told
from functions.frames import decode
from graph.eventlog import events as e
from graph.eventlog.events import StreamEvent
from graph.eventlog.hub import Frame
from graph.eventlog.snapshot import Message, Snapshot, apply

StreamMode = Literal["values", "updates", "messages", "messages-tuple", "custom", "events"]
HEARTBEAT = b": heartbeat\n\n"
EVENT_ID = re.compile(r"(\d{1,18})(?:\.(\d{1,3}))?\Z")
LAST = 1_000  # of the frames that one event became
STAGES = {"retrieval": "retrieve", "reranking": "rerank", "generation": "generate"}

Out = tuple[str, Any]


class Place(NamedTuple):
    """After which frame: of the events' seqs, and of the frames that one event became. Its id is `7`, or `7.1` when
    more follow of event 7, so that a connection may be cut between any two frames."""

    seq: int = 0
    part: int = LAST

    @classmethod
    def of(cls, event_id: str | None) -> "Place | None":
        """From the start without an id, or with `-1`. None: no id of ours."""
        if event_id in (None, "", "-1"):
            return cls()
        found = EVENT_ID.match(event_id or "")
        return cls(int(found[1]), int(found[2] or LAST)) if found else None

    def __str__(self) -> str:
        return str(self.seq) if self.part == LAST else f"{self.seq}.{self.part}"


class RunWire:
    """A run's frames after `place`. What lies before is read again, so that every frame is the same from every
    replica, whoever asks."""

    opening = ping = HEARTBEAT
    over = False

    def __init__(self, told: Told, modes: Sequence[StreamMode], place: Place) -> None:
        self._translator = Translator(told, modes)
        self._place = place

    def render(self, frames: Sequence[Frame]) -> bytes:
        return b"".join(self._frames(frame) for frame in frames) or HEARTBEAT

    def _frames(self, frame: Frame) -> bytes:
        out = self._translator.feed(frame.seq, decode(frame))
        places = [Place(frame.seq, LAST if n == len(out) else n) for n in range(1, len(out) + 1)]
        return b"".join(
            f"id: {place}\nevent: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
            for place, (name, data) in zip(places, out, strict=True)
            if place > self._place
        )


class Translator:
    def __init__(self, told: Told, modes: Sequence[StreamMode]) -> None:
        self._session_id, self._turn_id, self._modes = told.session_id, told.turn_id, modes
        whole = {"values", "events"} & set(modes)
        self._snapshot = told.before() if whole else Snapshot(session_id=told.session_id, last_seq=told.first_seq - 1)
        self._text = ""
        self._node = "__start__"
        self._id = f"{told.turn_id}:assistant"

    def feed(self, seq: int, event: StreamEvent) -> list[Out]:
        """The frames of the next event; every event is to be fed, in order."""
        row = e.Event(self._session_id, seq, self._turn_id, 0, event.type, _data(event))
        apply(self._snapshot, row)
        match event:
            case e.TurnStarted():
                return [self._metadata(1), *self._values(), *self._run("on_chain_start", {})]
            case e.Token():
                return self._said(event.content)
            case e.Reset():
                return [self._metadata(event.attempt), *self._forget()]
            case e.Custom():
                return [("custom", event.value)] if "custom" in self._modes else []
            case e.Done():
                return [*self._exactly(event.message.content), *self._ended(event.interrupted)]
            case e.Cancelled():
                return [*self._exactly(event.content), *self._ended(None)]
            case e.Error():
                return [*self._exactly(event.content), *self._values(), self._error(event)]
            case _:
                return self._stage(event)

    def _metadata(self, attempt: int) -> Out:
        return "metadata", {"run_id": str(self._turn_id), "attempt": attempt}

    def _error(self, event: e.Error) -> Out:
        return "error", {"error": event.code, "message": event.message}

    def _said(self, text: str) -> list[Out]:
        self._text += text
        chunk = {**_ai(self._id, text), "type": "AIMessageChunk"}
        out: list[Out] = []
        if "messages-tuple" in self._modes:
            out.append(("messages", [chunk, self._about()]))
        if "messages" in self._modes:
            out.append(("messages/partial", [_ai(self._id, self._text)]))
        if "events" in self._modes:
            out.append(("events", {**self._event("on_chat_model_stream"), "data": {"chunk": chunk}}))
        return out

    def _forget(self) -> list[Out]:
        """The text so far is taken back: as a message that was removed."""
        removed = {"type": "remove", "id": self._id, "content": ""}
        forgets = bool(self._text)
        self._text = ""
        out: list[Out] = [("messages", [removed, self._about()])] if forgets and "messages-tuple" in self._modes else []
        return [*out, *self._values()]

    def _exactly(self, content: str) -> list[Out]:
        """Where the tokens were pruned, the text comes with the end."""
        missing = [*(self._forget() if self._text else []), *self._said(content)] if content != self._text else []
        whole: list[Out] = [("messages/complete", [_ai(self._id, content)])] if "messages" in self._modes else []
        return [*missing, *(whole if content else [])]

    def _stage(self, event: StreamEvent) -> list[Out]:
        """`updates` have of a node's update what the log has of it."""
        stage, _, step = event.type.rpartition("_")
        name = event.stage if isinstance(event, e.StageStart | e.StageComplete) else STAGES.get(stage, "supervisor")
        told = event.model_dump(mode="json", exclude={"type", "turn_id", "timestamp", "stage"}, exclude_none=True)
        out: list[Out] = []
        if step == "start":
            self._node = name
        elif "updates" in self._modes:
            out.append(("updates", {name: told}))
        if "custom" in self._modes and not isinstance(event, e.StageStart | e.StageComplete):
            out.append(("custom", {"type": event.type, **told}))
        if event.type != "routed" and "events" in self._modes:
            ended = {"output": told} if step == "complete" else {"input": {}}
            kind = "on_chain_end" if step == "complete" else "on_chain_start"
            out.append(("events", {**self._event(kind), "name": name, "data": ended}))
        return out

    def _ended(self, interrupted: list[e.Interrupt] | None) -> list[Out]:
        asked = [interrupt.model_dump(mode="json") for interrupt in interrupted or []]
        update: list[Out] = [("updates", {"__interrupt__": asked})] if asked and "updates" in self._modes else []
        values = self._values({"__interrupt__": asked} if asked else {})
        return [*update, *values, *self._run("on_chain_end", {"output": values_of(self._snapshot.messages)})]

    def _values(self, more: dict[str, Any] | None = None) -> list[Out]:
        if "values" not in self._modes:
            return []
        return [("values", {**values_of(self._snapshot.messages), **(more or {})})]

    def _run(self, kind: str, data: dict[str, Any]) -> list[Out]:
        return [("events", {**self._event(kind), "data": data})] if "events" in self._modes else []

    def _event(self, kind: str) -> dict[str, Any]:
        return {
            "event": kind,
            "name": self._node,
            "run_id": str(self._turn_id),
            "tags": [],
            "metadata": self._about(),
            "parent_ids": [],
        }

    def _about(self) -> dict[str, Any]:
        return {
            "run_id": str(self._turn_id),
            "thread_id": str(self._session_id),
            "langgraph_node": self._node,
        }


def _data(event: StreamEvent) -> str:
    return event.model_dump_json(exclude={"type"}, exclude_none=True)


class Values:
    """A thread's state as the log tells it. It writes each message once, for however many states."""

    def __init__(self) -> None:
        self._written: dict[str, dict[str, Any]] = {}

    def of(self, messages: Sequence[Message]) -> dict[str, Any]:
        return {"messages": [self._write(message) for message in messages if message.content or message.role == "user"]}

    def _write(self, message: Message) -> dict[str, Any]:
        if message.id not in self._written:
            self._written[message.id] = _message(message)
        return self._written[message.id]


def values_of(messages: Sequence[Message]) -> dict[str, Any]:
    return Values().of(messages)


def _message(message: Message) -> dict[str, Any]:
    if message.role == "user":
        return {**_ai(message.id, message.content), "type": "human"}
    known = message.model_dump(mode="json", include={"status", "sources", "citations"})
    return {**_ai(message.id, message.content), "response_metadata": known}


def _ai(message_id: str, content: str) -> dict[str, Any]:
    return {
        "type": "ai",
        "id": message_id,
        "content": content,
        "name": None,
        "additional_kwargs": {},
        "response_metadata": {},
    }
