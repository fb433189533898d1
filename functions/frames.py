"""Event → SSE bytes: the only place. A frame is the same bytes from every replica."""

import orjson

from graph.eventlog.events import STREAM_EVENT, Event, StreamEvent
from graph.eventlog.hub import Frame

RETRY_MS = 500
IDLE_RETRY_MS = 5000  # where nobody answers, and a response may not wait until somebody does
PING = b"event: ping\ndata: {}\n\n"  # no id: the cursor stays where it is
RETRY = f"retry: {RETRY_MS}\n".encode()  # in one block with a ping: some parsers make an event of a block of its own
OPENING = RETRY + PING
IDLE = f"retry: {IDLE_RETRY_MS}\n".encode() + PING


def buffered_opening(silent_seconds: float) -> bytes:
    """Of a response that arrives only when it is whole: a client may have to wait so long before it hears of the next
    one, and nothing is wrong."""
    return RETRY + PING.replace(b"{}", orjson.dumps({"silent_seconds": silent_seconds}))


def decode(frame: Frame) -> StreamEvent:
    """What `encode` made a frame of."""
    _, kind, data, *_ = frame.data.decode().split("\n", 3)
    content = orjson.loads(data.removeprefix("data: "))
    return STREAM_EVENT.validate_python({**content, "type": kind.removeprefix("event: ")})


def encode(event: Event) -> bytes:
    """`data` is one line of JSON as it was committed, so no text in it can forge a field or a frame."""
    return f"id: {event.seq}\nevent: {event.type}\ndata: {event.data}\n\n".encode()
