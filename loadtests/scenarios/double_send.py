"""Everybody sends each question twice at once, to two replicas: it must be one turn, answered once."""

from uuid import uuid4

import gevent
from locust import task

from loadtests.scenarios.visitor import RESULTS, Visitor


class DoubleSend(Visitor):
    @task
    def chat(self) -> None:
        request_id = uuid4().hex
        self.session_id, self.asked = str(uuid4()), 1  # so that both are of one session
        sent = [gevent.spawn(self.ask, base, request_id=request_id) for base in (self.elsewhere(), "")]
        gevent.joinall(sent)
        readings = [greenlet.value for greenlet in sent if greenlet.value is not None]
        if len({reading.turn_id for reading in readings}) > 1:
            RESULTS.note("violations", f"{self.session_id} one question became two turns")
        if readings:
            self.read(readings[0])
            self.finish(readings[0])
