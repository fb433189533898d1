"""Tabs that are left open: a short turn, then a tail that follows the session and hears heartbeats only.

heartbeat_gap: between two pings.
"""

import time

import requests
from locust.runners import STATE_RUNNING, STATE_SPAWNING

from loadtests.scenarios.visitor import RESULTS, Visitor
from loadtests.sse import Parser

OPENING_SECONDS = 4.5
GOING = (STATE_SPAWNING, STATE_RUNNING)


class IdleTabs(Visitor):
    pace_seconds = 3600.0  # one tab each, to the run's end

    def first_due(self, now: float) -> float:
        return now + self.dice.random() * OPENING_SECONDS

    def chat(self, due: float) -> None:
        reading = self.ask(due)
        if reading is None:
            return
        self.read(reading)
        self.finish(reading, watched=False)
        try:
            with self.opened(reading, "", follow="session") as response:
                self._listen(response)
        except requests.RequestException as error:
            RESULTS.note("failed", f"{reading.session_id} an idle tail was lost: {type(error).__name__}")

    def _listen(self, response: requests.Response) -> None:
        """Until the run's end, which is looked for at each heartbeat."""
        parser, heard = Parser(), time.time()
        RESULTS.counts["idle tabs"] += 1
        for data in response.iter_content(None):
            for _ in parser.feed(data):
                now = time.time()
                RESULTS.add("heartbeat_gap_ms", 1000 * (now - heard))
                heard = now
            if self.environment.runner is None or self.environment.runner.state not in GOING:
                return
        RESULTS.note("failed", "an idle tail ended")
