"""Decoders that find an error for one syndrome of a fault model after the other."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder, Errors, Piece, unpack_shots
from decoder.classical.problem import Problem
from decoder.classical.settings import DecoderSettings
from simulation.bases import Detectors
from simulation.bits import Bits, PackedBits
from simulation.check_types import CheckTypes
from simulation.faults import FaultModel
from simulation.placement import Placement

Indices = npt.NDArray[np.int64]
Solver = Callable[[npt.NDArray[np.uint8]], Indices]
"""From a syndrome, uint8 (detectors,), not all 0, to the mechanisms of an error that is to explain it.

One that keeps to a limit of time has an attribute `hurried`: whether it took a cheaper setting for the last syndrome.
"""


class SyndromeSettings(DecoderSettings):
    """How to decode any fault model syndrome by syndrome; each kind is a frozen dataclass."""

    @abstractmethod
    def solver(self, problem: Problem) -> Solver:
        """Prepares to find errors; the problem has detectors and mechanisms."""

    def check(self, problem: Problem) -> None:
        """Refuses a problem that is out of reach.

        Raises:
            ValueError: it is.
        """

    def of_faults(
        self, model: FaultModel, types: CheckTypes, *, detectors: Detectors, placement: Placement | None = None
    ) -> SyndromeDecoder:
        """Makes a decoder; see `DecoderSettings.decoder`."""
        return SyndromeDecoder(model, self, detectors=types.sufficient if detectors == "XZ" else None)


class SyndromeDecoder(BatchDecoder):
    """Decodes the shots of one fault model, predicting the observables that the errors found flip.

    What solves is made at the first shot, so that an instance can be pickled. Not thread-safe.
    """

    def __init__(
        self, fault_model: FaultModel, settings: SyndromeSettings, *, detectors: Indices | None = None
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the mechanisms and their priors.
            settings: how to decode.
            detectors: integer (d,), the detectors to decode alone, ignoring the rest of each shot; mechanisms that
                then look the same are merged. None for all.

        Raises:
            ValueError: a detector index is out of range or given twice, a package is not installed, or the
                fault model is out of reach of the settings.
        """
        if settings.extra is not None:
            settings.extra.require(type(settings).__name__)
        super().__init__(num_detectors=fault_model.num_detectors, num_observables=fault_model.num_observables)
        self.settings = settings
        self.detectors = _checked_detectors(detectors, fault_model.num_detectors)
        self._problem = Problem.of(fault_model if self.detectors is None else fault_model.restrict(self.detectors))
        settings.check(self._problem)

    @cached_property
    def _solver(self) -> Solver:
        return self.settings.solver(self._problem)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_solver"}

    def predict(self, events: Bits) -> Bits:
        """The flips of the errors found; see `decoder.base.BatchDecoder`."""
        return self._decode(events, seconds=math.inf)[0].predictions

    @property
    def num_errors(self) -> int:
        """See `decoder.base.ErrorDecoder`."""
        return self._problem.num_errors

    def decode_to_errors(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Errors:
        """See `decoder.base.ErrorDecoder`."""
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        piece, found = self._decode(events, seconds=math.inf)
        if self.detectors is not None:
            events = events[:, self.detectors]
        explained = self._problem.explained(found, events ^ self._problem.syndrome_offset)
        return Errors(piece.predictions, self._problem.errors(found), explained, piece.hurried)

    def decode_piece(self, shots: PackedBits, *, seconds: float) -> Piece:
        """See `decoder.base.PiecewiseDecoder`."""
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=True)
        return self._decode(events, seconds=seconds)[0]

    def _decode(self, events: Bits, *, seconds: float) -> tuple[Piece, list[Indices]]:
        """The predictions, and the mechanisms found for each shot."""
        ends = time.perf_counter() + seconds
        if self.detectors is not None:
            events = events[:, self.detectors]
        problem = self._problem
        predictions = np.tile(problem.observable_offset, (len(events), 1))
        hurried = np.zeros(len(events), dtype=np.bool_)
        found = [np.zeros(0, dtype=np.int64) for _ in events]
        if 0 in problem.faults.check_matrix.shape:  # nothing to decode, which few libraries survive
            return Piece(predictions, hurried), found
        syndromes = (events ^ problem.syndrome_offset).view(np.uint8)
        for shot, syndrome in enumerate(syndromes):
            if shot and time.perf_counter() >= ends:
                return Piece(predictions[:shot], hurried[:shot]), found[:shot]
            if syndrome.any():
                found[shot] = self._solver(syndrome)
                predictions[shot] ^= np.bitwise_xor.reduce(problem.flips[found[shot]], axis=0)
                hurried[shot] = getattr(self._solver, "hurried", False)
        return Piece(predictions, hurried), found


def errors_of(decoder: Any) -> Solver:
    """The mechanisms that a decoder whose `decode` gives one 0 or 1 a mechanism finds."""

    def solve(syndrome: npt.NDArray[np.uint8]) -> Indices:
        return np.flatnonzero(decoder.decode(syndrome))

    return solve


def _checked_detectors(detectors: Indices | None, num_detectors: int) -> Indices | None:
    if detectors is None:
        return None
    indices = np.asarray(detectors, dtype=np.int64)
    if indices.ndim != 1 or len(np.unique(indices)) != len(indices):
        raise ValueError("detectors must be a list of distinct detector indices")
    if len(indices) and not (indices.min() >= 0 and indices.max() < num_detectors):
        raise ValueError(f"detectors must lie in 0..{num_detectors - 1}, not {indices.min()}..{indices.max()}")
    return indices
