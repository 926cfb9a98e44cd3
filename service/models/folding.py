"""Layers of many streams, folded into their states together as they arrive.

As with whole shots, a pass takes whatever arrived while the last one ran. It belongs to an event loop; the passes
run in a thread of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from decoder.base import Decoding, LayerFolder, Phase
from service.errors import BusyError, DecoderFailedError, ServiceError
from service.models.batching import Answer, BatchObserver
from simulation.bits import Bits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Step:
    """A layer to be folded into a stream's state.

    With an answer to give it is a last layer, after which the state is no longer needed, or a layer as if it were
    the last, after which the state has to be what it was: either way the result is read out and not kept.
    """

    phase: Phase
    layer: Bits
    answer: asyncio.Future[Answer] | None
    submitted: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class FoldedExperiment:
    """What a worker keeps of one stream."""

    state: Any = None
    """None before the first layer."""
    failure: ServiceError | None = None
    """What befell a layer; there is no answer then."""


_Batch = list[tuple[FoldedExperiment, _Step]]


class FoldWorker:
    """The states of the streams of one model and basis, and the thread that folds layers into them.

    Args:
        name: for the log and the thread's name.
        make: makes the folder; runs in the thread, which alone uses it.
        max_batch: most streams in one pass.
        max_waiting: most layers that may wait.
        on_batch: is told of the answers that were read out, like a batch of shots.
    """

    def __init__(
        self,
        *,
        name: str,
        make: Callable[[], LayerFolder],
        max_batch: int,
        max_waiting: int,
        on_batch: BatchObserver,
    ) -> None:
        self._name = name
        self._make = make
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"fold-{name}")
        self._folder: LayerFolder | None = None
        self._steps: dict[FoldedExperiment, deque[_Step]] = {}
        self._waiting = 0
        self._passes: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Waits until layers can be folded.

        Raises:
            ValueError, OSError: the folder cannot be made.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._made)

    def fold(self, experiment: FoldedExperiment, layer: Bits, *, phase: Phase) -> None:
        """Takes a layer, bool (detectors,), that is not the last.

        Raises:
            BusyError: too many layers wait.
            DecoderFailedError: an earlier layer could not be folded.
        """
        self._submit(experiment, _Step(phase, layer, answer=None))

    def answer(self, experiment: FoldedExperiment, layer: Bits) -> asyncio.Future[Answer]:
        """The answer, as if this layer were the last; nothing of it stays.

        Raises:
            BusyError, DecoderFailedError: as for `fold`; the future raises the latter, too.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._submit(experiment, _Step("last", layer, answer=future))
        return future

    def forget(self, experiment: FoldedExperiment) -> None:
        """Drops what waits to be folded into an experiment."""
        dropped = self._steps.pop(experiment, ())
        self._waiting -= len(dropped)
        for step in dropped:
            if step.answer is not None:
                step.answer.cancel()

    async def close(self) -> None:
        """Drops what waits, and stops the thread when the pass at work has ended."""
        self._steps.clear()
        self._waiting = 0
        if self._passes is not None:
            await asyncio.wait([self._passes])
        self._thread.shutdown(wait=False)

    def _submit(self, experiment: FoldedExperiment, step: _Step) -> None:
        if experiment.failure is not None:
            raise experiment.failure
        if self._waiting >= self._max_waiting:
            raise BusyError(
                f"{self._waiting} layers wait for model {self._name} and no more may; try again later", retry_after=1
            )
        self._steps.setdefault(experiment, deque()).append(step)
        self._waiting += 1
        if self._passes is None:
            self._passes = asyncio.create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._steps:
            batch = self._take()
            try:
                results = await loop.run_in_executor(self._thread, self._compute, batch)
            except Exception:
                logger.exception("model %s failed to fold %d layers", self._name, len(batch))
                self._fail(batch)
                continue
            for (experiment, step), result in zip(batch, results, strict=True):
                if step.answer is None:
                    experiment.state = result
                elif not step.answer.done():
                    step.answer.set_result(result)
        self._passes = None

    def _take(self) -> _Batch:
        """The next step of each experiment."""
        batch = [(experiment, steps.popleft()) for experiment, steps in self._steps.items()]
        self._waiting -= len(batch)
        self._steps = {experiment: steps for experiment, steps in self._steps.items() if steps}
        return batch

    def _fail(self, batch: _Batch) -> None:
        for experiment, step in batch:
            failure = experiment.failure = DecoderFailedError(f"model {self._name} failed to fold a layer; see the log")
            for lost in (step, *self._steps.get(experiment, ())):
                if lost.answer is not None and not lost.answer.done():
                    lost.answer.set_exception(failure)
                    lost.answer.exception()  # seen, even if nobody waits any more
            self.forget(experiment)

    # What follows runs in the thread.

    def _made(self) -> LayerFolder:
        if self._folder is None:
            self._folder = self._make()
        return self._folder

    def _compute(self, batch: _Batch) -> list[Any]:
        """For each step its `Answer`, or the experiment's state after it."""
        folder = self._made()
        results: dict[_Step, Any] = {}
        for phase in get_args(Phase):
            some = [(experiment, step) for experiment, step in batch if step.phase == phase]
            for begin in range(0, len(some), self._max_batch):
                part = some[begin : begin + self._max_batch]
                started = time.perf_counter()
                states = [folder.start() if experiment.state is None else experiment.state for experiment, _ in part]
                folded = folder.fold(states, np.stack([step.layer for _, step in part]), phase=phase)
                results |= zip((step for _, step in part), folded, strict=True)
                if phase == "last":
                    answers = _answers(folder.answer(folded), [step for _, step in part], started=started)
                    results |= zip((step for _, step in part), answers, strict=True)
                    self._on_batch(shots=len(part), seconds=time.perf_counter() - started)
        return [results[step] for _, step in batch]


def _answers(decoding: Decoding, steps: Sequence[_Step], *, started: float) -> Iterator[Answer]:
    seconds = time.perf_counter() - started
    for i, step in enumerate(steps):
        yield Answer(
            predictions=decoding.predictions[i : i + 1],
            confidence=decoding.confidence[i : i + 1],
            flip_probabilities=decoding.flip_probabilities[i : i + 1],
            queue_seconds=started - step.submitted,
            compute_seconds=seconds,
        )
