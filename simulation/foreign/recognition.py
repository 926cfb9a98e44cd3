"""What code a circuit protects: its checks, as the detecting regions show them, and whether it is a known BB code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import stim

from simulation.check_types import Mask, with_ticks
from simulation.codes import CODES, BivariateBicycleCode
from simulation.gf2 import RowSpace

Colours = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CodeFacts:
    """The checks of a circuit's code on its data qubits."""

    checks: tuple[sp.csr_matrix, sp.csr_matrix]
    """uint8 (checks, n): of the type that predicts the observables, and of the other one; without rows if unseen."""
    pauli: str
    """The letter of the first type's checks, X or Z; XZ where they have several."""
    code: BivariateBicycleCode | None
    """The known code whose checks of either basis are those of the first type, up to an order of checks and qubits."""

    @property
    def n(self) -> int:
        """Data qubits that any check touches."""
        return int(self.checks[0].shape[1])

    @property
    def k(self) -> int | None:
        """Logical qubits, n without the independent checks; None where checks of one type alone are seen."""
        if 0 in (self.checks[0].shape[0], self.checks[1].shape[0]):
            return None
        return self.n - sum(RowSpace(checks.toarray()).rank for checks in self.checks)

    @property
    def weights(self) -> dict[int, int]:
        """How many checks there are of each weight, of both types together."""
        counts = Counter(int(w) for matrix in self.checks for w in np.diff(matrix.indptr))
        return dict(sorted(counts.items()))


def code_of(circuit: stim.Circuit, memory: Mask) -> CodeFacts | None:
    """The code of a memory experiment with ancillas, from the stabilisers that its detectors are between two cycles.

    Data qubits are those that are not measured one by one before the end. Whenever a detector's region touches data
    qubits alone, it is a stabiliser of the code there.

    Args:
        circuit: with deterministic detectors.
        memory: (detectors,), those of the type that predicts the observables.

    Returns:
        None where no region lies on data qubits alone, or what does is no code's checks.
    """
    ticked = with_ticks(circuit)
    data = _data_qubits(ticked)
    found: tuple[dict[frozenset[int], set[str]], ...] = ({}, {})
    regions = ticked.detecting_regions(targets=["D"], ignore_anticommutation_errors=True)
    for target, by_tick in regions.items():
        supports = found[0 if memory[target.val] else 1]
        for paulis in by_tick.values():
            support = frozenset(paulis.pauli_indices())
            if support <= data:
                supports.setdefault(support, set()).update("_XYZ"[paulis[q]] for q in support)
    qubits = sorted(frozenset().union(*found[0], *found[1]))
    if not found[0]:
        return None
    place = {qubit: column for column, qubit in enumerate(qubits)}
    first, second = (_matrix([sorted(place[q] for q in support) for support in one], len(qubits)) for one in found)
    letters = "".join(sorted(set().union(*found[0].values())))
    facts = CodeFacts((first, second), letters, recognise(first))
    return facts if facts.k is None or facts.k >= 0 else None  # else these are not a code's checks


def recognise(checks: sp.csr_matrix) -> BivariateBicycleCode | None:
    """The known code that has these checks in one basis, up to an order of checks and qubits.

    Args:
        checks: uint8 (checks, qubits), all of one basis. Both bases of a BB code have the same graph.
    """
    for code in CODES.values():
        if code.hx.shape == checks.shape and same_graph(checks, sp.csr_matrix(code.hx)):
            return code
    return None


def same_graph(one: sp.csr_matrix, other: sp.csr_matrix) -> bool:
    """Whether two check matrices of the same shape are equal up to an order of rows and of columns."""
    return next(isomorphisms(one, other), None) is not None


def isomorphisms(
    one: sp.csr_matrix, other: sp.csr_matrix, *, fixed: tuple[int, int] | None = None
) -> Iterator[tuple[Colours, Colours]]:
    """All ways in which two check matrices of the same shape are equal up to an order of rows and of columns.

    Vertices of both graphs get the same colour as long as nothing tells them apart; where all have colours of their own
    the order follows from them, and is checked. Else one vertex is singled out in the one graph, and each of its colour
    in the other in turn.

    Args:
        one: uint8 (checks, qubits).
        other: the same.
        fixed: a check of the one and the check of the other that it has to be; None for any.

    Yields:
        For each check of the one, int64 (checks,), and for each qubit, (qubits,), that of the other that it is.
    """
    both = sp.block_diag([one, other], format="csr").astype(np.uint64)
    rows, columns = one.shape

    def search(checks: Colours, qubits: Colours) -> Iterator[tuple[Colours, Colours]]:
        checks, qubits = _refined(both, checks, qubits)
        if any((np.sort(half[0]) != np.sort(half[1])).any() for half in (checks.reshape(2, -1), qubits.reshape(2, -1))):
            return
        for which, colours in enumerate((checks, qubits)):
            size = len(colours) // 2
            ambiguous = np.flatnonzero(np.bincount(colours[:size])[colours[:size]] > 1)
            if len(ambiguous):
                v = int(ambiguous[0])
                for w in np.flatnonzero(colours[size:] == colours[v]):
                    yield from search(*_singled_out(checks, qubits, which, (v, int(size + w))))
                return
        found = [np.argsort(half[1])[np.argsort(np.argsort(half[0]))] for half in _halves(checks, qubits)]
        placed = one.tocoo()
        moved = sp.csr_matrix((placed.data, (found[0][placed.row], found[1][placed.col])), shape=other.shape)
        if (moved != other).nnz == 0:
            yield found[0], found[1]

    start = np.zeros(2 * rows, np.int64), np.zeros(2 * columns, np.int64)
    yield from search(*(start if fixed is None else _singled_out(*start, 0, (fixed[0], rows + fixed[1]))))


def _halves(*colours: Colours) -> Iterator[tuple[Colours, Colours]]:
    for both in colours:
        yield both[: len(both) // 2], both[len(both) // 2 :]


def _singled_out(checks: Colours, qubits: Colours, which: int, pair: tuple[int, int]) -> tuple[Colours, Colours]:
    """The colours with a new one for a vertex of each graph: checks if `which` is 0, else qubits."""
    changed = checks.copy(), qubits.copy()
    changed[which][list(pair)] = changed[which].max() + 1
    return changed


def _refined(graph: sp.csr_matrix, checks: Colours, qubits: Colours) -> tuple[Colours, Colours]:
    """Colours that differ wherever the colours of the neighbours do (colour refinement)."""
    numbers = np.random.default_rng(0).integers(2**63, size=1 + max(graph.shape), dtype=np.uint64)
    known = -1
    while (count := len(np.unique(checks)) + len(np.unique(qubits))) > known:
        known = count
        qubits = _recoloured(qubits, graph.T @ numbers[checks])
        checks = _recoloured(checks, graph @ numbers[qubits])
    return checks, qubits


def _recoloured(colours: Colours, neighbours: npt.NDArray[np.uint64]) -> Colours:
    pairs = np.stack([colours.astype(np.uint64), neighbours], axis=1)
    return np.asarray(np.unique(pairs, axis=0, return_inverse=True)[1].ravel(), dtype=np.int64)


def _data_qubits(ticked: stim.Circuit) -> frozenset[int]:
    """The qubits that are not measured one by one before the last layer of measurements."""
    layers = [set[int]()]
    for instruction in ticked:
        assert isinstance(instruction, stim.CircuitInstruction)
        if stim.gate_data(instruction.name).produces_measurements and instruction.name != "MPP":
            layers[-1].update(q for target in instruction.targets_copy() if (q := target.qubit_value) is not None)
        elif instruction.name == "TICK" and layers[-1]:
            layers.append(set())
    *early, _ = [layer for layer in layers if layer] or [set()]
    return frozenset(range(ticked.num_qubits)).difference(*early)


def _matrix(supports: list[list[int]], columns: int) -> sp.csr_matrix:
    matrix = sp.lil_matrix((len(supports), columns), dtype=np.uint8)
    for row, support in enumerate(supports):
        matrix[row, support] = 1
    return matrix.tocsr()
