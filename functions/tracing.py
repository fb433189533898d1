"""OpenTelemetry traces of turns, from the POST through the stages to the last frame; off unless TRACES is set.

A turn's trace id is its turn_id and its first span's id the half of that, so that whichever process starts, answers or
tails the turn adds to one trace, and nothing has to be handed on. Spans hold ids, names, counts and times, no text.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import orjson
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags

from functions.settings import Settings
from graph.eventlog.events import ENDS, Event

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

OPEN_MAX = 2000  # turns whose end another process wrote are forgotten, the oldest first
FLUSH_SECONDS = 2.0  # for what a collector has not taken when the process stops
NEEDS_EXTRA = "PULSELINE_TRACES needs the extra `otel`: pip install 'pulseline[otel]'"
START, COMPLETE = "_start", "_complete"
COUNTS = ("passages", "duration_ms", "degraded", "abstained", "agent", "model", "reason", "code")


class Spans(Protocol):
    """What a replica tells of its turns."""

    def started(self, session_id: UUID, turn_id: UUID, began_ns: int) -> None: ...
    def committed(self, events: Iterable[Event]) -> None: ...
    def cancelled(self, session_id: UUID) -> None: ...
    def sent(self, session_id: UUID, frame: bytes, began_ns: int) -> None: ...


class NoSpans:
    def started(self, session_id: UUID, turn_id: UUID, began_ns: int) -> None: ...
    def committed(self, events: Iterable[Event]) -> None: ...
    def cancelled(self, session_id: UUID) -> None: ...
    def sent(self, session_id: UUID, frame: bytes, began_ns: int) -> None: ...


def root(turn_id: UUID) -> SpanContext:
    """Of the span that a turn's POST makes."""
    return SpanContext(turn_id.int, _root_id(turn_id), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _root_id(turn_id: UUID) -> int:
    return turn_id.int & 0xFFFFFFFFFFFFFFFF


def _under(span: SpanContext | Span) -> Context:
    return trace.set_span_in_context(span if isinstance(span, Span) else NonRecordingSpan(span))


@dataclass
class _Attempt:
    """The open spans of an attempt that runs in this process."""

    session_id: UUID
    answer: Span
    stages: dict[str, Span] = field(default_factory=dict)
    said: bool = False

    def token(self) -> None:
        if not self.said:
            self.said = True
            self.answer.add_event("first token")

    def end(self, code: StatusCode) -> None:
        for span in self.stages.values():
            span.end()
        self.answer.set_status(Status(code))
        self.answer.end()


class TurnSpans:
    """Makes spans of what the log says: the attempt and its stages from committed events, the tail from sent frames."""

    def __init__(self, provider: "TracerProvider", ids: "Any") -> None:
        self._tracer, self._ids = provider.get_tracer("pulseline"), ids
        self._open: OrderedDict[UUID, _Attempt] = OrderedDict()

    def started(self, session_id: UUID, turn_id: UUID, began_ns: int) -> None:
        with self._ids.being(turn_id.int, _root_id(turn_id)):
            span = self._tracer.start_span(
                "start turn", context=Context(), start_time=began_ns, attributes=_names(session_id, turn_id)
            )
        span.end()

    def committed(self, events: Iterable[Event]) -> None:
        for event in events:
            self._event(event, self._spans(event))

    def _spans(self, event: Event) -> _Attempt:
        spans = self._open.get(event.turn_id)
        if spans is None:
            names = {**_names(event.session_id, event.turn_id), "pulseline.attempt": event.attempt}
            answer = self._tracer.start_span("answer", _under(root(event.turn_id)), attributes=names)
            spans = self._open[event.turn_id] = _Attempt(event.session_id, answer)
            if len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)[1].end(StatusCode.UNSET)
        return spans

    def _event(self, event: Event, spans: _Attempt) -> None:
        if event.type == "token":
            spans.token()
            return
        data = orjson.loads(event.data)
        at_ns, counts = _nanoseconds(data["timestamp"]), _counts(data)
        stage = data.get("stage") or event.type.removesuffix(START).removesuffix(COMPLETE)
        if event.type.endswith(START):
            context = _under(spans.answer)
            spans.stages[stage] = self._tracer.start_span(stage, context, start_time=at_ns, attributes=counts)
        elif event.type.endswith(COMPLETE):
            if (span := spans.stages.pop(stage, None)) is not None:
                span.set_attributes(counts)
                span.end(at_ns)
        elif event.type in ENDS:
            spans.answer.set_attributes({"pulseline.status": event.type, **counts})
            self._open.pop(event.turn_id).end(StatusCode.ERROR if event.type == "error" else StatusCode.OK)
        else:
            spans.answer.add_event(event.type, counts, at_ns)

    def cancelled(self, session_id: UUID) -> None:
        """By this process; where another does it, the worker's spans are forgotten in time."""
        for turn_id in [turn_id for turn_id, spans in self._open.items() if spans.session_id == session_id]:
            spans = self._open.pop(turn_id)
            spans.answer.set_attribute("pulseline.status", "cancelled")
            spans.end(StatusCode.OK)

    def sent(self, session_id: UUID, frame: bytes, began_ns: int) -> None:
        """A response has sent a turn's last frame."""
        with suppress(ValueError, KeyError, IndexError):
            turn_id = UUID(orjson.loads(frame.partition(b"\ndata: ")[2])["turn_id"])
            names = _names(session_id, turn_id)
            self._tracer.start_span("tail", _under(root(turn_id)), start_time=began_ns, attributes=names).end()


def _names(session_id: UUID, turn_id: UUID) -> dict[str, Any]:
    return {"pulseline.session_id": str(session_id), "pulseline.turn_id": str(turn_id)}


def _counts(data: dict[str, Any]) -> dict[str, Any]:
    return {f"pulseline.{name}": data[name] for name in COUNTS if isinstance(data.get(name), str | int | float)}


def _nanoseconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1e9)


@contextmanager
def open_spans(settings: Settings) -> Iterator[Spans]:
    """Raises ValueError with a sentence where the extra is not installed."""
    if settings.traces is None:
        yield NoSpans()
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ValueError(NEEDS_EXTRA) from None
    ids = _ids()
    provider = TracerProvider(
        id_generator=ids, resource=Resource.create({"service.name": "pulseline"}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.traces)))
    try:
        yield TurnSpans(provider, ids)
    finally:
        flushing = Thread(target=provider.shutdown, daemon=True)  # by itself it waits for 30 s
        flushing.start()
        flushing.join(FLUSH_SECONDS)


def _ids() -> Any:
    """Ids at random, but for the spans that are made in `being`."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        given: tuple[int, int] | None = None

        @contextmanager
        def being(self, trace_id: int, span_id: int) -> Iterator[None]:
            self.given = trace_id, span_id
            try:
                yield
            finally:
                self.given = None

        def generate_trace_id(self) -> int:
            return self.given[0] if self.given else super().generate_trace_id()

        def generate_span_id(self) -> int:
            return self.given[1] if self.given else super().generate_span_id()

    return Ids()
