"""What relay belief propagation makes of the detection events, for the network to read beside them.

Nothing here is learned. Message passing follows chains of faults further than a few of the network's blocks reach, with
a small share of their arithmetic; whether its answers are to be believed is for the network to decide.

Shapes as in `decoder.neural.model` and `decoder.relay`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from decoder.cuda_graphs import Capture, capture_cuda_graph
from decoder.neural.fault_lattice import fault_graphs, fault_lattice
from decoder.neural.geometry import NETWORK_BASES, TorusGeometry
from decoder.relay.gpu import TorchRelay
from decoder.relay.graph import FaultGraphs, Floats
from decoder.relay.kernels import relay
from decoder.relay.rules import Answers, Rules, strengths
from simulation.bits import Bits
from simulation.torus import Basis

NUM_EVIDENCE = 4


class Beliefs(NamedTuple):
    features: Tensor
    """(T, N, B, 3 K + 3): of the K faults of each cell, the chance at the first solution and that of the mean log-odds;
    whether the check is unexplained; the share of the solutions that have each fault; and, the same everywhere, the
    decimal logarithm of the iterations and the share of the wanted solutions that was found."""
    evidence: Tensor
    """(B, O, 4), from -1 (not flipped) to 1: the first solution's flip of each output, the mean over the solutions, and
    the means weighted by their likelihoods, before and after the other side was known."""


class BeliefPropagation(nn.Module):
    """Beliefs of the faults of an experiment, by at most so many iterations on each check type's graph."""

    def __init__(self, geometry: TorusGeometry, *, iterations: int, solutions: int) -> None:
        super().__init__()
        self.geometry = geometry
        self.rules = Rules(looks=-(-iterations // Rules(1, 1).iterations), solutions=solutions)
        self.capture: Capture | None = capture_cuda_graph
        """How GPUs get the iterations that follow one another: as graphs, or None for kernel by kernel."""
        self._on_device: dict[tuple[int, int, torch.device], TorchRelay] = {}

    @property
    def num_features(self) -> int:
        return 3 * len(fault_lattice(self.geometry, NETWORK_BASES[0]).patterns) + 3

    @torch.no_grad()
    def forward(self, events: Tensor, *, basis: int) -> Beliefs:
        """Beliefs of the faults of a memory (0: Z, 1: X) from events, float (T, 2, N, B), 0 or 1."""
        with torch.autocast(events.device.type, enabled=False):
            return self._beliefs(self.answers(events, basis=basis), events)

    def answers(self, events: Tensor, *, basis: int) -> dict[str, Tensor]:
        """What `Answers` names, as tensors, computed where the events are."""
        layers, device = len(events), events.device
        by_shot = events.permute(3, 1, 0, 2)  # (B, 2, T, N)
        if device.type == "cpu":
            found = self.compiled_answers(by_shot.numpy() > 0.5, basis=basis)
            return {name: torch.from_numpy(value) for name, value in found._asdict().items()}
        key = basis, layers, device
        if key not in self._on_device:
            graphs, drawn = _problem(self.geometry, NETWORK_BASES[basis], layers)
            self._on_device[key] = TorchRelay(graphs, drawn, self.rules, capture=self.capture).to(device)
        return cast(dict[str, Tensor], self._on_device[key](by_shot.flatten(2).float()))

    def compiled_answers(self, events: Bits, *, basis: int) -> Answers:
        """The same on the CPU, from events bool (B, 2, T, N)."""
        shots, _, layers, cells = events.shape
        graphs, drawn = _problem(self.geometry, NETWORK_BASES[basis], layers)
        by_shot = np.ascontiguousarray(events).reshape(shots, 2, layers * cells)
        return relay(by_shot, graphs, drawn, self.rules, threads=torch.get_num_threads())

    def _beliefs(self, answers: dict[str, Tensor], events: Tensor) -> Beliefs:
        layers, _, cells, shots = events.shape
        shape = shots, -1, layers, len(fault_lattice(self.geometry, NETWORK_BASES[0]).patterns), cells
        chances = torch.sigmoid(-torch.stack([answers["last"], answers["mean"]], dim=1))
        everywhere = torch.stack([answers["effort"].log10(), answers["found"] / self.rules.solutions], dim=1)
        parts = [chances.view(shape), answers["unexplained"].view(shots, 1, layers, 1, cells)]
        parts.append(answers["share"].view(shape))
        by_cell = [part.permute(2, 4, 0, 1, 3).flatten(3) for part in parts]  # each (T, N, B, ...)
        features = torch.cat([*by_cell, everywhere.expand(layers, cells, shots, 2)], dim=-1)
        return Beliefs(features, _evidence(answers))


@lru_cache(maxsize=32)
def _problem(geometry: TorusGeometry, basis: Basis, layers: int) -> tuple[FaultGraphs, tuple[Floats, Floats]]:
    graphs = fault_graphs(geometry, basis, layers)
    return graphs, (strengths(graphs.memory, seed=0), strengths(graphs.other, seed=1))


def _evidence(answers: dict[str, Tensor]) -> Tensor:
    found, flips, weights = answers["found"], answers["flips"], answers["weights"]
    counts = torch.arange(flips.shape[1], device=found.device) < found.clamp_min(1)[:, None]  # (B, S)
    first = torch.zeros_like(flips[..., 0])
    first[:, 0] = 1
    by_weight = torch.softmax((-weights).masked_fill(~counts[..., None], -torch.inf), dim=1)  # (B, S, 2)
    means = torch.cat([first[..., None], (counts / counts.sum(1, keepdim=True))[..., None], by_weight], dim=-1)
    return (2 * flips - 1).transpose(1, 2) @ means
