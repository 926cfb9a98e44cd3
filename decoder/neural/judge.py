"""Serial belief propagation with a network as the judge of the shots whose solutions disagree."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from decoder.base import Decoding
from decoder.classical.frame import Frame
from decoder.classical.serial import SerialDecoder
from decoder.neural.backends.base import Backend
from decoder.neural.backends.events import EventPlacement
from decoder.neural.candidates import Beliefs, Candidates
from decoder.neural.fault_lattice import fault_places
from decoder.neural.geometry import TorusGeometry
from decoder.serial.graph import Floats, Integers
from decoder.serial.rules import SerialResult
from decoder.serial.solutions.choice import disagreeing
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel
from simulation.placement import placement_of


class Case(NamedTuple):
    """Some shots as a judge sees them: N cells, T layers, C candidates, O outputs."""

    events: Bits
    """bool (B, 2, T, N), as networks take them."""
    candidates: Candidates
    flipped: Bits
    """bool (B, C, O): the outputs that each candidate flips."""
    beliefs: Beliefs
    """What the network reads of the candidates; `decoder.neural.backends.events.as_tensors` makes tensors of it."""


class CandidateDecoder(SerialDecoder):
    """`SerialDecoder` for a memory experiment whose candidates can be shown to a network."""

    def __init__(
        self,
        fault_model: FaultModel,
        grid: DetectorGrid,
        geometry: TorusGeometry,
        *,
        candidates: int,
        frame: Frame | None = None,
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the experiment's, with its own priors.
            grid: the experiment's detectors.
            geometry: of its code.
            candidates: the most candidates of a shot.
            frame: see `SerialDecoder`; the model and the grid are those of the frame.

        Raises:
            ValueError: some fault does not lie on the code's torus as it does in our circuits.
        """
        memory = np.zeros(fault_model.num_detectors, np.bool_)
        memory[grid.indices_of(grid.memory_basis)] = True
        super().__init__(fault_model, memory, frame=frame)
        self.geometry, self.most = geometry, candidates
        self.placement = EventPlacement(grid, geometry, partial=True)
        self.places = fault_places(geometry, grid, self.joint)

    @classmethod
    def of(cls, experiment: MemoryExperiment, geometry: TorusGeometry, *, candidates: int) -> CandidateDecoder:
        """The decoder of one of our experiments with the very model that a judge's decoder has, but for shots as they
        are, which it does not turn; see `decoder.classical.frame`."""
        model = Frame(placement_of(experiment), experiment.fault_model).model
        return CandidateDecoder(model, experiment.grid, geometry, candidates=candidates)

    def disagreeing(self, events: Bits) -> tuple[Integers, Case]:
        """Which of some shots, bool (B, detectors), have solutions that disagree, and what a judge sees of those,
        turned as they are decoded (`decoder.classical.frame`).

        The faults of all solutions are kept at once; see `decoder.classical.serial.MOST_BYTES`.
        """
        events, _ = self._turned(events)
        result = self.propagate(events, keep_faults=True)
        differ = np.flatnonzero(disagreeing(result))
        result, events = result.of(differ), events[differ]
        return differ, self.case(events, result, self.free_energies(events, result))

    def case(self, events: Bits, result: SerialResult, energies: npt.NDArray[np.float64]) -> Case:
        """Shows shots whose solutions disagree.

        Args:
            events: bool (B, detectors).
            result: what was found for them, with faults.
            energies: (B, S), see `free_energies`.
        """
        return self.shown(events, Candidates.of(result, energies, self.places, most=self.most))

    def shown(self, events: Bits, candidates: Candidates) -> Case:
        """What a judge sees of shots, bool (B, detectors), and of their candidates."""
        dense = self.placement.dense(events)
        flipped = candidates.flipped(self.geometry, np.logical_xor.reduce(dense[:, 0], axis=1))
        return Case(dense, candidates, flipped, Beliefs.of(candidates, flipped, cells=self.geometry.code.cells))


class JudgedDecoder(CandidateDecoder):
    """The same, with a network that has learned something of candidates beside their free energies.

    The network gives the log-odds of the outputs. A candidate c with the free energy F has the score
    -F / T + (k / O) * sum of the log-odds of the outputs that it flips, T being the temperature of
    `decoder.serial.solutions.choice.Doubt` times that of the weights file.
    """

    def __init__(
        self,
        frame: Frame,
        geometry: TorusGeometry,
        *,
        candidates: int,
        backend: Backend[Any],
        temperature: float,
    ) -> None:
        """Prepares a decoder.

        Args:
            frame: of the experiment and its fault model.
            geometry: of its code.
            candidates: the most candidates of a shot.
            backend: what computes the network.
            temperature: of its scores.

        Raises:
            ValueError: see `CandidateDecoder`.
        """
        super().__init__(frame.model, frame.placement.like.grid, geometry, candidates=candidates, frame=frame)
        self.backend = backend
        self.doubt = self.doubt._replace(temperature=self.doubt.temperature * temperature)

    def judge(self, events: Bits) -> Decoding:
        """See `SerialDecoder`; by torch.get_num_threads() threads."""
        self.threads = torch.get_num_threads()
        return super().judge(events)

    def compared(self, events: Bits, result: SerialResult) -> npt.NDArray[np.float64]:
        """The free energies less the temperature times what the network adds to the scores."""
        case = self.case(events, result, self.free_energies(events, result))
        judged = self.judged(case, self.backend.log_odds(case.events, case.beliefs))
        energies = np.full(result.cosets.shape, np.inf)
        np.put_along_axis(energies, case.candidates.solution, judged, axis=1)
        return energies

    def judged(self, case: Case, log_odds: Floats) -> npt.NDArray[np.float64]:
        """The same for each candidate (B, C), from the outputs' log-odds (B, O)."""
        share = self.geometry.code.k / log_odds.shape[1]
        learned = share * (log_odds[:, None].astype(np.float64) * case.flipped).sum(axis=2)
        return np.asarray(case.candidates.energies - self.doubt.temperature * learned)
