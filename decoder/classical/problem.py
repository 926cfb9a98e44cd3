"""A fault model in the form that decoders of syndromes can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulation.bits import Bits
from simulation.faults import FaultModel


@dataclass(frozen=True, eq=False)
class Problem:
    """A fault model whose every prior is in (0, 0.5] and whose every mechanism flips a detector.

    A mechanism likelier than not is replaced by its absence, with prior 1 - p and the symptoms of its
    presence added to every shot: the same distribution. One that no detector sees cannot be decoded; the best
    prediction is the constant one.
    """

    faults: FaultModel
    """The mechanisms that are left, with all detectors and observables."""
    flips: Bits
    """(mechanisms, observables): the observables that each mechanism flips."""
    syndrome_offset: Bits
    """(detectors,): to add to the detection events of every shot."""
    observable_offset: Bits
    """(observables,): to add to the prediction for every shot."""
    likely: npt.NDArray[np.int64]
    """The DEM's errors (`FaultModel.instructions`) that happen unless a mechanism says that they do not."""

    @classmethod
    def of(cls, model: FaultModel) -> Problem:
        """Brings a fault model into this form."""
        likely = model.priors > 0.5
        priors = np.where(likely, 1 - model.priors, model.priors)
        kept = np.flatnonzero((priors > 0) & (np.diff(model.check_matrix.indptr) > 0))
        faults = replace(model.columns(kept), priors=priors[kept])
        return cls(
            faults=faults,
            likely=np.flatnonzero(likely) if model.instructions is None else model.instructions[likely],
            flips=faults.observable_matrix.toarray().T.astype(np.bool_),
            syndrome_offset=(model.check_matrix @ likely.astype(np.int64)) % 2 == 1,
            observable_offset=(model.observable_matrix @ likely.astype(np.int64)) % 2 == 1,
        )

    @property
    def num_errors(self) -> int:
        """Columns of `errors`."""
        return self.faults.num_mechanisms if self.faults.instructions is None else self.faults.num_instructions

    def errors(self, found: Sequence[npt.NDArray[np.integer]]) -> Bits:
        """Errors of a problem as the DEM has them.

        Args:
            found: for each shot the mechanisms that happened.

        Returns:
            Bool (shots, errors of the DEM), or (shots, mechanisms) where there is no DEM.
        """
        instructions = self.faults.instructions
        places = np.arange(self.faults.num_mechanisms) if instructions is None else instructions
        happened = np.zeros((len(found), self.num_errors), dtype=np.bool_)
        happened[:, self.likely] = True
        for row, mechanisms in zip(happened, found, strict=True):
            row[places[mechanisms]] ^= True
        return happened

    def explained(self, found: Sequence[npt.NDArray[np.integer]], syndromes: Bits) -> Bits:
        """(shots,): whether the mechanisms found explain the syndromes (shots, detectors), without the offset."""
        errors = np.zeros((len(found), self.faults.num_mechanisms), dtype=np.int32)
        for row, mechanisms in zip(errors, found, strict=True):
            row[mechanisms] = 1
        explained = syndromes == (self.faults.check_matrix.astype(np.int32) @ errors.T).T % 2
        return np.asarray(explained.all(axis=1))

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(mechanisms,): log((1 - p) / p), at least 0. The likeliest set of mechanisms has the least sum."""
        return np.asarray(np.log1p(-self.faults.priors) - np.log(self.faults.priors))
