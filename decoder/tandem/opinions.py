"""Second opinions: single shots decoded in worker processes, each answer on its own.

A worker that crashes or hangs costs the shot that it was decoding and no other; a new one takes its place.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from decoder.catalog import ClassicalDecoder
from decoder.processes import ChildProcess, decode_packed, decoder_key
from decoder.scheduling import take_short_slices
from simulation.bits import Bits, PackedBits, unpack_bits
from simulation.experiments import Experiment
from simulation.shots.sampling import sample, usable_cores

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""A worker that decodes one shot for longer is taken to hang."""
OFFLINE_PATIENCE_SECONDS = 600.0
"""The same where no client waits: a worker that first compiles its kernels takes minutes on a busy machine."""
MAX_WAITING = 4096
"""Shots in the queue of a pool; further ones get no opinion."""
ENOUGH_OPINIONS = 20
"""Opinions on an experiment from which the quickest is known: a shot that must be answered sooner is not queued."""
MEMORY_SECONDS = 600.0
"""How long after the last opinion on an experiment the quickest is believed; later, workers may have become faster."""
MAX_REMEMBERED = 256
"""Experiments whose quickest opinion is kept."""
WARM_UP_SAMPLES = 1000
"""Shots that are drawn to find hard ones among them."""
WARM_UP_SECONDS = 2.0
"""A worker begins no further shot of the warm-up after that time."""
CACHED_DECODERS = 8
"""Decoders that each worker keeps, one for each experiment."""
NICENESS = 10
"""Of the workers: when cores are scarce, the first decoder, on which all shots wait, goes first."""

FAILURES_IN_A_ROW = 3
"""Failures after which a worker is left alone for a while: starting processes that crash keeps cores busy."""
MOST_REST_SECONDS = 10.0
"""The longest such while."""

Job = tuple[Future[Bits], Experiment, PackedBits]


class NoOpinionError(RuntimeError):
    """The second decoder has no answer: it crashed, hung, is not installed or has too much to do."""


@dataclass(frozen=True)
class _Quickest:
    """How long the opinions on one experiment take at least."""

    seconds: float
    """Of the quickest opinion."""
    opinions: int
    """How many there were."""
    when: float
    """The time of the last one, by `time.perf_counter`."""


class _Rest:
    """A context for calls that may fail: after several failures in a row it refuses, twice as long after each.

    Raises:
        NoOpinionError: on entering, while the worker is left alone.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._ends = 0.0

    def __enter__(self) -> None:
        if time.perf_counter() < self._ends:
            raise NoOpinionError(
                f"the second decoder failed {self._failures} times in a row and is not asked for a while"
            )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._failures = 0 if kind is None else self._failures + 1
        if (beyond := self._failures - FAILURES_IN_A_ROW) >= 0:
            self._ends = time.perf_counter() + min(MOST_REST_SECONDS, 2.0 ** min(beyond, 10))


class OpinionPool:
    """Worker processes that decode shots one by one, those of all experiments of one decoder.

    Workers start when they are first needed. Call `close` at the end.

    Args:
        name: the decoder, a classical one of `decoder.catalog.DECODERS`.
        processes: how many; None for one on each core but one.
        patience_seconds: a worker that is at one shot for longer is replaced. Counts the start of a worker, too.
        max_waiting: the most shots that may wait; None for any number.

    Raises:
        ValueError: a decoder that there is not, or that is not classical; a number below 1, or not above 0 seconds.
    """

    def __init__(
        self,
        name: str,
        *,
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
        self._make = ClassicalDecoder(name)
        self._max_waiting = max_waiting
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.closed = False
        self._last_warning = ""
        self._quickest: dict[Experiment, _Quickest] = {}
        self.children = tuple(
            ChildProcess(size=CACHED_DECODERS, patience_seconds=patience_seconds, niceness=NICENESS)
            for _ in range(processes)
        )
        self._threads = [
            threading.Thread(target=self._work, args=(child,), name=f"opinion-{name}-{i}", daemon=True)
            for i, child in enumerate(self.children)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """About how many shots are queued; those being decoded are not counted."""
        return self._jobs.qsize()

    def ask(self, experiment: Experiment, shots: PackedBits, *, seconds: float | None = None) -> list[Future[Bits]]:
        """Queues shots for the workers.

        Args:
            experiment: whose shots they are.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)).
            seconds: how long somebody waits for them; None for ever. Where no shot was answered that quickly lately,
                nobody needs to wait, and no worker is kept busy: the futures are cancelled.

        Returns:
            For each shot what becomes its prediction, bool (observables,), or raises `NoOpinionError`. Cancelling
            takes a shot out again, unless it is being decoded already.

        Raises:
            RuntimeError: `close` was called.
        """
        if self.closed:
            raise RuntimeError("the pool is closed")
        in_vain = seconds is not None and seconds <= self._least_seconds(experiment)
        futures: list[Future[Bits]] = []
        for shot in shots:
            future: Future[Bits] = Future()
            futures.append(future)
            if in_vain:
                future.cancel()
                future.set_running_or_notify_cancel()
            elif self._max_waiting is not None and self.waiting >= self._max_waiting:
                future.set_exception(NoOpinionError(f"{self._max_waiting} shots wait for {self.name} already"))
            else:
                self._jobs.put((future, experiment, shot[None]))
        return futures

    def warm_up(self, experiment: Experiment) -> None:
        """Starts every worker and lets it decode hard shots of an experiment, so that it is known how long those take.

        Raises:
            NoOpinionError: the decoder cannot be made.
        """
        events = sample(experiment.circuit, shots=WARM_UP_SAMPLES, seed=0).detection_events
        # Most detection events: the first decoder is sure of the easy ones, and they take the second no time.
        hardest = events[np.argsort(np.bitwise_count(events).sum(1))[-ENOUGH_OPINIONS:]]
        problems: list[NoOpinionError] = []

        def warm(child: ChildProcess) -> None:
            try:
                self._decode(child, experiment, hardest[:1])  # makes the decoder
                ends = time.perf_counter() + WARM_UP_SECONDS
                for shot in hardest:
                    if (began := time.perf_counter()) < ends:
                        self._decode(child, experiment, shot[None])
                        self._took(experiment, time.perf_counter() - began)
            except NoOpinionError as error:
                problems.append(error)

        threads = [threading.Thread(target=warm, args=(child,)) for child in self.children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]

    def close(self) -> None:
        """Ends the workers in the midst of what they do. Shots that wait get no answer."""
        self.closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for child, thread in zip(self.children, self._threads, strict=True):
            child.close()
            while thread.is_alive():
                thread.join(0.1)
                child.close()  # again, as it may just have been starting

    def warn(self, error: NoOpinionError) -> None:
        """Logs why there is no opinion; the same reason again only after an opinion has succeeded."""
        if str(error) != self._last_warning:
            self._last_warning = str(error)
            logger.warning("%s", error)

    def _work(self, child: ChildProcess) -> None:
        # This thread holds the interpreter's lock when it wakes up; while it waits for a core, no other thread runs.
        take_short_slices()
        known: deque[Experiment] = deque(maxlen=CACHED_DECODERS)
        rest = _Rest()
        while (job := self._jobs.get()) is not None:
            future, experiment, shot = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if self.closed:
                    raise NoOpinionError("the pool was closed")
                began = time.perf_counter()
                with rest:
                    prediction = self._decode(child, experiment, shot)
            except NoOpinionError as error:
                if not self.closed:
                    self.warn(error)
                future.set_exception(error)
                continue
            if experiment in known:  # otherwise the decoder may have had to be made
                self._took(experiment, time.perf_counter() - began)
            else:
                known.append(experiment)
            future.set_result(prediction)

    def _least_seconds(self, experiment: Experiment) -> float:
        """The quickest opinion on an experiment so far; 0 where there were too few, or none lately."""
        known = self._quickest.get(experiment)
        if known is None or known.opinions < ENOUGH_OPINIONS or time.perf_counter() - known.when > MEMORY_SECONDS:
            return 0.0
        return known.seconds

    def _took(self, experiment: Experiment, seconds: float) -> None:
        now = time.perf_counter()
        known = self._quickest.get(experiment)
        if known is None or now - known.when > MEMORY_SECONDS:
            known = _Quickest(seconds, 0, now)
        if len(self._quickest) > MAX_REMEMBERED:
            self._quickest.clear()
        self._quickest[experiment] = _Quickest(min(seconds, known.seconds), known.opinions + 1, now)

    def _decode(self, child: ChildProcess, experiment: Experiment, shot: PackedBits) -> Bits:
        try:
            packed = child.call(decode_packed, decoder_key(self._make, experiment), shot)
        except Exception as error:
            raise NoOpinionError(f"no second opinion of {self.name}: {error}") from error
        self._last_warning = ""
        prediction: Bits = unpack_bits(packed, experiment.num_observables)[0]
        return prediction
