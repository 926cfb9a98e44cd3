import pytest

from decoder import make_decoder
from simulation import MemoryExperiment
from simulation.noise import NoiseModel


def test_uniform_sets_every_rate_to_p() -> None:
    noise = NoiseModel.parse("uniform", 0.003)
    assert (noise.reset, noise.measurement, noise.cnot, noise.idle) == (0.003,) * 4
    assert noise.readout_idle == 0


def test_without_noise_there_is_a_circuit_and_nothing_to_decode() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0)
    assert experiment.noise.is_silent
    assert NoiseModel.parse("cnot=0", 0.1).is_silent
    assert experiment.circuit == experiment.circuit.without_noise()
    with pytest.raises(ValueError, match="has no noise, so there is nothing to decode; give a p above 0"):
        make_decoder("bposd", experiment)


def test_si1000_rates() -> None:
    noise = NoiseModel.parse("si1000", 0.001)
    assert noise == NoiseModel(
        name="si1000", p=0.001, reset=0.002, measurement=0.005, cnot=0.001, idle=0.0001, readout_idle=0.002
    )


def test_custom_rates_read_back() -> None:
    noise = NoiseModel.parse("cnot=0.002, measurement=0.01", 0.5)
    assert (noise.cnot, noise.measurement, noise.idle, noise.p) == (0.002, 0.01, 0.0, 0.01)
    assert NoiseModel.parse(str(noise), 0.1) == noise


@pytest.mark.parametrize("p", [-0.1, 0.5, 1.0, float("nan"), float("inf")])
def test_p_must_lie_between_0_and_a_half(p: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        NoiseModel.uniform(p)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gaussian", "use uniform, si1000"),
        ("gate=0.1", "known rates"),
        ("cnot=much", "not a number"),
        ("cnot=0.7", "outside"),
    ],
)
def test_bad_specifications(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseModel.parse(spec, 0.001)


def test_si1000_measures_with_five_times_p() -> None:
    with pytest.raises(ValueError, match=r"below 0\.1"):
        NoiseModel.si1000(0.2)
