"""Decoders that tell the error itself, as the queue takes decoders: what is told is one row of bits a shot."""

from __future__ import annotations

import time
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from decoder.base import BatchDecoder, Decoder, Errors, Piece, SoftDecoder, unpack_shots
from service.errors import InvalidParametersError
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits

SOFT_SHOTS = 16
"""Shots that a decoder which takes several at once is given; others have one."""

_telling: WeakKeyDictionary[Decoder, TellingErrors] = WeakKeyDictionary()


class TellingErrors(BatchDecoder):
    """A decoder whose rows are predictions, then the error, then whether that explains the shot."""

    def __init__(self, decoder: Decoder, *, num_errors: int) -> None:
        self.flips, self.errors = decoder.num_observables, num_errors
        super().__init__(num_detectors=decoder.num_detectors, num_observables=self.flips + num_errors + 1)
        self._decoder = decoder

    def predict(self, events: Bits) -> Bits:
        """See `decoder.base.BatchDecoder`."""
        found: Errors = self._decoder.decode_to_errors(events)  # type: ignore[attr-defined]
        return np.concatenate([found.predictions, found.errors, found.converged[:, None]], axis=1)

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece:
        """See `decoder.base.PiecewiseDecoder`."""
        ends = time.perf_counter() + seconds
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=True)
        step = SOFT_SHOTS if isinstance(self._decoder, SoftDecoder) else 1
        rows: list[Bits] = []
        for first in range(0, len(events), step):
            if rows and time.perf_counter() >= ends:
                break
            rows.append(self.predict(events[first : first + step]))
        decoded = np.concatenate(rows)
        return Piece(decoded, np.zeros(len(decoded), dtype=np.bool_))

    def told(self, result: DecodeResult) -> DecodeResult:
        """A result of this decoder's rows as one with predictions and errors."""
        rows = result.predictions
        end = self.flips + self.errors
        return replace(
            result, predictions=rows[:, : self.flips], errors=rows[:, self.flips : end], converged=rows[:, end]
        )


def telling_errors(decoder: Decoder, *, model_id: str) -> TellingErrors:
    """A decoder as one that tells errors; of one decoder always the same, so that requests share batches.

    Raises:
        InvalidParametersError: it has none.
    """
    known = _telling.get(decoder)
    if known is None:
        num_errors = getattr(decoder, "num_errors", None)
        if num_errors is None:
            detail = f"the decoder of model {model_id} tells no errors; ask one with bposd or serial, or leave it out"
            raise InvalidParametersError.of(detail, parameter="errors")
        known = _telling[decoder] = TellingErrors(decoder, num_errors=num_errors)
    return known
