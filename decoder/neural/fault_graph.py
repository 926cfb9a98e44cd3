"""The mechanisms of a memory experiment as two factor graphs, one of each check type, and what each says of the other.

A mechanism that flips detectors of both check types (a Pauli Y, say) is a fault of each graph, and those that look the
same to one check type are one fault there. How likely a fault of one graph is, given those of the other, follows from
the mechanisms that they share.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.neural.fault_lattice import FaultLattice
from decoder.neural.geometry import TorusGeometry
from simulation.circuits import MemoryExperiment
from simulation.detectors import Basis
from simulation.faults import poisson_means
from simulation.noise import NoiseModel

NOMINAL_P = 0.003  # of the priors; the network learns what the beliefs mean at other error rates
ABSENT = 30.0  # log-odds against a mechanism that does not exist

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

fault_lattice = lru_cache(maxsize=16)(FaultLattice)


class FaultGraph(NamedTuple):
    """One check type's C checks and V faults, with E edges between them, check after check."""

    start: Integers
    """(C + 1,): where the edges of each check start."""
    fault: Integers
    """(E,): the fault at each edge."""
    prior: Floats
    """(V,): log-odds against each fault."""
    alone: Floats
    """(V,): the probability of the mechanisms that the other check type does not see."""
    first_partner: Integers
    """(V + 1,): where the partners of each fault start."""
    partner: Integers
    """(S,): faults of the other graph that share mechanisms with one of this graph, fault after fault."""
    share: Floats
    """(S,): the probability of this fault if only the partner is known, and has happened."""


class FaultGraphs(NamedTuple):
    """Of an experiment of T layers on N cells, whose memory basis sees K kinds of faults; each side has T N checks."""

    memory: FaultGraph
    """The faults are (T, K, N) in a row; those that no mechanism causes have the prior `ABSENT` and no edges."""
    other: FaultGraph
    """There are no faults at the first and the last layer's checks."""
    output_flips: Floats
    """(K N, O): the outputs whose operator a fault of the memory graph anticommutes with, the same in every layer."""


@lru_cache(maxsize=32)
def fault_graphs(geometry: TorusGeometry, basis: Basis, layers: int) -> FaultGraphs:
    """The graphs of a memory experiment of `layers` - 1 rounds."""
    lattice = fault_lattice(geometry, basis)
    experiment = MemoryExperiment(geometry.code, basis, layers - 1, NoiseModel.uniform(NOMINAL_P))
    model, cells, kinds = experiment.fault_model, geometry.code.cells, len(lattice.patterns)
    layer, slot, cell = np.empty((3, model.num_detectors), dtype=np.int64)
    index = geometry.event_index(experiment.grid)
    layer[index[index >= 0]], slot[index[index >= 0]], cell[index[index >= 0]] = np.nonzero(index >= 0)

    places: dict[tuple[int, ...], int] = {}  # of the faults that the memory basis sees
    others: dict[tuple[int, ...], int] = {}  # of those that the other check type sees, in any order
    flips = np.zeros((kinds * cells, len(geometry.output_supports)), dtype=np.float32)
    fault = np.full((2, model.num_mechanisms), -1)  # of each mechanism in each graph
    for mechanism, (detectors, observables) in enumerate(model.symptoms()):
        mine, theirs = (tuple(d for d in detectors if slot[d] == which) for which in (0, 1))
        if mine:
            if mine not in places:
                t, kind, c = lattice.place([(int(layer[d]), int(cell[d])) for d in mine])
                places[mine] = (t * kinds + kind) * cells + c
                flips[kind * cells + c] = (
                    geometry.output_observables[:, list(observables)].sum(1)
                    + geometry.output_checks[:, cell[list(mine)]].sum(1)
                ) % 2
            fault[0, mechanism] = places[mine]
        if theirs:
            fault[1, mechanism] = others.setdefault(theirs, len(others))

    check, means = layer * cells + cell, poisson_means(model.priors)
    memory = _graph(places, check, fault[0], fault[1], means, faults=layers * kinds * cells, checks=layers * cells)
    other = _graph(others, check, fault[1], fault[0], means, faults=len(others), checks=layers * cells)
    return FaultGraphs(memory, other, flips)


def _graph(
    faults_of: dict[tuple[int, ...], int],
    check: Integers,
    fault: Integers,
    partner: Integers,
    means: npt.NDArray[np.float64],
    *,
    faults: int,
    checks: int,
) -> FaultGraph:
    """The graph of the `faults_of` some detectors, from the check of each detector and, of each mechanism, its fault
    here and in the other graph (-1: none) and its Poisson mean."""
    edge_fault = np.repeat(list(faults_of.values()), [len(detectors) for detectors in faults_of]).astype(np.int64)
    edge_check = check[[d for detectors in faults_of for d in detectors]]
    order = np.argsort(edge_check, kind="stable")

    seen, partnered = fault >= 0, (fault >= 0) & (partner >= 0)
    # Mechanisms are rare: that one of several happens is as likely as their means, added, say.
    total = np.bincount(fault[seen], means[seen], minlength=faults)
    alone = np.bincount(fault[seen & ~partnered], means[seen & ~partnered], minlength=faults)
    partner_total = np.bincount(partner[partner >= 0], means[partner >= 0])
    shared = np.flatnonzero(partnered)[np.argsort(fault[partnered], kind="stable")]
    with np.errstate(divide="ignore"):
        prior = -np.expm1(-2 * total) / 2
        odds = np.minimum(np.log1p(-prior) - np.log(prior), ABSENT)
    return FaultGraph(
        start=np.searchsorted(edge_check[order], np.arange(checks + 1)),
        fault=edge_fault[order],
        prior=odds.astype(np.float32),
        alone=alone.astype(np.float32),
        first_partner=np.searchsorted(fault[shared], np.arange(faults + 1)),
        partner=partner[shared],
        share=(means[shared] / partner_total[partner[shared]]).astype(np.float32),
    )
