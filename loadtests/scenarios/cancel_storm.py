"""Everybody stops the answer: before its first token, in the middle, twice at once, at another replica. It must end as
the cancel's reply says: a stop that came too late is answered with `done`, any other with `cancelled`.

stop: the cancel's POST → the terminal frame at the reader.
"""

import time

import gevent

from loadtests.scenarios.visitor import RESULTS, Visitor
from loadtests.sse import Reading


class CancelStorm(Visitor):
    pace_seconds = 2.0

    def chat(self, due: float) -> None:
        reading = self.ask(due)
        if reading is not None:
            self.stop_after(reading, self.dice.choice((0.0, 0.02, 0.3, 0.8)))

    def stop_after(self, reading: Reading, seconds: float) -> None:
        stopped_at: list[float] = []
        told: list[str] = []

        def stop() -> None:
            gevent.sleep(seconds)
            stopped_at.append(time.time())
            path, body = f"/chat/stream/{reading.session_id}/cancel", {"turn_id": reading.turn_id}
            stops = [gevent.spawn(self.cancel, self.elsewhere() + path, body) for _ in range(self.dice.choice((1, 2)))]
            gevent.joinall(stops)
            told.extend(filter(None, (stop.value for stop in stops)))

        stopping = gevent.spawn(stop)
        self.read(reading)
        stopping.join()
        if any(status != reading.end_type for status in told):
            reading.wrong.append(f"the cancel was answered {', '.join(told)}, the turn ended {reading.end_type}")
        self.finish(reading, ("cancelled", "done"), watched=False)
        if reading.end_type == "cancelled":
            RESULTS.counts["cancelled"] += 1
            RESULTS.add("stop_ms", 1000 * (reading.ended_at - stopped_at[0]))

    def cancel(self, path: str, body: dict[str, str]) -> str | None:
        """The status that the reply gives the turn."""
        reply = self.request("POST", path, (200,), json=body, name="POST …/cancel")
        return None if reply is None else str(reply.json()["status"])
