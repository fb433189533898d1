"""Event → SSE bytes: the only place. A frame is the same bytes from every replica."""

from graph.eventlog.events import Event

RETRY_MS = 500
PING = b"event: ping\ndata: {}\n\n"  # no id: the cursor stays where it is
OPENING = f"retry: {RETRY_MS}\n".encode() + PING  # one block: some parsers make an event of a block with only `retry`


def encode(event: Event) -> bytes:
    """`data` is one line of JSON as it was committed, so no text in it can forge a field or a frame."""
    return f"id: {event.seq}\nevent: {event.type}\ndata: {event.data}\n\n".encode()
