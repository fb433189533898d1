"""What the stream is compared with: POST /chat, which is answered when the answer is whole."""

import time
from uuid import uuid4

from locust import task

from loadtests.scenarios.visitor import QUESTION, RESULTS, Visitor


class Blocking(Visitor):
    @task
    def chat(self) -> None:
        asked_at = min(time.time(), self.due)
        body = {"message": QUESTION, "request_id": uuid4().hex}
        reply = self.request("POST", "/chat", (200,), json=body, name="POST /chat")
        RESULTS.counts["turns"] += 1
        if reply is not None:
            RESULTS.counts["whole"] += 1
            RESULTS.add("blocking_ms", 1000 * (time.time() - asked_at))
