"""A fault model as two linked factor graphs: one of the memory basis's checks, one of all others.

Words used in this folder:

* a *mechanism* is a column of the fault model;
* a *fault* is what the checks of one side see: all mechanisms that flip the same detectors there are one fault, which
  happens if an odd number of them does. Faults of the memory side come first, then those of the other side;
* a *link* is a mechanism that both sides see: it belongs to one fault of each. The mechanisms that one side alone sees
  are the fault's *own* part.

This is the graph of GARI (arXiv 2510.14060), with its auxiliary variables summed out: the fault is the parity of its
own part and of its links. It stands for the joint distribution of all mechanisms exactly, and has none of the cycles of
length four that links (Pauli Y) make between the checks of both types.

A model whose detectors are all of the memory basis has no links: what is left is one plain graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulation.faults import FaultModel, distinct_columns, poisson_means

LEAST_PRIOR = 9.357e-14
"""No fault counts as less likely than this, whose log-odds are 30."""
MOST_PRIOR = 0.499
"""Mechanisms that are likelier than this, which would say nothing or the opposite, count as no likelier."""
FAR = 1e9
"""The log-odds against the fault that pads rows: so large that no row hears it."""
MOST_OBSERVABLES = 64
"""A coset is a mask of observables in one int64."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]


class JointGraph(NamedTuple):
    """V faults, the first M of which belong to the memory side, and K links, each of which is seen from both ends.

    A directed link is "into" the fault that hears it. Those into fault v are the places
    ``first_link[v]`` to ``first_link[v + 1] - 1`` of `partner`, `back` and `link_odds`.
    """

    prior: Floats
    """(V + 1,): log-odds against each fault by all of its mechanisms; the last is that of the fault that pads rows."""
    chance: Floats
    """(V,): the same as a probability."""
    own: Floats
    """(V,): the probability of the fault's own part, the mechanisms that the other side does not see."""
    own_prior: Floats
    """(V,): log-odds against that, but at most 30."""
    first_link: Integers
    """(V + 1,): where the links into each fault start."""
    partner: Places
    """(2 K,): the fault at the far end of each link."""
    back: Places
    """(2 K,): where the same link is among those into the partner."""
    link_odds: Floats
    """(2 K,): the prior odds p / (1 - p) of the link's mechanism."""
    flips: Integers
    """(M,): the observables that each fault of the memory side flips, bit o for observable o."""


@dataclass(frozen=True, eq=False)
class JointFaults:
    """A fault model's graph, and how the model's detectors and mechanisms lie in it."""

    graph: JointGraph
    """What is propagated on."""
    memory_basis: npt.NDArray[np.bool_]
    """(detectors,): which detectors are those of the memory side."""
    checks: sp.csr_matrix
    """Bool (detectors, V): the faults that flip each detector."""
    memory_fault: Integers
    """(mechanisms,): the fault of the memory side that each mechanism belongs to, 0 to M - 1; -1 for none."""
    other_fault: Integers
    """(mechanisms,): the fault of the other side, M to V - 1; -1 for none."""
    cosets: Integers
    """(mechanisms,): the observables that each mechanism flips, bit o for observable o."""


def joint_faults(model: FaultModel, memory_basis: npt.NDArray[np.bool_]) -> JointFaults:
    """Splits a fault model into two linked graphs.

    Mechanisms that flip observables alone cannot be seen and are left out.

    Args:
        model: any mechanisms; probabilities above 0.499 count as 0.499.
        memory_basis: (detectors,), whether a detector is one of those whose events decide the observables; all of
            them for a model with one check type.

    Raises:
        ValueError: the mask has another length, there are more than 64 observables, or a mechanism flips observables
            and detectors, but none of the memory basis.
    """
    if memory_basis.shape != (model.num_detectors,):
        raise ValueError(
            f"memory_basis has the shape {memory_basis.shape}, but there are {model.num_detectors} detectors"
        )
    if model.num_observables > MOST_OBSERVABLES:
        raise ValueError(
            f"serial belief propagation takes at most {MOST_OBSERVABLES} observables, not {model.num_observables}; "
            "split them among several fault models, or decode with bposd"
        )
    check_matrix = model.check_matrix.tocsr()
    sides = [check_matrix[memory_basis].tocsc(), check_matrix[~memory_basis].tocsc()]
    memory_fault, other_fault = (distinct_columns(side, num_observables=0) for side in sides)
    cosets = _masks(model.observable_matrix)
    _check_visible(memory_fault, other_fault, cosets)
    memory_faults = int(memory_fault.max(initial=-1)) + 1
    other_fault[other_fault >= 0] += memory_faults
    faults = max(memory_faults, int(other_fault.max(initial=-1)) + 1)
    return JointFaults(
        graph=_graph(model.priors, memory_fault, other_fault, cosets, memory_faults=memory_faults, faults=faults),
        memory_basis=memory_basis,
        checks=_checks(check_matrix, memory_basis, memory_fault, other_fault, faults=faults),
        memory_fault=memory_fault,
        other_fault=other_fault,
        cosets=cosets,
    )


def observables_of(cosets: Integers, *, num_observables: int) -> npt.NDArray[np.bool_]:
    """Bool (..., num_observables): the observables in each mask (...)."""
    bits: npt.NDArray[np.bool_] = (cosets[..., None] >> np.arange(num_observables)) & 1 != 0
    return bits


def masks_of(flips: npt.NDArray[np.bool_]) -> Integers:
    """(...): the mask of the observables in each row (..., observables); see `observables_of`."""
    bits = np.uint64(1) << np.arange(flips.shape[-1], dtype=np.uint64)
    return np.asarray((flips * bits).sum(axis=-1, dtype=np.uint64).view(np.int64))


def _masks(observables: sp.csc_matrix) -> Integers:
    """The observables (rows) of each mechanism (column) as bits; the 64th is the sign."""
    masks = np.zeros(observables.shape[1], dtype=np.uint64)
    entries = observables.tocoo()
    np.bitwise_or.at(masks, entries.col, np.uint64(1) << entries.row.astype(np.uint64))
    return masks.view(np.int64)


def _check_visible(memory_fault: Integers, other_fault: Integers, cosets: Integers) -> None:
    hidden = np.flatnonzero((memory_fault < 0) & (other_fault >= 0) & (cosets != 0))
    if len(hidden):
        raise ValueError(
            f"mechanism {hidden[0]} flips observables but no detector of the memory basis "
            f"(so do {len(hidden)} in all); count all detectors as those of the memory basis"
        )


def _graph(
    priors: npt.NDArray[np.float64],
    memory_fault: Integers,
    other_fault: Integers,
    cosets: Integers,
    *,
    memory_faults: int,
    faults: int,
) -> JointGraph:
    priors = np.minimum(priors, MOST_PRIOR)
    means = poisson_means(priors)  # independent mechanisms of one fault: their means add
    seen_by_both = (memory_fault >= 0) & (other_fault >= 0)
    total, own = np.zeros(faults), np.zeros(faults)
    for fault in (memory_fault, other_fault):
        seen, unshared = fault >= 0, (fault >= 0) & ~seen_by_both
        total += np.bincount(fault[seen], means[seen], minlength=faults)
        own += np.bincount(fault[unshared], means[unshared], minlength=faults)

    links = np.flatnonzero(seen_by_both)
    hearer = np.concatenate([memory_fault[links], other_fault[links]])
    teller = np.concatenate([other_fault[links], memory_fault[links]])
    order = np.lexsort((teller, hearer))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    odds = np.tile(priors[links] / (1 - priors[links]), 2)

    flips = np.zeros(memory_faults, dtype=np.int64)
    # Mechanisms that look the same flip the same, unless they differ by a logical operator: the likeliest decides.
    likeliest_last = np.argsort(priors, kind="stable")
    likeliest_last = likeliest_last[memory_fault[likeliest_last] >= 0]
    flips[memory_fault[likeliest_last]] = cosets[likeliest_last]
    chance, own = _parity(total), _parity(own)
    return JointGraph(
        prior=np.append(_log_odds(chance), FAR).astype(np.float32),
        chance=chance.astype(np.float32),
        own=own.astype(np.float32),
        own_prior=_log_odds(own).astype(np.float32),
        first_link=np.searchsorted(hearer[order], np.arange(faults + 1)),
        partner=teller[order].astype(np.int32),
        back=np.roll(place, len(links))[order].astype(np.int32),
        link_odds=odds[order].astype(np.float32),
        flips=flips,
    )


def _parity(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The probability that a Poisson number of events is odd, within the bounds of this file."""
    return np.clip(-np.expm1(-2 * means) / 2, LEAST_PRIOR, MOST_PRIOR)


def _log_odds(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.log1p(-probabilities) - np.log(probabilities))


def _checks(
    check_matrix: sp.csr_matrix,
    memory_basis: npt.NDArray[np.bool_],
    memory_fault: Integers,
    other_fault: Integers,
    *,
    faults: int,
) -> sp.csr_matrix:
    """Which faults flip each detector: as those mechanisms do that belong to the fault."""
    entries = check_matrix.tocoo()
    fault = np.where(memory_basis[entries.row], memory_fault[entries.col], other_fault[entries.col])
    ones = np.ones(len(fault), dtype=np.bool_)
    return sp.csr_matrix((ones, (entries.row, fault)), shape=(check_matrix.shape[0], faults))
