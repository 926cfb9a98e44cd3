"""How fast a GPU decodes, single shots and batches, beside one thread of its machine's CPU; and how often it fails.

On the GPU is the network; its belief propagation runs on the CPU, by as many threads as --threads says.

    python benchmarks/gpu.py --out docs/results/gpu/results.md

The code is bb72, Z memory over 6 rounds unless told otherwise. Ways to decode take turns on the same shots.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import command, machine_and_versions, markdown_table, milliseconds, run_script, write_text
from decoder.devices import usable_device
from decoder.making import make_decoder
from decoder.neural.decoder import NeuralDecoder
from decoder.statistics import binomial_interval
from simulation.bits import Bits, PackedBits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

GRAPHS, KERNELS, CPU, BPOSD = "GPU, CUDA graphs", "GPU, kernel by kernel", "CPU, one thread", "BP-OSD (XZ), one thread"
DEVICE = "cuda"
FEW = 0.2
"""Share of the single shots that slow ways decode."""
COMPARED = 4096
"""Most shots whose predictions by GPU and CPU are compared."""


Predictions = Bits | PackedBits


@dataclass(eq=False)
class Way:
    decode: Callable[[Bits], Any]
    share: float = 1.0
    """Of the single shots."""
    seconds: list[float] = field(default_factory=list)


def singles(experiment: MemoryExperiment, *, shots: int, seed: int) -> str:
    """Times of single shots, as a table."""
    events, _ = _sampled(experiment, shots, seed=seed)
    ways = {
        GRAPHS: Way(NeuralDecoder.load(experiment, device=DEVICE).decode_batch),
        KERNELS: Way(NeuralDecoder.load(experiment, device=DEVICE, backend="eager").decode_batch, share=FEW),
        CPU: Way(NeuralDecoder.load(experiment).decode_batch),
        BPOSD: Way(make_decoder("bposd", experiment).decode_batch, share=FEW),
    }
    for way in ways.values():
        way.decode(events[:1])
    for place, shot in enumerate(events):
        for way in ways.values():
            if place < way.share * shots:
                way.seconds.append(_timed(way.decode, shot[None]))
    rows = [["", "p50 ms", "p90 ms", "p99 ms", "max ms"]]
    for name, way in ways.items():
        times = milliseconds(way.seconds, 0.5, 0.9, 0.99, 1)
        rows.append([f"{name} ({len(way.seconds):,} shots)", *(f"{value:.2f}" for value in times)])
    return f"## Single shots, {_said(experiment)}\n\n{markdown_table(rows)}"


def batches(experiment: MemoryExperiment, *, sizes: Sequence[int], seconds: float, seed: int) -> str:
    """Shots a second in batches, as a table, and where the answers differ from the CPU's."""
    shots, flips = _sampled(experiment, max(sizes), seed=seed + 1)
    gpu, cpu = NeuralDecoder.load(experiment, device=DEVICE), NeuralDecoder.load(experiment)
    gpu.max_batch = max(sizes)
    rows = [["batch", GRAPHS, CPU]]
    for size in sizes:
        few = shots[: min(size, 1024)]
        gpu.decode_batch(shots[:size])  # captures
        here: list[float] = []
        there: list[float] = []
        begun = time.perf_counter()
        while not there or time.perf_counter() - begun < seconds:
            there.append(size / _timed(gpu.decode_batch, shots[:size]))
            if len(here) < 3:
                here.append(len(few) / _timed(cpu.decode_batch, few))
        rows.append([f"{size:,}", f"{np.median(there):,.0f}", f"{np.median(here):,.0f}"])
    compared = shots[:COMPARED]
    answers = [decoder.decode_batch(compared) for decoder in (gpu, cpu)]
    failed = [_differing(answer, flips[:COMPARED]) for answer in answers]
    return (
        f"## Shots a second, {_said(experiment)}\n\n{markdown_table(rows)}\n\n"
        f"Of {len(compared):,} shots the GPU fails in {failed[0]} and the CPU in {failed[1]}; their predictions "
        f"differ in {_differing(*answers)}."
    )


def failures(experiment: MemoryExperiment, options: argparse.Namespace) -> str:
    """Failures of weights on the same shots, until there are so many or the time is up, as a table."""
    weights: list[Path | None] = options.weights or [None]
    decoders = [NeuralDecoder.load(experiment, weights=path, device=DEVICE) for path in weights]
    failed, done, begun = [0] * len(decoders), 0, time.perf_counter()
    for events, flips in _parts(experiment, options.shots, batch=options.accuracy_batch, seed=options.seed):
        for place, decoder in enumerate(decoders):
            decoder.max_batch = options.accuracy_batch
            failed[place] += _differing(decoder.decode_batch(events), flips)
        done += len(events)
        if time.perf_counter() - begun > options.accuracy_seconds:
            break
    rows = [["weights", "failures/shots (95 %)"]]
    for path, count in zip(weights, failed, strict=True):
        low, high = (100 * end for end in binomial_interval(count, done))
        rows.append([path.name if path else "shipped", f"{count}/{done:,} ({low:.2g} to {high:.2g} %)"])
    return f"## Failures, {_said(experiment)}, seed {options.seed}\n\n{markdown_table(rows)}"


def _timed(decode: Callable[[Bits], Any], shots: Bits) -> float:
    begun = time.perf_counter()
    decode(shots)  # answers are numpy's, so the GPU is done
    return time.perf_counter() - begun


def _differing(some: Predictions, others: Predictions) -> int:
    """In how many shots any observable differs."""
    return int((some != others).any(1).sum())


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


def parts(options: argparse.Namespace) -> Iterator[str]:
    """The tables that were asked for."""

    def experiment(basis: Any, p: float) -> MemoryExperiment:
        return MemoryExperiment.create(code=options.code, basis=basis, rounds=options.rounds, p=p)

    for p in options.p:
        timed = experiment(options.basis, p)
        if options.singles:
            yield singles(timed, shots=options.singles, seed=options.seed)
        if options.batches:
            yield batches(timed, sizes=options.batches, seconds=options.seconds, seed=options.seed)
    for basis in options.accuracy:
        for p in options.p:
            yield failures(experiment(basis, p), options)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
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
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    usable_device(DEVICE)
    if options.threads:
        torch.set_num_threads(options.threads)
    found = ["# Decoding on a GPU"]
    for part in parts(options):
        found.append(part)
        print(part, flush=True)
    found.append(
        f"Uniform noise; network: XYZ. Intervals: exact, 95 %. {torch.cuda.get_device_name()}, of whose memory torch "
        f"took at most {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB; CPU "
        f"{machine_and_versions('torch', 'numba', 'numpy', 'stim')}."
    )
    text = "\n\n".join([*found, f"    {command()}\n"])
    print(text)
    if options.out:
        write_text(options.out, text)
    return 0


if __name__ == "__main__":
    run_script(main)
