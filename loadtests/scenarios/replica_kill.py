"""A replica is killed and started again while everybody chats; who kills it is not here. See `loadtests/run.py`.

interruption: the longest silence between two frames of an answer.
"""

from itertools import pairwise

from locust import task

from loadtests.scenarios.visitor import RESULTS, Visitor


class ReplicaKill(Visitor):
    @task
    def chat(self) -> None:
        reading = self.ask()
        if reading is None:
            return
        self.read(reading)
        self.finish(reading, ("done", "error"), watched=False)
        RESULTS.counts["resets"] += reading.resets
        times = [reading.asked_at, *reading.token_times]
        RESULTS.add(
            "interruption_ms", max(1000 * (later - earlier) for earlier, later in pairwise([*times, times[-1]]))
        )
