"""Errors made lighter: pairs of mechanisms replaced by at most two others with the same symptom, as long as it pays.

The symptom is that of all detectors and of the observables, so that a lighter error explains the same events and is in
the same coset. How likely the coset is depends on all of its errors: those that differ from the lightest one by one
such replacement, or by several that are far from each other, are counted by `degeneracy`.

The functions are compiled; what they read of the fault model is `mechanisms.Mechanisms`.
"""

from __future__ import annotations

import numpy as np

from decoder.compiled import compiled

MOST_MECHANISMS = 1024
"""Errors of more mechanisms are left as they are."""
MOST_MOVES = 4096
"""So many replacements are compared at most, in each pass."""
MOST_PASSES = 50
"""Three or four do nearly always."""
FAR = 6.0
"""Replacements that add more than this to the weight are not counted by `degeneracy`."""
LEAST_GAIN = 1e-9
"""Replacements that gain less do not count: rounding, by which two might replace one another for ever."""


@compiled
def lighten(error, size, table, settled=0):  # type: ignore[no-untyped-def]
    """Makes an error lighter, in place, unless it has more than MOST_MECHANISMS.

    Each pass lists the best replacement of every pair, where one pays, and carries them out from the best one on,
    without those of a mechanism that has just been replaced. So no replacement that was listed is possible afterwards,
    and the next pass has only to look at pairs with a new mechanism.

    Args:
        error: int32, longer than `size`, the mechanisms of the error in its first entries.
        size: how many they are.
        table: `mechanisms.Mechanisms`.
        settled: so many of the first are light already: no pair of them is looked at.

    Returns:
        How many mechanisms are left, and what they weigh together.
    """
    if size <= MOST_MECHANISMS:
        odd = np.zeros(len(table.near), np.bool_)
        reach = np.zeros((MOST_MECHANISMS, table.near.shape[1]), np.uint64)
        is_new = np.ones(MOST_MECHANISMS, np.bool_)
        is_new[:settled] = False
        move = np.empty((MOST_MOVES, 4), np.int32)
        gain = np.empty(MOST_MOVES, np.float64)
        for _ in range(MOST_PASSES):
            moves = _list_moves(error, size, is_new, reach, odd, move, gain, table)
            if moves == 0:
                break
            size = _carry_out(error, size, is_new, move, gain[:moves])
    weight = 0.0
    for i in range(size):
        weight += table.weight[error[i]]
    return size, weight


@compiled
def degeneracy(error, size, table):  # type: ignore[no-untyped-def]
    """By how much, in log-probability, the errors near to this one make its coset likelier than it is alone.

    It is the sum of log(1 + sum of exp(-change of the weight)) over the mechanisms, each replaced by two others, and
    over the pairs, each replaced by one or two others. So what is counted are all combinations of replacements, as if
    none excluded another one. (With those alone that can happen together, in the Bethe approximation, as many shots
    were decoded wrongly.)

    Args:
        error, size, table: as `lighten` takes and leaves them.
    """
    total = 0.0
    for i in range(size):
        total += table.degeneracy[error[i]]
    if size > MOST_MECHANISMS:
        return total
    odd = np.zeros(len(table.near), np.bool_)
    reach = np.zeros(table.near.shape[1], np.uint64)
    for i in range(size):
        _reach(error[i], reach, table)
        for j in range(i):
            if _touches(error[j], reach, table):
                total += np.log1p(_likelihood_of_others(error[i], error[j], odd, table))
    return total


@compiled
def _likelihood_of_others(one, other, odd, table):  # type: ignore[no-untyped-def]
    """The likelihoods, added, of what may have happened instead of two mechanisms, compared with theirs."""
    weight = table.weight
    old, symptom = weight[one] + weight[other], table.symptom[one] ^ table.symptom[other]
    alone = find(symptom, table)
    total = np.exp(old - weight[alone]) if alone >= 0 else 0.0
    rarest = _rarest(one, other, True, odd, table)
    if rarest >= 0:  # see `_best_replacement`
        for m in range(table.first_mechanism[rarest], table.first_mechanism[rarest + 1]):
            c = table.mechanism[m]
            if table.row_weight[m] + table.lightest[0] >= old + FAR:
                break
            if c != one and c != other:
                d = find(symptom ^ table.row_symptom[m], table)
                if d >= 0:
                    total += np.exp(old - weight[c] - weight[d])
    return total


@compiled
def _list_moves(error, size, is_new, reach, odd, move, gain, table):  # type: ignore[no-untyped-def]
    """Lists the best replacement of each pair with a new mechanism, and of each new one alone.

    Args:
        error, size: the error.
        is_new: bool (at least size,), whether a mechanism has not been looked at yet.
        reach: uint64 (at least size, words), bits of detectors, to work in.
        odd: bool (detectors,), False, to work in.
        move: int32 (moves, 4), filled with the places i <= j of the pair in the error, and the mechanisms c and d
            that replace it, -1 for none.
        gain: float64 (moves,), filled with how much each changes the weight, below 0.
        table: `mechanisms.Mechanisms`.

    Returns:
        How many moves there are.
    """
    moves = 0
    for i in range(size):
        _reach(error[i], reach[i], table)
        for j in range(i + 1):
            if (is_new[i] or is_new[j]) and _touches(error[j], reach[i], table) and moves < len(gain):
                c, d, change = _best_replacement(error[i], error[j], i != j, odd, table)
                if change < -LEAST_GAIN:
                    move[moves, 0], move[moves, 1], move[moves, 2], move[moves, 3] = i, j, c, d
                    gain[moves] = change
                    moves += 1
    return moves


@compiled
def _reach(mechanism, bits, table):  # type: ignore[no-untyped-def]
    """The detectors that have a mechanism in common with one of this mechanism's, as bits."""
    bits[:] = np.uint64(0)
    for e in range(table.first_detector[mechanism], table.first_detector[mechanism + 1]):
        near = table.near[table.detector[e]]
        for word in range(len(bits)):
            bits[word] |= near[word]


@compiled
def _touches(mechanism, bits, table):  # type: ignore[no-untyped-def]
    """Whether a mechanism flips any of these detectors. If not, nothing replaces both it and that whose reach it is,
    but two supersets of the one and the other, of which no pair was found that pays."""
    for e in range(table.first_detector[mechanism], table.first_detector[mechanism + 1]):
        detector = np.uint64(table.detector[e])
        if (bits[detector >> np.uint64(6)] >> (detector & np.uint64(63))) & np.uint64(1):
            return True
    return False


@compiled
def _best_replacement(one, other, is_pair, odd, table):  # type: ignore[no-untyped-def]
    """The lightest one or two mechanisms with the symptom of `one`, or with that of `one` and `other` together.

    Returns:
        The mechanisms c and d, -1 for none, and the change of the weight; 0 where nothing lighter replaces them.
    """
    weight = table.weight
    old, symptom = weight[one], table.symptom[one]
    if is_pair:
        old, symptom = old + weight[other], symptom ^ table.symptom[other]
        if symptom == 0:  # twice the same
            return -1, -1, -old
    best_c, best_d, best = -1, -1, old
    if is_pair:
        alone = find(symptom, table)
        if alone >= 0 and weight[alone] < best:
            best_c, best = alone, weight[alone]
    # Of c and d exactly one flips any detector of the symptom. So it is enough to try for c the mechanisms of one
    # detector, that with the fewest, and to look up the d that completes it.
    rarest = _rarest(one, other, is_pair, odd, table)
    if rarest >= 0:
        for m in range(table.first_mechanism[rarest], table.first_mechanism[rarest + 1]):
            if table.row_weight[m] + table.lightest[0] >= best:
                break  # those that follow are heavier still
            d = find(symptom ^ table.row_symptom[m], table)
            if d >= 0 and table.row_weight[m] + weight[d] < best:
                best_c, best_d, best = table.mechanism[m], d, table.row_weight[m] + weight[d]
    return best_c, best_d, best - old


@compiled
def _rarest(one, other, is_pair, odd, table):  # type: ignore[no-untyped-def]
    """Of the detectors that the mechanisms flip together, the one with the fewest mechanisms; -1 if there is none."""
    for e in range(table.first_detector[one], table.first_detector[one + 1]):
        odd[table.detector[e]] = True
    if is_pair:
        for e in range(table.first_detector[other], table.first_detector[other + 1]):
            odd[table.detector[e]] ^= True
    rarest, fewest = -1, len(table.mechanism) + 1
    for mechanism in (one, other):
        for e in range(table.first_detector[mechanism], table.first_detector[mechanism + 1]):
            detector = table.detector[e]
            mechanisms = table.first_mechanism[detector + 1] - table.first_mechanism[detector]
            if odd[detector] and mechanisms < fewest:
                rarest, fewest = detector, mechanisms
            odd[detector] = False
    return rarest


@compiled
def _carry_out(error, size, is_new, move, gain):  # type: ignore[no-untyped-def]
    """Carries out the moves, the best one first, as far as their mechanisms are still there; returns the new size."""
    grown, gone = size, -1
    is_new[:] = False
    for m in np.argsort(gain, kind="mergesort"):  # stable, so that equal gains have one order
        i, j, c, d = move[m, 0], move[m, 1], move[m, 2], move[m, 3]
        if is_new[i] or is_new[j] or error[i] == gone or error[j] == gone:
            continue
        if i == j and d >= 0:  # one mechanism becomes two
            if grown == min(len(error), len(is_new)):
                continue
            j, grown = grown, grown + 1
        error[i] = c
        is_new[i] = c >= 0
        if j != i:
            error[j] = d
            is_new[j] = d >= 0
    kept = 0
    for i in range(grown):
        if error[i] != gone:
            error[kept], is_new[kept] = error[i], is_new[i]
            kept += 1
    return kept


@compiled
def find(symptom, table):  # type: ignore[no-untyped-def]
    """The mechanism with a symptom, or -1."""
    bit = symptom & (8 * len(table.filled) - 1)
    if not (table.filled[bit >> 3] >> (bit & 7)) & 1:
        return -1
    last = len(table.place) - 1
    s = symptom & last
    while table.place[s] >= 0:
        if table.symptom[table.place[s]] == symptom:
            return table.place[s]
        s = (s + 1) & last
    return -1


@compiled
def fill(table):  # type: ignore[no-untyped-def]
    """Enters all mechanisms into the empty `place` and `filled`; of two with one symptom, the first is found."""
    last = len(table.place) - 1
    for mechanism in range(len(table.symptom)):
        symptom = table.symptom[mechanism]
        bit = symptom & (8 * len(table.filled) - 1)
        table.filled[bit >> 3] |= np.uint8(1 << (bit & 7))
        s = symptom & last
        while table.place[s] >= 0:
            s = (s + 1) & last
        table.place[s] = mechanism


@compiled
def count_pairs(table):  # type: ignore[no-untyped-def]
    """Computes `degeneracy`: what each mechanism's probability gains by pairs with its symptom."""
    odd = np.zeros(len(table.near), np.bool_)
    for old in range(len(table.weight)):
        rarest = _rarest(old, old, False, odd, table)
        pairs = 0.0
        if rarest >= 0:
            for m in range(table.first_mechanism[rarest], table.first_mechanism[rarest + 1]):
                c = table.mechanism[m]
                d = find(table.symptom[old] ^ table.symptom[c], table)
                if d >= 0:  # never `old` itself, since then no mechanism would be left for c
                    pairs += np.exp(table.weight[old] - table.weight[c] - table.weight[d])
        table.degeneracy[old] = np.log1p(pairs)
