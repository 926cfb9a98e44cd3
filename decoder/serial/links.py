"""What the faults of one side tell those of the other along the links: the extrinsic exchange of GARI's graph.

Nearly all faults are denied by their detectors and tell nothing. So the few that speak, and those that hear them, are
kept in lists, and the work of an exchange goes with the length of these, but for one look at all faults in vectors.
"""

from __future__ import annotations

import numpy as np

from decoder.compiled import compiled
from decoder.serial.graph import LEAST_PRIOR, MOST_PRIOR
from decoder.serial.rows import LANES
from decoder.serial.vectors import lowest_bit, suspected

SPEAKERS, STALE, HEARERS, INFORMED = range(4)
"""What `Beliefs.counts` holds of each side: how many faults speak; how many heard something before the last exchange;
how many heard something before it or in it; whether it has heard of the other side since the priors of the model."""


@compiled
def forget(graph, beliefs):  # type: ignore[no-untyped-def]
    """No fault speaks, and neither side has heard of the other."""
    memory = len(graph.flips)
    for side in range(2):
        _fall_silent(side, memory * side, graph, beliefs)
        beliefs.counts[side, :] = 0


@compiled
def exchange(graph, beliefs):  # type: ignore[no-untyped-def]
    """The other side tells the memory side, which tells the other one."""
    tell(1, graph, beliefs)
    tell(0, graph, beliefs)


@compiled
def tell(side, graph, beliefs):  # type: ignore[no-untyped-def]
    """The faults of one side (0: the memory side) tell those of the other how likely their links are.

    The new Lambda_j(0) of the others is in `prior`; `remember` takes it over. Fault b is the parity of link k and of
    all else: b = e_k + rest. The messages of its detectors say L = P(events | b = 1) / P(events | b = 0); its memory is
    left out, since it says nothing new. Its own part and what b hears along its other links say q = P(rest = 1). By
    Bayes the odds that the mechanism of k happened are

        p_k / (1 - p_k) * ((1 - q) L + q) / ((1 - q) + q L),

    where p_k is its prior: the sum-product message of GARI's row. Fault a at the far end adds it to what it hears from
    elsewhere; the sum stands for a parity, which it is up to products of small probabilities.

    A fault whose detectors deny it (L <= 1) tells nothing, as if its links had not happened. Nearly all faults are of
    this kind, so nearly all work is saved, and it changes hardly any answer.
    """
    counts, posterior, bias = beliefs.counts, beliefs.posterior, beliefs.bias
    memory, faults = len(graph.flips), len(graph.chance)
    first, end = (0, memory) if side == 0 else (memory, faults)
    to = (memory, faults) if side == 0 else (0, memory)
    # 1. What was told before is taken back.
    _fall_silent(side, first, graph, beliefs)
    _unhear(1 - side, to[0], to[1], graph, beliefs)
    # 2. All that their detectors do not deny speak. Sixteen faults at once are asked.
    v = first
    while v + LANES <= end:
        mask = suspected(posterior, bias, v)
        while mask != 0:
            _speak(v + lowest_bit(mask), side, first, to[0], graph, beliefs)
            mask &= mask - 1
        v += LANES
    for rest in range(v, end):
        if posterior[rest] - bias[rest] < 0:
            _speak(rest, side, first, to[0], graph, beliefs)
    # 3. Those that heard something know better how likely they are.
    heard, prior, hearers = beliefs.heard, beliefs.prior, beliefs.hearers
    one, least, most = np.float32(1), np.float32(LEAST_PRIOR), np.float32(MOST_PRIOR)
    room = 2 * graph.first_link[to[0]]
    for n in range(counts[1 - side, STALE], counts[1 - side, HEARERS]):
        v = hearers[room + n]
        chance = min(max(heard[v], least), most)
        prior[v] = np.log((one - chance) / chance)


@compiled
def _speak(v, side, first, to, graph, beliefs):  # type: ignore[no-untyped-def]
    """Fault v of a side, whose first fault is `first`, tells along all of its links; the hearers' first is `to`."""
    counts, heard, told, hearers = beliefs.counts, beliefs.heard, beliefs.told, beliefs.hearers
    one, least = np.float32(1), np.float32(LEAST_PRIOR)
    likelihood = np.exp(min(beliefs.bias[v] - beliefs.posterior[v], np.float32(60)))  # L
    informed = counts[side, INFORMED] != 0
    for k in range(graph.first_link[v], graph.first_link[v + 1]):
        # Before anything was heard, all is as likely as in the model.
        rest = heard[v] - told[k] if informed else graph.chance[v] - graph.link_odds[k]
        rest = min(max(rest, least), np.float32(0.5))
        odds = graph.link_odds[k] * (likelihood + rest * (one - likelihood))
        chance = odds / (odds + (one + rest * (likelihood - one)))
        told[graph.back[k]] = chance
        partner = graph.partner[k]
        if heard[partner] == graph.own[partner]:
            hearers[2 * graph.first_link[to] + counts[1 - side, HEARERS]] = partner
            counts[1 - side, HEARERS] += 1
        heard[partner] += chance
    beliefs.speakers[first + counts[side, SPEAKERS]] = v
    counts[side, SPEAKERS] += 1


@compiled
def _fall_silent(side, first, graph, beliefs):  # type: ignore[no-untyped-def]
    """The faults of a side take back all that they have told."""
    for n in range(beliefs.counts[side, SPEAKERS]):
        v = beliefs.speakers[first + n]
        for k in range(graph.first_link[v], graph.first_link[v + 1]):
            beliefs.told[graph.back[k]] = np.float32(0)
    beliefs.counts[side, SPEAKERS] = 0


@compiled
def _unhear(side, first, end, graph, beliefs):  # type: ignore[no-untyped-def]
    """The faults of a side know what their own mechanisms say alone; those that had heard more are stale."""
    counts, hearers, heard, prior = beliefs.counts, beliefs.hearers, beliefs.heard, beliefs.prior
    if counts[side, INFORMED] == 0:  # nobody knows that yet
        heard[first:end] = graph.own[first:end]
        prior[first:end] = graph.own_prior[first:end]
        counts[side, INFORMED], counts[side, STALE], counts[side, HEARERS] = 1, 0, 0
        return
    stale, room = counts[side, HEARERS] - counts[side, STALE], 2 * graph.first_link[first]
    for n in range(stale):
        v = hearers[room + counts[side, STALE] + n]
        hearers[room + n] = v
        heard[v] = graph.own[v]
        prior[v] = graph.own_prior[v]
    counts[side, STALE] = counts[side, HEARERS] = stale
