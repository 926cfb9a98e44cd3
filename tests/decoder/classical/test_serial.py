import pickle

import numpy as np
import numpy.typing as npt
import pytest
import stim

from decoder.catalog import detectors_used
from decoder.classical.serial import SerialDecoder, SerialSettings
from decoder.making import make_decoder
from decoder.serial.rules import LARGE_RULES, SMALL_RULES, SerialResult
from decoder.sinter import decoders
from simulation.bases import Basis
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code
from simulation.faults import FaultModel
from simulation.noise import NoiseModel


def failures(experiment: MemoryExperiment, name: str, *, shots: int, seed: int) -> int:
    detections, flips = experiment.circuit.compile_detector_sampler(seed=seed).sample(shots, separate_observables=True)
    return int((make_decoder(name, experiment).decode_batch(detections) != flips).any(1).sum())


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_it_fails_less_often_than_bposd_does(basis: Basis) -> None:
    """BP-OSD fails in 1.37 % of such shots (137 of 10,000), this in about 0.3 %."""
    experiment = MemoryExperiment.create(code="bb72", basis=basis, rounds=6, p=0.003)
    # At most 14 of 4,000 are expected, and more than 38 less often than once in ten million times.
    assert failures(experiment, "serial", shots=4000, seed=12) <= 38


def test_large_codes_get_other_rules() -> None:
    small, large = (
        make_decoder("serial", MemoryExperiment.create(code=code, basis="Z", rounds=rounds, p=0.003))
        for code, rounds in (("bb72", 6), ("bb144", 12))
    )
    assert isinstance(small, SerialDecoder)
    assert isinstance(large, SerialDecoder)
    assert (small.rules, large.rules) == (SMALL_RULES, LARGE_RULES)


def test_more_faults_get_more_passes_and_more_of_them_are_easy() -> None:
    decoder = make_decoder("serial", MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.006))
    assert isinstance(decoder, SerialDecoder)
    passes, easy = decoder.rules.passes, decoder.rules.easy
    assert passes > 3 * SMALL_RULES.passes
    assert easy / passes == pytest.approx(SMALL_RULES.easy / SMALL_RULES.passes, rel=0.02)


def test_bb144_is_solved() -> None:
    experiment = MemoryExperiment.create(code="bb144", basis="X", rounds=6, p=0.003)
    assert failures(experiment, "serial-1", shots=400, seed=1) <= 4  # over 12 rounds 1 of 50,000 failed


def test_other_noise_and_other_codes_and_the_memory_basis_alone() -> None:
    code = parse_code("bb90")
    assert failures(MemoryExperiment(code, "X", 4, NoiseModel.si1000(0.001)), "serial", shots=500, seed=3) <= 8
    assert failures(MemoryExperiment(code, "Z", 4, NoiseModel.uniform(0.002)), "serial-1", shots=500, seed=3) <= 12
    narrow = MemoryExperiment(parse_code("bb72"), "Z", 3, NoiseModel.uniform(0.002), detectors="XZ")
    assert failures(narrow, "serial", shots=1000, seed=4) <= 25


def test_packed_pickled_threaded_and_empty_batches() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.004)
    detections, _ = experiment.circuit.compile_detector_sampler(seed=5).sample(200, separate_observables=True)
    decoder = make_decoder("serial", experiment)
    assert isinstance(decoder, SerialDecoder)
    assert detectors_used("serial") == detectors_used("serial-1") == "XYZ"
    predictions = decoder.decode_batch(detections)
    assert predictions.shape == (200, 12)
    assert predictions.any()
    packed = pickle.loads(pickle.dumps(decoder)).decode_batch(
        np.packbits(detections, axis=1, bitorder="little"), bit_packed_shots=True, bit_packed_predictions=True
    )
    np.testing.assert_array_equal(packed, np.packbits(predictions, axis=1, bitorder="little"))
    threaded = make_decoder("serial", experiment)
    assert isinstance(threaded, SerialDecoder)
    threaded.threads = 3
    np.testing.assert_array_equal(threaded.decode_batch(detections), predictions)
    assert decoder.decode_batch(detections[:0]).shape == (0, 12)
    # Columns of a larger array, and one shot after the other.
    apart = [decoder.decode_batch(np.hstack([detections] * 2)[n : n + 1, : detections.shape[1]]) for n in range(20)]
    np.testing.assert_array_equal(np.concatenate(apart), predictions[:20])
    other = SerialDecoder(experiment.fault_model, experiment.check_types.memory, SerialSettings(seed=1))
    assert (other.propagate(detections).passes != decoder.propagate(detections).passes).any()


def test_models_of_one_check_type_and_without_coordinates() -> None:
    """BP-OSD failed in 2 of 8,000 such shots, this in 1."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=5, rounds=5, after_clifford_depolarization=0.002
    )
    compiled = decoders()["serial"].compile_decoder_for_dem(dem=circuit.detector_error_model())
    detections, flips = circuit.compile_detector_sampler(seed=6).sample(
        2000, separate_observables=True, bit_packed=True
    )
    predictions = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=detections)
    assert (predictions != flips).sum() <= 10


def test_what_it_cannot_decode() -> None:
    with pytest.raises(ValueError, match="at most 64 observables"):
        decoders()["serial"].compile_decoder_for_dem(dem=stim.DetectorErrorModel("error(0.1) D0 L64"))
    with pytest.raises(ValueError, match="seed"):
        SerialSettings(seed=-1)


def test_mechanisms_that_are_likelier_than_not() -> None:
    """error(1 - p) is error(p) in shots in which all of its flips are turned over."""
    rare = stim.DetectorErrorModel("error(0.1) D0 L0\nerror(0.2) D0 D1\nerror(0.05) D1 L1\nerror(0.15) D2 L0 L1")
    common = stim.DetectorErrorModel("error(0.1) D0 L0\nerror(0.8) D0 D1\nerror(0.95) D1 L1\nerror(0.15) D2 L0 L1")
    events = (np.arange(8)[:, None] >> np.arange(3)) & 1 == 1
    one, other = (
        SerialDecoder(FaultModel.from_dem(dem), np.ones(3, dtype=np.bool_)).decode_soft(shots)
        for dem, shots in ((rare, events), (common, events ^ [True, False, False]))
    )
    flipped = np.array([False, True])
    np.testing.assert_array_equal(other.predictions, one.predictions ^ flipped)
    np.testing.assert_array_equal(other.confidence, one.confidence)
    np.testing.assert_allclose(other.flip_probabilities, np.abs(one.flip_probabilities - flipped), atol=1e-7)


def test_what_compares_solutions_is_compiled_with_the_first_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not with the first one whose solutions disagree, which may come much later."""
    decoder = make_decoder("serial", MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.002))
    assert isinstance(decoder, SerialDecoder)
    compared: list[int] = []
    real = decoder.compared

    def count(events: Bits, result: SerialResult) -> npt.NDArray[np.float64]:
        compared.append(len(events))
        return real(events, result)

    monkeypatch.setattr(decoder, "compared", count)
    quiet = np.zeros((3, decoder.num_detectors), np.bool_)
    found = [decoder.decode_soft(quiet[:1]), decoder.decode_soft(quiet)]
    assert compared == [1]
    assert not any(one.predictions.any() for one in found)
