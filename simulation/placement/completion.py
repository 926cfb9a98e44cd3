"""From the places of the memory type's detectors to all of an experiment, mechanism by mechanism."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment
from simulation.faults import FaultModel
from simulation.gf2 import RowSpace
from simulation.placement.value import Indices, Placement, memory_cells, translated

Hashes = npt.NDArray[np.uint64]

SEED = 23
"""Of the random numbers that mechanisms are compared by: each is the sum of those of its detectors."""


class Failure(NamedTuple):
    """Why a candidate is not the one."""

    strangers: int
    """The mechanisms that are none of ours."""
    why: str


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
        """int64 (others, memory faults): 1 where some mechanism flips a detector of the other type and is this fault.

        Mechanisms that flip none of the memory type are left out: they are the same fault to all detectors.
        """
        hashes = _hashes(checks, keys)
        entries = checks.tocsr()[others].tocoo()
        told = hashes[entries.col] != 0
        row, fault = entries.row[told], np.searchsorted(self.seen, hashes[entries.col[told]])
        ones = np.ones(len(row), dtype=np.int64)
        together = sp.csr_matrix((ones, (row, fault)), shape=(len(others), len(self.seen)))
        together.data[:] = 1
        return together


_known = lru_cache(maxsize=4)(_Known)


def _hashes(checks: sp.csc_matrix, keys: Hashes) -> Hashes:
    """(columns,): the sum of the keys of each column's rows."""
    return np.asarray(checks.T.astype(np.uint64) @ keys, dtype=np.uint64)


def completed(experiment: Experiment, like: MemoryExperiment, detector: Indices) -> Placement | Failure:
    """The placement with these places of the memory type's detectors; or why it is none."""
    model, known = experiment.fault_model, _known(like)
    memory, others = np.flatnonzero(detector >= 0), np.flatnonzero(detector < 0)
    if len(memory) != len(known.memory) or len(others) != len(known.other):
        return Failure(model.num_mechanisms, f"it has other numbers of detectors than {like}")
    keys = np.zeros(len(detector), dtype=np.uint64)
    keys[memory] = known.keys[detector[memory]]
    strange = ~np.isin(_hashes(model.check_matrix, keys), known.seen)
    if strange.any():
        return _strangers(model, strange, like)
    if len(others):
        # A detector of the other type is the one that shares most kinds of mechanisms with the memory type.
        mine = known.beside(model.check_matrix, keys, others)
        shared = (mine @ known.beside(known.model.check_matrix, known.at_memory, known.other).T).tocsr()
        detector = detector.copy()
        detector[others] = known.other[np.asarray(shared.argmax(axis=1)).ravel()]
        if len(np.unique(detector)) < len(detector):
            why = f"its mechanisms do not tell where in {like} the detectors of the other type belong"
            return Failure(model.num_mechanisms, why)
    found: Placement | Failure = Failure(0, "")
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


def _strangers(model: FaultModel, strange: npt.NDArray[np.bool_], like: MemoryExperiment) -> Failure:
    first = np.flatnonzero(strange)[0]
    detectors = model.check_matrix.indices[slice(*model.check_matrix.indptr[[first, first + 1]])]
    strangers = int(np.count_nonzero(strange))
    return Failure(
        strangers,
        f"{strangers} of its {model.num_mechanisms} error mechanisms, such as that of "
        f"{' '.join(f'D{d}' for d in detectors)}, do not occur in the syndrome cycle that the network knows, that of "
        f"the {like.basis} memory of {like.code} over {like.rounds} rounds",
    )


def _with_observables(
    model: FaultModel, like: MemoryExperiment, detector: Indices, mechanism: Indices
) -> Placement | Failure:
    """The placement, if the observables are made of ours and of checks.

    Args:
        model: the experiment's.
        like: our experiment.
        detector: (detectors,), that of `like` that each one is.
        mechanism: (mechanisms,), that of `like` that each one is.
    """
    code = like.code
    if model.num_observables != code.k:
        return Failure(0, f"it has {model.num_observables} observables, but {code} has {code.k} logical qubits")
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
        return Failure(0, f"its observables are not made of the logical operators of {code}")
    found = Placement(like, detector, made_of[:, : code.k], made_of[:, code.k :])
    if RowSpace(found.observables).rank < code.k:
        return Failure(0, f"its observables are not {code.k} independent logical operators of {code}")
    return found
