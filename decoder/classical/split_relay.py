"""Relay belief propagation on both check types at once as a decoder: the likeliest of a few solutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from decoder.base import BatchDecoder
from decoder.classical.settings import DecoderSettings
from decoder.relay.graph import FaultGraphs, split
from decoder.relay.rules import RelayResult, Rules, strengths
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.detectors import DetectorGrid
from simulation.faults import FaultModel

SPLIT_RELAY = Rules(blocks=150, solutions=5)
"""At most 600 iterations and five solutions; the networks that are shipped read as many, or fewer iterations."""
DEEP_RELAY = Rules(blocks=2000, solutions=50)
"""At most 8,000 iterations and fifty solutions, for the shots that the network is unsure of."""


@dataclass(frozen=True, kw_only=True)
class SplitRelaySettings(DecoderSettings):
    """Settings of `SplitRelayDecoder`."""

    any_model: ClassVar[bool] = False

    rules: Rules = SPLIT_RELAY
    """When legs begin and shots stop."""

    def decoder(self, fault_model: FaultModel, *, grid: DetectorGrid | None, detectors: Detectors) -> SplitRelayDecoder:
        """Makes a decoder, which uses all detectors that there are; see `DecoderSettings.decoder`."""
        if grid is None:
            raise ValueError(
                "relay belief propagation on both check types needs detectors with the coordinates (x, y, round, type) "
                "of a memory experiment; make the circuit with `tandem circuit`, or decode with bposd"
            )
        return SplitRelayDecoder(fault_model, grid, self.rules)


class SplitRelayDecoder(BatchDecoder):
    """Decodes the shots of one memory experiment with `decoder.relay`."""

    def __init__(
        self, fault_model: FaultModel, grid: DetectorGrid, rules: Rules = SPLIT_RELAY, *, threads: int = 1
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the mechanisms and their priors.
            grid: the fault model's detectors, of the memory basis or of both bases.
            rules: when legs begin and shots stop.
            threads: how many share a batch.
        """
        super().__init__(num_detectors=fault_model.num_detectors, num_observables=fault_model.num_observables)
        self.rules, self.threads = rules, threads
        memory_basis = np.zeros(fault_model.num_detectors, dtype=np.bool_)
        memory_basis[grid.indices_of(grid.memory_basis)] = True
        self._detectors = np.flatnonzero(memory_basis), np.flatnonzero(~memory_basis)
        check = np.empty(fault_model.num_detectors, dtype=np.int64)
        for detectors in self._detectors:
            check[detectors] = np.arange(len(detectors))
        parts = split(fault_model, memory_basis=memory_basis, check=check)
        seen = np.flatnonzero(parts.memory_fault >= 0)
        flips = np.zeros((len(parts.memory.prior), fault_model.num_observables), dtype=np.float32)
        # Mechanisms that look the same flip the same, unless they differ by a logical operator: the likeliest decides.
        likeliest_last = seen[np.argsort(fault_model.priors[seen], kind="stable")]
        flips[parts.memory_fault[likeliest_last]] = fault_model.observable_matrix.toarray().T[likeliest_last]
        self._graphs = FaultGraphs(parts.memory, parts.other, flips)
        self._strengths = strengths(parts.memory, seed=0), strengths(parts.other, seed=1)

    def predict(self, events: Bits) -> Bits:
        """The likeliest solution's flips; see `decoder.base.BatchDecoder`."""
        result = self.propagate(events)
        solution = np.arange(self.rules.solutions) < np.maximum(result.found, 1)[:, None]
        likeliest = np.where(solution, result.weights[..., 1], np.inf).argmin(1)
        predictions: Bits = result.flips[np.arange(len(events)), likeliest] > 0.5
        return predictions

    def propagate(self, events: Bits) -> RelayResult:
        """All that is found for detection events (B, detectors); what flips are the observables."""
        from decoder.relay.kernels import relay  # importing numba takes a while, and compiling more

        checks = len(self._graphs.memory.order)
        by_check = np.zeros((len(events), 2, checks), dtype=np.bool_)
        for side, detectors in enumerate(self._detectors):
            by_check[:, side, : len(detectors)] = events[:, detectors]
        return relay(by_check, self._graphs, self._strengths, self.rules, threads=self.threads)
