"""When a shot starts a leg of belief propagation and when it stops, and what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from decoder.relay.graph import ABSENT, FaultGraph, FaultGraphs, Floats, Integers

FIRST_STRENGTH = 0.06
RELAY_STRENGTHS = (-0.24, 0.66)  # of later legs until there is a solution, uniform between these (arXiv 2506.01779)
AGAIN_STRENGTHS = (0.0, 0.2)  # of the legs after a solution; narrow, since wider ones find worse solutions
NUM_STRENGTHS = 32  # sets of either, used in turn


class Rules(NamedTuple):
    """When a shot starts a leg and when it stops, in looks: `iterations` on each side and a glance at the result."""

    looks: int
    """The most that a shot gets."""
    solutions: int
    """The most that a shot gets."""
    iterations: int = 4
    """Before each exchange and each look."""
    first_leg: int = 10
    """Looks in it."""
    relay_leg: int = 8
    easy: int = 2
    """A shot whose first solution comes within so many looks stops there."""
    scale: float = 1.0
    """Of the messages from checks."""
    cap: float = ABSENT
    """The largest size of a message."""
    clip: float = 10.0
    """Of the log-odds whose mean is reported."""
    far: float = 14.0
    """Faults with at least these log-odds against them tell the other side nothing."""
    least_chance: float = 9.357e-14
    most_chance: float = 0.499
    """Of any fault before the checks that see it are looked at; the least is that of `ABSENT`."""


class Answers(NamedTuple):
    """Of B shots, S solutions at most, and the V faults and C checks of the memory basis's graph."""

    last: Floats
    """(B, V): log-odds against each fault at the first solution, or at the end if there is none."""
    mean: Floats
    """(B, V): their mean over the looks until then, clipped."""
    share: Floats
    """(B, V): the share of the solutions that have the fault; if there is none, 1 for the likelier faults."""
    unexplained: Floats
    """(B, C): 1 at checks whose event the likelier faults do not explain, if there is no solution."""
    effort: Floats
    """(B,): iterations until the first solution, or all."""
    found: Integers
    """(B,): solutions."""
    flips: Floats
    """(B, S, O): the outputs that each solution flips; if there is none, the first are those of the likelier faults."""
    weights: Floats
    """(B, S, 2): the sum of each solution's log-odds, before the other side was known and with what was known then."""

    @classmethod
    def empty(cls, graphs: FaultGraphs, *, shots: int, solutions: int) -> Answers:
        faults, checks, outputs = len(graphs.memory.prior), len(graphs.memory.start) - 1, graphs.flips.shape[1]
        shapes = [(faults,)] * 3 + [(checks,), (), (), (solutions, outputs), (solutions, 2)]
        fields: list[Any] = [np.zeros((shots, *shape), np.float32) for shape in shapes]
        answers = cls(*fields)
        return answers._replace(found=answers.found.astype(np.int64))

    def of(self, shots: slice) -> Answers:
        """A view of some shots."""
        fields: list[Any] = [field[shots] for field in self]
        return Answers(*fields)


def strengths(graph: FaultGraph, *, seed: int) -> Floats:
    """(1 + 2 NUM_STRENGTHS, V): how strongly each fault remembers: in the first leg, in later ones, after a solution.

    Leg n > 0 has row 1 + (n - 1) % NUM_STRENGTHS, and NUM_STRENGTHS rows further down after a solution.
    """
    random, faults = np.random.default_rng(seed), len(graph.prior)
    rows = [np.full((1, faults), FIRST_STRENGTH)]
    rows += [random.uniform(*bounds, size=(NUM_STRENGTHS, faults)) for bounds in (RELAY_STRENGTHS, AGAIN_STRENGTHS)]
    return np.concatenate(rows).astype(np.float32)
