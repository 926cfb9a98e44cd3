"""The training loop: fresh shots for networks that decode alone, stored ones for judges; Muon and AdamW."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from decoder.neural.weights import save_weights
from decoder.training.comparison import HeldOut
from decoder.training.config import TrainingConfig
from decoder.training.fresh import FreshShots
from decoder.training.log import Log, Progress
from decoder.training.runtime import (
    choose_threads,
    device_name,
    join_processes,
    leave_processes,
    pick_device,
    signals_caught,
)
from decoder.training.state import TrainingState
from decoder.training.stored import Preparing, StoredShots
from decoder.training.validation import Validation

CHECKPOINT, WEIGHTS, LOG, STORE = "checkpoint.safetensors", "weights.safetensors", "log.csv", "shots"


def train(
    config: TrainingConfig,
    *,
    out: Path,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
    preparing: Preparing | None = None,
) -> Path:
    """Trains until the time or the steps are over, or a signal ends it, and leaves complete files in `out`.

    `checkpoint.safetensors` continues the run, `weights.safetensors` (averaged weights, calibrated) decodes, and
    `log.csv` holds a row every `log_every` steps. Under torchrun the micro-batches are shared by the processes.

    A judge is trained on shots whose solutions disagree. Those that its store lacks are made at first, which takes far
    longer than to train on them; a run that is ended meanwhile finds them when it is started again.

    Args:
        config: all settings.
        out: the run's directory.
        resume: continue the run in `out`.
        force: start anew although `out` holds a run.
        progress: called with every row of the log.
        preparing: called while something else than training takes its time, such as making shots for a judge, and
            validations; see `decoder.training.stored.Preparing`.

    Returns:
        The path of the weights.

    Raises:
        ValueError: settings that do not fit, or a checkpoint of another run.
        OSError: `out` cannot be written, or there is nothing to resume.
    """
    weights = Trainer(config, out=out, resume=resume, force=force, preparing=preparing).run(progress)
    leave_processes()
    return weights


class Trainer:
    def __init__(
        self,
        config: TrainingConfig,
        *,
        out: Path,
        resume: bool = False,
        force: bool = False,
        preparing: Preparing | None = None,
    ) -> None:
        if config.minutes is None and config.steps is None:
            raise ValueError("say when to end: give --minutes or --steps")
        self.config, self.out = config, out
        checkpoint = out / CHECKPOINT
        if checkpoint.exists() and not (resume or force):
            raise FileExistsError(f"{out} holds a run already; continue it with --resume or replace it with --force")
        if resume and not checkpoint.exists():
            raise FileNotFoundError(f"{out} holds no checkpoint to resume; leave --resume out to start a run there")
        out.mkdir(parents=True, exist_ok=True)
        self.rank, self.world = join_processes()
        if self.world > config.micro_batches:
            raise ValueError(f"{self.world} processes share micro_batches={config.micro_batches}; set at least as many")
        self.device = pick_device(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.state = TrainingState(config, self.device)
        if resume:
            self.state.load(checkpoint, config)
        elif config.init_from:
            self.state.init_from(config.init_from)
        self.model = self.state.model
        if self.rank == 0:
            self.log = Log(out / LOG, keep_until=self.state.counters.step)
        self.last_validation: Mapping[str, Any] = {}
        self.preparing = preparing
        self.shots, self.validation = self._material(preparing)
        if self.device.type == "cpu" and not config.threads and self.world == 1:
            self._choose_threads()
        if config.compile:
            for part in self.model.compiled_parts():
                part.compile(dynamic=False)

    def _material(self, preparing: Preparing | None) -> tuple[FreshShots | StoredShots, Validation | HeldOut]:
        """The shots to train on, and those to test on."""
        config = self.config
        if not config.model.judges:
            return FreshShots(config, self.model), Validation(config, self.device)
        store = Path(config.store) if config.store else self.out / STORE
        shots = StoredShots(config, self.model, store, rank=self.rank, world=self.world, preparing=preparing)
        return shots, HeldOut(config, store, preparing=preparing)

    def _choose_threads(self) -> None:
        if self.preparing is not None:
            self.preparing("trying how many threads are fastest", 0.0)
        choose_threads(lambda: self.shots.loss(0, step=0, shots=0).backward())  # type: ignore[no-untyped-call]
        self.model.zero_grad(set_to_none=True)

    # --- the loop ---

    def run(self, progress: Callable[[Progress], None] | None) -> Path:
        if self.rank == 0:
            self.save()  # an unwritable directory shows now, not after an hour
        config, counters, losses = self.config, self.state.counters, []
        saved = reported = time.monotonic()
        shots = counters.shots
        with signals_caught() as stopped:
            while not self._agree(bool(stopped) or self.fraction >= 1):
                started = time.monotonic()
                losses.append(self.step())
                due = counters.step % config.log_every == 0 or self._is_early
                loss = torch.stack(losses).mean().item() if due else None  # the only host synchronisation of the loop
                counters.seconds += time.monotonic() - started
                if loss is not None:
                    rate = (counters.shots - shots) / (time.monotonic() - reported)
                    self._report(loss, rate, progress)
                    if config.validate_every and counters.step % config.validate_every == 0:
                        self.validate()
                    losses, shots, reported = [], counters.shots, time.monotonic()
                if self.rank == 0 and time.monotonic() - saved > config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        if self.rank == 0:
            self.save()  # first: validation takes a while, and whoever ends a run may lose patience
        self.validate()
        if self.rank == 0:
            self.export()
        return self.out / WEIGHTS

    @property
    def fraction(self) -> float:
        """How much of the run is done: of its steps or of its time, whichever is further."""
        counters, config = self.state.counters, self.config
        by_steps = counters.step / config.steps if config.steps else 0.0
        by_time = counters.seconds / (60 * config.minutes) if config.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    @property
    def _is_early(self) -> bool:
        """Whether this is step 1, 2, 4, ... before the first row that is due: nobody waits for a minute to see one."""
        step = self.state.counters.step
        return step < self.config.log_every and step & (step - 1) == 0

    def step(self) -> torch.Tensor:
        """One optimizer step; returns the mean loss over all micro-batches."""
        config, counters = self.config, self.state.counters
        total = torch.zeros((), device=self.device)
        for micro in range(self.rank, config.micro_batches, self.world):
            loss = self.shots.loss(micro, step=counters.step, shots=counters.shots) / config.micro_batches
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if self.world > 1:
            for parameter in self.model.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
            dist.all_reduce(total)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        scale = self.lr_scale()
        for optimizer, peak in zip(self.state.optimizers, self.state.peak_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        counters.step += 1
        counters.shots += config.step_shots
        self.state.update_average(config.ema_decay)
        return total

    def lr_scale(self) -> float:
        config = self.config
        warmup = min(1.0, (self.state.counters.step + 1) / max(1, config.warmup_steps))
        left = 1 - self.fraction
        decay = 1.0 if left >= config.decay_fraction else left / config.decay_fraction
        return warmup * (config.final_lr + (1 - config.final_lr) * decay)

    # --- reports and files ---

    def validate(self) -> None:
        if self.rank == 0:
            failures = self.validation.failures(self.state.average, preparing=self.preparing)
            counters = self.state.counters
            self.log.write_validation(failures, step=counters.step, shots=counters.shots)
            self.last_validation = self.validation.report(failures)

    def _report(self, loss: float, rate: float, progress: Callable[[Progress], None] | None) -> None:
        counters = self.state.counters
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss is {loss} at step {counters.step}: lower muon_lr or adam_lr; the last checkpoint in "
                f"{self.out} is intact"
            )
        report = Progress(
            step=counters.step,
            shots=counters.shots,
            seconds=counters.seconds,
            shots_per_second=rate,
            loss=loss,
            lr=self.state.optimizers[0].param_groups[0]["lr"],
            fraction=self.fraction,
            validation=self.last_validation,
            device=device_name(self.device),
        )
        if self.rank == 0:
            self.log.write(report)
            if progress is not None:
                progress(report)

    def save(self) -> None:
        self.state.save(self.out / CHECKPOINT, self.config)

    def export(self) -> None:
        """Writes the averaged weights with a calibration fitted on held-out shots."""
        config, counters = self.config, self.state.counters
        provenance = {
            "shots": counters.shots,
            "steps": counters.step,
            "seconds": round(counters.seconds, 1),
            "device": device_name(self.device),
            "torch": torch.__version__,
            "training": asdict(config),
            "validation": self.last_validation,
        }
        save_weights(
            self.out / WEIGHTS,
            self.state.average,
            bases=config.bases,
            rounds=tuple(experiments.rounds for experiments in config.experiments),
            calibration=self.validation.calibration(self.state.average),
            provenance=provenance,
            codes=tuple(dict.fromkeys(experiments.code for experiments in config.experiments)),
        )

    def _agree(self, stop: bool) -> bool:
        """True as soon as any process wants to stop, so that all stop after the same step; one clock for all."""
        if self.world == 1:
            return stop
        agreed = torch.tensor([float(stop), self.state.counters.seconds], dtype=torch.float64, device=self.device)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        self.state.counters.seconds = float(agreed[1])
        return bool(agreed[0] > 0)
