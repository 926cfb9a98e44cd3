"""Times the network by several engines, side by side on one thread, and counts what they decode wrongly.

    taskset -c 1 python benchmarks/engines.py --out docs/results/engines/results.md

The code is bb72, Z memory, 6 rounds, p = 0.3 %. Engines take turns on the same shots, in another order each time.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import harness
from decoder.base import Decoding
from decoder.neural import onnx_export
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.events import as_tensor
from decoder.neural.backends.numba import NumbaBackend
from decoder.neural.beliefs import Beliefs
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.model import GroupConv, RecurrentTransformer
from decoder.relay.rules import RelayResult
from decoder.statistics import binomial_interval
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment

BASIS = 0
ADMISSIBLE = 1.05
"""Failures of an engine that rounds, over those of torch's float32."""
EAGER, COMPILED = "torch float32, eager", "tandem's kernel (numba), float32"
PARTS = onnx_export.STEP, onnx_export.READOUT


@dataclass(frozen=True, eq=False)
class Given:
    """Some shots, with belief propagation's results in the forms that the engines take."""

    bits: Bits
    events: Tensor
    beliefs: Beliefs
    believed: RelayResult


Network = Callable[[Given], Tensor]
"""Log-odds (B, O)."""
Whole = Callable[[Bits], Decoding]
"""All of decode_soft."""


@dataclass(eq=False)
class Engine:
    """One way to compute the network, and what was measured of it."""

    network: Network
    whole: Whole
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of `network` and of `whole`, by shots a call."""
    failures: int = 0
    differing: int = 0
    """Predictions that are not those of torch's float32."""
    largest_difference: float = 0.0
    """Of log-odds, from those of torch's float32."""

    def p50_and_p99(self, what: str) -> str:
        """Milliseconds of single shots."""
        return " / ".join(f"{value:.2f}" for value in harness.milliseconds(self.seconds[what, 1], 0.5, 0.99))


class Setting:
    """The decoder, the shots and the engines."""

    def __init__(self, *, shots: int, batch: int, seed: int) -> None:
        self.batch = batch
        made = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
        self.decoder = NeuralDecoder.load(made)
        self.eager = NeuralDecoder.load(made, backend="eager")
        model = self.eager.model
        assert isinstance(model, RecurrentTransformer)
        assert model.propagation is not None
        self.model, self.propagation = model, model.propagation
        sampler = made.circuit.compile_detector_sampler(seed=seed)
        self.shots, self.flips = sampler.sample(shots, separate_observables=True)
        self.own: dict[str, Whole] = {EAGER: self.eager.decode_soft, COMPILED: self.decoder.decode_soft}
        self.engines: dict[str, Engine] = {}
        self.missing: dict[str, str] = {}

    def given(self, shots: Bits) -> Given:
        """What the engines get of shots, bool (B, detectors)."""
        bits, device = self.decoder.placement.dense(shots), self.decoder.device
        believed = self.propagation.propagate(bits, basis=BASIS)
        beliefs = self.propagation.tensors(believed, device=device)
        return Given(bits, as_tensor(bits, device), beliefs, believed)

    def add(self, name: str, build: Build, folder: Path) -> None:
        """Builds an engine and tries it, alone and in a batch; one that cannot be built becomes a row that says why."""
        began = time.perf_counter()
        try:
            network = build(self, folder)
            for count in (1, self.batch):
                network(self.given(self.shots[:count]))
        except Exception as error:
            self.missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            print(f"{name}: {self.missing[name]}", flush=True)
            return
        self.engines[name] = Engine(network, self.own.get(name) or self.whole_of(network))
        print(f"{name}: built in {time.perf_counter() - began:.1f} s", flush=True)

    def whole_of(self, network: Network) -> Whole:
        """Decoding with belief propagation by numba, and the rest by torch."""
        backend = self.eager.backend
        assert isinstance(backend, EagerBackend)

        def whole(shots: Bits) -> Decoding:
            given = self.given(shots)
            return backend.decoding(self.model.vote.scores(network(given).float(), given.events))

        return whole

    def by_parts(self, step: onnx_export.Run, readout: onnx_export.Run) -> Network:
        """The network from another implementation of its round step and its readout."""
        return lambda given: onnx_export.log_odds(self.model, step, readout, given.events, given.beliefs, basis=BASIS)


Build = Callable[[Setting, Path], Network]
"""Makes an engine; files may go into the folder, where later engines find them."""


def eager(setting: Setting, folder: Path) -> Network:
    return lambda given: setting.model.log_odds(given.events, given.beliefs, basis=BASIS)


def kernel(setting: Setting, folder: Path) -> Network:
    backend = setting.decoder.backend
    assert isinstance(backend, NumbaBackend)
    return lambda given: torch.from_numpy(backend.log_odds(given.bits, given.believed)[0])


def bfloat16(setting: Setting, folder: Path) -> Network:
    narrow = copy.deepcopy(setting.model).bfloat16()
    for module in narrow.modules():
        if isinstance(module, GroupConv):  # the spectrum was computed in float32
            p, q = module.spectrum()
            module._frozen = p.bfloat16(), q.bfloat16()

    def network(given: Given) -> Tensor:
        beliefs = Beliefs(given.beliefs.features.bfloat16(), given.beliefs.evidence.bfloat16())
        return narrow.log_odds(given.events.bfloat16(), beliefs, basis=BASIS).float()

    return network


def onnx(setting: Setting, folder: Path) -> Network:
    onnx_export.export(setting.decoder, folder, force=True)
    return setting.by_parts(*(onnx_export.session(folder / name) for name in PARTS))


def int8(setting: Setting, folder: Path) -> Network:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in PARTS:
        quantize_dynamic(folder / name, folder / f"int8-{name}", weight_type=QuantType.QInt8)
    return setting.by_parts(*(onnx_export.session(folder / f"int8-{name}") for name in PARTS))


def inductor(setting: Setting, folder: Path) -> Network:
    # One compilation for shots alone and one for batches, as the shapes are constants then.
    step = torch.compile(onnx_export.RoundStep(setting.model), dynamic=False)
    readout = torch.compile(setting.model.readout, dynamic=False)
    return setting.by_parts(lambda inputs: step(**_with_constants(inputs)), lambda inputs: readout(**inputs))


def aot_inductor(setting: Setting, folder: Path) -> Network:
    programs = {}

    def compiled(name: str, part: nn.Module, inputs: dict[str, Any]) -> Any:
        exported = torch.export.export(part, (), inputs)
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(folder / f"{name}.pt2"))
        return torch._inductor.aoti_load_package(path)

    step, readout = onnx_export.RoundStep(setting.model), Named(setting.model.readout)
    for shots in (1, setting.batch):
        for phase in range(3):  # a program for each, as for each number of shots: all of it is constant then
            inputs: dict[str, Any] = onnx_export.examples(onnx_export.step_inputs(setting.model), shots=shots)
            inputs |= {"basis": BASIS, "phase": phase}
            programs["step", shots, phase] = compiled(f"step-{shots}-{phase}", step, inputs)
        inputs = onnx_export.examples(onnx_export.readout_inputs(setting.model), shots=shots)
        programs["readout", shots, 0] = compiled(f"readout-{shots}", readout, inputs)

    def run_step(inputs: dict[str, Tensor]) -> Tensor:
        given = _with_constants({name: value.contiguous() for name, value in inputs.items()})
        result: Tensor = programs["step", inputs["hidden"].shape[1], given["phase"]](**given)
        return result

    def run_readout(inputs: dict[str, Tensor]) -> Tensor:
        given = {name: value.contiguous() for name, value in inputs.items()}
        result: Tensor = programs["readout", inputs["h"].shape[1], 0](**given)
        return result

    return setting.by_parts(run_step, run_readout)


class Named(nn.Module):
    """The readout as a part, since AOTInductor names a C++ variable by its parameter `operator` otherwise."""

    def __init__(self, readout: nn.Module) -> None:
        super().__init__()
        self.readout = readout

    def forward(self, h: Tensor, evidence: Tensor) -> Tensor:
        result: Tensor = self.readout(h, evidence)
        return result


def _with_constants(inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The inputs of a step, basis and phase as numbers that a compiler sees."""
    return {**inputs, **{name: int(inputs[name]) for name in ("basis", "phase")}}


ENGINES: dict[str, Build] = {
    EAGER: eager,
    COMPILED: kernel,
    "torch bfloat16, eager": bfloat16,
    "ONNX Runtime, float32": onnx,
    "ONNX Runtime, int8 (dynamic)": int8,
    "torch.compile (inductor), float32": inductor,
    "AOTInductor, float32": aot_inductor,
}


def measure(setting: Setting, *, singles: int, batches: int) -> None:
    """All times, engines in turns."""
    random = np.random.default_rng(0)
    engines = list(setting.engines.values())
    groups = [setting.shots[i : i + 1] for i in range(singles)]
    groups += [setting.shots[i * setting.batch : (i + 1) * setting.batch] for i in range(batches)]
    for shots in groups:
        given = setting.given(shots)
        for index in random.permutation(len(engines)):
            engine = engines[index]
            began = time.perf_counter()
            engine.network(given)
            between = time.perf_counter()
            engine.whole(shots)
            ended = time.perf_counter()
            engine.seconds["network", len(shots)].append(between - began)
            engine.seconds["whole", len(shots)].append(ended - between)


def count(setting: Setting) -> int:
    """Failures of all engines on the same shots, in batches; returns how many shots."""
    counted = len(setting.shots) // setting.batch * setting.batch
    for first in range(0, counted, setting.batch):
        given = setting.given(setting.shots[first : first + setting.batch])
        truth = torch.from_numpy(setting.flips[first : first + setting.batch])
        reference: tuple[Tensor, Tensor] | None = None
        for engine in setting.engines.values():  # torch's float32 is the first
            logits = engine.network(given).float()
            cosets = setting.model.vote.scores(logits, given.events).argmax(1)
            if reference is None:
                reference = logits, cosets
            engine.largest_difference = max(engine.largest_difference, float((logits - reference[0]).abs().max()))
            engine.differing += int((cosets != reference[1]).sum())
            engine.failures += int((setting.model.cosets[cosets].bool() != truth).any(1).sum())
    return counted


def table(setting: Setting, *, counted: int) -> str:
    """A row for each engine, whose failures are of `counted` shots."""
    reference, batch = setting.engines[EAGER], setting.batch
    rows: list[list[str]] = []
    for name, engine in setting.engines.items():
        row = [name]
        for what in ("network", "whole"):
            ratio = np.median(engine.seconds[what, 1]) / np.median(reference.seconds[what, 1])
            row += [engine.p50_and_p99(what), f"{ratio:.2f}"]
        row += [f"{batch / np.median(engine.seconds[what, batch]):,.0f}" for what in ("network", "whole")]
        low, high = binomial_interval(engine.failures, counted)
        row += [
            f"{engine.failures}/{counted} ({low * 100:.2f}-{high * 100:.2f} %)",
            f"{engine.differing}, {engine.largest_difference:.2g}",
            "yes" if engine.failures <= ADMISSIBLE * reference.failures else "no",
        ]
        rows.append(row)
    rows += [[name, f"not built: {why}", *[""] * 8] for name, why in setting.missing.items()]
    head = [
        "engine",
        "network alone, one shot: p50 / p99 ms",
        "p50 to eager's",
        "decode_soft, one shot: p50 / p99 ms",
        "p50 to eager's",
        f"network alone, batches of {batch}: shots/s",
        "decode_soft: shots/s",
        "failures (95 % interval)",
        "predictions unlike float32's, largest difference of log-odds",
        f"at most {ADMISSIBLE} times float32's",
    ]
    return harness.markdown_table([head, *rows])


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=20_000, help="shots whose failures are counted")
    parser.add_argument("--singles", type=int, default=1_000, help="shots timed alone")
    parser.add_argument("--batches", type=int, default=20, help="batches timed")
    parser.add_argument("--batch", type=int, default=256, help="shots in each, at least 2")
    parser.add_argument("--first", type=int, help="only so many engines, of which the first two take no time to build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if min(given.singles, given.batches, given.batch - 1) < 1 or given.first == 0:
        parser.error("--singles, --batches and --first must be at least 1, and --batch 2")
    if given.shots < max(given.singles, given.batches * given.batch):
        parser.error("--shots must cover --singles and --batches")
    return given


def main() -> int:
    given = options()
    torch.set_num_threads(1)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        setting = Setting(shots=given.shots, batch=given.batch, seed=given.seed)
        for name, build in list(ENGINES.items())[: given.first]:
            setting.add(name, build, Path(folder))
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        measure(setting, singles=given.singles, batches=given.batches)
        counted = count(setting)
    text = f"""# Engines for the network on a CPU

{table(setting, counted=counted)}

bb72, Z memory, 6 rounds, uniform noise, p = 0.3 %, XYZ; the shipped weights. "Network alone" has belief propagation's
answers given and ends with the outputs' log-odds; decode_soft has everything. One thread; engines in turns, in another
order for each of {given.singles:,} shots and {given.batches} batches, so that each finds the caches as the
others left them. Failures are of the same shots for all. The engine in use is {COMPILED}.

    {harness.command()}

{harness.machine_and_versions("torch", "numba", "numpy", "onnx", "onnxruntime")}. Load averages at the start of the
measurement: {load}; other work may have run on the same machine, so trust the ratios, not the times.
"""
    harness.write_text(given.out, text)
    print(text)
    return 0


if __name__ == "__main__":
    harness.run_script(main)
