"""Streams a provider's model: its errors become ours, and what passes by itself is tried again while nothing was said.

Every provider brings error types of its own. LangChain's wrappers of 1.7 and newer share `ModelError`; for the others
the HTTP status tells, wherever in the chain of causes it stands.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from langchain_core import exceptions as known
from langchain_core.messages import BaseMessage

from graph.failures import ModelFailed

logger = logging.getLogger(__name__)
PAUSES_SECONDS = (0.25, 0.75)  # before the second and the third try, unless the provider says how long
LONGEST_WAIT_SECONDS = 10.0  # a provider that asks for more has said no
PASSING = frozenset({"model_unavailable", "model_rate_limited"})
REFUSALS = frozenset({"content_filter", "refusal", "SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "guardrail_intervened"})

TYPES: tuple[tuple[type[Exception], str], ...] = (
    (known.ModelRateLimitError, "model_rate_limited"),
    (known.ModelTimeoutError, "model_timeout"),
    (known.ModelInvalidRequestError, "graph_failed"),
    (known.ContextOverflowError, "graph_failed"),
    (known.ModelError, "model_unavailable"),
)
STATUSES = {408: "model_timeout", 429: "model_rate_limited", 504: "model_timeout"} | dict.fromkeys(
    (400, 413, 422),
    "graph_failed",  # the request was wrong, which other words of the person's do not mend
)
WORDS = {
    "insufficient_quota": "model_unavailable",  # a 429 that waiting does not mend
    "rate_limit_exceeded": "model_rate_limited",
    "content_filter": "model_refused",
    "content_policy_violation": "model_refused",
    "ThrottlingException": "model_rate_limited",
}


class Fault(NamedTuple):
    """What a provider's error means; `wait_seconds` is what it asks for."""

    code: str
    wait_seconds: float | None = None
    passing: bool = False


async def patient(open_stream: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
    """The stream's chunks. Raises ModelFailed; opens the stream again, a few times, only while no text has come."""
    for pause in (*PAUSES_SECONDS, None):
        said = False
        try:
            async for chunk in open_stream():
                _check_cancelled()
                said = said or bool(chunk.text)
                _check_finish(chunk)
                yield chunk
            if said:
                return
            raise ModelFailed("model_unavailable")  # it said nothing, and nothing of why
        except Exception as error:
            fault = read(error) or Fault("model_unavailable", passing=True)
            wait = fault.wait_seconds if fault.wait_seconds is not None else pause
            if said or pause is None or wait is None or not fault.passing or wait > LONGEST_WAIT_SECONDS:
                raise ModelFailed(fault.code) from error
            logger.warning("%s, again in %.2f s: %s", fault.code, wait, type(error).__name__)
        await asyncio.sleep(wait)


def _check_cancelled() -> None:
    """A cancel that a library has swallowed, as Python 3.11's wait_for does when a chunk comes in the same moment."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _check_finish(chunk: BaseMessage) -> None:
    metadata = chunk.response_metadata
    if REFUSALS & {metadata.get("finish_reason"), metadata.get("stop_reason"), metadata.get("stopReason")}:
        raise ModelFailed("model_refused")


def code_of(error: BaseException, stage: str | None) -> str:
    """The code for what a node raised while `stage` was under way."""
    ours = next((link for link in _chain(error) if isinstance(link, ModelFailed)), None)
    if ours is not None:
        return ours.code
    if stage == "retrieval":
        return "retrieval_failed"
    fault = read(error)  # another graph may call its model itself
    return fault.code if fault else "graph_failed"


def read(error: BaseException) -> Fault | None:
    """None when nothing in the chain of causes is of a provider."""
    for link in _chain(error):
        code = _code(link)
        if code is not None:
            quota = _word(link) == "insufficient_quota"
            return Fault(code, _wait_seconds(link), passing=code in PASSING and not quota and _may_pass(link))
    return None


def _code(error: BaseException) -> str | None:
    if isinstance(error, ModelFailed):
        return error.code
    if code := WORDS.get(_word(error)):
        return code
    status = _status(error)
    if status in STATUSES:
        return STATUSES[status]
    for kind, code in TYPES:
        if isinstance(error, kind):
            return code
    if status is not None:
        return "model_unavailable"
    name = type(error).__name__
    if type(error).__module__.startswith("psycopg"):
        return None
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return "model_timeout"
    if isinstance(error, ConnectionError) or any(part in name for part in ("Connect", "Protocol", "APIError")):
        return "model_unavailable"
    return None


def _may_pass(error: BaseException) -> bool:
    """Not so: a key that is wrong, a model that is not there."""
    status = _status(error)
    return status is None or status == 429 or status >= 500


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _status(error: BaseException) -> int | None:
    """Each SDK keeps it elsewhere: openai, anthropic, cohere, ollama; httpx; google; botocore."""
    response = getattr(error, "response", None)
    of_aws = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    places = (getattr(error, "status_code", None), getattr(response, "status_code", None), getattr(error, "code", None))
    return next((int(found) for found in (*places, of_aws) if isinstance(found, int) and 400 <= found < 600), None)


def _word(error: BaseException) -> str:
    """The provider's own name for the error."""
    response = getattr(error, "response", None)
    of_aws = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    found = of_aws or getattr(error, "code", None)
    return found if isinstance(found, str) else ""


def _wait_seconds(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    if milliseconds := _number(headers.get("retry-after-ms")):
        return milliseconds / 1000
    asked = headers.get("retry-after")
    return _number(asked) if _number(asked) is not None else _until(asked)


def _number(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None


def _until(date: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment and moment.tzinfo else None
