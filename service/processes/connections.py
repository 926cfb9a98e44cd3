"""Bounds on connections that uvicorn leaves open: how many, and how long each may take for what."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.errors import BusyError
from service.http.problems import problem_of, problem_response
from service.settings import Settings
from service.telemetry.logs import log_config

BACKLOG = 2048
MAX_HEADER_BYTES = 2**16
REFUSED_SECONDS = 2
"""How long a connection over the limit may take to receive its answer."""

_HEADERS_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration for an application, and the settings in which the protocols below find their bounds."""

    def __init__(self, app: FastAPI, settings: Settings, **options: Any) -> None:
        self.settings = settings
        super().__init__(
            app,
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_max_size=settings.max_stream_message_bytes,
            ws_per_message_deflate=False,  # messages are too short to gain anything by compression
            access_log=False,
            log_config=log_config(form=settings.log_format, level=settings.log_level),
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
            backlog=BACKLOG,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(map(str, settings.trusted_proxies)),
            **options,
        )


class _CutsOffSlowReaders(asyncio.Protocol):
    """Aborts a connection whose client does not read: to close it in order would wait for the client for ever."""

    config: uvicorn.Config
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _write_timer: asyncio.TimerHandle | None = None

    @property
    def bounds(self) -> Settings:
        """The bounds of this server's connections."""
        assert isinstance(self.config, BoundedConfig)
        return self.config.settings

    def write_seconds(self) -> float:
        """How long a client may leave unread what was sent to it."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds(), self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_write_timer()
        super().connection_lost(exc)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class WebSocketProtocol(_CutsOffSlowReaders, WebSocketsSansIOProtocol):
    """uvicorn's WebSockets with a bound on slow readers."""

    def write_seconds(self) -> float:
        # The application gives up after half of this time, and then still sends the reason.
        return 2 * self.bounds.stream_send_seconds


class HttpProtocol(_CutsOffSlowReaders, HttpToolsProtocol):
    """uvicorn's HTTP/1.1 by httptools, but it cuts off clients that send headers, or read answers, too slowly.

    The application bounds bodies itself. When it has answered without reading a body to its end, the rest is read and
    dropped for at most `body_timeout_seconds`: a client that sends everything before it reads gets its answer, and one
    that never stops sending is cut off.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        settings = self.bounds
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_headers = True
        self._receiving = False
        self.asked = False
        """Whether a first request has come: a new connection is given the time for that when the server drains."""
        self._refused = len(self.connections) > settings.max_connections
        if self._refused:
            self.app = too_many_connections
        self._start_timer(REFUSED_SECONDS if self._refused else settings.header_timeout_seconds, _TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def write_seconds(self) -> float:
        return self.bounds.write_timeout_seconds

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers and self._receiving:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._cut_off(_HEADERS_TOO_LONG)

    def _should_upgrade(self) -> bool:
        # A WebSocket would go past the application that refuses.
        return not self._refused and super()._should_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = self._receiving = True
        self._header_bytes = 0
        if self.asked:  # the first one's time runs since the connection was made
            self._start_timer(self.bounds.header_timeout_seconds, _TOO_SLOW)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self.asked = True
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving = False
        if not self._in_headers:
            self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._receiving and not self._in_headers:
            self._start_timer(self.bounds.body_timeout_seconds, b"")

    def _start_timer(self, seconds: float, last_words: bytes) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._cut_off, last_words)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self, last_words: bytes) -> None:
        self._stop_timer()
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
