from pathlib import Path

import numpy as np
import pytest
import stim

from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.model import RecurrentTransformer
from decoder.neural.weights import save_weights
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment


def experiment(basis: Basis = "Z", rounds: int = 6, p: float = 0.002, **options: object) -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis=basis, rounds=rounds, p=p, **options)  # type: ignore[arg-type]


def failures(made: MemoryExperiment, decoder: NeuralDecoder, shots: int, seed: int) -> int:
    detections, flips = made.circuit.compile_detector_sampler(seed=seed).sample(shots, separate_observables=True)
    return int((decoder.decode_batch(detections) != flips).any(axis=1).sum())


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_shipped_weights_fail_in_at_most_a_tenth_of_a_percent(basis: Basis) -> None:
    """Expected at most 0.1 %, so 4 of 4,000; more than 17 have a probability below 1e-6. BP-OSD fails in 0.29 %."""
    made = experiment(basis)
    assert failures(made, NeuralDecoder.load(made), 4000, seed=20261123) <= 17


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_shipped_weights_of_bb144_hardly_fail(basis: Basis) -> None:
    """Expected at most 0.01 % at p = 0.2 %, so more than 3 of 600 have a probability below 1e-6."""
    made = MemoryExperiment.create(code="bb144", basis=basis, rounds=12, p=0.002)
    assert failures(made, NeuralDecoder.load(made), 600, seed=20261123) <= 3


def test_forms_of_shots_and_predictions_agree() -> None:
    made = experiment()
    decoder = NeuralDecoder.load(made)
    detections, _ = made.circuit.compile_detector_sampler(seed=5).sample(70, separate_observables=True)
    packed = np.packbits(detections, axis=1, bitorder="little")
    plain = decoder.decode_batch(detections)
    assert plain.shape == (70, 12)
    assert plain.dtype == bool
    both = decoder.decode_batch(packed, bit_packed_shots=True, bit_packed_predictions=True)
    np.testing.assert_array_equal(both, np.packbits(plain, axis=1, bitorder="little"))
    assert decoder.decode_batch(detections[:0]).shape == (0, 12)


def test_batches_do_not_change_answers() -> None:
    made = experiment(p=0.004)
    decoder = NeuralDecoder.load(made)
    detections, _ = made.circuit.compile_detector_sampler(seed=6).sample(50, separate_observables=True)
    whole = decoder.decode_soft(detections)
    decoder.max_batch = 7
    parts = decoder.decode_soft(detections)
    np.testing.assert_array_equal(whole.predictions, parts.predictions)
    np.testing.assert_array_equal(whole.confidence, parts.confidence)


def test_confidence_is_the_posterior_of_the_prediction() -> None:
    made = experiment(p=0.003)
    decoding = NeuralDecoder.load(made).decode_soft(
        made.circuit.compile_detector_sampler(seed=7).sample(2000, separate_observables=True)[0]
    )
    assert ((decoding.confidence > 0) & (decoding.confidence <= 1 + 1e-6)).all()
    # A coset that is more likely than not decides each of its observables.
    sure = decoding.confidence > 0.5
    np.testing.assert_array_equal(decoding.flip_probabilities[sure] > 0.5, decoding.predictions[sure])


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_recognises_the_dem_of_its_experiment(basis: Basis) -> None:
    made = experiment(basis, rounds=3, p=0.004)
    decoder = NeuralDecoder.for_dem(stim.DetectorErrorModel(str(made.dem)))
    detections, _ = made.circuit.compile_detector_sampler(seed=8).sample(100, separate_observables=True)
    np.testing.assert_array_equal(decoder.decode_batch(detections), NeuralDecoder.load(made).decode_batch(detections))


def test_other_noise_on_the_same_circuit_is_recognised() -> None:
    made = experiment(rounds=2, p=0.001, noise="si1000")
    assert NeuralDecoder.for_dem(made.dem).num_detectors == made.num_detectors


def test_foreign_dems_are_refused() -> None:
    surface = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=2)
    with pytest.raises(ValueError, match="do not join"):
        NeuralDecoder.for_dem(surface.detector_error_model())
    made = experiment(rounds=2)
    swapped = str(made.dem).replace("L0", "L_").replace("L1 ", "L0 ").replace("L_", "L1")
    with pytest.raises(ValueError, match="not made of the logical operators"):
        NeuralDecoder.for_dem(stim.DetectorErrorModel(swapped))
    fewer = "\n".join(line for line in str(made.dem).splitlines() if "L11" not in line)
    with pytest.raises(ValueError, match="11 observables"):
        NeuralDecoder.for_dem(stim.DetectorErrorModel(fewer))


def test_weights_and_experiment_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    save_weights(
        path,
        RecurrentTransformer(ModelConfig(width=8, heads=2, judges=False)),
        bases="Z",
        rounds=(2,),
        calibration=Calibration(),
        provenance={},
    )
    assert NeuralDecoder.load(experiment(rounds=2), weights=path).info.bases == "Z"
    with pytest.raises(ValueError, match="not for X memory"):
        NeuralDecoder.load(experiment("X", rounds=2), weights=path)
    with pytest.raises(ValueError, match="was trained for bb72, not for bb144"):
        NeuralDecoder.load(MemoryExperiment.create(code="bb144", basis="Z", rounds=2, p=0.001), weights=path)
    same_torus = MemoryExperiment.create(code="6,6,x^3+y+y^2,y^3+x^2+x", basis="Z", rounds=2, p=0.001)
    with pytest.raises(ValueError, match="was trained for bb72"):
        NeuralDecoder.load(same_torus, weights=path)


def test_wrong_shots() -> None:
    made = experiment(rounds=2)
    decoder = NeuralDecoder.load(made)
    with pytest.raises(ValueError, match=str(made.num_detectors)):
        decoder.decode_batch(np.zeros((3, made.num_detectors + 1), dtype=bool))
    with pytest.raises(ValueError, match="0"):
        decoder.decode_batch(np.full((3, made.num_detectors), 2, dtype=np.uint8))
