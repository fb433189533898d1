"""How a turn can fail: code, words for a person, whether trying again may help. Nothing of a provider's text is shown.

`functions/errors.py` adds the HTTP statuses and what the page does; docs/errors.md is the whole table.
"""

from typing import NamedTuple
from uuid import UUID

from graph.eventlog.events import Error, NewEvent, new_event


class Failure(NamedTuple):
    message: str
    retryable: bool


FAILURES: dict[str, Failure] = {
    "model_timeout": Failure("The language model did not answer in time. Try again.", True),
    "model_unavailable": Failure("The language model cannot be reached at the moment. Try again shortly.", True),
    "model_rate_limited": Failure("The language model is busy. Try again in a minute.", True),
    "model_refused": Failure("The language model declined to answer this. Try other words.", False),
    "retrieval_failed": Failure("The medical articles could not be searched. Try again.", True),
    "graph_failed": Failure("Something went wrong while the answer was written. Try again.", True),
    "turn_timeout": Failure("The answer took too long and was ended. Try a shorter question.", True),
    "worker_lost": Failure("The answer was interrupted several times and was given up. Try again.", True),
}


class ModelFailed(Exception):
    """A model's provider failed. `code` is one of FAILURES; what the provider said stays in its cause."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def error_event(turn_id: UUID, code: str, content: str) -> NewEvent:
    failure = FAILURES[code]
    return new_event(
        Error(turn_id=turn_id, code=code, message=failure.message, retryable=failure.retryable, content=content)
    )
