"""What is known of the request at work: its id, its API key, and what its shots took."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from service.auth import Key

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+/=-]{0,127}")


@dataclass(eq=False)
class RequestRecord:
    """One request, filled in while it is answered."""

    id: str
    key: Key | None = None
    shots: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    second_seconds: float | None = None
    """Of pairs: how long second opinions were waited for."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def times(self) -> dict[str, float]:
        """What is logged of it: milliseconds."""
        parts = {"queue_ms": self.queue_seconds, "compute_ms": self.compute_seconds, "second_ms": self.second_seconds}
        parts["total_ms"] = time.perf_counter() - self.started
        return {name: round(seconds * 1e3, 3) for name, seconds in parts.items() if seconds is not None}

    def decoded(self, *, shots: int, queue_seconds: float, compute_seconds: float) -> None:
        """Adds shots that were decoded; a request may decode several times."""
        self.shots += shots
        self.queue_seconds += queue_seconds
        self.compute_seconds += compute_seconds


_current: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


def current_record() -> RequestRecord | None:
    """The request that this task works for."""
    return _current.get()


@contextmanager
def recording(wanted_id: str) -> Iterator[RequestRecord]:
    """Makes the record of the request at work, with the wanted id if that is safe to log."""
    record = RequestRecord(wanted_id if _SANE_ID.fullmatch(wanted_id) else os.urandom(16).hex())
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)


class RequestIdFilter(logging.Filter):
    """Adds the request's id to every log record made while it is answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = current_record()
        if request is not None and not hasattr(record, "request_id"):
            record.request_id = request.id
        return True
