"""From scores of cosets to probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

# Only the best so many of the (4,096) cosets are given a chance: with a power below 1 the small ones of all others,
# of which there are thousands, would add up.
CANDIDATES = 64
# Of the logarithms of temperature and power.
BOUNDS = ((-7.0, 12.0), (-3.0, 1.5))


@dataclass(frozen=True)
class Calibration:
    """log P(coset) = -(gap / temperature)^power + constant for the best cosets, the gap being to the best score.

    With power 1 it is the usual temperature (Guo et al., arXiv 1706.04599). The scores of the vote are sums of outputs
    that are far from independent, and least so in doubtful shots: there a temperature that is right for the sure shots
    makes the network too modest. The power, near 1/2, sees to both.
    """

    temperature: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "power"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")

    def log_posterior(self, scores: Tensor) -> Tensor:
        """Log-probabilities float64 (B, 2^k) of the cosets with these scores (B, 2^k)."""
        # In float64, or the sure shots would all have the probability 1 and no order among them.
        top = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1).values
        gaps = (top[:, :1] - scores).double().masked_fill(scores < top[:, -1:], float("inf"))
        return torch.log_softmax(-((gaps / self.temperature) ** self.power), dim=1)

    @staticmethod
    def fit(scores: Sequence[Tensor], truth: Sequence[Tensor]) -> Calibration:
        """The calibration with the least negative log-likelihood.

        Args:
            scores: batches (B, 2^k) of scores.
            truth: the true cosets (B,) of each batch.
        """
        gaps, true_gap = _gaps(scores, truth)

        def negative_log_likelihood(logarithms: npt.NDArray[np.float64]) -> float:
            temperature, power = np.exp(logarithms)
            evidence = torch.logsumexp(-((gaps / temperature) ** power), dim=1)
            return float(((true_gap / temperature) ** power + evidence).mean())

        best = minimize(
            negative_log_likelihood,
            x0=np.array([np.log(np.clip(float(gaps.mean()), 1e-3, 1e4)) / 2, -0.5]),
            method="Nelder-Mead",
            bounds=BOUNDS,  # networks that know nothing would run away to infinite temperatures
            options={"xatol": 1e-3, "fatol": 1e-7},
        )
        temperature, power = np.exp(best.x)
        return Calibration(float(temperature), float(power))


def _gaps(scores: Sequence[Tensor], truth: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gaps (shots, CANDIDATES) of the best cosets to the best one, and those (shots,) of the true ones."""
    best, true = [], []
    for batch, coset in zip(scores, truth, strict=True):
        top = batch.topk(min(CANDIDATES, batch.shape[1]), dim=1).values
        best.append((top[:, :1] - top).double())
        true.append((top[:, 0] - batch.gather(1, coset[:, None]).squeeze(1)).double())
    return torch.cat(best).cpu(), torch.cat(true).cpu()
