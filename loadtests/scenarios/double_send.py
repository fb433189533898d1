"""Everybody sends each question twice at once, to two replicas: it must be one turn, answered once."""

from uuid import uuid4

import gevent

from loadtests.scenarios.visitor import RESULTS, Visitor


class DoubleSend(Visitor):
    def chat(self, due: float) -> None:
        same = {"request_id": uuid4().hex, "session_id": str(uuid4())}
        sent = [gevent.spawn(self.ask, due, base, **same) for base in (self.elsewhere(), "")]
        gevent.joinall(sent)
        readings = [greenlet.value for greenlet in sent if greenlet.value is not None]
        if len({reading.turn_id for reading in readings}) > 1:
            RESULTS.note("violations", f"{same['session_id']} one question became two turns")
        if readings:
            self.read(readings[0])
            self.finish(readings[0])
