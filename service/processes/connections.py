"""Bounds on connections that uvicorn leaves open: how many, and how long each may take for what."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import BusyError
from service.http.problems import problem_of, problem_response
from service.settings import Settings

MAX_HEADER_BYTES = 2**16
REFUSED_SECONDS = 2
"""How long a connection over the limit may take to hear that it is."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, and cuts off who sends headers, or reads answers, too slowly.

    Bodies are the application's to bound; only when it has answered without reading one to its end, the rest is
    read and dropped for `body_timeout_seconds` at most, so that a client that sends all before it reads gets the
    answer, and one that never ends does not stay.
    """

    settings: ClassVar[Settings]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_headers = True
        self._receiving = False
        self.asked = False
        """Whether a first request has come: a new connection is given the time for that when the server drains."""
        self._refused = len(self.connections) > self.settings.max_connections
        if self._refused:
            self.app = too_many_connections
        self._arm(REFUSED_SECONDS if self._refused else self.settings.header_timeout_seconds, _TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._resume()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers and self._receiving:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._cut_off(_TOO_LONG)

    def _should_upgrade(self) -> bool:
        # A WebSocket would go past the application that refuses.
        return not self._refused and super()._should_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = self._receiving = True
        self._header_bytes = 0
        if self.asked:  # the first one's time runs since the connection was made
            self._arm(self.settings.header_timeout_seconds, _TOO_SLOW)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self.asked = True
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving = False
        if not self._in_headers:
            self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._receiving and not self._in_headers:
            self._arm(self.settings.body_timeout_seconds, b"")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.settings.write_timeout_seconds, self._cut_off, b"")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resume()

    def _resume(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _arm(self, seconds: float, last_words: bytes) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._cut_off, last_words)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self, last_words: bytes) -> None:
        self._disarm()
        if last_words and not self.transport.is_closing():
            self.transport.write(last_words)
            self.transport.close()
        else:
            self.transport.abort()  # `close` would wait for what the client does not read


async def too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers in the application's place on a connection that is one too many."""
    problem = problem_of(BusyError("too many connections are open; try again later, or keep fewer open"))
    headers = {"Retry-After": "1", "Connection": "close"}
    await problem_response(problem, headers=headers)(scope, receive, send)


def bounded_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn with the bounds of the settings."""
    attributes: dict[str, Any] = {"settings": settings}
    return type("BoundedProtocol", (BoundedProtocol,), attributes)
