"""What the log says of an error: its types and places, never its text, which may quote a message."""

import asyncio
import json
import logging
import sys
from uuid import uuid4

import pytest

from functions import logs
from functions.logs import Json, Text

CANARY = "canary-91ab"


class ProviderError(Exception):
    status_code = 429


def _record(message: str = "turn failed", **extra: object) -> logging.LogRecord:
    try:
        try:
            raise ProviderError(CANARY)
        except ProviderError as error:
            raise ValueError(CANARY) from error
    except ValueError:
        record = logging.LogRecord("graph.run_turn", logging.ERROR, __file__, 1, message, (), sys.exc_info())
    record.__dict__.update(extra)
    return record


@pytest.mark.parametrize("formatter", [Json(), Text()], ids=["json", "text"])
def test_an_error_is_named_with_its_cause_and_place_but_not_quoted(formatter: logging.Formatter) -> None:
    said = formatter.format(_record())
    assert CANARY not in said
    assert "ValueError from ProviderError(429)" in said
    assert "test_logs.py" in said


@pytest.mark.parametrize("formatter", [Json(), Text()], ids=["json", "text"])
@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_of_what_a_library_says_only_the_place_is_repeated(formatter: logging.Formatter, level: int) -> None:
    for name in ("langchain_core.callbacks.manager", "asyncio", "py.warnings", "functions_of_others", "root"):
        record = logging.LogRecord(name, level, "/lib/some.py", 77, f"odd: {CANARY} %s", (CANARY,), None)
        said = formatter.format(record)
        assert CANARY not in said
        assert name in said
        assert "/lib/some.py:77" in said


@pytest.mark.parametrize("formatter", [Json(), Text()], ids=["json", "text"])
def test_that_a_task_failed_unheard_is_said(formatter: logging.Formatter) -> None:
    text = f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{CANARY}')>"
    said = formatter.format(logging.LogRecord("asyncio", logging.ERROR, __file__, 1, text, (), None))
    assert "Task exception was never retrieved" in said
    assert CANARY not in said


def test_what_calls_itself_a_status_but_is_a_text_is_not_repeated() -> None:
    error = ProviderError()
    error.status_code = CANARY  # type: ignore[assignment]
    assert logs.kinds(error) == "ProviderError"


def test_json_is_one_line_whatever_is_in_it() -> None:
    said = Json().format(logging.LogRecord("x", logging.INFO, __file__, 1, 'a\n"b"\x00 %s', ("\ud800",), None))
    assert "\n" not in said
    assert json.loads(said)["level"] == "info"


async def test_a_task_speaks_of_its_own_turn_and_so_do_those_it_begins() -> None:
    session_id, turn_id, other = uuid4(), uuid4(), uuid4()

    async def speak() -> dict[str, object]:
        line: dict[str, object] = json.loads(Json().format(_record()))
        return line

    async def run() -> dict[str, object]:
        logs.speak_of(session_id, turn_id, 2)
        return await asyncio.create_task(speak())

    line = await asyncio.create_task(run())
    assert (line["session_id"], line["turn_id"], line["attempt"]) == (str(session_id), str(turn_id), 2)
    assert line["trace_id"] == turn_id.hex
    assert "turn_id" not in await asyncio.create_task(speak())
    assert json.loads(Json().format(_record(turn_id=str(other))))["turn_id"] == str(other)
