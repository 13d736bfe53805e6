"""How a server's log lines look: as text for people, or one JSON object each for programs.

Of an unexpected error the lines have its kind and place, not its message, which may quote what was
asked.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from m3router.router.serve.errors import where
from m3router.router.serve.http.request_ids import request_id

ENVIRONMENT = "M3ROUTER_LOG"
"""Where a process tells those that it starts how to log."""


class LogFormat(StrEnum):
    """How log lines look.

    Attributes:
        TEXT: For people; folded on a terminal only.
        JSON: One object a line: time, level, logger, message, process and, of a request, its
            request_id; of a request's own line client, method, path, status and ms too.
    """

    TEXT = "text"
    JSON = "json"


def start_logging(format: LogFormat, level: int | None = None, *, times: bool = True) -> None:
    """Write this process' log lines to the standard error output.

    Args:
        format: How.
        level: Of the root logger; None leaves it.
        times: Whether lines of text have the time.
    """
    handler: logging.Handler
    if format is LogFormat.TEXT and sys.stderr.isatty():
        console = Console(stderr=True, highlight=False)
        handler = RichHandler(console=console, show_path=False, show_time=times)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Json() if format is LogFormat.JSON else _Text(times))
    handler.addFilter(_with_request)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler], force=True)
    if format is LogFormat.JSON:
        logging.captureWarnings(True)
        sys.excepthook = _uncaught
    os.environ[ENVIRONMENT] = f"{format} {logging.getLogger().level}"


def continue_logging() -> None:
    """Log as the process does that started this one."""
    told = os.environ.get(ENVIRONMENT, f"{LogFormat.TEXT} {logging.WARNING}")
    format, _, level = told.partition(" ")
    start_logging(LogFormat(format), int(level))


def _with_request(record: logging.LogRecord) -> bool:
    """Give a record the id of the request that it was written for."""
    if not hasattr(record, "request_id"):
        record.request_id = request_id()
    return True


def _place(record: logging.LogRecord) -> str:
    error = record.exc_info and record.exc_info[1]
    return where(error) if error else ""


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if told := getattr(record, "request_id", ""):
            line["request_id"] = told
        if place := _place(record):
            line["place"] = place
        return json.dumps(line | getattr(record, "fields", {}))


class _Text(logging.Formatter):
    def __init__(self, times: bool) -> None:
        super().__init__()
        self._times = times

    def format(self, record: logging.LogRecord) -> str:
        time = f"{self.formatTime(record)} " if self._times else ""
        parts = (record.getMessage(), getattr(record, "request_id", ""), _place(record))
        return f"{time}{record.levelname:<8} " + " ".join(part for part in parts if part)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("m3router").critical("the program broke down", exc_info=error)
