"""Where an experiment's detection events stand in the network's grids, and grids as tensors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from decoder.neural.candidates import Beliefs
from decoder.neural.geometry import TorusGeometry
from decoder.neural.network import Phase
from simulation.bits import Bits
from simulation.detectors import DetectorGrid


class EventPlacement:
    """Arranges the detection events of one experiment as (slot, layer, cell), in the memory frame.

    Args:
        grid: the experiment's detectors.
        geometry: of its code.
        partial: see `TorusGeometry.event_index`.

    Raises:
        ValueError: the detectors are not those of a memory experiment of the geometry's code.
    """

    def __init__(self, grid: DetectorGrid, geometry: TorusGeometry, *, partial: bool = False) -> None:
        self.num_detectors = len(grid.coordinates)
        self.layers = grid.layers
        """The indices of each layer's detectors, ascending."""
        index = geometry.event_index(grid, partial=partial)  # (T, 2, N), -1 where there is no detector
        # Absent detectors read a column of zeros behind the real ones.
        index = np.where(index < 0, self.num_detectors, index)
        self._index = index.transpose(1, 0, 2)  # (2, T, N)
        self._in_layer = []  # the same for each layer alone (2, N), whose detectors are counted from 0
        place = np.empty(self.num_detectors + 1, dtype=np.int64)
        for detectors, row in zip(self.layers, index, strict=True):
            place[-1] = len(detectors)
            place[detectors] = np.arange(len(detectors))
            self._in_layer.append(place[row])

    def dense(self, shots: Bits) -> Bits:
        """Detection events bool (B, detectors) as bool (B, 2, T, N); False where there is no detector."""
        return _taken(shots, self._index)

    def dense_layer(self, t: int, layer: Bits) -> Bits:
        """The events of layer t alone, bool (B, its detectors), as bool (B, 2, N)."""
        return _taken(layer, self._in_layer[t])

    def phase(self, t: int) -> Phase:
        """Which layer of the experiment layer t is."""
        return Phase.of(t, len(self.layers))


def as_tensor(events: Bits, device: torch.device) -> Tensor:
    """Events bool (B, 2, T, N) as torch computes with them: float (T, 2, N, B) on a device."""
    return torch.from_numpy(events).to(device).permute(2, 1, 3, 0).float().contiguous()


def as_tensors(events: Bits, beliefs: Beliefs, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What a network that judges reads, as `RecurrentTransformer.forward` takes it: events, features and evidence."""
    features, evidence = (torch.from_numpy(part).to(device) for part in beliefs)
    return as_tensor(events, device), features.permute(1, 2, 0, 3).contiguous(), evidence


def _taken(events: Bits, place: npt.NDArray[np.int64]) -> Bits:
    padded = np.zeros((len(events), events.shape[1] + 1), dtype=np.bool_)
    padded[:, :-1] = events
    taken: Bits = np.take(padded, place, axis=1)
    return taken
