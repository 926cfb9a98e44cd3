"""Decoders that tell the error itself, as the queue takes decoders: what is told is one row of bits a shot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decoder.base import Decoder, Errors, Piece, SoftDecoder
from service.errors import InvalidParametersError
from service.models.batching import InPieces, kept_with
from service.wire.shots import DecodeResult
from simulation.bits import Bits

SOFT_SHOTS = 16
"""Shots that a decoder which takes several at once is given; others have one."""


class TellingErrors(InPieces):
    """A decoder whose rows are predictions, then the error, then whether that explains the shot."""

    def __init__(self, decoder: Decoder, *, num_errors: int) -> None:
        self.flips, self.errors = decoder.num_observables, num_errors
        super().__init__(
            num_detectors=decoder.num_detectors,
            num_observables=self.flips + num_errors + 1,
            at_once=SOFT_SHOTS if isinstance(decoder, SoftDecoder) else 1,
        )
        self._decoder = decoder

    def predict(self, events: Bits) -> Bits:
        """See `decoder.base.BatchDecoder`."""
        return self.part(events).predictions

    def part(self, events: Bits) -> Piece:
        """See `InPieces`."""
        found: Errors = self._decoder.decode_to_errors(events)  # type: ignore[attr-defined]
        return Piece(rows_of(found), found.hurried)

    def told(self, result: DecodeResult) -> DecodeResult:
        """A result of this decoder's rows as one with predictions and errors."""
        rows = result.predictions
        end = self.flips + self.errors
        return replace(
            result, predictions=rows[:, : self.flips], errors=rows[:, self.flips : end], converged=rows[:, end]
        )


def rows_of(found: Errors) -> Bits:
    """What is told of each shot, as a row (predictions, the error, whether it explains the shot)."""
    return np.concatenate([found.predictions, found.errors, found.converged[:, None]], axis=1)


def telling_errors(decoder: Decoder, *, model_id: str) -> TellingErrors:
    """A decoder as one that tells errors; of one decoder always the same, so that requests share batches.

    Raises:
        InvalidParametersError: it has none.
    """
    num_errors = getattr(decoder, "num_errors", None)
    if num_errors is None:
        detail = f"the decoder of model {model_id} tells no errors; ask one with bposd or serial, or leave it out"
        raise InvalidParametersError.of(detail, parameter="errors")
    known = kept_with(decoder, TellingErrors, lambda: TellingErrors(decoder, num_errors=num_errors))
    return known
