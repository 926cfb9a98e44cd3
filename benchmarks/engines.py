"""Times the network by each engine of the product, side by side on one thread, and counts what they decode wrongly.

    taskset -c 1 python benchmarks/engines.py --out docs/results/engines/results.md

The code is bb72, Z memory, 6 rounds, p = 0.3 %, and of its shots those that the network judges, since their solutions
disagree. Engines take turns on the same shots, in another order each time.
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

from benchmarks import harness
from decoder.neural import onnx_export
from decoder.neural.backends.eager import EagerBackend
from decoder.neural.backends.events import as_tensors
from decoder.neural.backends.numba import NumbaBackend
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.judge import Case, JudgedDecoder
from decoder.serial.graph import Floats, observables_of
from decoder.statistics import binomial_interval
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment

BASIS = 0
DRAWN = 1024
"""Shots that are drawn at a time, about a hundredth of which the network is shown."""
ADMISSIBLE = 1.05
"""Failures of an engine that rounds otherwise, over those of torch's float32."""
KERNEL = "tandem's kernel (numba), float32"


@dataclass(eq=False)
class Engine:
    """One way to compute the network, and what was measured of it."""

    name: str
    network: Callable[[Case], Floats]
    """Log-odds (B, O)."""
    whole: Callable[[Bits], object]
    """All of decode_soft, with belief propagation."""
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
        assert self.decoder.judged is not None
        self.judge: JudgedDecoder = self.decoder.judged
        self.shots, self.flips = self._judged(made, shots, seed=seed)
        self.engines = list(islice(self._engines(NeuralDecoder.load(made)), engines))
        for engine in self.engines:  # what the first call of a size does is not timed
            for shots_of_call in (self.shots[:1], self.shots[:batch]):
                engine.network(self.case(shots_of_call))
                engine.whole(shots_of_call)

    def _judged(self, made: MemoryExperiment, shots: int, *, seed: int) -> tuple[Bits, Bits]:
        """So many shots that the network is shown, and their observables' flips."""
        sampler = made.circuit.compile_detector_sampler(seed=seed)
        events: list[Bits] = []
        flips: list[Bits] = []
        while sum(len(part) for part in events) < shots:
            drawn, truth = sampler.sample(DRAWN, separate_observables=True)
            shown, _ = self.judge.disagreeing(drawn)
            events.append(drawn[shown])
            flips.append(truth[shown])
        return np.concatenate(events)[:shots], np.concatenate(flips)[:shots]

    def case(self, shots: Bits) -> Case:
        """What the engines get of shots, bool (B, detectors)."""
        return self.judge.disagreeing(shots)[1]

    def _engines(self, compiled: NeuralDecoder) -> Iterator[Engine]:
        model, eager, kernel = self.model, self.decoder.backend, compiled.backend
        assert isinstance(eager, EagerBackend)
        assert isinstance(kernel, NumbaBackend)
        yield Engine("torch float32, eager", lambda case: eager.log_odds(case.events, case.beliefs), self.judge.judge)
        assert compiled.judged is not None
        yield Engine(KERNEL, lambda case: kernel.log_odds(case.events, case.beliefs), compiled.judged.judge)
        with tempfile.TemporaryDirectory() as folder:
            onnx_export.export(self.decoder, Path(folder), force=True)
            step = onnx_export.session(Path(folder) / onnx_export.STEP)
            readout = onnx_export.session(Path(folder) / onnx_export.READOUT)

        def by_onnx(case: Case) -> Floats:
            inputs = as_tensors(case.events, case.beliefs, self.decoder.device)
            found: Floats = onnx_export.log_odds(model, step, readout, inputs, basis=BASIS).numpy()
            return found

        def whole(shots: Bits) -> object:  # all that is not in the files by numba and numpy
            case = self.case(shots)
            return self.judge.judged(case, by_onnx(case))

        yield Engine("ONNX Runtime, float32", by_onnx, whole)

    def measure(self, *, singles: int, batches: int) -> None:
        """All times, engines in turns."""
        random = np.random.default_rng(0)
        groups = [self.shots[i : i + 1] for i in range(singles)]
        groups += [self.shots[i * self.batch : (i + 1) * self.batch] for i in range(batches)]
        for shots in groups:
            given = self.case(shots)
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
            case = self.case(self.shots[first : first + self.batch])
            truth = self.flips[first : first + self.batch]
            found = [engine.network(case) for engine in self.engines]
            chosen = [self.judge.judged(case, log_odds).argmin(axis=1) for log_odds in found]
            for engine, log_odds, candidate in zip(self.engines, found, chosen, strict=True):
                cosets = np.take_along_axis(case.candidates.cosets, candidate[:, None], axis=1)[:, 0]
                predictions = observables_of(cosets, num_observables=truth.shape[1])
                engine.largest_difference = max(engine.largest_difference, float(np.abs(log_odds - found[0]).max()))
                engine.differing += int((candidate != chosen[0]).sum())
                engine.failures += int((predictions != truth).any(axis=1).sum())
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
    parser.add_argument("--shots", type=int, default=2_000, help="shots that are judged, whose failures are counted")
    parser.add_argument("--singles", type=int, default=1_000, help="shots timed alone")
    parser.add_argument("--batches", type=int, default=5, help="batches timed")
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

bb72, Z memory, 6 rounds, uniform noise, p = 0.3 %, XYZ, and of its shots those alone whose solutions disagree; the
shipped weights. "Network alone" has the candidates given and ends with the outputs' log-odds; decode_soft has
everything. One thread; engines in turns, in another order for each of {given.singles:,} shots and {given.batches}
batches, so that each finds the caches as the others left them. Failures are of the same shots for all. The engine in
use is {KERNEL}.

    {harness.command()}

{harness.machine_and_versions("torch", "numba", "numpy", "onnx", "onnxruntime")}. Load averages at the start of the
measurement: {load}; other work may have run on the same machine, so trust the ratios, not the times.
"""
    harness.write_text(given.out, text)
    print(text)
    return 0


if __name__ == "__main__":
    harness.run_script(main)
