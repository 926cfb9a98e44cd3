"""One stream of a connection: an experiment whose layers of detection events arrive one by one."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.errors import InternalError, InvalidLayerError, RequestError
from service.models.model import Model
from service.streams import protocol
from service.streams.layout import Layout
from service.wire.shots import DecodeResult
from simulation.bits import Bits

logger = logging.getLogger(__name__)


class Host(Protocol):
    """The connection that a stream lives on."""

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work that ends with the connection at the latest."""

    async def send(self, message: str) -> None:
        """Queues a message to the client; waits while the queue is full."""

    async def refuse(self, stream: int, error: RequestError, *, round: int | None = None) -> None:
        """Counts a failure and sends its `problem_message`."""

    def ended(self, stream: OpenStream) -> None:
        """Forgets a stream; is called once."""


@dataclass(eq=False)
class OpenStream(ABC):
    """A stream from the request to open it until its answer, its failure, or until it is closed.

    It checks the layers; what it does with them is left to its kinds (`service.streams.whole`, `.windows`).

    Args:
        request: what the client wants.
        model: decodes; it is ready.
        layout: which layers come.
        host: the connection.
        held: is closed when the stream ends.
        hold: is told of each number of bytes that its layers take; see `service.http.bounds.Gate.enter`.
    """

    request: protocol.OpenRequest
    model: Model
    layout: Layout
    host: Host
    held: ExitStack
    hold: Callable[[int], None]
    touched: float = field(default_factory=time.monotonic, init=False)
    """When something last came for it, or it was last at work."""
    complete: bool = field(default=False, init=False)
    """Whether its last layer has come."""
    received: int = field(default=0, init=False)
    """Layers that have come."""
    _ended: bool = field(default=False, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def begin(self) -> None:
        """Begins to make the decoder, if it can be known already, and then sends `opened`."""
        self.model.metrics.streams.open.labels(self.model.id).inc()
        self._begin()

    async def take(self, message: protocol.LayerMessage) -> None:
        """Takes a layer; may wait until there is room for it. Whatever is wrong with it ends the stream."""
        self.touched = time.monotonic()
        self.complete = message.last
        try:
            layer = self._checked(message)
            self._hold(layer)
        except RequestError as error:
            await self.fail(error)
            return
        self.received += 1
        await self._take(message, layer)

    async def fail(self, error: RequestError) -> None:
        """Ends the stream, and tells the client why."""
        if not self._ended:
            self.end()
            await self.host.refuse(self.request.stream, error)

    def end(self) -> None:
        """Ends the stream without a message; may be called again."""
        if self._ended:
            return
        self._ended = True
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self.held.close()
        self.model.metrics.streams.open.labels(self.model.id).dec()
        self.host.ended(self)

    async def answered(self) -> None:
        """Waits until the answer is on its way, if the last layer has come."""
        if self.complete and self._tasks:
            await asyncio.wait(set(self._tasks))

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        return not self.complete

    def _hold(self, layer: Bits) -> None:
        """Counts the bytes that a layer takes as long as the stream lasts."""
        self.hold(layer.nbytes)

    @abstractmethod
    def _begin(self) -> None:
        """Starts what `begin` says."""

    @abstractmethod
    async def _take(self, message: protocol.LayerMessage, layer: Bits) -> None:
        """Takes a layer that has been checked."""

    def _start(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Begins work that ends with the stream at the latest; what it raises ends the stream."""

        async def guarded() -> None:
            try:
                await begin()
            except Exception as error:
                await self.fail(request_error(error))

        task = self.host.start(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_opened(self, **members: object) -> None:
        """Tells that the decoder is ready, with more members if there are any."""
        layout = self.layout
        opened = protocol.opened_message(
            self.request, model=self.model.id, basis=layout.basis, detectors=layout.sizes, **members
        )
        await self.host.send(opened)

    async def _send_answer(self, result: DecodeResult, *, received: float, **members: object) -> None:
        """Sends the answer and ends the stream.

        Args:
            result: of its one shot.
            received: when the last layer came.
            members: more of the answer.
        """
        seconds = time.perf_counter() - received
        rounds = self.received - 1
        await self.host.send(protocol.answer_message(self.request, result, rounds=rounds, seconds=seconds, **members))
        self.model.metrics.streams.answered(self.model.id, seconds=seconds)
        self.end()

    def _checked(self, message: protocol.LayerMessage) -> Bits:
        t = message.round
        if t != self.received:
            raise InvalidLayerError(f"a layer of round {t} came, but that of round {self.received} is the next")
        self.layout.check(t, last=message.last)
        if message.last and message.running:
            raise InvalidLayerError("the last layer's answer is no running one; set flag 1 or 2, not both")
        detectors = self.layout.detectors(t, last=message.last)
        return protocol.unpack_layer(message.events, detectors=detectors, where=f"the layer of round {t}")


def request_error(error: Exception) -> RequestError:
    """The error that the client gets: itself if it is a `RequestError`; any other goes into the log."""
    if isinstance(error, RequestError):
        return error
    logger.error("a stream failed", exc_info=error)
    return InternalError("something unexpected happened; it is in the server's log")
