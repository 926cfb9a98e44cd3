"""The network as a decoder: packed detection events in, predictions and their confidence out."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import stim

from decoder.base import Decoding, SoftBatchDecoder, Stream
from decoder.classical.frame import Frame
from decoder.devices import usable_device
from decoder.neural.backends.choice import BackendName, choose_backend
from decoder.neural.backends.events import EventPlacement
from decoder.neural.geometry import NETWORK_BASES
from decoder.neural.judge import JudgedDecoder
from decoder.neural.stream import LayerStream
from decoder.neural.weights import load_weights, shipped_weights
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode, parse_code
from simulation.detectors import DetectorGrid
from simulation.experiments import Experiment
from simulation.faults import FaultModel
from simulation.foreign.experiment import ForeignExperiment
from simulation.placement import NotPlacedError, Placement, placement_of


class NeuralDecoder(SoftBatchDecoder):
    """Decodes one memory experiment.

    A network that judges, as those that are shipped do, leaves nearly all shots to serial belief propagation on the
    experiment's own fault model, and chooses between the cosets where its solutions disagree. Others decode alone.
    """

    def __init__(
        self,
        grid: DetectorGrid,
        *,
        weights: Path,
        code: BivariateBicycleCode | None = None,
        fault_model: FaultModel | None = None,
        placement: Placement | None = None,
        device: str = "cpu",
        backend: BackendName | None = None,
        max_batch: int = 1024,
    ) -> None:
        """Loads the weights for an experiment known by its detectors.

        Args:
            grid: the experiment's detectors; XYZ for a network that decodes alone.
            weights: a weights file, trained for the experiment's basis.
            code: the experiment's code; None for the one that the weights name.
            fault_model: the experiment's mechanisms; networks that decode alone do without.
            placement: which of our experiments it is; networks that decode alone take it as it is without.
            device: where the network computes: "cpu", "cuda" or "cuda:N". Belief propagation runs on the host.
            backend: what computes it; the fastest one that can if not given, see `choose_backend`.
            max_batch: shots in one pass of the network; bounds the memory.

        Raises:
            ValueError: the weights are for another code or basis, the file is broken, the network does not apply to the
                experiment, or there is no such device, or no such backend for this network on it.
            FileNotFoundError: there is no such file.
        """
        self.device = usable_device(device)
        self.model, self.info = load_weights(weights, code=None if code is None else str(code))
        self.model.to(self.device)
        self.model.freeze()
        self.max_batch = max_batch
        geometry, judges = self.model.geometry, self.model.config.judges
        if grid.memory_basis not in self.info.bases:
            raise ValueError(f"{weights} was trained for {self.info.bases} memory, not for {grid.memory_basis} memory")
        self.basis = NETWORK_BASES.index(grid.memory_basis)
        self.placement = EventPlacement(grid, geometry, partial=judges)
        super().__init__(num_detectors=self.placement.num_detectors, num_observables=geometry.code.k)
        self.layers = self.placement.layers
        self.backend = choose_backend(
            self.model, basis=self.basis, calibration=self.info.calibration, device=self.device, name=backend
        )
        self.judged: JudgedDecoder | None = None
        """What decodes, with a network that judges."""
        if judges:
            if fault_model is None or placement is None:
                raise ValueError(f"{weights} needs the experiment's fault model, whose solutions it judges")
            self.judged = self._judging(Frame(placement, fault_model))
        elif placement is not None and not placement.has_our_observables:
            raise ValueError(
                f"{weights} decodes alone, and reads other logical operators than the experiment's observables; decode "
                "with serial, or with weights that judge"
            )

    def _judging(self, frame: Frame) -> JudgedDecoder:
        return JudgedDecoder(
            frame,
            self.model.geometry,
            candidates=self.model.config.candidates,
            backend=self.backend,
            temperature=self.info.calibration.temperature,
        )

    @classmethod
    def load(
        cls,
        experiment: Experiment,
        *,
        weights: Path | None = None,
        device: str = "cpu",
        backend: BackendName | None = None,
    ) -> NeuralDecoder:
        """The decoder of an experiment, with the package's weights or given ones.

        An experiment that Tandem did not make has to be one of its own but for names; see `simulation.placement`.

        Raises:
            ValueError: weights or an experiment that do not fit each other.
        """
        placed = cls.placement_for(experiment, weights=weights)
        code = placed.like.code
        return cls(
            placed.grid,
            weights=shipped_weights(str(code)) if weights is None else weights,
            code=code,
            fault_model=experiment.fault_model,
            placement=placed,
            device=device,
            backend=backend,
        )

    @staticmethod
    def placement_for(experiment: Experiment, *, weights: Path | None = None) -> Placement:
        """Which of our experiments a network would take one for. To make the decoder takes longer.

        Raises:
            ValueError: no network decodes it, or not these weights.
        """
        own = None
        if weights is not None and not isinstance(experiment, MemoryExperiment):
            own = parse_code(load_weights(weights)[1].config.code)
        try:
            placed = placement_of(experiment, code=own)
        except NotPlacedError as error:
            raise ValueError(f"the network does not apply to {experiment}: {error}; decode with serial") from None
        if (experiment.fault_model.priors > 0.5).any():
            raise ValueError(
                f"some error mechanisms of {experiment} are likelier than not, which no network has seen; decode with "
                "serial"
            )
        return placed

    @classmethod
    def for_dem(
        cls, dem: stim.DetectorErrorModel, *, weights: Path | None = None, device: str = "cpu"
    ) -> NeuralDecoder:
        """The decoder for a detector error model; see `load`."""
        return cls.load(ForeignExperiment.unchecked(dem, name="the model"), weights=weights, device=device)

    @cached_property
    def model_info(self) -> dict[str, Any]:
        """What is known of the network, for tables and for the service."""
        return {
            "architecture": self.model.config.architecture,
            "judges": self.model.config.judges,
            "code": str(self.model.geometry.code),
            "codes_trained": list(self.info.codes),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "bases": self.info.bases,
            "rounds_trained": list(self.info.rounds),
            "temperature": self.info.calibration.temperature,
            "power": self.info.calibration.power,
            "weights_sha256": self.info.sha256,
            "provenance": dict(self.info.provenance),
        }

    def judge(self, events: Bits) -> Decoding:
        """Predictions with the posterior of the chosen coset and of each flip; see `decoder.base.SoftDecoder`."""
        if not len(events):
            none = np.zeros((0, self.num_observables), np.bool_)
            return Decoding(none, np.zeros(0, np.float64), none.astype(np.float32))
        if self.judged is not None:
            return self.judged.judge(events)
        batches = (events[i : i + self.max_batch] for i in range(0, len(events), self.max_batch))
        return Decoding.concatenate([self.backend.decode(self.placement.dense(batch)) for batch in batches])

    def stream(self, *, shots: int = 1) -> Stream:
        """Begins to decode experiments whose events arrive layer by layer; see `decoder.base.StreamingDecoder`.

        A network of architecture tandem that decodes alone (``judges=false``) folds each layer into its state on
        arrival, so after the last one a single step and the readout remain. Belief propagation, whose solutions the
        shipped network judges, and other architectures need the last layer before they can begin: layers are merely
        kept, and `finish` takes as long as `decode_soft`.

        Args:
            shots: experiments side by side, from 1 to max_batch.

        Raises:
            ValueError: shots out of range.
        """
        if not 1 <= shots <= self.max_batch:
            raise ValueError(
                f"a stream of shots={shots} must hold 1 to {self.max_batch} of them (the decoder's max_batch)"
            )
        decode = None if self.model.folds_on_arrival else self.judge
        return LayerStream(self.backend, self.placement, shots=shots, decode=decode)
