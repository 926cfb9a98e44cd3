"""Which detectors of the same round are flipped together by one error mechanism, and by how many."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from decoder.neural.geometry import TorusGeometry
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode
from simulation.noise import NoiseModel
from simulation.torus import Basis


@lru_cache(maxsize=16)
def cooccurrence(code: BivariateBicycleCode, basis: Basis) -> npt.NDArray[np.int64]:
    """Counts the mechanisms of the circuit-level DEM that flip both of two detectors of one bulk round.

    Mask and bias of the attention of Blue et al. (arXiv 2504.13043). Their figure 1 for bb72 has 56 of 72 entries open
    in each row (25 of the own type with itself, 31 of the other), as is so here, with values near the logarithms of
    4 to 50, and 245 on the diagonal; here the counts are 2 to 48, and 242. The error rates play no role: uniform
    noise has every Pauli fault at every location, and mechanisms with the same symptom count once.

    Returns:
        int64 (2N, 2N), read-only and symmetric, in the memory frame: the N cells of slot 0 (the memory basis), then
        those of slot 1. The two bases have the same entries above 0, but not the same counts, since the frame changes
        the order of the CNOTs.
    """
    # Four rounds are the fewest whose middle layer has the counts of a long experiment; with three, the first and the
    # last round are so near that 8 to 21 of a detector's 242 mechanisms in bb72 are missing.
    experiment = MemoryExperiment(code, basis, 4, NoiseModel.uniform(1e-3))
    detectors = TorusGeometry(code).event_index(experiment.grid)[2].ravel()
    flips = experiment.fault_model.check_matrix.astype(np.int64).tocsr()[detectors]
    counts = np.asarray((flips @ flips.T).toarray())
    counts.setflags(write=False)
    return counts
