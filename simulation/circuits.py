"""Memory experiments: syndrome cycles of a BB code as stim circuits.

The cycle is that of Bravyi et al. (Nature 627, 778; arXiv 2308.07915, Table 5): seven layers of CNOTs with the
X and Z checks interleaved, and an eighth layer that measures the X ancillas and resets the Z ancillas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import stim

from simulation.bases import BASES, Basis, Detectors
from simulation.check_types import CheckTypes
from simulation.codes import BivariateBicycleCode, parse_code
from simulation.codes.checks import Block, Monomial
from simulation.codes.torus import cell_coordinates
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel
from simulation.noise import NoiseModel

# The monomial of the neighbour that each check touches in layers 0..6, as (block, polynomial, term); None waits.
# An X check at cell c touches L at c + A_i and R at c + B_i, a Z check L at c - B_i and R at c - A_i.
X_SCHEDULE = (None, ("L", "a", 1), ("R", "b", 1), ("R", "b", 0), ("R", "b", 2), ("L", "a", 0), ("L", "a", 2))
Z_SCHEDULE = (("R", "a", 0), ("R", "a", 2), ("L", "b", 0), ("L", "b", 1), ("L", "b", 2), ("R", "a", 1), None)


@dataclass(frozen=True, repr=False)
class MemoryExperiment:
    """A logical memory of `rounds` noisy syndrome cycles between preparation and readout of all data qubits.

    All k logical operators of `basis` are prepared, kept and read; they are the observables.

    Raises:
        ValueError: rounds < 1, an unknown basis or an unknown choice of detectors.
    """

    code: BivariateBicycleCode
    basis: Basis
    rounds: int
    noise: NoiseModel
    detectors: Detectors = "XYZ"
    """XYZ: detectors of both check types. XZ: of the memory basis only."""
    noiseless_last_cycle: bool = False
    """Close with a perfect cycle and a perfect readout (Bravyi, Blue et al.) instead of a noisy readout."""

    def __post_init__(self) -> None:
        if self.basis not in get_args(Basis):
            raise ValueError(f"unknown basis {self.basis!r}: use X or Z")
        if self.detectors not in get_args(Detectors):
            raise ValueError(f"unknown detectors {self.detectors!r}: use XYZ or XZ")
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise ValueError(f"rounds={self.rounds} must be a whole number, at least 1")
        if self.code.k == 0:
            raise ValueError(f"the code {self.code} has k = 0: it holds no logical qubit to keep")
        if len(self.noise.qubit_factors) not in (0, 4 * self.code.cells):
            raise ValueError(
                f"the noise has factors of {len(self.noise.qubit_factors)} qubits, but the circuit has "
                f"{4 * self.code.cells}: L data, R data, X ancillas and Z ancillas, {self.code.cells} of each"
            )

    @classmethod
    def create(
        cls,
        *,
        code: str,
        basis: Basis,
        rounds: int,
        p: float,
        noise: str = "uniform",
        detectors: Detectors = "XYZ",
        noiseless_last_cycle: bool = False,
    ) -> MemoryExperiment:
        """Builds an experiment from the words of the command line."""
        return cls(
            code=parse_code(code),
            basis=basis,
            rounds=rounds,
            noise=NoiseModel.parse(noise, p),
            detectors=detectors,
            noiseless_last_cycle=noiseless_last_cycle,
        )

    @cached_property
    def circuit(self) -> stim.Circuit:
        """Noisy circuit; each DETECTOR carries (x, y, round, type)."""
        return _Builder(self).build()

    @cached_property
    def dem(self) -> stim.DetectorErrorModel:
        """The circuit's detector error model, not decomposed; disjoint errors of biased noise count as independent."""
        return self.circuit.detector_error_model(approximate_disjoint_errors=self.noise.bias is not None)

    @cached_property
    def grid(self) -> DetectorGrid:
        """Where each detector stands."""
        return DetectorGrid.of(self.circuit)

    @property
    def source(self) -> stim.Circuit:
        """What shots are drawn from: the circuit."""
        return self.circuit

    @cached_property
    def check_types(self) -> CheckTypes:
        """The detectors of the memory basis, and those of the other one."""
        memory = np.zeros(self.num_detectors, dtype=np.bool_)
        memory[self.grid.indices_of(self.basis)] = True
        return CheckTypes(memory, np.ones(self.num_observables, np.bool_), "known, as Tandem made the circuit")

    @cached_property
    def fault_model(self) -> FaultModel:
        """The circuit's error mechanisms as matrices, those with the same symptom merged."""
        return FaultModel.from_dem(self.dem)

    @property
    def num_detectors(self) -> int:
        """Detectors of one shot."""
        return int(self.circuit.num_detectors)

    @property
    def num_observables(self) -> int:
        """Observables of one shot: k, one a logical qubit."""
        return self.code.k

    @property
    def columns(self) -> dict[str, Any]:
        """Code, rounds, basis, p and noise as plain values, in the order in which tables and results have them."""
        return {
            "code": str(self.code),
            "rounds": self.rounds,
            "basis": self.basis,
            "p": self.noise.p,
            "noise": str(self.noise),
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """All that tells it from others, as plain values."""
        return {
            **self.columns,
            "detectors": self.detectors,
            "noiseless_last_cycle": self.noiseless_last_cycle,
        }

    def __getstate__(self) -> dict[str, Any]:
        # Pickled without what it has computed, which takes less time to make again than to send.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        noise = self.noise if self.noise.name == "custom" else f"{self.noise} p={self.noise.p:g}"
        return f"{self.code} {self.basis} memory, {self.rounds} rounds, {noise}, {self.detectors}"

    def __repr__(self) -> str:
        end = ", noiseless last cycle" if self.noiseless_last_cycle else ""
        return f"<MemoryExperiment {self}{end}>"

    def _repr_html_(self) -> str:
        """The experiment in a notebook."""
        from simulation.drawings import facts_html

        layers = [len(layer) for layer in self.grid.layers]
        facts = {
            "code": f"{self.code}: {self.code.parameters_text}",
            **{name: value for name, value in self.parameters.items() if name != "code"},
            "detectors in each shot": f"{self.num_detectors:,}: {_runs(layers)} (the last compares the data's readout)",
            "observables": self.num_observables,
            "qubits": self.circuit.num_qubits,
            "error mechanisms": f"{self.fault_model.num_mechanisms:,}",
        }
        return facts_html(f"{self.basis} memory of {self.code}", facts)


def _runs(layers: list[int]) -> str:
    """Equal numbers one after the other as one: '36, 5 x 72, 36'."""
    runs = [(size, len(list(group))) for size, group in groupby(layers)]
    return ", ".join(f"{count} x {size}" if count > 1 else str(size) for size, count in runs)


Channel = Callable[[float], tuple[str, list[float]]]
"""From a rate to stim's name and arguments of a noise channel."""


class _Builder:
    """Writes one experiment's circuit. Qubits: L data, R data, X ancillas, Z ancillas, each `cells` long."""

    def __init__(self, experiment: MemoryExperiment) -> None:
        self.experiment = experiment
        self.code = experiment.code
        self.basis = experiment.basis
        self.noise = experiment.noise
        cells = self.code.cells
        self.cells = cells
        self.coordinates = cell_coordinates(self.code.l, self.code.m).T.tolist()
        self.left = np.arange(cells)
        self.right = self.left + cells
        self.data = np.arange(2 * cells)
        self.ancillas: dict[Basis, npt.NDArray[np.int64]] = {
            "X": np.arange(2 * cells, 3 * cells),
            "Z": np.arange(3 * cells, 4 * cells),
        }
        self.circuit = stim.Circuit()
        self.noisy = True

    def build(self) -> stim.Circuit:
        experiment = self.experiment
        self._qubit_coordinates()
        self._reset(self.basis, self.data)
        self._reset("Z", self.ancillas["Z"])
        self.circuit.append("TICK")
        self._cycle(first=True)
        if experiment.rounds > 1:
            prefix, self.circuit = self.circuit, stim.Circuit()
            self.circuit.append("SHIFT_COORDS", [], (0, 0, 1))
            self._cycle(first=False)
            prefix.append(stim.CircuitRepeatBlock(experiment.rounds - 1, self.circuit))
            self.circuit = prefix
        self.circuit.append("SHIFT_COORDS", [], (0, 0, 1))
        if experiment.noiseless_last_cycle:
            self.noisy = False
            self._cycle(first=False)
        self._measure(self.basis, self.data)
        self._closing_detectors()
        return self.circuit

    def _cycle(self, *, first: bool) -> None:
        for layer in range(7):
            if layer == 0:
                self._reset("X", self.ancillas["X"])
            busy: set[Block] = set()
            for basis, schedule in (("X", X_SCHEDULE), ("Z", Z_SCHEDULE)):
                if step := schedule[layer]:
                    busy.add(self._cnot_layer(basis, *step))  # type: ignore[arg-type]
            if "L" not in busy:
                self._idle(self.left)
            if "R" not in busy:
                self._idle(self.right)
            if layer < 6:
                self.circuit.append("TICK")
        self._measure("Z", self.ancillas["Z"])
        self.circuit.append("TICK")
        self._measure("X", self.ancillas["X"])
        self._reset("Z", self.ancillas["Z"])
        self._idle(self.data)
        self.circuit.append("TICK")
        self._syndrome_detectors(first=first)

    def _cnot_layer(self, basis: Basis, block: Block, polynomial: Literal["a", "b"], term: int) -> Block:
        monomial: Monomial = getattr(self.code, polynomial)[term]
        data = self.code.data_qubits(block, monomial, sign=1 if basis == "X" else -1)
        pairs = (self.ancillas["X"], data) if basis == "X" else (data, self.ancillas["Z"])
        targets = np.stack(pairs, axis=1).ravel()
        self.circuit.append("CX", targets)
        self._noise(self.noise.cnot_channel, np.stack(pairs, axis=1), self.noise.cnot)
        return block

    def _noise(self, channel: Channel, targets: npt.NDArray[np.int64], rate: float) -> None:
        """A channel on qubits (n,) or on pairs of them (n, 2)."""
        if not self.noisy or rate == 0:
            return
        for factor, part in self._by_factor(targets):
            if factor > 0:
                name, arguments = channel(rate * factor)
                self.circuit.append(name, part.ravel(), arguments)

    def _by_factor(self, targets: npt.NDArray[np.int64]) -> list[tuple[float, npt.NDArray[np.int64]]]:
        """The targets, or pairs of them, that have the same factor in the noise."""
        if not self.noise.qubit_factors:
            return [(1.0, targets)]
        factors = np.array([self.noise.factor(*group) for group in targets.reshape(len(targets), -1).tolist()])
        return [(factor, targets[factors == factor]) for factor in np.unique(factors).tolist()]

    def _reset(self, basis: Basis, qubits: npt.NDArray[np.int64]) -> None:
        self.circuit.append("RX" if basis == "X" else "R", qubits)
        flip = "Z_ERROR" if basis == "X" else "X_ERROR"
        self._noise(lambda rate: (flip, [rate]), qubits, self.noise.reset)

    def _measure(self, basis: Basis, qubits: npt.NDArray[np.int64]) -> None:
        flip = self.noise.measurement if self.noisy else 0.0
        name = "MX" if basis == "X" else "M"
        if flip == 0 or not self.noise.qubit_factors:
            self.circuit.append(name, qubits, flip or None)
            return
        for qubit in qubits.tolist():  # in their order, which the records have
            self.circuit.append(name, [qubit], flip * self.noise.factor(qubit) or None)

    def _idle(self, qubits: npt.NDArray[np.int64]) -> None:
        # Every layer in which data qubits wait is one in which some ancilla is reset or measured.
        self._noise(self.noise.idle_channel, qubits, self.noise.idle)
        self._noise(self.noise.idle_channel, qubits, self.noise.readout_idle)

    def _syndrome_detectors(self, *, first: bool) -> None:
        # A cycle records the Z outcomes, then the X outcomes: the last 2 * cells records.
        offsets: dict[Basis, int] = {"X": -self.cells, "Z": -2 * self.cells}
        for basis in offsets:
            if basis != self.basis and (first or self.experiment.detectors == "XZ"):
                continue
            for c in range(self.cells):
                now = offsets[basis] + c
                records = [now] if first else [now, now - 2 * self.cells]
                self._detector(records, c, basis)

    def _closing_detectors(self) -> None:
        code, n = self.code, self.code.n
        if not self.experiment.noiseless_last_cycle:
            # After a perfect cycle these would repeat its outcomes, so they are left out there.
            checks = (code.hx if self.basis == "X" else code.hz).tolil().rows
            for c, support in enumerate(checks):
                syndrome = -n + c - (self.cells if self.basis == "X" else 2 * self.cells)
                self._detector([int(q) - n for q in support] + [syndrome], c, self.basis)
        for j, logical in enumerate(code.logicals(self.basis)):
            records = [stim.target_rec(int(q) - n) for q in np.flatnonzero(logical)]
            self.circuit.append("OBSERVABLE_INCLUDE", records, j)

    def _detector(self, records: list[int], cell: int, basis: Basis) -> None:
        x, y = self.coordinates[cell]
        self.circuit.append("DETECTOR", [stim.target_rec(r) for r in records], (x, y, 0, BASES.index(basis)))

    def _qubit_coordinates(self) -> None:
        """A 2 x 2 tile a cell: L at (2x, 2y), R at (2x+1, 2y+1), X ancilla at (2x, 2y+1), Z at (2x+1, 2y)."""
        for kind, (dx, dy) in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
            for c, (x, y) in enumerate(self.coordinates):
                self.circuit.append("QUBIT_COORDS", kind * self.cells + c, (2 * x + dx, 2 * y + dy))
