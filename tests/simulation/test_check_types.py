"""Two types of checks are found where there are two, and never where a decoder would then drop what it needs."""

from pathlib import Path

import numpy as np
import pytest
import stim

from simulation.check_types import CheckTypes, find_check_types
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel

NOISE = {
    "after_clifford_depolarization": 0.003,
    "before_measure_flip_probability": 0.003,
    "after_reset_flip_probability": 0.003,
}
POST_SELECTED = stim.DetectorErrorModel("""
    error(0.1) D0
    error(0.1) D1 L0
    detector(0, 0, 0, 1) D0
    detector(0, 0, 1, 0) D1
""")


def by_circuit(circuit: stim.Circuit) -> CheckTypes:
    model = FaultModel.from_dem(circuit.detector_error_model())
    return find_check_types(model, circuit=circuit, dem=None)


def by_dem(dem: stim.DetectorErrorModel) -> CheckTypes:
    return find_check_types(FaultModel.from_dem(dem), circuit=None, dem=dem)


def without_coordinates(dem: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
    lines = str(dem.flattened()).splitlines()
    return stim.DetectorErrorModel("\n".join(line for line in lines if line.startswith("error")))


@pytest.mark.parametrize(
    ("code", "basis", "noise"), [("bb72", "Z", "uniform"), ("bb72", "X", "si1000"), ("bb90", "X", "uniform")]
)
def test_all_three_ways_find_the_types_of_our_circuits(code: str, basis: str, noise: str) -> None:
    experiment = MemoryExperiment.create(code=code, basis=basis, rounds=3, p=0.003, noise=noise)  # type: ignore[arg-type]
    known = experiment.check_types
    assert known.two
    for found, way in (
        (by_circuit(experiment.circuit), "the circuit's detecting regions"),
        (by_dem(experiment.dem), "coordinates"),
        (by_dem(without_coordinates(experiment.dem)), "the structure of the error mechanisms"),
    ):
        assert found.found == f"two check types, by {way}"
        np.testing.assert_array_equal(found.memory, known.memory)
        assert found.predicted.all()
        np.testing.assert_array_equal(found.sufficient, experiment.grid.indices_of(experiment.basis))


@pytest.mark.parametrize("detectors", ["XZ", "XYZ"])
def test_one_basis_alone_is_one_type(detectors: str) -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.003, detectors=detectors)  # type: ignore[arg-type]
    for found in (by_circuit(experiment.circuit), by_dem(experiment.dem)):
        assert not found.two
        assert found.sufficient is None


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize("rounds", [2, 5])
def test_surface_codes_have_two_types(basis: str, rounds: int) -> None:
    circuit = stim.Circuit.generated(f"surface_code:rotated_memory_{basis}", distance=5, rounds=rounds, **NOISE)
    found = by_circuit(circuit)
    assert found.found == "two check types, by the circuit's detecting regions"
    # Checks of the memory basis have a detector in the first and the last round too.
    counts = [int(np.count_nonzero(mask)) for mask in (found.memory, ~found.memory)]
    assert counts == [12 * (rounds + 1), 12 * (rounds - 1)]
    first = {d for d, (*_, t) in circuit.get_detector_coordinates().items() if t == 0}
    assert found.memory[sorted(first)].all()


def test_local_frames_do_not_matter() -> None:
    """An XZZX surface code is one with Hadamard gates on half of its data qubits, here between all other layers."""
    plain = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=3, **NOISE)
    turned, even = stim.Circuit(), [q for q, (x, y) in plain.get_final_qubit_coordinates().items() if (x + y) % 4 == 0]
    for instruction in plain.flattened():
        turned.append(instruction)
        if instruction.name == "TICK":
            turned.append("H", even)
            turned.append("TICK")
            turned.append("H", even)
    np.testing.assert_array_equal(by_circuit(turned).memory, by_circuit(plain).memory)
    assert by_circuit(turned).two


def test_a_circuit_without_ticks() -> None:
    circuit = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=3, **NOISE)
    bare = stim.Circuit()
    for instruction in circuit.flattened():
        if instruction.name != "TICK":
            bare.append(instruction)
    np.testing.assert_array_equal(by_circuit(bare).memory, by_circuit(circuit).memory)


def test_where_there_are_not_two_types_all_detectors_count() -> None:
    colour = stim.Circuit.generated("color_code:memory_xyz", distance=3, rounds=3, **NOISE)
    repetition = stim.Circuit.generated("repetition_code:memory", distance=5, rounds=3, **NOISE)
    for circuit, reason in (
        (colour, "all detectors as one type (by the circuit's detecting regions: detectors see all three Paulis"),
        (repetition, "one check type, by the circuit's detecting regions"),
    ):
        found = by_circuit(circuit)
        assert found.found.startswith(reason)
        assert found.memory.all()
        assert found.predicted.all()
        assert found.sufficient is None


def test_a_mark_for_post_selection_is_no_check_type() -> None:
    found = by_dem(POST_SELECTED)
    if found.two:  # L0 needs D1, whatever its fourth coordinate is
        assert found.sufficient is not None
        assert 1 in found.sufficient
    # A repetition code whose second and fourth detectors are marked.
    marked = stim.DetectorErrorModel("""
        error(0.1) D0 L0
        error(0.1) D0 D1
        error(0.1) D1 D2
        error(0.1) D2 D3
        error(0.1) D3
        detector(0, 0, 0, 0) D0
        detector(1, 0, 0, 1) D1
        detector(2, 0, 0, 0) D2
        detector(3, 0, 0, 1) D3
    """)
    assert by_dem(marked).memory.all()


def test_a_type_that_does_not_predict_an_observable_is_not_enough() -> None:
    """L0 is flipped with D0 alone and with D1 alone."""
    dem = stim.DetectorErrorModel("""
        error(0.1) D0 L0
        error(0.1) D1 L0
        error(0.1) D0 D1
        detector(0, 0, 0, 0) D0
        detector(0, 0, 0, 1) D1
    """)
    found = by_dem(dem)
    assert found.memory.all()
    assert "observable L0 needs the detectors of both types" in found.found


def test_each_type_may_have_observables() -> None:
    """Two independent halves: L0 is read from the one, L1 from the other."""
    dem = stim.DetectorErrorModel("""
        error(0.1) D0 L0
        error(0.1) D0
        error(0.1) D1 L1
        error(0.1) D0 D1 L0 L1
        detector(0, 0, 0, 0) D0
        detector(0, 0, 0, 1) D1
    """)
    found = by_dem(dem)
    assert found.memory.tolist() == [True, False]
    assert found.predicted.tolist() == [True, False]
    assert found.sufficient is None


FOREIGN = {
    "relay_bb144_z_r12_p0.003": (936, 12, "the structure of the error mechanisms"),
    "relay_bb18_choi_xz_r3_p0.003": (36, 4, "the structure of the error mechanisms"),
    "tesseract_nlr5wb_bb72_z_r6_p0.003": (252, 12, "coordinates"),
    "tesseract_si1000_bb72_x_r6_p0.003": (252, 12, "coordinates"),
    "tesseract_superdense_colour_d3_z_p0.003": (12, 1, "coordinates"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_circuits_of_other_projects(vectors: Path, name: str) -> None:
    circuit = stim.Circuit.from_file(vectors / "foreign" / f"{name}.stim")
    dem = circuit.detector_error_model(approximate_disjoint_errors=True)
    memory, predicted, way = FOREIGN[name]
    found = [by_circuit(circuit), by_dem(dem)]
    assert found[1].found == f"two check types, by {way}"
    for types in found:
        assert np.count_nonzero(types.memory) == memory
        assert np.count_nonzero(types.predicted) == predicted
    np.testing.assert_array_equal(found[0].memory, found[1].memory)
