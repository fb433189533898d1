"""Somebody who asks and reads, as the page does: a POST that is answered at once, then a tail that is resumed.

Locust's FastHttpUser waits for 1,024 bytes before it gives any, so this is an HttpUser that splits the bytes itself.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import gevent
import requests
from locust import HttpUser, task

from loadtests.limits import good_turn
from loadtests.results import Results
from loadtests.sse import Parser, Reading

RESULTS = Results()  # of this process
QUESTION = "What are the symptoms of iron deficiency?"
TIMEOUT_SECONDS = (10, 15)  # to connect, and of silence: three heartbeats missed
COME_BACK_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
TURNS_A_SESSION = 3
SNAPSHOT_SHARE = 0.1
AWAY = (502, 503, 504)
GOOD_TURN = good_turn()


class Visitor(HttpUser):
    """Asks every `pace_seconds`, whatever became of the question before: a slow server is asked as often as a fast one.

    What a question's `chat` measures counts from when it was due. The first of each person falls at random within the
    first pace: arrivals are spread evenly. A question goes into a conversation of which no answer is under way.
    """

    abstract = True
    pace_seconds = 4.5

    def on_start(self) -> None:
        self.dice = random.Random()
        self.idle: list[str] = []  # conversations that may go on
        self.asked: Counter[str] = Counter()  # by conversation
        self.cursors: dict[str, int] = {}  # of conversations that may go on
        self.going: list[gevent.Greenlet] = []
        self.replicas = [url for url in (self.environment.parsed_options.replicas or "").split(",") if url]
        self.client.trust_env = False
        self.request("GET", "/sessions", (200,), name="owner")
        self.due = self.first_due(time.time())
        gevent.sleep(self.due - time.time())

    def on_stop(self) -> None:
        gevent.joinall(self.going)

    @task
    def arrive(self) -> None:
        self.going = [*(greenlet for greenlet in self.going if not greenlet.dead), gevent.spawn(self._chat, self.due)]

    def _chat(self, due: float) -> None:
        try:
            self.chat(due)
        except Exception as error:
            self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)

    def chat(self, due: float) -> None:
        """One question, which was due then."""
        raise NotImplementedError

    def first_due(self, now: float) -> float:
        return now + self.dice.random() * self.pace_seconds

    def wait_time(self) -> float:
        self.due += self.pace_seconds
        return max(0.0, self.due - time.time())

    def elsewhere(self) -> str:
        """Another replica than the one a balancer would choose; where only one address is known, that."""
        return self.dice.choice(self.replicas) if self.replicas else ""

    def ask(self, due: float, base: str = "", **body: Any) -> Reading | None:
        """Starts a turn, again with the same request_id while nobody answers. None: it was refused."""
        if "session_id" not in body:
            body["session_id"] = self.idle.pop() if self.idle else str(uuid4())
        self.asked[body["session_id"]] += 1
        asked_at = min(time.time(), due)
        body = {"message": QUESTION, "request_id": uuid4().hex, **body}
        headers = {"Prefer": "respond-async"}
        reply = self.request(
            "POST", f"{base}/chat/stream", (202,), json=body, headers=headers, name="POST /chat/stream"
        )
        if reply is None:
            RESULTS.counts["turns"] += 1
            RESULTS.counts["watched"] += 1
            return None
        RESULTS.add("accepted_ms", 1000 * (time.time() - asked_at))
        said = reply.json()
        reading = Reading(said["session_id"], said["turn_id"], said["after"], asked_at)
        heard = self.cursors.pop(reading.session_id, reading.cursor)
        if reading.cursor != heard:
            reading.wrong.append(
                f"out of order: a turn begins after {reading.cursor}, the one before ended with {heard}"
            )
        return reading

    def read(self, reading: Reading, base: str = "", until: Callable[[Reading], bool] = lambda reading: False) -> None:
        """Until the server closes after the end, coming back by the cursor when the connection is lost before that; or
        up to `until`, which hangs up."""
        deadline = time.time() + PATIENCE_SECONDS
        while time.time() < deadline:
            try:
                for _ in self.frames(reading, base):
                    if until(reading) or time.time() > deadline:
                        return
            except requests.RequestException:
                pass
            if reading.refused or reading.end is not None:
                return
            RESULTS.counts["reconnects"] += 1
            gevent.sleep(COME_BACK_SECONDS)
            reading.resuming(time.time())

    def frames(self, reading: Reading, base: str) -> Iterator[None]:
        """One connection, closed when it is left."""
        with self.opened(reading, base) as response:
            if response.status_code == 200:
                parser = Parser()
                for data in response.iter_content(None):
                    now = time.time()
                    for frame in parser.feed(data):
                        reading.receive(frame, now)
                    yield
            elif response.status_code not in AWAY:
                reading.refused = True
                reading.wrong.append(f"lost: GET after {reading.cursor} was answered {response.status_code}")

    @contextmanager
    def opened(self, reading: Reading, base: str, **parameters: str) -> Iterator[requests.Response]:
        headers = {"Last-Event-ID": str(reading.cursor)}
        response = self.client.get(
            f"{base}/chat/stream/{reading.session_id}",
            params=parameters,
            headers=headers,
            stream=True,
            timeout=TIMEOUT_SECONDS,
            name="GET /chat/stream (headers)",
        )
        try:
            if response.status_code == 0:
                raise requests.ConnectionError(response.reason)
            yield response
        finally:
            response.close()

    def request(self, method: str, path: str, well: tuple[int, ...], **arguments: Any) -> requests.Response | None:
        """Sent again while nobody answers; None when it was refused."""
        deadline = time.time() + PATIENCE_SECONDS
        while time.time() < deadline:
            response = self.client.request(method, path, timeout=TIMEOUT_SECONDS, **arguments)
            if response.status_code in well:
                return response
            if response.status_code not in (0, *AWAY):
                RESULTS.note("failed", f"{method} {path} was answered {response.status_code}: {response.text[:200]}")
                return None
            RESULTS.counts["resent"] += 1
            gevent.sleep(COME_BACK_SECONDS)
        RESULTS.note("failed", f"{method} {path}: nobody answered for {PATIENCE_SECONDS:.0f} s")
        return None

    def finish(self, reading: Reading, ends: tuple[str, ...] = ("done",), watched: bool = True) -> None:
        """Judges the turn and keeps what it measured; `watched`: by a reader whose times count.

        Turns are counted here: at a run's end Locust may kill a user who has just begun to ask.
        """
        RESULTS.counts["turns"] += 1
        RESULTS.counts["watched"] += watched
        for sentence in reading.wrong:
            RESULTS.note("violations", f"{reading.session_id} {sentence}")
        RESULTS.counts["read_ms"] += round(1000 * ((reading.ended_at or time.time()) - reading.asked_at))
        if reading.end is not None and self.asked[reading.session_id] < TURNS_A_SESSION:
            self.idle.append(reading.session_id)
            self.cursors[reading.session_id] = reading.cursor
        if reading.end_type not in ends:
            RESULTS.note("failed", f"{reading.session_id} ended with {reading.end_type or 'nothing'}: {reading.end}")
            return
        RESULTS.counts["whole"] += not reading.wrong
        RESULTS.counts["tokens"] += reading.tokens
        RESULTS.counts["frames"] += reading.frames
        if watched:
            self._keep(reading)
        if reading.end_type == "done" and self.dice.random() < SNAPSHOT_SHARE:
            self._compare_with_snapshot(reading)

    def _keep(self, reading: Reading) -> None:
        for metric, types in (
            ("first_event_ms", ()),
            ("first_stage_ms", ("routed", "retrieval_start")),
            ("first_token_ms", ("token",)),
        ):
            found = reading.since_asked(*types)
            if found is not None:
                RESULTS.add(metric, found)
                self._show(metric, found)
        begun, searched = reading.first.get("retrieval_start"), reading.first.get("generation_start")
        if begun is not None and searched is not None:
            RESULTS.add("search_ms", 1000 * (searched - begun))
        gaps, whole = reading.gaps(), 1000 * (reading.ended_at - reading.asked_at)
        for stage, lag in reading.stage_lags().items():
            RESULTS.add(f"{stage}_lag_ms", lag)
        RESULTS.add("stage_lag_ms", *sorted(reading.stage_lags().values())[-1:])
        RESULTS.add("token_lag_ms", *reading.token_lags)
        RESULTS.add("token_gap_ms", *gaps)
        RESULTS.add("whole_ms", whole)
        self._show("whole_ms", whole, reading.bytes)
        first = reading.since_asked("token")
        if first is not None and first <= GOOD_TURN["first_token_ms"] and max(gaps, default=0) <= GOOD_TURN["gap_ms"]:
            RESULTS.counts["good"] += 1

    def _show(self, name: str, milliseconds: float, length: int = 0) -> None:
        """In Locust's own tables and charts."""
        self.environment.events.request.fire(
            request_type="SSE",
            name=name,
            response_time=milliseconds,
            response_length=length,
            exception=None,
            context={},
        )

    def _compare_with_snapshot(self, reading: Reading) -> None:
        reply = self.request("GET", f"/sessions/{reading.session_id}", (200,), name="GET /sessions/{id}")
        if reply is None:
            return
        answers = [m["content"] for m in reply.json()["messages"] if (m["turn_id"], m["role"]) == _answer(reading)]
        if answers != [reading.text]:
            RESULTS.note("violations", f"{reading.session_id} text differs from the snapshot's")


def _answer(reading: Reading) -> tuple[str, str]:
    return reading.turn_id, "assistant"
