"""A replica is killed and started again while everybody chats; who kills it is not here. See `loadtests/run.py`.

interruption: the longest silence between the question, the tokens and the end of an answer.
"""

from itertools import pairwise

from loadtests.scenarios.visitor import RESULTS, Visitor


class ReplicaKill(Visitor):
    def chat(self, due: float) -> None:
        reading = self.ask(due)
        if reading is None:
            return
        self.read(reading)
        self.finish(reading, watched=False)
        RESULTS.counts["resets"] += reading.resets
        if reading.end is not None:
            times = [reading.asked_at, *reading.token_times, reading.ended_at]
            RESULTS.add("interruption_ms", max(1000 * (later - earlier) for earlier, later in pairwise(times)))
