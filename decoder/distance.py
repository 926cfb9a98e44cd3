"""Upper bounds on the distance of a code, and of the circuit that measures it: light errors that nothing detects.

Bravyi et al. (arXiv 2308.07915, "circuit-level distance") bound both in this way. An error that flips a given sum of
observables and no detector is what a decoder finds for a syndrome of zeros with that sum as one more check, whose value
is 1. BP-OSD is asked for many random sums; the lightest answer is the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode
from simulation.noise import NoiseModel

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class DistanceBounds:
    """What was found; the distances are at most this."""

    code: int
    """The weight of the lightest logical operator."""
    circuit: int
    """The fewest faults of the circuit that flip an observable and no detector."""
    searches: int
    """Searches for the latter, half of them in the memory of each basis."""
    rounds: int
    """Syndrome rounds of the circuit."""
    seed: int
    """Of the random sums."""

    @property
    def kept(self) -> bool:
        """Whether no error was found that is lighter in the circuit than in the code."""
        return self.circuit >= self.code


def bound_distances(
    code: BivariateBicycleCode,
    *,
    rounds: int,
    searches: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> DistanceBounds:
    """Bounds the distances of a code and of Bravyi's syndrome cycle for it.

    Args:
        code: with k of at least 1.
        rounds: of the memory experiments, in which every fault of uniform noise may happen.
        searches: for light errors of the circuit.
        seed: draws the sums.
        progress: is called with the number of searches done.

    Raises:
        ValueError: rounds or searches below 1, or k = 0.
    """
    if searches < 1:
        raise ValueError(f"searches={searches} must be at least 1")
    random = np.random.default_rng(seed)
    finders = [_finder(MemoryExperiment(code, basis, rounds, NoiseModel.uniform(1e-3), "XZ")) for basis in ("X", "Z")]
    lightest = min(code.n, *(int(code.logicals(basis).sum(axis=1).min()) for basis in ("X", "Z")))
    least = code.n
    for search in range(searches):
        observables = random.random(code.k) < 0.5
        observables[random.integers(code.k)] = True
        least = min(least, finders[search % 2](observables, random))
        if progress is not None:
            progress(search + 1)
    return DistanceBounds(code=lightest, circuit=least, searches=searches, rounds=rounds, seed=seed)


def _finder(
    experiment: MemoryExperiment,
) -> Callable[[np.ndarray[tuple[int], np.dtype[np.bool_]], np.random.Generator], int]:
    """What finds a light error that flips the sum of some observables of an experiment; gives its weight."""
    from ldpc import BpOsdDecoder  # takes half a second to import, with sinter and matplotlib

    model = experiment.fault_model
    syndrome = np.zeros(model.num_detectors + 1, dtype=np.uint8)
    syndrome[-1] = 1

    def find(observables: np.ndarray[tuple[int], np.dtype[np.bool_]], random: np.random.Generator) -> int:
        flips = model.observable_matrix.T.astype(np.int32) @ observables.astype(np.int32) % 2
        checks = sp.vstack([model.check_matrix, sp.csr_matrix(flips.astype(np.uint8))], format="csr")
        # Equal priors would leave belief propagation undecided between translates, which are equally good.
        priors = 0.01 * np.exp(0.5 * random.standard_normal(model.num_mechanisms))
        decoder = BpOsdDecoder(
            checks,
            error_channel=np.minimum(priors, 0.3).tolist(),
            max_iter=50,
            bp_method="minimum_sum",
            ms_scaling_factor=0.0,
            osd_method="OSD_CS",
            osd_order=7,
        )
        error = decoder.decode(syndrome)
        if ((checks @ error) % 2 != syndrome).any():
            raise RuntimeError("ldpc returned an error that does not explain its syndrome")
        return int(error.sum())

    return find
