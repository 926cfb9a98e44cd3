"""Fresh shots: every micro-batch is drawn, seen once and forgotten."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoder.neural.geometry import NETWORK_BASES
from decoder.neural.network import Network
from decoder.training.config import TrainingConfig
from decoder.training.sampler import FaultSampler
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.noise import NoiseModel


class FreshShots:
    """What a network that decodes alone is trained on."""

    def __init__(self, config: TrainingConfig, model: Network) -> None:
        self.config, self.model = config, model
        self.device = next(model.parameters()).device
        self.samplers: dict[tuple[Basis, int, float], FaultSampler] = {}

    def loss(self, micro: int, *, step: int, shots: int) -> Tensor:
        """The network's loss on one micro-batch, a pure function of the seed and the arguments.

        Args:
            micro: which micro-batch of the step.
            step: optimizer steps taken.
            shots: shots seen; the curriculum follows them.
        """
        config = self.config
        # One number of rounds for the whole step, so that no process waits for another's longer experiments.
        rounds = int(np.random.default_rng((config.seed, step)).choice(config.rounds))
        random = np.random.default_rng((config.seed, step, micro))
        basis: Any = config.bases[micro % len(config.bases)]
        p = float(random.choice(self.error_rates(shots)))
        # The same p gives a longer experiment more faults: lower it, but less than in proportion, so that shots
        # stay neither trivial nor hopeless and still come near the p at which long experiments will be decoded.
        p *= math.sqrt(min(config.rounds) / rounds)
        sampler = self._sampler(basis, rounds, p)
        events, flips = sampler.sample(config.micro_batch, seed=int(random.integers(2**62)))
        which = NETWORK_BASES.index(basis)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
            if config.hard_share < 1:
                chosen = self.least_sure(events, basis=which)
                events, flips = events[..., chosen], flips[chosen]
            return self.model.loss(events, flips, basis=which, coset_weight=config.coset_weight)

    @torch.no_grad()
    def least_sure(self, events: Tensor, *, basis: int) -> Tensor:
        """The shots whose best coset leads the second by least.

        Chosen by the events alone, so among the shots with the same events the share of each coset stays true.
        """
        best, second = self.model.scores(events, basis=basis).topk(2, dim=1).values.unbind(1)
        count = max(1, round(self.config.hard_share * len(best)))
        return (best - second).topk(count, largest=False).indices

    def error_rates(self, shots: int) -> list[float]:
        """The error rates in play after so many shots: about one fault a shot at first, the whole range at the end."""
        config = self.config
        done = min(1.0, shots / config.curriculum_shots) if config.curriculum_shots else 1.0
        start = min(self._one_fault_p, config.p_max)
        low = start * (config.p_min / start) ** done
        high = start * (config.p_max / start) ** done
        inside = [p for p in self._grid if low * 0.999 <= p <= high * 1.001]
        return inside or [min(self._grid, key=lambda p: abs(math.log(p / high)))]

    @cached_property
    def _one_fault_p(self) -> float:
        longest = max(self.config.rounds)
        return self.config.p_min / self._sampler("Z", longest, self.config.p_min).mean

    @cached_property
    def _grid(self) -> list[float]:
        config = self.config
        grid: list[float] = np.geomspace(config.p_min, config.p_max, config.p_points).tolist()
        if self._one_fault_p < config.p_min:
            grid = [*np.geomspace(self._one_fault_p, config.p_min, 4)[:-1].tolist(), *grid]
        return grid

    def _sampler(self, basis: Basis, rounds: int, p: float) -> FaultSampler:
        key = (basis, rounds, p)
        if key not in self.samplers:
            # Only the first error rate of a basis and a number of rounds pays for the mechanisms; others share them.
            shared = next((s for (b, r, _), s in self.samplers.items() if (b, r) == (basis, rounds)), None)
            if shared is None:
                experiment = MemoryExperiment.create(code=self.config.model.code, basis=basis, rounds=rounds, p=p)
                self.samplers[key] = FaultSampler(experiment, device=self.device)
            else:
                self.samplers[key] = shared.at(NoiseModel.uniform(p))
        return self.samplers[key]
