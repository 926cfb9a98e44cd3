"""Serves both decoders, sends fresh shots through REST, and prints how often and how fast each answered.

    python scripts/demo.py --shots 2000 --seed 7

The shots are of a Z memory of bb72 over 6 rounds, with uniform circuit noise of p = 0.2 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.harness import milliseconds, serve
from decoder.benchmark.common import count_failures
from decoder.statistics import binomial_interval
from service.client import Client
from simulation.bits import Bits, PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import Samples, sample

EXPERIMENT = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.002)
MODELS = ("bb72", "bb72-bposd")  # the recurrent transformer, BP-OSD

console = Console()


@dataclass(frozen=True, eq=False)
class Replies:
    """What one model answered to all shots."""

    predictions: PackedBits
    """Bit-packed, uint8 (shots, ceil(observables / 8))."""
    seconds: npt.NDArray[np.float64]
    """(shots,): from sending a request until its answer was there."""


@contextmanager
def service() -> Iterator[Client]:
    """A client of a service on a free loopback port, which ends with the block.

    Raises:
        RuntimeError: the service did not become ready, or did not end as it should.
    """
    with console.status("the service loads its models") as status, serve(core=None, models=None) as running:
        status.stop()
        with Client(running.url, timeout_seconds=60) as client:
            yield client


def decode(client: Client, model: str, samples: Samples) -> Replies:
    """Sends the shots one a request, each after the answer to the one before."""

    def ask(shot: PackedBits) -> Bits:
        basis, rounds, p = EXPERIMENT.basis, EXPERIMENT.rounds, EXPERIMENT.noise.p
        return client.decode(model, shot[None], bit_packed_shots=True, basis=basis, rounds=rounds, p=p).predictions

    ask(samples.detection_events[0])  # untimed: the service makes its decoder for this experiment
    answers, seconds = [], []
    for shot in track(samples.detection_events, description=f"{model:<10}", console=console, transient=True):
        started = time.perf_counter()
        answers.append(ask(shot))
        seconds.append(time.perf_counter() - started)
    return Replies(pack_bits(np.concatenate(answers)), np.array(seconds))


def show(replies: dict[str, Replies], samples: Samples) -> None:
    """Prints a row for each model."""
    table = Table("model", "failures", "rate %", "95 % interval", "p50 ms", "p99 ms", "max ms")
    for model, reply in replies.items():
        failures = count_failures(reply.predictions, samples.observable_flips)
        low, high = binomial_interval(failures, samples.shots)
        table.add_row(
            model,
            f"{failures}/{samples.shots}",
            f"{100 * failures / samples.shots:.2f}",
            f"{100 * low:.2f} to {100 * high:.2f}",
            *(f"{value:.1f}" for value in milliseconds(reply.seconds, 0.5, 0.99, 1)),
        )
    console.print(table)


def demo(*, shots: int, seed: int | None) -> None:
    samples = sample(EXPERIMENT.circuit, shots=shots, seed=seed)
    console.print(
        f"{samples.shots} shots of bb72 (Z memory, 6 rounds, p = 0.2 %), seed {samples.seed}",
        highlight=False,
    )
    with service() as client:
        console.print(f"the service is ready on {client.url}, and gets one shot a request")
        replies = {model: decode(client, model, samples) for model in MODELS}
    show(replies, samples)
    console.print("times are of whole requests, seen by the client; the service is stopped")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shots", type=int, default=2000)
    parser.add_argument("--seed", type=int, help="a fresh one by default, which is printed")
    options = parser.parse_args()
    try:
        demo(shots=options.shots, seed=options.seed)
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f"the demo failed: {error}")


if __name__ == "__main__":
    main()
