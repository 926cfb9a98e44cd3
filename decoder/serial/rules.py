"""When legs and shots of serial belief propagation end, and what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.serial.columns import Columns, columns_of
from decoder.serial.graph import Floats, Integers, JointFaults, JointGraph
from decoder.serial.rows import Rows, random_rows, rows_to_test

ORDERS = 24
"""Row orders, used in turn by the legs; with 8 the right coset is missed more often, with 1 twice as often."""
NUM_STRENGTHS = 32
"""Sets of memory strengths for the legs after the first, used in turn."""
LARGE = 6000
"""A graph with more faults gets the rules for large codes (bb72 over 6 rounds has 4,032, bb144 over 12 has 16,704)."""

FEW = 18.0
"""So many faults happen in a shot of bb72 over 6 rounds at 0.3 %, in the mean.

Where more do, the bound on the passes of small codes grows with the square: at 0.5 % it is 311. Of 6,000 such shots (X)
failed 252 with at most 120 passes, 210 with 240, 206 with 360, and 191 with 600; half need at most 22.
"""


class SerialRules(NamedTuple):
    """When a shot begins a leg and when it stops. A pass visits every row once."""

    quorum: int
    """A shot stops at so many solutions if they all lie in one coset, and if they came easily."""
    solutions: int
    """Where that is not so, it goes on to so many solutions."""
    legs: int
    """A shot stops after so many legs."""
    passes: int
    """A shot stops after so many passes, whatever it has found: this bounds its time."""
    easy: int = 1 << 30
    """Solutions came easily if the shot has taken at most so many passes."""
    first_leg: int = 60
    """The first leg ends after so many passes, unless a solution ends it earlier."""
    leg: int = 60
    """Every later leg ends after so many passes, unless a solution ends it earlier."""
    scale: float = 1.0
    """Messages from checks are multiplied by this factor, the normalisation of min-sum."""
    osd_legs: bool = False
    """Whether a leg without a solution gives one as well, by OSD-0 from its last beliefs; see `decoder.serial.osd`."""
    message_cap: float = 30.0
    """Messages from checks are cut down to at most this size, before they are scaled."""
    first_strengths: tuple[float, float] = (0.0, 0.0)
    """Between these are the memory strengths of the faults in the first leg."""
    strengths: tuple[float, float] = (-0.1, 0.3)
    """Between these are those of every later leg."""

    def deeper(self) -> SerialRules:
        """Rules for shots that others could not settle: no early end, and several times the solutions and passes."""
        solutions = 5 * self.solutions
        return self._replace(quorum=solutions, solutions=solutions, legs=5 * self.legs, passes=10 * self.passes)


SMALL_RULES = SerialRules(
    quorum=4,
    solutions=9,
    legs=40,
    passes=120,
    easy=30,
    osd_legs=True,
    first_leg=20,
    leg=20,
    scale=0.969,
    strengths=(-0.1, 0.4),
)
"""For codes such as bb72, whose shots are nearly all solved within a few passes without memory.

The bound on passes weighs the longest shot against failures; docs/results/serial-ideas.md has both.
"""
LARGE_RULES = SerialRules(
    quorum=2, solutions=7, legs=200, passes=6000, first_strengths=(0.06, 0.06), strengths=(-0.24, 0.66)
)
"""For codes such as bb144, where beliefs go in circles without memory: the strengths of Relay-BP for this code."""


def rules_for(graph: JointGraph) -> SerialRules:
    """The rules for a graph of this size; with more faults in a shot than `FEW` come more passes, and easy is more."""
    if len(graph.chance) > LARGE:
        return LARGE_RULES
    faults = float(graph.chance.sum())
    more = max(1.0, faults / FEW) ** 2
    return SMALL_RULES._replace(passes=round(SMALL_RULES.passes * more), easy=round(SMALL_RULES.easy * more))


def memory_strengths(graph: JointGraph, rules: SerialRules, *, seed: int) -> Floats:
    """(1 + NUM_STRENGTHS, V + 1): each fault's memory strength in the first leg, and in later ones in turn.

    "Disordered memory strengths" in Relay-BP (arXiv 2506.01779). The last column is the fault that pads rows: 0.
    """
    random, faults = np.random.default_rng(seed), len(graph.chance)
    bounds = [rules.first_strengths] + [rules.strengths] * NUM_STRENGTHS
    drawn = [random.uniform(low, high, size=faults) for low, high in bounds]
    return np.pad(np.stack(drawn), ((0, 0), (0, 1))).astype(np.float32)


class Schedule(NamedTuple):
    """In which order rows are visited and with which memory, the same for all shots."""

    orders: Rows
    """The rows of both sides, in the orders that the legs use in turn."""
    test: Rows
    """The rows of the memory basis, in one order: those that a solution has to explain."""
    strengths: Floats
    """(1 + NUM_STRENGTHS, V + 1): gamma_j of the first leg, and of later ones in turn."""
    columns: Columns
    """The columns of the side that a solution has to explain."""


def schedule_for(joint: JointFaults, rules: SerialRules, *, seed: int) -> Schedule:
    """Draws the orders and the strengths of a graph from a seed."""
    orders = random_rows(joint.checks, np.arange(len(joint.memory_basis)), orders=ORDERS, seed=seed)
    detectors = np.flatnonzero(joint.memory_basis)
    test = rows_to_test(joint.checks, detectors)
    columns = columns_of(joint.checks, detectors, first=0, end=len(joint.graph.flips))
    return Schedule(orders, test, memory_strengths(joint.graph, rules, seed=seed), columns)


class SerialResult(NamedTuple):
    """What was found for B shots: S solutions at most each, in the order in which they were found.

    Where a shot has no solution, the place of its first one holds the likelier faults at the end, which do not explain
    the events.
    """

    found: Integers
    """(B,): how many solutions were found."""
    passes: Integers
    """(B,): passes in all."""
    cosets: Integers
    """(B, S): the observables that each solution flips, bit o for observable o; 0 where there is none."""
    weights: Floats
    """(B, S, 2): the sum of the log-odds against the solution's faults of the memory side, under the priors of the
    model and under those that the other side's last messages gave."""
    solved_at: Integers
    """(B, S): the passes of the shot until this solution."""
    faults: npt.NDArray[np.bool_]
    """(B, S, V) if asked for, else (B, S, 0): the faults of each solution. Those of the other side are the likelier
    ones at the time, which need not explain that side's events."""

    @classmethod
    def zeros(cls, *, shots: int, solutions: int, faults: int) -> SerialResult:
        """A result to be filled in."""
        return cls(
            found=np.zeros(shots, np.int64),
            passes=np.zeros(shots, np.int64),
            cosets=np.zeros((shots, solutions), np.int64),
            weights=np.zeros((shots, solutions, 2), np.float32),
            solved_at=np.zeros((shots, solutions), np.int64),
            faults=np.zeros((shots, solutions, faults), np.bool_),
        )

    def of(self, shots: slice | Integers) -> SerialResult:
        """Some shots; as views, if they are given as a slice."""
        fields: list[Any] = [field[shots] for field in self]
        return SerialResult(*fields)
