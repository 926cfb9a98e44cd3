"""Whether any error explains the detection events of shots; if none does, they are shots of something else."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from decoder.classical.problem import Problem
from simulation.bits import Bits
from simulation.faults import FaultModel


def require_explained(model: FaultModel, events: Bits) -> None:
    """Refuses shots that no set of a fault model's mechanisms explains.

    Args:
        model: the mechanisms.
        events: bool (shots, detectors).

    Raises:
        ValueError: there is such a shot; the message names the first one.
    """
    unexplained = _unexplained(model, events)
    if not unexplained.any():
        return
    shot = int(np.argmax(unexplained))
    raise ValueError(
        f"no error explains the detection events of {np.count_nonzero(unexplained):,} of {len(events):,} shots, the "
        f"first of which is shot {shot}; give the shots of this circuit, with its detectors in its order"
    )


def _unexplained(model: FaultModel, events: Bits) -> Bits:
    """(shots,): whether no set of mechanisms explains a shot.

    A parity of some detectors that no mechanism changes is the same in all shots that can be explained.
    """
    from ldpc import mod2  # takes half a second to import

    problem = Problem.of(model)
    syndromes = events ^ problem.syndrome_offset
    if problem.faults.num_mechanisms == 0:
        return np.asarray(syndromes.any(axis=1))
    parities = mod2.kernel(sp.csr_matrix(problem.faults.check_matrix.T)).astype(np.int64)
    odd: Bits = parities @ syndromes.T.astype(np.int64) % 2 == 1
    return np.asarray(odd.any(axis=0))
