"""Second opinions: single shots decoded in worker processes, each answer on its own.

A worker that crashes or hangs costs the shot that it was at, never more; another takes its place.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from decoder.base import Bits, PackedBits
from decoder.processes import ChildProcess
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample, usable_cores

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""A worker that is at one shot for longer has hung."""
MAX_WAITING = 4096
NICENESS = 10
"""The workers stand back, so that the first decoder, for which everything waits, has a core when it needs one."""

Job = tuple[Future[Bits], MemoryExperiment, PackedBits]


class NoOpinionError(RuntimeError):
    """The second decoder has no answer: it crashed, hung, is not installed or has too much to do."""


class OpinionPool:
    """Worker processes that decode shots one by one, those of all experiments of one decoder.

    Workers start when they are first needed. Call `close` at the end.

    Args:
        name: the decoder, one of `decoder.registry.DECODERS`.
        weights: those of the neural decoder.
        processes: how many; None for one on each core but one.
        patience_seconds: a worker that is at one shot for longer is replaced. Counts the start of a worker, too.
        max_waiting: the most shots that may wait; None for any number.

    Raises:
        ValueError: a number below 1, or not above 0 seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: Path | None = None,
        processes: int | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        max_waiting: int | None = MAX_WAITING,
    ) -> None:
        processes = max(1, usable_cores() - 1) if processes is None else processes
        if processes < 1 or (max_waiting is not None and max_waiting < 1) or not patience_seconds > 0:
            raise ValueError(
                f"processes={processes} and max_waiting={max_waiting} must be at least 1, and "
                f"patience_seconds={patience_seconds} above 0"
            )
        self.name = name
        self.processes = processes
        self._weights = weights
        self._max_waiting = max_waiting
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.closed = False
        self._last_warning = ""
        self._children = [
            ChildProcess(size=8, patience_seconds=patience_seconds, niceness=NICENESS) for _ in range(processes)
        ]
        self._threads = [
            threading.Thread(target=self._work, args=(child,), name=f"opinion-{name}-{i}", daemon=True)
            for i, child in enumerate(self._children)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """About how many shots wait, those at work not counted."""
        return self._jobs.qsize()

    def ask(self, experiment: MemoryExperiment, shots: PackedBits) -> list[Future[Bits]]:
        """Queues shots for the workers.

        Args:
            experiment: whose shots they are.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)).

        Returns:
            For each shot what becomes its prediction, bool (observables,), or raises `NoOpinionError`. Cancelling
            takes a shot out again, unless it is being decoded already.

        Raises:
            RuntimeError: `close` was called.
        """
        if self.closed:
            raise RuntimeError("the pool is closed")
        futures: list[Future[Bits]] = []
        for shot in shots:
            future: Future[Bits] = Future()
            futures.append(future)
            if self._max_waiting is not None and self.waiting >= self._max_waiting:
                future.set_exception(NoOpinionError(f"{self._max_waiting} shots wait for {self.name} already"))
            else:
                self._jobs.put((future, experiment, shot[None]))
        return futures

    def warm_up(self, experiment: MemoryExperiment) -> None:
        """Starts every worker and lets it decode a shot of an experiment.

        Raises:
            NoOpinionError: the decoder cannot be made.
        """
        shots = sample(experiment.circuit, shots=1, seed=0).detection_events
        problems: list[NoOpinionError] = []

        def warm(child: ChildProcess) -> None:
            try:
                self._decode(child, experiment, shots)
            except NoOpinionError as error:
                problems.append(error)

        threads = [threading.Thread(target=warm, args=(child,)) for child in self._children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    def close(self) -> None:
        """Ends the workers, whatever they are at. What waits gets no answer."""
        self.closed = True
        for child in self._children:
            child.close()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def warn(self, error: NoOpinionError) -> None:
        """Puts into the log why there is no opinion, the same reason once until there is one again."""
        if str(error) != self._last_warning:
            self._last_warning = str(error)
            logger.warning("%s", error)

    def run_everywhere(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """The answers of all workers to a function, such as `os.getpid`."""
        return [child.call(function, *args) for child in self._children]

    def _work(self, child: ChildProcess) -> None:
        while (job := self._jobs.get()) is not None:
            future, experiment, shot = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if self.closed:
                    raise NoOpinionError("the pool was closed")
                future.set_result(self._decode(child, experiment, shot))
            except NoOpinionError as error:
                if not self.closed:
                    self.warn(error)
                future.set_exception(error)

    def _decode(self, child: ChildProcess, experiment: MemoryExperiment, shot: PackedBits) -> Bits:
        try:
            decoder = child.decoder(self.name, experiment, weights=self._weights)
            predictions = decoder.decode_batch(shot, bit_packed_shots=True)
        except Exception as error:
            raise NoOpinionError(f"no second opinion of {self.name}: {error}") from error
        self._last_warning = ""
        return np.asarray(predictions[0], dtype=np.bool_)
