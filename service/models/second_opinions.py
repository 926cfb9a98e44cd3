"""Models that are pairs: the second decoder's opinions on the shots that the network is unsure of.

The network's batches do not wait for them: only the request does that holds the unsure shots, and only so long as it
says.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from decoder.catalog import decoder_spec
from decoder.tandem.opinions import PATIENCE_SECONDS, NoOpinionError, OpinionPool
from decoder.tandem.rule import Opinion, merge, unsure
from service.settings import ModelSettings
from service.telemetry.metrics import Metrics
from service.wire.schemas import PairInfo
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits
from simulation.circuits import MemoryExperiment


def second_of(decoder: str) -> str | None:
    """The decoder that gives second opinions in a pair; None for decoders that are no pairs.

    Raises:
        ValueError: no decoder has that name.
    """
    return decoder_spec(decoder).second


class SecondOpinions:
    """The second decoder of one model, in worker processes that start in the background.

    Args:
        model: whose second decoder it is.
        threshold: of the confidence, below which it is asked.
        metrics: counts the opinions.
    """

    def __init__(self, model: ModelSettings, *, threshold: float, metrics: Metrics) -> None:
        second = second_of(model.decoder)
        assert second is not None
        self.threshold = threshold
        self.deadline_ms = model.deadline_ms
        self.info = PairInfo(second=second, threshold=threshold, deadline_ms=model.deadline_ms)
        self._model = model.id
        self._metrics = metrics
        self._pool = OpinionPool(
            second,
            processes=model.second_processes,
            patience_seconds=model.second_patience_seconds or PATIENCE_SECONDS,
        )
        metrics.opinions.add_model(model.id, waiting=lambda: self._pool.waiting)

    def warm_up(self, experiment: MemoryExperiment) -> None:
        """Starts the workers without waiting for them. A decoder that cannot be made is told in the log."""

        def warm() -> None:
            try:
                self._pool.warm_up(experiment)
            except NoOpinionError as error:
                if not self._pool.closed:
                    self._pool.warn(error)

        threading.Thread(target=warm, name=f"warm-up-{self._model}", daemon=True).start()

    def ask(
        self, answer: DecodeResult, experiment: MemoryExperiment, shots: PackedBits, *, seconds: float
    ) -> AskedOpinions:
        """Asks for opinions on the shots of an answer that the network is unsure of.

        Args:
            answer: the network's.
            experiment: where the shots come from.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)).
            seconds: how long to wait for them.
        """
        assert answer.confidence is not None
        rows = np.flatnonzero(unsure(answer.confidence, self.threshold))
        futures = self._pool.ask(experiment, shots[rows], seconds=seconds)
        return AskedOpinions(answer, rows, futures, seconds=seconds, told=self._told)

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()
        self._metrics.opinions.remove_model(self._model)

    def _told(self, opinion: Opinion, *, shots: int = 1, seconds: float | None = None) -> None:
        self._metrics.opinions.told(self._model, opinion.name.lower(), shots=shots, seconds=seconds)


class AskedOpinions:
    """Opinions that are on their way, for the shots of one request. Lives in one event loop."""

    def __init__(
        self,
        answer: DecodeResult,
        rows: npt.NDArray[np.int64],
        futures: list[Future[Bits]],
        *,
        seconds: float,
        told: Callable[..., None],
    ) -> None:
        self.answer = answer
        """The network's."""
        self.rows = rows
        """(unsure,): the shots that the second decoder was asked about."""
        self._futures = futures
        self._told = told
        self._arrived: asyncio.Queue[int] = asyncio.Queue()
        self._began = time.perf_counter()
        self._ends = self._began + seconds
        loop = asyncio.get_running_loop()
        for place, future in enumerate(futures):
            future.add_done_callback(lambda _, place=place: _call(loop, self._arrived.put_nowait, place))  # type: ignore[misc]
        told(Opinion.FIRST, shots=len(answer.predictions) - len(rows))

    async def each(self) -> AsyncIterator[tuple[int, Bits, Opinion]]:
        """The shots asked about as their opinions arrive, those that are late at the end.

        Yields:
            The shot, its prediction bool (observables,), and who made it.
        """
        pending = dict.fromkeys(range(len(self._futures)))
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.perf_counter())):
                while pending:
                    place = await self._arrived.get()
                    del pending[place]
                    yield self._settled(place)
        except TimeoutError:
            pass
        finally:
            for place in pending:
                self._futures[place].cancel()
        for place in pending:
            yield self._settled(place)

    async def all(self) -> DecodeResult:
        """The answer with the opinions that are there in time."""
        predictions = self.answer.predictions.copy()
        opinions = np.zeros(len(predictions), np.uint8)
        async for row, prediction, opinion in self.each():
            predictions[row], opinions[row] = prediction, opinion
        return replace(self.answer, predictions=predictions, opinions=opinions)

    def _settled(self, place: int) -> tuple[int, Bits, Opinion]:
        row = int(self.rows[place])
        predictions, opinions = merge(self.answer.predictions[[row]], [self._futures[place]])
        opinion = Opinion(int(opinions[0]))
        self._told(opinion, seconds=time.perf_counter() - self._began if opinion is Opinion.SECOND else None)
        return row, predictions[0], opinion


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[int], None], place: int) -> None:
    if not loop.is_closed():  # as it may be when the service ends with opinions on their way
        loop.call_soon_threadsafe(function, place)
