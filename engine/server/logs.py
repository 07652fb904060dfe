"""
Where the log goes and what a line looks like: one JSON object a line on stderr, or text to read by eye.

In: what the application tells structlog, and what uvicorn, asyncio and Python's warnings tell `logging`. Out: lines of
one shape. A field is a number or a short text; bytes and arrays are never written, so that no picture is, whoever
passes one by mistake. Requests of probes are written at level ``debug`` alone: what changes is logged where it changes.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog

from .settings import Settings

__all__ = ["open_log"]

Fields = MutableMapping[str, Any]

PROBES = ("/v2/health/", "/metrics", "/ping")  # asked every few seconds
TEXT = 500  # characters of a field
STACK = 20_000  # characters of an exception with its stack
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def open_log(settings: Settings, stream: TextIO | None = None) -> None:
    """
    Send everything that is logged in this process to one place.

    Parameters
    ----------
    settings : Settings
        ``log_level`` and ``log_format``.
    stream : text file or None
        Where lines go; None: stderr.
    """
    stream = sys.stderr if stream is None else stream
    level = LEVELS[settings.log_level]
    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *([] if level == logging.DEBUG else [_without_probes]),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _bounded,
            structlog.processors.JSONRenderer(_line)
            if as_json
            else structlog.dev.ConsoleRenderer(colors=stream.isatty()),
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(max(level, logging.WARNING))  # what exporters and the like tell of their steps is theirs
    for name in ("camrt", "uvicorn"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


class _Forward(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one record."""
        fields: Fields = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, " ".join(record.getMessage().split()), **fields)


def _without_probes(logger: object, name: str, fields: Fields) -> Fields:
    """Drop the lines of probes, unless the server is at fault."""
    if fields.get("code") in (200, 503) and str(fields.get("route", "")).startswith(PROBES):
        raise structlog.DropEvent
    return fields


def _bounded(logger: object, name: str, fields: Fields) -> Fields:
    """Keep numbers and short texts; say of anything else only what it was."""
    for key, value in fields.items():
        if isinstance(value, str):
            longest = STACK if key == "exception" else TEXT
            fields[key] = value if len(value) <= longest else value[:longest] + "..."
        elif not isinstance(value, int | float | None):
            fields[key] = f"<{type(value).__name__}>"
    return fields


def _line(fields: Fields, **_: object) -> str:
    """Write one object; what orjson cannot, half a character or a very long number, the standard library can."""
    try:
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:
        return json.dumps(fields)
