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

Out = tuple[StreamMode | None, str, Any]  # None: of every mode


class Place(NamedTuple):
    """After which frame: of the events' seqs, and of the frames that one event becomes, of all modes. Its id is `7`, or
    `7.1` when there are more of event 7, so that a connection may be cut between any two frames, and go on with other
    modes than before."""

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
        self._translator = Translator(told, modes, resumed=place.seq >= told.first_seq)
        self._modes, self._place = {None, *modes}, place

    def render(self, frames: Sequence[Frame]) -> bytes:
        return b"".join(self._frames(frame) for frame in frames) or HEARTBEAT

    def _frames(self, frame: Frame) -> bytes:
        out = self._translator.feed(frame.seq, decode(frame))
        return b"".join(
            f"id: {place}\nevent: {told[1]}\ndata: ".encode() + orjson.dumps(told[2]) + b"\n\n"
            for part, told in enumerate(out, 1)
            if told is not None and told[0] in self._modes
            if (place := Place(frame.seq, LAST if part == len(out) else part)) > self._place
        )


class Translator:
    """`modes` are those that will be shown. `resumed`: the client may have had a part of the text."""

    def __init__(self, told: Told, modes: Sequence[StreamMode], *, resumed: bool = False) -> None:
        self._session_id, self._turn_id, self._resumed = told.session_id, told.turn_id, resumed
        whole = {"values", "events"} & set(modes)
        self._snapshot = told.before() if whole else Snapshot(session_id=told.session_id, last_seq=told.first_seq - 1)
        self._text = ""
        self._node = "__start__"
        self._id = f"{told.turn_id}:assistant"

    def feed(self, seq: int, event: StreamEvent) -> list[Out | None]:
        """The frames of the next event, of all modes; every event is to be fed, in order. None is the place of one that
        others are told: so each has its place, whoever asks, and when the tokens were pruned too."""
        row = e.Event(self._session_id, seq, self._turn_id, 0, event.type, _data(event))
        apply(self._snapshot, row)
        match event:
            case e.TurnStarted():
                return [self._metadata(1), self._values(), self._run("on_chain_start", {})]
            case e.Token():
                return [*self._said(event.content)]
            case e.Reset():
                return [self._metadata(event.attempt), self._take_back(bool(self._text)), self._values()]
            case e.Custom():
                return [("custom", "custom", event.value)]
            case e.Done():
                return [*self._exactly(event.message.content), *self._ended(event.interrupted)]
            case e.Cancelled():
                return [*self._exactly(event.content), *self._ended(None)]
            case e.Error():
                return [*self._exactly(event.content), self._values(), self._error(event)]
            case _:
                return [*self._stage(event)]

    def _metadata(self, attempt: int) -> Out:
        return None, "metadata", {"run_id": str(self._turn_id), "attempt": attempt}

    def _error(self, event: e.Error) -> Out:
        return None, "error", {"error": event.code, "message": event.message}

    def _said(self, text: str) -> list[Out]:
        self._text += text
        chunk = {**_ai(self._id, text), "type": "AIMessageChunk"}
        return [
            ("messages-tuple", "messages", [chunk, self._about()]),
            ("messages", "messages/partial", [_ai(self._id, self._text)]),
            ("events", "events", {**self._event("on_chat_model_stream"), "data": {"chunk": chunk}}),
        ]

    def _take_back(self, had: bool) -> Out | None:
        """The text so far: as a message that was removed."""
        self._text = ""
        removed = {"type": "remove", "id": self._id, "content": ""}
        return ("messages-tuple", "messages", [removed, self._about()]) if had else None

    def _exactly(self, content: str) -> list[Out | None]:
        """Where the tokens were pruned, the text comes with the end, and takes back what the client had of it."""
        exact, had = content == self._text, bool(self._text) or self._resumed
        again = [self._take_back(had), *self._said(content)]
        whole: Out = ("messages", "messages/complete", [_ai(self._id, content)])
        return [*([None] * len(again) if exact else again), whole if content else None]

    def _stage(self, event: StreamEvent) -> list[Out]:
        """`updates` have of a node's update what the log has of it."""
        stage, _, step = event.type.rpartition("_")
        name = event.stage if isinstance(event, e.StageStart | e.StageComplete) else STAGES.get(stage, "supervisor")
        told = event.model_dump(mode="json", exclude={"type", "turn_id", "timestamp", "stage"}, exclude_none=True)
        out: list[Out] = []
        if step == "start":
            self._node = name
        else:
            out.append(("updates", "updates", {name: told}))
        if not isinstance(event, e.StageStart | e.StageComplete):
            out.append(("custom", "custom", {"type": event.type, **told}))
        if event.type != "routed":
            ended = {"output": told} if step == "complete" else {"input": {}}
            kind = "on_chain_end" if step == "complete" else "on_chain_start"
            out.append(("events", "events", {**self._event(kind), "name": name, "data": ended}))
        return out

    def _ended(self, interrupted: list[e.Interrupt] | None) -> list[Out]:
        asked = [interrupt.model_dump(mode="json") for interrupt in interrupted or []]
        update: list[Out] = [("updates", "updates", {"__interrupt__": asked})] if asked else []
        values = self._values({"__interrupt__": asked} if asked else {})
        return [*update, values, self._run("on_chain_end", {"output": values_of(self._snapshot.messages)})]

    def _values(self, more: dict[str, Any] | None = None) -> Out:
        return "values", "values", {**values_of(self._snapshot.messages), **(more or {})}

    def _run(self, kind: str, data: dict[str, Any]) -> Out:
        return "events", "events", {**self._event(kind), "data": data}

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
