"""Held-out shots, made by stim and not by the training sampler: failures and the posterior's calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from decoder.neural.backends.events import EventPlacement, as_tensor
from decoder.neural.calibration import Calibration
from decoder.neural.geometry import NETWORK_BASES, TorusGeometry
from decoder.neural.network import Network, coset_number
from decoder.training.config import HELD_OUT_SEED, TrainingConfig
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment

BATCH = 512


class Validation:
    """Fixed shots for each basis, error rate and the smallest number of rounds of a training run."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.shots_each = config.validation_shots
        self.sets: dict[str, tuple[Basis, Tensor, Tensor]] = {}
        for basis in cast(list[Basis], list(config.bases)):
            for p in config.validation_p:
                experiment = MemoryExperiment.create(
                    code=config.model.code, basis=basis, rounds=min(config.rounds), p=p
                )
                sampler = experiment.circuit.compile_detector_sampler(seed=HELD_OUT_SEED)
                detections, flips = sampler.sample(config.validation_shots, separate_observables=True)
                placement = EventPlacement(experiment.grid, TorusGeometry(experiment.code))
                events = as_tensor(placement.dense(detections), device)
                self.sets[f"{basis} {p:g}"] = (basis, events, torch.from_numpy(flips).float().to(device))

    @torch.inference_mode()
    def failures(self, model: Network) -> dict[str, int]:
        """Block failures by basis and p."""
        return {
            name: sum(int((scores.argmax(1) != truth).sum()) for scores, truth in self._scores(model, name))
            for name in self.sets
        }

    def report(self, failures: Mapping[str, object]) -> dict[str, Any]:
        """What `failures` has found, for the weights file."""
        return {"shots_each": self.shots_each, "failures": dict(failures)}

    @torch.inference_mode()
    def calibration(self, model: Network) -> Calibration:
        """The calibration with the least negative log-likelihood of the true cosets over all sets."""
        scores, truth = zip(*(part for name in self.sets for part in self._scores(model, name)), strict=True)
        return Calibration.fit(scores, truth)

    def _scores(self, model: Network, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Coset scores (b, 2^k) and the true coset (b,) of each batch."""
        basis, events, flips = self.sets[name]
        for part, true in zip(torch.split(events, BATCH, dim=-1), torch.split(flips, BATCH), strict=True):
            yield model.scores(part, basis=NETWORK_BASES.index(basis)), coset_number(true)
