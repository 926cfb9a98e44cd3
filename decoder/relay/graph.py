"""The mechanisms of a memory experiment as two factor graphs, one of each check type, and what each says of the other.

A mechanism that flips detectors of both check types (a Pauli Y, say) is a fault of each graph, and those that look the
same to one check type are one fault there. How likely a fault of one graph is, given those of the other, follows from
the mechanisms that they share. In the joint graph the same faults are several times as many mechanisms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulation.faults import FaultModel, poisson_means

ABSENT = 30.0
"""The log-odds against a fault that does not exist, and the most against any."""
MOST_PRIOR = 0.499
"""Mechanisms that are likelier than this, which would say nothing or the opposite, count as no likelier."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]


class FaultGraph(NamedTuple):
    """One check type's C checks and V faults, with E edges between them."""

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
    order: Integers
    """(C,): the checks, those with the most faults, D, first."""
    width: Integers
    """(D,): how many checks have a first fault, a second, and so on."""
    slots: Places
    """(D, C): the faults of each check in a column, checks in that order; 0 where a check has no more."""
    first_edge: Places
    """(V + 1,): where the edges of each fault start in `by_fault`."""
    by_fault: Places
    """(E,): where in `slots`, row after row, each edge is, fault after fault and check after check."""


class FaultGraphs(NamedTuple):
    """The graphs of the memory basis and of the other check type, with as many checks."""

    memory: FaultGraph
    other: FaultGraph
    flips: Floats
    """(V / layers, O): what is to be predicted and each fault of the memory graph flips, the same in every layer."""


class Split(NamedTuple):
    """Two graphs, and where each mechanism of the fault model is in that of the memory basis (-1: nowhere)."""

    memory: FaultGraph
    other: FaultGraph
    memory_fault: Integers


Place = Callable[[tuple[int, ...]], int]


def split(
    model: FaultModel,
    *,
    memory_basis: npt.NDArray[np.bool_],
    check: Integers,
    place: Place | None = None,
    faults: int | None = None,
) -> Split:
    """Splits a fault model by the type of its checks.

    Args:
        model: the mechanisms, with detectors of one or both check types.
        memory_basis: (detectors,), whether the detector is one of the memory basis.
        check: (detectors,), the number of the detector's check in its graph.
        place: the number of a fault of the memory graph, from the detectors that it flips; in the order of their
            first mechanisms if not given.
        faults: how many faults the memory graph has if `place` numbers them.
    """
    places: dict[tuple[int, ...], int] = {}
    others: dict[tuple[int, ...], int] = {}
    fault = np.full((2, model.num_mechanisms), -1, dtype=np.int64)  # of each mechanism in each graph
    for mechanism, (detectors, _) in enumerate(model.symptoms()):
        mine = tuple(d for d in detectors if memory_basis[d])
        theirs = tuple(d for d in detectors if not memory_basis[d])
        if mine:
            if mine not in places:
                places[mine] = len(places) if place is None else place(mine)
            fault[0, mechanism] = places[mine]
        if theirs:
            fault[1, mechanism] = others.setdefault(theirs, len(others))
    means = poisson_means(np.minimum(model.priors, MOST_PRIOR))
    checks = int(check.max(initial=-1)) + 1
    sizes = len(places) if faults is None else faults, len(others)
    memory = _graph(places, check, fault[0], fault[1], means, faults=sizes[0], checks=checks)
    other = _graph(others, check, fault[1], fault[0], means, faults=sizes[1], checks=checks)
    return Split(memory, other, fault[0])


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
    degrees = [len(detectors) for detectors in faults_of]
    edge_fault = np.repeat(np.array(list(faults_of.values()), dtype=np.int64), degrees)
    edge_check = check[[d for detectors in faults_of for d in detectors]]
    by_check = np.argsort(edge_check, kind="stable")

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
        prior=odds.astype(np.float32),
        alone=alone.astype(np.float32),
        first_partner=np.searchsorted(fault[shared], np.arange(faults + 1)),
        partner=partner[shared],
        share=(means[shared] / partner_total[partner[shared]]).astype(np.float32),
        **_edge_tables(edge_check[by_check], edge_fault[by_check], checks=checks, faults=faults),
    )


def _edge_tables(check: Integers, fault: Integers, *, checks: int, faults: int) -> dict[str, Any]:
    """The edges, given by check and fault (E,) and sorted by check, as `FaultGraph` has them.

    In rows of `slots` one instruction can work on many checks.
    """
    degree = np.bincount(check, minlength=checks)
    start = np.concatenate([[0], np.cumsum(degree)])
    most = int(degree.max(initial=0))
    order = np.argsort(-degree, kind="stable")
    column = np.argsort(order)  # of each check
    row = np.arange(len(fault)) - start[check]
    slots = np.zeros((most, len(degree)), dtype=np.uint32)
    slots[row, column[check]] = fault
    by_fault = np.argsort(fault, kind="stable")
    return {
        "order": order,
        "width": (degree > np.arange(most)[:, None]).sum(1),
        "slots": slots,
        "first_edge": np.searchsorted(fault[by_fault], np.arange(faults + 1)).astype(np.uint32),
        "by_fault": (row * len(degree) + column[check])[by_fault].astype(np.uint32),
    }
