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
from functools import lru_cache

import numpy as np
import scipy.sparse as sp

from simulation.bases import BASES, Basis, Detectors
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES, BivariateBicycleCode
from simulation.detectors import DetectorGrid
from simulation.experiments import Experiment
from simulation.foreign.recognition import isomorphisms
from simulation.noise import NoiseModel
from simulation.placement.chains import chains_of, directions, distinct, tanner_graph
from simulation.placement.completion import Failure, completed
from simulation.placement.value import Indices, NotPlacedError, Placement


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
    closest = Failure(model.num_mechanisms + 1, "its checks are those of no known code")
    for candidates in (_by_coordinates(experiment, codes), _by_mechanisms(experiment, codes)):
        try:
            for like, detector in candidates:
                found = completed(experiment, like, detector)
                if isinstance(found, Placement):
                    return found
                closest = min(closest, found)
        except NotPlacedError as error:
            closest = min(closest, Failure(model.num_mechanisms, str(error)))
    raise NotPlacedError(closest.why)


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
    checks = distinct(experiment.fault_model.check_matrix[memory])
    chains = chains_of(checks)
    others = experiment.num_detectors - len(memory)
    for in_time in directions(chains, checks, experiment, memory):
        tanner = tanner_graph(in_time, checks)
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
