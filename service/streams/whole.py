"""Streams whose shots are decoded as a whole, when the last layer has come."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service.errors import NoProbabilitiesError
from service.models.prepared import Prepared
from service.streams import protocol
from service.streams.open_stream import OpenStream, request_error
from simulation.bits import Bits


@dataclass(eq=False)
class WholeStream(OpenStream):
    """Keeps the layers, and has the whole shot decoded in one batch with all other shots, streamed or not."""

    _layers: list[Bits] = field(default_factory=list, init=False)
    """All that have come but the last."""
    _preparing: asyncio.Task[None] | None = field(default=None, init=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False)

    def _begin(self) -> None:
        self._preparing = self._start(self._prepare)

    async def _take(self, message: protocol.LayerMessage, layer: Bits) -> None:
        if message.last:
            self._stop_running()  # the answer says more
            shot = [*self._layers, layer]
            self._start(partial(self._answer, shot, received=time.perf_counter()))
            return
        self._layers.append(layer)
        if message.running:
            await self._estimate(message.round)

    async def _prepare(self) -> None:
        if self.request.rounds is not None or self.request.experiment is not None:
            await Prepared.of(self.model, self.request)
        await self._send_opened()

    async def _answer(self, shot: list[Bits], *, received: float) -> None:
        prepared = await self._prepared(shot)
        result = await prepared.decode(self.layout.packed(shot), deadline_ms=self.request.deadline_ms)
        await self._send_answer(result, received=received)

    async def _estimate(self, t: int) -> None:
        """Asks for the flip probabilities with a readout that agrees with the syndrome of round t."""
        self._stop_running()  # the client is past that round
        if self.request.experiment is not None:
            detail = "running flip probabilities are those of a model's own experiments; ask for the answer alone"
            await self.host.refuse(self.request.stream, NoProbabilitiesError(detail), round=t)
        elif self.model.gives_confidence:
            shot = [*self._layers, np.zeros(self.model.code.cells, dtype=np.bool_)]
            self._running = self._start(partial(self._run, t, shot))
        else:
            detail = f"the decoder of model {self.model.id} gives no probabilities; ask for the answer alone"
            await self.host.refuse(self.request.stream, NoProbabilitiesError(detail), round=t)

    async def _run(self, t: int, shot: list[Bits]) -> None:
        try:
            result = await (await self._prepared(shot)).decode_first(self.layout.packed(shot))
        except Exception as error:
            await self.host.refuse(self.request.stream, request_error(error), round=t)
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
