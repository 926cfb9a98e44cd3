"""Models that are pairs: the second decoder's opinions on the shots that the network is unsure of.

The network's batches do not wait for them. Only the request that holds the unsure shots does, and no longer than its
deadline says.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np

from decoder.tandem.opinions import PATIENCE_SECONDS, NoOpinionError, OpinionPool
from decoder.tandem.rule import Opinion, merge, unsure
from service.settings import ModelSettings
from service.telemetry.metrics import OpinionMetrics
from service.telemetry.record import current_record
from service.wire.schemas import PairInfo
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits
from simulation.experiments import Experiment


class SecondOpinions:
    """The second decoder of one model, in worker processes that start in the background.

    Args:
        model: whose second decoder it is.
        second: the second decoder's name.
        threshold: of the network's confidence, below which the second decoder is asked.
        metrics: counts the opinions.
    """

    def __init__(self, model: ModelSettings, *, second: str, threshold: float, metrics: OpinionMetrics) -> None:
        self.info = PairInfo(second=second, threshold=threshold, deadline_ms=model.deadline_ms)
        self._model = model.id
        self._metrics = metrics
        self.pool = OpinionPool(
            second,
            processes=model.second_processes,
            patience_seconds=model.second_patience_seconds or PATIENCE_SECONDS,
        )
        metrics.add_model(model.id, waiting=lambda: self.pool.waiting)

    def warm_up(self, experiment: Experiment) -> None:
        """Starts the workers without waiting for them. If the decoder cannot be made, the reason is logged."""

        def warm() -> None:
            try:
                self.pool.warm_up(experiment)
            except NoOpinionError as error:
                if not self.pool.closed:
                    self.pool.warn(error)

        threading.Thread(target=warm, name=f"warm-up-{self._model}", daemon=True).start()

    def ask(self, first: DecodeResult, experiment: Experiment, shots: PackedBits, *, seconds: float) -> AskedOpinions:
        """Asks for opinions on the shots that the network is unsure of.

        Args:
            first: what the network said of the shots.
            experiment: where the shots come from.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)).
            seconds: how long to wait for the opinions.
        """
        assert first.confidence is not None
        rows = np.flatnonzero(unsure(first.confidence, self.info.threshold)).tolist()
        opinions = self.pool.ask(experiment, shots[rows], seconds=seconds)
        self._metrics.count(self._model, Opinion.FIRST, shots=len(shots) - len(rows))
        count = partial(self._metrics.count, self._model)
        return AskedOpinions(first, dict(zip(rows, opinions, strict=True)), seconds=seconds, count=count)

    def close(self) -> None:
        """Ends the workers."""
        self.pool.close()
        self._metrics.remove_model(self._model)


class AskedOpinions:
    """Opinions that are on their way, for the shots of one request. Belongs to one event loop.

    Args:
        first: what the network said of all shots.
        pending: for each shot asked about, by its number, what becomes its prediction, bool (observables,).
        seconds: how long to wait for the opinions.
        count: `OpinionMetrics.count` for the model.
    """

    def __init__(
        self, first: DecodeResult, pending: dict[int, Future[Bits]], *, seconds: float, count: Callable[..., None]
    ) -> None:
        self.first = first
        self.pending = pending
        self._count = count
        self._arrived: asyncio.Queue[int] = asyncio.Queue()
        self._began = time.perf_counter()
        self._ends = self._began + seconds
        loop = asyncio.get_running_loop()

        def arrive(row: int, _: Future[Bits]) -> None:
            if not loop.is_closed():  # the service may have ended meanwhile
                loop.call_soon_threadsafe(self._arrived.put_nowait, row)

        for row, opinion in pending.items():
            opinion.add_done_callback(partial(arrive, row))

    async def each(self) -> AsyncIterator[tuple[int, Bits, Opinion]]:
        """The shots asked about, in the order in which their opinions arrive; at the end those that are late.

        Yields:
            The shot's number, its prediction bool (observables,), and who made it.
        """
        missing = dict.fromkeys(self.pending)
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.perf_counter())):
                while missing:
                    row = await self._arrived.get()
                    del missing[row]
                    yield self._settled(row)
        except TimeoutError:
            pass
        finally:
            for row in missing:
                self.pending[row].cancel()
        for row in missing:
            yield self._settled(row)

    async def all(self) -> DecodeResult:
        """The network's result, changed by the second opinions that arrive in time."""
        predictions = self.first.predictions.copy()
        opinions = np.zeros(len(predictions), np.uint8)
        async for row, prediction, opinion in self.each():
            predictions[row], opinions[row] = prediction, opinion
        seconds = time.perf_counter() - self._began if self.pending else 0.0
        if (record := current_record()) is not None:
            record.second_seconds = (record.second_seconds or 0.0) + seconds
        return replace(self.first, predictions=predictions, opinions=opinions, second_seconds=seconds)

    def _settled(self, row: int) -> tuple[int, Bits, Opinion]:
        predictions, opinions = merge(self.first.predictions[[row]], [self.pending[row]])
        opinion = Opinion(int(opinions[0]))
        self._count(opinion, seconds=time.perf_counter() - self._began if opinion is Opinion.SECOND else None)
        return row, predictions[0], opinion
