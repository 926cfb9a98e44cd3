"""A fault model in the form that decoders of syndromes can take."""

from __future__ import annotations

from dataclasses import dataclass

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

    @classmethod
    def of(cls, model: FaultModel) -> Problem:
        """Brings a fault model into this form."""
        likely = model.priors > 0.5
        priors = np.where(likely, 1 - model.priors, model.priors)
        kept = np.flatnonzero((priors > 0) & (np.diff(model.check_matrix.indptr) > 0))
        faults = FaultModel(model.check_matrix[:, kept], model.observable_matrix[:, kept], priors=priors[kept])
        return cls(
            faults=faults,
            flips=faults.observable_matrix.toarray().T.astype(np.bool_),
            syndrome_offset=(model.check_matrix @ likely.astype(np.int64)) % 2 == 1,
            observable_offset=(model.observable_matrix @ likely.astype(np.int64)) % 2 == 1,
        )

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(mechanisms,): log((1 - p) / p), at least 0. The likeliest set of mechanisms has the least sum."""
        return np.asarray(np.log1p(-self.faults.priors) - np.log(self.faults.priors))
