"""Everybody loses the connection in mid-answer and comes back within the same second with the cursor.

resume_first: the new GET → its first frame; caught_up: → the last frame that had been stamped before the GET.
"""

import time

import gevent

from loadtests.scenarios.visitor import RESULTS, Visitor
from loadtests.sse import Reading

TOGETHER_SECONDS = 2.0  # everybody comes back when the clock is at a multiple of this
ASKING_SECONDS, BACK_AT_SECONDS = 10.0, 14.0  # of a crowd


class ResumeStorm(Visitor):
    hang_up_tokens = 40  # at most

    def chat(self, due: float) -> None:
        reading = self.ask(due)
        if reading is not None:
            self.lose(reading)
            self.finish(reading)

    def lose(self, reading: Reading, base: str = "") -> None:
        hang_up_after = self.dice.randint(1, self.hang_up_tokens)
        self.read(reading, base, until=lambda reading: len(reading.token_times) >= hang_up_after)
        if reading.end is not None:
            return
        gevent.sleep(self.comes_back_in())
        self.come_back(reading)

    def comes_back_in(self) -> float:
        return TOGETHER_SECONDS - time.time() % TOGETHER_SECONDS

    def come_back(self, reading: Reading) -> None:
        reading.resuming(time.time())
        self.read(reading, self.back_at())
        if reading.resumed_first is not None and reading.caught_up is not None:
            RESULTS.add("resume_first_ms", reading.resumed_first)
            RESULTS.add("caught_up_ms", reading.caught_up)

    def back_at(self) -> str:
        return ""


class OtherReplica(ResumeStorm):
    """Each asks at the first replica and comes back at the last, which runs no turns: see `loadtests/run.py`."""

    def chat(self, due: float) -> None:
        there = self.replicas[0] if self.replicas else ""
        reading = self.ask(due, there)
        if reading is not None:
            self.lose(reading, there)
            self.finish(reading)

    def come_back(self, reading: Reading) -> None:
        """What is said is timed at this replica alone."""
        reading.token_lags.clear()
        super().come_back(reading)

    def back_at(self) -> str:
        return self.replicas[-1] if self.replicas else ""


class ResumeCrowd(ResumeStorm):
    """All of them come back in the same instant, each to an answer of his own that is still being said.

    The answers must be slow: 60 tokens, one every 250 ms. See `loadtests/run.py`.
    """

    hang_up_tokens = 10
    pace_seconds = 3600.0  # one question each
    opened_at = 0.0

    def first_due(self, now: float) -> float:
        """Asked over ASKING_SECONDS, which begin with the first who comes."""
        ResumeCrowd.opened_at = ResumeCrowd.opened_at or now
        return now + self.dice.random() * ASKING_SECONDS

    def comes_back_in(self) -> float:
        return max(0.0, self.opened_at + BACK_AT_SECONDS - time.time())
