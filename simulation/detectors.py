"""Where each detector stands: its cell on the torus, its round and its check type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import stim

from simulation.bases import BASES, Basis


@dataclass(frozen=True, eq=False, repr=False)
class DetectorGrid:
    """The coordinates (x, y, round, type) of each detector of a memory experiment.

    Rounds count from 0. Checks of the memory basis have a detector in every round 0..r, the last of which
    compares the final data readout with the last syndrome; checks of the other basis have one in 1..r-1
    (1..r when the last cycle is noiseless).
    """

    coordinates: npt.NDArray[np.int64]
    """(detectors, 4): x, y, round, type (0 = X check, 1 = Z check)."""

    @classmethod
    def of(cls, source: stim.Circuit | stim.DetectorErrorModel) -> DetectorGrid:
        """Reads the grid from a circuit or a DEM alone.

        Raises:
            ValueError: a detector without the four coordinates (x, y, round, type).
        """
        found = source.get_detector_coordinates()
        rows = [found[d] for d in range(source.num_detectors)]
        if not rows or any(len(row) != 4 or row[3] not in (0, 1) for row in rows):
            raise ValueError(
                "detectors need the coordinates (x, y, round, type) with type 0 for X checks and 1 for Z "
                "checks; make the circuit with `tandem circuit` or MemoryExperiment"
            )
        return cls(np.array(rows).astype(np.int64))

    def __repr__(self) -> str:
        return f"<DetectorGrid: {len(self.coordinates)} detectors of {self.memory_basis} memory, {self.rounds} rounds>"

    @cached_property
    def memory_basis(self) -> Basis:
        """The basis whose checks are compared in round 0."""
        types = np.unique(self.coordinates[self.coordinates[:, 2] == 0, 3])
        if len(types) != 1:
            raise ValueError("round 0 must hold detectors of exactly one check type, the memory basis")
        return BASES[int(types[0])]

    @property
    def rounds(self) -> int:
        """The number r of noisy rounds."""
        return int(self.coordinates[:, 2].max())

    @cached_property
    def has_both_bases(self) -> bool:
        """True for XYZ detectors, False for XZ."""
        return len(np.unique(self.coordinates[:, 3])) == 2

    @cached_property
    def layers(self) -> tuple[npt.NDArray[np.int64], ...]:
        """The detectors of each round 0..r, ascending: those whose events arrive together."""
        return tuple(np.flatnonzero(self.coordinates[:, 2] == t) for t in range(self.rounds + 1))

    def indices_of(self, basis: Basis) -> npt.NDArray[np.int64]:
        """The detectors of one check type, ascending."""
        return np.flatnonzero(self.coordinates[:, 3] == BASES.index(basis))
