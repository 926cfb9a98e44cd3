import numpy as np
import pytest

from decoder.benchmark.common import check_request, count_failures, deadline_curve
from decoder.benchmark.runs import AccuracyRun, CalibrationRun, LatencyRun
from decoder.statistics import binomial_interval
from simulation.circuits import MemoryExperiment


def test_exact_binomial_interval() -> None:
    low, high = binomial_interval(0, 100)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert binomial_interval(100, 100) == pytest.approx((0.025 ** (1 / 100), 1))
    # Each end is the rate at which the count, or a more extreme one, has a chance of 2.5 %.
    low, high = binomial_interval(137, 10_000)
    trials = np.random.default_rng(0)
    assert np.mean(trials.binomial(10_000, low, 400_000) >= 137) == pytest.approx(0.025, abs=0.001)
    assert np.mean(trials.binomial(10_000, high, 400_000) <= 137) == pytest.approx(0.025, abs=0.001)


def test_a_shot_fails_once_however_many_observables_are_wrong() -> None:
    flips = np.array([[0, 0], [5, 1], [7, 7]], np.uint8)
    predictions = np.array([[0, 0], [2, 0], [7, 6]], np.uint8)
    assert count_failures(predictions, flips) == 2
    assert count_failures(flips, flips) == 0


def test_deadline_curve_counts_wrong_and_late_shots() -> None:
    times, rate = deadline_curve(np.array([3.0, 1.0, 2.0, 4.0]), np.array([1, 0, 2, 0]), batch=2)
    np.testing.assert_array_equal(times, [1, 2, 3, 4])
    np.testing.assert_allclose(rate, [0 + 3 / 4, 2 / 8 + 2 / 4, 3 / 8 + 1 / 4, 3 / 8 + 0])


def test_requests_that_cannot_be_run_are_refused() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.001)
    check_request([experiment], ["bposd"])
    for experiments, decoders, message in (
        ([], ["bposd"], "at least one experiment"),
        ([experiment], [], "at least one experiment and one decoder"),
        ([experiment], ["bposd", "mwpm"], "unknown decoder 'mwpm'"),
        ([experiment], ["bposd", "bposd"], "named twice"),
        ([experiment, experiment], ["bposd"], "given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            check_request(experiments, decoders)


@pytest.mark.parametrize("kind", [AccuracyRun, LatencyRun, CalibrationRun])
def test_a_run_without_shots_is_refused(kind: type[AccuracyRun | LatencyRun | CalibrationRun]) -> None:
    with pytest.raises(ValueError, match="shots=0 must be at least 1"):
        kind(shots=0)
