"""Times the network by several engines, side by side on one thread, and counts what they decode wrongly.

    taskset -c 1 python benchmarks/engines.py --out docs/results/engines/results.md

The code is bb72, Z memory, 6 rounds, p = 0.3 %. Engines take turns on the same shots, in another order each time.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor, nn

from decoder.base import Decoding
from decoder.neural import onnx_export
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.events import as_tensor
from decoder.neural.backends.numba import NumbaBackend
from decoder.neural.beliefs import Beliefs
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.model import GroupConv, RecurrentTransformer
from decoder.relay.rules import RelayResult
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment

BASIS = 0
ADMISSIBLE = 1.05
"""Failures of an engine that rounds, over those of torch's float32."""
EAGER, COMPILED = "torch float32, eager", "tandem's kernel (numba), float32"


@dataclass(frozen=True, eq=False)
class Given:
    """Some shots, with belief propagation's answers in the forms that the engines take."""

    shots: Bits
    bits: Bits
    events: Tensor
    beliefs: Beliefs
    believed: RelayResult


Network = Callable[[Given], Tensor]
"""Log-odds (B, O)."""


@dataclass(eq=False)
class Engine:
    network: Network
    whole: Callable[[Bits], Decoding]
    single: list[float] = field(default_factory=list)
    single_whole: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    batch_whole: list[float] = field(default_factory=list)
    failed: list[Bits] = field(default_factory=list)
    differing: int = 0
    """Predictions that are not those of torch's float32, and"""
    largest_difference: float = 0.0
    """of log-odds."""


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
        self.engines: dict[str, Engine] = {}
        self.missing: dict[str, str] = {}

    def given(self, shots: Bits) -> Given:
        bits, device = self.decoder.placement.dense(shots), self.decoder.device
        believed = self.propagation.propagate(bits, basis=BASIS)
        beliefs = self.propagation.tensors(believed, device=device)
        return Given(shots, bits, as_tensor(bits, device), beliefs, believed)

    def add(self, name: str, build: Callable[[], tuple[Network, Callable[[Bits], Decoding] | None]]) -> None:
        """Builds an engine and tries it, alone and in a batch; one that cannot be built becomes a row that says why."""
        began = time.perf_counter()
        try:
            network, whole = build()
            for count in (1, self.batch):
                given = self.given(self.shots[:count])
                network(given)
        except Exception as error:
            self.missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            print(f"{name}: {self.missing[name]}", flush=True)
            return
        self.engines[name] = Engine(network, whole or self.whole_of(network))
        print(f"{name}: built in {time.perf_counter() - began:.1f} s", flush=True)

    def whole_of(self, network: Network) -> Callable[[Bits], Decoding]:
        """Decoding with belief propagation by numba, and the rest by torch."""
        backend = self.eager.backend
        assert isinstance(backend, EagerBackend)

        def whole(shots: Bits) -> Decoding:
            given = self.given(shots)
            return backend.decoding(self.model.vote.scores(network(given).float(), given.events))

        return whole

    def by_parts(self, step: onnx_export.Run, readout: onnx_export.Run) -> Network:
        return lambda given: onnx_export.log_odds(self.model, step, readout, given.events, given.beliefs, basis=BASIS)


class Named(nn.Module):
    """The readout as a part, since AOTInductor names a C++ variable by its parameter `operator` otherwise."""

    def __init__(self, readout: nn.Module) -> None:
        super().__init__()
        self.readout = readout

    def forward(self, h: Tensor, evidence: Tensor) -> Tensor:
        result: Tensor = self.readout(h, evidence)
        return result


def build_engines(setting: Setting, folder: Path, *, first: int | None) -> None:
    model, decoder = setting.model, setting.decoder
    step = onnx_export.RoundStep(model)

    def eager() -> tuple[Network, Callable[[Bits], Decoding]]:
        network = lambda given: model.log_odds(given.events, given.beliefs, basis=BASIS)  # noqa: E731
        return network, setting.eager.decode_soft

    def kernel() -> tuple[Network, Callable[[Bits], Decoding]]:
        backend = decoder.backend
        assert isinstance(backend, NumbaBackend)
        return lambda given: torch.from_numpy(backend.log_odds(given.bits, given.believed)[0]), decoder.decode_soft

    def inductor() -> tuple[Network, None]:
        # One compilation for shots alone and one for batches, as the shapes are constants then.
        steps, readouts = torch.compile(step, dynamic=False), torch.compile(model.readout, dynamic=False)

        def run_step(inputs: dict[str, Tensor]) -> Tensor:
            constants = {name: int(inputs[name]) for name in ("basis", "phase")}
            result: Tensor = steps(**{**inputs, **constants})
            return result

        return setting.by_parts(run_step, lambda inputs: readouts(**inputs)), None

    def aot() -> tuple[Network, None]:
        loaded: dict[tuple[int, int | None], Any] = {}

        def compiled(name: str, part: nn.Module, inputs: dict[str, Any]) -> Any:
            program = torch.export.export(part, (), inputs)
            path = str(folder / f"{name}.pt2")
            return torch._inductor.aoti_load_package(
                torch._inductor.aoti_compile_and_package(program, package_path=path)
            )

        for shots in (1, setting.batch):
            inputs: dict[str, Any] = onnx_export.step_inputs(model, shots=shots)
            for phase in range(3):  # a program for each, as for each number of shots: all of it is constant then
                constants = {"basis": BASIS, "phase": phase}
                loaded[shots, phase] = compiled(f"step-{shots}-{phase}", step, {**inputs, **constants})
            inputs = onnx_export.readout_inputs(model, shots=shots)
            loaded[shots, None] = compiled(f"readout-{shots}", Named(model.readout), inputs)

        def run_step(inputs: dict[str, Tensor]) -> Tensor:
            constants = {name: int(inputs[name]) for name in ("basis", "phase")}
            program = loaded[inputs["hidden"].shape[1], constants["phase"]]
            given = {name: value.contiguous() for name, value in inputs.items()}
            result: Tensor = program(**{**given, **constants})
            return result

        def run_readout(inputs: dict[str, Tensor]) -> Tensor:
            given = {name: value.contiguous() for name, value in inputs.items()}
            result: Tensor = loaded[inputs["h"].shape[1], None](**given)
            return result

        return setting.by_parts(run_step, run_readout), None

    def onnx() -> tuple[Network, None]:
        onnx_export.export(decoder, folder, force=True)
        return setting.by_parts(*(onnx_export.session(folder / name) for name in PARTS)), None

    def int8() -> tuple[Network, None]:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        for name in PARTS:
            quantize_dynamic(folder / name, folder / f"int8-{name}", weight_type=QuantType.QInt8)
        return setting.by_parts(*(onnx_export.session(folder / f"int8-{name}") for name in PARTS)), None

    def bfloat16() -> tuple[Network, None]:
        narrow = copy.deepcopy(model).bfloat16()
        for module in narrow.modules():
            if isinstance(module, GroupConv):  # the spectrum was computed in float32
                p, q = module.spectrum()
                module._frozen = p.bfloat16(), q.bfloat16()

        def network(given: Given) -> Tensor:
            beliefs = Beliefs(given.beliefs.features.bfloat16(), given.beliefs.evidence.bfloat16())
            return narrow.log_odds(given.events.bfloat16(), beliefs, basis=BASIS).float()

        return network, None

    builders: dict[str, Callable[[], tuple[Network, Callable[[Bits], Decoding] | None]]] = {
        EAGER: eager,
        COMPILED: kernel,
        "torch bfloat16, eager": bfloat16,
        "ONNX Runtime, float32": onnx,
        "ONNX Runtime, int8 (dynamic)": int8,
        "torch.compile (inductor), float32": inductor,
        "AOTInductor, float32": aot,
    }
    for name, build in list(builders.items())[:first]:
        setting.add(name, build)


PARTS = onnx_export.STEP, onnx_export.READOUT


def measure(setting: Setting, *, singles: int, batches: int) -> None:
    """All times, engines in turns."""
    random = np.random.default_rng(0)
    engines = list(setting.engines.values())
    groups = [setting.shots[i : i + 1] for i in range(singles)]
    groups += [setting.shots[i * setting.batch : (i + 1) * setting.batch] for i in range(batches)]
    for shots in groups:
        given, alone = setting.given(shots), len(shots) == 1
        for index in random.permutation(len(engines)):
            engine = engines[index]
            began = time.perf_counter()
            engine.network(given)
            between = time.perf_counter()
            engine.whole(shots)
            ended = time.perf_counter()
            (engine.single if alone else engine.batch).append(between - began)
            (engine.single_whole if alone else engine.batch_whole).append(ended - between)


def count(setting: Setting) -> None:
    """Failures of all engines on the same shots, in batches."""
    for first in range(0, len(setting.shots) - setting.batch + 1, setting.batch):
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
            engine.failed.append((setting.model.cosets[cosets].bool() != truth).any(1).numpy())


def report(setting: Setting, arguments: argparse.Namespace, *, load: tuple[float, float, float]) -> str:
    eager = setting.engines[EAGER]

    def milliseconds(values: list[float], q: float) -> str:
        return f"{np.quantile(values, q) * 1e3:.2f}"

    def per_second(values: list[float]) -> str:
        return f"{setting.batch / np.median(values):,.0f}"

    rows = []
    for name, engine in setting.engines.items():
        failed, reference = int(np.concatenate(engine.failed).sum()), int(np.concatenate(eager.failed).sum())
        rows.append(
            [
                name,
                f"{milliseconds(engine.single, 0.5)} / {milliseconds(engine.single, 0.99)}",
                f"{np.median(engine.single) / np.median(eager.single):.2f}",
                f"{milliseconds(engine.single_whole, 0.5)} / {milliseconds(engine.single_whole, 0.99)}",
                f"{np.median(engine.single_whole) / np.median(eager.single_whole):.2f}",
                per_second(engine.batch),
                per_second(engine.batch_whole),
                failures_and_interval(failed, len(engine.failed) * setting.batch),
                f"{engine.differing}, {engine.largest_difference:.2g}",
                "yes" if failed <= ADMISSIBLE * reference else "no",
            ]
        )
    rows += [[name, f"not built: {why}", *[""] * 8] for name, why in setting.missing.items()]
    head = [
        "engine",
        "network alone, one shot: p50 / p99 ms",
        "p50 to eager's",
        "decode_soft, one shot: p50 / p99 ms",
        "p50 to eager's",
        f"network alone, batches of {setting.batch}: shots/s",
        "decode_soft: shots/s",
        "failures (95 % interval)",
        "predictions unlike float32's, largest difference of log-odds",
        f"at most {ADMISSIBLE} times float32's",
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy", "onnx", "onnxruntime"))
    return f"""# Engines for the network on a CPU

{table}

bb72, Z memory, 6 rounds, uniform noise, p = 0.3 %, XYZ; the shipped weights. "Network alone" has belief propagation's
answers given and ends with the outputs' log-odds; decode_soft has everything. One thread; engines in turns, in another
order for each of {arguments.singles:,} shots and {arguments.batches} batches, so that each finds the caches as the
others left them. Failures are of the same shots for all. The engine in use is {COMPILED}.

    {shlex.join(["python", *sys.argv])}

{processor()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, {versions}. Load
averages at the start of the measurement: {", ".join(f"{value:.1f}" for value in load)}; other work may have run on the
same machine, so trust the ratios, not the times.
"""


def failures_and_interval(failed: int, shots: int) -> str:
    low = beta.ppf(0.025, failed, shots - failed + 1) if failed else 0.0
    high = beta.ppf(0.975, failed + 1, shots - failed) if failed < shots else 1.0
    return f"{failed}/{shots} ({low * 100:.2f}-{high * 100:.2f} %)"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=20_000, help="shots whose failures are counted")
    parser.add_argument("--singles", type=int, default=1_000, help="shots timed alone")
    parser.add_argument("--batches", type=int, default=20, help="batches timed")
    parser.add_argument("--batch", type=int, default=256, help="shots in each")
    parser.add_argument("--first", type=int, help="only so many engines, of which the first two take no time to build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.shots < max(arguments.singles, max(arguments.batches, 1) * arguments.batch):
        parser.error("--shots must cover --singles and --batches")
    torch.set_num_threads(1)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        setting = Setting(shots=arguments.shots, batch=arguments.batch, seed=arguments.seed)
        build_engines(setting, Path(folder), first=arguments.first)
        load = os.getloadavg()
        measure(setting, singles=arguments.singles, batches=arguments.batches)
        count(setting)
    text = report(setting, arguments, load=load)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
