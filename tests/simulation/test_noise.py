from dataclasses import replace
from typing import Any

import pytest

from decoder import make_decoder
from simulation import MemoryExperiment
from simulation.codes import parse_code
from simulation.fault_family import FaultFamily
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


def test_bias_by_name_and_in_the_circuit() -> None:
    noise = NoiseModel.parse("si1000, bias=9", 0.001)
    assert NoiseModel.parse(str(noise), 0.001) == noise
    assert noise.idle_channel(0.01)[0] == "PAULI_CHANNEL_1"
    assert noise.idle_channel(0.01)[1] == pytest.approx([0.0005, 0.0005, 0.009])
    name, shares = noise.cnot_channel(0.01)
    assert (name, len(shares)) == ("PAULI_CHANNEL_2", 15)
    assert sum(shares) == pytest.approx(0.01)
    assert [shares[i] for i in (2, 11, 14)] == [pytest.approx(0.003)] * 3
    x, z = (
        MemoryExperiment.create(code="bb72", basis=basis, rounds=2, p=0.001, noise="uniform,bias=99")
        for basis in ("X", "Z")
    )
    # X memory feels the Z errors, Z memory nearly none of them.
    assert x.fault_model.priors.sum() > 0
    weights = [e.fault_model.observable_matrix.sum(axis=0) @ e.fault_model.priors for e in (x, z)]
    assert float(weights[0].item()) > 3 * float(weights[1].item())


def test_factors_of_qubits_are_those_of_each_location() -> None:
    noise = replace(NoiseModel.uniform(0.001), qubit_factors=tuple(1.0 + (q % 2) for q in range(144)))
    circuit = MemoryExperiment(parse_code("bb72"), "Z", 2, noise).circuit
    assert "factors=" in str(noise)
    for instruction in circuit.flattened():
        targets, arguments = [t.value for t in instruction.targets_copy()], instruction.gate_args_copy()
        if instruction.name == "DEPOLARIZE2":
            pairs = zip(targets[::2], targets[1::2], strict=True)
            assert {0.001 * (1 + (a % 2 + b % 2) / 2) for a, b in pairs} == set(arguments)
        elif instruction.name in ("M", "MX", "X_ERROR", "DEPOLARIZE1"):
            assert {0.001 * (1 + q % 2) for q in targets} == set(arguments)
    plain = MemoryExperiment(parse_code("bb72"), "Z", 2, NoiseModel.uniform(0.001))
    same = MemoryExperiment(parse_code("bb72"), "Z", 2, replace(noise, qubit_factors=(1.0,) * 144))
    assert same.circuit.without_noise() == plain.circuit.without_noise()
    assert same.fault_model.priors == pytest.approx(plain.fault_model.priors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": 0.0}, "bias=0.0 must be a number above 0"),
        ({"bias": float("nan")}, "bias=nan must be"),
        ({"qubit_factors": (1.0,) * 143 + (-1.0,)}, "the factor -1.0 of qubit 143"),
        ({"qubit_factors": (500.0,) * 144}, "the factor 500.0 of qubit 0 takes the rate 0.001 out of"),
        ({"qubit_factors": (1.0,) * 7}, "factors of 7 qubits, but the circuit has 144"),
    ],
)
def test_bias_and_factors_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryExperiment(parse_code("bb72"), "Z", 2, replace(NoiseModel.uniform(0.001), **change))


def test_families_have_one_kind_of_noise() -> None:
    with pytest.raises(ValueError, match="no bias"):
        FaultFamily(MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001, noise="uniform,bias=2"))
