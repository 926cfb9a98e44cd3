"""Which memory experiment of Tandem's own an experiment is, but for names.

A memory experiment of a bivariate bicycle code whose syndrome cycle is that of `simulation.circuits` has the same error
mechanisms, whatever its qubits are called, in whatever order its detectors come, and whichever basis of the logical
operators its observables are. So the place of each detector on the torus is found in the mechanisms alone:

1. those that flip two detectors of the memory basis are errors of a check's measurement, and join the detectors of each
   check into a chain, one for each round;
2. those that flip three detectors of one round are errors of data qubits. Together they are the code's Tanner graph,
   which is compared with that of the known codes;
3. all others have to be mechanisms of our experiment, which decides between what is left: the basis, the direction
   of time, and the symmetries of the graph.

Translations of the torus change nothing, so that nearly always any of them will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from simulation.bases import BASES, Basis, Detectors
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES, BivariateBicycleCode
from simulation.detectors import DetectorGrid
from simulation.experiments import Experiment
from simulation.faults import FaultModel, distinct_columns
from simulation.foreign.layers import layer_of_detectors
from simulation.foreign.recognition import isomorphisms
from simulation.gf2 import Matrix, RowSpace
from simulation.noise import NoiseModel

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

SEED = 23
"""Of the random numbers that mechanisms are compared by: each is the sum of those of its detectors."""


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


def placement_of(experiment: Experiment, *, code: BivariateBicycleCode | None = None) -> Placement:
    """Finds the experiment of ours that an experiment is. What was found is kept.

    Args:
        experiment: any.
        code: a code that may be its own, beside the published ones.

    Raises:
        NotPlacedError: it is none; the message says why.
    """
    found = _found(experiment, code)
    if isinstance(found, str):
        raise NotPlacedError(found)
    return found


@lru_cache(maxsize=8)
def _found(experiment: Experiment, code: BivariateBicycleCode | None) -> Placement | str:
    if isinstance(experiment, MemoryExperiment):
        k, cells = experiment.num_observables, experiment.code.cells
        one, none = np.eye(k, dtype=np.uint8), np.zeros((k, cells), dtype=np.uint8)
        return Placement(experiment, np.arange(experiment.num_detectors), one, none)
    try:
        return _search(experiment, [*CODES.values(), *([] if code is None else [code])])
    except NotPlacedError as error:
        return str(error)


def _search(experiment: Experiment, codes: list[BivariateBicycleCode]) -> Placement:
    """Tries all candidates, those of the coordinates first."""
    types, model = experiment.check_types, experiment.fault_model
    if not types.predicted.all():
        raise NotPlacedError("the detectors of both check types predict observables, and not those of one basis alone")
    closest = _Failure(model.num_mechanisms + 1, "its checks are those of no known code")
    for candidates in (_by_coordinates(experiment, codes), _by_mechanisms(experiment, codes)):
        try:
            for like, detector in candidates:
                found = _completed(experiment, like, detector)
                if isinstance(found, Placement):
                    return found
                closest = min(closest, found)
        except NotPlacedError as error:
            closest = min(closest, _Failure(model.num_mechanisms, str(error)))
    raise NotPlacedError(closest.why)


class _Failure(NamedTuple):
    """Why a candidate is not the one."""

    strangers: int
    """The mechanisms that are none of ours."""
    why: str


Candidate = tuple[MemoryExperiment, Indices]
"""An experiment of ours, and which of its detectors each detector of the memory type is, -1 for those of the other."""


def _by_coordinates(experiment: Experiment, codes: list[BivariateBicycleCode]) -> Iterator[Candidate]:
    """What coordinates (x, y, round, type) as those of ours say."""
    try:
        grid = DetectorGrid.of(experiment.dem)
        basis = grid.memory_basis
    except ValueError:
        return
    x, y, layer, kind = grid.coordinates.T
    memory = kind == BASES.index(basis)
    if not np.array_equal(memory, experiment.check_types.memory) or grid.rounds < 1 or grid.coordinates.min() < 0:
        return
    for code in codes:
        if (code.l, code.m) == (x.max() + 1, y.max() + 1):
            for like in _likes(code, basis, rounds=grid.rounds, others=int((~memory).sum())):
                where = np.stack([x, y, layer, kind], axis=1)
                places = {tuple(row): d for d, row in enumerate(like.grid.coordinates.tolist())}
                found = np.array([places.get(tuple(row), -1) for row in where.tolist()])
                if len(places) == len(found) and (found >= 0).all():
                    yield like, np.where(memory, found, -1)


def _by_mechanisms(experiment: Experiment, codes: list[BivariateBicycleCode]) -> Iterator[Candidate]:
    """What the mechanisms say, as the head of this file tells."""
    memory = np.flatnonzero(experiment.check_types.memory)
    checks = _distinct(experiment.fault_model.check_matrix[memory])
    chains = _chains(checks)
    others = experiment.num_detectors - len(memory)
    for in_time in _directions(chains, checks, experiment, memory):
        tanner = _tanner(in_time, checks)
        cells, rounds = len(in_time), in_time.shape[1] - 1
        fitting = [code for code in codes if code.cells == cells and tanner.shape[1] == code.n]
        for code in fitting:
            for order, _ in isomorphisms(tanner, sp.csr_matrix(code.hz), fixed=(0, 0)):
                for basis in ("Z", "X"):
                    for like in _likes(code, basis, rounds=rounds, others=others):
                        yield like, _placed_chains(experiment, like, memory[in_time], order)
        if not fitting:
            raise NotPlacedError(f"no known code has {cells} checks of each type and {tanner.shape[1]} data qubits")


def _likes(code: BivariateBicycleCode, basis: Basis, *, rounds: int, others: int) -> Iterator[MemoryExperiment]:
    """Our experiments with so many detectors of the other basis."""
    for perfect_end in (False, True):
        later = code.cells * (rounds if perfect_end else rounds - 1)
        detectors: Detectors = "XYZ" if others else "XZ"
        if others in (0, later) and code.k:
            yield _like(code, basis, rounds, detectors, perfect_end)


@lru_cache(maxsize=8)
def _like(
    code: BivariateBicycleCode, basis: Basis, rounds: int, detectors: Detectors, perfect_end: bool
) -> MemoryExperiment:
    return MemoryExperiment(code, basis, rounds, NoiseModel.uniform(1e-3), detectors, perfect_end)


# --- chains, time and the code's Tanner graph ---


def _distinct(checks: sp.csc_matrix) -> sp.csc_matrix:
    """The distinct columns with an entry."""
    place, columns = distinct_columns(checks, num_observables=0), checks.tocsc()
    return columns[:, np.unique(place, return_index=True)[1][(1 if (place < 0).any() else 0) :]]


def _chains(checks: sp.csc_matrix) -> Indices:
    """(cells, layers): the detectors of each check one after the other, in either direction."""
    pairs = checks[:, np.diff(checks.indptr) == 2].indices.reshape(-1, 2)
    size, unjoined = (
        checks.shape[0],
        "the errors that flip two detectors do not join the detectors of each check over time",
    )
    if not len(pairs):
        raise NotPlacedError(unjoined)
    joined = sp.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    number, label = connected_components(joined, directed=False)
    degree = np.bincount(pairs.ravel(), minlength=size)
    layers, ends = size // number, np.flatnonzero(degree == 1)
    in_chains = (np.bincount(label) == layers).all() and (degree[degree != 1] == 2).all()
    if layers < 2 or not in_chains or len(ends) != 2 * number or len(pairs) != size - number:
        raise NotPlacedError(unjoined)
    neighbours = np.zeros(size, dtype=np.int64)
    np.add.at(neighbours, pairs.ravel(), pairs[:, ::-1].ravel())
    chain = [ends[np.unique(label[ends], return_index=True)[1]]]
    before = np.zeros(number, dtype=np.int64)
    for _ in range(layers - 1):
        chain.append(neighbours[chain[-1]] - before)
        before = chain[-2]
    return np.stack(chain, axis=1)


def _directions(chains: Indices, checks: sp.csc_matrix, experiment: Experiment, memory: Indices) -> Iterator[Indices]:
    """The chains with all first layers first; then with time the other way round, unless that is known."""
    if chains.shape[1] == 2:
        # Nothing tells the first layer from the last one in a single round, but when they were measured.
        layer = layer_of_detectors(experiment.source)[memory][chains]
        if (layer[:, 0] == layer[:, 1]).any():
            raise NotPlacedError("in a single round the mechanisms do not tell the detectors' order in time")
        yield np.where((layer[:, 0] < layer[:, 1])[:, None], chains, chains[:, ::-1])
        return
    ends = np.zeros(len(memory), dtype=np.bool_)
    ends[chains[:, [0, -1]]] = True
    at_ends = _all_among(checks, ends, size=3)
    number, label = connected_components(at_ends @ at_ends.T, directed=False)
    sides = label[chains[:, [0, -1]]]
    if number - np.count_nonzero(~ends) != 2 or (sides[:, 0] == sides[:, 1]).any():
        raise NotPlacedError("the errors of data qubits do not join the first layer of all checks")
    forward = np.where((sides[:, 0] == sides[0, 0])[:, None], chains, chains[:, ::-1])
    yield forward
    yield forward[:, ::-1]


def _all_among(checks: sp.csc_matrix, detectors: npt.NDArray[np.bool_], *, size: int) -> sp.csc_matrix:
    """The columns of so many entries, all of them among some detectors."""
    among = np.asarray(checks[detectors].sum(axis=0)).ravel()
    return sp.csc_matrix(checks[:, (np.diff(checks.indptr) == size) & (among == size)], dtype=np.int64)


def _tanner(chains: Indices, checks: sp.csc_matrix) -> sp.csr_matrix:
    """uint8 (cells, data qubits): the checks that errors of three detectors in one layer flip, each once."""
    cell, layer = np.zeros((2, checks.shape[0]), dtype=np.int64)
    cell[chains] = np.arange(len(chains))[:, None]
    layer[chains] = np.arange(chains.shape[1])
    threes = checks[:, np.diff(checks.indptr) == 3].indices.reshape(-1, 3)
    at_once = threes[(np.ptp(layer[threes], axis=1) == 0)]
    qubits = np.unique(np.sort(cell[at_once], axis=1), axis=0)
    ones, column = np.ones(qubits.size, dtype=np.uint8), np.repeat(np.arange(len(qubits)), 3)
    return sp.csr_matrix((ones, (qubits.ravel(), column)), shape=(len(chains), len(qubits)))


def _placed_chains(experiment: Experiment, like: MemoryExperiment, chains: Indices, order: Indices) -> Indices:
    """Each detector's place in `like`, where each chain is the Z check of a cell of the code."""
    code, grid = like.code, like.grid.coordinates
    x, y = np.divmod(order, code.m)
    if like.basis == "X":  # the duality of the code takes Z checks to X checks
        x, y = -x % code.l, -y % code.m
    table = np.full((code.l, code.m, like.rounds + 1), -1, dtype=np.int64)
    mine = np.flatnonzero(grid[:, 3] == BASES.index(like.basis))
    table[tuple(grid[mine, :3].T)] = mine
    found = np.full(experiment.num_detectors, -1, dtype=np.int64)
    found[chains] = table[x, y]
    return found


# --- the whole experiment ---


class _Known:
    """The mechanisms of an experiment of ours, as sums of random numbers."""

    def __init__(self, like: MemoryExperiment) -> None:
        self.model = like.fault_model
        self.memory = np.flatnonzero(like.check_types.memory)
        self.other = np.flatnonzero(~like.check_types.memory)
        keys = np.random.default_rng(SEED).integers(2**63, size=like.num_detectors, dtype=np.uint64)
        self.keys = keys
        whole = _hashes(self.model.check_matrix, keys)
        self.order = np.argsort(whole)
        self.whole = whole[self.order]
        self.at_memory = np.where(np.isin(np.arange(len(keys)), self.memory), keys, np.uint64(0))
        self.seen = np.unique(_hashes(self.model.check_matrix, self.at_memory))

    def beside(self, checks: sp.csc_matrix, keys: Hashes, others: Indices) -> sp.csr_matrix:
        """int64 (others, memory faults): how many mechanisms flip a detector of the other type and are this fault."""
        fault = np.searchsorted(self.seen, _hashes(checks, keys))
        entries = checks.tocsr()[others].tocoo()
        ones = np.ones(len(entries.row), dtype=np.int64)
        together = sp.csr_matrix((ones, (entries.row, fault[entries.col])), shape=(len(others), len(self.seen)))
        together.data[:] = 1
        return together


_known = lru_cache(maxsize=4)(_Known)


def _hashes(checks: sp.csc_matrix, keys: Hashes) -> Hashes:
    """(columns,): the sum of the keys of each column's rows."""
    return np.asarray(checks.T.astype(np.uint64) @ keys, dtype=np.uint64)


def _completed(experiment: Experiment, like: MemoryExperiment, detector: Indices) -> Placement | _Failure:
    """The placement with these places of the memory type's detectors; or why it is none."""
    model, known = experiment.fault_model, _known(like)
    memory, others = np.flatnonzero(detector >= 0), np.flatnonzero(detector < 0)
    if len(memory) != len(known.memory) or len(others) != len(known.other):
        return _Failure(model.num_mechanisms, f"it has other numbers of detectors than {like}")
    keys = np.zeros(len(detector), dtype=np.uint64)
    keys[memory] = known.keys[detector[memory]]
    strange = ~np.isin(_hashes(model.check_matrix, keys), known.seen)
    if strange.any():
        return _strangers(model, strange, like)
    if len(others):
        # A detector of the other type is the one that shares most kinds of mechanisms with the memory type.
        mine = known.beside(model.check_matrix, keys, others)
        shared = (mine @ known.beside(known.model.check_matrix, known.at_memory, known.other).T).toarray()
        detector = detector.copy()
        detector[others] = known.other[shared.argmax(axis=1)]
        if len(np.unique(detector)) < len(detector):
            why = f"its mechanisms do not tell where in {like} the detectors of the other type belong"
            return _Failure(model.num_mechanisms, why)
    found: Placement | _Failure = _Failure(0, "")
    # Before a perfect last cycle a wrong reset makes a check wrong that the data do not show. So the observables, which
    # may be ours times checks elsewhere, decide what may be called the first cell.
    for cell in range(like.code.cells if like.noiseless_last_cycle else 1):
        moved = translated(like, cell)[detector]
        whole = _hashes(model.check_matrix, known.keys[moved])
        place = np.minimum(np.searchsorted(known.whole, whole), len(known.whole) - 1)
        strange = known.whole[place] != whole
        if strange.any():
            return _strangers(model, strange, like)
        found = _with_observables(model, like, moved, known.order[place])
        if isinstance(found, Placement):
            break
    return found


def _strangers(model: FaultModel, strange: npt.NDArray[np.bool_], like: MemoryExperiment) -> _Failure:
    first = np.flatnonzero(strange)[0]
    detectors = model.check_matrix.indices[slice(*model.check_matrix.indptr[[first, first + 1]])]
    strangers = int(np.count_nonzero(strange))
    return _Failure(
        strangers,
        f"{strangers} of its {model.num_mechanisms} error mechanisms, such as that of "
        f"{' '.join(f'D{d}' for d in detectors)}, do not occur in the syndrome cycle that the network knows, that of "
        f"the {like.basis} memory of {like.code} over {like.rounds} rounds",
    )


def _with_observables(
    model: FaultModel, like: MemoryExperiment, detector: Indices, mechanism: Indices
) -> Placement | _Failure:
    """The placement, if the observables are made of ours and of checks.

    Args:
        model: the experiment's.
        like: our experiment.
        detector: (detectors,), that of `like` that each one is.
        mechanism: (mechanisms,), that of `like` that each one is.
    """
    code = like.code
    if model.num_observables != code.k:
        return _Failure(0, f"it has {model.num_observables} observables, but {code} has {code.k} logical qubits")
    flips = model.observable_matrix.toarray()
    ours = like.fault_model.observable_matrix[:, mechanism].toarray()
    # Mechanisms that look the same to the memory type and flip the same say the same.
    in_order = model.check_matrix[np.argsort(detector)].astype(np.int64)
    seen = _hashes(in_order, _known(like).at_memory).view(np.uint8).reshape(-1, 8)
    told = np.concatenate([seen, np.packbits(np.concatenate([flips, ours]), axis=0).T], axis=1)
    some = np.unique(told, axis=0, return_index=True)[1]
    parity = (memory_cells(like).astype(np.int64) @ in_order[:, some]).toarray() % 2
    try:
        made_of = RowSpace(np.concatenate([ours[:, some], parity])).combinations(flips[:, some])
    except ValueError:
        return _Failure(0, f"its observables are not made of the logical operators of {code}")
    found = Placement(like, detector, made_of[:, : code.k], made_of[:, code.k :])
    if RowSpace(found.observables).rank < code.k:
        return _Failure(0, f"its observables are not {code.k} independent logical operators of {code}")
    return found
