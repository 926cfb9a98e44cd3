"""Streams that are decoded window by window while their layers come, and tell what is fixed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np

from service.errors import NoProbabilitiesError
from service.models.prepared import Prepared
from service.models.windows import Windows
from service.streams import protocol
from service.streams.open_stream import OpenStream
from service.wire.shots import DecodeResult
from simulation.bits import Bits


@dataclass(eq=False)
class WindowStream(OpenStream):
    """Keeps at most two windows of layers, however many come: one at work, and what came meanwhile.

    A client that is faster than the decoder waits, and with it all streams of its connection.

    Args:
        windows: how it is decoded.
    """

    windows: Windows
    _waiting: asyncio.Queue[tuple[Bits, bool]] = field(init=False)
    """Layers that are in no window yet, each with whether it is the last."""
    _arrived: float = field(default=0.0, init=False)
    """When the last layer that came did."""
    _first: int = field(default=0, init=False)
    """The first layer of the window that comes next."""
    _layers: list[Bits] = field(default_factory=list, init=False)
    """Those of that window, without what was fixed."""
    _flips: Bits = field(init=False)
    """(observables,): of the errors that are fixed."""
    _converged: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._waiting = asyncio.Queue(self.windows.window)
        self._flips = np.zeros(self.layout.observables, dtype=np.bool_)

    @property
    def waits(self) -> bool:
        """See `OpenStream.waits`."""
        return not self.complete and not self._waiting.full()

    def _hold(self, layer: Bits) -> None:
        if self.received < 2 * self.windows.window:  # later ones take the place of these
            super()._hold(layer)

    def _begin(self) -> None:
        self._start(self._work)

    async def _take(self, message: protocol.LayerMessage, layer: Bits) -> None:
        if message.running:
            detail = "a stream in windows tells the flips that are fixed, and no running probabilities"
            await self.host.refuse(self.request.stream, NoProbabilitiesError(detail), round=message.round)
        self._arrived = time.perf_counter()
        await self._waiting.put((layer, message.last))

    def end(self) -> None:
        """See `OpenStream.end`."""
        super().end()
        while not self._waiting.empty():  # who waits for room goes on
            self._waiting.get_nowait()

    async def _work(self) -> None:
        prepared = await self._prepared(self.model.bounds.max_window_rounds)
        await self._send_opened(window=self.windows.window, commit=self.windows.commit)
        last = False
        while not last:
            layer, last = await self._waiting.get()
            self._layers.append(layer)
            if last:
                prepared = await self._prepared(self.received - 1)
            if last or len(self._layers) == self.windows.window:
                await self._fix(prepared, last=last)
        result = DecodeResult(self._flips[None], None, None, queue_seconds=0.0, compute_seconds=0.0)
        await self._send_answer(result, received=self._arrived, converged=self._converged)

    async def _prepared(self, rounds: int) -> Prepared:
        """The model with the decoder of the experiment, of so many rounds if the client has not said how many.

        What happens in a window does not depend on how many rounds follow it. So while that is not known the windows
        are those of the longest experiment that there may be.
        """
        query = self.request
        if query.rounds is None and query.experiment is None:
            query = query.model_copy(update={"rounds": rounds})
        return await Prepared.of(self.model, query, windows=self.windows)

    async def _fix(self, prepared: Prepared, *, last: bool) -> None:
        """Decodes the window that is there, and unless it is the last one tells what is fixed."""
        flips, self._layers, converged = await prepared.fix(self._first, self._layers)
        self._flips ^= flips
        self._converged &= converged
        self._first += self.windows.commit
        self.touched = time.monotonic()
        if not last:
            await self.host.send(
                protocol.committed_message(
                    self.request.stream, layers=self._first, flips=self._flips, converged=self._converged
                )
            )
