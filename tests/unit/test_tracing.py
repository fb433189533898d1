"""What a trace holds of a turn whose every text is a canary: its ids, names, counts and times."""

import socket
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from functions import tracing
from functions.settings import Settings
from functions.tracing import TurnSpans, _ids, open_spans, root
from graph.eventlog.events import Event, encode_data

CANARY = "canary-44c0"
STAMP = "2026-11-24T18:00:00.000Z"
SAID: dict[str, dict[str, Any]] = {
    "turn_started": {"message": CANARY, "request_id": CANARY},
    "routed": {"agent": "rag_agent"},
    "retrieval_start": {},
    "retrieval_complete": {"passages": 8, "duration_ms": 3},
    "reranking_start": {},
    "reranking_complete": {"sources": [{"id": CANARY, "title": CANARY, "text": CANARY}], "duration_ms": 2},
    "custom": {"data": CANARY, "content": CANARY, "message": CANARY},
    "generation_start": {"model": "extractive"},
    "token": {"content": CANARY},
    "reset": {"attempt": 2, "reason": "revised"},
}
ENDS: dict[str, dict[str, Any]] = {
    "done": {"message": {"id": "x", "content": CANARY}, "abstained": False, "duration_ms": 9},
    "error": {"code": "model_timeout", "message": CANARY, "retryable": True, "content": CANARY},
    "cancelled": {"reason": "user_initiated", "content": CANARY},
}


def test_a_collector_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2")  # then the exporter gives up by itself
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = set(threading.enumerate())
        with open_spans(Settings(traces=f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces")) as spans:
            spans.started(uuid4(), uuid4(), 1)
        waiting = set(threading.enumerate()) - before
        assert waiting, "the export must still be under way, or this looks at nothing"
    for thread in waiting:
        thread.join(20)


def test_no_text_of_a_turn_is_in_its_trace() -> None:
    exporter, ids = InMemorySpanExporter(), _ids()
    provider = TracerProvider(id_generator=ids)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = TurnSpans(provider, ids)
    turns: list[UUID] = []
    for kind, data in ENDS.items():
        session_id, turn_id, text = uuid4(), uuid4(), ""
        turns.append(turn_id)
        spans.started(session_id, turn_id, 1)
        for seq, (type_, said) in enumerate([*SAID.items(), (kind, data)], start=1):
            text = encode_data({**said, "turn_id": str(turn_id)}, STAMP)
            event = Event(session_id, seq, turn_id, 1, type_, text)
            spans.committed([event])
        spans.sent(session_id, b"id: 9\nevent: done\ndata: " + text.encode() + b"\n\n", 1)
    exported = exporter.get_finished_spans()
    assert CANARY not in "".join(span.to_json() for span in exported)
    assert {span.name for span in exported} >= {"start turn", "answer", "retrieval", "reranking", "tail"}
    for turn_id in turns:
        mine = [span for span in exported if span.context.trace_id == turn_id.int]
        assert [span.context.span_id for span in mine if span.name == "start turn"] == [root(turn_id).span_id]
        assert len([span for span in mine if span.name == "answer"]) == 1
    codes = [span.attributes and span.attributes.get("pulseline.code") for span in exported if span.name == "answer"]
    assert codes == [None, "model_timeout", None]
