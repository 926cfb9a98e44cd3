"""Relay belief propagation on both check types at once as a decoder: the likeliest of a few solutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder
from decoder.classical.problem import Problem
from decoder.classical.settings import DecoderSettings
from decoder.relay.graph import FaultGraphs, Floats, Integers, split
from decoder.relay.rules import RelayResult, Rules, strengths
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.check_types import CheckTypes
from simulation.faults import FaultModel

SPLIT_RELAY = Rules(blocks=150, solutions=5)
"""At most 600 iterations and five solutions; the networks that are shipped read as many, or fewer iterations."""
DEEP_RELAY = Rules(blocks=2000, solutions=50)
"""At most 8,000 iterations and fifty solutions, for the shots that the network is unsure of."""


@dataclass(frozen=True, kw_only=True)
class SplitRelaySettings(DecoderSettings):
    """Settings of `SplitRelayDecoder`."""

    rules: Rules = SPLIT_RELAY
    """When legs begin and shots stop."""

    def of_faults(self, model: FaultModel, types: CheckTypes, *, detectors: Detectors) -> SplitRelayDecoder:
        """Makes a decoder, which uses all detectors that there are; see `DecoderSettings.decoder`."""
        return SplitRelayDecoder(model, types, self.rules)


class SplitRelayDecoder(BatchDecoder):
    """Decodes the shots of one fault model with `decoder.relay`.

    Where each of two check types predicts some observables, beliefs are propagated once for either. Where there are not
    two types, all mechanisms are one graph.
    """

    def __init__(
        self, fault_model: FaultModel, check_types: CheckTypes, rules: Rules = SPLIT_RELAY, *, threads: int = 1
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the mechanisms and their priors.
            check_types: the types of the fault model's detectors.
            rules: when legs begin and shots stop.
            threads: how many share a batch.
        """
        super().__init__(num_detectors=fault_model.num_detectors, num_observables=fault_model.num_observables)
        self.rules, self.threads = rules, threads
        problem = Problem.of(fault_model)
        self._syndrome_offset, self._observable_offset = problem.syndrome_offset, problem.observable_offset
        first, second = check_types.memory, ~check_types.memory
        halves = (first, check_types.predicted), (second, ~check_types.predicted)
        self._sides = [_Side.of(problem.faults, side, observables) for side, observables in halves if observables.any()]

    def predict(self, events: Bits) -> Bits:
        """The likeliest solution's flips; see `decoder.base.BatchDecoder`."""
        events = events ^ self._syndrome_offset
        predictions = np.tile(self._observable_offset, (len(events), 1))
        for side in self._sides:
            result = side.propagate(events, self.rules, threads=self.threads)
            solution = np.arange(self.rules.solutions) < np.maximum(result.found, 1)[:, None]
            likeliest = np.where(solution, result.weights[..., 1], np.inf).argmin(1)
            predictions[:, side.observables] ^= result.flips[np.arange(len(events)), likeliest] > 0.5
        return predictions


class _Side(NamedTuple):
    """The check type that some observables are read from, as the memory graph, and the other type beside it."""

    detectors: tuple[Integers, Integers]
    observables: Integers
    graphs: FaultGraphs
    strengths: tuple[Floats, Floats]

    @classmethod
    def of(cls, model: FaultModel, memory: npt.NDArray[np.bool_], observables: npt.NDArray[np.bool_]) -> _Side:
        detectors = np.flatnonzero(memory), np.flatnonzero(~memory)
        check = np.empty(model.num_detectors, dtype=np.int64)
        for indices in detectors:
            check[indices] = np.arange(len(indices))
        parts = split(model, memory_basis=memory, check=check)
        seen = np.flatnonzero(parts.memory_fault >= 0)
        chosen = np.flatnonzero(observables)
        flips = np.zeros((len(parts.memory.prior), len(chosen)), dtype=np.float32)
        # Mechanisms that look the same flip the same, unless they differ by a logical operator: the likeliest decides.
        likeliest_last = seen[np.argsort(model.priors[seen], kind="stable")]
        flips[parts.memory_fault[likeliest_last]] = model.observable_matrix[chosen].toarray().T[likeliest_last]
        graphs = FaultGraphs(parts.memory, parts.other, flips)
        return cls(detectors, chosen, graphs, (strengths(parts.memory, seed=0), strengths(parts.other, seed=1)))

    def propagate(self, events: Bits, rules: Rules, *, threads: int) -> RelayResult:
        """All that is found for detection events (B, detectors); what flips are the observables."""
        from decoder.relay.kernels import relay  # importing numba takes a while, and compiling more

        checks = len(self.graphs.memory.order)
        by_check = np.zeros((len(events), 2, checks), dtype=np.bool_)
        for side, detectors in enumerate(self.detectors):
            by_check[:, side, : len(detectors)] = events[:, detectors]
        return relay(by_check, self.graphs, self.strengths, rules, threads=threads)
