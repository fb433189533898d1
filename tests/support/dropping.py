"""`pulseline`, but of every thousand frames one is never sent: what a load test must notice."""

import sys
from itertools import count

from functions import cli, frames, replica
from graph.eventlog.events import Event

EVERY = 1000
FIRST = 100  # a slow machine says less than a thousand in a short run
_numbers = count(1 + EVERY - FIRST)


def encode(event: Event) -> bytes:
    return frames.encode(event) if next(_numbers) % EVERY else b""


if __name__ == "__main__":
    replica.encode = encode  # type: ignore[attr-defined]
    sys.exit(cli.main())
