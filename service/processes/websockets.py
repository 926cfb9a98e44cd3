"""uvicorn for streams: WebSockets that nobody reads are cut off, and streams are drained before the server ends."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.settings import Settings
from service.streams.hub import drain_streams


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Cuts off a client that does not read: to close such a connection orderly would wait for it for ever."""

    settings: ClassVar[Settings]
    _write_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        # The application gives up after half of it, and may still say why.
        self._write_timer = self.loop.call_later(2 * self.settings.stream_send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _disarm(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class StreamServer(uvicorn.Server):
    """Lets streams end before uvicorn closes their connections, which it does at once."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        await drain_streams(app, seconds=float(self.config.timeout_graceful_shutdown or 0))
        await super().shutdown(sockets)


def websocket_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's settings of WebSockets. Messages are too short for compression to gain anything."""
    return {
        "ws": type("BoundedWebSocket", (BoundedWebSocket,), {"settings": settings}),
        "ws_max_size": settings.max_stream_message_bytes,
        "ws_per_message_deflate": False,
    }
