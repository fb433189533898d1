"""Everybody asks at a steady pace and reads each answer to its end.

What is measured, from the moment that the question was to be sent: accepted (the POST's answer), first event, first
stage, first token, whole (the last frame). token_lag: a token's making in the model → its arrival; stage_lag: a stage
event's stamp → its arrival; token_gap: between two frames with tokens.
"""

import math

from locust import task

from loadtests.scenarios.visitor import Visitor


class SteadyChat(Visitor):
    @task
    def chat(self) -> None:
        reading = self.ask()
        if reading is not None:
            self.read(reading)
            self.finish(reading)


class Burst(SteadyChat):
    """Everybody asks in the same instant, every pace."""

    pace_seconds = 8.0

    def first_due(self, now: float) -> float:
        return math.ceil(now / self.pace_seconds + 0.25) * self.pace_seconds
