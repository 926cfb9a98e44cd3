"""The faults of the other side, given those of the memory side.

Belief propagation stops as soon as the memory basis's events are explained. What it then believes of the other side
need not explain that side's events, and comes from beliefs about the memory side that have changed since. To compare
joint errors both sides are needed: here the other one is solved alone, those of the memory side told as certain.
"""

from __future__ import annotations

import numpy as np

from decoder.compiled import compiled
from decoder.serial.columns import columns_of
from decoder.serial.graph import FAR, JointFaults
from decoder.serial.kernels import explained, read_events, visit_all
from decoder.serial.links import forget, tell
from decoder.serial.osd import explain_by_order
from decoder.serial.rows import random_rows, rows_to_test
from decoder.serial.rules import Schedule, SerialRules, memory_strengths

ORDERS = 8
"""Row orders, used in turn by the legs."""
RULES = SerialRules(
    quorum=1, solutions=1, legs=2, passes=300, first_leg=20, leg=10, scale=0.97, strengths=(-0.24, 0.66)
)
"""When legs end, how many legs a side gets, and how many passes all solutions of a shot together; then OSD-0 completes
them. Most solutions take a few passes."""
CERTAIN = 60.0
"""The log-odds for a fault that is known to have happened."""


def other_side(faults: JointFaults) -> Schedule:
    """What is done to solve the other side: its rows alone."""
    detectors = np.flatnonzero(~faults.memory_basis)
    return Schedule(
        orders=random_rows(faults.checks, detectors, orders=ORDERS, seed=7),
        test=rows_to_test(faults.checks, detectors),
        strengths=memory_strengths(faults.graph, RULES, seed=7),
        columns=columns_of(faults.checks, detectors, first=len(faults.graph.flips), end=len(faults.graph.chance)),
    )


@compiled
def complete(events, faults, problem, beliefs, known, budget):  # type: ignore[no-untyped-def]
    """Fills in the faults of the other side.

    Solutions of one shot differ in few faults of the memory side. So the second one starts from what was believed when
    the first one was complete, and mostly needs a pass or two.

    Args:
        events: bool (detectors,), a shot's events.
        faults: bool (V,): the memory side's faults, which are read; the other side's are written, if it is solved.
        problem: `candidates.JointProblem`.
        beliefs: `Beliefs`, room for its schedule.
        known: the leg that this function returned for the last solution of the same shot, with these beliefs; -1
            if there is none.
        budget: how many passes it may take.

    Returns:
        Whether the other side's events are explained; the leg in which belief propagation has done so, -1 if OSD-0 had
        to; and how many passes it took.
    """
    graph, schedule, rules = problem.graph, problem.other, problem.rules
    memory, all_faults = len(graph.flips), len(graph.chance)
    if memory == all_faults:
        return True, 0, 0
    read_events(events, schedule.test, 0, beliefs.test_signs)
    passes = 0
    for attempt in range(rules.legs):
        leg = max(known, 0) if attempt == 0 else attempt
        gamma = schedule.strengths[0 if leg == 0 else 1 + (leg - 1) % (len(schedule.strengths) - 1)]
        order = leg % len(schedule.orders.groups)
        # 1. The other side as the model has it, or as it is known; the memory side as it is given.
        if attempt > 0 or known < 0:
            read_events(events, schedule.orders, order, beliefs.signs)
            beliefs.messages[:] = np.float32(0)
            _start(graph, beliefs)
        _give(faults, graph, beliefs)
        for turn in range(min(rules.leg, budget - passes)):
            # 2. Both sides tell; nothing that the memory side hears can change it, but a fault of it that has been
            # explained by one link needs no other one, and says so.
            if turn > 0:
                tell(1, graph, beliefs)
            tell(0, graph, beliefs)
            _remember_other(memory, gamma, turn == 0 and (attempt > 0 or known < 0), beliefs)
            # 3. A pass over the other side's rows.
            visit_all(schedule.orders, order, rules, beliefs)
            passes += 1
            if explained(schedule.test, beliefs):
                for v in range(memory, all_faults):
                    faults[v] = beliefs.posterior[v] < 0
                return True, leg, passes
    return explain_by_order(events, schedule.columns, beliefs.posterior, faults), -1, passes


@compiled
def _start(graph, beliefs):  # type: ignore[no-untyped-def]
    """Beliefs as the model has them of the other side; nobody has told anything."""
    forget(graph, beliefs)
    for v in range(len(graph.flips), len(graph.chance) + 1):
        beliefs.prior[v] = beliefs.bias[v] = beliefs.posterior[v] = graph.prior[v]


@compiled
def _give(faults, graph, beliefs):  # type: ignore[no-untyped-def]
    """Certainty of the memory side."""
    for v in range(len(graph.flips)):
        beliefs.bias[v] = np.float32(0)
        beliefs.posterior[v] = np.float32(-CERTAIN if faults[v] else FAR)


@compiled
def _remember_other(memory, gamma, first, beliefs):  # type: ignore[no-untyped-def]
    """The bias of the other side's faults; see `decoder.serial.kernels`. At first there is nothing to remember."""
    prior, posterior, bias = beliefs.prior, beliefs.posterior, beliefs.bias
    for v in range(memory, len(bias) - 1):
        new = prior[v] if first else prior[v] + gamma[v] * (posterior[v] - prior[v])
        posterior[v] += new - bias[v]
        bias[v] = new
