import pickle

import numpy as np
import pytest
import stim

from decoder.catalog import detectors_used
from decoder.classical.split_relay import SPLIT_RELAY, SplitRelayDecoder
from decoder.making import make_decoder
from decoder.sinter import decoders
from simulation.bases import Basis
from simulation.check_types import CheckTypes
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code
from simulation.faults import FaultModel
from simulation.noise import NoiseModel


def failures(experiment: MemoryExperiment, *, shots: int, seed: int) -> int:
    decoder = SplitRelayDecoder(experiment.fault_model, experiment.check_types)
    detections, flips = experiment.circuit.compile_detector_sampler(seed=seed).sample(shots, separate_observables=True)
    return int((decoder.decode_batch(detections) != flips).any(1).sum())


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_it_fails_less_often_than_bposd_does(basis: Basis) -> None:
    """BP-OSD fails in 1.37 % of such shots (137 of 10,000), this in about 0.4 % (65 of 16,384)."""
    experiment = MemoryExperiment.create(code="bb72", basis=basis, rounds=6, p=0.003)
    # 16 of 4,000 are expected, and more than 42 less often than once in ten million times.
    assert failures(experiment, shots=4000, seed=12) <= 42


def test_other_noise_and_other_codes() -> None:
    code = parse_code("bb90")
    # Measured once: 0 and 2 of 500.
    assert failures(MemoryExperiment(code, "X", 4, NoiseModel.si1000(0.001)), shots=500, seed=3) <= 8
    assert failures(MemoryExperiment(code, "Z", 4, NoiseModel.uniform(0.002)), shots=500, seed=3) <= 12


def test_the_memory_basis_alone() -> None:
    noise = NoiseModel.uniform(0.002)
    experiment = MemoryExperiment(parse_code("bb72"), "Z", 3, noise, detectors="XZ")
    assert failures(experiment, shots=1000, seed=4) <= 25


def test_packed_pickled_threaded_and_empty_batches() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.004)
    detections, _ = experiment.circuit.compile_detector_sampler(seed=5).sample(200, separate_observables=True)
    decoder = make_decoder("relay-split", experiment)
    assert isinstance(decoder, SplitRelayDecoder)
    assert decoder.rules == SPLIT_RELAY
    assert detectors_used("relay-split") == "XYZ"
    predictions = decoder.decode_batch(detections)
    assert predictions.shape == (200, decoder.num_observables) == (200, 12)
    assert predictions.any()
    packed = pickle.loads(pickle.dumps(decoder)).decode_batch(
        np.packbits(detections, axis=1, bitorder="little"), bit_packed_shots=True, bit_packed_predictions=True
    )
    np.testing.assert_array_equal(packed, np.packbits(predictions, axis=1, bitorder="little"))
    threaded = SplitRelayDecoder(experiment.fault_model, experiment.check_types, threads=3)
    np.testing.assert_array_equal(threaded.decode_batch(detections), predictions)
    assert decoder.decode_batch(detections[:0]).shape == (0, 12)
    with pytest.raises(ValueError, match="detectors"):
        decoder.decode_batch(detections[:, :-1])


def test_sinter_finds_it() -> None:
    decoder = decoders()["relay-split"]
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.003)
    compiled = decoder.compile_decoder_for_dem(dem=experiment.dem)
    detections, flips = experiment.circuit.compile_detector_sampler(seed=6).sample(
        300, separate_observables=True, bit_packed=True
    )
    predictions = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=detections)
    assert (predictions != flips).any(1).sum() <= 6


def test_models_without_two_types_are_one_graph() -> None:
    model = FaultModel.from_dem(stim.DetectorErrorModel("error(0.1) D0 L0\nerror(0.2) D0 D1\nerror(0.1) D1 D2 L1"))
    decoder = SplitRelayDecoder(model, CheckTypes.one(model, "small"))
    shots = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=np.bool_)
    assert decoder.decode_batch(shots).tolist() == [[0, 0], [1, 0], [0, 0], [0, 1], [0, 1]]


def test_mechanisms_that_are_likely_or_certain() -> None:
    """One that always happens, and one that seldom does not."""
    model = FaultModel.from_dem(stim.DetectorErrorModel("error(1) D0 L0\nerror(0.9) D1 L1\nerror(0.1) D2 L1"))
    decoder = SplitRelayDecoder(model, CheckTypes.one(model, "small"))
    shots = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=np.bool_)
    assert decoder.decode_batch(shots).tolist() == [[1, 1], [1, 0], [1, 0]]
