"""The faults that the memory basis's checks see, as a lattice: kinds of faults, each once in every cell and layer.

The circuit repeats in space and time. So, seen by one check type, its mechanisms fall into a few kinds (ten for
weight-3 polynomials), each a pattern of displacements in space and time. Kinds are listed, and their cells named, by
the place in the circuit of a Pauli that causes them. Hence codes that differ in l and m, or in the exponents, have the
same kinds in the same order, and weights for them carry over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import stim

from decoder.neural.geometry import TorusGeometry
from decoder.serial.graph import Integers, JointFaults
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes.torus import relative_cells
from simulation.detectors import DetectorGrid
from simulation.noise import NoiseModel

KINDS = 10
"""How many kinds there are with polynomials of weight three, unless the torus is so small that some coincide."""
ROUNDS = 3  # of the reference experiment: the fewest with a round that touches neither end
Event = tuple[int, int]
"""Layer and cell of a detection event, in the memory frame."""
Pattern = tuple[tuple[int, int], ...]
"""The events of a mechanism in its own layer 0 and seen from its own cell, ascending."""


@dataclass(frozen=True)
class FaultLattice:
    """Kinds of faults of one memory basis; cells in the memory frame."""

    geometry: TorusGeometry
    basis: Basis

    @cached_property
    def patterns(self) -> list[Pattern]:
        """The kinds: the (layer, cell) of each event that a fault of cell 0 and layer 0 causes."""
        return list(self._kinds.values())

    def place(self, events: list[Event]) -> tuple[int, int, int]:
        """The layer, the kind and the cell of the fault that causes these events.

        Raises:
            KeyError: there is none.
        """
        least, layer, cell = self._translate_of(events)
        kind, anchor = self._anchors[least]
        # The pattern's own least translate lies at its anchor, this one at `cell`: their difference is the fault's.
        return layer, kind, relative_cells(cell, anchor, l=self.geometry.code.l, m=self.geometry.code.m)

    @cached_property
    def _kinds(self) -> dict[Pattern, Pattern]:
        """From a pattern that is the same for all translates to the pattern seen from where the Pauli was."""
        kinds: dict[Pattern, Pattern] = {}
        for events in self._single_paulis():
            start = min(t for t, _ in events)
            pattern = tuple(sorted((t - start, c) for t, c in events))
            kinds.setdefault(self._translate_of(events)[0], pattern)
        return kinds

    @cached_property
    def _anchors(self) -> dict[Pattern, tuple[int, int]]:
        """From the least translate of a pattern to its kind and where that translate lies."""
        return {
            least: (kind, self._translate_of(list(pattern))[2])
            for kind, (least, pattern) in enumerate(self._kinds.items())
        }

    def _single_paulis(self) -> list[list[Event]]:
        """The events that a Pauli on a qubit of cell 0 causes, after each layer of gates of the second round."""
        cells = self.geometry.code.cells
        noise = NoiseModel.uniform(1e-3)
        experiment = MemoryExperiment(self.geometry.code, self.basis, ROUNDS, noise, detectors="XZ")
        x, y, layers, _ = experiment.grid.coordinates.T
        framed = self.geometry.framed_cells(self.basis)[x * self.geometry.code.m + y]
        where = list(zip(layers.tolist(), framed.tolist(), strict=True))
        circuit = experiment.circuit.without_noise().flattened()
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
                events = [where[d.val] for e in errors for d in e.targets_copy() if d.is_relative_detector_id()]
                if events:
                    found.append(events)
        return found

    def _translate_of(self, events: list[Event]) -> tuple[Pattern, int, int]:
        """The least translate of a pattern, and the layer and the cell to translate it by to get the events."""
        start = min(t for t, _ in events)
        l, m = self.geometry.code.l, self.geometry.code.m
        translates = [
            (tuple(sorted((t - start, relative_cells(c, o, l=l, m=m)) for t, c in events)), start, o)
            for t0, o in events
            if t0 == start
        ]
        return min(translates)


fault_lattice = lru_cache(maxsize=16)(FaultLattice)


class FaultPlaces(NamedTuple):
    """Where on the lattice the faults of an experiment's memory side lie."""

    of_fault: Integers
    """(M,): the place (layer * KINDS + kind) * cells + cell of each fault."""
    size: int
    """How many places there are: layers * KINDS * cells."""


def fault_places(geometry: TorusGeometry, grid: DetectorGrid, faults: JointFaults) -> FaultPlaces:
    """Finds the faults of an experiment on the lattice.

    Args:
        geometry: of the code.
        grid: the experiment's detectors.
        faults: of its fault model, whose memory side are the detectors of the memory basis.

    Raises:
        ValueError: some fault has no place, since the circuit is another one, or the torus is too small for all kinds.
    """
    lattice, cells = fault_lattice(geometry, grid.memory_basis), geometry.code.cells
    if len(lattice.patterns) != KINDS:
        raise ValueError(
            f"the network does not apply to {geometry.code}, whose torus is so small that kinds of faults coincide; "
            "decode with serial"
        )
    layer, slot, cell = np.full((3, len(grid.coordinates)), -1, dtype=np.int64)
    index = geometry.event_index(grid, partial=True)
    layer[index[index >= 0]], slot[index[index >= 0]], cell[index[index >= 0]] = np.nonzero(index >= 0)
    memory = faults.checks[np.flatnonzero(slot == 0)].tocsc()
    layer, cell = layer[slot == 0], cell[slot == 0]
    places = np.empty(len(faults.graph.flips), dtype=np.int64)
    for fault in range(len(places)):
        detectors = memory.indices[memory.indptr[fault] : memory.indptr[fault + 1]]
        events = [(int(layer[d]), int(cell[d])) for d in detectors]
        if len(events) == 1 and events[0][0] == len(index) - 1:
            # Before a noiseless last cycle an ancilla that is reset wrongly is seen once: nothing comes after.
            events.append((len(index), events[0][1]))
        try:
            t, kind, c = lattice.place(events)
        except KeyError:
            raise ValueError(
                "the network does not apply to this circuit, some of whose faults do not occur in the syndrome cycle "
                "that it knows; decode with serial"
            ) from None
        places[fault] = (t * KINDS + kind) * cells + c
    return FaultPlaces(places, len(index) * KINDS * cells)
