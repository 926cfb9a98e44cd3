"""One stream of a connection: checks its layers, and asks for its answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np

from service.errors import (
    InternalError,
    InvalidLayerError,
    InvalidParametersError,
    NoProbabilitiesError,
    RequestError,
)
from service.streams.experiments import Question, StreamedExperiment
from service.streams.protocol import (
    LayerMessage,
    OpenRequest,
    answer_message,
    problem_message,
    running_message,
    running_problem_message,
    unpack_layer,
)
from service.telemetry.metrics import StreamMetrics
from simulation.bits import Bits

logger = logging.getLogger(__name__)


class Host(Protocol):
    """The connection that a stream lives on."""

    model_id: str

    @property
    def metrics(self) -> StreamMetrics: ...

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs work that ends with the connection at the latest."""

    async def send(self, message: str) -> None:
        """Sends a message, when there is room for it."""

    def failed(self, error: RequestError) -> None:
        """Is told of every failure."""

    def ended(self, stream: OpenStream) -> None:
        """Is told once of the end of the stream."""


class OpenStream:
    """From the request to open it until its answer, its failure, or until it is given up.

    Args:
        request: what the client wants.
        experiment: takes the layers.
        host: the connection.
        held: what the stream has taken hold of, to let go in the end.
        cells: of the code's torus.
        max_rounds: most rounds that the service decodes.
        gives_probabilities: whether the decoder does.
    """

    def __init__(
        self,
        request: OpenRequest,
        experiment: StreamedExperiment,
        *,
        host: Host,
        held: ExitStack,
        cells: int,
        max_rounds: int,
        gives_probabilities: bool,
    ) -> None:
        self.request = request
        self.touched = time.monotonic()
        """When something last came for it."""
        self.complete = False
        """Whether its last layer has come."""
        self._experiment = experiment
        self._host = host
        self._held = held
        self._cells = cells
        self._most = request.rounds or max_rounds
        self._gives_probabilities = gives_probabilities
        self._round = 0
        self._over = False
        self._preparing: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        host.metrics.opened(host.model_id)

    def begin(self, opened: str) -> None:
        """Prepares for the layers, and sends a message when that is done."""
        self._preparing = self._host.start(self._prepare(opened))

    async def take(self, message: LayerMessage) -> None:
        """Takes a layer. Whatever is wrong with it ends the stream."""
        self.touched = time.monotonic()
        self.complete = message.last
        try:
            layer = self._checked(message)
            if message.last:
                self._finish(layer)
                return
            self._experiment.take(layer)
        except RequestError as error:
            await self.fail(error)
            return
        self._round += 1
        if message.running:
            await self._estimate(message.round)

    async def fail(self, error: RequestError) -> None:
        """Ends the stream, and tells the client why."""
        if not self._over:
            self.end()
            self._host.failed(error)
            await self._host.send(problem_message(self.request.stream, error))

    def end(self) -> None:
        """Ends the stream without a word; may be called again."""
        if self._over:
            return
        self._over = True
        for task in (self._preparing, self._running, self._answering):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._experiment.drop()
        self._held.close()
        self._host.metrics.ended(self._host.model_id)
        self._host.ended(self)

    async def answered(self) -> None:
        """Waits until the answer is on its way, if the last layer has come."""
        if self._answering is not None:
            await asyncio.wait([self._answering])

    async def _prepare(self, opened: str) -> None:
        try:
            await self._experiment.prepare()
        except RequestError as error:
            await self.fail(error)
        except ValueError as error:
            await self.fail(InvalidParametersError(str(error)))
        except Exception:
            await self.fail(_unexpected())
        else:
            await self._host.send(opened)

    def _checked(self, message: LayerMessage) -> Bits:
        t, most = message.round, self._most
        if t != self._round:
            raise InvalidLayerError(f"a layer of round {t} came, but that of round {self._round} is the next")
        if message.last:
            if t == 0:
                raise InvalidLayerError("the layer of round 0 cannot be the last; the readout's comes after it")
            if self.request.rounds is not None and t < most:
                raise InvalidLayerError(
                    f"round {t} was said to be the last, but the stream was opened with rounds={most}"
                )
        elif t >= most:
            limit = "the stream was opened with" if self.request.rounds else "this service decodes at most"
            raise InvalidLayerError(f"{limit} rounds={most}, so the layer of round {t} must be the last (flag 1)")
        if message.last and message.running:
            raise InvalidLayerError("the last layer's answer is no running one; set flag 1 or 2, not both")
        one_type = message.last or t == 0
        return unpack_layer(
            message.events,
            detectors=self._cells if one_type else 2 * self._cells,
            where=f"the layer of round {t}",
        )

    def _finish(self, layer: Bits) -> None:
        received = time.perf_counter()
        if self._running is not None:
            self._running.cancel()  # the answer says more
        self._answering = self._host.start(self._answer(self._experiment.ask(layer), received))

    async def _answer(self, question: Question, received: float) -> None:
        assert self._preparing is not None
        try:
            await self._preparing
            answer = await question()
        except RequestError as error:
            await self.fail(error)
            return
        except Exception:
            await self.fail(_unexpected())
            return
        seconds = time.perf_counter() - received
        await self._host.send(answer_message(self.request, answer, rounds=self._round, seconds=seconds))
        self._host.metrics.answered(self._host.model_id, seconds=seconds)
        self.end()

    async def _estimate(self, t: int) -> None:
        """Asks for the flip probabilities with a readout that agrees with the syndrome of round t."""
        if self._running is not None:
            self._running.cancel()  # the client is past that round
        try:
            if not self._gives_probabilities:
                raise NoProbabilitiesError(
                    f"the decoder of model {self._host.model_id} gives no probabilities; ask for the answer alone"
                )
            question = self._experiment.ask(np.zeros(self._cells, dtype=np.bool_), running=True)
        except RequestError as error:
            await self._no_estimate(t, error)
            return
        self._running = self._host.start(self._run(t, question))

    async def _run(self, t: int, question: Question) -> None:
        assert self._preparing is not None
        try:
            # Not to cancel it along with this.
            await asyncio.shield(self._preparing)
            answer = await question()
        except RequestError as error:
            await self._no_estimate(t, error)
        except Exception:
            await self._no_estimate(t, _unexpected())
        else:
            await self._host.send(running_message(self.request.stream, answer, round=t))

    async def _no_estimate(self, t: int, error: RequestError) -> None:
        self._host.failed(error)
        await self._host.send(running_problem_message(self.request.stream, error, round=t))


def _unexpected() -> InternalError:
    logger.exception("a stream failed")
    return InternalError("something unexpected happened; it is in the server's log")
