"""Rows (checks) in groups that are done at once, and random orders of such groups.

Rows that share no fault can be done at once, and give what they give one after the other. So a serial schedule may
take sixteen rows in one vector, if they are chosen so. Rows of both sides may stand in one group, since the sides share
no faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from decoder.serial.graph import Integers, Places

LANES = 16
"""Rows in a group: what a vector of 512 bits holds; where vectors are shorter the compiler takes several."""


class Rows(NamedTuple):
    """Orders of groups of rows. Order o has ``groups[o]`` groups, G at most.

    The slots of a group with rows of at most w faults are w times LANES places: the first faults of all its rows, then
    the second ones, and so on; where a row has no more faults stands the fault V, which pads.
    """

    slots: npt.NDArray[np.unsignedinteger[Any]]
    """uint16 or uint32 (S,): the slots of all groups, group after group, order after order."""
    start: Integers
    """(orders, G + 1): where in `slots` each group starts; the group after it starts where it ends."""
    groups: Integers
    """(orders,): how many groups an order has."""
    detector: Places
    """(orders, G, LANES): the detector of each row, -1 where a group has no more rows."""

    @property
    def most_slots(self) -> int:
        """The slots of the longest order."""
        return int((self.start[:, -1] - self.start[:, 0]).max(initial=0))

    @property
    def widest(self) -> int:
        """The slots of the widest group."""
        return int(np.diff(self.start, axis=1).max(initial=0))


def random_rows(checks: sp.csr_matrix, detectors: Integers, *, orders: int, seed: int) -> Rows:
    """Random orders of some detectors' rows, in groups that share no fault.

    Each order is drawn so: rows come in random order, and each goes to the fullest group that has room and shares no
    fault with it, or begins a new one. The groups are then shuffled.

    Args:
        checks: bool (detectors, V), the faults of each detector.
        detectors: the detectors whose rows are ordered; those that no fault flips are left out.
        orders: how many orders to draw.
        seed: draws them.
    """
    random = np.random.default_rng(seed)
    rows = detectors[np.diff(checks.indptr)[detectors] > 0]
    shared = (checks.astype(np.int32) @ checks.astype(np.int32).T).tocsr()
    near = {int(d): set(shared.indices[shared.indptr[d] : shared.indptr[d + 1]].tolist()) for d in rows}
    return rows_in_order([_random_order(rows, near, random) for _ in range(orders)], checks)


def rows_to_test(checks: sp.csr_matrix, detectors: Integers) -> Rows:
    """One order of some detectors' rows for tests that change nothing, so that rows may share faults: widest first."""
    width = np.diff(checks.indptr)
    rows = detectors[width[detectors] > 0]
    rows = rows[np.argsort(-width[rows], kind="stable")].tolist()
    return rows_in_order([[rows[first : first + LANES] for first in range(0, len(rows), LANES)]], checks)


def rows_in_order(orders: Sequence[Sequence[Sequence[int]]], checks: sp.csr_matrix) -> Rows:
    """The tables of given orders: of each a list of groups, which are lists of at most LANES detectors."""
    faults, most = checks.shape[1], max(1, *(len(groups) for groups in orders))
    detector = np.full((len(orders), most, LANES), -1, dtype=np.int32)
    start = np.zeros((len(orders), most + 1), dtype=np.int64)
    slots: list[npt.NDArray[np.int64]] = []
    end = 0
    for o, groups in enumerate(orders):
        start[o] = end
        for g, group in enumerate(groups):
            members = [checks.indices[checks.indptr[d] : checks.indptr[d + 1]] for d in group]
            table = np.full((max(len(row) for row in members), LANES), faults, dtype=np.int64)
            for lane, row in enumerate(members):
                table[: len(row), lane] = row
            detector[o, g, : len(group)] = group
            slots.append(table.ravel())
            end += table.size
            start[o, g + 1 :] = end
    smallest = np.uint16 if faults < 2**16 else np.uint32
    return Rows(
        slots=np.concatenate([np.zeros(0, dtype=np.int64), *slots]).astype(smallest),
        start=start,
        groups=np.array([len(groups) for groups in orders], dtype=np.int64),
        detector=detector,
    )


def _random_order(rows: Integers, near: dict[int, set[int]], random: np.random.Generator) -> list[list[int]]:
    groups: list[list[int]] = []
    blocked: dict[int, set[int]] = {}  # of the groups with room, the rows that share a fault with one of the group
    for row in random.permutation(rows).tolist():
        fitting = [g for g, strangers in blocked.items() if row not in strangers]
        if fitting:
            fullest = max(fitting, key=lambda g: len(groups[g]))
            groups[fullest].append(row)
            blocked[fullest] |= near[row]
            if len(groups[fullest]) == LANES:
                del blocked[fullest]
        else:
            blocked[len(groups)] = set(near[row])
            groups.append([row])
    return [groups[g] for g in random.permutation(len(groups))]
