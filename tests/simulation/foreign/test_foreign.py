"""Circuits and models of others: read from files, or refused with one clear error."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import stim

from simulation.experiments import as_experiment
from simulation.foreign.experiment import MOST_BYTES, ForeignExperiment
from simulation.shots.sampling import sample

SURFACE = stim.Circuit.generated(
    "surface_code:rotated_memory_z",
    distance=3,
    rounds=4,
    after_clifford_depolarization=0.002,
    before_measure_flip_probability=0.01,
)


def test_a_circuit_from_a_file(tmp_path: Path) -> None:
    SURFACE.to_file(tmp_path / "d=3,r=4.stim")
    experiment = ForeignExperiment.read(tmp_path / "d=3,r=4.stim", kind="circuit")
    assert str(experiment) == "d=3,r=4"
    assert experiment.circuit == SURFACE
    assert experiment.dem == SURFACE.detector_error_model()
    assert (experiment.num_detectors, experiment.num_observables) == (32, 1)
    assert experiment.columns == {
        "code": "d=3,r=4",
        "rounds": 4,
        "basis": "-",
        "p": 0.002,
        "noise": "circuit's own",
    }
    assert experiment.noise_rates == {"DEPOLARIZE1": (0.002,), "DEPOLARIZE2": (0.002,), "X_ERROR": (0.01,)}
    assert experiment.check_types.found == "two check types, by the circuit's detecting regions"
    again = pickle.loads(pickle.dumps(experiment))
    assert again == experiment == as_experiment(SURFACE)
    assert hash(again) == hash(experiment)


def test_a_model_from_a_file(tmp_path: Path) -> None:
    SURFACE.detector_error_model().to_file(tmp_path / "surface.dem")
    experiment = ForeignExperiment.read(tmp_path / "surface.dem", kind="dem")
    assert experiment.circuit is None
    assert experiment.rounds is None
    assert experiment.p is None
    assert list(experiment.noise_rates) == ["error"]
    assert experiment.fault_model.num_mechanisms == as_experiment(SURFACE).fault_model.num_mechanisms


def test_shots_of_a_model_are_like_those_of_its_circuit() -> None:
    """Each detector's rate, of 20,000 shots, within six standard deviations."""
    shots = 20_000
    drawn = [sample(source, shots=shots, seed=3) for source in (SURFACE, SURFACE.detector_error_model())]
    rates = [samples.unpacked_detection_events().mean(axis=0) for samples in drawn]
    assert (np.abs(rates[0] - rates[1]) <= 6 * (2 * rates[0] / shots) ** 0.5).all()
    flips = [int(samples.unpacked_observable_flips().sum()) for samples in drawn]
    assert abs(flips[0] - flips[1]) <= 6 * (2 * flips[0]) ** 0.5
    part = sample(SURFACE.detector_error_model(), shots=10, seed=3, first=2000)
    np.testing.assert_array_equal(part.detection_events, drawn[1].detection_events[2000:2010])


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("circuit", b"hello", "f is not a stim circuit: Gate not found: 'hello'"),
        ("circuit", b"error(0.1) D0 L0", r"f is not a stim circuit.*\(a detector error model is given with --dem\)"),
        ("dem", b"R 0\nM 0", r"f is not a detector error model.*\(a stim circuit is given with --circuit\)"),
        ("dem", b"error(1.5) D0", "f is not a detector error model: 'error' instruction argument must be a probab"),
        ("circuit", b"\xff\xfe\x00", "f is not a stim circuit: it is not text"),
        ("circuit", b"", "f has no detectors, so there is nothing to decode"),
        ("circuit", b"R 0\nX_ERROR(0.1) 0\nM 0", "f has no detectors"),
        ("dem", b"", "f has no detectors"),
        ("circuit", b"H 0\nM 0\nDETECTOR rec[-1]", r"f has detectors or observables that are random .*\(D0\)"),
        ("circuit", b"R 0\nM 0\nDETECTOR rec[-1]\nH 0\nM 0\nOBSERVABLE_INCLUDE(0) rec[-1]", r"random .*\(L0\)"),
        ("circuit", b"R 0\nREPEAT 9223372036854775808 {\nM 0\nDETECTOR rec[-1]\n}", "f is not a stim circuit"),
        ("circuit", b"R 0\nREPEAT 1000000000000000000 {\nM 0\nDETECTOR rec[-1]\n}", "f is too large"),
        ("circuit", b"R 0\nM 0\nDETECTOR rec[-1]\nREPEAT 1000000000000000000 {\nH 0\n}", "f is too large"),
        ("dem", b"REPEAT 9223372036854775808 {\nerror(0.1) D0\nshift_detectors 1\n}", "f is not a detector"),
        ("dem", b"REPEAT 1000000000000000000 {\nerror(0.1) D0\n}", "f is too large"),
        ("dem", b"error(0.1) D4000000000", "f is too large"),
    ],
)
def test_what_cannot_be_decoded_is_refused(tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        ForeignExperiment.read(tmp_path / "f", kind=kind)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(200 * 2**20)  # takes no room on most disks
    with pytest.raises(ValueError, match=f"f is longer than {MOST_BYTES >> 20} MiB"):
        ForeignExperiment.read(tmp_path / "f", kind="circuit")


def test_values_are_checked_as_files_are() -> None:
    with pytest.raises(ValueError, match="circuit has no detectors"):
        as_experiment(stim.Circuit("R 0"))
    with pytest.raises(ValueError, match="dem is too large"):
        as_experiment(stim.DetectorErrorModel("REPEAT 1000000000000 {\nerror(0.1) D0\n}"))


def test_disjoint_errors_are_taken_as_independent_ones() -> None:
    circuit = stim.Circuit("R 0\nPAULI_CHANNEL_1(0.1, 0.2, 0.05) 0\nM 0\nDETECTOR rec[-1]")
    [prior] = as_experiment(circuit).fault_model.priors
    assert prior == pytest.approx(0.1 + 0.2)  # X or Y, never both
