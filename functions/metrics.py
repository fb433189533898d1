"""GET /metrics, for Prometheus."""

import hmac
import re
import time
from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from functions.errors import known_problem
from functions.replica import Replica, Serving
from graph import measures
from graph.eventlog.hub import Frame

STAMP = re.compile(rb'"timestamp": ?"([^"]+)"')  # no text can hold this: a quote in it is escaped
TIMED_EVERY = 8
router = APIRouter()


@router.get("/metrics", response_class=Response, responses={401: {"description": "METRICS_TOKEN is set, and needed"}})
async def metrics(request: Request, replica: Serving) -> Response:
    token = replica.settings.metrics_token
    given = request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return known_problem("unauthenticated", {"WWW-Authenticate": 'Bearer realm="metrics"'})
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def watch(replica: Replica) -> None:
    """From now on the gauges tell of this replica."""
    measures.TAILS.set_function(lambda: replica.limits.tails)
    measures.POOL_WAITING.set_function(lambda: replica.log.pool.get_stats().get("requests_waiting", 0))


class Delivery:
    """Times what one response sends: its first news and then one in TIMED_EVERY, for all of them took a thirtieth of
    the server's time. What is older than the response was no news when it was asked for."""

    def __init__(self) -> None:
        self._opened_at = time.time()
        self._sent = 0

    def sent(self, frames: Sequence[Frame]) -> None:
        """Right after; the newest frame speaks for all that went with it."""
        if not frames:
            return
        if self._sent % TIMED_EVERY == 0:
            found = STAMP.search(frames[-1].data)
            stamped_at = datetime.fromisoformat(found[1].decode()).timestamp() if found is not None else 0.0
            if stamped_at < self._opened_at:
                return
            measures.DELIVERY_LAG.observe(max(0.0, time.time() - stamped_at))
        self._sent += 1
