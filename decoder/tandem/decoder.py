"""The pair as a decoder: all shots for the first, those that it is unsure of for the second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder.base import Bits, Decoder, Decoding, PackedBits, SoftDecoder, pack_bits, unpack_shots
from decoder.tandem.opinions import OpinionPool
from simulation.circuits import MemoryExperiment

HANDOVER_SECONDS = 1e-3
"""So long before a deadline waiting ends: a thread that slept may have to wait for a core, and then tells others."""


class Opinion(IntEnum):
    """Who answered a shot, and why."""

    FIRST = 0
    """The first decoder, which was sure."""
    SECOND = 1
    """The second decoder."""
    LATE = 2
    """The first, as the second was not there by the deadline."""
    FAILED = 3
    """The first, as the second crashed, hung, could not be made or had too much to do."""


@dataclass(frozen=True, eq=False)
class TandemDecoding(Decoding):
    """Predictions of the pair. The probabilities are those of the first decoder throughout.

    So in a shot that the second answered the confidence is how sure the first was of its own prediction, which may be
    another: it is below the threshold, and a shot with little of it is a doubtful one still.
    """

    opinions: npt.NDArray[np.uint8]
    """(shots,): of `Opinion`."""


class PooledDecoder:
    """Worker processes as the second decoder of one experiment: with them answers can be had by a deadline."""

    def __init__(self, pool: OpinionPool, experiment: MemoryExperiment) -> None:
        self.pool = pool
        self.experiment = experiment

    @property
    def num_detectors(self) -> int:
        """Detectors in each shot."""
        return self.experiment.num_detectors

    @property
    def num_observables(self) -> int:
        """Observables in each prediction."""
        return self.experiment.num_observables

    def ask(self, shots: PackedBits, *, seconds: float | None = None) -> list[Future[Bits]]:
        """See `OpinionPool.ask`."""
        return self.pool.ask(self.experiment, shots, seconds=seconds)

    def decode_batch(
        self,
        shots: npt.NDArray[np.generic],
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
    ) -> Bits | PackedBits:
        """Waits for all answers; see `decoder.base.Decoder.decode_batch`.

        Raises:
            ValueError: the shape, the dtype or a value of `shots` does not fit.
            NoOpinionError: there is no answer to one of the shots.
        """
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        predictions = np.zeros((len(events), self.num_observables), dtype=np.bool_)
        for row, future in enumerate(self.ask(pack_bits(events))):
            predictions[row] = future.result()
        return pack_bits(predictions) if bit_packed_predictions else predictions


class TandemDecoder:
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
        self.first = first
        self.second = second
        self.threshold = threshold
        self.deadline_ms = deadline_ms

    @property
    def num_detectors(self) -> int:
        """Detectors in each shot."""
        return self.first.num_detectors

    @property
    def num_observables(self) -> int:
        """Observables in each prediction."""
        return self.first.num_observables

    @property
    def model_info(self) -> dict[str, Any]:
        """What is known of the first decoder, and the threshold."""
        return {**getattr(self.first, "model_info", {}), "threshold": self.threshold}

    def decode_batch(
        self,
        shots: npt.NDArray[np.generic],
        *,
        bit_packed_shots: bool = False,
        bit_packed_predictions: bool = False,
    ) -> Bits | PackedBits:
        """Predicts the observables' flips; see `decoder.base.Decoder`."""
        predictions = self.decode_soft(shots, bit_packed_shots=bit_packed_shots).predictions
        return pack_bits(predictions) if bit_packed_predictions else predictions

    def decode_soft(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> TandemDecoding:
        """Predictions, who made each, and the first decoder's probabilities; see `decoder.base.SoftDecoder`."""
        began = time.perf_counter()
        decoded = self.first.decode_soft(shots, bit_packed_shots=bit_packed_shots)
        unsure = np.flatnonzero(self.unsure(decoded))
        predictions = decoded.predictions.copy()
        opinions = np.zeros(len(predictions), np.uint8)
        if len(unsure):
            events = shots[unsure] if bit_packed_shots else pack_bits(shots[unsure].astype(np.bool_))
            predictions[unsure], opinions[unsure] = self._ask(events.astype(np.uint8), predictions[unsure], began)
        return TandemDecoding(
            predictions=predictions,
            confidence=decoded.confidence,
            flip_probabilities=decoded.flip_probabilities,
            opinions=opinions,
        )

    def unsure(self, decoded: Decoding) -> npt.NDArray[np.bool_]:
        """bool (shots,): which of the first decoder's answers need a second opinion."""
        return decoded.confidence < self.threshold

    def _ask(self, events: PackedBits, first: Bits, began: float) -> tuple[Bits, npt.NDArray[np.uint8]]:
        if not isinstance(self.second, PooledDecoder):
            predictions = self.second.decode_batch(events, bit_packed_shots=True)
            return predictions.astype(np.bool_), np.full(len(events), Opinion.SECOND, np.uint8)
        seconds = None
        if self.deadline_ms is not None:
            seconds = max(0.0, began + self.deadline_ms / 1e3 - HANDOVER_SECONDS - time.perf_counter())
        futures = self.second.ask(events, seconds=seconds)
        wait(futures, timeout=seconds)
        return merge(first, futures)

    def close(self) -> None:
        """Ends the second decoder's processes, if it has any."""
        if isinstance(self.second, PooledDecoder):
            self.second.pool.close()


def merge(first: Bits, futures: Sequence[Future[Bits]]) -> tuple[Bits, npt.NDArray[np.uint8]]:
    """The second's answers where they are there; the first's, and why, where not.

    Args:
        first: bool (shots, observables).
        futures: what `OpinionPool.ask` gave for these shots. Those that are not done are cancelled.

    Returns:
        The predictions, bool (shots, observables), and who made each, `Opinion` (shots,).
    """
    predictions = first.copy()
    opinions = np.full(len(futures), Opinion.SECOND, np.uint8)
    for row, future in enumerate(futures):
        if future.cancel() or not future.done():
            opinions[row] = Opinion.LATE
        elif future.exception() is not None:
            opinions[row] = Opinion.FAILED
        else:
            predictions[row] = future.result()
    return predictions, opinions
