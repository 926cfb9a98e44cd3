"""The network as a decoder: packed detection events in, predictions and their confidence out."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import stim
import torch
from torch import Tensor

from decoder.base import Decoding, SoftBatchDecoder, Stream
from decoder.devices import usable_device
from decoder.neural.backends.cuda_graphs import GraphedNetwork
from decoder.neural.backends.numba import CompiledNetwork
from decoder.neural.folding import CompiledFolder, NetworkFolder, TorchFolder
from decoder.neural.geometry import NETWORK_BASES
from decoder.neural.model import RecurrentTransformer
from decoder.neural.stream import open_stream
from decoder.neural.weights import load_weights, shipped_weights
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.codes import CODES, BivariateBicycleCode
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel, Symptom
from simulation.noise import NoiseModel


class NeuralDecoder(SoftBatchDecoder):
    """Decodes one memory experiment; any number of rounds and both bases share the weights."""

    def __init__(self, grid: DetectorGrid, *, weights: Path, device: str = "cpu", max_batch: int = 1024) -> None:
        """Loads the weights for an experiment known by its detectors.

        Args:
            grid: the experiment's detectors, XYZ.
            weights: a weights file, trained for the experiment's code and basis.
            device: where torch computes: "cpu", "cuda" or "cuda:N".
            max_batch: shots in one pass of the network; bounds the memory.

        Raises:
            ValueError: the weights are for another code or basis, the file is broken, or there is no such device.
            FileNotFoundError: there is no such file.
        """
        self.device = usable_device(device)
        self.model, self.info = load_weights(weights)
        self.model.to(self.device)
        self.model.freeze()
        self.max_batch = max_batch
        geometry = self.model.geometry
        basis = grid.memory_basis
        if basis not in self.info.bases:
            raise ValueError(f"{weights} was trained for {self.info.bases} memory, not for {basis} memory")
        self.basis = NETWORK_BASES.index(basis)
        index = geometry.event_index(grid)  # (T, 2, N), -1 where there is no detector
        super().__init__(num_detectors=len(grid.coordinates), num_observables=geometry.code.k)
        self.layers = grid.layers
        # Absent detectors read a column of zeros behind the real ones.
        self._place = np.where(index < 0, self.num_detectors, index)
        self._index = torch.from_numpy(self._place.ravel()).to(device)
        self.compiled = CompiledNetwork.of(self.model, basis=self.basis, calibration=self.info.calibration)
        """What decodes; None where torch does: on GPUs, and for networks with attention or of other architectures."""
        self.graphed = GraphedNetwork.of(self.model, basis=self.basis, device=self.device)
        """What computes for torch on GPUs; None elsewhere, and for networks of other architectures."""

    @classmethod
    def load(cls, experiment: MemoryExperiment, *, weights: Path | None = None, device: str = "cpu") -> NeuralDecoder:
        """The decoder of an experiment, with the package's weights or given ones.

        Raises:
            ValueError: no weights for this code, or weights or an experiment that do not fit each other.
        """
        code = experiment.code
        if weights is None:
            weights = shipped_weights(str(code))
        decoder = cls(experiment.grid, weights=weights, device=device)
        trained = decoder.model.geometry.code
        if trained != code:
            raise ValueError(f"{weights} was trained for {trained}, not for {code}")
        return decoder

    @classmethod
    def for_dem(
        cls, dem: stim.DetectorErrorModel, *, weights: Path | None = None, device: str = "cpu"
    ) -> NeuralDecoder:
        """The decoder for a DEM of one of our memory experiments, recognised by its coordinates and mechanisms.

        Raises:
            ValueError: the DEM is not that of an experiment that the weights are for.
        """
        grid = DetectorGrid.of(dem)
        if weights is None:
            weights = shipped_weights(str(_code_on_torus(grid)))
        decoder = cls(grid, weights=weights, device=device)
        if dem.num_observables != decoder.num_observables:
            raise ValueError(
                f"the DEM has {dem.num_observables} observables, but {decoder.model.geometry.code} has "
                f"{decoder.num_observables} logical qubits, all of which must be observables"
            )
        known = _symptoms(decoder.model.geometry.code, grid.memory_basis, grid.rounds)
        foreign = [s for s in FaultModel.from_dem(dem).symptoms() if s not in known]
        if foreign:
            raise ValueError(
                f"{len(foreign)} error mechanisms of the DEM, such as detectors {foreign[0][0]} with observables "
                f"{foreign[0][1]}, do not occur in the {grid.memory_basis} memory of "
                f"{decoder.model.geometry.code} over {grid.rounds} rounds that this network decodes; "
                "make the circuit with `tandem circuit`, or decode with bposd"
            )
        return decoder

    @cached_property
    def model_info(self) -> dict[str, Any]:
        """What is known of the network, for tables and for the service."""
        return {
            "architecture": self.model.config.architecture,
            "code": str(self.model.geometry.code),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "bases": self.info.bases,
            "rounds_trained": list(self.info.rounds),
            "temperature": self.info.calibration.temperature,
            "power": self.info.calibration.power,
            "weights_sha256": self.info.sha256,
            "provenance": dict(self.info.provenance),
            "thresholds": {second: dict(chosen) for second, chosen in self.info.thresholds.items()},
        }

    def judge(self, events: Bits) -> Decoding:
        """Predictions with the posterior of the chosen coset and of each flip; see `decoder.base.SoftDecoder`."""
        k = self.num_observables
        parts = [Decoding(np.zeros((0, k), bool), np.zeros(0, np.float64), np.zeros((0, k), np.float32))]
        parts += [self._decode(events[i : i + self.max_batch]) for i in range(0, len(events), self.max_batch)]
        return Decoding.concatenate(parts)

    def stream(self, *, shots: int = 1) -> Stream:
        """Begins to decode experiments whose events arrive layer by layer; see `decoder.base.StreamingDecoder`.

        A network of architecture tandem without belief propagation (``bp_iterations=0``) folds each layer into its
        state on arrival, so after the last one a single step and the readout remain. The iterations of belief
        propagation need the last layer before they can begin, so with them, as in the shipped weights, and with
        other architectures, layers are merely kept, and `finish` does all the work: it takes as long as
        `decode_soft`.

        Args:
            shots: experiments side by side, from 1 to max_batch.

        Raises:
            ValueError: shots out of range.
        """
        return open_stream(self, shots=shots)

    def folder(self) -> NetworkFolder[Any] | None:
        """Folds layers of many experiments, each at a round of its own; see `decoder.base.FoldingDecoder`.

        None for networks that need all layers before they can begin: those with belief propagation, and those of
        other architectures than tandem.
        """
        model = self.model
        if not isinstance(model, RecurrentTransformer) or model.propagation is not None:
            return None
        return TorchFolder(self, model) if self.compiled is None else CompiledFolder(self, self.compiled)

    def _decode(self, shots: Bits) -> Decoding:
        if self.compiled is not None:
            return self.compiled.decode(self.events(shots))
        return self.decode_with_torch(shots) if self.graphed is None else self._decode_with_graphs(self.graphed, shots)

    @torch.inference_mode()
    def _decode_with_graphs(self, network: GraphedNetwork, shots: Bits) -> Decoding:
        return self.decoding(network.scores(self.arrange(shots)))

    @torch.inference_mode()
    def decode_with_torch(self, shots: Bits) -> Decoding:
        """What `decode_soft` answers for bool (shots, detectors), by torch's own kernels: the reference of the rest."""
        return self.decoding(self.model.scores(self.arrange(shots), basis=self.basis))

    def decoding(self, scores: Tensor) -> Decoding:
        """The answer that the scores (shots, 2^k) of the cosets stand for."""
        posterior = self.info.calibration.log_posterior(scores).exp()
        cosets = self.model.cosets
        confidence, coset = posterior.max(dim=1)
        flips = posterior.float() @ cosets
        return Decoding(cosets[coset].bool().cpu().numpy(), confidence.cpu().numpy(), flips.cpu().numpy())

    def events(self, shots: Bits) -> Bits:
        """Detection events bool (shots, detectors) as those of the compiled network, bool (shots, 2, T, N)."""
        return _taken(shots, self._place.transpose(1, 0, 2))

    def layer_events(self, t: int, events: Bits) -> Bits:
        """Layer t alone, bool (shots, its detectors), as bool (shots, 2, N)."""
        return _taken(events, self._layer_place[t])

    def arrange(self, shots: Bits) -> Tensor:
        """Detection events bool (shots, detectors) as the network's float (T, 2, N, shots)."""
        return self._placed(shots, self._index).view(*self._place.shape, len(shots))

    def arrange_layer(self, t: int, events: Bits) -> Tensor:
        """Layer t alone, bool (shots, its detectors), as the network's float (2, N, shots)."""
        return self._placed(events, self._layer_index[t]).view(*self._place.shape[1:], len(events))

    def _placed(self, events: Bits, index: Tensor) -> Tensor:
        padded = np.zeros((events.shape[1] + 1, len(events)), dtype=np.float32)
        padded[:-1] = events.T
        return torch.from_numpy(padded).to(self.device)[index]

    @cached_property
    def _layer_place(self) -> list[npt.NDArray[np.int64]]:
        """For each layer what `_place` is for all of them, (2, N): where in the layer each event stands."""
        place = np.empty(self.num_detectors + 1, dtype=np.int64)
        rows = []
        for detectors, row in zip(self.layers, self._place, strict=True):
            place[-1] = len(detectors)
            place[detectors] = np.arange(len(detectors))
            rows.append(place[row])
        return rows

    @cached_property
    def _layer_index(self) -> list[Tensor]:
        return [torch.from_numpy(row.ravel()).to(self.device) for row in self._layer_place]


def _taken(events: Bits, place: npt.NDArray[np.int64]) -> Bits:
    """The events (shots, ...) at some places; False at the place behind the last one."""
    padded = np.zeros((len(events), events.shape[1] + 1), dtype=np.bool_)
    padded[:, :-1] = events
    taken: Bits = np.take(padded, place, axis=1)
    return taken


def _code_on_torus(grid: DetectorGrid) -> BivariateBicycleCode:
    l, m = (int(size) + 1 for size in grid.coordinates[:, :2].max(axis=0))
    for code in CODES.values():
        if (code.l, code.m) == (l, m):
            return code
    raise ValueError(f"no code with shipped weights lives on a {l} x {m} torus; name the weights to use")


@lru_cache(maxsize=16)
def _symptoms(code: BivariateBicycleCode, basis: Any, rounds: int) -> frozenset[Symptom]:
    """All that a fault can flip in our circuit: uniform noise has every Pauli fault at every location.

    Other noise models, whatever their rates, have a subset.
    """
    experiment = MemoryExperiment(code, basis, rounds, NoiseModel.uniform(1e-3))
    return frozenset(experiment.fault_model.symptoms())
