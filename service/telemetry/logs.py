"""The log: one line a record on stderr, as text or as JSON."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any

ACCESS = logging.getLogger("service.access")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request_id, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hasattr(record, "request_id"):
            line["request_id"] = record.request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the request's id and the record's `fields` as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if hasattr(record, "request_id"):
            fields = {"request_id": record.request_id} | fields
        said = [f"{name}={_quoted(value)}" for name, value in fields.items()]
        return " ".join([super().formatMessage(record), *said])


def _quoted(value: object) -> str:
    # Strings are escaped as in JSON: a line break that a client sent must not start a new line of the log.
    if type(value) in (int, float):
        return repr(value)
    return encode_basestring_ascii(value) if type(value) is str else json.dumps(value, default=str)


def log_config(*, form: str, level: str) -> dict[str, Any]:
    """The configuration for `logging.config.dictConfig`; `ACCESS` takes the place of uvicorn's access log."""
    formatter = {"json": JsonFormatter, "text": TextFormatter}[form]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"default": {"()": formatter}},
        "filters": {"request_id": {"()": "service.telemetry.record.RequestIdFilter"}},
        "handlers": {
            "default": {
                "class": "service.telemetry.background.BackgroundHandler",
                "formatter": "default",
                "filters": ["request_id"],
            }
        },
        "root": {"handlers": ["default"], "level": "WARNING"},
        "loggers": {
            "uvicorn": {"handlers": ["default"], "level": level.upper(), "propagate": False},
            "service": {"handlers": ["default"], "level": level.upper(), "propagate": False},
        },
    }
