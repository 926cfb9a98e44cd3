"""Graphs compute what their functions do. Where there is no GPU, a call that is repeated stands for a graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from decoder.cuda_graphs import Captured, CudaGraphs, capture_cuda_graph
from decoder.devices import usable_device
from decoder.making import make_decoder
from decoder.neural.architectures import build_network
from decoder.neural.backends.cuda_graphs import GraphedNetwork
from decoder.neural.beliefs import BeliefPropagation
from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.fault_lattice import fault_graphs
from decoder.neural.model import RecurrentTransformer
from decoder.neural.weights import save_weights
from decoder.relay.gpu import TorchRelay
from decoder.relay.graph import FaultGraphs, Floats
from decoder.relay.kernels import relay
from decoder.relay.rules import Answers, Rules, strengths
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
STREAMED = ModelConfig(width=8, heads=2, bp_iterations=0)
"""A network without belief propagation, whose layers are folded on arrival."""


def repeat(run: Callable[[], Any], device: torch.device, pool: Any) -> Captured:
    """What a capture gives, without a GPU: the output has one place, and a replay fills it anew."""
    output = run()
    return Captured(output, run if output is None else lambda: output.copy_(run()))


def experiment(*, rounds: int = 6) -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=rounds, p=0.003)


def decoder_of(weights: Path | None = None, *, device: str = "cpu") -> NeuralDecoder:
    return NeuralDecoder.load(experiment(), weights=weights, device=device)


def streamed_weights(path: Path) -> Path:
    torch.manual_seed(3)
    model = build_network(STREAMED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    save_weights(path, model, bases="ZX", rounds=(6,), calibration=Calibration(2.0, 0.5), provenance={})
    return path


def network_of(decoder: NeuralDecoder) -> RecurrentTransformer:
    assert isinstance(decoder.model, RecurrentTransformer)
    return decoder.model


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


@pytest.mark.parametrize("propagating", [True, False])
def test_a_graphed_network_answers_as_torch_does(propagating: bool, tmp_path: Path) -> None:
    decoder = decoder_of(None if propagating else streamed_weights(tmp_path / "weights.safetensors"))
    expected = decoder.decode_with_torch(shots_of(21))
    decoder.compiled = None
    decoder.graphed = GraphedNetwork(network_of(decoder), basis=decoder.basis, capture=repeat)
    assert expected.predictions.any()
    for first, last in [(0, 1), (1, 4), (4, 21), (0, 21)]:
        decoded = decoder.decode_soft(shots_of(21)[first:last])
        np.testing.assert_array_equal(decoded.predictions, expected.predictions[first:last])
        np.testing.assert_allclose(decoded.confidence, expected.confidence[first:last], atol=1e-4)


def test_streams_fold_by_graphs(tmp_path: Path) -> None:
    decoder = decoder_of(streamed_weights(tmp_path / "weights.safetensors"))
    shots = shots_of(5)
    expected = decoder.decode_with_torch(shots)
    decoder.compiled = None
    decoder.graphed = GraphedNetwork(network_of(decoder), basis=decoder.basis, capture=repeat)
    stream = decoder.stream(shots=len(shots))
    for detectors in decoder.layers:
        stream.fold(shots[:, detectors])
    decoded = stream.finish()
    np.testing.assert_array_equal(decoded.predictions, expected.predictions)
    np.testing.assert_allclose(decoded.confidence, expected.confidence, atol=1e-4)


def test_what_is_captured_never_waits_for_a_value() -> None:
    """Fake tensors have shapes and no values, as during a capture: to ask for one is an error."""
    decoder = decoder_of()
    network = network_of(decoder)
    assert network.propagation is not None
    graphed = GraphedNetwork(network, basis=decoder.basis, capture=repeat)
    with torch.inference_mode():
        events = decoder.arrange(shots_of(3))
        inputs = events, *network.propagation(events, basis=decoder.basis)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            assert graphed._compute(*(mode.from_tensor(given) for given in inputs)).shape == (3, 2**12)
            with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
                mode.from_tensor(events).nonzero()


def relays() -> tuple[FaultGraphs, tuple[Floats, Floats], Rules]:
    """Legs end early, so that all kinds of them occur before rounding errors have grown."""
    graphs = fault_graphs(decoder_of().model.geometry, "Z", 7)
    drawn = strengths(graphs.memory, seed=0), strengths(graphs.other, seed=1)
    return graphs, drawn, Rules(looks=7, solutions=3, first_leg=2, relay_leg=2, easy=0)


def events_of(count: int) -> Bits:
    events = decoder_of().events(shots_of(count))
    return np.ascontiguousarray(events).reshape(count, 2, -1)


def assert_same_relay(found: dict[str, Tensor], expected: Answers, *, but: int) -> None:
    """The same but for a few shots, in which rounding decided."""
    same = np.ones(len(expected.found), bool)
    for name, value in expected._asdict().items():
        close = np.isclose(found[name].cpu().numpy(), value, rtol=0.01, atol=0.05)
        same &= close.reshape(len(same), -1).all(1)
    assert (~same).sum() <= but


def test_belief_propagation_replays_its_looks() -> None:
    graphs, drawn, rules = relays()
    relay_module = TorchRelay(graphs, drawn, rules, capture=repeat)
    events = events_of(90)
    for part in (slice(0, 90), slice(3, 4), slice(0, 5), slice(10, 90)):
        found = relay_module(torch.from_numpy(events[part]).float())
        assert_same_relay(found, relay(events[part], graphs, drawn, rules), but=2)
    assert relay_module(torch.from_numpy(events[:0]).float())["found"].shape == (0,)


def test_captured_looks_never_wait_for_a_value() -> None:
    graphs, drawn, rules = relays()
    relay_module = TorchRelay(graphs, drawn, rules)
    room = relay_module._room(relay_module._start(torch.from_numpy(events_of(3)).float())).live
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = room.each(lambda tensor, axis: mode.from_tensor(tensor))
        relay_module._advance(fake)
        assert fake.answers["flips"].shape[:2] == (4, 3)


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


@NEEDS_GPU
@pytest.mark.parametrize("propagating", [True, False])
def test_on_a_gpu_graphs_answer_as_kernels_do(propagating: bool, tmp_path: Path) -> None:
    weights = None if propagating else streamed_weights(tmp_path / "weights.safetensors")
    decoder, launched, reference = (decoder_of(weights, device=device) for device in ("cuda", "cuda", "cpu"))
    if propagating:
        assert isinstance(launched.model.propagation, BeliefPropagation)
        launched.model.propagation.capture = None
    shots = shots_of(300)
    on_cpu = reference.decode_soft(shots)
    for first, last in [(0, 1), (1, 8), (8, 300), (0, 300)]:
        decoded, eager = decoder.decode_soft(shots[first:last]), launched.decode_with_torch(shots[first:last])
        np.testing.assert_array_equal(decoded.predictions, eager.predictions)
        np.testing.assert_allclose(decoded.confidence, eager.confidence, atol=1e-3)
        assert (decoded.predictions != on_cpu.predictions[first:last]).any(1).sum() <= 2


@NEEDS_GPU
def test_on_a_gpu_belief_propagation_finds_what_it_finds_on_a_cpu() -> None:
    graphs, drawn, rules = relays()
    captured, launched = (
        TorchRelay(graphs, drawn, rules, capture=way).to("cuda") for way in (capture_cuda_graph, None)
    )
    events = events_of(300)
    for part in (slice(0, 300), slice(3, 4), slice(0, 5)):
        found = captured(torch.from_numpy(events[part]).float().to("cuda"))
        same = launched(torch.from_numpy(events[part]).float().to("cuda"))
        assert_same_relay(found, Answers(**{name: value.cpu().numpy() for name, value in same.items()}), but=0)
        # Sums are in another order there, and legs that end early multiply what that does: seen in 14 of 300 shots.
        assert_same_relay(found, relay(events[part], graphs, drawn, rules), but=30)
