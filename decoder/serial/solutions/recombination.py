"""Errors of one shot made of each other's parts.

Two errors with the same events differ by mechanisms that flip no detector together. These fall into parts that share no
detector, each of which flips none. So an error may take any part of the other one: it still explains the events, and
stays in its coset if the part flips no observable.
"""

from __future__ import annotations

import numpy as np

from decoder.compiled import compiled
from decoder.serial.solutions.lightening import LEAST_GAIN, MOST_MECHANISMS


@compiled
def share_parts(one, size, other, other_size, table, owner):  # type: ignore[no-untyped-def]
    """Gives two errors, of each part in which they differ and that flips no observable, the lighter of both.

    Args:
        one, other: int32, longer than the sizes, the mechanisms of the errors in the first entries.
        size, other_size: how many they are.
        table: `mechanisms.Mechanisms`.
        owner: int64 (detectors,), -1, to work in.

    Returns:
        The new sizes, and by how much each weight has changed.
    """
    difference, part = np.empty(size + other_size, np.int32), np.empty(size + other_size, np.int64)
    count = _difference(one, size, other, other_size, difference)
    _connect(difference, count, part, table, owner)
    change, other_change = 0.0, 0.0
    for p in range(count):
        if part[p] != p:  # the part's first mechanism stands for it
            continue
        symptom, gain = np.int64(0), 0.0  # by taking the part of `other`
        for n in range(p, count):
            if part[n] == p:
                m = difference[n]
                symptom ^= table.symptom[m]
                gain += table.weight[m] if _place(m, one, size) < 0 else -table.weight[m]
        if symptom != 0 or max(size, other_size) + count >= MOST_MECHANISMS:
            continue
        for n in range(p, count):
            if part[n] == p:
                if gain < -LEAST_GAIN:
                    size = _toggle(difference[n], one, size)
                elif gain > LEAST_GAIN:
                    other_size = _toggle(difference[n], other, other_size)
        change += min(gain, 0.0)
        other_change -= max(gain, 0.0)
    return size, other_size, change, other_change


@compiled
def _difference(one, size, other, other_size, difference):  # type: ignore[no-untyped-def]
    """The mechanisms that are in one of two errors alone; how many they are."""
    count = 0
    for i in range(size):
        if _place(one[i], other, other_size) < 0:
            difference[count] = one[i]
            count += 1
    for i in range(other_size):
        if _place(other[i], one, size) < 0:
            difference[count] = other[i]
            count += 1
    return count


@compiled
def _connect(mechanisms, count, part, table, owner):  # type: ignore[no-untyped-def]
    """Of each mechanism the place of the first one of its part: those that share a detector, directly or by others."""
    for n in range(count):
        part[n] = n
        m = mechanisms[n]
        for e in range(table.first_detector[m], table.first_detector[m + 1]):
            detector = table.detector[e]
            if owner[detector] < 0:
                owner[detector] = n
                continue
            # Both parts become the one that begins first.
            first, last = part[owner[detector]], part[n]
            first, last = min(first, last), max(first, last)
            if first != last:
                for k in range(n + 1):
                    if part[k] == last:
                        part[k] = first
    for n in range(count):
        m = mechanisms[n]
        for e in range(table.first_detector[m], table.first_detector[m + 1]):
            owner[table.detector[e]] = -1


@compiled
def _place(mechanism, error, size):  # type: ignore[no-untyped-def]
    """Where in an error a mechanism stands, -1 if it is not there."""
    for i in range(size):
        if error[i] == mechanism:
            return i
    return -1


@compiled
def _toggle(mechanism, error, size):  # type: ignore[no-untyped-def]
    """Takes a mechanism out of an error, or puts it in; returns the new size."""
    i = _place(mechanism, error, size)
    if i >= 0:
        error[i] = error[size - 1]
        return size - 1
    error[size] = mechanism
    return size + 1
