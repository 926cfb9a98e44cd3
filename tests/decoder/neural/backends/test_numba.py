"""The compiled network computes what torch does, and the same bits in every company."""

from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.base import Decoding
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.events import as_tensor
from decoder.neural.backends.numba import NumbaBackend, compilable
from decoder.neural.beliefs import BeliefPropagation
from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.model import RecurrentTransformer
from decoder.neural.weights import build_network, save_weights
from simulation.bases import Basis
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment


def decoder_and_shots(
    code: str, basis: Basis, rounds: int, *, shots: int, p: float = 0.004, weights: Path | None = None
) -> tuple[NeuralDecoder, Bits]:
    made = MemoryExperiment.create(code=code, basis=basis, rounds=rounds, p=p)
    return NeuralDecoder.load(made, weights=weights), made.circuit.compile_detector_sampler(seed=rounds).sample(shots)


def random_network(path: Path, config: ModelConfig) -> Path:
    torch.manual_seed(1)
    model = build_network(config)
    with torch.no_grad():
        for parameter in model.parameters():  # ones and zeros at first, which would hide mistakes
            parameter += 0.1 * torch.randn_like(parameter)
    save_weights(path, model, bases="ZX", rounds=(2,), calibration=Calibration(2.0, 0.5), provenance={})
    return path


def assert_scores_agree(decoder: NeuralDecoder, shots: Bits) -> None:
    network, model = decoder.backend, decoder.model
    assert isinstance(network, NumbaBackend)
    assert isinstance(model, RecurrentTransformer)
    events = decoder.placement.dense(shots)
    logits, parity = network.log_odds(events, network.propagate(events))
    with torch.inference_mode():
        given = as_tensor(events, decoder.device)
        expected = model(given, basis=decoder.basis).numpy()
        votes = model.vote.scores(torch.from_numpy(logits), given).numpy()
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(network.scores(logits, parity), votes, atol=1e-5 * np.abs(votes).max())


@pytest.mark.parametrize(("code", "rounds"), [("bb72", 1), ("bb72", 2), ("bb72", 6), ("bb144", 3)])
@pytest.mark.parametrize("basis", ["Z", "X"])
def test_log_odds_and_votes_are_those_of_torch(code: str, basis: Basis, rounds: int) -> None:
    assert_scores_agree(*decoder_and_shots(code, basis, rounds, shots=40))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(width=12, heads=2, mlp_ratio=1.5, qubit_ratio=0.5, round_blocks=2, bp_iterations=0),
        ModelConfig(width=8, heads=2, mlp_ratio=0.7, qubit_ratio=0.9, round_blocks=0, bp_iterations=0),
        ModelConfig(width=8, heads=2, readout_mixing="conv", outputs="basis", bp_iterations=40),
    ],
)
def test_other_shapes_of_network(config: ModelConfig, tmp_path: Path) -> None:
    weights = random_network(tmp_path / "weights.safetensors", config)
    decoder, shots = decoder_and_shots("bb72", "X", 3, shots=20, weights=weights)
    assert_scores_agree(decoder, shots)


def test_predictions_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, shots = decoder_and_shots("bb72", "Z", 6, shots=2000, p=0.002)
    decoder.max_batch = len(shots)
    propagation = decoder.model.propagation
    assert isinstance(propagation, BeliefPropagation)
    events = decoder.placement.dense(shots)
    result = propagation.propagate(events, basis=decoder.basis)  # once for both, to save time
    monkeypatch.setattr(propagation, "propagate", lambda *_, **__: result)
    eager = EagerBackend(
        decoder.model, basis=decoder.basis, calibration=decoder.info.calibration, device=decoder.device
    )
    compiled, reference = decoder.decode_soft(shots), eager.decode(events)
    np.testing.assert_array_equal(compiled.predictions, reference.predictions)
    np.testing.assert_allclose(compiled.confidence, reference.confidence, atol=1e-4)
    np.testing.assert_allclose(compiled.flip_probabilities, reference.flip_probabilities, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("basis", ["Z", "X"])
def test_answers_are_the_same_bits_alone_and_in_company(basis: Basis, threads: int) -> None:
    decoder, shots = decoder_and_shots("bb72", basis, 6, shots=50)
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
    convolution = ModelConfig(width=8, heads=2, bp_iterations=0)
    assert compilable(build_network(convolution))
    assert not compilable(build_network(convolution).double())
    for config in (
        ModelConfig(width=8, heads=2, readout_mixing="both", bp_iterations=0),
        ModelConfig(width=8, heads=2, round_mixing="attention", bp_iterations=0),
        ModelConfig(width=6, heads=1, bp_iterations=0),
        ModelConfig(width=8, heads=2, architecture="blue", bp_iterations=0),
    ):
        assert not compilable(build_network(config))
