"""The mechanisms of a fault model in tables: by detector, by symptom, and how often each is two others in disguise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.serial.graph import LEAST_PRIOR, MOST_PRIOR, JointFaults, observables_of
from decoder.serial.solutions import lightening
from simulation.faults import FaultModel

SEED = 17
"""Of the random numbers that symptoms are summed of."""

Integers = npt.NDArray[np.int32]


class Mechanisms(NamedTuple):
    """M mechanisms and D detectors."""

    weight: npt.NDArray[np.float64]
    """(M,): log((1 - p) / p)."""
    degeneracy: npt.NDArray[np.float64]
    """(M,): log(1 + sum of exp(weight - weight of c - weight of d)) over all pairs {c, d} with the same symptom."""
    symptom: npt.NDArray[np.int64]
    """(M,): the exclusive or of 64 random bits for each detector and each observable that it flips.

    So the symptom of a set is that of its members, combined, and two different ones agree once in 2^64.
    """
    first_detector: Integers
    """(M + 1,): where the detectors of each mechanism start."""
    detector: Integers
    """The detectors of each mechanism, one mechanism after the other."""
    first_mechanism: Integers
    """(D + 1,): where the mechanisms of each detector start."""
    mechanism: Integers
    """The mechanisms of each detector, the lightest first, one detector after the other."""
    row_weight: npt.NDArray[np.float64]
    """Their weights, in the same order: read one after the other, they are there at once."""
    row_symptom: npt.NDArray[np.int64]
    """Their symptoms."""
    place: Integers
    """(power of two,): a hash table with open addressing, from symptoms to mechanisms; -1 where it is empty."""
    filled: npt.NDArray[np.uint8]
    """(power of two,): a bit for each of the last bits of a symptom, 0 where no mechanism has a symptom with them.

    It fits into a fast cache, unlike `place` and the symptoms, and nearly always it is all that has to be asked.
    """
    near: npt.NDArray[np.uint64]
    """(D, words): of each detector those that have a mechanism in common with it, as bits."""
    lightest: npt.NDArray[np.float64]
    """(1,): the least weight."""


def mechanisms_of(model: FaultModel) -> Mechanisms:
    """The tables of a fault model."""
    checks, observables = model.check_matrix.tocsc(), model.observable_matrix.tocsc()
    random = np.random.default_rng(SEED).integers(0, 2**63 - 1, checks.shape[0] + observables.shape[0], dtype=np.int64)
    symptom = _combined(checks.indptr, random[checks.indices])
    symptom ^= _combined(observables.indptr, random[checks.shape[0] + observables.indices])
    prior = np.minimum(model.priors, MOST_PRIOR)
    weight = np.log1p(-prior) - np.log(prior)
    by_detector = checks.tocsr()
    row = np.repeat(np.arange(by_detector.shape[0]), np.diff(by_detector.indptr))
    lightest_first = np.lexsort((by_detector.indices, weight[by_detector.indices], row))
    mechanism = by_detector.indices[lightest_first].astype(np.int32)
    size = 1 << int(4 * len(weight) + 4).bit_length()
    tables = Mechanisms(
        weight=weight,
        degeneracy=np.zeros(len(weight)),
        symptom=symptom,
        first_detector=checks.indptr.astype(np.int32),
        detector=checks.indices.astype(np.int32),
        first_mechanism=by_detector.indptr.astype(np.int32),
        mechanism=mechanism,
        row_weight=weight[mechanism],
        row_symptom=symptom[mechanism],
        place=np.full(size, -1, dtype=np.int32),
        filled=np.zeros(size, dtype=np.uint8),
        near=_near(by_detector),
        lightest=np.array([weight.min(initial=np.inf)]),
    )
    lightening.fill(tables)
    lightening.count_pairs(tables)
    return tables


def joint_mechanisms(model: FaultModel, faults: JointFaults) -> tuple[Mechanisms, Integers]:
    """The tables of a fault model, and int32 (V,): of each fault, the mechanism that is this fault and nothing else.

    Where there is none, because other mechanisms alone make up the fault, one is added that is as good as impossible:
    errors may begin with it, and lightening replaces it.
    """
    graph, memory = faults.graph, len(faults.graph.flips)
    fault = np.where(faults.other_fault < 0, faults.memory_fault, faults.other_fault)
    flips = np.concatenate([graph.flips, np.zeros(len(graph.chance) - memory, dtype=np.int64)])
    alone = (faults.memory_fault < 0) != (faults.other_fault < 0)
    alone[alone] = faults.cosets[alone] == flips[fault[alone]]
    mechanism = np.full(len(flips), -1, dtype=np.int32)
    mechanism[fault[alone]] = np.flatnonzero(alone)
    missing = np.flatnonzero(mechanism < 0)
    mechanism[missing] = model.num_mechanisms + np.arange(len(missing))
    masks = observables_of(flips[missing], num_observables=model.num_observables)
    extended = FaultModel(
        sp.hstack([model.check_matrix, faults.checks[:, missing]], format="csc"),
        sp.hstack([model.observable_matrix, masks.T.astype(np.uint8)], format="csc"),
        priors=np.append(model.priors, np.full(len(missing), LEAST_PRIOR)),
    )
    return mechanisms_of(extended), mechanism


def _combined(start: npt.NDArray[np.integer], values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The exclusive or of each group of values, which may be empty; groups start as in a sparse matrix."""
    running = np.concatenate([np.zeros(1, np.int64), np.bitwise_xor.accumulate(values)])
    return np.asarray(running[start[1:]] ^ running[start[:-1]])


def _near(checks: sp.csr_matrix) -> npt.NDArray[np.uint64]:
    """Bits (detectors, words): which detectors have a mechanism in common, from a matrix (detectors, mechanisms)."""
    common = (checks.astype(np.int32) @ checks.astype(np.int32).T).tocoo()
    near = np.zeros((checks.shape[0], -(-checks.shape[0] // 64)), dtype=np.uint64)
    np.bitwise_or.at(near, (common.row, common.col // 64), np.uint64(1) << (common.col % 64).astype(np.uint64))
    return near
