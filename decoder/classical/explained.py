"""Whether any error explains the detection events of shots; if none does, they are shots of something else.

A parity of some detectors that no mechanism changes is the same in all shots that can be explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from decoder.classical.problem import Problem
from simulation.bits import Bits
from simulation.faults import FaultModel


@dataclass(frozen=True)
class FixedParities:
    """A basis of the parities of detectors that no mechanism of a fault model changes."""

    detectors: sp.csr_matrix
    """(parities, detectors) of 0 and 1: the detectors of each."""
    odd: Bits
    """(parities,): which are odd in every shot, by mechanisms that always happen."""

    @classmethod
    def of(cls, model: FaultModel) -> Self:
        """Those of a fault model."""
        from ldpc import mod2  # takes half a second to import

        problem = Problem.of(model)
        checks = problem.faults.check_matrix
        fixed = mod2.kernel(sp.csr_matrix(checks.T)) if checks.shape[1] else sp.eye_array(checks.shape[0])
        detectors = sp.csr_matrix(fixed, dtype=np.int64)
        return cls(detectors, detectors @ problem.syndrome_offset.astype(np.int64) % 2 == 1)

    @classmethod
    def of_lists(cls, parities: Sequence[tuple[bool, Sequence[int]]], *, detectors: int) -> Self:
        """What `lists` made, of so many detectors."""
        ends = np.cumsum([0, *(len(members) for _, members in parities)])
        members = np.array([detector for _, members in parities for detector in members], dtype=np.int64)
        shape = len(parities), detectors
        matrix = sp.csr_matrix((np.ones(len(members), dtype=np.int64), members, ends), shape=shape)
        return cls(matrix, np.array([odd for odd, _ in parities], dtype=np.bool_))

    def lists(self) -> list[tuple[bool, list[int]]]:
        """Whether each is odd, and its detectors."""
        members = self.detectors.tolil().rows
        return [(bool(odd), list(map(int, row))) for odd, row in zip(self.odd, members, strict=True)]

    def require_explained(self, events: Bits) -> None:
        """Refuses shots that no set of mechanisms explains.

        Args:
            events: bool (shots, detectors).

        Raises:
            ValueError: there is such a shot; the message names the first one.
        """
        odd = self.detectors @ events.T.astype(np.int64) % 2 == 1
        unexplained = (odd != self.odd[:, None]).any(axis=0)
        if unexplained.any():
            raise ValueError(
                f"no error explains the detection events of {np.count_nonzero(unexplained):,} of {len(events):,} "
                f"shots, the first of which is shot {int(np.argmax(unexplained))}; give the shots of this circuit, "
                "with its detectors in its order"
            )
