"""Serial belief propagation on the exact graph as a decoder: the coset that most solutions of an ensemble lie in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder
from decoder.classical.problem import Problem
from decoder.classical.settings import DecoderSettings
from decoder.limits import check_fields
from decoder.serial.graph import Integers, joint_faults, observables_of
from decoder.serial.rules import SerialResult, SerialRules, rules_for, schedule_for
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.check_types import CheckTypes
from simulation.experiments import Experiment
from simulation.faults import FaultModel


@dataclass(frozen=True, kw_only=True)
class SerialSettings(DecoderSettings):
    """Settings of `SerialDecoder`.

    Raises:
        ValueError: a seed below 0.
    """

    first_solution: bool = False
    """Whether a shot's first solution is its answer, without a second look."""
    rules: SerialRules | None = None
    """When legs begin and shots stop; None for the rules that suit the size of the fault model."""
    seed: int = 0
    """Draws the orders of rows and the memory strengths."""

    def __post_init__(self) -> None:
        check_fields(self, seed=0)

    def decoder(self, experiment: Experiment, *, detectors: Detectors) -> SerialDecoder:
        """Makes a decoder, which uses all detectors that there are; see `DecoderSettings.decoder`."""
        return SerialDecoder(experiment.fault_model, _deciding(experiment.check_types), self)


class SerialDecoder(BatchDecoder):
    """Decodes the shots of any fault model with `decoder.serial`."""

    def __init__(
        self,
        fault_model: FaultModel,
        memory_basis: npt.NDArray[np.bool_],
        settings: SerialSettings | None = None,
        *,
        threads: int = 1,
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the mechanisms and their priors.
            memory_basis: (detectors,), the detectors whose events decide the observables; all, if in doubt.
            settings: how to decode; None for the default.
            threads: how many share a batch.

        Raises:
            ValueError: see `decoder.serial.graph.joint_faults`.
        """
        super().__init__(num_detectors=fault_model.num_detectors, num_observables=fault_model.num_observables)
        settings = settings or SerialSettings()
        self.threads = threads
        problem = Problem.of(fault_model)
        self._syndrome_offset, self._observable_offset = problem.syndrome_offset, problem.observable_offset
        joint = joint_faults(problem.faults, memory_basis)
        rules = settings.rules or rules_for(joint.graph)
        self.rules = rules._replace(quorum=1, solutions=1) if settings.first_solution else rules
        self._graph = joint.graph
        self._schedule = schedule_for(joint, self.rules, seed=settings.seed)

    def predict(self, events: Bits) -> Bits:
        """The flips of the coset with the most solutions; see `decoder.base.BatchDecoder`."""
        flips = observables_of(_majority(self.propagate(events)), num_observables=self.num_observables)
        return flips ^ self._observable_offset

    def propagate(self, events: Bits, *, keep_faults: bool = False) -> SerialResult:
        """All that is found for detection events (B, detectors); see `decoder.serial.kernels.propagate`."""
        from decoder.serial.kernels import propagate  # importing numba takes a while, and compiling more

        shots = np.ascontiguousarray(events ^ self._syndrome_offset)
        return propagate(shots, self._graph, self._schedule, self.rules, keep_faults=keep_faults, threads=self.threads)


def _majority(result: SerialResult) -> Integers:
    """The coset of each shot (B,) with the most solutions; among as many, that of the likeliest solution."""
    cosets, solutions = result.cosets, result.cosets.shape[1]
    # A shot without a solution has what looked likelier at the end in the first place.
    filled = np.arange(solutions) < np.maximum(result.found, 1)[:, None]
    same = (cosets[:, :, None] == cosets[:, None, :]) & filled[:, None, :]
    votes = np.where(filled, same.sum(2), 0)
    weights = np.where(votes == votes.max(1, keepdims=True), result.weights[..., 1], np.inf)
    chosen: Integers = np.take_along_axis(cosets, weights.argmin(1)[:, None], axis=1)[:, 0]
    return chosen


def _deciding(types: CheckTypes) -> npt.NDArray[np.bool_]:
    """The detectors that decide the observables: those of one check type if they alone predict all, else every one."""
    return types.memory if types.predicted.all() else np.ones_like(types.memory)
