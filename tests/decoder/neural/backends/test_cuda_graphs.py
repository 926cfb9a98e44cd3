"""Graphs compute what their functions do. Where there is no GPU, a call that is repeated stands for a graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from decoder.devices import usable_device
from decoder.making import make_decoder
from decoder.neural.backends.cuda_graphs import MOST_GRAPHS, Captured, CudaGraphs, CudaGraphsBackend
from decoder.neural.backends.events import as_tensors
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.model import RecurrentTransformer
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from tests.decoder.neural.networks import JUDGE, random_weights

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
STREAMED = ModelConfig(width=8, heads=2, judges=False)
"""A network that decodes alone, whose layers are folded on arrival."""


def repeat(run: Callable[[], Tensor], device: torch.device, pool: Any) -> Captured:
    """What a capture gives, without a GPU: the output has one place, and a replay fills it anew."""
    output = run()
    return Captured(output, lambda: output.copy_(run()))


def experiment(*, rounds: int = 6) -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=rounds, p=0.003)


def decoder_of(weights: Path | None = None, *, device: str = "cpu", **options: Any) -> NeuralDecoder:
    return NeuralDecoder.load(experiment(), weights=weights, device=device, **options)


def decoder_by_repeated_calls(weights: Path | None) -> NeuralDecoder:
    decoder = decoder_of(weights)
    assert isinstance(decoder.model, RecurrentTransformer)
    decoder.backend = CudaGraphsBackend(
        decoder.model,
        basis=decoder.basis,
        calibration=decoder.info.calibration,
        device=decoder.device,
        capture=repeat,
    )
    if decoder.judged is not None:
        decoder.judged.backend = decoder.backend
    return decoder


def weights_of(path: Path, *, judges: bool) -> Path:
    return random_weights(path / "weights.safetensors", JUDGE if judges else STREAMED, seed=3)


def shots_of(count: int) -> Bits:
    return experiment().circuit.compile_detector_sampler(seed=9).sample(count)


def test_shots_are_filled_up_to_powers_of_two_and_answers_kept() -> None:
    sizes = []

    def rows_times(a: Tensor, b: Tensor) -> Tensor:
        sizes.append(len(a))
        return (a * b.t()).cumsum(1)

    graphs = CudaGraphs(rows_times, shots_axes=[0, 1], output_axis=0, capture=repeat)
    answers, expected = [], []
    for shots in (3, 4, 1, 2, 3):
        a, b = torch.rand(shots, 5), torch.rand(5, shots)
        answers.append(graphs(a, b))
        expected.append((a * b.t()).cumsum(1))
    for answer, right in zip(answers, expected, strict=True):
        assert torch.equal(answer, right)
    assert len(graphs) == 3
    assert set(sizes) == {1, 2, 4}
    assert graphs(torch.rand(3, 7), torch.rand(7, 3)).shape == (3, 7)
    assert len(graphs) == 4


def test_graphs_used_last_are_kept() -> None:
    graphs = CudaGraphs(lambda a: 2 * a, shots_axes=[0], output_axis=0, capture=repeat)
    for width in range(1, MOST_GRAPHS + 3):
        assert torch.equal(graphs(torch.ones(1, width)), torch.full((1, width), 2.0))
    assert len(graphs) == MOST_GRAPHS
    assert torch.equal(graphs(torch.ones(1, 1)), torch.full((1, 1), 2.0))


@pytest.mark.parametrize("judges", [True, False])
def test_a_graphed_network_answers_as_torch_does(judges: bool, tmp_path: Path) -> None:
    weights = weights_of(tmp_path, judges=judges)
    decoder = decoder_by_repeated_calls(weights)
    expected = decoder_of(weights, backend="eager").decode_soft(shots_of(21))
    assert expected.predictions.any()
    for first, last in [(0, 1), (1, 4), (4, 21), (0, 21)]:
        decoded = decoder.decode_soft(shots_of(21)[first:last])
        np.testing.assert_array_equal(decoded.predictions, expected.predictions[first:last])
        np.testing.assert_allclose(decoded.confidence, expected.confidence[first:last], atol=1e-4)


def test_streams_fold_by_graphs(tmp_path: Path) -> None:
    weights = weights_of(tmp_path, judges=False)
    decoder, shots = decoder_by_repeated_calls(weights), shots_of(5)
    expected = decoder_of(weights, backend="eager").decode_soft(shots)
    stream = decoder.stream(shots=len(shots))
    for detectors in decoder.layers:
        stream.fold(shots[:, detectors])
    decoded = stream.finish()
    np.testing.assert_array_equal(decoded.predictions, expected.predictions)
    np.testing.assert_allclose(decoded.confidence, expected.confidence, atol=1e-4)


def test_what_is_captured_never_waits_for_a_value(tmp_path: Path) -> None:
    """Fake tensors have shapes and no values, as during a capture: to ask for one is an error."""
    decoder = decoder_of(weights_of(tmp_path, judges=True))
    assert decoder.judged is not None
    _, case = decoder.judged.disagreeing(shots_of(200))
    inputs = as_tensors(case.events, case.beliefs, decoder.device)
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        given = [mode.from_tensor(one) for one in inputs]
        assert decoder.model(*given, basis=0).shape == (len(case.events), 108)
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            given[0].nonzero()


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "meta", ""])
def test_unknown_devices_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown device '{name}': use cpu, cuda, or cuda:N"):
        usable_device(name)


def test_a_gpu_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"no device 'cuda:99': torch sees (no GPU|only \d+ GPUs) here; use cpu"):
        NeuralDecoder.load(experiment(), device="cuda:99")


def test_classical_decoders_refuse_a_gpu() -> None:
    with pytest.raises(ValueError, match="the decoder 'bposd' computes on the CPU alone; leave the device out"):
        make_decoder("bposd", experiment(), device="cuda")


def test_a_backend_that_cannot_compute_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="the backend cuda_graphs cannot compute this network on cpu; leave"):
        decoder_of(backend="cuda_graphs")
    with pytest.raises(ValueError, match="no backend 'jax': take one of eager, numba, cuda_graphs, or leave it out"):
        decoder_of(backend="jax")


@NEEDS_GPU
@pytest.mark.parametrize("judges", [True, False])
def test_on_a_gpu_graphs_answer_as_kernels_do(judges: bool, tmp_path: Path) -> None:
    weights = weights_of(tmp_path, judges=judges)
    decoder, launched = decoder_of(weights, device="cuda"), decoder_of(weights, device="cuda", backend="eager")
    assert isinstance(decoder.backend, CudaGraphsBackend)
    shots = shots_of(300)
    on_cpu = decoder_of(weights).decode_soft(shots)
    for first, last in [(0, 1), (1, 8), (8, 300), (0, 300)]:
        decoded, eager = decoder.decode_soft(shots[first:last]), launched.decode_soft(shots[first:last])
        np.testing.assert_array_equal(decoded.predictions, eager.predictions)
        np.testing.assert_allclose(decoded.confidence, eager.confidence, atol=1e-3)
        assert (decoded.predictions != on_cpu.predictions[first:last]).any(1).sum() <= 2
