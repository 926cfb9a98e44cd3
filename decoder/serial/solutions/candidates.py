"""Solutions in several cosets compared, for the few shots whose solutions disagree.

Each is made a joint error of both sides, which is made as light as it gets. The free energy of a coset is the weight of
its lightest error less the degeneracy (`lightening.degeneracy`): -log of its probability, up to a constant of the shot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled, in_pieces
from decoder.serial.graph import JointFaults, JointGraph
from decoder.serial.kernels import Beliefs
from decoder.serial.rules import Schedule, SerialResult, SerialRules, rules_for
from decoder.serial.solutions.completion import RULES, complete, other_side
from decoder.serial.solutions.lightening import MOST_MECHANISMS, degeneracy, lighten
from decoder.serial.solutions.mechanisms import Mechanisms, joint_mechanisms
from decoder.serial.solutions.recombination import share_parts
from simulation.faults import FaultModel

IN_COSET = 2
"""So many solutions of a coset are made whole, the likeliest ones; with all of them as many shots go wrong."""
NOT_WHOLE = 1e30
"""The weight of a candidate that could not be made a joint error; not infinite, which compiled code does not know."""
MOST_CANDIDATES = 6
"""So many solutions of a shot are made whole at most."""
LEAST_CANDIDATES = 3
"""So many are in any case."""
CANDIDATE = 15
"""What a candidate costs, in passes. Shots that needed many passes get fewer candidates, so that the longest shot takes
about as long as its most passes and three candidates."""
SPARE = 8
"""A solution of more than twice the faults of another one, and so many, is left out: to lighten it would take long."""
HOPELESS = 12.0
"""Of candidates that weigh so much more than the lightest one, degeneracy is not counted: it is never as large."""


class JointProblem(NamedTuple):
    """A fault model as this module needs it: V faults, m mechanisms."""

    graph: JointGraph
    other: Schedule
    """How the other side is solved."""
    rules: SerialRules
    """When that ends."""
    table: Mechanisms
    """The mechanisms, and behind them those that were added; see `mechanisms.joint_mechanisms`."""
    alone: npt.NDArray[np.int32]
    """(V,): the mechanism that is this fault and nothing else."""
    most_passes: int
    """The bound on a shot's passes."""
    num_mechanisms: int
    """Those of the model, without those that were added."""
    fault: npt.NDArray[np.int64]
    """(2, m): the fault of the memory side and that of the other side of each mechanism, -1 for none."""

    @classmethod
    def of(cls, model: FaultModel, faults: JointFaults, *, most_passes: int | None = None) -> JointProblem:
        """Prepares the comparison for a model whose graph is given; `most_passes` by `rules_for` if it is not."""
        table, alone = joint_mechanisms(model, faults)
        fault = np.full((2, len(table.weight)), -1, dtype=np.int64)
        memory = len(faults.graph.flips)
        fault[0, alone[:memory]], fault[1, alone[memory:]] = np.arange(memory), np.arange(memory, len(alone))
        fault[:, : model.num_mechanisms] = faults.memory_fault, faults.other_fault
        most_passes = rules_for(faults.graph).passes if most_passes is None else most_passes
        return cls(faults.graph, other_side(faults), RULES, table, alone, most_passes, model.num_mechanisms, fault)


def free_energies(
    events: npt.NDArray[np.bool_], result: SerialResult, problem: JointProblem, *, threads: int = 1
) -> npt.NDArray[np.float64]:
    """Compares the cosets of some shots.

    Args:
        events: bool (B, detectors).
        result: what was found for them, with the faults of the solutions.
        problem: `JointProblem`.
        threads: how many share the shots.

    Returns:
        (B, S): at one solution of each coset its free energy; infinite at all others.
    """
    energies = np.full(result.cosets.shape, np.inf)

    def work(piece: slice) -> None:
        beliefs = Beliefs.room(problem.graph, problem.other.orders, problem.other.test)
        _compare_all(events[piece], result.of(piece), problem, beliefs, energies[piece])

    in_pieces(work, shots=len(events), threads=threads)
    return energies


@compiled
def _compare_all(events, result, problem, beliefs, energies):  # type: ignore[no-untyped-def]
    """All shots of a piece."""
    faults = np.zeros((MOST_CANDIDATES, len(problem.alone)), np.bool_)
    # Room to grow by mechanisms that become two.
    errors = np.zeros((MOST_CANDIDATES + 1, MOST_MECHANISMS + 64), np.int32)
    sizes = np.zeros(MOST_CANDIDATES, np.int64)
    weights = np.zeros(MOST_CANDIDATES, np.float64)
    owner = np.full(len(problem.table.near), -1)
    for b in range(len(events)):
        chosen = _choose(result, b, problem)
        count = len(chosen)
        known, passes, fewest = -1, problem.rules.passes, len(problem.alone)
        for n in range(count):
            faults[n] = result.faults[b, chosen[n]]
            sizes[n], weights[n] = 0, NOT_WHOLE
            whole, known, taken = complete(events[b], faults[n], problem, beliefs, known, passes)
            passes -= taken
            size = np.sum(faults[n])
            if whole and size <= 2 * fewest + SPARE:
                fewest = min(fewest, size)
                sizes[n], weights[n] = joint_error(faults[n], faults[n], errors[n], problem)
        _share_other_side(faults, errors, sizes, weights[:count], problem)
        _share_parts(errors, sizes, weights[:count], owner, problem)
        _report(chosen, errors, sizes, weights, result.cosets[b], result.weights[b], problem, energies[b])


@compiled
def _choose(result, b, problem):  # type: ignore[no-untyped-def]
    """The solutions of shot b to be made whole: the likeliest one of each coset, given what the other side said, as far
    as there is time for them; then the next likely ones of each coset, none twice."""
    memory = len(problem.graph.flips)
    left = (problem.most_passes - result.passes[b]) // CANDIDATE
    most = min(LEAST_CANDIDATES + max(left, 0), MOST_CANDIDATES)
    cosets, faults = result.cosets[b], result.faults[b]
    chosen = np.zeros(MOST_CANDIDATES, np.int64)
    count = 0
    likeliest_first = np.argsort(result.weights[b, : result.found[b], 1], kind="mergesort")
    for same_coset in range(IN_COSET):
        for n in likeliest_first:
            of_coset, known = 0, False
            for c in chosen[:count]:
                if cosets[c] == cosets[n]:
                    of_coset += 1
                    known = known or np.array_equal(faults[c, :memory], faults[n, :memory])
            if of_coset == same_coset and not known and count < most:
                chosen[count] = n
                count += 1
    return chosen[:count]


@compiled
def joint_error(memory_faults, other_faults, error, problem):  # type: ignore[no-untyped-def]
    """The lightest error found with the faults (V,) of either side; its size, 0 if it is too large, and its weight."""
    memory, size = len(problem.graph.flips), 0
    for v in range(len(problem.alone)):
        if memory_faults[v] if v < memory else other_faults[v]:
            if size == MOST_MECHANISMS:
                return 0, NOT_WHOLE
            error[size] = problem.alone[v]
            size += 1
    return lighten(error, size, problem.table)


@compiled
def _share_other_side(faults, errors, sizes, weights, problem):  # type: ignore[no-untyped-def]
    """Tries the other side of the best candidate with the memory sides of all others.

    Often the weights of two cosets differ by their other sides alone, of which one is in a wrong coset of its own. No
    observable tells, and no small replacement leads out.
    """
    if len(weights) == 0:
        return
    best, memory = np.argmin(weights), len(problem.graph.flips)
    if weights[best] == NOT_WHOLE:
        return
    for n in range(len(weights)):
        if sizes[n] > 0 or n == best:  # as they have become by lightening
            _faults_of(errors[n], sizes[n], faults[n], problem)
    trial = errors[len(errors) - 1]
    for n in range(len(weights)):
        if sizes[n] > 0 and not np.array_equal(faults[n, memory:], faults[best, memory:]):
            size, weight = _with_other_side(faults[n], faults[best], errors[n], sizes[n], trial, problem)
            if weight < weights[n]:
                sizes[n], weights[n] = size, weight
                errors[n, :size] = trial[:size]


@compiled
def _with_other_side(faults, other_faults, error, size, trial, problem):  # type: ignore[no-untyped-def]
    """A light error with the other side of another one, put into `trial` and made as light as it gets."""
    trial[:size] = error[:size]
    after = size
    for v in range(len(problem.graph.flips), len(problem.alone)):
        if faults[v] != other_faults[v]:
            if after == MOST_MECHANISMS:
                return 0, NOT_WHOLE
            trial[after] = problem.alone[v]
            after += 1
    return lighten(trial, after, problem.table, size)


@compiled
def _share_parts(errors, sizes, weights, owner, problem):  # type: ignore[no-untyped-def]
    """The lightest candidate and each other one have, of each part in which they differ and that flips no observable,
    the lighter of both; see `recombination`."""
    for _ in range(2):  # what the lightest one has won goes to those before it
        best = np.argmin(weights) if len(weights) > 0 else 0
        changed = False
        for n in range(len(weights)):
            if n != best and sizes[n] > 0 and sizes[best] > 0:
                sizes[best], sizes[n], mine, other = share_parts(
                    errors[best], sizes[best], errors[n], sizes[n], problem.table, owner
                )
                weights[best] += mine
                weights[n] += other
                changed = changed or mine < 0 or other < 0
        if not changed:
            return


@compiled
def _faults_of(error, size, faults, problem):  # type: ignore[no-untyped-def]
    """The faults (V,) of both sides that an error's mechanisms make."""
    faults[:] = False
    for i in range(size):
        for side in range(2):
            v = problem.fault[side, error[i]]
            if v >= 0:
                faults[v] = not faults[v]


@compiled
def _report(chosen, errors, sizes, weights, cosets, found_weights, problem, energies):  # type: ignore[no-untyped-def]
    """The free energy of each coset at its best candidate; without any whole candidate, the weights that were found."""
    least = NOT_WHOLE
    for n in range(len(chosen)):
        least = min(least, weights[n])
    for n in range(len(chosen)):
        best = True
        for other in range(len(chosen)):
            better = weights[other] < weights[n] or (weights[other] == weights[n] and other < n)
            if better and cosets[chosen[other]] == cosets[chosen[n]]:
                best = False
        if best and least == NOT_WHOLE:
            energies[chosen[n]] = found_weights[chosen[n], 1]
        elif best:
            energies[chosen[n]] = weights[n]
            if weights[n] < least + HOPELESS:
                energies[chosen[n]] -= degeneracy(errors[n], sizes[n], problem.table)
