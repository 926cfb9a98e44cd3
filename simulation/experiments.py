"""What is decoded: a memory experiment that Tandem makes, or any circuit or detector error model."""

from __future__ import annotations

from typing import Any, Protocol

import stim

from simulation.check_types import CheckTypes
from simulation.faults import FaultModel
from simulation.foreign.experiment import ForeignExperiment, Source


class Experiment(Protocol):
    """Where shots come from and what decoders need to know of it; a value that can be hashed and pickled."""

    @property
    def source(self) -> Source:
        """What shots are drawn from: the circuit, or the detector error model where no circuit is known."""

    @property
    def circuit(self) -> stim.Circuit | None:
        """The circuit, if it is known."""

    @property
    def dem(self) -> stim.DetectorErrorModel:
        """The detector error model, not decomposed."""

    @property
    def fault_model(self) -> FaultModel:
        """The error mechanisms as matrices, those with the same symptom merged."""

    @property
    def check_types(self) -> CheckTypes:
        """Which detectors belong to which type of checks."""

    @property
    def num_detectors(self) -> int:
        """Detectors of one shot."""

    @property
    def num_observables(self) -> int:
        """Observables of one shot."""

    @property
    def columns(self) -> dict[str, Any]:
        """Code (or a name), rounds, basis, p and noise as plain values; p and rounds None where they are not known."""

    @property
    def parameters(self) -> dict[str, Any]:
        """All that tells it from others, as plain values."""

    def __hash__(self) -> int: ...


def as_experiment(described: Experiment | Source) -> Experiment:
    """A circuit or a detector error model as an experiment; an experiment as it is.

    Raises:
        ValueError: see `ForeignExperiment.of`.
    """
    if isinstance(described, stim.Circuit | stim.DetectorErrorModel):
        return ForeignExperiment.of(described)
    return described
