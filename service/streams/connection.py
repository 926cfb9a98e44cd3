"""One WebSocket connection with its streams."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Set
from contextlib import ExitStack, suppress
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from service import errors
from service.auth import Key
from service.http.bounds import Gate
from service.models.engine import Engine
from service.models.prepared import not_a_pair
from service.models.windows import Windows
from service.streams import protocol
from service.streams.layout import layout_of
from service.streams.open_stream import OpenStream
from service.streams.whole import WholeStream
from service.streams.windows import WindowStream
from service.telemetry.record import current_record

logger = logging.getLogger(__name__)

OUTBOX_SIZE = 64
"""Most messages of a connection that wait to be sent; what would add one more waits."""


class Connection:
    """Reads, answers and bounds what goes over one connection.

    Args:
        websocket: has been accepted.
        model_id: the model that all its streams are for.
        engine: whose models.
        places: bounds the streams of all connections.
    """

    def __init__(self, websocket: WebSocket, model_id: str, *, engine: Engine, places: Gate) -> None:
        self.model_id = model_id
        record = current_record()
        self._key = None if record is None else record.key
        self._websocket = websocket
        self._engine = engine
        self._settings = engine.settings
        self._places = places
        self._streams: dict[protocol.StreamNumber, OpenStream] = {}
        # When streams failed whose last layer had not come. Layers that were on their way then are no mistake of the
        # client's, and are dropped.
        self._failed: dict[protocol.StreamNumber, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: asyncio.Queue[str] = asyncio.Queue(OUTBOX_SIZE)
        self._touched = time.monotonic()
        self._stopped: asyncio.Future[tuple[int, str] | None] = asyncio.get_running_loop().create_future()
        self._draining = False

    async def run(self) -> None:
        """Serves the connection until one side ends it, and ends all its streams and tasks."""
        self.start(self._write())
        reader = self.start(self._read())
        try:
            close = await self._stopped
            reader.cancel()
            if close is not None:
                # The client may be one that does not read.
                with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                    async with asyncio.timeout(self._settings.stream_send_seconds):
                        await self._outbox.join()
                        await self._websocket.close(*close)
        finally:
            for stream in list(self._streams.values()):
                stream.end()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self, close: tuple[int, str] | None) -> None:
        """Ends the connection. The first call counts.

        Args:
            close: a close code of RFC 6455, 7.4.1, and a reason of at most 123 bytes; None if the client is gone.
        """
        if not self._stopped.done():
            self._stopped.set_result(close)

    async def drain(self) -> None:
        """Answers the streams that have all their layers, tells the others, and ends the connection."""
        self._draining = True
        for stream in list(self._streams.values()):
            if not stream.complete:
                await stream.fail(errors.ClosingError("the service is shutting down; begin again on another instance"))
        for stream in list(self._streams.values()):
            await stream.answered()
        self.stop((1001, "the service is shutting down"))

    def sweep(self, now: float, *, keys: Set[Key]) -> None:
        """Ends what has been idle for too long, and the connection if its key has been revoked.

        Args:
            now: as of `time.monotonic`.
            keys: those that are accepted now.
        """
        if self._key is not None and self._key not in keys:
            self._engine.metrics.failure(self.model_id, errors.UnauthorizedError.kind)
            self.stop((1008, "the API key is not known any more"))
            return
        limit = self._settings.stream_idle_seconds
        for stream in list(self._streams.values()):
            if stream.waits and now - stream.touched > limit:
                self.start(
                    stream.fail(errors.StreamTimeoutError(f"no layer came for {limit:g} s; begin the experiment again"))
                )
        self._failed = {number: failed for number, failed in self._failed.items() if now - failed <= limit}
        if not self._streams and now - self._touched > limit:
            self.stop((1000, f"no stream was open and nothing came for {limit:g} s"))

    # What streams ask of their host (`service.streams.open_stream.Host`):

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work that ends with the connection at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def send(self, message: str) -> None:
        """Queues a message; waits while `OUTBOX_SIZE` messages wait to be sent."""
        await self._outbox.put(message)

    async def refuse(
        self, stream: protocol.StreamNumber, error: errors.RequestError, *, round: int | None = None
    ) -> None:
        """Counts a failure and sends its `problem_message`."""
        self._engine.metrics.failure(self.model_id, error.kind)
        await self.send(protocol.problem_message(stream, error, round=round))

    def ended(self, stream: OpenStream) -> None:
        """Forgets a stream, but not at once that there was one whose layers may still be on their way."""
        del self._streams[stream.request.stream]
        if not stream.complete:
            self._remember(stream.request.stream)

    async def _read(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    self.stop(None)
                    return
                self._touched = time.monotonic()
                self._engine.metrics.streams.messages.labels(self.model_id, "in").inc()
                await self._handle(message.get("text"), message.get("bytes") or b"")
        except protocol.ProtocolError as error:
            self._engine.metrics.failure(self.model_id, "stream-protocol")
            self.stop((error.code, str(error)))
        except Exception:
            self._crash()

    async def _write(self) -> None:
        seconds = self._settings.stream_send_seconds
        try:
            while True:
                message = await self._outbox.get()
                async with asyncio.timeout(seconds):
                    await self._websocket.send_text(message)
                self._engine.metrics.streams.messages.labels(self.model_id, "out").inc()
                self._outbox.task_done()
        except TimeoutError:
            self._engine.metrics.failure(self.model_id, "slow-reader")
            self.stop((1008, f"the client read nothing for {seconds:g} s"))
        except (RuntimeError, WebSocketDisconnect):
            self.stop(None)  # the client is gone
        except Exception:
            self._crash()

    def _crash(self) -> None:
        logger.exception("a connection of streams failed")
        self._engine.metrics.failure(self.model_id, errors.InternalError.kind)
        self.stop((1011, "something unexpected happened; it is in the server's log"))

    async def _handle(self, text: str | None, data: bytes) -> None:
        most = self._settings.max_stream_message_bytes
        if max(len(text or ""), len(data)) > most:
            raise protocol.ProtocolError(f"a message may have {most} bytes at most", code=1009)
        try:
            request = protocol.parse_binary(data) if text is None else protocol.parse_text(text)
            if isinstance(request, protocol.LayerMessage):
                await self._take(request)
            elif isinstance(request, protocol.OpenRequest):
                self._open(request)
            else:
                await self._close(request)
        except protocol.StreamRefused as refused:
            if refused.stream in self._streams:
                raise protocol.ProtocolError(f"stream {refused.stream} is open; a message about it is wrong") from None
            self._remember(refused.stream)
            await self.refuse(refused.stream, refused.error)

    def _open(self, request: protocol.OpenRequest) -> None:
        if request.stream in self._streams:
            raise protocol.ProtocolError(
                f"stream {request.stream} is open already; close it first, or take another number"
            )
        with ExitStack() as held:
            try:
                if self._draining:
                    raise errors.ClosingError("the service is shutting down; open streams on another instance")
                model = self._engine.model(self.model_id)
                model.check_ready()
                windows = Windows.asked_for(model.settings.decoder, window=request.window, commit=request.commit)
                layout = layout_of(model, request, windows=windows)
                if len(self._streams) >= self._settings.max_streams_per_connection:
                    raise errors.BusyError(
                        f"{len(self._streams)} streams are open on this connection already; wait for answers",
                        retry_after=1,
                    )
                hold = held.enter_context(self._places.enter())
                held.enter_context(model.lease())
                if request.deadline_ms is not None and model.second is None:
                    raise not_a_pair(self.model_id, "deadline_ms")
            except errors.RequestError as error:
                raise protocol.StreamRefused(request.stream, error) from error
            shared = (request, model, layout, self, held.pop_all(), hold)
            stream = WholeStream(*shared) if windows is None else WindowStream(*shared, windows=windows)
        self._failed.pop(request.stream, None)
        self._streams[request.stream] = stream
        stream.begin()

    async def _take(self, message: protocol.LayerMessage) -> None:
        stream = self._streams.get(message.stream)
        if stream is not None:
            await stream.take(message)
        elif message.stream in self._failed:
            if message.last:
                del self._failed[message.stream]
        else:
            unknown = errors.UnknownStreamError(f"stream {message.stream} is not open; open it first")
            await self.refuse(message.stream, unknown)

    async def _close(self, request: protocol.CloseRequest) -> None:
        stream = self._streams.get(request.stream)
        if stream is not None:
            stream.end()
        self._failed.pop(request.stream, None)
        await self.send(protocol.closed_message(request.stream))

    def _remember(self, stream: protocol.StreamNumber) -> None:
        self._failed[stream] = time.monotonic()
        while len(self._failed) > self._settings.max_streams_per_connection:
            del self._failed[next(iter(self._failed))]
