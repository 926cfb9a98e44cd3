"""The faults that the memory basis's checks see, as a lattice: kinds of faults, each once in every cell and layer.

The circuit repeats in space and time. So, seen by one check type, its mechanisms fall into a few kinds (ten for
weight-3 polynomials), each a pattern of displacements in space and time; only the first and the last layer have other
priors. Kinds are listed, and their cells named, by the place in the circuit of a Pauli that causes them. Hence codes
that differ in l and m, or in the exponents, have the same kinds in the same order, and weights for them carry over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import stim

from decoder.neural.geometry import TorusGeometry
from simulation.circuits import MemoryExperiment
from simulation.detectors import Basis
from simulation.noise import NoiseModel

ROUNDS = 3  # of the reference experiment: the fewest with a round that touches neither end
Event = tuple[int, int]
"""Layer and cell of a detection event, in the memory frame."""
Pattern = tuple[tuple[int, int], ...]
"""The events of a mechanism in its own layer 0 and seen from its own cell, ascending."""


@dataclass(frozen=True)
class FaultLattice:
    """Kinds of faults of one memory basis under uniform circuit noise of strength p; cells in the memory frame."""

    geometry: TorusGeometry
    basis: Basis
    p: float

    @cached_property
    def patterns(self) -> list[Pattern]:
        """The kinds: the (layer, cell) of each event that a fault of cell 0 and layer 0 causes."""
        return list(self._kinds.values())

    def priors(self, layers: int) -> npt.NDArray[np.float64]:
        """(layers, kinds): the probability of each mechanism of an experiment, 0 where there is none."""
        reference = self._reference[0]
        last = ROUNDS
        like = [0 if t == 0 else last if t == layers - 1 else last - 1 if t == layers - 2 else 1 for t in range(layers)]
        priors = reference[like]
        priors[-1, [any(t for t, _ in pattern) for pattern in self.patterns]] = 0
        return np.asarray(priors)

    @cached_property
    def output_flips(self) -> npt.NDArray[np.uint8]:
        """(kinds, cells, outputs): the outputs whose operator a fault anticommutes with; the same in every layer."""
        return self._reference[1]

    def shifted(self, cells: npt.NDArray[np.int64], by: int) -> npt.NDArray[np.int64]:
        """The cells translated by what takes cell 0 to the cell `by`."""
        l, m = self.geometry.code.l, self.geometry.code.m
        return np.asarray((cells // m + by // m) % l * m + (cells + by) % m)

    # --- from the circuit ---

    @cached_property
    def _experiment(self) -> MemoryExperiment:
        return MemoryExperiment(self.geometry.code, self.basis, ROUNDS, NoiseModel.uniform(self.p), detectors="XZ")

    @cached_property
    def _kinds(self) -> dict[Pattern, Pattern]:
        """From a pattern that is the same for all translates to the pattern seen from where the Pauli was."""
        kinds: dict[Pattern, Pattern] = {}
        for events in self._single_paulis():
            start = min(t for t, _ in events)
            pattern = tuple(sorted((t - start, c) for t, c in events))
            kinds.setdefault(self._translate_of(events)[0], pattern)
        return kinds

    def _single_paulis(self) -> list[list[Event]]:
        """The events that a Pauli on a qubit of cell 0 causes, after each layer of gates of the second round."""
        cells = self.geometry.code.cells
        circuit = self._experiment.circuit.without_noise().flattened()
        ticks = [i for i, instruction in enumerate(circuit) if instruction.name == "TICK"]
        a_round = (len(ticks) - 1) // ROUNDS
        found = []
        for tick in ticks[a_round : 2 * a_round + 1]:
            for qubit in range(0, 4 * cells, cells):  # L, R, the X ancilla and the Z ancilla
                # A Pauli of the other type is what the memory basis's checks see.
                pauli = stim.CircuitInstruction("X_ERROR" if self.basis == "Z" else "Z_ERROR", [qubit], [1.0])
                faulty = circuit[:tick]
                faulty.append(pauli)
                faulty += circuit[tick:]
                errors = [e for e in faulty.detector_error_model() if e.type == "error"]
                events = [self._events[d.val] for e in errors for d in e.targets_copy() if d.is_relative_detector_id()]
                if events:
                    found.append(events)
        return found

    @cached_property
    def _events(self) -> list[Event]:
        """The layer and cell of each detector of the reference experiment."""
        x, y, layers, _ = self._experiment.grid.coordinates.T
        cells = self.geometry.framed_cells(self.basis)[x * self.geometry.code.m + y]
        return list(zip(layers.tolist(), cells.tolist(), strict=True))

    def _translate_of(self, events: list[Event]) -> tuple[Pattern, int, int]:
        """The least translate of a pattern, and the layer and the cell to translate it by to get the events."""
        start = min(t for t, _ in events)
        l, m = self.geometry.code.l, self.geometry.code.m
        translates = [
            (tuple(sorted((t - start, (c // m - o // m) % l * m + (c - o) % m) for t, c in events)), start, o)
            for t0, o in events
            if t0 == start
        ]
        return min(translates)

    @cached_property
    def _reference(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        """The priors (layers, kinds) of the reference experiment, and `output_flips`."""
        model, geometry = self._experiment.fault_model, self.geometry
        cells, number = geometry.code.cells, {least: k for k, least in enumerate(self._kinds)}
        anchors = [self._translate_of(list(pattern))[2] for pattern in self.patterns]
        priors = np.zeros((ROUNDS + 1, len(number)))
        flips = np.zeros((len(number), cells, len(geometry.output_supports)), dtype=np.uint8)
        for prior, (detectors, observables) in zip(model.priors, model.symptoms(), strict=True):
            events = [self._events[d] for d in detectors]
            least, layer, place = self._translate_of(events)
            kind = number[least]
            # The pattern's own least translate lies at its anchor, this one at `place`: its cell is the difference.
            x, y = place // geometry.code.m - anchors[kind] // geometry.code.m, place - anchors[kind]
            cell = x % geometry.code.l * geometry.code.m + y % geometry.code.m
            priors[layer, kind] = prior
            flips[kind, cell] = (
                geometry.output_observables[:, list(observables)].sum(1)
                + geometry.output_checks[:, [c for _, c in events]].sum(1)
            ) % 2
        return priors, flips
