"""uvicorn as `tandem serve` runs it: with bounds on connections, and an end that no request notices."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from service.models.engine import Engine
from service.processes.connections import SWEEP_SECONDS, BoundedConfig
from service.processes.http1 import HttpProtocol
from service.processes.listening import Acceptor, accept_waiting
from service.processes.websocket import WebSocketProtocol
from service.settings import Settings
from service.streams.hub import StreamHub

if TYPE_CHECKING:
    from service.rpc.server import RpcServer  # needs the extra "grpc"

logger = logging.getLogger(__name__)

SWITCH_SECONDS = 5e-4
"""How long a thread that computes keeps the interpreter from the event loop, which asks for it in each callback.
The default is ten times as long: beside a thread that makes circuits, a hundred connections take half a second."""
FIRST_REQUEST_SECONDS = 1.0
"""How long, when the server ends, a connection that has sent nothing yet may take for its first request."""


class Server(uvicorn.Server):
    """Serves an application until `stop`, and then drains.

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
        protocols = {"http": HttpProtocol, "websocket": WebSocketProtocol}
        super().__init__(BoundedConfig(app, settings, **protocols, callback_notify=self._tick, timeout_notify=0))
        self._engine: Engine = app.state.engine
        self._streams: StreamHub = app.state.streams
        self._settings = settings
        self._on_tick = on_tick
        self._load_first = load_first
        self._app = app
        self._rpc: RpcServer | None = None
        self._loading: asyncio.Task[None] | None = None

    def stop(self, *_: object) -> None:
        """Begins to drain; may be called from any thread, and handle signals."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application and listens."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._sweep()
        await super().startup([])
        if self._load_first:
            await self._load()
            if self._engine.load_error is not None:
                return
        self.servers = [Acceptor(listener, self._protocol) for listener in sockets or ()]  # type: ignore[misc]
        if self._settings.serves_grpc:
            await self._start_rpc(sockets or ())
        if not self._load_first:
            self._loading = asyncio.create_task(self._load())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, and ends as uvicorn does."""
        self._engine.drain()
        if self.servers and self._engine.load_error is None:
            await self._wait(self._settings.drain_seconds, until=lambda: False)
            waiting = list(chain.from_iterable(map(accept_waiting, sockets or ())))
            for closing in (*self.servers, *(sockets or ())):
                closing.close()
            for acceptor in self.servers:
                await acceptor.wait_closed()
            for connection in waiting:
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
            await self._wait(FIRST_REQUEST_SECONDS, until=self._all_have_asked)
        # uvicorn would close the connections of streams at once.
        seconds = float(self.config.timeout_graceful_shutdown or 0)
        await asyncio.gather(
            self._streams.drain(seconds=seconds), *([] if self._rpc is None else [self._rpc.stop(seconds)])
        )
        await super().shutdown(sockets)

    async def _start_rpc(self, listeners: Sequence[socket.socket]) -> None:
        from service.rpc.server import RpcServer

        self._rpc = RpcServer(self._app, self._settings)
        if self._settings.grpc_port is not None:
            self._rpc.listen_on_port(rpc_host(listeners), self._settings.grpc_port)
        if self._settings.grpc_uds is not None:
            self._rpc.listen_on_path(self._settings.grpc_uds, mode=int(self._settings.grpc_uds_mode, 8))
        await self._rpc.start()

    def _sweep(self) -> None:
        """Ends connections that are late, now and as long as the loop runs."""
        loop = asyncio.get_running_loop()
        loop.call_later(SWEEP_SECONDS, self._sweep)
        for connection in list(self.server_state.connections):
            connection.sweep(loop.time())  # type: ignore[union-attr]

    async def _load(self) -> None:
        await self._engine.wait_until_loaded()
        # A full collection goes through all objects, 340,000 with torch and numba, and holds the interpreter meanwhile:
        # 0.17 s of CPU, and on a busy core a second. It takes this once, before the first requests come; what lives by
        # then, imports above all, later ones leave out. Of a model that is closed only what is small stays.
        gc.collect()
        gc.freeze()

    async def _tick(self) -> None:
        if self._on_tick is not None:
            self._on_tick()

    async def _wait(self, seconds: float, *, until: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not (until() or self.force_exit) and loop.time() < end:
            await asyncio.sleep(0.02)

    def _protocol(self) -> asyncio.Protocol:
        options = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        return self.config.http_protocol_class(**options)

    def _all_have_asked(self) -> bool:
        connections = self.server_state.connections
        return all(connection.asked for connection in connections if isinstance(connection, HttpProtocol))


def rpc_host(listeners: Sequence[socket.socket]) -> str:
    """Where gRPC is served: on the address of the port for HTTP, or on this machine alone if there is none."""
    hosts = [listener.getsockname()[0] for listener in listeners if listener.family != socket.AF_UNIX]
    return hosts[0] if hosts else "127.0.0.1"
