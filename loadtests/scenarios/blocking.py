"""What the stream is compared with: POST /chat, which is answered when the answer is whole."""

import time
from uuid import uuid4

from loadtests.scenarios.visitor import QUESTION, RESULTS, Visitor


class Blocking(Visitor):
    def chat(self, due: float) -> None:
        asked_at = min(time.time(), due)
        body = {"message": QUESTION, "request_id": uuid4().hex}
        reply = self.request("POST", "/chat", (200,), json=body, name="POST /chat")
        RESULTS.counts["turns"] += 1
        if reply is not None:
            RESULTS.counts["whole"] += 1
            RESULTS.add("blocking_ms", 1000 * (time.time() - asked_at))
