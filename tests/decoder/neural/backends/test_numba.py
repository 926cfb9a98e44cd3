"""The compiled network computes what torch does, and the same bits in every company."""

from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.base import Decoding
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.events import as_tensor, as_tensors
from decoder.neural.backends.numba import NOTHING, NumbaBackend, compilable
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.model import RecurrentTransformer
from decoder.neural.weights import build_network
from simulation.bases import Basis
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from tests.decoder.neural.networks import random_weights


def decoder_and_shots(
    code: str, basis: Basis, rounds: int, *, shots: int, p: float = 0.004, weights: Path | None = None
) -> tuple[NeuralDecoder, Bits]:
    made = MemoryExperiment.create(code=code, basis=basis, rounds=rounds, p=p)
    return NeuralDecoder.load(made, weights=weights), made.circuit.compile_detector_sampler(seed=rounds).sample(shots)


def assert_scores_agree(decoder: NeuralDecoder, shots: Bits) -> None:
    network, model = decoder.backend, decoder.model
    assert isinstance(network, NumbaBackend)
    assert isinstance(model, RecurrentTransformer)
    with torch.inference_mode():
        if decoder.judged is not None:
            _, case = decoder.judged.disagreeing(shots)
            assert len(case.events) > 5
            logits = network.log_odds(case.events, case.beliefs)
            expected = model(*as_tensors(case.events, case.beliefs, decoder.device), basis=decoder.basis).numpy()
        else:
            events = decoder.placement.dense(shots)
            logits = network.log_odds(events, NOTHING)
            given = as_tensor(events, decoder.device)
            expected = model(given, basis=decoder.basis).numpy()
            votes = model.coset_vote.scores(torch.from_numpy(logits), given).numpy()
            scores = network.scores(logits, np.logical_xor.reduce(events[:, 0], axis=1))
            np.testing.assert_allclose(scores, votes, atol=1e-5 * np.abs(votes).max())
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("code", "rounds", "shots"), [("bb72", 1, 150), ("bb72", 6, 60), ("bb90", 2, 300)])
@pytest.mark.parametrize("basis", ["Z", "X"])
def test_log_odds_are_those_of_torch(code: str, basis: Basis, rounds: int, shots: int, tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "weights.safetensors", ModelConfig(width=16))
    p = 0.007 if code == "bb72" else 0.012
    assert_scores_agree(*decoder_and_shots(code, basis, rounds, shots=shots, p=p, weights=weights))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(width=12, heads=2, mlp_ratio=1.5, qubit_ratio=0.5, round_blocks=2, judges=False),
        ModelConfig(width=8, heads=2, mlp_ratio=0.7, qubit_ratio=0.9, round_blocks=0, judges=False),
        ModelConfig(width=8, heads=2, readout_mixing="conv", outputs="basis", judges=False),
    ],
)
def test_other_shapes_of_network(config: ModelConfig, tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "weights.safetensors", config)
    decoder, shots = decoder_and_shots("bb72", "X", 3, shots=20, weights=weights)
    assert_scores_agree(decoder, shots)


def test_predictions_of_a_network_that_decodes_alone_are_those_of_torch(tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "weights.safetensors", ModelConfig(width=16, judges=False))
    decoder, shots = decoder_and_shots("bb72", "Z", 6, shots=300, p=0.002, weights=weights)
    eager = EagerBackend(
        decoder.model, basis=decoder.basis, calibration=decoder.info.calibration, device=decoder.device
    )
    compiled, reference = decoder.decode_soft(shots), eager.decode(decoder.placement.dense(shots))
    np.testing.assert_array_equal(compiled.predictions, reference.predictions)
    np.testing.assert_allclose(compiled.confidence, reference.confidence, atol=1e-4)
    np.testing.assert_allclose(compiled.flip_probabilities, reference.flip_probabilities, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("basis", ["Z", "X"])
def test_answers_are_the_same_bits_alone_and_in_company(basis: Basis, threads: int, tmp_path: Path) -> None:
    """Of a network that decodes alone; those of judges are in test_judge.py."""
    weights = random_weights(tmp_path / "weights.safetensors", ModelConfig(width=16, judges=False))
    decoder, shots = decoder_and_shots("bb72", basis, 6, shots=50, weights=weights)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = decoder.decode_soft(shots)
        alone = [decoder.decode_soft(shot[None]) for shot in shots]
    finally:
        torch.set_num_threads(before)
    for field in Decoding.__dataclass_fields__:
        one_by_one = np.concatenate([getattr(decoding, field) for decoding in alone])
        np.testing.assert_array_equal(one_by_one, getattr(together, field))


def test_what_only_torch_computes_is_left_to_it() -> None:
    convolution = ModelConfig(width=8, heads=2, judges=False)
    assert compilable(build_network(convolution))
    assert not compilable(build_network(convolution).double())
    for config in (
        ModelConfig(width=8, heads=2, readout_mixing="both", judges=False),
        ModelConfig(width=8, heads=2, round_mixing="attention", judges=False),
        ModelConfig(width=6, heads=1, judges=False),
        ModelConfig(width=8, heads=2, architecture="blue", judges=False),
    ):
        assert not compilable(build_network(config))
