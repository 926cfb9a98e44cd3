"""Times training: the sampler, whole optimizer steps, and a large matrix product to compare with.

    python scripts/training_speed.py --threads 1 --set compile=true --set judges=false
    python scripts/training_speed.py --set device=cuda --set autocast=true --set compile=true --set micro_batch=4096

All settings of `tandem train` may be set; the error rate is the single p_max.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from decoder.console.settings import read_pairs, training_config
from decoder.training.fresh import FreshShots
from decoder.training.runtime import device_name
from decoder.training.sampler import FaultSampler
from decoder.training.trainer import Trainer
from simulation.circuits import MemoryExperiment


@dataclass(frozen=True)
class TrainingSpeed:
    """What `measure` found; rates are per second of wall time on one process."""

    sampler_shots: float
    """Shots a second that the sampler alone draws."""
    training_shots: float
    """Shots a second of whole optimizer steps: sampling, forward, backward, optimizer."""
    flop_per_shot: float
    """Floating-point operations of the matrix products of forward and backward."""
    matmul_flops: float
    """Floating-point operations a second of one large product in the training's precision."""

    @property
    def share_of_matmul(self) -> float:
        """The training's operations a second as a share of those of the large product."""
        return self.training_shots * self.flop_per_shot / self.matmul_flops


def flop_per_step(trainer: Trainer) -> float:
    """Floating-point operations of the matrix products of one optimizer step, forward and backward.

    Counted by torch on uncompiled code, as the mean over the numbers of rounds; optimizer not included.
    """
    config, total = trainer.config, 0.0
    for rounds in config.rounds:
        shots = FreshShots(replace(config, rounds=(rounds,)), trainer.model)
        # Fused attention is not counted on every device, and does the same products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            shots.loss(0, step=0, shots=0).backward()  # type: ignore[no-untyped-call]
        total += counter.get_total_flops()
    trainer.model.zero_grad(set_to_none=True)
    return config.micro_batches * total / len(config.rounds)


def measure(trainer: Trainer, *, flop: float, seconds: float = 10.0) -> TrainingSpeed:
    """Times the sampler, whole steps and one large matrix product in turn, each for a third of the time.

    Args:
        trainer: of the run to time; it is trained on. Best with one error rate, or the samplers of others are made
            while the clock runs.
        flop: operations of one step, from `flop_per_step` of the same settings without `compile`.
        seconds: time to spend, after a warm-up.
    """
    config, device = trainer.config, trainer.device
    experiment = MemoryExperiment.create(code=config.model.code, basis="Z", rounds=config.rounds[0], p=config.p_max)
    sampler = FaultSampler(experiment, device=device)
    dtype = torch.bfloat16 if config.autocast else torch.float32
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)

    def rate(work: Callable[[int], object], amount: float) -> float:
        for i in range(3):
            work(i)
        _wait(device)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds / 3:
            work(count)
            count += 1
            if count % 8 == 0:
                _wait(device)
        _wait(device)
        return count * amount / (time.perf_counter() - started)

    return TrainingSpeed(
        sampler_shots=rate(lambda i: sampler.sample(config.micro_batch, seed=i), config.micro_batch),
        training_shots=rate(lambda _: trainer.step(), config.step_shots),
        flop_per_shot=flop / config.step_shots,
        matmul_flops=rate(lambda _: a @ a, 2 * size**3),
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(
    *,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A training setting.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    seconds: Annotated[float, typer.Option(help="Time to spend, after the warm-up.")] = 15.0,
) -> None:
    """Prints shots per second, operations per shot, and the share of a large product's speed, as JSON."""
    config = training_config(read_pairs(set_ or []) | {"steps": 1, "threads": threads})
    config = replace(config, p_min=config.p_max, p_points=1, curriculum_shots=0)

    def trainer(*, compiled: bool) -> Trainer:
        return Trainer(replace(config, compile=compiled), out=Path(scratch), force=True)

    with tempfile.TemporaryDirectory() as scratch:
        flop = flop_per_step(trainer(compiled=False))
        timed = trainer(compiled=config.compile)
        speed = measure(timed, flop=flop, seconds=seconds)
    report = {
        "device": device_name(timed.device),
        "parameters": sum(p.numel() for p in timed.model.parameters()),
        "sampler_shots_per_second": round(speed.sampler_shots),
        "training_shots_per_second": round(speed.training_shots),
        "training_mflop_per_shot": round(speed.flop_per_shot / 1e6, 2),
        "training_gflop_per_second": round(speed.training_shots * speed.flop_per_shot / 1e9, 1),
        "matmul_gflop_per_second": round(speed.matmul_flops / 1e9, 1),
        "share_of_matmul": round(speed.share_of_matmul, 3),
    }
    typer.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
