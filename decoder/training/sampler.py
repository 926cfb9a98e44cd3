"""Draws training shots from a fault model with torch, on the device that trains."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from decoder.neural.geometry import TorusGeometry
from simulation.circuits import MemoryExperiment
from simulation.fault_family import FaultFamily
from simulation.faults import FaultModel, poisson_means
from simulation.noise import NoiseModel


class FaultSampler:
    """Samples detection events and observable flips of one experiment.

    A mechanism is the parity of a Poisson number of events, exactly. So a batch of B shots is Poisson(B * total mean)
    events, each at a random shot and a mechanism drawn in proportion to its mean: work that grows with the number of
    faults, not of mechanisms.
    """

    def __init__(self, experiment: MemoryExperiment, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.family = FaultFamily(experiment)
        model = self.family.at(experiment.noise)
        index = TorusGeometry(experiment.code).event_index(experiment.grid)
        self.layers, _, self.cells = index.shape
        self.num_observables = model.num_observables
        # A shot's row: its dense events (T * 2 * N), its observables, and one more that swallows padding.
        self.width = index.size + self.num_observables + 1
        row = np.empty(model.num_detectors + self.num_observables, dtype=np.int64)
        row[index[index >= 0]] = np.flatnonzero(index.ravel() >= 0)
        row[model.num_detectors :] = index.size + np.arange(self.num_observables)
        self.table = torch.tensor(_padded(model.symptom_matrix, row, padding=self.width - 1), device=self.device)
        """int64 (mechanisms, most flips of one): the places in a shot's row that a mechanism flips."""
        self._weigh(model)

    def at(self, noise: NoiseModel) -> FaultSampler:
        """A sampler of the same experiment with other noise, which shares the table of symptoms.

        Its shots are those of a sampler made for that noise, bit by bit.

        Raises:
            ValueError: other rates of the noise are above 0 than in the experiment.
        """
        other = copy(self)
        other._weigh(self.family.at(noise))
        return other

    def _weigh(self, model: FaultModel) -> None:
        means = poisson_means(model.priors)
        self.mean = float(means.sum())
        """Expected events a shot; about the expected number of faults."""
        self.cumulative = torch.tensor(np.cumsum(means) / self.mean, device=self.device)  # (mechanisms,) float64

    def sample(self, shots: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Draws shots; the same seed on the same device gives the same shots.

        Returns:
            Detection events float32 (T, 2, N, shots) in the memory frame, and observable flips float32 (shots, k).
        """
        # The number of events is drawn on the host so that no shape waits for the device.
        events = int(np.random.default_rng(seed).poisson(shots * self.mean))
        generator = torch.Generator(self.device).manual_seed(seed)
        uniform = torch.rand(events, dtype=torch.float64, device=self.device, generator=generator)
        mechanism = torch.searchsorted(self.cumulative, uniform, right=True).clamp_(max=len(self.cumulative) - 1)
        shot = torch.randint(shots, (events,), device=self.device, generator=generator)
        # Transposed, (width, shots), so that the result is laid out as the network wants it.
        where = self.table[mechanism] * shots + shot[:, None]
        counts = torch.zeros(self.width * shots, dtype=torch.int32, device=self.device)
        counts.index_add_(0, where.flatten(), counts.new_ones(1).expand(where.numel()))
        parity = (counts & 1).float().view(self.width, shots)
        dense = self.layers * 2 * self.cells
        detection_events = parity[:dense].view(self.layers, 2, self.cells, shots)
        return detection_events, parity[dense : dense + self.num_observables].t().contiguous()


def _padded(symptoms: sp.csc_matrix, row: npt.NDArray[np.int64], *, padding: int) -> npt.NDArray[np.int64]:
    """(columns, most entries of one): `row` of each column's entries, filled up with `padding`."""
    entries = np.diff(symptoms.indptr)
    table = np.full((len(entries), entries.max()), padding, dtype=np.int64)
    table[np.arange(table.shape[1]) < entries[:, None]] = row[symptoms.indices]
    return table
