"""One stream of a connection: an experiment whose layers of detection events arrive one by one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from service.errors import InternalError, InvalidLayerError, NoProbabilitiesError, RequestError
from service.models.model import Model
from service.models.prepared import Prepared
from service.streams import protocol
from service.streams.layout import Layout
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
class OpenStream:
    """A stream from the request to open it until its answer, its failure, or until it is closed.

    It checks the layers, keeps them, and when the last one is there has the whole shot decoded, in one batch with all
    other shots, streamed or not.

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
    """When something last came for it."""
    complete: bool = field(default=False, init=False)
    """Whether its last layer has come."""
    _layers: list[Bits] = field(default_factory=list, init=False)
    """All that have come but the last."""
    _ended: bool = field(default=False, init=False)
    _preparing: asyncio.Task[None] | None = field(default=None, init=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False)
    _answering: asyncio.Task[None] | None = field(default=None, init=False)

    def begin(self, opened: str) -> None:
        """Makes the decoder, if the number of rounds is known already, and then sends the message `opened`."""
        self.model.metrics.streams.open.labels(self.model.id).inc()
        self._preparing = self.host.start(self._prepare(opened))

    async def take(self, message: protocol.LayerMessage) -> None:
        """Takes a layer. Whatever is wrong with it ends the stream."""
        self.touched = time.monotonic()
        self.complete = message.last
        try:
            layer = self._checked(message)
            self.hold(layer.nbytes)
        except RequestError as error:
            await self.fail(error)
            return
        if message.last:
            self._stop_running()  # the answer says more
            shot = [*self._layers, layer]
            self._answering = self.host.start(self._answer(shot, received=time.perf_counter()))
            return
        self._layers.append(layer)
        if message.running:
            await self._estimate(message.round)

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
        for task in (self._preparing, self._running, self._answering):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self.held.close()
        self.model.metrics.streams.open.labels(self.model.id).dec()
        self.host.ended(self)

    async def answered(self) -> None:
        """Waits until the answer is on its way, if the last layer has come."""
        if self._answering is not None:
            await asyncio.wait([self._answering])

    async def _prepare(self, opened: str) -> None:
        try:
            if self.request.rounds is not None or self.request.experiment is not None:
                await Prepared.of(self.model, self.request)
        except Exception as error:
            await self.fail(_request_error(error))
        else:
            await self.host.send(opened)

    def _checked(self, message: protocol.LayerMessage) -> Bits:
        t = message.round
        if t != len(self._layers):
            raise InvalidLayerError(f"a layer of round {t} came, but that of round {len(self._layers)} is the next")
        self.layout.check(t, last=message.last)
        if message.last and message.running:
            raise InvalidLayerError("the last layer's answer is no running one; set flag 1 or 2, not both")
        detectors = self.layout.detectors(t, last=message.last)
        return protocol.unpack_layer(message.events, detectors=detectors, where=f"the layer of round {t}")

    async def _answer(self, shot: list[Bits], *, received: float) -> None:
        try:
            prepared = await self._prepared(shot)
            result = await prepared.decode(self.layout.packed(shot), deadline_ms=self.request.deadline_ms)
        except Exception as error:
            await self.fail(_request_error(error))
            return
        seconds = time.perf_counter() - received
        await self.host.send(protocol.answer_message(self.request, result, rounds=len(shot) - 1, seconds=seconds))
        self.model.metrics.streams.answered(self.model.id, seconds=seconds)
        self.end()

    async def _estimate(self, t: int) -> None:
        """Asks for the flip probabilities with a readout that agrees with the syndrome of round t."""
        self._stop_running()  # the client is past that round
        if self.request.experiment is not None:
            detail = "running flip probabilities are those of a model's own experiments; ask for the answer alone"
            await self.host.refuse(self.request.stream, NoProbabilitiesError(detail), round=t)
        elif self.model.gives_confidence:
            shot = [*self._layers, np.zeros(self.model.code.cells, dtype=np.bool_)]
            self._running = self.host.start(self._run(t, shot))
        else:
            detail = f"the decoder of model {self.model.id} gives no probabilities; ask for the answer alone"
            await self.host.refuse(self.request.stream, NoProbabilitiesError(detail), round=t)

    async def _run(self, t: int, shot: list[Bits]) -> None:
        try:
            result = await (await self._prepared(shot)).decode_first(self.layout.packed(shot))
        except Exception as error:
            await self.host.refuse(self.request.stream, _request_error(error), round=t)
        else:
            await self.host.send(protocol.running_message(self.request.stream, result, round=t))

    async def _prepared(self, shot: list[Bits]) -> Prepared:
        """The model with the decoder for as many rounds as a shot has."""
        assert self._preparing is not None
        await asyncio.shield(self._preparing)  # which goes on if an estimate is cancelled
        if self.request.experiment is not None:
            return await Prepared.of(self.model, self.request)
        return await Prepared.of(self.model, self.request.model_copy(update={"rounds": len(shot) - 1}))

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.cancel()


def _request_error(error: Exception) -> RequestError:
    """The error that the client gets: itself if it is a `RequestError`; any other goes into the log."""
    if isinstance(error, RequestError):
        return error
    logger.error("a stream failed", exc_info=error)
    return InternalError("something unexpected happened; it is in the server's log")
