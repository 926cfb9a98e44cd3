"""Times the network by each engine of the product, side by side on one thread, and counts what they decode wrongly.

    taskset -c 1 python benchmarks/engines.py --out docs/results/engines/results.md

The code is bb72, Z memory, 6 rounds, p = 0.3 %. Engines take turns on the same shots, in another order each time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from decoder.base import Decoding
from decoder.neural import onnx_export
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.events import as_tensor
from decoder.neural.backends.numba import NumbaBackend
from decoder.neural.beliefs import Beliefs
from decoder.neural.decoder import NeuralDecoder
from decoder.relay.rules import RelayResult
from decoder.statistics import binomial_interval
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment

BASIS = 0
ADMISSIBLE = 1.05
"""Failures of an engine that rounds otherwise, over those of torch's float32."""
KERNEL = "tandem's kernel (numba), float32"


@dataclass(frozen=True, eq=False)
class Given:
    """Some shots, with belief propagation's results in the forms that the engines take."""

    bits: Bits
    events: Tensor
    beliefs: Beliefs
    believed: RelayResult


@dataclass(eq=False)
class Engine:
    """One way to compute the network, and what was measured of it."""

    name: str
    network: Callable[[Given], Tensor]
    """Log-odds (B, O)."""
    whole: Callable[[Bits], Decoding]
    """All of decode_soft."""
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of "network" and of "whole", by shots a call."""
    failures: int = 0
    differing: int = 0
    """Predictions that are not those of torch's float32."""
    largest_difference: float = 0.0
    """Of log-odds, from those of torch's float32."""

    def median(self, what: str, shots: int) -> float:
        """Seconds of a call."""
        return float(np.median(self.seconds[what, shots]))


class Comparison:
    """The decoder, the shots, and the engines: eager torch, to which the others are compared, is the first."""

    def __init__(self, *, shots: int, batch: int, seed: int, engines: int | None) -> None:
        self.batch = batch
        made = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
        self.decoder = NeuralDecoder.load(made, backend="eager")
        self.model = onnx_export.exportable(self.decoder)
        sampler = made.circuit.compile_detector_sampler(seed=seed)
        self.shots, self.flips = sampler.sample(shots, separate_observables=True)
        self.engines = list(islice(self._engines(NeuralDecoder.load(made)), engines))
        for engine in self.engines:  # what the first call of a size does is not timed
            for shots_of_call in (self.shots[:1], self.shots[:batch]):
                engine.network(self.given(shots_of_call))
                engine.whole(shots_of_call)

    def given(self, shots: Bits) -> Given:
        """What the engines get of shots, bool (B, detectors)."""
        assert self.model.propagation is not None
        bits, device = self.decoder.placement.dense(shots), self.decoder.device
        believed = self.model.propagation.propagate(bits, basis=BASIS)
        beliefs = self.model.propagation.tensors(believed, device=device)
        return Given(bits, as_tensor(bits, device), beliefs, believed)

    def _engines(self, compiled: NeuralDecoder) -> Iterator[Engine]:
        model, eager, kernel = self.model, self.decoder.backend, compiled.backend
        assert isinstance(eager, EagerBackend)
        assert isinstance(kernel, NumbaBackend)

        def by_torch(given: Given) -> Tensor:
            return model.log_odds(given.events, given.beliefs, basis=BASIS)

        def by_kernel(given: Given) -> Tensor:
            return torch.from_numpy(kernel.log_odds(given.bits, given.believed)[0])

        yield Engine("torch float32, eager", by_torch, self.decoder.decode_soft)
        yield Engine(KERNEL, by_kernel, compiled.decode_soft)
        with tempfile.TemporaryDirectory() as folder:
            onnx_export.export(self.decoder, Path(folder), force=True)
            step = onnx_export.session(Path(folder) / onnx_export.STEP)
            readout = onnx_export.session(Path(folder) / onnx_export.READOUT)

        def by_onnx(given: Given) -> Tensor:
            return onnx_export.log_odds(model, step, readout, given.events, given.beliefs, basis=BASIS)

        def whole(shots: Bits) -> Decoding:  # belief propagation by numba, vote and calibration by torch
            given = self.given(shots)
            return eager.decoding(model.vote.scores(by_onnx(given), given.events))

        yield Engine("ONNX Runtime, float32", by_onnx, whole)

    def measure(self, *, singles: int, batches: int) -> None:
        """All times, engines in turns."""
        random = np.random.default_rng(0)
        groups = [self.shots[i : i + 1] for i in range(singles)]
        groups += [self.shots[i * self.batch : (i + 1) * self.batch] for i in range(batches)]
        for shots in groups:
            given = self.given(shots)
            for index in random.permutation(len(self.engines)):
                engine = self.engines[index]
                began = time.perf_counter()
                engine.network(given)
                between = time.perf_counter()
                engine.whole(shots)
                ended = time.perf_counter()
                engine.seconds["network", len(shots)].append(between - began)
                engine.seconds["whole", len(shots)].append(ended - between)

    def count(self) -> int:
        """Failures of all engines on the same shots, in batches; returns how many shots."""
        counted = len(self.shots) // self.batch * self.batch
        for first in range(0, counted, self.batch):
            given = self.given(self.shots[first : first + self.batch])
            truth = torch.from_numpy(self.flips[first : first + self.batch])
            logits = [engine.network(given) for engine in self.engines]
            cosets = [self.model.vote.scores(one, given.events).argmax(1) for one in logits]
            for engine, odds, chosen in zip(self.engines, logits, cosets, strict=True):
                engine.largest_difference = max(engine.largest_difference, float((odds - logits[0]).abs().max()))
                engine.differing += int((chosen != cosets[0]).sum())
                engine.failures += int((self.model.cosets[chosen].bool() != truth).any(1).sum())
        return counted

    def table(self, *, counted: int) -> str:
        """A row for each engine, whose failures are of `counted` shots."""
        reference = self.engines[0]
        rows = [
            [
                "engine",
                "network alone, one shot: p50 / p99 ms",
                "p50 to eager's",
                "decode_soft, one shot: p50 / p99 ms",
                "p50 to eager's",
                f"network alone, batches of {self.batch}: shots/s",
                "decode_soft: shots/s",
                "failures (95 % interval)",
                "predictions unlike float32's, largest difference of log-odds",
                f"at most {ADMISSIBLE} times float32's",
            ]
        ]
        for engine in self.engines:
            row = [engine.name]
            for what in ("network", "whole"):
                times = harness.milliseconds(engine.seconds[what, 1], 0.5, 0.99)
                row.append(" / ".join(f"{value:.2f}" for value in times))
                row.append(f"{engine.median(what, 1) / reference.median(what, 1):.2f}")
            row += [f"{self.batch / engine.median(what, self.batch):,.0f}" for what in ("network", "whole")]
            low, high = binomial_interval(engine.failures, counted)
            row += [
                f"{engine.failures}/{counted} ({low * 100:.2f}-{high * 100:.2f} %)",
                f"{engine.differing}, {engine.largest_difference:.2g}",
                "yes" if engine.failures <= ADMISSIBLE * reference.failures else "no",
            ]
            rows.append(row)
        return harness.markdown_table(rows)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=20_000, help="shots whose failures are counted")
    parser.add_argument("--singles", type=int, default=1_000, help="shots timed alone")
    parser.add_argument("--batches", type=int, default=20, help="batches timed")
    parser.add_argument("--batch", type=int, default=256, help="shots in each, at least 2")
    parser.add_argument("--first", type=int, help="only so many engines; the third takes time to build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if min(given.singles, given.batches, given.batch - 1) < 1 or (given.first is not None and given.first < 1):
        parser.error("--singles, --batches and --first must be at least 1, and --batch 2")
    if given.shots < max(given.singles, given.batches * given.batch):
        parser.error("--shots must cover --singles and --batches")
    return given


def main() -> int:
    given = options()
    torch.set_num_threads(1)
    with torch.inference_mode():
        compared = Comparison(shots=given.shots, batch=given.batch, seed=given.seed, engines=given.first)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        compared.measure(singles=given.singles, batches=given.batches)
        table = compared.table(counted=compared.count())
    text = f"""# Engines for the network on a CPU

{table}

bb72, Z memory, 6 rounds, uniform noise, p = 0.3 %, XYZ; the shipped weights. "Network alone" has belief propagation's
answers given and ends with the outputs' log-odds; decode_soft has everything. One thread; engines in turns, in another
order for each of {given.singles:,} shots and {given.batches} batches, so that each finds the caches as the
others left them. Failures are of the same shots for all. The engine in use is {KERNEL}.

    {harness.command()}

{harness.machine_and_versions("torch", "numba", "numpy", "onnx", "onnxruntime")}. Load averages at the start of the
measurement: {load}; other work may have run on the same machine, so trust the ratios, not the times.
"""
    harness.write_text(given.out, text)
    print(text)
    return 0


if __name__ == "__main__":
    harness.run_script(main)
