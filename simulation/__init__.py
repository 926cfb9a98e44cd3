"""Codes, circuits, noise, fault models and shots of bivariate bicycle codes: everything that needs no decoder.

What most users need can be imported from here, and is in the module that `help` names::

    from simulation import MemoryExperiment, sample

    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
    shots = sample(experiment.circuit, shots=1000, seed=1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.lazy import offer

if TYPE_CHECKING:
    from simulation.circuits import MemoryExperiment
    from simulation.codes import CODES, BivariateBicycleCode, parse_code
    from simulation.detectors import DetectorGrid
    from simulation.experiments import Experiment, as_experiment
    from simulation.faults import FaultModel
    from simulation.foreign.experiment import ForeignExperiment
    from simulation.noise import NoiseModel
    from simulation.shots.files import read_shots, write_shots
    from simulation.shots.sampling import Samples, sample

    __version__: str

__all__ = [
    "CODES",
    "BivariateBicycleCode",
    "DetectorGrid",
    "Experiment",
    "FaultModel",
    "ForeignExperiment",
    "MemoryExperiment",
    "NoiseModel",
    "Samples",
    "__version__",
    "as_experiment",
    "parse_code",
    "read_shots",
    "sample",
    "write_shots",
]

__getattr__, __dir__ = offer(
    __name__,
    {
        "simulation.circuits": ["MemoryExperiment"],
        "simulation.codes": ["CODES", "BivariateBicycleCode", "parse_code"],
        "simulation.detectors": ["DetectorGrid"],
        "simulation.experiments": ["Experiment", "as_experiment"],
        "simulation.faults": ["FaultModel"],
        "simulation.foreign.experiment": ["ForeignExperiment"],
        "simulation.noise": ["NoiseModel"],
        "simulation.shots.sampling": ["Samples", "sample"],
        "simulation.shots.files": ["read_shots", "write_shots"],
    },
)
