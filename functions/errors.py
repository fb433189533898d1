"""Errors → problem+json (RFC 9457): the one place that maps to HTTP statuses, and the table of all errors.

docs/errors.md is made from the table by `python -m tests.support.error_table`.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.contract import Problem
from functions.limits import RateLimited
from graph import measures
from graph.eventlog import errors
from graph.eventlog.errors import LogError
from graph.failures import FAILURES

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "2"
NAMED_ERRORS_MAX = 20  # of one request
WAIT = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
ASKS_AGAIN = "keeps the text so far, says this under it, and offers to ask again"
KEEPS_TEXT = "keeps the text so far and says this under it"
SENDS_AGAIN = "sends it again by itself, three times, then keeps the question and offers to send it again"
KEEPS_QUESTION = "keeps the question, says this under it, and offers to send it again"
SAYS_SO = "keeps the question and says this under it"


class Known(NamedTuple):
    """One error that a client may see. `event`: a turn's failure, an `error` event; `status` is then of the blocking
    POST /chat alone. `page`: what the page does."""

    status: int
    message: str
    retryable: bool
    page: str
    event: bool = False


def _turn(code: str, status: int) -> dict[str, Known]:
    message, retryable = FAILURES[code]
    return {code: Known(status, message, retryable, ASKS_AGAIN if retryable else KEEPS_TEXT, event=True)}


def _log(error: type[LogError], status: int, page: str, *, retryable: bool = False) -> dict[str, Known]:
    return {error.code: Known(status, str(error()), retryable, page)}


ERRORS: dict[str, Known] = {
    **_turn("model_timeout", 504),
    **_turn("model_unavailable", 502),
    **_turn("model_rate_limited", 503),
    **_turn("model_refused", 422),
    **_turn("retrieval_failed", 502),
    **_turn("graph_failed", 500),
    **_turn("turn_timeout", 504),
    **_turn("worker_lost", 500),
    **_log(errors.SessionBusy, 409, f"shows the answer under way; {KEEPS_QUESTION}", retryable=True),
    "rate_limited": Known(429, "Too many requests. Wait a little and try again.", True, SENDS_AGAIN),
    errors.DatabaseUnavailable.code: Known(
        503, "This cannot be done at the moment. Try again shortly.", True, SENDS_AGAIN
    ),
    "internal_error": Known(
        500, "Something went wrong here. Nothing of your session was lost; try again.", True, SENDS_AGAIN
    ),
    **_log(errors.SessionNotFound, 404, "says that this conversation is not here"),
    **_log(errors.NotTheLastTurn, 409, SAYS_SO),
    **_log(errors.NotInterrupted, 409, SAYS_SO),
    **_log(errors.TurnNotFound, 409, "reads the conversation anew"),
    **_log(errors.BadCursor, 422, "reads the conversation anew and follows it from there"),
    "invalid_request": Known(422, "What was sent is not right; the detail names the field.", False, SAYS_SO),
    "body_too_large": Known(413, "The body is too large.", False, SAYS_SO),
    "unsupported_media_type": Known(415, "The body must be JSON.", False, SAYS_SO),
    "unauthenticated": Known(401, "Sign in first: this needs a token that is valid here.", False, SAYS_SO),
    "issuer_unavailable": Known(503, "Your sign-in cannot be checked at the moment.", True, SENDS_AGAIN),
    "origin_refused": Known(403, "A page of another site may not do this.", False, SAYS_SO),
    "request_timeout": Known(408, "The body did not arrive in time.", False, SAYS_SO),
    "not_found": Known(404, "There is nothing at this address.", False, SAYS_SO),
    "method_not_allowed": Known(405, "This address knows no such method.", False, SAYS_SO),
}
STATUSES = {code: known.status for code, known in ERRORS.items()}
CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
}


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    measures.REFUSED.labels(code).inc()
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)
    more = {"Retry-After": RETRY_AFTER_SECONDS} if status in WAIT else {}
    return JSONResponse(body.model_dump(), status, {**more, **(headers or {})}, MEDIA_TYPE)


def refused(field: str, reason: str) -> RequestValidationError:
    """What was sent cannot be taken, though it has the right form."""
    return RequestValidationError([{"loc": ("body", *field.split(".")), "msg": reason, "type": "value_error"}])


def known_problem(code: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error of the table in the table's words."""
    return problem(ERRORS[code].status, code, ERRORS[code].message, headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(LogError, _log_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RateLimited, _limited)


async def _log_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LogError)
    known = ERRORS.get(error.code)
    return problem(known.status, error.code, known.message) if known else _unexpected(error)


async def _limited(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RateLimited)
    return problem(429, "rate_limited", error.detail, {"Retry-After": str(error.seconds)})


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Names each field and what is wrong with it; never repeats what was sent."""
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in e['loc'] if part != 'body') or 'body'}: {e['msg']}"
        for e in error.errors()[:NAMED_ERRORS_MAX]
    ]
    return problem(422, "invalid_request", "; ".join(found))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # what FastAPI says of a body that it cannot parse
        return problem(422, "invalid_request", "The body is not valid JSON in UTF-8.", error.headers)
    code = CODES.get(error.status_code, "http_error")
    return problem(error.status_code, code, str(error.detail), error.headers)


class Unexpected:
    """ASGI middleware: what nobody expected is told as a problem, within what adds the headers of every response.

    Starlette's own handler of Exception stands outside of all middleware. Where the response has begun, the connection
    is to be closed: that is the server's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise
            await _unexpected(error)(scope, receive, send)


def _unexpected(error: Exception) -> JSONResponse:
    logger.error("unexpected error", exc_info=error)
    return problem(500, "internal_error", ERRORS["internal_error"].message)
