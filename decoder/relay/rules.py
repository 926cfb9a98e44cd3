"""When a shot begins a leg of belief propagation and when it stops, and what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from decoder.relay.graph import ABSENT, FaultGraph, Floats, Integers

FIRST_STRENGTH = 0.06
"""The memory strength of all faults in the first leg."""
RELAY_STRENGTHS = (-0.24, 0.66)
"""Between these are the strengths of later legs until there is a solution: the paper's interval for the gross code."""
AGAIN_STRENGTHS = (0.0, 0.2)
"""Between these are the strengths of the legs after a solution; narrow, since wider ones find worse solutions."""
NUM_STRENGTHS = 32
"""Sets of strengths of either kind, used in turn."""


class Rules(NamedTuple):
    """When a shot begins a leg and when it stops.

    Iterations come in blocks: so many on each check type's graph, after which the beliefs are exchanged and the
    result is compared with the events.
    """

    blocks: int
    """A shot stops after so many blocks, with or without a solution."""
    solutions: int
    """A shot stops as soon as it has found so many solutions."""
    iterations: int = 4
    """Each block is so many iterations."""
    first_leg: int = 10
    """The first leg ends after so many blocks, unless a solution ends it earlier."""
    relay_leg: int = 8
    """Every later leg ends after so many blocks, unless a solution ends it earlier."""
    settled: int = 2
    """A shot whose first solution comes within so many blocks stops there, whatever `solutions` says."""
    scale: float = 1.0
    """Messages from checks are multiplied by this factor, the normalisation of min-sum."""
    message_cap: float = ABSENT
    """Messages from checks are cut down to at most this size, before they are scaled."""
    mean_clip: float = 10.0
    """Log-odds are cut down to at most this size before they enter the mean that is reported."""
    impossible: float = 14.0
    """Faults with at least such log-odds against them count as impossible when beliefs are exchanged."""
    least_prior: float = 9.357e-14
    """After an exchange no prior probability is less than this one, whose log-odds are `ABSENT`."""
    most_prior: float = 0.499
    """After an exchange no prior probability is more than this one."""


class RelayResult(NamedTuple):
    """What belief propagation found for B shots: S solutions at most, V faults and C checks of the memory basis."""

    last: Floats
    """(B, V): log-odds against each fault at the first solution, or at the end if there is none."""
    mean: Floats
    """(B, V): the mean of the clipped log-odds after each block until then."""
    share: Floats
    """(B, V): the share of the solutions that have the fault; if there is none, 1 for the likelier faults."""
    unexplained: Floats
    """(B, C): 1 at checks whose event the likelier faults do not explain, if there is no solution."""
    effort: Floats
    """(B,): iterations until the first solution, or all."""
    found: Integers
    """(B,): how many solutions were found."""
    flips: Floats
    """(B, S, O): the outputs that each solution flips; if there is none, the first are those of the likelier faults."""
    weights: Floats
    """(B, S, 2): the sum of each solution's log-odds, under the priors of the model and under those that the last
    exchange gave."""

    @classmethod
    def zeros(cls, *, shots: int, faults: int, checks: int, outputs: int, solutions: int) -> RelayResult:
        """A result to be filled in."""
        shapes = [(faults,)] * 3 + [(checks,), (), (), (solutions, outputs), (solutions, 2)]
        fields: list[Any] = [np.zeros((shots, *shape), np.float32) for shape in shapes]
        result = cls(*fields)
        return result._replace(found=result.found.astype(np.int64))

    def of(self, shots: slice) -> RelayResult:
        """A view of some shots."""
        fields: list[Any] = [field[shots] for field in self]
        return RelayResult(*fields)


def strengths(graph: FaultGraph, *, seed: int) -> Floats:
    """(1 + 2 NUM_STRENGTHS, V): each fault's memory strength in the first leg, in later ones, and after a solution.

    Leg n > 0 has row 1 + (n - 1) % NUM_STRENGTHS, and NUM_STRENGTHS rows further down after a solution. "Disordered
    memory strengths" in Relay-BP (arXiv 2506.01779).
    """
    random, faults = np.random.default_rng(seed), len(graph.prior)
    rows = [np.full((1, faults), FIRST_STRENGTH)]
    rows += [random.uniform(*bounds, size=(NUM_STRENGTHS, faults)) for bounds in (RELAY_STRENGTHS, AGAIN_STRENGTHS)]
    return np.concatenate(rows).astype(np.float32)
