"""What the process says to stderr: lines for a person, or JSON objects with the turn that they are about.

A line never holds what a person wrote. `about` names the session, turn and attempt of the task that speaks, so that
lines of libraries carry them too; a turn's trace has the turn's id (see `functions/tracing.py`).
"""

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from functions.settings import Settings

CHATTY = ("uvicorn", "httpx", "httpcore")
REPETITIVE = "psycopg.pool"  # each attempt to reach a database that is away
CAUSES_MAX = 5
OURS = ("functions", "graph")
ABOUT = ("session_id", "turn_id", "attempt")
about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


def speak_of(session_id: UUID, turn_id: UUID | None = None, attempt: int | None = None) -> None:
    """For the rest of this task, and of those that it begins."""
    names = {"session_id": str(session_id), "turn_id": turn_id and str(turn_id), "attempt": attempt}
    about.set({name: value for name, value in names.items() if value is not None})


class Json(logging.Formatter):
    """One object a line. Of an exception its type and where it was raised, not its text: that may quote a message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = kinds(record.exc_info[1])
            line["stack"] = places(record.exc_info[2])
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # lone surrogates
            return json.dumps(line, default=str)


class Text(logging.Formatter):
    """As `Json`, for a person's eyes."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        names = "".join(f" {name}={value}" for name, value in _about(record).items() if name != "trace_id")
        return super().format(record) + names

    def formatException(self, ei: Any) -> str:
        return "\n".join([*(f"  {place}" for place in places(ei[2])), f"  {kinds(ei[1])}"])


def _about(record: logging.LogRecord) -> dict[str, Any]:
    named = {**(about.get() or {}), **{name: record.__dict__[name] for name in ABOUT if name in record.__dict__}}
    return {**named, "trace_id": UUID(str(named["turn_id"])).hex} if "turn_id" in named else named


def kinds(error: BaseException | None) -> str:
    """The types of an error and of its causes, each with its HTTP status or SQLSTATE where it has one."""
    found: list[str] = []
    while error is not None and len(found) < CAUSES_MAX:
        status = getattr(error, "status_code", None) or getattr(error, "sqlstate", None)
        found.append(type(error).__name__ + (f"({status})" if isinstance(status, int | str) else ""))
        error = error.__cause__ or error.__context__
    return " from ".join(found)


def places(trace: Any) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def to_stderr(settings: Settings) -> None:
    """Below `info` only our own loggers speak: those of libraries would say what goes to a model."""
    level = logging.getLevelName(settings.log_level.upper())
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler])
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, level))
    logging.getLogger(REPETITIVE).setLevel(logging.ERROR)
