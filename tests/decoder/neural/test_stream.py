import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.base import Decoding, StreamingDecoder
from decoder.making import make_decoder
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.numba import NumbaBackend
from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.stream import LayerStream
from decoder.neural.weights import build_network, save_weights
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment

SMALL = {
    "folding": ModelConfig(width=16, heads=2, readout_mixing="both", judges=False),  # by torch
    "compiled": ModelConfig(width=16, heads=2, judges=False),
    "blue": ModelConfig(architecture="blue", width=16, heads=2, judges=False),
}


def experiment(basis: Basis = "Z", rounds: int = 4, p: float = 0.01) -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis=basis, rounds=rounds, p=p)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """The shipped network, which judges what belief propagation finds, and small random ones that decode alone."""
    paths: dict[str, Path | None] = {"shipped": None}
    for seed, (name, config) in enumerate(SMALL.items()):
        torch.manual_seed(seed)
        model = build_network(config)
        with torch.no_grad():
            for parameter in model.parameters():  # zeros at first, which would hide what they are multiplied with
                parameter += 0.1 * torch.randn_like(parameter)
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_weights(path, model, bases="ZX", rounds=(4,), calibration=Calibration(2.0, 0.5), provenance={})
        paths[name] = path
    return paths


def events_of(made: MemoryExperiment, shots: int, seed: int = 3) -> np.ndarray:
    return made.circuit.compile_detector_sampler(seed=seed).sample(shots)


def streamed(decoder: StreamingDecoder, events: np.ndarray) -> Decoding:
    stream = decoder.stream(shots=len(events))
    for detectors in decoder.layers:
        stream.fold(events[:, detectors])
    return stream.finish()


def assert_equal(one: Decoding, other: Decoding) -> None:
    np.testing.assert_array_equal(one.predictions, other.predictions)
    np.testing.assert_array_equal(one.confidence, other.confidence)
    np.testing.assert_array_equal(one.flip_probabilities, other.flip_probabilities)


@pytest.mark.parametrize("basis", ["Z", "X"])
@pytest.mark.parametrize("name", ["shipped", "folding", "compiled", "blue"])
def test_streams_answer_as_batches_do_to_the_last_bit(name: str, basis: Basis, weights: dict[str, Path | None]) -> None:
    made = experiment(basis)
    decoder = NeuralDecoder.load(made, weights=weights[name])
    assert isinstance(decoder, StreamingDecoder)
    for shots in (1, 2, 33):
        events = events_of(made, shots)
        whole = decoder.decode_soft(events)
        if name != "shipped":
            assert len(np.unique(whole.confidence)) == shots  # different shots have different answers
        assert_equal(streamed(decoder, events), whole)


@pytest.mark.parametrize("name", ["folding", "compiled", "shipped"])
def test_layers_are_folded_on_arrival_without_belief_propagation(
    name: str, weights: dict[str, Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment()
    decoder = NeuralDecoder.load(made, weights=weights[name])
    stream = decoder.stream()
    assert isinstance(stream, LayerStream)
    assert stream.folds == (name != "shipped")
    assert type(decoder.backend) is (EagerBackend if name == "folding" else NumbaBackend)
    steps: list[int] = []
    if stream.folds:
        step = decoder.backend.step
        monkeypatch.setattr(decoder.backend, "step", lambda *a, **k: steps.append(stream.folded) or step(*a, **k))
        monkeypatch.setattr(decoder.backend, "decode", None)  # all is done but the readout
    for detectors in decoder.layers:
        stream.fold(events_of(made, 1)[:, detectors])
    stream.finish()
    assert steps == ([] if name == "shipped" else [0, 1, 2, 3, 4])


@pytest.mark.parametrize("name", ["folding", "compiled"])
def test_streams_side_by_side_do_not_mix(name: str, weights: dict[str, Path | None]) -> None:
    made = experiment()
    decoder = NeuralDecoder.load(made, weights=weights[name])
    first, second = events_of(made, 2)[:, None]
    streams = decoder.stream(), decoder.stream()
    for detectors in decoder.layers:
        streams[0].fold(first[:, detectors])
        streams[1].fold(second[:, detectors])
    assert_equal(streams[0].finish(), decoder.decode_soft(first))
    assert_equal(streams[1].finish(), decoder.decode_soft(second))


@pytest.mark.parametrize("name", ["shipped", "blue"])
def test_networks_that_need_all_layers_do_not_fold(name: str, weights: dict[str, Path | None]) -> None:
    decoder = NeuralDecoder.load(experiment(), weights=weights[name])
    assert not decoder.model.folds_on_arrival
    with pytest.raises(ValueError, match="needs all layers of an experiment before it can begin"):
        decoder.backend.start(1)


def test_detectors_may_come_in_any_order(weights: dict[str, Path | None]) -> None:
    made = experiment(rounds=2)
    grid = made.grid
    mixed = np.random.default_rng(0).permutation(made.num_detectors)
    shuffled = type(grid)(grid.coordinates[mixed])
    path = weights["folding"]
    assert path is not None
    events = events_of(made, 7)
    decoder = NeuralDecoder(shuffled, weights=path)
    assert not np.array_equal(decoder.layers[0], grid.layers[0])
    assert_equal(streamed(decoder, events[:, mixed]), NeuralDecoder(grid, weights=path).decode_soft(events))


def test_one_round_has_two_layers(weights: dict[str, Path | None]) -> None:
    made = experiment(rounds=1)
    decoder = NeuralDecoder.load(made, weights=weights["folding"])
    assert [len(layer) for layer in decoder.layers] == [36, 36]
    assert_equal(streamed(decoder, events_of(made, 5)), decoder.decode_soft(events_of(made, 5)))


@pytest.mark.parametrize("name", ["shipped", "folding"])
def test_misuse_is_refused(name: str, weights: dict[str, Path | None]) -> None:
    decoder = NeuralDecoder.load(experiment(), weights=weights[name])
    assert [len(layer) for layer in decoder.layers] == [36, 72, 72, 72, 36]
    for shots in (0, 1025):
        with pytest.raises(ValueError, match=f"shots={shots} must hold 1 to 1024"):
            decoder.stream(shots=shots)
    stream = decoder.stream(shots=3)
    with pytest.raises(ValueError, match=r"layer 0 of 5 must have shape \(3, 36\).*not \(1, 36\)"):
        stream.fold(np.zeros((1, 36), bool))
    with pytest.raises(ValueError, match=r"not \(3, 72\)"):
        stream.fold(np.zeros((3, 72), bool))
    with pytest.raises(ValueError, match="bools, not uint8"):
        stream.fold(np.zeros((3, 36), np.uint8))
    with pytest.raises(ValueError, match="bools, not list"):
        stream.fold([[False] * 36] * 3)  # type: ignore[arg-type]
    for layer in itertools.islice(decoder.layers, 4):
        with pytest.raises(ValueError, match="of the 5 layers"):
            stream.finish()
        stream.fold(np.zeros((3, len(layer)), bool))
    with pytest.raises(ValueError, match="only 4 of the 5 layers"):
        stream.finish()
    stream.fold(np.zeros((3, 36), bool))
    with pytest.raises(ValueError, match="all 5 layers of this experiment have been folded"):
        stream.fold(np.zeros((3, 36), bool))
    assert_equal(stream.finish(), decoder.decode_soft(np.zeros((3, 288), bool)))


def test_classical_decoders_do_not_stream() -> None:
    assert not isinstance(make_decoder("bposd", experiment(rounds=1)), StreamingDecoder)
