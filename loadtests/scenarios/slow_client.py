"""Beside people who chat, some who open ten tails of their answer and then read nothing, or next to nothing."""

from contextlib import ExitStack

import gevent
from locust import task

from loadtests.scenarios.visitor import RESULTS, Visitor

TAILS = 10


class SlowClient(Visitor):
    @task
    def stall(self) -> None:
        reading = self.ask()
        if reading is None:
            return
        with ExitStack() as tails:
            for n in range(TAILS):
                response = tails.enter_context(self.opened(reading, "", follow="session"))
                if n % 2 and response.status_code == 200:
                    response.raw.read(64)
                RESULTS.counts["stalled tails"] += response.status_code == 200
            gevent.sleep(self.pace_seconds)
        self.read(reading)
        self.finish(reading, watched=False)
