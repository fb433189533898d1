"""What the process says to stderr: lines for a person, or JSON objects with the turn that they are about.

A line never holds what a person wrote. What a library says may quote it: only the place where it was said is repeated.
Warnings and errors that nobody caught go the same way. `about` names the session, turn and attempt of the task that
speaks, so that lines of libraries carry them too; a turn's trace has the turn's id (see `functions/tracing.py`).
"""

import json
import logging
import sys
import threading
import traceback
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO
from uuid import UUID

import orjson

from functions.settings import Settings

logger = logging.getLogger(__name__)
CHATTY = ("uvicorn", "httpx", "httpcore")
REPETITIVE = "psycopg.pool"  # each attempt to reach a database that is away
CAUSES_MAX = 5
STATUS_CHARACTERS = 5  # what is longer is no status, whoever calls it one
OURS = ("functions", "graph")
UNHEARD = ("Task exception was never retrieved", "Future exception was never retrieved")  # asyncio's words, not a text
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
            "message": said(record),
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

    def format(self, record: logging.LogRecord) -> str:
        names = "".join(f" {name}={value}" for name, value in _about(record).items() if name != "trace_id")
        lines = [f"{self.formatTime(record)} {record.levelname} {record.name} {said(record)}{names}"]
        if record.exc_info and record.exc_info[0] is not None:
            lines += [f"  {place}" for place in (*places(record.exc_info[2]), kinds(record.exc_info[1]))]
        return "\n".join(lines)


def said(record: logging.LogRecord) -> str:
    """Our own words; a library's only where they are known to be without a text of somebody's."""
    if record.name.partition(".")[0] in OURS:
        return record.getMessage()
    words = next((words for words in UNHEARD if str(record.msg).startswith(words)), "")
    return f"{words} at {record.pathname}:{record.lineno}".lstrip()


def _about(record: logging.LogRecord) -> dict[str, Any]:
    named = {**(about.get() or {}), **{name: record.__dict__[name] for name in ABOUT if name in record.__dict__}}
    return {**named, "trace_id": UUID(str(named["turn_id"])).hex} if "turn_id" in named else named


def kinds(error: BaseException | None) -> str:
    """The types of an error and of its causes, each with its HTTP status or SQLSTATE where it has one."""
    found: list[str] = []
    while error is not None and len(found) < CAUSES_MAX:
        status = getattr(error, "status_code", None) or getattr(error, "sqlstate", None)
        short = isinstance(status, int | str) and len(str(status)) <= STATUS_CHARACTERS
        found.append(type(error).__name__ + (f"({status})" if short else ""))
        error = error.__cause__ or error.__context__
    return " from ".join(found)


def places(trace: Any) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def to_stderr(settings: Settings) -> None:
    """Below `info` only our own loggers speak: those of libraries would say what goes to a model."""
    level = logging.getLevelName(settings.log_level.upper())
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, level))
    logging.getLogger(REPETITIVE).setLevel(logging.ERROR)
    warnings.showwarning = _warned
    sys.excepthook = _ended
    sys.unraisablehook = lambda dropped: _error(
        "an error in a destructor or a callback", dropped.exc_value, dropped.exc_traceback
    )
    threading.excepthook = lambda ended: _error("a thread ended with an error", ended.exc_value, ended.exc_traceback)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logger.warning("%s at %s:%d", category.__name__, filename, lineno)


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _error("the process ends with an error", error, trace)


def _error(what: str, error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None:
        logger.error(what, exc_info=(type(error), error, trace))
