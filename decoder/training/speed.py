"""How fast training is, beside how fast the device multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

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
        trainer.config = replace(config, rounds=(rounds,))
        # Fused attention is not counted on every device, and does the same products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            trainer.loss(0).backward()  # type: ignore[no-untyped-call]
        total += counter.get_total_flops()
    trainer.config = config
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
