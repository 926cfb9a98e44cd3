"""Dynamic batching: one worker thread decodes for one model.

A batch is whatever queued while the last one ran, so a lone request never waits for company and a crowd
shares the cost of a pass. Nothing here knows of HTTP or of event loops.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from decoder.base import Decoder, Decoding, SoftDecoder
from service.errors import BusyError, ClosingError, DecoderFailedError
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits

logger = logging.getLogger(__name__)

RETRY_AFTER_BOUNDS = (1, 60)
"""Seconds; the estimate of when the queue has room again is cut to this."""


class BatchObserver(Protocol):
    """Is told of each batch that was decoded, by the worker thread."""

    def __call__(self, *, shots: int, seconds: float) -> None: ...


Deliver = Callable[[Callable[[], None]], object]
"""Runs what tells those who wait of the outcome of a batch; not in the worker's thread, perhaps."""


@dataclass(eq=False)
class _Job:
    decoder: Decoder
    shots: PackedBits
    future: Future[DecodeResult] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)
    taken: int = 0
    compute_seconds: float = 0.0
    parts: list[Decoding | Bits] = field(default_factory=list)

    @property
    def remaining(self) -> int:
        return len(self.shots) - self.taken

    def take(self, most: int) -> PackedBits:
        piece = self.shots[self.taken : self.taken + most]
        self.taken += len(piece)
        return piece

    def settle(self, outcome: DecodeResult | Exception) -> None:
        # False where the client gave up in the meantime: nobody waits for the answer.
        if self.future.set_running_or_notify_cancel():
            if isinstance(outcome, DecodeResult):
                self.future.set_result(outcome)
            else:
                self.future.set_exception(outcome)

    def answer(self) -> DecodeResult:
        soft = [part for part in self.parts if isinstance(part, Decoding)]
        predictions = [part.predictions if isinstance(part, Decoding) else part for part in self.parts]
        return DecodeResult(
            predictions=np.concatenate(predictions),
            confidence=np.concatenate([part.confidence for part in soft]) if soft else None,
            flip_probabilities=np.concatenate([part.flip_probabilities for part in soft]) if soft else None,
            queue_seconds=max(0.0, time.perf_counter() - self.submitted - self.compute_seconds),
            compute_seconds=self.compute_seconds,
        )


Outcomes = list[tuple[_Job, DecodeResult | Exception]]


class BatchWorker:
    """A bounded queue of jobs and the thread that works it off.

    Args:
        name: the model, for the log and the thread's name.
        max_batch_shots: most shots a decoder is handed at once. A longer job takes several batches, and
            others have their turn in between.
        max_queued_shots: most shots that may wait.
        on_batch: is told of each batch.
        deliver: is handed the outcome of all jobs of a batch at once; by default it is told in the worker's thread.
    """

    def __init__(
        self,
        *,
        name: str,
        max_batch_shots: int,
        max_queued_shots: int,
        on_batch: BatchObserver | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self._name = name
        self._max_batch_shots = max_batch_shots
        self._max_queued_shots = max_queued_shots
        self._on_batch = on_batch
        self._deliver = deliver or (lambda settle: settle())
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # shots of these jobs that no batch has taken yet
        self._unsettled: set[_Job] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_per_shot = 0.0
        # A daemon, so that a second Ctrl-C ends the process even while a decoder runs.
        self._thread = threading.Thread(target=self._run, name=f"decode-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def queued_shots(self) -> int:
        """Shots that wait, those of the batch at work not counted."""
        with self._changed:
            return self._waiting

    def submit(self, decoder: Decoder, shots: PackedBits) -> Future[DecodeResult]:
        """Queues shots. Cancelling the future takes them out again, unless they are being decoded already.

        Args:
            decoder: decodes the shots; jobs with the same decoder share batches.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)), at least one shot.

        Raises:
            BusyError: the queue is full.
            ClosingError: `close` was called.
        """
        job = _Job(decoder, shots)
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        with self._changed:
            if self._closed:
                raise ClosingError("the service is shutting down; send the shots to another instance")
            if self._waiting + len(shots) > self._max_queued_shots:
                raise BusyError(
                    f"{self._waiting} shots wait for model {self._name} and at most {self._max_queued_shots} may; "
                    "try again later",
                    retry_after=self._retry_after(self._waiting),
                )
            self._jobs.append(job)
            self._waiting += len(shots)
            self._changed.notify_all()
        return job.future

    def close(self) -> None:
        """Refuses new jobs and returns when those queued are answered.

        A batch that nobody waits for any more is left to itself, as it may take long.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: all(job.future.done() for job in (*self._jobs, *self._unsettled)))

    def _retry_after(self, waiting: int) -> int:
        low, high = RETRY_AFTER_BOUNDS
        return min(max(math.ceil(waiting * self._seconds_per_shot), low), high)

    def _forget(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= job.remaining
            self._changed.notify_all()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._deliver(partial(self._settle, self._decode(batch)))

    def _settle(self, outcomes: Outcomes) -> None:
        for job, outcome in outcomes:
            job.settle(outcome)
        with self._changed:
            self._unsettled = {job for job in self._unsettled if not job.future.done()}
            self._changed.notify_all()

    def _next_batch(self) -> list[tuple[_Job, PackedBits]]:
        """Waits for work; empty when closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return self._take() if self._jobs else []

    def _take(self) -> list[tuple[_Job, PackedBits]]:
        decoder, room = self._jobs[0].decoder, self._max_batch_shots
        batch: list[tuple[_Job, PackedBits]] = []
        others: deque[_Job] = deque()
        unfinished: list[_Job] = []
        for job in self._jobs:
            if job.decoder is not decoder or room == 0:
                others.append(job)
                continue
            piece = job.take(room)
            room -= len(piece)
            batch.append((job, piece))
            if job.remaining:
                unfinished.append(job)
        self._waiting -= sum(len(piece) for _, piece in batch)
        # What is left of a long job goes to the back, so that short ones are not stuck behind it.
        self._jobs = others
        self._jobs.extend(unfinished)
        self._unsettled.update(job for job, _ in batch)
        return batch

    def _decode(self, batch: list[tuple[_Job, PackedBits]]) -> Outcomes:
        """The outcomes of the jobs that a batch ends."""
        pieces = [piece for _, piece in batch]
        shots = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        started = time.perf_counter()
        try:
            decoded = decode_packed(batch[0][0].decoder, shots)
        except Exception:
            logger.exception("model %s failed on a batch of %d shots", self._name, len(shots))
            return self._failed([job for job, _ in batch])
        seconds = time.perf_counter() - started
        self._seconds_per_shot += 0.2 * (seconds / len(shots) - self._seconds_per_shot)
        if self._on_batch is not None:
            self._on_batch(shots=len(shots), seconds=seconds)
        begin = 0
        for job, piece in batch:
            end = begin + len(piece)
            job.parts.append(decoded[begin:end])
            job.compute_seconds += seconds
            begin = end
        return [(job, job.answer()) for job, _ in batch if not job.remaining]

    def _failed(self, jobs: list[_Job]) -> Outcomes:
        for job in jobs:
            self._forget(job)  # what is left of it
        error = DecoderFailedError(f"the decoder of model {self._name} failed on these shots; see the log")
        return [(job, error) for job in jobs]


def decode_packed(decoder: Decoder, shots: PackedBits) -> Decoding | Bits:
    """Decodes bit-packed shots (shots, ceil(detectors / 8)), with probabilities where the decoder has them.

    Raises:
        ValueError: the decoder's answer does not have the shape it must have.
    """
    decoded: Decoding | Bits
    if isinstance(decoder, SoftDecoder):
        decoded = decoder.decode_soft(shots, bit_packed_shots=True)
    else:
        decoded = decoder.decode_batch(shots, bit_packed_shots=True).astype(np.bool_, copy=False)
    shape = _predictions(decoded).shape
    if shape != (len(shots), decoder.num_observables):
        raise ValueError(f"{type(decoder).__name__} answered {len(shots)} shots with predictions of shape {shape}")
    return decoded


def _predictions(decoded: Decoding | Bits) -> Bits:
    return decoded.predictions if isinstance(decoded, Decoding) else decoded
