from typing import Any

import numpy as np
import pytest

from simulation.circuits import MemoryExperiment
from simulation.fault_family import FaultFamily
from simulation.noise import NoiseModel


@pytest.mark.parametrize(
    "shape",
    [
        {"code": "bb72", "basis": "Z", "rounds": 4},
        {"code": "bb90", "basis": "X", "rounds": 2},
        {"code": "bb72", "basis": "X", "rounds": 2, "noise": "si1000"},
        {"code": "bb72", "basis": "Z", "rounds": 2, "detectors": "XZ", "noiseless_last_cycle": True},
    ],
    ids=str,
)
def test_every_rate_has_the_fault_model_of_its_circuit(shape: dict[str, Any]) -> None:
    family = FaultFamily(MemoryExperiment.create(**shape, p=0.003))
    for p in (1e-5, 1e-3, 0.006, 0.05):
        experiment = MemoryExperiment.create(**shape, p=p)
        ours, expected = family.at(experiment.noise), experiment.fault_model
        assert ours.symptoms() == expected.symptoms()
        np.testing.assert_allclose(ours.priors, expected.priors, rtol=1e-12, atol=0)


def test_matrices_are_shared_between_rates() -> None:
    family = FaultFamily(MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.003))
    one, other = family.at(NoiseModel.uniform(0.001)), family.at(NoiseModel.uniform(0.002))
    assert one.check_matrix is other.check_matrix
    assert one.observable_matrix is other.observable_matrix


def test_noise_of_another_kind_is_refused() -> None:
    family = FaultFamily(MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.003))
    with pytest.raises(ValueError, match="reset, measurement, cnot, idle, readout_idle above 0"):
        family.at(NoiseModel.si1000(0.001))
