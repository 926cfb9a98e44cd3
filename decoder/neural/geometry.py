"""What the network needs to know of a code: displacements on its torus, and the logical operators it reads.

Everything is in the *memory frame*. For Z memory that is the code as it is. For X memory the cells are
relabelled by the ZX duality g -> -g (and the blocks L and R exchanged), which maps X checks to Z checks, so in
the memory frame the checks of the memory basis always act like Z checks: on L at c - b and on R at c - a. One
network then serves both bases, and only the order of the CNOTs tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
import numpy.typing as npt
from ldpc import mod2

from decoder.neural.config import Outputs
from simulation.bases import BASES, Basis
from simulation.codes import BivariateBicycleCode
from simulation.codes.torus import cell_coordinates, negated_cells, relative_cells
from simulation.detectors import DetectorGrid

NETWORK_BASES: tuple[Basis, Basis] = ("Z", "X")
"""The memory bases in the network's order: an integer `basis` in this package is an index into these."""

Displacements = npt.NDArray[np.int64]
"""(D, 2): offsets in x and y."""


@dataclass(frozen=True)
class TorusGeometry:
    """Index tables of one code; all arrays are in the memory frame."""

    code: BivariateBicycleCode
    outputs: Outputs = "translates"

    @cached_property
    def check_displacements(self) -> Displacements:
        """31 signed offsets from a check to itself and to each check that shares a qubit with it.

        They follow the Tanner graph (a_i - a_j, b_i - b_j, +-(a_i + b_j)) and are listed by their indices i, j,
        so that codes with other l and m, or other exponents, have the same number in the same order.
        """
        a, b = np.array(self.code.a), np.array(self.code.b)
        same_type = [p[i] - p[j] for p in (a, b) for i, j in permutations(range(3), 2)]
        other_type = (a[:, None] + b).reshape(-1, 2)
        return np.concatenate([[(0, 0)], same_type, other_type, -other_type])

    @cached_property
    def qubit_displacements(self) -> Displacements:
        """12 signed offsets from a data qubit to the checks on it: L from +b, -a, and R from +a, -b."""
        a, b = np.array(self.code.a), np.array(self.code.b)
        return np.concatenate([b, -a, a, -b])

    def angles(self, displacements: Displacements) -> npt.NDArray[np.float64]:
        """2 pi k.d of each frequency k of the torus and displacement d: (frequencies, displacements).

        Frequencies: the self-conjugate ones (2k = 0), then one of each conjugate pair.
        """
        l, m = self.code.l, self.code.m
        k = np.array(self._frequencies[0] + self._frequencies[1]) / (l, m)
        return np.asarray(2 * np.pi * k @ displacements.T)

    @property
    def num_real_frequencies(self) -> int:
        """How many frequencies are self-conjugate."""
        return len(self._frequencies[0])

    @cached_property
    def fourier_matrix(self) -> npt.NDArray[np.float64]:
        """(cells, cells), orthogonal: rows cos(k.c) of the real frequencies, then cos and then sin of the pairs."""
        l, m = self.code.l, self.code.m
        cells = cell_coordinates(l, m).T / (l, m)
        real, paired = (2 * np.pi * np.array(k, dtype=float).reshape(-1, 2) @ cells.T for k in self._frequencies)
        rows = np.concatenate([np.cos(real), np.sqrt(2) * np.cos(paired), np.sqrt(2) * np.sin(paired)])
        return np.asarray(rows / np.sqrt(self.code.cells))

    @cached_property
    def _frequencies(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        l, m = self.code.l, self.code.m
        every = [(i, j) for i in range(l) for j in range(m)]
        real = [k for k in every if (2 * k[0] % l, 2 * k[1] % m) == (0, 0)]
        paired = [k for k in every if k < (-k[0] % l, -k[1] % m)]
        return real, paired

    @cached_property
    def displacement_index(self) -> npt.NDArray[np.int64]:
        """(cells, cells): entry [c, c'] names the offset c' - c on the torus by the cell it reaches from 0."""
        cells = np.arange(self.code.cells)
        return relative_cells(cells[None, :], cells[:, None], l=self.code.l, m=self.code.m)

    # --- the outputs: the logical operators that the network reads ---

    @cached_property
    def output_supports(self) -> npt.NDArray[np.uint8]:
        """(outputs, n): every translate of a few operators, or k of them that are independent."""
        return np.asarray(self._translates[self._output_rows])

    @cached_property
    def output_operators(self) -> npt.NDArray[np.int64]:
        """(outputs,): which of the `num_operators` operators each output is a translate of."""
        return np.asarray(self._output_rows // self.code.cells)

    @property
    def num_operators(self) -> int:
        return len(self._translates) // self.code.cells

    @cached_property
    def _translates(self) -> npt.NDArray[np.uint8]:
        """(operators * cells, n): translate t of operator o is row o * cells + t."""
        operators = self.code.logical_orbits()
        l, m = self.code.l, self.code.m
        rows = [self.code.translate(o, dx, dy) for o in operators for dx in range(l) for dy in range(m)]
        return np.array(rows, dtype=np.uint8)

    @cached_property
    def _output_rows(self) -> npt.NDArray[np.int64]:
        """Rows of `_translates` that are outputs."""
        if self.outputs == "translates":
            return np.arange(len(self._translates))
        checks = self.code.hz.toarray().astype(np.uint8)
        pivots = mod2.pivot_rows(np.concatenate([checks, self._translates]))
        return np.array([pivot - len(checks) for pivot in pivots if pivot >= len(checks)], dtype=np.int64)

    @cached_property
    def _output_decomposition(self) -> npt.NDArray[np.uint8]:
        """(outputs, k + cells): each output as a sum of observables and Z checks modulo 2."""
        generators = np.concatenate([self.code.logicals("Z"), self.code.hz.toarray()]).astype(np.uint8)
        independent = mod2.pivot_rows(generators)
        plu = mod2.PluDecomposition(generators[independent].T)
        decomposition = np.zeros((len(self.output_supports), len(generators)), dtype=np.uint8)
        for row, support in zip(decomposition, self.output_supports, strict=True):
            row[independent] = plu.lu_solve(support)
        if np.any(decomposition @ generators % 2 != self.output_supports):
            raise ValueError(f"the logical orbits of {self.code} are not sums of its logicals and checks")
        return decomposition

    @cached_property
    def output_observables(self) -> npt.NDArray[np.uint8]:
        """(outputs, k): the observables whose product, times checks, is the output's operator."""
        return self._output_decomposition[:, : self.code.k]

    @cached_property
    def output_checks(self) -> npt.NDArray[np.uint8]:
        """(outputs, cells): the memory-basis checks in that product; the detection events fix their values."""
        return self._output_decomposition[:, self.code.k :]

    # --- detection events as a dense grid ---

    def framed_cells(self, basis: Basis) -> npt.NDArray[np.int64]:
        """(cells,): the memory-frame cell of each cell of the code."""
        if basis == "Z":
            return np.arange(self.code.cells)
        return negated_cells(self.code.l, self.code.m)

    def event_index(self, grid: DetectorGrid, *, partial: bool = False) -> npt.NDArray[np.int64]:
        """(rounds + 1, 2, cells): the detector at each round, slot (0: memory basis, 1: other) and cell.

        -1 where there is none, which is only the other basis in the first and the last round.

        Args:
            grid: the detectors.
            partial: whether the other basis may have no detectors at all (XZ), or some in the last round too (a
                noiseless last cycle).

        Raises:
            ValueError: the detectors are not those of an XYZ memory experiment of this code with noisy readout, or,
                if partial, of any memory experiment of this code.
        """
        l, m, cells = self.code.l, self.code.m, self.code.cells
        x, y, round_, kind = grid.coordinates.T
        if np.any((x < 0) | (x >= l) | (y < 0) | (y >= m)):
            raise ValueError(f"the detectors lie outside the {l} x {m} torus of {self.code}")
        memory = BASES.index(grid.memory_basis)
        cell = self.framed_cells(grid.memory_basis)[x * m + y]
        index = np.full((grid.rounds + 1, 2, cells), -1, dtype=np.int64)
        index[round_, np.where(kind == memory, 0, 1), cell] = np.arange(len(kind))
        present = index >= 0
        other = present[:, 1].sum(axis=1)  # detectors of the other basis in each round
        fits = present.sum() == len(kind) and present[:, 0].all() and other[0] == 0
        if partial:
            fits = fits and np.isin(other, (0, cells)).all() and (other[1:-1] == other[1:2]).all()
        else:
            fits = fits and (other[1:-1] == cells).all() and other[-1] == 0
        if not fits:
            raise ValueError(
                "the neural decoder eats the detectors of both bases (XYZ) of a memory experiment with noisy "
                f"readout; these {len(kind)} detectors are not that of {self.code}. Use BP-OSD for others"
            )
        return index
