"""Checks over time, and the code's Tanner graph, read from the mechanisms that a memory type of detectors sees."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from simulation.experiments import Experiment
from simulation.faults import distinct_columns
from simulation.foreign.layers import layer_of_detectors
from simulation.placement.value import Indices, NotPlacedError


def distinct(checks: sp.csc_matrix) -> sp.csc_matrix:
    """The distinct columns with an entry."""
    place, columns = distinct_columns(checks, num_observables=0), checks.tocsc()
    return columns[:, np.unique(place, return_index=True)[1][(1 if (place < 0).any() else 0) :]]


def chains_of(checks: sp.csc_matrix) -> Indices:
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


def directions(chains: Indices, checks: sp.csc_matrix, experiment: Experiment, memory: Indices) -> Iterator[Indices]:
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


def tanner_graph(chains: Indices, checks: sp.csc_matrix) -> sp.csr_matrix:
    """uint8 (cells, data qubits): the checks that errors of three detectors in one layer flip, each once."""
    cell, layer = np.zeros((2, checks.shape[0]), dtype=np.int64)
    cell[chains] = np.arange(len(chains))[:, None]
    layer[chains] = np.arange(chains.shape[1])
    threes = checks[:, np.diff(checks.indptr) == 3].indices.reshape(-1, 3)
    at_once = threes[(np.ptp(layer[threes], axis=1) == 0)]
    qubits = np.unique(np.sort(cell[at_once], axis=1), axis=0)
    ones, column = np.ones(qubits.size, dtype=np.uint8), np.repeat(np.arange(len(qubits)), 3)
    return sp.csr_matrix((ones, (qubits.ravel(), column)), shape=(len(chains), len(qubits)))
