"""What relay belief propagation makes of the detection events, for the network to read beside them.

Nothing here is learned. Message passing follows chains of faults further than a few of the network's blocks reach, with
a small share of their arithmetic; whether its answers are to be believed is for the network to decide. It runs on the
host's cores, wherever the network computes.

Shapes as in `decoder.neural.model` and `decoder.relay`; K kinds of faults in each cell and layer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoder.neural.fault_lattice import fault_graphs, fault_lattice
from decoder.neural.geometry import NETWORK_BASES, TorusGeometry
from decoder.relay.graph import FaultGraphs, Floats
from decoder.relay.kernels import relay
from decoder.relay.rules import RelayResult, Rules, strengths
from simulation.bases import Basis
from simulation.bits import Bits


class FeatureColumns(NamedTuple):
    """Where in a row of `Beliefs.features` each feature of a cell begins; `kinds` wide where that is said."""

    last: int
    """kinds: the probability of each fault at the first solution."""
    mean: int
    """kinds: the probability that stands for the mean of its log-odds until then."""
    unexplained: int
    """1 if the likelier faults leave the memory check's event unexplained, else 0."""
    share: int
    """kinds: the share of the solutions that have the fault."""
    effort: int
    """The decimal logarithm of the iterations until the first solution, the same in all cells."""
    found: int
    """The share of the wanted solutions that was found, the same in all cells."""
    total: int
    """How many columns there are."""

    @classmethod
    def of(cls, kinds: int) -> FeatureColumns:
        """The columns for so many kinds of faults."""
        share = 2 * kinds + 1
        return cls(0, kinds, 2 * kinds, share, share + kinds, share + kinds + 1, share + kinds + 2)


class EvidenceColumns(NamedTuple):
    """Where in a row of `Beliefs.evidence` each kind of evidence stands."""

    first: int = 0
    """The first solution's flip."""
    mean: int = 1
    """The mean flip over the solutions."""
    by_prior: int = 2
    """The mean weighted by the solutions' likelihoods under the priors of the model, `RelayResult.weights[..., 0]`."""
    by_exchanged: int = 3
    """The same under the priors that the other check type's beliefs gave, `RelayResult.weights[..., 1]`."""


EVIDENCE = EvidenceColumns()


class Beliefs(NamedTuple):
    """A `RelayResult` as what the network reads."""

    features: Tensor
    """float (T, N, B, 3 K + 3), columns as `FeatureColumns` says."""
    evidence: Tensor
    """float (B, O, 4), from -1 (not flipped) to 1, of each output, columns as `EvidenceColumns` says."""


class BeliefPropagation:
    """Beliefs of the faults of an experiment, by at most so many iterations on each check type's graph."""

    def __init__(self, geometry: TorusGeometry, *, iterations: int, solutions: int) -> None:
        self.geometry = geometry
        self.rules = Rules(blocks=-(-iterations // Rules(1, 1).iterations), solutions=solutions)
        self.kinds = len(fault_lattice(geometry, NETWORK_BASES[0]).patterns)
        self.columns = FeatureColumns.of(self.kinds)

    def __call__(self, events: Tensor, *, basis: int) -> Beliefs:
        """Beliefs on the device of the events, float (T, 2, N, B), 0 or 1."""
        by_shot = (events.permute(3, 1, 0, 2) > 0.5).cpu().numpy()
        return self.tensors(self.propagate(by_shot, basis=basis), device=events.device)

    def propagate(self, events: Bits, *, basis: int) -> RelayResult:
        """Belief propagation on events, bool (B, 2, T, N), by torch.get_num_threads() threads."""
        shots, _, layers, cells = events.shape
        graphs, drawn = _problem(self.geometry, NETWORK_BASES[basis], layers)
        by_shot = np.ascontiguousarray(events).reshape(shots, 2, layers * cells)
        return relay(by_shot, graphs, drawn, self.rules, threads=torch.get_num_threads())

    @torch.no_grad()
    def tensors(self, result: RelayResult, *, device: torch.device) -> Beliefs:
        """What the network reads of a result, on a device."""
        with torch.autocast(device.type, enabled=False):
            given = {name: torch.from_numpy(value).to(device) for name, value in result._asdict().items()}
            return Beliefs(self._features(given), _evidence(given))

    def _features(self, given: dict[str, Tensor]) -> Tensor:
        cells, kinds, columns = self.geometry.code.cells, self.kinds, self.columns
        shots, checks = given["unexplained"].shape
        layers = checks // cells
        features = given["last"].new_empty(layers, cells, shots, columns.total)

        def by_cell(values: Tensor) -> Tensor:  # (B, T * kinds * N) -> (T, N, B, kinds)
            return values.view(shots, layers, kinds, cells).permute(1, 3, 0, 2)

        features[..., columns.last : columns.last + kinds] = by_cell(torch.sigmoid(-given["last"]))
        features[..., columns.mean : columns.mean + kinds] = by_cell(torch.sigmoid(-given["mean"]))
        features[..., columns.unexplained] = given["unexplained"].view(shots, layers, cells).permute(1, 2, 0)
        features[..., columns.share : columns.share + kinds] = by_cell(given["share"])
        features[..., columns.effort] = given["effort"].log10()
        features[..., columns.found] = given["found"] / self.rules.solutions
        return features


@lru_cache(maxsize=32)
def _problem(geometry: TorusGeometry, basis: Basis, layers: int) -> tuple[FaultGraphs, tuple[Floats, Floats]]:
    graphs = fault_graphs(geometry, basis, layers)
    return graphs, (strengths(graphs.memory, seed=0), strengths(graphs.other, seed=1))


def _evidence(given: dict[str, Tensor]) -> Tensor:
    found, flips, weights = given["found"], given["flips"], given["weights"]
    # If there is no solution, the likelier faults stand in the first place as if they were one.
    counts = torch.arange(flips.shape[1], device=found.device) < found.clamp_min(1)[:, None]  # (B, S)
    by_weight = torch.softmax((-weights).masked_fill(~counts[..., None], -torch.inf), dim=1)  # (B, S, 2)
    shares = flips.new_zeros(*counts.shape, len(EVIDENCE))  # of each solution in each kind of evidence
    shares[:, 0, EVIDENCE.first] = 1
    shares[..., EVIDENCE.mean] = counts / counts.sum(1, keepdim=True)
    shares[..., EVIDENCE.by_prior], shares[..., EVIDENCE.by_exchanged] = by_weight.unbind(-1)
    return (2 * flips - 1).transpose(1, 2) @ shares
