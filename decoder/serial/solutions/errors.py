"""The solutions of shots as errors: lists of the fault model's mechanisms, both sides explained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled, in_pieces
from decoder.serial.kernels import Beliefs
from decoder.serial.rules import SerialResult
from decoder.serial.solutions.candidates import JointProblem, joint_error
from decoder.serial.solutions.completion import complete
from decoder.serial.solutions.lightening import MOST_MECHANISMS

Indices = npt.NDArray[np.int64]


def errors_of(
    events: npt.NDArray[np.bool_], result: SerialResult, chosen: Indices, problem: JointProblem, *, threads: int = 1
) -> list[Indices]:
    """Makes one solution of each shot a joint error of both sides, as light as it gets.

    Args:
        events: bool (B, detectors).
        result: what was found for them, with the faults of the solutions.
        chosen: (B,), which solution of each shot.
        problem: `JointProblem`.
        threads: how many share the shots.

    Returns:
        The mechanisms of each error, ascending. It is in the coset of the solution, but need not explain the events
        where there is no solution, where the other side could not be solved, or where a fault is no mechanism alone.
    """
    mechanisms = len(problem.table.weight)
    happened = np.zeros((len(events), mechanisms), np.bool_)

    def work(piece: slice) -> None:
        beliefs = Beliefs.room(problem.graph, problem.other.orders, problem.other.test)
        _fill(events[piece], result.of(piece), chosen[piece], problem, beliefs, happened[piece])

    in_pieces(work, shots=len(events), threads=threads)
    return [np.flatnonzero(error[: problem.num_mechanisms]) for error in happened]


@compiled
def _fill(events, result, chosen, problem, beliefs, happened):  # type: ignore[no-untyped-def]
    """All shots of a piece."""
    faults = np.zeros(len(problem.alone), np.bool_)
    error = np.zeros(MOST_MECHANISMS + 64, np.int32)  # room to grow by mechanisms that become two
    for b in range(len(events)):
        faults[:] = result.faults[b, chosen[b]]
        complete(events[b], faults, problem, beliefs, -1, problem.rules.passes)
        size, _ = joint_error(faults, faults, error, problem)
        for i in range(size):
            happened[b, error[i]] = not happened[b, error[i]]
