"""Held-out shots, made by stim and not by the training sampler: failures beside BP-OSD's, and the calibration."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from decoder.making import make_decoder
from decoder.neural.backends.events import EventPlacement, as_tensor
from decoder.neural.calibration import Calibration
from decoder.neural.geometry import NETWORK_BASES, TorusGeometry
from decoder.neural.network import Network, coset_number
from decoder.training.config import HELD_OUT_SEED, TrainingConfig
from decoder.training.stored import Preparing
from simulation.bases import Basis
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment

BATCH = 512
RIVAL = "bposd-osd0"
"""The decoder whose failures are shown beside the network's."""
RIVAL_SECONDS = 15.0
"""So long it decodes the shots of one basis and error rate; those that are left are not counted for it."""


class HeldOutShots(NamedTuple):
    """Shots of one experiment."""

    experiment: MemoryExperiment
    detections: Bits
    """(B, detectors)."""
    events: Tensor
    """The same as the network takes them."""
    flips: Bits
    """(B, observables)."""


class Validation:
    """Fixed shots for each basis, error rate and the smallest number of rounds of a training run."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.shots_each, self.device = config.validation_shots, device
        self.sets: dict[str, HeldOutShots] = {}
        for basis in cast(list[Basis], list(config.bases)):
            for p in config.validation_p:
                experiment = MemoryExperiment.create(
                    code=config.model.code, basis=basis, rounds=min(config.rounds), p=p
                )
                sampler = experiment.circuit.compile_detector_sampler(seed=HELD_OUT_SEED)
                detections, flips = sampler.sample(config.validation_shots, separate_observables=True)
                placement = EventPlacement(experiment.grid, TorusGeometry(experiment.code))
                events = as_tensor(placement.dense(detections), device)
                self.sets[f"{basis} {p:g}"] = HeldOutShots(experiment, detections, events, flips)

    @torch.inference_mode()
    def failures(self, model: Network, *, preparing: Preparing | None = None) -> dict[str, int]:
        """Block failures by basis and p."""
        found, done, shots = dict.fromkeys(self.sets, 0), 0, self.shots_each * len(self.sets)
        for name in self.sets:
            for scores, truth in self._scores(model, name):
                found[name] += int((scores.argmax(1) != truth).sum())
                done += len(truth)
                if preparing is not None:
                    preparing(f"validating: {done:,} of {shots:,} shots", done / shots)
        if preparing is not None and "rival" not in vars(self):
            preparing(f"decoding the same shots with {RIVAL}, once", 0.0)
        return found

    def report(self, failures: Mapping[str, object]) -> dict[str, Any]:
        """What `failures` has found, for the weights file, and beside it [failures, shots] of BP-OSD."""
        return {"shots_each": self.shots_each, "failures": dict(failures), RIVAL: self.rival}

    @cached_property
    def rival(self) -> dict[str, list[int]]:
        """Failures of BP-OSD by basis and p, and of how many of the same shots."""
        return {name: _counted(shots) for name, shots in self.sets.items()}

    @torch.inference_mode()
    def calibration(self, model: Network) -> Calibration:
        """The calibration with the least negative log-likelihood of the true cosets over all sets."""
        scores, truth = zip(*(part for name in self.sets for part in self._scores(model, name)), strict=True)
        return Calibration.fit(scores, truth)

    def _scores(self, model: Network, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Coset scores (b, 2^k) and the true coset (b,) of each batch."""
        experiment, _, events, flips = self.sets[name]
        truth = torch.from_numpy(flips).float().to(self.device)
        for part, true in zip(torch.split(events, BATCH, dim=-1), torch.split(truth, BATCH), strict=True):
            yield model.scores(part, basis=NETWORK_BASES.index(experiment.basis)), coset_number(true)


def _counted(shots: HeldOutShots) -> list[int]:
    decoder, end = make_decoder(RIVAL, shots.experiment), time.monotonic() + RIVAL_SECONDS
    failures = decoded = 0
    for first in range(0, len(shots.flips), BATCH):
        predictions = decoder.decode_batch(shots.detections[first : first + BATCH])
        failures += int(np.any(predictions != shots.flips[first : first + BATCH], axis=1).sum())
        decoded += len(predictions)
        if time.monotonic() > end:
            break
    return [failures, decoded]
