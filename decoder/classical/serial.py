"""Serial belief propagation on the exact graph as a decoder: the likeliest of the cosets that an ensemble finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from decoder.base import Decoding, Errors, SoftBatchDecoder, unpack_shots
from decoder.classical.frame import Frame
from decoder.classical.problem import Problem
from decoder.classical.settings import DecoderSettings
from decoder.limits import check_fields
from decoder.serial.graph import Integers, joint_faults, masks_of, observables_of
from decoder.serial.rules import SerialResult, SerialRules, rules_for, schedule_for
from decoder.serial.solutions.choice import decoding_of, disagreeing, doubt_for, posterior
from decoder.serial.solutions.surprise import Surprise
from simulation.bases import Detectors
from simulation.bits import Bits
from simulation.check_types import CheckTypes
from simulation.experiments import Experiment
from simulation.faults import FaultModel
from simulation.placement import NotPlacedError, Placement, placement_of

if TYPE_CHECKING:
    from decoder.serial.solutions.candidates import JointProblem

MOST_BYTES = 1 << 26
"""So many bytes of solutions are kept at once; batches of more are decoded in parts."""


@dataclass(frozen=True, kw_only=True)
class SerialSettings(DecoderSettings):
    """Settings of `SerialDecoder`.

    Raises:
        ValueError: a seed below 0.
    """

    first_solution: bool = False
    """Whether a shot's first solution is its answer, without a second look."""
    deep: bool = False
    """Whether to look far longer, for the few shots of which another decoder is unsure; see `SerialRules.deeper`."""
    rules: SerialRules | None = None
    """When legs begin and shots stop; None for the rules that suit the size of the fault model."""
    seed: int = 0
    """Draws the orders of rows and the memory strengths."""

    def __post_init__(self) -> None:
        check_fields(self, seed=0)

    def placement(self, experiment: Experiment) -> Placement | None:
        """Where the detectors stand, if that is known, so that answers do not depend on their order."""
        try:
            return placement_of(experiment)
        except NotPlacedError:
            return None

    def of_faults(
        self, model: FaultModel, types: CheckTypes, *, detectors: Detectors, placement: Placement | None = None
    ) -> SerialDecoder:
        """Makes a decoder, which uses all detectors that there are; see `DecoderSettings.decoder`."""
        if placement is None:
            return SerialDecoder(model, _deciding(types), self)
        frame = Frame(placement, model)
        return SerialDecoder(frame.model, frame.memory_basis, self, frame=frame)


class SerialDecoder(SoftBatchDecoder):
    """Decodes the shots of any fault model with `decoder.serial`.

    The answer is the coset that all solutions of a shot lie in. Where they disagree, which is about one shot of a
    hundred at the rates that codes are made for, it is the coset with the least free energy.
    """

    def __init__(
        self,
        fault_model: FaultModel,
        memory_basis: npt.NDArray[np.bool_],
        settings: SerialSettings | None = None,
        *,
        frame: Frame | None = None,
        threads: int = 1,
    ) -> None:
        """Prepares a decoder.

        Args:
            fault_model: the mechanisms and their priors.
            memory_basis: (detectors,), the detectors whose events decide the observables; all, if in doubt.
            settings: how to decode; None for the default.
            frame: what takes shots into the frame whose model `fault_model` is, and answers back; None for none.
            threads: how many share a batch.

        Raises:
            ValueError: see `decoder.serial.graph.joint_faults`.
        """
        super().__init__(num_detectors=fault_model.num_detectors, num_observables=fault_model.num_observables)
        settings = settings or SerialSettings()
        self.threads = threads
        self.frame = frame
        problem = Problem.of(fault_model)
        self._given = problem
        self._syndrome_offset, self._observable_offset = problem.syndrome_offset, problem.observable_offset
        joint = joint_faults(problem.faults, memory_basis)
        rules = settings.rules or rules_for(joint.graph)
        rules = rules.deeper() if settings.deep else rules
        self.rules = rules._replace(quorum=1, solutions=1) if settings.first_solution else rules
        self.doubt = doubt_for(joint.graph)
        self.joint = joint
        self._surprise = Surprise.of(joint)
        self._fault_model = problem.faults
        self._schedule = schedule_for(joint, self.rules, seed=settings.seed)
        self._has_compared = False

    def judge(self, events: Bits) -> Decoding:
        """The likeliest coset of each shot and its probability; see `decoder.base.SoftBatchDecoder`."""
        firsts = range(0, max(1, len(events)), self._at_once)
        return Decoding.concatenate([self._judge(events[first : first + self._at_once]) for first in firsts])

    @property
    def num_errors(self) -> int:
        """See `decoder.base.ErrorDecoder`."""
        return self._given.num_errors

    def decode_to_errors(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Errors:
        """See `decoder.base.ErrorDecoder`: an error of the predicted coset, as light as it gets."""
        events = unpack_shots(shots, num_detectors=self.num_detectors, bit_packed=bit_packed_shots)
        firsts = range(0, max(1, len(events)), self._at_once)
        return Errors.concatenate([self._errors(events[first : first + self._at_once]) for first in firsts])

    def propagate(self, events: Bits, *, keep_faults: bool = False) -> SerialResult:
        """All that is found for detection events (B, detectors); see `decoder.serial.kernels.propagate`."""
        from decoder.serial.kernels import propagate  # importing numba takes a while, and compiling more

        shots = np.ascontiguousarray(events ^ self._syndrome_offset)
        graph = self.joint.graph
        return propagate(shots, graph, self._schedule, self.rules, keep_faults=keep_faults, threads=self.threads)

    def compared(self, events: Bits, result: SerialResult) -> npt.NDArray[np.float64]:
        """What decides between the cosets of shots whose solutions disagree, (B, S) as their free energies.

        Those are what it is; decoders that know more of cosets say so here.
        """
        return self.free_energies(events, result)

    def free_energies(self, events: Bits, result: SerialResult) -> npt.NDArray[np.float64]:
        """The free energies (B, S) of the cosets of shots; see `decoder.serial.solutions.candidates.free_energies`."""
        from decoder.serial.solutions.candidates import free_energies

        shots = np.ascontiguousarray(events ^ self._syndrome_offset)
        return free_energies(shots, result, self._problem, threads=self.threads)

    @cached_property
    def _problem(self) -> JointProblem:
        from decoder.serial.solutions.candidates import JointProblem

        return JointProblem.of(self._fault_model, self.joint, most_passes=self.rules.passes)

    @property
    def _at_once(self) -> int:
        """Shots that are decoded together."""
        return max(1, MOST_BYTES // (self.rules.solutions * len(self.joint.graph.chance) + 1))

    def _judge(self, events: Bits) -> Decoding:
        shots, which = self._turned(events)
        result = self.propagate(shots, keep_faults=self.rules.solutions > 1)
        probabilities = self._posterior(shots, result)
        result = result._replace(cosets=self._as_asked(result.cosets, events, which))
        return decoding_of(result, probabilities, num_observables=self.num_observables)

    def _turned(self, events: Bits) -> tuple[Bits, Integers]:
        """Shots as the model has them, and how they were turned; see `Frame.turned`."""
        return (events, np.zeros(len(events), np.int64)) if self.frame is None else self.frame.turned(events)

    def _as_asked(self, cosets: Integers, events: Bits, which: Integers) -> Integers:
        """Cosets (B, ...) of the model as those of the experiment, whose shots (B, detectors) are given."""
        flips = observables_of(cosets, num_observables=self.num_observables) ^ self._observable_offset
        return masks_of(flips if self.frame is None else self.frame.answered(flips, events, which))

    def _posterior(self, events: Bits, result: SerialResult) -> npt.NDArray[np.float64]:
        """(B, S): the probability of each coset, at one of its solutions."""
        energies = np.full(result.cosets.shape, np.inf)
        differ = np.flatnonzero(disagreeing(result))
        if not self._has_compared and self.rules.solutions > 1 and len(events) and result.found[0]:
            # Compiling takes half a minute, once on a machine: now, while first shots are waited for, and not for
            # the first of a hundred later ones whose solutions disagree.
            self.compared(events[:1], result.of(slice(1)))
            self._has_compared = True
        if len(differ):
            energies[differ] = self.compared(events[differ], result.of(differ))
        explained = self._surprise.explained(events ^ self._syndrome_offset, result)
        return posterior(result, energies, explained, self.doubt)

    def _errors(self, events: Bits) -> Errors:
        from decoder.serial.solutions.errors import errors_of

        turned, which = self._turned(events)
        result = self.propagate(turned, keep_faults=True)
        chosen = self._posterior(turned, result).argmax(axis=1)
        shots = np.ascontiguousarray(turned ^ self._syndrome_offset)
        found = errors_of(shots, result, chosen, self._problem, threads=self.threads)
        explained = self._given.explained(found, shots)
        if self.frame is not None:
            back = {t: self.frame.mechanisms(t, self._given.faults) for t in np.unique(which).tolist()}
            found = [back[t][mechanisms] for t, mechanisms in zip(which.tolist(), found, strict=True)]
        cosets = self._as_asked(result.cosets[np.arange(len(chosen)), chosen], events, which)
        flips = observables_of(cosets, num_observables=self.num_observables)
        return Errors(flips, self._given.errors(found), explained, hurried=np.zeros(len(flips), dtype=np.bool_))


def _deciding(types: CheckTypes) -> npt.NDArray[np.bool_]:
    """The detectors that decide the observables: those of one check type if they alone predict all, else every one."""
    return types.memory if types.predicted.all() else np.ones_like(types.memory)
