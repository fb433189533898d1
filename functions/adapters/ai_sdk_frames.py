"""Our events → the chunks of an AI SDK UI message stream, version 1. Pure; one Chunks a response."""

from collections.abc import Sequence
from typing import Any

import orjson

from functions.adapters.runs import Told
from functions.frames import decode
from graph.eventlog import events as e
from graph.eventlog.events import Source, StreamEvent
from graph.eventlog.hub import Frame
from graph.eventlog.snapshot import Snapshot, StageState, apply

COMMENT = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
STARTED_AGAIN = "The answer was started again. Resume to see it."

Chunk = dict[str, Any]


class ChatWire:
    """A turn's chunks from the `start`-th on, counted from 0: what lies before is made again and left out, so that the
    n-th chunk is the same from every replica. The last one, `finish`, is sent in any case. None: all, for a client that
    does not count them."""

    opening = ping = COMMENT

    def __init__(self, told: Told, start: int | None, *, resets: bool) -> None:
        self._chunks, self._skip = Chunks(told, resets=resets, whole=start is not None), start or 0
        self.over = False

    def render(self, frames: Sequence[Frame]) -> bytes:
        out = b"".join(self._write(self._chunks.feed(frame.seq, decode(frame))) for frame in frames)
        if self._chunks.finished and not self.over:
            self.over = True
            out += DONE
        return out or COMMENT

    def _write(self, chunks: list[Chunk]) -> bytes:
        """Where tokens were pruned the indices of old no longer hold: who has a part of the text is sent back."""
        out = b""
        whole = next((n for n, chunk in enumerate(chunks) if chunk["type"] == "text-delta"), len(chunks))
        if self._chunks.pruned and self._skip > whole:
            self._skip, chunks = 0, [{"type": "error", "errorText": STARTED_AGAIN}, chunks[-1]]
        for chunk in chunks:
            if self._skip and chunk["type"] != "finish":  # who counted past the end is told that it is one
                self._skip -= 1
            else:
                out += b"data: " + orjson.dumps(chunk) + b"\n\n"
        return out


class Chunks:
    """`resets`: the client knows `reset-step` (AI SDK 7). One that does not is told nothing of a second attempt as long
    as that says the same. When it says otherwise, the words so far end as a part of their own, `data-reset` says that
    they no longer hold, and the answer is the text part after it.

    It hears nothing at all of the words that were taken back before its response began, unless it counts chunks
    (`whole`)."""

    def __init__(self, told: Told, *, resets: bool, whole: bool = False) -> None:
        self._session_id, self._turn_id, self._resets = told.session_id, told.turn_id, resets
        self._since = 0 if resets or whole else told.reset_seq
        self._snapshot = Snapshot(session_id=told.session_id, last_seq=told.first_seq - 1)
        self._id = f"{told.turn_id}:assistant"
        self._part = self._id
        self._shown = self._text = ""
        self._step = self._speaking = False
        self._taken_back = 0
        self._under_way: set[str] = set()
        self.finished = self.pruned = False

    def feed(self, seq: int, event: StreamEvent) -> list[Chunk]:
        """The chunks of the next event; every event is to be fed, in order."""
        if self.finished:
            return []
        stages = self._snapshot.turn.stages if self._snapshot.turn else []
        self._under_way = {stage.name for stage in stages if stage.state == "active"}
        data = event.model_dump_json(exclude={"type"}, exclude_none=True)
        apply(self._snapshot, e.Event(self._session_id, seq, self._turn_id, 0, event.type, data))
        match event:
            case e.TurnStarted():
                about = {"session_id": str(self._session_id), "turn_id": str(self._turn_id)}
                return [{"type": "start", "messageId": self._id, "messageMetadata": about}]
            case e.Routed():
                return [{"type": "data-agent", "id": "agent", "data": {"agent": event.agent}}]
            case e.Token():
                return self._said(event.content) if seq > self._since else []
            case e.Reset():
                return self._forget()
            case e.Custom():
                return [{"type": "data-custom", "data": event.value}]
            case e.Done():
                asked = [interrupt.model_dump(mode="json") for interrupt in event.interrupted or []]
                more: list[Chunk] = [{"type": "data-interrupt", "id": "interrupt", "data": asked}] if asked else []
                return [*self._exactly(event.message.content), *self._end(*more, reason="stop")]
            case e.Cancelled():
                abort = {"type": "abort", "reason": event.reason}
                return [*self._exactly(event.content), *self._end(abort, reason="other")]
            case e.Error():
                error = {"type": "error", "errorText": event.message}
                return [*self._exactly(event.content), *self._end(error, reason="error")]
            case e.RerankingComplete():
                return [*self._stages("reranking"), *map(_source, event.sources)]
            case e.StageStart() | e.StageComplete():
                return self._stages(event.stage)
            case _:
                return self._stages(event.type.rpartition("_")[0])

    def _stages(self, name: str | None = None) -> list[Chunk]:
        """A part is written anew when its stage ends."""
        stages = self._snapshot.turn.stages if self._snapshot.turn else []
        return [_stage(stage) for stage in stages if name in (None, stage.name)]

    def _said(self, text: str) -> list[Chunk]:
        """Only what goes beyond what the client has: an attempt that says the same again is not heard."""
        self._text += text
        if self._shown.startswith(self._text):
            return []
        taken_back = [] if self._text.startswith(self._shown) else self._take_back()
        return [*taken_back, *self._show()]

    def _show(self) -> list[Chunk]:
        new = self._text[len(self._shown) :]
        self._shown = self._text
        opened: list[Chunk] = [] if self._step else [{"type": "start-step"}]
        opened += [] if self._speaking else [{"type": "text-start", "id": self._part}]
        self._step = self._speaking = True
        return [*opened, {"type": "text-delta", "id": self._part, "delta": new}]

    def _take_back(self) -> list[Chunk]:
        """The client has seen what the answer is not, and cannot forget it."""
        closed = self._close()
        self._taken_back += 1
        self._part, self._shown = f"{self._id}:{self._taken_back}", ""
        return [*closed, {"type": "data-reset", "data": {"attempt": self._taken_back + 1}}]

    def _close(self) -> list[Chunk]:
        closed: list[Chunk] = [{"type": "text-end", "id": self._part}] if self._speaking else []
        self._speaking = False
        return closed

    def _forget(self) -> list[Chunk]:
        """A step's parts go with it, the finished stages in it too: they are told again."""
        self._text = ""
        if not self._resets or not self._step:
            return []
        self._shown, self._speaking = "", False
        return [{"type": "reset-step"}, *self._stages()]

    def _exactly(self, content: str) -> list[Chunk]:
        """Where the tokens were pruned, the text comes with the end."""
        if content == self._text == self._shown:
            return []
        self.pruned, self._text = not self._text, content
        taken_back = [] if content.startswith(self._shown) else self._take_back()
        return [*taken_back, *(self._show() if content != self._shown else [])]

    def _end(self, *chunks: Chunk, reason: str) -> list[Chunk]:
        """The stages that were under way end with the turn."""
        self.finished = True
        stages = [_stage(stage) for stage in self._snapshot.messages[-1].stages if stage.name in self._under_way]
        closed = [*self._close(), *([{"type": "finish-step"}] if self._step else [])]
        return [*stages, *closed, *chunks, {"type": "finish", "finishReason": reason}]


def _stage(stage: StageState) -> Chunk:
    return {"type": "data-stage", "id": stage.name, "data": stage.model_dump(mode="json", exclude_none=True)}


def _source(source: Source) -> Chunk:
    if source.url:
        return {"type": "source-url", "sourceId": source.id, "url": source.url, "title": source.title}
    return {"type": "source-document", "sourceId": source.id, "mediaType": "text/plain", "title": source.title}
