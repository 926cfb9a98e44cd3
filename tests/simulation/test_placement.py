"""Circuits and models under other names, and where their detectors stand."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stim

from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code
from simulation.experiments import as_experiment
from simulation.placement import NotPlacedError, Placement, placement_of
from tests.simulation.renaming import renamed


def made(basis: Basis = "Z", rounds: int = 3, **options: object) -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis=basis, rounds=rounds, p=0.001, **options)  # type: ignore[arg-type]


def check(placed: Placement, experiment: MemoryExperiment, circuit: stim.Circuit) -> None:
    """Each mechanism is one of the experiment's where it stands, and flips the same observables."""
    like, model = placed.like, as_experiment(circuit).fault_model
    assert (like.code, like.basis, like.rounds) == (experiment.code, experiment.basis, experiment.rounds)
    assert set(placed.framed(model).symptoms()) <= set(like.fault_model.symptoms())
    assert sorted(placed.detector) == list(range(model.num_detectors))


@pytest.mark.parametrize("basis", ["Z", "X"])
@pytest.mark.parametrize(
    "options",
    [{}, {"rounds": 2}, {"detectors": "XZ"}, {"noiseless_last_cycle": True}, {"noise": "si1000"}],
    ids=lambda options: ",".join(options) or "plain",
)
def test_our_experiment_under_other_names(basis: Basis, options: dict[str, object]) -> None:
    experiment = made(basis, **options)  # type: ignore[arg-type]
    circuit = renamed(experiment.circuit, seed=4).circuit
    placed = placement_of(as_experiment(circuit))
    check(placed, experiment, circuit)
    assert not placed.is_ours


def test_a_model_alone_and_a_single_round() -> None:
    experiment = made("X")
    circuit = renamed(experiment.circuit, seed=5).circuit
    check(placement_of(as_experiment(circuit.detector_error_model())), experiment, circuit)
    single = made(rounds=1)
    with pytest.raises(NotPlacedError, match="in a single round"):
        placement_of(as_experiment(renamed(single.circuit, seed=6).circuit))
    timed = stim.Circuit(re.sub(r"DETECTOR\((\d+), (\d+), (\d+), \d\)", r"DETECTOR(7, \2, \3)", str(single.circuit)))
    check(placement_of(as_experiment(timed)), single, timed)


def test_our_own_circuit_stands_as_it_is() -> None:
    for experiment in (made(), made("X", detectors="XZ"), made(rounds=1), made(noiseless_last_cycle=True)):
        assert placement_of(experiment).is_ours
        placed = placement_of(as_experiment(experiment.circuit))
        assert placed.is_ours
        np.testing.assert_array_equal(placed.grid.coordinates, experiment.grid.coordinates)


def test_a_code_that_is_not_published_can_be_named() -> None:
    code = parse_code("6,6,x^3+y+y^2,y^3+x^2+x")  # that of bb72, measured in another order
    experiment = MemoryExperiment(code, "Z", 2, made().noise)
    circuit = renamed(experiment.circuit, seed=7).circuit
    with pytest.raises(NotPlacedError, match="do not occur in the syndrome cycle"):
        placement_of(as_experiment(circuit))
    check(placement_of(as_experiment(circuit), code=code), experiment, circuit)


@pytest.mark.parametrize("name", ["bb90", "bb108", "bb120", "bb196", "bb288"])
def test_other_codes_under_other_names(name: str) -> None:
    experiment = MemoryExperiment(parse_code(name), "X", 2, made().noise)
    circuit = renamed(experiment.circuit, seed=8).circuit
    check(placement_of(as_experiment(circuit)), experiment, circuit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "\nerror(0.01) D0 D1 D2 D3", "1 of its .* error mechanisms, such as that of D0 D1 D2 D3"),
        (
            lambda text: re.sub(r"(?m)^.*L11.*$", "", text),
            "11 observables, but bb72 has 12 logical qubits",
        ),
        (lambda text: text.replace(" L11", " L10"), "not made of the logical|not 12 independent|11 observables"),
        (lambda text: text.replace("L0", "L_").replace("L1 ", "L0 ").replace("L_", "L1"), "not made of the logical"),
    ],
)
def test_what_is_none_of_ours(change: Callable[[str], str], message: str) -> None:
    dem = str(made(rounds=2).dem)
    with pytest.raises(NotPlacedError, match=message):
        placement_of(as_experiment(stim.DetectorErrorModel(change(dem))))


@pytest.mark.parametrize("name", ["surface_code:rotated_memory_x", "color_code:memory_xyz", "repetition_code:memory"])
def test_other_codes_have_no_place(name: str) -> None:
    circuit = stim.Circuit.generated(name, distance=3, rounds=3, after_clifford_depolarization=0.01)
    with pytest.raises(NotPlacedError):
        placement_of(as_experiment(circuit))


@pytest.mark.parametrize(
    ("file", "like"),
    [
        ("foreign/tesseract_si1000_bb72_x_r6_p0.003", "bb72 X memory, 6 rounds, uniform p=0.001, XYZ"),
        ("foreign/tesseract_nlr5wb_bb72_z_r6_p0.003", "bb72 Z memory, 6 rounds, uniform p=0.001, XYZ"),
        ("foreign/tesseract_si1000_bb144_z_r12_p0.003", "bb144 Z memory, 12 rounds, uniform p=0.001, XYZ"),
        ("bb72_memory_x_r6_p0.001", "bb72 X memory, 6 rounds, uniform p=0.001, XZ"),
        ("bb72_memory_z_r6_p0.003_both_bases", "bb72 Z memory, 6 rounds, uniform p=0.001, XYZ"),
    ],
)
def test_circuits_of_other_projects(vectors: Path, file: str, like: str) -> None:
    """Those of Tesseract have CZ and H gates and SI1000 noise, but a cycle in which the same faults happen."""
    assert str(placement_of(as_experiment(stim.Circuit.from_file(vectors / f"{file}.stim"))).like) == like
