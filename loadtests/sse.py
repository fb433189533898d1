"""What a reader of one turn is given, checked while it comes. Shares no code with the product, opens no socket.

Frames must have consecutive ids, the tokens must be the answer's text, there is one end and it is the last.
"""

import json
import math
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

ENDS = ("done", "cancelled", "error")
STAGES = ("retrieval_start", "retrieval_complete", "reranking_start", "reranking_complete", "generation_start")
BLOCK = re.compile(rb"(?:retry: \d+\n)?(?:id: (\d+)\n)?event: (\w+)\n(?:data: ([^\n]*)\n)?\n")
STAMPED = re.compile(r"(\d+):(\d+) ")  # the scripted model's tokens: number and microseconds since 1970
STAGED = re.compile(rf"({'|'.join(STAGES)}):(\d+) ")  # its stages, in the first of the sources that it found


class Frame(NamedTuple):
    """`seq` is None for a ping."""

    seq: int | None
    type: str
    data: bytes


class Parser:
    """Takes a response's bytes as they come."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises ValueError for what is no frame."""
        self._buffer += data
        while b"\n\n" in self._buffer:
            found = BLOCK.match(self._buffer)
            if found is None:
                raise ValueError(f"no frame: {self._buffer[:200]!r}")
            self._buffer = self._buffer[found.end() :]
            seq, kind, data = found.groups()
            yield Frame(int(seq) if seq else None, kind.decode(), data or b"")


class Reading:
    """One turn as one reader got it, over all its connections. Times are seconds since 1970; lags are milliseconds.

    `wrong` tells in words what a correct server can never give.
    """

    def __init__(self, session_id: str, turn_id: str, after: int, asked_at: float) -> None:
        self.session_id, self.turn_id, self.cursor, self.asked_at = session_id, turn_id, after, asked_at
        self.text = ""
        self.end: dict[str, Any] | None = None
        self.end_type = ""
        self.ended_at = 0.0
        self.first: dict[str, float] = {}  # type → when the first of it came, in the order in which they came
        self.token_lags: list[float] = []
        self.staged: dict[str, float] = {}  # stage → when the scripted model was there
        self.token_times: list[float] = []
        self.tokens = 0
        self.frames = 0
        self.bytes = 0
        self.resets = 0
        self.wrong: list[str] = []
        self.refused = False
        self.resumed_at: float | None = None
        self.resumed_first: float | None = None
        self.caught_up: float | None = None
        self._listens_since = -math.inf

    def resuming(self, now: float) -> None:
        """The reader comes back with its cursor, now; or tries again, which ends no wait that is under way.

        What is said before the first frame of its new connection has no lag: nobody listened. `caught_up` tells of it.
        """
        self._listens_since = math.inf
        if self.resumed_at is not None and self.resumed_first is None:
            return
        self.resumed_at, self.resumed_first, self.caught_up = now, None, None

    def receive(self, frame: Frame, now: float) -> None:
        self._listens_since = min(self._listens_since, now)
        if frame.seq is None:
            return
        if self.end is not None:
            self.wrong.append(f"repeated: {frame.type} {frame.seq} after the end")
        self._count(frame)
        data = json.loads(frame.data)
        self.first.setdefault(frame.type, now)
        if self.resumed_at is not None:
            self._resumed(data, now)
        if frame.type == "token":
            self._token(data["content"], now)
            return
        if frame.type == "reset":
            self.text, self.resets = "", self.resets + 1
        elif frame.type == "reranking_complete" and data["sources"]:
            found = STAGED.findall(data["sources"][0]["text"])
            self.staged = {stage: int(microseconds) / 1e6 for stage, microseconds in found}
        elif frame.type in ENDS:
            self._end(frame.type, data, now)

    def _count(self, frame: Frame) -> None:
        assert frame.seq is not None
        if frame.seq > self.cursor + 1:
            self.wrong.append(f"lost: {frame.seq} came where {self.cursor + 1} was due")
        elif frame.seq <= self.cursor:
            self.wrong.append(f"repeated: {frame.seq} came where {self.cursor + 1} was due")
        self.cursor = frame.seq
        self.frames += 1
        self.bytes += len(frame.data)

    def _resumed(self, data: dict[str, Any], now: float) -> None:
        """Caught up: what had been stamped before the reader came back has all come."""
        assert self.resumed_at is not None
        if self.resumed_first is None:
            self.resumed_first = 1000 * (now - self.resumed_at)
        if _stamp(data) <= self.resumed_at or self.caught_up is None:
            self.caught_up = 1000 * (now - self.resumed_at)

    def _token(self, content: str, now: float) -> None:
        self.text += content
        self.token_times.append(now)
        stamps = [int(microseconds) / 1e6 for _, microseconds in STAMPED.findall(content)]
        self.tokens += len(stamps) or 1
        self.token_lags += [1000 * (now - said) for said in stamps if said >= self._listens_since]

    def _end(self, kind: str, data: dict[str, Any], now: float) -> None:
        self.end_type, self.end, self.ended_at = kind, data, now
        content = data["message"]["content"] if kind == "done" else data["content"]
        if self.text != content:
            self.wrong.append(f"text differs: {len(self.text)} characters were read, the answer has {len(content)}")
        if [stage for stage in self.first if stage in STAGES] != [stage for stage in STAGES if stage in self.first]:
            self.wrong.append("out of order: a stage was shown before the one that leads to it")

    def since_asked(self, *types: str) -> float | None:
        """Milliseconds from the question to the first frame of these types."""
        times = [self.first[kind] for kind in types or self.first if kind in self.first]
        return 1000 * (min(times) - self.asked_at) if times else None

    def stage_lags(self) -> dict[str, float]:
        """Milliseconds from each stage in the scripted model to its frame, whether or not the reader was there by then.

        Generation counts from the end of reranking: it begins a step of the graph later.
        """
        began = {"generation_start": ended} if (ended := self.staged.get("reranking_complete")) else {}
        stages = (self.staged | began).items()
        return {stage: 1000 * (self.first[stage] - at) for stage, at in stages if stage in self.first}

    def gaps(self) -> list[float]:
        """Milliseconds between token frames."""
        return [1000 * (later - earlier) for earlier, later in pairwise(self.token_times)]


def _stamp(data: dict[str, Any]) -> float:
    return datetime.fromisoformat(data["timestamp"]).timestamp()
