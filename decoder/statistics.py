"""Failure rates with their uncertainty."""

from __future__ import annotations

import math


def rate_with_interval(failures: int, shots: int) -> tuple[float, float, float]:
    """failures / shots and its exact 95 % interval; of no shots 0, and the interval from 0 to 1."""
    return (failures / shots, *binomial_interval(failures, shots)) if shots else (0.0, 0.0, 1.0)


def binomial_interval(failures: int, shots: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % interval of a failure probability."""
    import scipy.stats  # takes half a second to import

    interval = scipy.stats.binomtest(failures, shots).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def shots_in_share(share: float, shots: int) -> int:
    """How many shots a share of them is, rounded down but for the errors of floats: 0.07 * 100 is not quite 7."""
    return math.floor(round(share * shots, 6))
