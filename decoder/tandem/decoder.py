"""The pair as a decoder: all shots for the first, those that it is unsure of for the second."""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder, Decoder, Decoding, SoftBatchDecoder, SoftDecoder, unpack_shots
from decoder.tandem.opinions import OpinionPool
from decoder.tandem.rule import Opinion, merge, seconds_left, unsure
from simulation.bits import Bits, PackedBits, pack_bits
from simulation.experiments import Experiment


@dataclass(frozen=True, eq=False)
class TandemDecoding(Decoding):
    """Predictions of the pair, with the first decoder's probabilities for all shots.

    Where the second decoder answered, the confidence is still that of the first in its own prediction, which may be a
    different one; it is below the threshold, and the lower, the more doubtful the shot.
    """

    opinions: npt.NDArray[np.uint8]
    """(shots,): of `Opinion`."""


class PooledDecoder(BatchDecoder):
    """The worker processes of a pool as the second decoder of one experiment, which can be left when time is up."""

    def __init__(self, pool: OpinionPool, experiment: Experiment) -> None:
        super().__init__(num_detectors=experiment.num_detectors, num_observables=experiment.num_observables)
        self.pool = pool
        self.experiment = experiment

    def ask(self, shots: PackedBits, *, seconds: float | None = None) -> list[Future[Bits]]:
        """See `OpinionPool.ask`."""
        return self.pool.ask(self.experiment, shots, seconds=seconds)

    def predict(self, events: Bits) -> Bits:
        """Waits for all answers; see `decoder.base.BatchDecoder`.

        Raises:
            NoOpinionError: there is no answer to one of the shots.
        """
        predictions = np.zeros((len(events), self.num_observables), dtype=np.bool_)
        for row, future in enumerate(self.ask(pack_bits(events))):
            predictions[row] = future.result()
        return predictions


class TandemDecoder(SoftBatchDecoder):
    """Decodes with the first decoder, and what that is unsure of with the second.

    Args:
        first: gives the probability that it is right.
        second: decodes shots of the same experiment. All unsure shots of a call go there in one batch.
        threshold: the second is asked where the first's confidence is below this, from 0 (never) to 1.
        deadline_ms: milliseconds from the beginning of a call to its end, but for the first decoder, which is always
            waited for; so the second is waited for until shortly before. With a `PooledDecoder` alone; None waits for
            all answers. On a machine with busy cores call `decoder.scheduling.take_short_slices` in the thread before.

    Raises:
        ValueError: decoders of different experiments, a threshold out of range, a deadline that is not above 0 or that
            the second cannot keep.
    """

    def __init__(
        self, first: SoftDecoder, second: Decoder, *, threshold: float, deadline_ms: float | None = None
    ) -> None:
        shapes = [(decoder.num_detectors, decoder.num_observables) for decoder in (first, second)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the first decoder has {shapes[0]} detectors and observables, the second {shapes[1]}; "
                "make both for one experiment"
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must be a probability, from 0 to 1")
        if deadline_ms is not None and not deadline_ms > 0:
            raise ValueError(f"deadline_ms={deadline_ms} must be above 0; leave it out to wait for all answers")
        if deadline_ms is not None and not isinstance(second, PooledDecoder):
            raise ValueError("a deadline needs a second decoder in worker processes; wrap it in a PooledDecoder")
        super().__init__(num_detectors=first.num_detectors, num_observables=first.num_observables)
        self.first = first
        self.second = second
        self.threshold = threshold
        self.deadline_ms = deadline_ms

    @property
    def model_info(self) -> dict[str, Any]:
        """What is known of the first decoder, and the threshold."""
        return {**getattr(self.first, "model_info", {}), "threshold": self.threshold}

    def decode_soft(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> TandemDecoding:
        """Predictions, who made each, and the first decoder's probabilities; see `decoder.base.SoftDecoder`."""
        return self.judge(unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots))

    def judge(self, events: Bits) -> TandemDecoding:
        """The same for detection events bool (shots, num_detectors)."""
        began = time.perf_counter()
        decoded = self.first.decode_soft(events)
        doubtful = np.flatnonzero(unsure(decoded.confidence, self.threshold))
        predictions = decoded.predictions.copy()
        opinions = np.zeros(len(predictions), np.uint8)
        if len(doubtful):
            asked = pack_bits(events[doubtful])
            predictions[doubtful], opinions[doubtful] = self._ask(asked, predictions[doubtful], began)
        return TandemDecoding(
            predictions=predictions,
            confidence=decoded.confidence,
            flip_probabilities=decoded.flip_probabilities,
            opinions=opinions,
        )

    def _ask(self, events: PackedBits, first: Bits, began: float) -> tuple[Bits, npt.NDArray[np.uint8]]:
        if not isinstance(self.second, PooledDecoder):
            predictions = self.second.decode_batch(events, bit_packed_shots=True)
            return predictions.astype(np.bool_), np.full(len(events), Opinion.SECOND, np.uint8)
        seconds = None
        if self.deadline_ms is not None:
            seconds = max(0.0, seconds_left(self.deadline_ms, began=began))
        futures = self.second.ask(events, seconds=seconds)
        wait(futures, timeout=seconds)
        return merge(first, futures)

    def close(self) -> None:
        """Ends the second decoder's processes, if it has any."""
        if isinstance(self.second, PooledDecoder):
            self.second.pool.close()
