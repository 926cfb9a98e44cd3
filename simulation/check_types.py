"""Which detectors belong to which of two Pauli check types, in any circuit or detector error model.

In a code with X and Z checks (or in one that local Clifford gates turn into such a code) the detectors fall into two
types that see different Paulis of the same qubit. Decoders that work on the types one by one need to know them, and a
wrong guess would make them drop what they need. So each way to find the types has a test of its own, and where none
succeeds all detectors count as one type, which is always right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import stim
from scipy.sparse.csgraph import connected_components

from simulation.faults import FaultModel, distinct_columns

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

MOST_DETECTORS = 200_000
"""Of a circuit whose detecting regions are looked at; they take about a kilobyte for each detector and layer."""
X, Y, Z = 1, 2, 3


@dataclass(frozen=True, eq=False)
class CheckTypes:
    """The detectors of the type that the observables need, those of the other type, and how they were found."""

    memory: Mask
    """(detectors,): the detectors of the first type, in a memory experiment those of the memory basis; all of them
    where there is only one type, or where nothing tells two types apart."""
    predicted: Mask
    """(observables,): the observables that the first type's detectors predict; the other type's predict the rest."""
    found: str
    """How the types were found, or why all detectors count as one type; for people."""

    @property
    def two(self) -> bool:
        """Whether there are two types."""
        return not self.memory.all()

    @property
    def sufficient(self) -> Indices | None:
        """The detectors of the first type, ascending, where they alone predict all observables; None where all
        detectors are needed, because there is one type or because each type predicts some observables."""
        return np.flatnonzero(self.memory) if self.two and self.predicted.all() else None

    @classmethod
    def one(cls, model: FaultModel, found: str) -> CheckTypes:
        """All detectors as one type, for a reason."""
        return cls(np.ones(model.num_detectors, np.bool_), np.ones(model.num_observables, np.bool_), found)


class _NotFoundError(Exception):
    """Why a way to find the types does not lead to two of them."""


class _OneTypeError(Exception):
    """There is only one type."""


def find_check_types(
    model: FaultModel, *, circuit: stim.Circuit | None, dem: stim.DetectorErrorModel | None
) -> CheckTypes:
    """Finds the types by the circuit, else by coordinates, else by the mechanisms.

    1. The circuit's detecting regions say which Pauli of each qubit, at each time, a detector is sensitive to. Two
       detectors that see the same Pauli are of one type, two that see different Paulis are not.
    2. Coordinates (x, y, t, c) with c = 0 and 1 (as in this package), or c from 0 to 5 (0, 1, 2 for X and 3, 4, 5 for
       Z checks, as Chromobius has them). Since a fourth coordinate may mean anything, such as sinter's mark for
       post-selection, it counts only if the mechanisms agree: each that flips detectors of both types has to be one
       mechanism of the one type and one of the other at once, as a Pauli Y is an X and a Z.
    3. The mechanisms: those that are not two others at once link detectors of one type. Two types that are found so
       are what is linked.

    Whatever is found has to predict the observables, each by one type.

    Args:
        model: the mechanisms.
        circuit: where they come from, if known.
        dem: their coordinates, if known.
    """
    why: list[str] = []
    ways = (
        ("the circuit's detecting regions", None if circuit is None else lambda: _by_regions(circuit)),
        ("coordinates", None if dem is None else lambda: _by_coordinates(model, dem)),
        ("the structure of the error mechanisms", lambda: _by_structure(model)),
    )
    for name, way in ways:
        if way is None:
            continue
        try:
            return _with_observables(model, way(), f"two check types, by {name}")
        except _OneTypeError:
            return CheckTypes.one(model, f"one check type, by {name}")
        except _NotFoundError as error:
            why.append(f"by {name}: {error}")
    return CheckTypes.one(model, f"all detectors as one type ({'; '.join(why)})")


def _with_observables(model: FaultModel, second: Mask, found: str) -> CheckTypes:
    """The types, once it is known which of them predicts each observable."""
    seen = [np.asarray(model.check_matrix[mask].sum(axis=0) > 0).ravel() for mask in (~second, second)]
    anywhere = seen[0] | seen[1]
    # A type cannot predict an observable that something flips which its detectors do not see.
    misses = [np.asarray(model.observable_matrix @ (anywhere & ~mask).astype(np.int64) > 0) for mask in seen]
    if (misses[0] & misses[1]).any():
        o = int(np.argmax(misses[0] & misses[1]))
        raise _NotFoundError(f"observable L{o} needs the detectors of both types")
    if np.count_nonzero(misses[0]) > np.count_nonzero(misses[1]):
        second, misses = ~second, misses[::-1]
    predicted = ~misses[0]
    if _distinct(model.check_matrix) == _distinct(model.symptom_matrix):  # else all detectors together cannot tell
        for mask, observables in ((~second, predicted), (second, ~predicted)):
            part, flips = model.check_matrix[mask], model.observable_matrix[observables]
            seen_here = np.diff(part.indptr) > 0
            if _distinct(part[:, seen_here]) != _distinct(sp.vstack([part, flips], format="csc")[:, seen_here]):
                raise _NotFoundError("the detectors of one type do not tell which observables flip")
    return CheckTypes(~second, predicted, found)


def _distinct(matrix: sp.csc_matrix) -> int:
    """How many distinct columns there are."""
    return len(np.unique(distinct_columns(matrix, num_observables=0)))


def _by_regions(circuit: stim.Circuit) -> Mask:
    """The detectors of the second type, by the Paulis that they see."""
    if circuit.num_detectors > MOST_DETECTORS:
        raise _NotFoundError(f"more than {MOST_DETECTORS:,} detectors, which would take too much memory")
    detector, place, pauli = _sensitivities(with_ticks(circuit))
    order = np.argsort(place, kind="stable")
    detector, place, pauli = detector[order], place[order], pauli[order]
    # Detectors that meet at a place: neighbours in this order.
    meet = np.flatnonzero(place[1:] == place[:-1])
    differ = pauli[meet] != pauli[meet + 1]
    if np.unique(np.unique(4 * place + pauli) // 4, return_counts=True)[1].max(initial=0) > 2:
        raise _NotFoundError("detectors see all three Paulis of a qubit, so there are more than two types")
    # Each detector is drawn twice, as one of either type; what meets is joined so that it fits.
    n = circuit.num_detectors
    left, right = detector[meet], detector[meet + 1]
    rows = np.concatenate([left, left + n])
    columns = np.concatenate([right + n * differ, right + n * ~differ])
    joined = sp.coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(2 * n, 2 * n))
    label = connected_components(joined, directed=False)[1]
    if (label[:n] == label[n:]).any():
        raise _NotFoundError("detectors see Paulis that no division into two types explains")
    part = np.minimum(label[:n], label[n:])
    second: Mask = label[:n] > label[n:]
    second ^= _turned(part, second, detector, pauli)
    if len(np.unique(second[detector])) < 2:
        raise _OneTypeError
    return second


def _turned(part: Indices, second: Mask, detector: Indices, pauli: Indices) -> Mask:
    """(detectors,): whether the types of the part of the circuit that a detector belongs to must change places.

    Parts that never meet have nothing but the letters of their Paulis in common: X for the first type, Z for the
    second.
    """
    if len(np.unique(part[detector])) < 2:
        return np.zeros(len(part), np.bool_)
    at_odds = pauli != np.where(second[detector], Z, X)
    as_is = np.bincount(part[detector], at_odds, minlength=int(part.max()) + 1) > 0
    turned = np.bincount(part[detector], pauli != np.where(second[detector], X, Z), minlength=len(as_is)) > 0
    if (as_is & turned).any():
        raise _NotFoundError("the circuit has parts that never meet, and the Paulis in them do not tell their types")
    return as_is[part]


def _sensitivities(circuit: stim.Circuit) -> tuple[Indices, Indices, Indices]:
    """The detector, the place (qubit and time) and the Pauli of each entry of the circuit's detecting regions."""
    regions = circuit.detecting_regions(targets=["D"], ignore_anticommutation_errors=True)
    qubits = circuit.num_qubits
    found: list[tuple[int, int, int]] = []
    for target, by_tick in regions.items():
        for tick, paulis in by_tick.items():
            start = tick * qubits
            found += [
                (target.val, start + q, pauli) for pauli in (X, Y, Z) for q in paulis.pauli_indices("_XYZ"[pauli])
            ]
    detector, place, pauli = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return detector, place, pauli


def with_ticks(circuit: stim.Circuit) -> stim.Circuit:
    """The circuit without loops, with a TICK wherever a qubit is used again.

    A measurement that resets too counts as two uses.
    """
    ticked, used = stim.Circuit(), set[int]()
    for instruction in _single_uses(circuit.flattened()):
        gate = stim.gate_data(instruction.name)
        if instruction.name == "TICK":
            used = set()
        elif not gate.is_noisy_gate or gate.produces_measurements:
            qubits = {target.qubit_value for target in instruction.targets_copy()} - {None}
            if qubits & used:
                ticked.append("TICK")
                used = set()
            used |= qubits
        ticked.append(instruction)
    return ticked


def _single_uses(circuit: stim.Circuit) -> Iterator[stim.CircuitInstruction]:
    """The instructions, those that measure and reset as two."""
    for instruction in circuit:
        assert isinstance(instruction, stim.CircuitInstruction)
        if instruction.name in ("MR", "MRX", "MRY"):
            targets, basis = instruction.targets_copy(), instruction.name[2:]
            yield stim.CircuitInstruction(f"M{basis}", targets, instruction.gate_args_copy())
            yield stim.CircuitInstruction(f"R{basis}", [target.value for target in targets])
        else:
            yield instruction


def _by_coordinates(model: FaultModel, dem: stim.DetectorErrorModel) -> Mask:
    """The detectors of the second type, by their fourth coordinate, if the mechanisms agree."""
    flipped = np.flatnonzero(model.check_matrix.sum(axis=1))
    coordinates = dem.get_detector_coordinates()
    fourth = [coordinates[d][3] if len(coordinates[d]) == 4 else None for d in flipped.tolist()]
    if not set(fourth) <= {0, 1, 2, 3, 4, 5}:
        raise _NotFoundError("no fourth coordinate from 0 to 5 at each detector")
    kinds = np.array(fourth, dtype=np.float64)
    second = np.zeros(model.num_detectors, np.bool_)
    second[flipped] = kinds > (2 if kinds.max(initial=0) > 1 else 0)
    if len(np.unique(second[flipped])) < 2:
        raise _NotFoundError("the fourth coordinates tell no types apart")
    known = _flips_by_detectors(model)
    for detectors, observables in model.symptoms():
        mine = tuple(d for d in detectors if not second[d])
        if 0 < len(mine) < len(detectors):
            theirs = tuple(d for d in detectors if second[d])
            if not _sums(known.get(mine, ()), known.get(theirs, ()), observables):
                raise _NotFoundError(
                    "the fourth coordinates mean something else, since a mechanism that flips "
                    f"{' '.join(f'D{d}' for d in detectors[:9])} is not two of one type each"
                )
    return second


def _by_structure(model: FaultModel) -> Mask:
    """The detectors of the second type, by the mechanisms that are not two others at once."""
    known = _flips_by_detectors(model)
    beginning: dict[int, list[frozenset[int]]] = {}
    for detectors in sorted(known, key=len):
        beginning.setdefault(detectors[0], []).append(frozenset(detectors))
    parent = list(range(model.num_detectors))

    def root(d: int) -> int:
        while parent[d] != d:
            parent[d] = d = parent[parent[d]]
        return d

    for detectors, flips in sorted(known.items(), key=lambda item: len(item[0])):
        roots = {root(d) for d in detectors}
        if len(roots) > 1 and not all(_is_two(detectors, o, known, beginning[detectors[0]]) for o in flips):
            first, *others = roots
            for other in others:
                parent[other] = first
    flipped = np.unique(model.check_matrix.indices)
    roots = {root(d) for d in flipped.tolist()}
    if len(roots) < 2:
        raise _OneTypeError
    if len(roots) > 2:
        raise _NotFoundError(f"they fall into {len(roots)} parts")
    first = root(int(flipped[0]))
    return np.array([root(d) in roots - {first} for d in range(model.num_detectors)], dtype=np.bool_)


Flips = tuple[tuple[int, ...], ...]


def _flips_by_detectors(model: FaultModel) -> dict[tuple[int, ...], Flips]:
    """The observables that mechanisms flip, by the detectors that they flip."""
    known: dict[tuple[int, ...], Flips] = {}
    for detectors, observables in model.symptoms():
        if detectors:
            known[detectors] = (*known.get(detectors, ()), observables)
    return known


def _sums(some: Flips, others: Flips, observables: tuple[int, ...]) -> bool:
    """Whether one of some and one of others flip exactly these observables together."""
    wanted = set(observables)
    return any(set(a) ^ set(b) == wanted for a in some for b in others)


def _is_two(
    detectors: tuple[int, ...],
    observables: tuple[int, ...],
    known: dict[tuple[int, ...], Flips],
    candidates: list[frozenset[int]],
) -> bool:
    """Whether two other mechanisms, with no detector in common, do the same together."""
    whole = frozenset(detectors)

    def pairs() -> Iterator[tuple[Flips, Flips]]:
        for part in candidates:  # shortest first
            if len(part) >= len(whole):
                return
            if part < whole:
                rest = known.get(tuple(sorted(whole - part)))
                if rest:
                    yield known[tuple(sorted(part))], rest

    return any(_sums(some, others, observables) for some, others in pairs())
