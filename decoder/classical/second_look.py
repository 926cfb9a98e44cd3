"""Ordered statistics where belief propagation on a small graph finds nothing, or may have found the wrong thing.

On the small graphs of surface, colour and repetition codes belief propagation alone leaves some shots without any
solution, and some errors look alike to it. Ordered statistics decoding (arXiv 1904.02703) always has a solution, and
takes next to no time there; on the graphs of codes such as bb72 it would take longer than all the rest.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.classical.bp import OSD_SECONDS, BpOsdSettings
from decoder.classical.syndrome import SyndromeDecoder
from decoder.serial.graph import JointFaults
from decoder.serial.rules import SerialResult
from simulation.bits import Bits
from simulation.faults import FaultModel

SECONDS_IF_UNSOLVED = 1e-2
"""Shots without a solution get another look if that is expected to take no longer."""
SECONDS_ALWAYS = 1e-4
"""All shots get it if it takes no longer."""
SETTINGS = BpOsdSettings(max_iter=200)


class SecondLook:
    """Adds solutions to what was found.

    Args:
        joint: the graph; only the memory side is solved.
    """

    def __init__(self, joint: JointFaults) -> None:
        self._joint = joint
        rows, columns = int(joint.memory_basis.sum()), len(joint.graph.flips)
        seconds = OSD_SECONDS * rows**2 * columns
        self.if_unsolved = 0 < seconds <= SECONDS_IF_UNSOLVED
        """Whether it is there for shots without a solution."""
        self.always = 0 < seconds <= SECONDS_ALWAYS
        """Whether it is there for all shots."""

    @cached_property
    def _decoder(self) -> SyndromeDecoder:
        joint, faults = self._joint, len(self._joint.graph.flips)
        checks = sp.csc_matrix(joint.checks[joint.memory_basis][:, :faults], dtype=np.uint8)
        checks.sort_indices()
        nothing = sp.csc_matrix((0, faults), dtype=np.uint8)
        return SyndromeDecoder(FaultModel(checks, nothing, joint.graph.chance[:faults].astype(np.float64)), SETTINGS)

    def add(self, events: Bits, result: SerialResult) -> None:
        """Adds a solution, in place, to shots without any, and on the smallest graphs to all that lack its coset.

        Args:
            events: bool (B, detectors), as the graph has them.
            result: what was found for them.
        """
        if not self.if_unsolved:
            return
        full = result.found == result.cosets.shape[1]
        asked = np.flatnonzero(~full & (self.always | (result.found == 0)) & events.any(axis=1))
        if not len(asked):
            return
        found = self._decoder.decode_to_errors(np.ascontiguousarray(events[asked][:, self._joint.memory_basis]))
        cosets, weights = self._cosets(found.errors)
        known = (result.cosets[asked] == cosets[:, None]) & _there(result)[asked]
        new = np.flatnonzero(found.converged & ~known.any(axis=1))
        shots, place = asked[new], result.found[asked[new]]
        result.cosets[shots, place] = cosets[new]
        result.weights[shots, place] = weights[new, None]
        result.solved_at[shots, place] = result.passes[shots]
        if result.faults.shape[2]:
            faults = found.errors.shape[1]
            result.faults[shots, place, :faults] = found.errors[new]
        result.found[shots] += 1

    def _cosets(self, errors: Bits) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The observables that errors (B, faults) flip, as masks, and what the errors weigh."""
        graph = self._joint.graph
        masks = np.bitwise_xor.reduce(np.where(errors, graph.flips, 0), axis=1, initial=0)
        return masks, (errors @ graph.prior[:-1][: errors.shape[1]]).astype(np.float32)


def _there(result: SerialResult) -> Bits:
    """(B, S): which solutions were found."""
    there: Bits = result.found[:, None] > np.arange(result.cosets.shape[1])
    return there
