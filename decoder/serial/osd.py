"""Ordered statistics of order 0: faults of one side that explain its events, chosen where beliefs hold them likeliest.

Belief propagation may end without faults that explain the events, and yet know of most faults how likely they are.
In the order of these beliefs, the first faults whose columns of the check matrix are independent and that explain the
events are an error near to what is believed: OSD-0 (Fossorier and Lin, IEEE Trans. Inf. Theory 41, 1379, 1995; for
quantum codes Panteleev and Kalachev, Quantum 5, 585, 2021).
"""

from __future__ import annotations

import numpy as np

from decoder.compiled import compiled
from decoder.serial.vectors import lowest_bit

NEAR = 10.0
"""The faults with lower log-odds are put in order first: a tenth of them or less, which nearly always suffices."""


@compiled
def explain_by_order(events, columns, posterior, faults):  # type: ignore[no-untyped-def]
    """Explains a shot's events with the likeliest faults of a side.

    Args:
        events: bool (detectors,).
        columns: `Columns`.
        posterior: float32 (at least V,), log-odds against each fault.
        faults: bool (V,), those of the side are written.

    Returns:
        Whether the events of the side are explained, as all are that any faults flip.
    """
    first, (rows, words) = columns.first, (len(columns.detector), columns.bits.shape[1])
    faults[first : first + len(columns.bits)] = False
    # What is not explained yet, and which of the vectors explain the rest.
    left, chosen = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    for r in range(rows):
        if events[columns.detector[r]]:
            left[r >> 6] |= np.uint64(1) << np.uint64(r & 63)
    # Independent vectors, each a sum of some columns, with the place of the one whose lowest bit is a row.
    vector, parts = np.empty((rows, words), np.uint64), np.empty((rows, words), np.uint64)
    member, place = np.empty(rows, np.int64), np.full(rows, -1)
    count, missing = 0, _reduce(left, chosen, vector, parts, place)
    if missing < 0:
        return True
    belief = posterior[first : first + len(columns.bits)]
    near = belief < NEAR
    for likelier in (True, False):
        faults_in_turn = np.flatnonzero(near == likelier)
        for i in np.argsort(belief[faults_in_turn]):
            if missing < 0 or count == rows:
                break
            v = faults_in_turn[i]
            vector[count], parts[count] = columns.bits[v], np.uint64(0)
            row = _reduce(vector[count], parts[count], vector, parts, place)
            if row >= 0:
                parts[count, count >> 6] ^= np.uint64(1) << np.uint64(count & 63)
                place[row], member[count] = count, v
                count += 1
                if row == missing:
                    missing = _reduce(left, chosen, vector, parts, place)
    for n in range(count):
        if (chosen[n >> 6] >> np.uint64(n & 63)) & np.uint64(1):
            faults[first + member[n]] = True
    return missing < 0


@compiled
def _reduce(left, chosen, vector, parts, place):  # type: ignore[no-untyped-def]
    """Takes vectors off `left` for its lowest row, as long as there is one for it; notes of which columns they are the
    sums. Returns the row for which there is none, -1 if nothing is left."""
    for word in range(len(left)):
        while left[word] != 0:
            row = 64 * word + lowest_bit(np.int64(left[word]))
            n = place[row]
            if n < 0:
                return row
            for w in range(word, len(left)):
                left[w] ^= vector[n, w]
            for w in range(len(left)):
                chosen[w] ^= parts[n, w]
    return -1
