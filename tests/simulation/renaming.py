"""Circuits of ours as another lab would write them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
import stim

from simulation.bits import Bits
from simulation.gf2 import RowSpace


@dataclass(frozen=True)
class Renamed:
    """A circuit under other names."""

    circuit: stim.Circuit
    """Without coordinates, with other numbers of qubits and detectors, and another basis of the logical operators."""
    order: npt.NDArray[np.int64]
    """(detectors,): the old detector that each detector is."""
    made_of: npt.NDArray[np.int64]
    """(observables, old observables): which old ones each observable is the sum of."""

    def flips(self, flips: Bits) -> Bits:
        """Flips of the old observables (shots, observables) as those of the new ones."""
        new: Bits = flips.astype(np.int64) @ self.made_of.T % 2 == 1
        return new


def renamed(circuit: stim.Circuit, *, seed: int) -> Renamed:
    """Draws other names for all that a circuit has."""
    random = np.random.default_rng(seed)
    names = random.permutation(circuit.num_qubits).tolist()
    changed, recorded = stim.Circuit(), 0
    detectors, observables = list[list[int]](), [set[int]() for _ in range(circuit.num_observables)]
    for instruction in circuit.flattened():
        targets = instruction.targets_copy()
        if instruction.name == "DETECTOR":
            detectors.append([recorded + target.value for target in targets])
        elif instruction.name == "OBSERVABLE_INCLUDE":
            observables[int(instruction.gate_args_copy()[0])] ^= {recorded + target.value for target in targets}
        elif instruction.name not in ("QUBIT_COORDS", "SHIFT_COORDS", "TICK"):
            changed.append(instruction.name, [names[target.value] for target in targets], instruction.gate_args_copy())
            recorded += instruction.num_measurements
    order = random.permutation(len(detectors))
    for d in order.tolist():
        changed.append("DETECTOR", [stim.target_rec(record - recorded) for record in detectors[d]])
    made_of = _invertible(len(observables), random)
    for o, row in enumerate(made_of):
        records = sum_of(observables[j] for j in np.flatnonzero(row))
        changed.append("OBSERVABLE_INCLUDE", [stim.target_rec(record - recorded) for record in sorted(records)], o)
    return Renamed(changed, order, made_of)


def _invertible(size: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    while RowSpace(matrix := random.integers(0, 2, (size, size))).rank < size:
        pass
    return matrix


def sum_of(records: Iterable[set[int]]) -> set[int]:
    """What is in an odd number of sets."""
    return reduce(set.symmetric_difference, records, set())
