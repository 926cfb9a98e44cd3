"""How steeply failures fall with p: the exponent s of a fit ler = c p^s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder.benchmark.reporting.results import FailurePoint

MOST_LER = 0.1
"""Rates above bend towards that of a guess, so their points are left out."""
TWO_SIDED = 1.959964
"""Standard deviations of a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The fit to one decoder's points at several p of one code, rounds, basis and noise."""

    first: FailurePoint
    """One of the points, which differ in p and counts alone."""
    p_low: float
    """The least p of the fit."""
    p_high: float
    slope: float
    """s. Where the lightest errors that a decoder gets wrong have w faults and p is low enough, s is w."""
    slope_low: float
    """Low end of the 95 % interval, from the curvature of the likelihood."""
    slope_high: float


def fit_slopes(points: Sequence[FailurePoint]) -> tuple[Slope, ...]:
    """Fits each curve that has failures at two p or more, by maximum likelihood of the binomial counts.

    A point without failures counts too: so few would be unlikely were the rate much higher.
    """
    curves: dict[tuple[object, ...], list[FailurePoint]] = {}
    for point in points:
        if point.noise in ("uniform", "si1000") and point.ler <= MOST_LER:
            key = point.code, point.rounds, point.basis, point.noise, point.decoder
            curves.setdefault(key, []).append(point)
    return tuple(_fit(curve) for curve in curves.values() if len({q.p for q in curve if q.failures}) > 1)


def _fit(curve: Sequence[FailurePoint]) -> Slope:
    p = np.array([point.p for point in curve])
    failures = np.array([point.failures for point in curve])
    shots = np.array([point.judged for point in curve])
    distance = np.log(p) - np.average(np.log(p), weights=failures)  # so that c and s hardly depend on each other
    features = np.stack([np.ones(len(p)), distance], axis=1)

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        log_rate = np.minimum(features @ parameters, -1e-9)
        rate = np.exp(log_rate)
        likelihood = failures * log_rate + (shots - failures) * np.log1p(-rate)
        return -float(likelihood.sum()), -((failures - shots * rate) / (1 - rate)) @ features

    import scipy.optimize  # takes a third of a second to import

    start = np.array([np.log(failures.sum() / shots.sum()), 3.0])
    found = scipy.optimize.minimize(loss, start, jac=True, method="BFGS").x
    rate = np.exp(features @ found)
    information = (features * (shots * rate / (1 - rate))[:, None]).T @ features
    error = TWO_SIDED * float(np.sqrt(np.linalg.inv(information)[1, 1]))
    slope = float(found[1])
    return Slope(
        first=curve[0],
        p_low=float(p.min()),
        p_high=float(p.max()),
        slope=slope,
        slope_low=slope - error,
        slope_high=slope + error,
    )
