"""Streams over WebSockets: the route, and all its connections."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, WebSocket

from service.auth import KeyRing
from service.errors import ClosingError, RequestError, UnsupportedSubprotocolError
from service.http.bounds import Gate
from service.http.problems import problem_of, problem_response
from service.models.engine import Engine
from service.streams.connection import Connection
from service.wire.layers import SUBPROTOCOL

MAX_SWEEP_SECONDS = 1.0
"""Most time between two looks at what is idle and which keys have been revoked."""

router = APIRouter()


class StreamHub:
    """All connections with streams. The application's lifespan runs `sweep`.

    Args:
        engine: whose models; its settings have the bounds.
        keys: a connection that was made with one of them ends when it is revoked.
    """

    def __init__(self, engine: Engine, *, keys: KeyRing) -> None:
        settings = engine.settings
        self._keys = keys
        self._engine = engine
        self._gate = Gate(settings.max_stream_connections, what="connections for streams are open")
        self._places = Gate(
            settings.max_streams, what="streams are open", most_bytes=settings.max_bodies_bytes, what_bytes="layers"
        )
        self._connections: set[Connection] = set()
        self._draining = False

    async def drain(self, *, seconds: float) -> None:
        """Refuses new streams, answers those that have all their layers, and ends all connections.

        Args:
            seconds: how long that may take.
        """
        self._draining = True
        if self._connections:
            drains = [asyncio.create_task(connection.drain()) for connection in self._connections]
            await asyncio.wait(drains, timeout=seconds)
            for drain in drains:
                drain.cancel()
            end = time.monotonic() + 1
            while self._connections and time.monotonic() < end:  # the last answers are being sent
                await asyncio.sleep(0.01)

    async def serve(self, websocket: WebSocket, model_id: str) -> None:
        """Accepts a connection and serves it to its end.

        Raises:
            RequestError: it is not accepted.
        """
        model = self._engine.model(model_id)
        if self._draining:
            raise ClosingError("the service is shutting down; connect to another instance")
        model.check_ready()
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            raise UnsupportedSubprotocolError(
                f"offer the WebSocket subprotocol {SUBPROTOCOL}; others are not spoken here"
            )
        with self._gate.enter(), self._engine.metrics.streams.connections.track_inprogress():
            await websocket.accept(SUBPROTOCOL)
            connection = Connection(websocket, model_id, engine=self._engine, places=self._places)
            self._connections.add(connection)
            try:
                await connection.run()
            finally:
                self._connections.discard(connection)

    async def sweep(self) -> None:
        """Ends what is idle, or was begun with a key that has been revoked, until cancelled."""
        while True:
            await asyncio.sleep(min(self._engine.settings.stream_idle_seconds / 4, MAX_SWEEP_SECONDS))
            keys = self._keys.all()
            for connection in list(self._connections):
                connection.sweep(time.monotonic(), keys=keys)


@router.websocket("/v1/models/{model_id}/stream")
async def stream(websocket: WebSocket, model_id: str) -> None:
    """Experiments whose detection events are sent round by round; docs/api.md has the protocol ("Streams")."""
    engine: Engine = websocket.app.state.engine
    hub: StreamHub = websocket.app.state.streams
    try:
        await hub.serve(websocket, model_id)
    except RequestError as error:
        engine.metrics.failure(model_id if model_id in engine.models else "", error.kind)
        await websocket.send_denial_response(problem_response(problem_of(error), headers=error.headers))
