"""Dynamic batching: one worker thread decodes for one model.

A batch is whatever queued while the last one ran, so a lone request never waits for company, and a crowd shares the
cost of a pass.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from decoder.base import BatchDecoder, Decoder, Decoding, Piece, unpack_shots
from decoder.processes import ChildEndedError
from service.errors import (
    BusyError,
    ClosingError,
    DecoderFailedError,
    DecodeTimeoutError,
    RequestError,
    TooManyShotsError,
)
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits

T = TypeVar("T")

logger = logging.getLogger(__name__)

RETRY_AFTER_BOUNDS = (1, 60)
"""Least and most seconds after which a client is told to come back, whatever the estimate says."""


PIECE_SECONDS = 1.0
"""Decoders that take shots one after the other begin none of a batch later than that: what waits has its turn then."""
MAX_BATCH_SECONDS = 2.0
"""Others get no more shots at once than they took so long for, going by the slowest batch lately."""
MOST_ANSWER_BYTES = 2**24
"""Of one request, a byte for each bit that is told of each shot."""
MOST_ANSWERS_BYTES = 2**27
"""Of all requests that one model works for."""
FORGOTTEN = 0.9
"""Of how slow a shot was, what still counts after each further batch."""


class BatchObserver(Protocol):
    """Is called in the worker thread after each batch."""

    def __call__(self, *, shots: int, seconds: float, hurried: int) -> None: ...


@dataclass(eq=False)
class _Job:
    """The shots of one request."""

    decoder: Decoder
    shots: PackedBits
    future: asyncio.Future[DecodeResult]
    submitted: float = field(default_factory=time.perf_counter)
    taken: int = 0
    """How many of the shots have been put into batches."""
    compute_seconds: float = 0.0
    alone: bool = False
    """Whether each of its shots is a batch of its own, as one that it shared was lost with the decoder's process."""
    parts: list[Decoding | Piece] = field(default_factory=list)
    """The decoded shots, batch by batch."""

    @property
    def answer_bytes(self) -> int:
        return len(self.shots) * self.decoder.num_observables

    def result(self) -> DecodeResult:
        queue_seconds = max(0.0, time.perf_counter() - self.submitted - self.compute_seconds)
        soft = [part for part in self.parts if isinstance(part, Decoding)]
        if not soft:
            whole = Piece.concatenate([part for part in self.parts if isinstance(part, Piece)])
            return DecodeResult(
                whole.predictions, None, None, queue_seconds, self.compute_seconds, hurried=whole.hurried
            )
        decoding = Decoding.concatenate(soft)
        return DecodeResult(
            decoding.predictions, decoding.confidence, decoding.flip_probabilities, queue_seconds, self.compute_seconds
        )


Batch = list[tuple[_Job, PackedBits]]
"""Jobs, each with those of its shots that are in this batch."""
Outcomes = Mapping[_Job, DecodeResult | BaseException]


class BatchWorker:
    """A bounded queue of jobs, filled by one event loop, and the thread that works it off.

    Args:
        name: the model, for the log and the thread's name.
        max_batch_shots: most shots a decoder is handed at once. A longer job takes several batches, and
            others have their turn in between.
        max_queued_shots: most shots that may wait.
        on_batch: is called after each batch.
    """

    def __init__(
        self, *, name: str, max_batch_shots: int, max_queued_shots: int, on_batch: BatchObserver | None = None
    ) -> None:
        self._name = name
        self._max_batch_shots = max_batch_shots
        self._max_queued_shots = max_queued_shots
        self._on_batch = on_batch
        self._jobs: list[_Job] = []  # those with shots that no batch has taken yet
        self._waiting = 0  # these shots
        self._unanswered: set[_Job] = set()
        self._answers_bytes = 0  # of these
        self._changed = threading.Condition()  # guards the four above
        self._closed = False
        self._seconds_per_shot = 0.0
        self._slowest: WeakKeyDictionary[Decoder, float] = WeakKeyDictionary()  # seconds for a shot, of each decoder
        # A daemon, so that a second Ctrl-C ends the process even while a decoder runs.
        self._thread = threading.Thread(target=self._run, name=f"decode-{name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def queued_shots(self) -> int:
        """Shots that wait, those of the batch at work not counted."""
        with self._changed:
            return self._waiting

    async def decode(self, decoder: Decoder, shots: PackedBits) -> DecodeResult:
        """Queues shots and waits for the result. Cancelling removes those that are not in a batch yet.

        Args:
            decoder: decodes the shots; jobs with the same decoder share batches.
            shots: bit-packed uint8 (shots, ceil(detectors / 8)), at least one shot.

        Raises:
            TooManyShotsError: their answers are too long for one request.
            BusyError: the queue is full.
            ClosingError: `close` was called.
            DecoderFailedError: the decoder raised on the batch.
            DecodeTimeoutError: the decoder's process took too long for one of the shots.
        """
        job = _Job(decoder, shots, asyncio.get_running_loop().create_future())
        if job.answer_bytes > MOST_ANSWER_BYTES:
            bits, most = decoder.num_observables, MOST_ANSWER_BYTES // decoder.num_observables
            detail = f"{len(shots)} shots with answers of {bits} bits each in one request, at most {most} are allowed"
            raise TooManyShotsError(f"{detail}; send them in parts")
        with self._changed:
            if self._closed:
                raise ClosingError("the service is shutting down; send the shots to another instance")
            full = self._answers_bytes + job.answer_bytes > MOST_ANSWERS_BYTES
            if full or self._waiting + len(shots) > self._max_queued_shots:
                raise BusyError(
                    f"{self._waiting} shots wait for model {self._name} and at most {self._max_queued_shots} may; "
                    "try again later",
                    retry_after=self._retry_after(),
                )
            self._jobs.append(job)
            self._unanswered.add(job)
            self._answers_bytes += job.answer_bytes
            self._waiting += len(shots)
            self._changed.notify_all()
        try:
            return await job.future
        except asyncio.CancelledError as error:
            self._withdraw(job)
            self._settle({job: error})
            raise

    def expect(self, decoder: Decoder, *, seconds: float) -> None:
        """Says how long a decoder takes for a hard shot, from which its batches are bounded before its first one."""
        self._slowest[decoder] = seconds

    def close(self) -> None:
        """Refuses new jobs and returns when those queued are answered; not in the event loop's thread.

        A batch whose requests were all cancelled is not waited for, as it may take long.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._unanswered)

    def _retry_after(self) -> int:
        low, high = RETRY_AFTER_BOUNDS
        return min(max(math.ceil(self._waiting * self._seconds_per_shot), low), high)

    def _withdraw(self, job: _Job) -> None:
        """Takes what is left of a job out of the queue."""
        with self._changed:
            self._forget(job)
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.shots) - job.taken

    def _forget(self, job: _Job) -> None:
        if job in self._unanswered:
            self._unanswered.remove(job)
            self._answers_bytes -= job.answer_bytes

    def _settle(self, outcomes: Outcomes) -> None:
        """Hands the outcomes to the requests that wait for them; in their event loop."""
        for job, outcome in outcomes.items():
            if job.future.done():
                continue  # the request was cancelled meanwhile
            if isinstance(outcome, DecodeResult):
                job.future.set_result(outcome)
            else:
                job.future.set_exception(outcome)
        with self._changed:
            for job in outcomes:
                self._forget(job)
            if self._closed:  # `close` waits for this; otherwise the thread would wake up for nothing
                self._changed.notify_all()

    # What follows runs in the thread.

    def _run(self) -> None:
        while batch := self._next_batch():
            if outcomes := self._decode(batch):
                # One call for all that a batch answers: each wakes the loop, which takes the interpreter's lock.
                loop = batch[0][0].future.get_loop()
                with suppress(RuntimeError):  # the loop has ended, and with it all who waited
                    loop.call_soon_threadsafe(self._settle, outcomes)

    def _next_batch(self) -> Batch:
        """Waits for jobs, and takes shots of all that have the first one's decoder; empty at the end."""
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return []
                self._changed.wait()
            decoder, alone = self._jobs[0].decoder, self._jobs[0].alone
            most = room = 1 if alone else self._most_shots(decoder)
            batch: Batch = []
            passed_over: list[_Job] = []
            unfinished: list[_Job] = []
            for job in self._jobs:
                if job.decoder is not decoder or not room or job.alone is not alone:
                    passed_over.append(job)
                    continue
                piece = job.shots[job.taken : job.taken + room]
                job.taken += len(piece)
                room -= len(piece)
                batch.append((job, piece))
                if job.taken < len(job.shots):
                    unfinished.append(job)
            self._waiting -= most - room
            # What is left of a long job goes to the back, so that short ones are not stuck behind it.
            self._jobs = passed_over + unfinished
            return batch

    def _most_shots(self, decoder: Decoder) -> int:
        seconds = self._slowest.get(decoder, 0.0)
        return max(1, int(min(self._max_batch_shots, MAX_BATCH_SECONDS / seconds if seconds else math.inf)))

    def _decode(self, batch: Batch) -> Outcomes:
        """Decodes a batch: the outcomes of the jobs whose last shots are in it.

        Whatever goes wrong, also for want of memory, is an outcome: without this thread the model would answer nothing.
        """
        count = sum(len(piece) for _, piece in batch)
        error: RequestError
        try:
            return self._decoded(batch)
        except (TimeoutError, ChildEndedError) as lost:
            logger.error("model %s lost a batch of %d shots: %s", self._name, count, lost)
            if count > 1:  # one of them costs the others nothing but time
                for job, piece in batch:
                    job.alone = True
                    self._put_back(job, shots=len(piece))
                return {}
            if isinstance(lost, TimeoutError):
                error = DecodeTimeoutError(f"model {self._name} takes too long for one of these shots; leave it out")
            else:
                error = DecoderFailedError(f"one of these shots ends the decoder of model {self._name}; see the log")
        except Exception:
            logger.exception("model %s failed on a batch of %d shots", self._name, count)
            error = DecoderFailedError(f"the decoder of model {self._name} failed on these shots; see the log")
        for job, _ in batch:
            self._withdraw(job)
        return dict.fromkeys((job for job, _ in batch), error)

    def _put_back(self, job: _Job, *, shots: int) -> None:
        """Queues the last shots that were taken of a job again, unless nobody waits for them any more."""
        with self._changed:
            job.taken -= shots
            if job not in self._unanswered:
                return
            if job in self._jobs:  # with what no batch had taken yet
                self._jobs.remove(job)
            self._jobs.append(job)
            self._waiting += shots

    def _decoded(self, batch: Batch) -> Outcomes:
        shots = batch[0][1] if len(batch) == 1 else np.concatenate([piece for _, piece in batch])
        started = time.perf_counter()
        decoder = batch[0][0].decoder
        decoded = decode_some(decoder, shots)
        seconds = time.perf_counter() - started
        pace = seconds / len(decoded)
        self._seconds_per_shot += 0.2 * (pace - self._seconds_per_shot)
        if decoder in self._slowest:
            self._slowest[decoder] = max(pace, FORGOTTEN * self._slowest[decoder])
        if self._on_batch is not None:
            hurried = int(decoded.hurried.sum()) if isinstance(decoded, Piece) else 0
            self._on_batch(shots=len(decoded), seconds=seconds, hurried=hurried)
        outcomes: dict[_Job, DecodeResult | BaseException] = {}
        begin = 0
        for job, piece in batch:
            end = min(begin + len(piece), len(decoded))
            if end > begin:
                job.parts.append(decoded if len(batch) == 1 else decoded[begin:end])
                job.compute_seconds += seconds
            if end < begin + len(piece):
                self._put_back(job, shots=begin + len(piece) - end)
            elif job.taken == len(job.shots):
                outcomes[job] = job.result()
            begin = end
        return outcomes


class InPieces(BatchDecoder):
    """A decoder that is given a few shots at a time, so that none waits long for the others of its batch.

    Args:
        num_detectors, num_observables: see `decoder.base.Decoder`.
        at_once: how many shots it is given.
    """

    def __init__(self, *, num_detectors: int, num_observables: int, at_once: int) -> None:
        super().__init__(num_detectors=num_detectors, num_observables=num_observables)
        self.at_once = at_once

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece:
        """See `decoder.base.PiecewiseDecoder`."""
        ends = time.perf_counter() + seconds
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=True)
        parts = [self.part(events[: self.at_once])]
        for first in range(self.at_once, len(events), self.at_once):
            if time.perf_counter() >= ends:
                break
            parts.append(self.part(events[first : first + self.at_once]))
        return Piece.concatenate(parts)

    def part(self, events: Bits) -> Piece:
        """Decodes so few shots, bool (shots, detectors)."""
        rows = self.predict(events)
        return Piece(rows, np.zeros(len(rows), dtype=np.bool_))


def kept_with(decoder: Decoder, key: Hashable, make: Callable[[], T]) -> T:
    """What is made of a decoder, made once for each key. It goes when the decoder does."""
    kept: dict[Hashable, Any] = vars(decoder).setdefault("_kept_with", {})
    if key not in kept:
        kept[key] = make()
    found: T = kept[key]
    return found


def decode_some(decoder: Decoder, shots: PackedBits) -> Decoding | Piece:
    """Decodes bit-packed shots (shots, ceil(detectors / 8)), with probabilities where the decoder has them.

    Returns:
        All of them, or of a `PiecewiseDecoder` those that it has begun within `PIECE_SECONDS`.

    Raises:
        ValueError: the decoder's predictions do not have the shape they must have.
    """
    decoded: Decoding | Piece
    # Not isinstance: with a protocol that would take as long as all the rest that is done for a batch here.
    if hasattr(decoder, "decode_soft"):
        decoded = decoder.decode_soft(shots, bit_packed_shots=True)
    elif hasattr(decoder, "decode_piece"):
        decoded = decoder.decode_piece(shots, seconds=PIECE_SECONDS)
    else:
        predictions = decoder.decode_batch(shots, bit_packed_shots=True).astype(np.bool_, copy=False)
        decoded = Piece(predictions, np.zeros(len(shots), dtype=np.bool_))
    count, shape = len(decoded), decoded.predictions.shape
    whole = count == len(shots) or (0 < count < len(shots) and hasattr(decoder, "decode_piece"))
    if not whole or shape != (count, decoder.num_observables):
        raise ValueError(f"{type(decoder).__name__} answered {len(shots)} shots with predictions of shape {shape}")
    return decoded
