"""The faults of the other side, given those of the memory side.

Belief propagation stops as soon as the memory basis's events are explained. What it then believes of the other side
need not explain that side's events, and comes from beliefs about the memory side that have changed since. To compare
joint errors both sides are needed: here the other one is solved alone, those of the memory side told as certain.
"""

from __future__ import annotations

import numpy as np

from decoder.compiled import compiled
from decoder.serial.graph import FAR, JointFaults
from decoder.serial.kernels import explained, read_events, visit_all
from decoder.serial.links import forget, tell
from decoder.serial.rows import random_rows, rows_to_test
from decoder.serial.rules import Schedule, SerialRules, memory_strengths

ORDERS = 8
"""Row orders, used in turn by the legs."""
RULES = SerialRules(
    quorum=1, solutions=1, legs=6, passes=120, first_leg=20, leg=20, scale=0.97, strengths=(-0.24, 0.66)
)
"""When legs end, and when a side counts as not solvable. Fourteen passes are the mean of bb72 at 0.3 %."""
CERTAIN = 60.0
"""The log-odds for a fault that is known to have happened."""


def other_side(faults: JointFaults) -> Schedule:
    """What is done to solve the other side: its rows alone."""
    detectors = np.flatnonzero(~faults.memory_basis)
    return Schedule(
        orders=random_rows(faults.checks, detectors, orders=ORDERS, seed=7),
        test=rows_to_test(faults.checks, detectors),
        strengths=memory_strengths(faults.graph, RULES, seed=7),
    )


@compiled
def complete(events, faults, graph, schedule, rules, beliefs):  # type: ignore[no-untyped-def]
    """Fills in the faults of the other side.

    Args:
        events: bool (detectors,), a shot's events.
        faults: bool (V,): the memory side's faults, which are read; the other side's are written, if it is solved.
        graph: `JointGraph`.
        schedule: `Schedule`, that of `other_side`.
        rules: `SerialRules`.
        beliefs: `Beliefs`, room for this schedule.

    Returns:
        Whether the other side's events are explained. They are if there is no other side.
    """
    memory, all_faults = len(graph.flips), len(graph.chance)
    if memory == all_faults:
        return True
    read_events(events, schedule.test, 0, beliefs.test_signs)
    passes = 0
    for leg in range(rules.legs):
        # 1. The other side as the model has it, the memory side as it is given.
        gamma = schedule.strengths[0 if leg == 0 else 1 + (leg - 1) % (len(schedule.strengths) - 1)]
        order = leg % len(schedule.orders.groups)
        read_events(events, schedule.orders, order, beliefs.signs)
        beliefs.messages[:] = np.float32(0)
        _start(faults, graph, beliefs)
        for turn in range(min(rules.first_leg if leg == 0 else rules.leg, rules.passes - passes)):
            # 2. Both sides tell; nothing that the memory side hears can change it, but a fault of it that has been
            # explained by one link needs no other one, and says so.
            if turn > 0:
                tell(1, graph, beliefs)
            tell(0, graph, beliefs)
            _remember_other(memory, gamma, turn == 0, beliefs)
            # 3. A pass over the other side's rows.
            visit_all(schedule.orders, order, rules, beliefs)
            passes += 1
            if explained(schedule.test, beliefs):
                for v in range(memory, all_faults):
                    faults[v] = beliefs.posterior[v] < 0
                return True
    return False


@compiled
def _start(faults, graph, beliefs):  # type: ignore[no-untyped-def]
    """Beliefs as the model has them of the other side, and certain of the memory side; nobody has told anything."""
    memory = len(graph.flips)
    forget(graph, beliefs)
    for v in range(len(graph.chance)):
        if v < memory:
            beliefs.bias[v] = np.float32(0)
            beliefs.posterior[v] = np.float32(-CERTAIN if faults[v] else FAR)
        else:
            beliefs.prior[v] = beliefs.bias[v] = beliefs.posterior[v] = graph.prior[v]
    beliefs.posterior[len(graph.chance)] = np.float32(FAR)


@compiled
def _remember_other(memory, gamma, first, beliefs):  # type: ignore[no-untyped-def]
    """The bias of the other side's faults; see `decoder.serial.kernels`. At first there is nothing to remember."""
    prior, posterior, bias = beliefs.prior, beliefs.posterior, beliefs.bias
    for v in range(memory, len(bias) - 1):
        new = prior[v] if first else prior[v] + gamma[v] * (posterior[v] - prior[v])
        posterior[v] += new - bias[v]
        bias[v] = new
