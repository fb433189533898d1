"""Beside people who chat, some who open many tails of their answer and then read nothing, or next to nothing.

The answers are long and the receive buffers small, so that a server that keeps what a reader does not take shows it
in its memory. See `loadtests/run.py`.
"""

import socket
from contextlib import ExitStack
from typing import Any

import gevent
from requests.adapters import HTTPAdapter

from loadtests.scenarios.steady_chat import SteadyChat
from loadtests.scenarios.visitor import RESULTS, Visitor

TAILS = 100
RECEIVE_BYTES = 4096
LONG_SECONDS = 12.0  # longer than an answer of that scenario


class _Narrow(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        named["socket_options"] = [(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)]
        super().init_poolmanager(*arguments, **named)


class Beside(SteadyChat):
    """Two of these for each who is slow."""

    weight = 2
    pace_seconds = LONG_SECONDS


class SlowClient(Visitor):
    pace_seconds = 2 * LONG_SECONDS

    def on_start(self) -> None:
        self.client.mount("http://", _Narrow())
        super().on_start()

    def first_due(self, now: float) -> float:
        return now

    def chat(self, due: float) -> None:
        there = self.elsewhere()
        reading = self.ask(due, there)
        if reading is None:
            return
        with ExitStack() as tails:
            for n in range(TAILS):
                response = tails.enter_context(self.opened(reading, there, follow="session"))
                if n % 2 and response.status_code == 200:
                    response.raw.read(64)
                RESULTS.counts["stalled tails"] += response.status_code == 200
            gevent.sleep(LONG_SECONDS)
        self.read(reading, there)
        self.finish(reading, watched=False)
