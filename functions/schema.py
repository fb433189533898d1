"""Prints the contract as one JSON Schema document, from which the TypeScript types are generated."""

import sys

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from functions import contract
from graph.eventlog.events import STREAM_EVENT
from graph.eventlog.snapshot import Snapshot, StreamingSession

MODELS: list[type[BaseModel]] = [
    Snapshot,
    StreamingSession,
    contract.StartRequest,
    contract.Started,
    contract.CancellationRequest,
    contract.Cancellation,
    contract.SessionPage,
    contract.TitleChange,
    contract.Feedback,
    contract.Problem,
]


def document() -> dict[str, object]:
    _, bodies = models_json_schema([(model, "serialization") for model in MODELS], ref_template="#/$defs/{model}")
    events = STREAM_EVENT.json_schema(mode="serialization", ref_template="#/$defs/{model}")
    definitions = {**events.pop("$defs"), **bodies["$defs"], "StreamEvent": events}
    return {"title": "Pulseline", "$defs": dict(sorted(definitions.items()))}


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(document(), option=orjson.OPT_INDENT_2) + b"\n")
