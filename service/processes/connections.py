"""Bounds on connections that uvicorn leaves open: how many there are, how long each may take, and how much it may send.

The bounds are few, so that no input can find a way between them:

- What comes is read in small pieces (`Pieces`), so that no connection has the event loop for long, and one whose work
  is not done is not read from.
- Whenever a connection waits for its client there is a time by which the client has to act (`Deadlines`). The server
  looks at all of them ten times a second.
- What is sent beside bodies and messages, such as headers, trailers, the sizes of chunks, and empty frames, has a
  budget (`http1`, `websocket`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from service.settings import Settings
from service.telemetry.logs import log_config

SWEEP_SECONDS = 0.1
"""Time between two looks at what is late."""
_DROP = struct.pack("ii", 1, 0)
PIECE_BYTES = 2**10
"""What is read from a connection at once: 57 requests or 170 frames at most, which take a millisecond or two."""
MAX_PIECE_BYTES = 2**16
"""The same of a body of known length, which need not be looked through."""


def last_words(status: bytes) -> bytes:
    """An answer without a body, after which the connection is closed."""
    return b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


BAD_REQUEST = last_words(b"400 Bad Request")


class Deadlines(asyncio.Protocol):
    """A connection that has to be somewhere by a time, whatever it does."""

    config: uvicorn.Config
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    due = inf
    """When the client has to have sent what is waited for."""
    _unread_due = inf
    """When the client has to have read what was sent to it."""

    @property
    def bounds(self) -> Settings:
        """The bounds of this server's connections."""
        assert isinstance(self.config, BoundedConfig)
        return self.config.settings

    def write_seconds(self) -> float:
        """How long a client may leave unread what was sent to it."""
        raise NotImplementedError

    def piece_bytes(self) -> int:
        """How much may come at once."""
        return PIECE_BYTES

    def late(self) -> None:
        """Ends the connection, whose client did not send in time what it had to."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """Ends the connection at once. What the client has not read is dropped, which the system would keep for it."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Ends the connection if it is late."""
        if self._unread_due == inf and self.transport.is_closing():  # it waits for the client to read the rest
            self._unread_due = now + self.write_seconds()
        if now >= self._unread_due:
            self.cut_off()
        elif now >= self.due:
            self.due = inf
            self.late()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_due = self.loop.time() + self.write_seconds()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_due = inf


class Pieces(asyncio.BufferedProtocol):
    """Hands what comes to one of uvicorn's protocols in pieces.

    A transport reads what a connection has, up to 256 KiB, and a protocol has to take all of it: tens of thousands of
    requests or frames, while everybody else waits. A buffered protocol brings its own buffer.

    Args:
        kind: the protocol's class.
        config, server_state, app_state, _loop: as uvicorn passes them.
    """

    def __init__(
        self,
        kind: type[Any],
        *,
        config: BoundedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.protocol = kind(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self._buffer = config.buffer
        # uvicorn calls this one when it makes a WebSocket of a connection; the rest asyncio calls.
        self.data_received = self.protocol.data_received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: self.protocol.piece_bytes()]

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()


class Turns:
    """Starts requests, one between two looks at what has come: a probe that comes meanwhile waits for one alone."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, start: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        """Has something started when those before it have been."""
        self._waiting.append(start)
        if len(self._waiting) == 1:
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        start = self._waiting[0]
        try:
            start()
        finally:
            self._waiting.popleft()
            if self._waiting:
                loop.call_soon(self._next, loop)


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration for an application, with what the protocols share beside it."""

    def __init__(
        self, app: FastAPI, settings: Settings, *, http: type[Any], websocket: type[Any], **options: Any
    ) -> None:
        self.settings = settings
        self.buffer = memoryview(bytearray(MAX_PIECE_BYTES))
        """What comes next on any connection: it is taken at once."""
        self.waiting: dict[Any, float] = {}
        """Connections that wait for their clients, and since when; the longest is the first."""
        self.turns = Turns()
        self.reserve: dict[Any, None] = {}
        """Connections over `max_connections`, the oldest first."""
        super().__init__(
            app,
            http=_in_pieces(http),
            ws=_in_pieces(websocket),
            ws_max_size=settings.max_stream_message_bytes,
            ws_per_message_deflate=False,  # messages are too short to gain anything by compression
            access_log=False,
            log_config=log_config(form=settings.log_format, level=settings.log_level),
            timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(map(str, settings.trusted_proxies)),
            **options,
        )


def _in_pieces(kind: type[Any]) -> Any:
    def make(**options: Any) -> Pieces:
        return Pieces(kind, **options)

    return make
