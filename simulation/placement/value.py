"""Where an experiment's detectors and observables stand in one of Tandem's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulation.bases import BASES
from simulation.circuits import MemoryExperiment
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel
from simulation.gf2 import Matrix, RowSpace

Indices = npt.NDArray[np.int64]


class NotPlacedError(ValueError):
    """An experiment is none of Tandem's own under other names; the message says why."""


@dataclass(frozen=True, eq=False)
class Placement:
    """An experiment of D detectors and k observables as one of Tandem's own, whose noise is left open."""

    like: MemoryExperiment
    """That experiment, with uniform noise of no particular strength, or the experiment itself."""
    detector: Indices
    """(D,): the detector of `like` that each detector is."""
    observables: Matrix
    """uint8 (k, k): the observables of `like` in each observable..."""
    checks: Matrix
    """uint8 (k, cells): ...and the checks of the memory basis in it, each as all detectors of the check together."""

    @property
    def grid(self) -> DetectorGrid:
        """Where the experiment's detectors stand."""
        return DetectorGrid(self.like.grid.coordinates[self.detector])

    @property
    def is_ours(self) -> bool:
        """Whether it is `like` to the last detector and observable, all in the same order."""
        return self.has_our_observables and np.array_equal(self.detector, np.arange(len(self.detector)))

    @property
    def has_our_observables(self) -> bool:
        """Whether its observables are those of `like` in the same order."""
        return np.array_equal(self.observables, np.eye(len(self.observables))) and not self.checks.any()

    @cached_property
    def cells(self) -> sp.csr_matrix:
        """uint8 (cells, D): the detectors of `like` that belong to each check of the memory basis."""
        return memory_cells(self.like)

    @cached_property
    def inverse(self) -> Matrix:
        """uint8 (k, k): the experiment's observables in each of `like`, but for checks."""
        return RowSpace(self.observables).combinations(np.eye(len(self.observables)))

    def framed(self, model: FaultModel) -> FaultModel:
        """A fault model of the experiment with the detectors and the observables of `like`, in their order."""
        if self.is_ours:
            return model
        made_of = self.inverse.astype(np.int64)
        flips = made_of @ model.observable_matrix
        cells = self.cells[:, self.detector]
        in_frame = replace(model, observable_matrix=with_checks(model, cells, made_of @ self.checks, flips))
        return in_frame.restrict(np.argsort(self.detector))


def with_checks(
    model: FaultModel, cells: sp.csr_matrix, made_of: npt.NDArray[np.generic], flips: npt.NDArray[np.int64]
) -> sp.csc_matrix:
    """Observables with checks added to them.

    Args:
        model: whose mechanisms flip them.
        cells: uint8 (cells, detectors), the detectors of each check.
        made_of: (k, cells), the checks to be added to each observable.
        flips: (k, mechanisms), how often each mechanism flips each observable without them.

    Returns:
        uint8 (k, mechanisms) of 0 and 1.
    """
    parity = cells.astype(np.int64) @ model.check_matrix
    return sp.csc_matrix((flips + made_of.astype(np.int64) @ parity) % 2, dtype=np.uint8)


def memory_cells(experiment: MemoryExperiment) -> sp.csr_matrix:
    """uint8 (cells, detectors): the detectors that belong to each check of the memory basis."""
    x, y, _, kind = experiment.grid.coordinates.T
    memory = np.flatnonzero(kind == BASES.index(experiment.basis))
    ones = np.ones(len(memory), dtype=np.uint8)
    cell = x[memory] * experiment.code.m + y[memory]
    return sp.csr_matrix((ones, (cell, memory)), shape=(experiment.code.cells, len(kind)))


def translated(experiment: MemoryExperiment, cell: int) -> Indices:
    """(detectors,): where a translation of the torus takes each detector; its name is the cell that cell 0 goes to."""
    code, grid = experiment.code, experiment.grid.coordinates
    table = np.full((*grid.max(axis=0) + 1,), -1, dtype=np.int64)
    table[tuple(grid.T)] = np.arange(len(grid))
    x, y, layer, kind = grid.T
    dx, dy = divmod(cell, code.m)
    return np.asarray(table[(x + dx) % code.l, (y + dy) % code.m, layer, kind])
