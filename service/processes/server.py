"""uvicorn as `tandem serve` runs it: with bounds on connections, and an end that no request notices."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from service.models.engine import Engine
from service.processes.connections import BoundedProtocol, bounded_protocol
from service.processes.garbage import freeze
from service.processes.websockets import StreamServer, websocket_options
from service.settings import Settings
from service.telemetry.logs import log_config

logger = logging.getLogger(__name__)

FIRST_REQUEST_SECONDS = 1.0
"""How long, when the server ends, a connection that has sent nothing yet may take for its first request."""
BACKLOG = 2048


class Server(StreamServer):
    """Serves an application until `should_exit` is set, and then drains.

    Draining has four steps. For `drain_seconds` all goes on, but /readyz says no and every answer asks to close
    the connection, so that load balancers and clients turn elsewhere. Then connections that wait to be accepted
    are, and the port is closed. New connections have a moment for their first request. Then idle ones are
    closed, streams end, and requests at work have `shutdown_timeout_seconds` to end.

    Args:
        app: what to serve.
        settings: its bounds.
        on_tick: is called about once a second while the server runs.
        load_first: whether to listen only when all models are loaded, and not at all if one cannot be.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        *,
        on_tick: Callable[[], None] | None = None,
        load_first: bool = False,
    ) -> None:
        async def notify() -> None:
            self._freeze()
            if on_tick is not None:
                on_tick()

        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(settings),
                access_log=False,
                log_config=log_config(form=settings.log_format, level=settings.log_level),
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
                callback_notify=notify,
                timeout_notify=0,
                backlog=BACKLOG,
                server_header=False,
                **websocket_options(settings),
            )
        )
        self._engine: Engine = app.state.engine
        self._load_first = load_first
        self._settings = settings
        self._frozen = 0
        self._loading: asyncio.Task[None] | None = None

    def stop(self, *_: object) -> None:
        """Begins to drain; may be called from any thread, and handle signals."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application and listens."""
        if not self._load_first:
            await super().startup(sockets)
            self._loading = asyncio.create_task(self._load())
            return
        await super().startup([])
        await self._load()
        if self._engine.load_error is None:
            loop = asyncio.get_running_loop()
            self.servers = [
                await loop.create_server(self._protocol, sock=listener, backlog=BACKLOG) for listener in sockets or ()
            ]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, and ends as uvicorn does."""
        self._engine.drain()
        if self.servers and self._engine.load_error is None:
            await self._for(self._settings.drain_seconds, lambda: False)
            waiting = [connection for listener in sockets or () for connection in _accept_waiting(listener)]
            for closing in (*self.servers, *(sockets or ())):
                closing.close()
            for connection in waiting:
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
            await self._for(FIRST_REQUEST_SECONDS, lambda: not self._new_connections())
        await super().shutdown(sockets)

    async def _load(self) -> None:
        await self._engine.wait_until_loaded()
        self._freeze()  # before the first requests come

    def _freeze(self) -> None:
        """Once after every change of models."""
        if self._engine.loaded and self._frozen != self._engine.revision:
            self._frozen = self._engine.revision
            freeze()

    async def _for(self, seconds: float, done: Callable[[], bool]) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while not (done() or self.force_exit) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _new_connections(self) -> bool:
        connections = self.server_state.connections
        return any(isinstance(connection, BoundedProtocol) and not connection.asked for connection in connections)


def _accept_waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that the system has made and nobody has taken; closing the port would reset them."""
    listener.setblocking(False)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        yield connection
