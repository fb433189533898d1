"""Turns that must fail: they are sent to a replica whose deadline for a turn is shorter than its answers.

error: the deadline → the error's frame at the reader.
"""

from loadtests.scenarios.visitor import RESULTS, Visitor

DEADLINE_SECONDS = 4.0  # PULSELINE_TURN_TIMEOUT_SECONDS of that replica; as long as others' answers


class Errors(Visitor):
    def chat(self, due: float) -> None:
        reading = self.ask(due)
        if reading is None:
            return
        self.read(reading)
        self.finish(reading, ("error",), watched=False)
        found = reading.since_asked("error")
        if found is not None:
            RESULTS.add("error_ms", found - 1000 * DEADLINE_SECONDS)
