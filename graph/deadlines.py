"""How long a turn may take, and the one timer that watches it."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple


class Deadlines(NamedTuple):
    """In seconds: to the model's first token, between tokens, for one attempt at the turn.

    Waiting in the queue, or for a server that is down, does not count: nobody answers then.
    """

    first_token: float = 30
    token: float = 30
    turn: float = 120


class Clock:
    """`on_expired` is called once, when a deadline is missed; `expired` is then its code."""

    def __init__(self, on_expired: Callable[[], object], turn_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_expired = on_expired
        self._turn_ends = self._loop.time() + turn_seconds
        self._next = self._turn_ends
        self.expired: str | None = None
        self._timer = self._loop.call_at(self._next, self._look)

    def wait_for(self, seconds: float) -> None:
        """From now the model has this long to say something."""
        self._next = min(self._loop.time() + seconds, self._turn_ends)
        if self._next < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._next, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now < self._next:  # it said something since: a timer is moved only when it must ring earlier
            self._timer = self._loop.call_at(self._next, self._look)
            return
        self.expired = "turn_timeout" if now >= self._turn_ends else "model_timeout"
        self._on_expired()
