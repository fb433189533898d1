"""Everybody loses the connection in mid-answer and comes back within the same second with the cursor.

resume_first: the new GET → its first frame; caught_up: → the last frame that had been stamped before the GET.
"""

import time

import gevent
from locust import task

from loadtests.scenarios.visitor import RESULTS, Visitor
from loadtests.sse import Reading

TOGETHER_SECONDS = 2.0  # everybody comes back when the clock is at a multiple of this


class ResumeStorm(Visitor):
    @task
    def chat(self) -> None:
        reading = self.ask()
        if reading is not None:
            self.lose(reading)
            self.finish(reading)

    def lose(self, reading: Reading) -> None:
        hang_up_after = self.dice.randint(1, 40)
        self.read(reading, until=lambda reading: len(reading.token_times) >= hang_up_after)
        if reading.end is not None:
            return
        gevent.sleep(TOGETHER_SECONDS - time.time() % TOGETHER_SECONDS)
        self.come_back(reading)

    def come_back(self, reading: Reading) -> None:
        reading.resuming(time.time())
        self.read(reading, self.back_at())
        if reading.resumed_first is not None and reading.caught_up is not None:
            RESULTS.add("resume_first_ms", reading.resumed_first)
            RESULTS.add("caught_up_ms", reading.caught_up)

    def back_at(self) -> str:
        return ""


class OtherReplica(ResumeStorm):
    """Each comes back at a replica of his own choice, mostly not the one that answers him."""

    def back_at(self) -> str:
        return self.elsewhere()
