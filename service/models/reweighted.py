"""The shots of one request that brings probabilities of the errors, as the queue takes shots."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from decoder.base import Decoding, Errors, Piece, Reweighting, unpack_shots
from service.models.batching import InPieces
from service.models.telling import rows_of
from service.wire.reweights import Values
from service.wire.shots import DecodeResult
from simulation.bits import Bits, PackedBits

AT_ONCE = 16
"""Shots with the same probabilities that are decoded together; of others each has a decoder of its own."""
NUMBER_BYTES = 4
"""With which a row of the queue says which shot of the request it is."""


class ReweightedShots(InPieces):
    """Decodes the shots of one request, in rows of the queue: a packed shot and its number.

    Args:
        reweighting: of the experiment's decoder.
        probabilities: (1, errors) for all shots, or (shots, errors).
        num_detectors, num_observables: of the experiment.
        errors: whether to tell the errors, in the form of `service.models.telling`.
    """

    def __init__(
        self,
        reweighting: Reweighting,
        probabilities: Values,
        *,
        num_detectors: int,
        num_observables: int,
        errors: bool,
    ) -> None:
        self._reweighting, self._probabilities, self._errors = reweighting, probabilities, errors
        self._flips, self._num_detectors = num_observables, num_detectors
        rows = num_observables + errors * (probabilities.shape[1] + 1)
        at_once = AT_ONCE if len(probabilities) == 1 else 1
        super().__init__(num_detectors=num_detectors, num_observables=rows, at_once=at_once)

    def rows(self, shots: PackedBits) -> PackedBits:
        """What the queue is given for packed shots (shots, bytes)."""
        numbers = np.arange(len(shots), dtype="<u4").view(np.uint8).reshape(-1, NUMBER_BYTES)
        return np.concatenate([shots, numbers], axis=1)

    def predict(self, events: Bits) -> Bits:
        """Refuses: without their numbers shots have no probabilities.

        Raises:
            ValueError: always.
        """
        raise ValueError("rows of shots and numbers are decoded in pieces")

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece | Decoding:  # type: ignore[override]
        """See `decoder.base.PiecewiseDecoder`; of decoders that say how sure they are a `Decoding`."""
        ends = time.perf_counter() + seconds
        numbers = np.ascontiguousarray(shots[:, -NUMBER_BYTES:]).view("<u4").ravel()
        events = unpack_shots(shots[:, :-NUMBER_BYTES], num_detectors=self._num_detectors, bit_packed=True)
        parts = [self._decoded(events[: self.at_once], numbers[: self.at_once])]
        for first in range(self.at_once, len(events), self.at_once):
            if time.perf_counter() >= ends:
                break
            some = slice(first, first + self.at_once)
            parts.append(self._decoded(events[some], numbers[some]))
        return type(parts[0]).concatenate(parts)  # type: ignore[arg-type]  # all are of one kind

    def told(self, result: DecodeResult) -> DecodeResult:
        """A result of this decoder's rows as one with predictions and errors."""
        if not self._errors:
            return result
        rows = result.predictions
        predictions, errors, converged = rows[:, : self._flips], rows[:, self._flips : -1], rows[:, -1]
        return replace(result, predictions=predictions, errors=errors, converged=converged)

    def _decoded(self, events: Bits, numbers: npt.NDArray[np.uint32]) -> Piece | Decoding:
        given = self._probabilities
        probabilities = given if len(given) == 1 else given[numbers]
        found = self._reweighting.decoded(events, probabilities, errors=self._errors)
        if isinstance(found, Errors):
            return Piece(rows_of(found), found.hurried)
        return found
