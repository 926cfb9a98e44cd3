"""Circuits and models of others, with every classical decoder, in Python and for sinter."""

import re
from pathlib import Path

import numpy as np
import pytest
import sinter
import stim

from decoder.catalog import DECODERS
from decoder.classical.explained import FixedParities
from decoder.classical.serial import SerialDecoder
from decoder.making import make_decoder
from decoder.sinter import decoders
from simulation.bases import Basis, Detectors
from simulation.circuits import MemoryExperiment
from simulation.experiments import as_experiment
from simulation.faults import FaultModel, errors_of_dem
from simulation.shots.sampling import sample
from tests.simulation.renaming import renamed

CLASSICAL = [name for name, spec in DECODERS.items() if spec.settings is not None]
QUICK = ["bposd", "serial"]
NOISE = {
    "after_clifford_depolarization": 0.003,
    "before_measure_flip_probability": 0.003,
    "after_reset_flip_probability": 0.003,
}
GENERATED = {
    name: stim.Circuit.generated(name, distance=3, rounds=3, **NOISE)
    for name in ("surface_code:rotated_memory_x", "color_code:memory_xyz", "repetition_code:memory")
}


def failures(decoder: str, circuit: stim.Circuit, *, shots: int, seed: int = 5) -> int:
    samples = sample(circuit, shots=shots, seed=seed)
    predictions = make_decoder(decoder, circuit).decode_batch(samples.unpacked_detection_events())
    return int((predictions != samples.unpacked_observable_flips()).any(axis=1).sum())


@pytest.mark.parametrize("name", CLASSICAL)
def test_no_decoder_drops_what_a_mark_for_post_selection_marks(name: str) -> None:
    dem = stim.DetectorErrorModel("""
        error(0.1) D0
        error(0.1) D1 L0
        detector(0, 0, 0, 1) D0
        detector(0, 0, 1, 0) D1
    """)
    shots = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.bool_)
    answers = make_decoder(name, dem).decode_batch(shots)
    assert answers.tolist() == [[False], [True], [False], [True]]
    compiled = decoders()[name].compile_decoder_for_dem(dem=dem)
    packed = compiled.decode_shots_bit_packed(
        bit_packed_detection_event_data=np.packbits(shots, axis=1, bitorder="little")
    )
    assert packed.tolist() == [[0], [1], [0], [1]]


@pytest.mark.parametrize(
    ("name", "circuit", "most"),
    [
        *((name, circuit, 2) for name in CLASSICAL for circuit in GENERATED if not circuit.startswith("color")),
        *((name, "color_code:memory_xyz", 12) for name in QUICK),
    ],
)
def test_single_errors_are_decoded(name: str, circuit: str, most: int) -> None:
    """Codes of distance 3 correct one error, but in this colour code's circuit some single errors look alike."""
    model = as_experiment(GENERATED[circuit]).fault_model
    events = model.check_matrix.toarray().T.astype(np.bool_)
    flips = model.observable_matrix.toarray().T.astype(np.bool_)
    assert np.count_nonzero(flips) > 1.8 * most
    wrong = make_decoder(name, GENERATED[circuit]).decode_batch(events) != flips
    assert np.count_nonzero(wrong) <= most


@pytest.mark.parametrize("name", QUICK)
def test_models_are_decoded_as_their_circuits_are(name: str) -> None:
    """Nothing tells the types in so small a model, so all detectors are one type then, and a few answers change."""
    circuit = GENERATED["surface_code:rotated_memory_x"]
    shots = sample(circuit, shots=500, seed=6).unpacked_detection_events()
    by_circuit, by_model = make_decoder(name, circuit), make_decoder(name, circuit.detector_error_model())
    assert by_circuit.num_detectors == by_model.num_detectors == 24
    answers = by_circuit.decode_batch(shots)
    assert answers.any()
    assert np.count_nonzero(answers != by_model.decode_batch(shots)) <= 20


@pytest.mark.parametrize(("basis", "detectors"), [("Z", "XYZ"), ("X", "XYZ"), ("Z", "XZ"), ("X", "XZ")])
def test_our_circuit_under_other_names(basis: Basis, detectors: Detectors) -> None:
    """It fails in the same shots, to the last one, and in the same way."""
    ours = MemoryExperiment.create(code="bb72", basis=basis, rounds=2, p=0.008, detectors=detectors)
    other = renamed(ours.circuit, seed=1)
    samples = sample(ours.circuit, shots=250, seed=9)
    events, flips = samples.unpacked_detection_events(), samples.unpacked_observable_flips()
    for name in ("serial", "neural", "tandem") if detectors == "XYZ" else ("serial", "serial-1"):
        wrong = make_decoder(name, ours).predict(events) ^ flips
        there = make_decoder(name, other.circuit).decode_batch(events[:, other.order]) ^ other.flips(flips)
        np.testing.assert_array_equal(there, other.flips(wrong))
        assert wrong.any()


def test_errors_and_confidence_of_our_circuit_under_other_names() -> None:
    ours = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.005)
    other = renamed(ours.circuit, seed=2)
    events = sample(ours.circuit, shots=100, seed=3).unpacked_detection_events()
    here, there = make_decoder("serial", ours), make_decoder("serial", other.circuit)
    assert isinstance(here, SerialDecoder)
    assert isinstance(there, SerialDecoder)
    soft, other_soft = here.decode_soft(events), there.decode_soft(events[:, other.order])
    np.testing.assert_array_equal(soft.confidence, other_soft.confidence)
    here_found, found = here.decode_to_errors(events), there.decode_to_errors(events[:, other.order])
    np.testing.assert_array_equal(found.converged, here_found.converged)
    np.testing.assert_array_equal(found.predictions, other_soft.predictions)
    symptoms, _ = errors_of_dem(other.circuit.detector_error_model())
    explained = found.errors.astype(np.int64) @ symptoms.T % 2 == 1
    wanted = np.concatenate([events[:, other.order], other_soft.predictions], axis=1)
    assert np.count_nonzero(found.converged) > 90
    np.testing.assert_array_equal(explained[found.converged], wanted[found.converged])


def test_noise_that_differs_from_qubit_to_qubit_under_other_names() -> None:
    """Its priors say where the torus begins."""
    ours = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.006)
    text, random = str(ours.circuit.flattened()), np.random.default_rng(1)
    text = re.sub(r"\(0\.006\)", lambda _: f"({random.uniform(0.002, 0.012):.6f})", text)
    circuit = stim.Circuit(text)
    other = renamed(circuit, seed=3)
    samples = sample(circuit, shots=200, seed=4)
    events, flips = samples.unpacked_detection_events(), samples.unpacked_observable_flips()
    wrong = make_decoder("serial", circuit).predict(events) ^ flips
    there = make_decoder("serial", other.circuit).decode_batch(events[:, other.order]) ^ other.flips(flips)
    np.testing.assert_array_equal(there, other.flips(wrong))
    assert wrong.any()


def test_shots_that_no_error_explains() -> None:
    model = FaultModel.from_dem(stim.DetectorErrorModel("error(0.1) D0 D1\nerror(1) D2\nerror(0.2) D1 D0 L0"))
    fixed = FixedParities.of(model)
    for parities in (fixed, FixedParities.of_lists(fixed.lists(), detectors=3)):
        parities.require_explained(np.array([[0, 0, 1], [1, 1, 1]], dtype=np.bool_))
        wrong = np.array([[0, 0, 1], [1, 0, 1], [0, 0, 0]], dtype=np.bool_)
        with pytest.raises(ValueError, match="of 2 of 3 shots, the first of which is shot 1"):
            parities.require_explained(wrong)
    free = FixedParities.of(FaultModel.from_dem(stim.DetectorErrorModel("error(0.1) D0")))
    FixedParities.of_lists(free.lists(), detectors=1).require_explained(np.ones((1, 1), np.bool_))
    nothing = FixedParities.of(FaultModel.from_dem(stim.DetectorErrorModel("detector D0")))
    with pytest.raises(ValueError, match="of 1 of 1 shots"):
        nothing.require_explained(np.ones((1, 1), np.bool_))


def test_circuits_that_no_decoder_takes() -> None:
    for circuit, message in (
        (stim.Circuit("R 0"), "no detectors"),
        (stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]"), "random even without noise"),
    ):
        with pytest.raises(ValueError, match=message):
            make_decoder("bposd", circuit)
    with pytest.raises(ValueError, match=r"the network does not apply to circuit: .*; decode with serial"):
        make_decoder("neural", GENERATED["repetition_code:memory"])


def test_the_network_takes_our_circuit_as_a_circuit() -> None:
    ours = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.004)
    shots = sample(ours.circuit, shots=50, seed=2).unpacked_detection_events()
    expected = make_decoder("neural", ours).decode_batch(shots)
    np.testing.assert_array_equal(make_decoder("neural", ours.circuit).decode_batch(shots), expected)


FOREIGN = {
    "relay_bb18_choi_xz_r3_p0.003": 20,
    "relay_rotated_surface_d3_x_p0.003": 1000,
    "tesseract_superdense_colour_d3_z_p0.003": 1000,
    "tesseract_nlr5wb_bb72_z_r6_p0.003": 3,
    "tesseract_si1000_bb72_x_r6_p0.003": 20,
    "tesseract_si1000_bb144_z_r12_p0.003": 8,
    "relay_bb144_z_r12_p0.003": 10,
}
"""Shots of each that are decoded soon."""


@pytest.mark.parametrize("file", FOREIGN)
def test_circuits_of_other_projects_are_decoded(vectors: Path, file: str) -> None:
    """Everything but the very noisy `nlr5wb` is mostly right; answering that nothing flips is wrong in most shots.

    Measured: the most failures of either decoder are 6 in 200 (choi), 10 and 49 in 1,000, 2 in 20, and none.
    """
    circuit = stim.Circuit.from_file(vectors / "foreign" / f"{file}.stim")
    samples = sample(circuit, shots=FOREIGN[file], seed=5)
    shots, flips = samples.unpacked_detection_events(), samples.unpacked_observable_flips()
    experiment = as_experiment(circuit)
    FixedParities.of(experiment.fault_model).require_explained(shots)
    for name in QUICK:
        predictions = make_decoder(name, experiment).decode_batch(shots)
        assert predictions.shape == flips.shape
        failed = int((predictions != flips).any(axis=1).sum())
        assert failed <= (3 if "nlr5wb" in file else max(4, 0.09 * FOREIGN[file]))


def test_sinter_collects_circuits_of_other_projects(vectors: Path) -> None:
    files = ["relay_rotated_surface_d3_x_p0.003", "tesseract_superdense_colour_d3_z_p0.003"]
    tasks = [
        sinter.Task(circuit=stim.Circuit.from_file(vectors / "foreign" / f"{name}.stim"), json_metadata=name)
        for name in files
    ]
    found = sinter.collect(num_workers=1, tasks=tasks, decoders=QUICK, custom_decoders=decoders(), max_shots=500)
    assert len(found) == len(QUICK) * len(files)
    for stats in found:
        assert stats.shots == 500
        assert stats.errors <= 60


@pytest.mark.parametrize("name", ["repetition_code:memory", "surface_code:rotated_memory_z", "color_code:memory_xyz"])
def test_on_small_graphs_serial_leaves_no_shot_unsolved(name: str) -> None:
    """Without ordered statistics it finds nothing for 1 % of the shots of the repetition code, and fails twice as often
    as BP-OSD. Of these 2,000 it fails on 10, 4 and 23, and BP-OSD on 11, 3 and 23."""
    rate = 0.015 if name.startswith("repetition") else 0.003
    distance = 3 if name.startswith("color") else 5
    circuit = stim.Circuit.generated(
        name, distance=distance, rounds=distance, **dict.fromkeys(NOISE, rate), before_round_data_depolarization=rate
    )
    samples = sample(circuit, shots=2000, seed=4117)
    events, flips = samples.unpacked_detection_events(), samples.unpacked_observable_flips()
    serial = make_decoder("serial", circuit)
    assert isinstance(serial, SerialDecoder)
    assert serial.propagate(events).found.all()
    wrong = [(make_decoder(one, circuit).predict(events) != flips).any(axis=1).sum() for one in ("serial", "bposd")]
    assert wrong[0] <= wrong[1] + 6
