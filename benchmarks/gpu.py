"""How fast a GPU decodes, single shots and batches, beside one thread of its machine's CPU; and how often it fails.

On the GPU is the network; its belief propagation runs on the CPU, by as many threads as --threads says.

    python benchmarks/gpu.py --out docs/results/gpu/results.md

The code is bb72, Z memory over 6 rounds unless told otherwise. Ways to decode take turns on the same shots.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from decoder.benchmark.reporting.provenance import machine
from decoder.devices import usable_device
from decoder.making import make_decoder
from decoder.neural.decoder import NeuralDecoder
from decoder.statistics import binomial_interval
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

GRAPHS, KERNELS, CPU, BPOSD = "GPU, CUDA graphs", "GPU, kernel by kernel", "CPU, one thread", "BP-OSD (XZ), one thread"
DEVICE = "cuda"
FEW = 0.2
"""Share of the single shots that slow ways decode."""


@dataclass(eq=False)
class Way:
    decode: Callable[[Bits], Any]
    share: float = 1.0
    """Of the single shots."""
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    options = _options()
    try:
        usable_device(DEVICE)
    except ValueError as error:
        sys.exit(f"gpu.py: {error}")
    if options.threads:
        torch.set_num_threads(options.threads)
    report = Report()
    for p in options.p:
        experiment = MemoryExperiment.create(code=options.code, basis=options.basis, rounds=options.rounds, p=p)
        if options.singles:
            report.singles(experiment, singles=options.singles, seed=options.seed)
        if options.batches:
            report.batches(experiment, batches=options.batches, seconds=options.seconds, seed=options.seed)
    for basis in options.accuracy:
        for p in options.p:
            experiment = MemoryExperiment.create(code=options.code, basis=basis, rounds=options.rounds, p=p)
            report.failures(
                experiment,
                weights=options.weights or [None],
                shots=options.shots,
                seconds=options.accuracy_seconds,
                batch=options.accuracy_batch,
                seed=options.seed,
            )
    text = report.text()
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


class Report:
    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(self) -> str:
        versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy", "stim"))
        here, gpu = machine(), torch.cuda.get_device_name()
        return "\n\n".join(
            [
                "# Decoding on a GPU",
                *self._parts,
                f"Uniform noise; network: XYZ. Intervals: exact, 95 %. {gpu}, of whose memory torch took at most "
                f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB; CPU {here['cpu']}, {here['cores']} cores; Python "
                f"{platform.python_version()}, {versions}.",
                f"    python {shlex.join(['benchmarks/gpu.py', *sys.argv[1:]])}\n",
            ]
        )

    def singles(self, experiment: MemoryExperiment, *, singles: int, seed: int) -> None:
        """Times of single shots."""
        shots, _ = _sampled(experiment, singles, seed=seed)
        ways = {
            GRAPHS: Way(NeuralDecoder.load(experiment, device=DEVICE).decode_batch),
            KERNELS: Way(NeuralDecoder.load(experiment, device=DEVICE, backend="eager").decode_batch, share=FEW),
            CPU: Way(NeuralDecoder.load(experiment).decode_batch),
            BPOSD: Way(make_decoder("bposd", experiment).decode_batch, share=FEW),
        }
        for way in ways.values():
            way.decode(shots[:1])
        for place, shot in enumerate(shots):
            for way in ways.values():
                if place < way.share * len(shots):
                    way.seconds.append(_timed(way.decode, shot[None]))
        rows = [[f"{name} ({len(way.seconds):,} shots)", *_quantiles(way.seconds)] for name, way in ways.items()]
        self._table(f"Single shots, {_said(experiment)}", ["", "p50 ms", "p90 ms", "p99 ms", "max ms"], rows)

    def batches(self, experiment: MemoryExperiment, *, batches: Sequence[int], seconds: float, seed: int) -> None:
        """Shots a second in batches, and where the answers differ from the CPU's."""
        shots, flips = _sampled(experiment, max(batches), seed=seed + 1)
        gpu = NeuralDecoder.load(experiment, device=DEVICE)
        gpu.max_batch = max(batches)
        cpu = NeuralDecoder.load(experiment)
        rows = []
        for batch in batches:
            few = shots[: min(batch, 1024)]
            gpu.decode_batch(shots[:batch])  # captures
            here: list[float] = []
            there: list[float] = []
            begun = time.perf_counter()
            while not there or time.perf_counter() - begun < seconds:
                there.append(batch / _timed(gpu.decode_batch, shots[:batch]))
                if len(here) < 3:
                    here.append(len(few) / _timed(cpu.decode_batch, few))
            rows.append([f"{batch:,}", f"{np.median(there):,.0f}", f"{np.median(here):,.0f}"])
        self._table(f"Shots a second, {_said(experiment)}", ["batch", GRAPHS, CPU], rows)
        compared = shots[: min(len(shots), 4096)]
        answers = gpu.decode_batch(compared), cpu.decode_batch(compared)
        failed = [int((answer != flips[: len(compared)]).any(1).sum()) for answer in answers]
        unlike = int((answers[0] != answers[1]).any(1).sum())
        self._parts.append(
            f"Of {len(compared):,} shots the GPU fails in {failed[0]} and the CPU in {failed[1]}; their predictions "
            f"differ in {unlike}."
        )

    def failures(
        self,
        experiment: MemoryExperiment,
        *,
        weights: Sequence[Path | None],
        shots: int,
        seconds: float,
        batch: int,
        seed: int,
    ) -> None:
        """Failures of weights on the same shots, until there are so many or the time is up."""
        decoders = [NeuralDecoder.load(experiment, weights=path, device=DEVICE) for path in weights]
        failed, done, begun = [0] * len(decoders), 0, time.perf_counter()
        for part, flips in _parts(experiment, shots, batch=batch, seed=seed):
            for place, decoder in enumerate(decoders):
                decoder.max_batch = batch
                failed[place] += int((decoder.decode_batch(part) != flips).any(1).sum())
            done += len(part)
            if time.perf_counter() - begun > seconds:
                break
        rows = [
            [path.name if path else "shipped", f"{count}/{done:,} ({_interval(count, done)})"]
            for path, count in zip(weights, failed, strict=True)
        ]
        self._table(f"Failures, {_said(experiment)}, seed {seed}", ["weights", "failures/shots (95 %)"], rows)

    def _table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        self._parts.append(f"## {title}\n\n" + "\n".join(lines))
        print(self._parts[-1], flush=True)


def _timed(decode: Callable[[Bits], Any], shots: Bits) -> float:
    begun = time.perf_counter()
    decode(shots)  # answers are numpy's, so the GPU is done
    return time.perf_counter() - begun


def _sampled(experiment: MemoryExperiment, shots: int, *, seed: int) -> tuple[Bits, Bits]:
    samples = sample(experiment.circuit, shots=shots, seed=seed)
    return samples.unpacked_detection_events(), samples.unpacked_observable_flips()


def _parts(experiment: MemoryExperiment, shots: int, *, batch: int, seed: int) -> Iterator[tuple[Bits, Bits]]:
    sampler = experiment.circuit.compile_detector_sampler(seed=seed)
    for first in range(0, shots, batch):
        yield sampler.sample(min(batch, shots - first), separate_observables=True)


def _said(experiment: MemoryExperiment) -> str:
    rounds, p = experiment.rounds, 100 * experiment.noise.p
    return f"{experiment.code}, {experiment.basis} memory, {rounds} rounds, p = {p:g} %"


def _quantiles(seconds: Sequence[float]) -> list[str]:
    times: npt.NDArray[np.float64] = 1e3 * np.array(seconds)
    return [f"{value:.2f}" for value in (*np.quantile(times, [0.5, 0.9, 0.99]), times.max())]


def _interval(failures: int, shots: int) -> str:
    low, high = (100 * end for end in binomial_interval(failures, shots))
    return f"{low:.2g} to {high:.2g} %"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", default="bb72")
    parser.add_argument("--basis", default="Z", help="of the times")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--p", type=float, nargs="+", default=[0.003, 0.001])
    parser.add_argument("--singles", type=int, default=2000, help="single shots to time; 0 for none")
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 256, 1024, 4096, 16384], help="shots in each")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size of batch")
    parser.add_argument("--accuracy", nargs="*", default=[], help="bases in which failures are counted")
    parser.add_argument("--weights", type=Path, nargs="+", help="whose failures; those shipped if none")
    parser.add_argument("--shots", type=int, default=1_000_000, help="most, for each table of failures")
    parser.add_argument("--accuracy-seconds", type=float, default=30.0, help="most, for each table of failures")
    parser.add_argument("--accuracy-batch", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2033)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
