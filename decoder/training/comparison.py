"""A judge beside the rules without a network, on held-out shots whose solutions disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from torch import Tensor

from decoder.neural.calibration import Calibration
from decoder.neural.network import Network
from decoder.training.config import HELD_OUT_SEED, TrainingConfig
from decoder.training.store import Point, ShotStore
from decoder.training.stored import Bench, Preparing, prepared, sharing

BATCH = 256
IMPOSSIBLE = 1e-6
"""So likely counts the truth where it is not among the candidates, or where all speaks against it."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How often each chooses wrongly, of the same shots."""

    shots: int
    none_right: int
    """Shots whose true coset is not among the candidates, so that all choose wrongly."""
    judge: int
    free_energy: int
    """By the least free energy, as `serial` chooses."""
    votes: int
    """By the most solutions in one coset; of several with as many, the one with the least free energy."""
    judge_alone: int
    """Shots in which the judge is wrong and the free energy right."""
    free_energy_alone: int
    """The other way round."""
    judge_loss: float
    """The mean negative log-likelihood of the true coset in nats, where it is among the candidates."""
    free_energy_loss: float
    """The same by the free energies alone."""

    @property
    def difference(self) -> tuple[int, float, float]:
        """Judge less free energy, and its 95 % interval, which the shots in which only one of both is wrong give."""
        change, uneven = self.judge_alone - self.free_energy_alone, self.judge_alone + self.free_energy_alone
        spread = 1.96 * math.sqrt(max(uneven - change**2 / max(1, self.shots), 1))
        return change, change - spread, change + spread

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test: how likely so uneven counts are if both are equally good."""
        uneven = self.judge_alone + self.free_energy_alone
        return float(binomtest(self.judge_alone, uneven).pvalue) if uneven else 1.0

    def __str__(self) -> str:
        change, low, high = self.difference
        return (
            f"judge {self.judge}, free energy {self.free_energy}, votes {self.votes} of {self.shots} "
            f"({change:+d}; 95 %: {low:+.0f} to {high:+.0f}; p {self.p_value:.2g}; nats {self.judge_loss:.4f}, "
            f"{self.free_energy_loss:.4f})"
        )


class HeldOut:
    """Held-out shots of every code, basis and error rate of a run."""

    def __init__(self, config: TrainingConfig, folder: Path, *, preparing: Preparing | None = None) -> None:
        """Makes what is missing in the store, and reads it; see `decoder.training.stored.StoredShots`."""
        store = ShotStore(folder, candidates=config.model.candidates, threads=torch.get_num_threads())
        points = [
            Point(code=experiments.code, basis=basis, rounds=experiments.rounds, p=p, seed=HELD_OUT_SEED)
            for experiments in config.experiments
            for basis in config.memory_bases
            for p in (config.validation_p if experiments.code == config.model.code else [experiments.p_min])
        ]
        shots = prepared(store, points, wanted=config.validation_shots, preparing=preparing)
        names = {point: f"{point.code} {point.basis} {point.rounds} {point.p:g}" for point in points}
        self.codes = {names[point]: point.code for point in points}
        self.benches = {names[point]: Bench.of([point], shots[point], candidates=store.most) for point in points}

    def failures(self, model: Network, *, preparing: Preparing | None = None) -> dict[str, Comparison]:
        """The comparison by code, basis, rounds and p."""
        opinions = self._opinions(model, preparing)
        return {name: _compared(bench, *scores) for name, (bench, *scores) in opinions.items()}

    def report(self, comparisons: Mapping[str, object]) -> dict[str, Any]:
        """What `failures` has found, for the weights file."""
        return {name: asdict(found) for name, found in comparisons.items() if isinstance(found, Comparison)}

    def calibration(self, model: Network) -> Calibration:
        """The temperature of the free energies with the least negative log-likelihood of the true candidates.

        What the network adds stays as it is; see `decoder.neural.judge.JudgedDecoder`.
        """
        parts = list(self._opinions(model).values())

        def loss(log_temperature: float) -> float:
            losses = [_losses(bench, learned + given / math.exp(log_temperature)) for bench, learned, given in parts]
            return float(torch.cat(losses).mean())

        best = minimize_scalar(loss, bounds=(math.log(0.2), math.log(5.0)), method="bounded")
        return Calibration(temperature=math.exp(float(best.x)))

    @torch.inference_mode()
    def _opinions(self, model: Network, preparing: Preparing | None = None) -> dict[str, tuple[Bench, Tensor, Tensor]]:
        """See `Bench.opinions`; on the CPU, in double precision."""
        networks, device = sharing(model, list(self.codes.values())), next(model.parameters()).device
        found, done, shots = {}, 0, sum(len(bench.shots.truth) for bench in self.benches.values())
        for name, bench in self.benches.items():
            batches = np.array_split(np.arange(len(bench.shots.truth)), -(-len(bench.shots.truth) // BATCH))
            parts = []
            for batch in batches:
                parts.append(bench.opinions(networks[self.codes[name]], batch, device=device))
                done += len(batch)
                if preparing is not None:
                    preparing(f"validating: {done:,} of {shots:,} shots", done / shots)
            learned, given = (torch.cat(part).cpu().double() for part in zip(*parts, strict=True))
            found[name] = bench, learned, given
        return found


def _losses(bench: Bench, scores: Tensor) -> Tensor:
    """The negative log-likelihood of each true candidate, of the shots that have one."""
    right = torch.from_numpy(bench.shots.right)
    return -torch.log_softmax(scores, dim=1)[right].clamp(min=math.log(IMPOSSIBLE))


def _compared(bench: Bench, learned: Tensor, given: Tensor) -> Comparison:
    right = bench.shots.right
    there = np.isfinite(bench.shots.candidates.energies)
    votes = np.where(there, bench.shots.candidates.votes, -1)

    def wrong(chosen: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        return np.asarray(~np.take_along_axis(right, chosen[:, None], axis=1)[:, 0])

    judge, energy = wrong((learned + given).argmax(dim=1).numpy()), wrong(given.argmax(dim=1).numpy())
    return Comparison(
        shots=len(right),
        none_right=int((~right.any(axis=1)).sum()),
        judge=int(judge.sum()),
        free_energy=int(energy.sum()),
        votes=int(wrong(votes.argmax(axis=1)).sum()),  # the first of equals, which is the likeliest
        judge_alone=int((judge & ~energy).sum()),
        free_energy_alone=int((energy & ~judge).sum()),
        judge_loss=float(_losses(bench, learned + given).mean()),
        free_energy_loss=float(_losses(bench, given).mean()),
    )
