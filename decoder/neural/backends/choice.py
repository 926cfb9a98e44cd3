"""Which backend computes a network."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from decoder.neural.backends.base import Backend
from decoder.neural.backends.cuda_graphs import CudaGraphsBackend
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.numba import NumbaBackend, compilable
from decoder.neural.calibration import Calibration
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Network

BackendName = Literal["eager", "numba", "cuda_graphs"]


def choose_backend(
    network: Network, *, basis: int, calibration: Calibration, device: torch.device, name: BackendName | None = None
) -> Backend[Any]:
    """The fastest backend for a network on a device, or the one of a name.

    That is `cuda_graphs` on a GPU, for networks of architecture tandem; `numba` on a CPU, for those that
    `decoder.neural.backends.numba.compilable` accepts; `eager` for all others.

    Args:
        network: on the device, with frozen weights.
        basis: an index into `decoder.neural.geometry.NETWORK_BASES`.
        calibration: makes probabilities of the network's scores.
        device: where it computes.
        name: the backend to take, for comparisons.

    Raises:
        ValueError: there is no backend of this name, or it cannot compute this network on this device.
    """
    if name not in (None, *get_args(BackendName)):
        raise ValueError(f"no backend {name!r}: take one of {', '.join(get_args(BackendName))}, or leave it out")
    if isinstance(network, RecurrentTransformer):
        if name in (None, "cuda_graphs") and device.type == "cuda":
            return CudaGraphsBackend(network, basis=basis, calibration=calibration, device=device)
        if name in (None, "numba") and compilable(network):
            return NumbaBackend(network, basis=basis, calibration=calibration)
    if name in (None, "eager"):
        return EagerBackend(network, basis=basis, calibration=calibration, device=device)
    raise ValueError(f"the backend {name} cannot compute this network on {device.type}; leave the backend out")
