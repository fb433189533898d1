"""Everybody asks at a steady pace and reads each answer to its end.

What is measured, from the moment that the question was due: accepted (the POST's answer), first event, first stage,
first token, whole (the last frame). token_lag: a token's making in the model → its arrival; stage_lag: a stage's
begin or end in the model → its frame's arrival, the longest of the answer; search: retrieval begins → generation
begins; token_gap: between two frames with tokens.
"""

import math
from typing import Any

from loadtests.scenarios.visitor import Visitor
from loadtests.sse import Reading

QUESTIONS = (
    "What are the symptoms of iron deficiency?",
    "How can I lower my blood pressure?",
    "What helps against hay fever?",
    "When should I see a doctor about back pain?",
    "How is type 2 diabetes diagnosed?",
    "What are the side effects of ibuprofen?",
    "How do I treat a migraine?",
    "What causes heartburn?",
)


class SteadyChat(Visitor):
    def chat(self, due: float) -> None:
        reading = self.ask(due)
        if reading is not None:
            self.read(reading)
            self.finish(reading)


class Burst(SteadyChat):
    """Everybody asks in the same instant, every pace."""

    pace_seconds = 8.0

    def first_due(self, now: float) -> float:
        return math.ceil(now / self.pace_seconds + 0.25) * self.pace_seconds


class Asker(SteadyChat):
    """Asks what the starter corpus knows, and thinks about the answer."""

    pace_seconds = 9.0

    def ask(self, due: float, base: str = "", **body: Any) -> Reading | None:
        return super().ask(due, base, message=self.dice.choice(QUESTIONS), **body)
