"""A network with frozen weights on a GPU, as CUDA graphs; those of belief propagation are its own."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from decoder.cuda_graphs import Capture, CudaGraphs, capture_cuda_graph
from decoder.neural.beliefs import Beliefs
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Network

PHASES = 3


class GraphedNetwork:
    """One memory basis of a network. Shapes as in `decoder.neural.model`; within `torch.inference_mode`.

    For how many shots and layers is captured when first asked for, which takes longer than the answers after it.
    """

    def __init__(self, model: RecurrentTransformer, *, basis: int, capture: Capture = capture_cuda_graph) -> None:
        self.model = model
        self.basis = basis
        given = [3] if model.propagation is None else [3, 2, 0]
        self._scores = CudaGraphs(self._compute, shots_axes=given, output_axis=0, capture=capture)
        steps = [partial(model.step, basis=basis, phase=phase, spectra=model.spectra()) for phase in range(PHASES)]
        self._steps = [CudaGraphs(step, shots_axes=[1, 2], output_axis=1, capture=capture) for step in steps]
        self._readout = CudaGraphs(self._read, shots_axes=[1, 3], output_axis=0, capture=capture)

    @classmethod
    def of(cls, network: Network, *, basis: int, device: torch.device) -> GraphedNetwork | None:
        """None on a CPU, and for networks of another architecture than tandem."""
        if device.type != "cuda" or not isinstance(network, RecurrentTransformer):
            return None
        return cls(network, basis=basis)

    def scores(self, events: Tensor) -> Tensor:
        """How likely each coset is (B, 2^k), from events (T, 2, N, B)."""
        propagation = self.model.propagation
        beliefs = () if propagation is None else propagation(events, basis=self.basis)
        return self._scores(events, *beliefs)

    def step(self, hidden: Tensor, events: Tensor, *, phase: int) -> Tensor:
        """The state (N, B, C) with a layer of events (2, N, B) folded in, for networks without belief propagation."""
        return self._steps[phase](hidden, events)

    def readout(self, hidden: Tensor, parity: Tensor) -> Tensor:
        """Scores (B, 2^k), from the state after the last layer and the parity (1, 1, N, B) of the memory events."""
        return self._readout(hidden, parity)

    def _compute(self, events: Tensor, *beliefs: Tensor) -> Tensor:
        logits = self.model.log_odds(events, Beliefs(*beliefs) if beliefs else None, basis=self.basis)
        return self.model.vote.scores(logits.float(), events)

    def _read(self, hidden: Tensor, parity: Tensor) -> Tensor:
        return self.model.vote.scores(self.model.readout(hidden).float(), parity)
