from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from functions import errors as http_errors
from functions.errors import CODES, ERRORS
from graph.eventlog.errors import DatabaseUnavailable, LogError, SessionBusy
from graph.failures import FAILURES
from tests.support.error_table import PAGE, page

NAMED_BY_THE_PLAN = {
    *("model_timeout", "model_unavailable", "model_rate_limited", "model_refused", "retrieval_failed", "graph_failed"),
    *("turn_timeout", "worker_lost", "session_busy", "rate_limited"),
}
SECRET = "canary-7f3a"


def test_the_documents_table_is_the_codes() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.support.error_table"


def test_every_failure_of_a_turn_is_in_the_table_with_its_words() -> None:
    assert {code: known[1:3] for code, known in ERRORS.items() if known.event} == FAILURES
    assert set(ERRORS) >= NAMED_BY_THE_PLAN
    assert set(CODES.values()) <= set(ERRORS)


def test_what_may_be_tried_again_is_what_the_page_tries_again() -> None:
    """The page goes by the status (`passing` in problem.ts) and by `session_busy`; a failed turn by `retryable`."""
    for code, known in ERRORS.items():
        if not known.event:
            assert known.retryable == (known.status == 429 or known.status >= 500 or code == "session_busy"), code


def test_every_sentence_is_for_a_person() -> None:
    for code, known in ERRORS.items():
        assert known.message[0].isupper(), code
        assert known.message.endswith("."), code
        assert "_" not in known.message.replace("last_seq", ""), code


async def _answer(error: Exception) -> httpx.Response:
    app = FastAPI()
    http_errors.install(app)
    app.add_middleware(http_errors.Unexpected)

    @app.get("/")
    async def fail() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/")


async def test_a_refusal_is_a_problem_with_its_code_and_says_when_to_come_back() -> None:
    busy = await _answer(SessionBusy())
    assert (busy.status_code, busy.json()["code"]) == (409, "session_busy")
    limited = await _answer(HTTPException(429, "Too many questions.", headers={"Retry-After": "7"}))
    assert (limited.status_code, limited.json()["code"], limited.headers["retry-after"]) == (429, "rate_limited", "7")
    away = await _answer(DatabaseUnavailable())
    assert (away.status_code, away.json()["code"], away.headers["retry-after"]) == (503, "database_unavailable", "2")


class Strange(LogError):
    """Nobody has a row for this."""

    code = "strange"


@pytest.mark.parametrize("error", [RuntimeError(SECRET), Strange(SECRET), DatabaseUnavailable(SECRET)])
async def test_nothing_of_an_error_that_was_not_foreseen_reaches_a_client(error: Any) -> None:
    answer = await _answer(error)
    assert answer.status_code in (500, 503)
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["code"] in ERRORS
