from dataclasses import replace

import numpy as np
import pytest

from decoder.benchmark.counting.slopes import fit_slopes
from decoder.benchmark.reporting.results import FailurePoint
from tests.decoder.benchmark.points import FAILURES


def curve(failures: dict[float, int], shots: int = 100_000) -> list[FailurePoint]:
    return [replace(FAILURES, p=p, shots=shots, failures=count, ler=count / shots) for p, count in failures.items()]


def test_the_exponent_of_a_power_law_is_found() -> None:
    [slope] = fit_slopes(curve({p: round(5e7 * (p / 0.003) ** 4.5) for p in (0.001, 0.002, 0.003)}, shots=10**9))
    assert slope.slope == pytest.approx(4.5, abs=0.01)
    assert slope.slope_low < 4.5 < slope.slope_high
    assert (slope.p_low, slope.p_high) == (0.001, 0.003)


def test_the_interval_holds_the_exponent_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    p = np.array([0.001, 0.002, 0.003])
    held = 0
    for _ in range(200):
        failures = rng.binomial(20_000, 0.01 * (p / 0.003) ** 4)
        [slope] = fit_slopes(curve(dict(zip(p.tolist(), failures.tolist(), strict=True)), shots=20_000))
        held += slope.slope_low < 4 < slope.slope_high
    assert 170 <= held <= 200


def test_a_point_without_failures_counts() -> None:
    [without] = fit_slopes(curve({0.002: 20, 0.003: 100}))
    [with_it] = fit_slopes(curve({0.001: 0, 0.002: 20, 0.003: 100}))
    assert with_it.slope > without.slope


def test_there_is_no_slope_without_two_p() -> None:
    assert fit_slopes(curve({0.001: 0, 0.002: 5})) == ()
    assert fit_slopes(curve({0.002: 500, 0.004: 50_000})) == ()  # half of the shots: above what is fitted
    assert fit_slopes([replace(point, noise="cnot=0.1") for point in curve({0.002: 5, 0.003: 9})]) == ()
