import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.benchmark.calibration import (
    SHARES,
    brier_score,
    expected_calibration_error,
    least_confident,
    reliability_bins,
    run_calibration,
    sorted_answers,
)
from decoder.benchmark.common import BenchmarkProgress
from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.reporting.plots import draw_plots
from decoder.benchmark.reporting.results import BenchmarkResult, CalibrationPoint
from decoder.benchmark.reporting.tables import least_confident_table
from decoder.benchmark.runs import AccuracyRun, CalibrationRun
from decoder.neural.decoder import NeuralDecoder
from decoder.statistics import binomial_interval
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

SHOTS, SEED = 300, 17

# Few different values, so that many shots are equally sure.
answered = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.75, 0.9, 1.0]), st.booleans()), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def experiments() -> list[MemoryExperiment]:
    return [MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=p) for p in (0.004, 0.007)]


@pytest.fixture(scope="module")
def result(experiments: list[MemoryExperiment]) -> BenchmarkResult[CalibrationPoint]:
    return run_calibration(experiments, "neural", CalibrationRun(shots=SHOTS, seed=SEED, chunk_shots=128))


@pytest.mark.parametrize(
    ("confidence", "failed", "error"),
    [
        ([1.0, 1.0], [False, False], 0.0),
        ([1.0, 1.0], [True, True], 1.0),
        ([0.9], [False], 0.1),
        # All in one bin: half of them are right, at a mean confidence of 0.95.
        ([0.94, 0.96], [True, False], 0.45),
        # Two bins, of a quarter and three quarters of the shots: |1 - 0.5| / 4 + |2/3 - 0.7| * 3/4.
        ([0.5, 0.69, 0.70, 0.71], [False, True, False, False], 0.5 / 4 + (0.7 - 2 / 3) * 3 / 4),
        # 0.6 is the high end of the ninth bin and in it; together with 0.61 half would be right at 0.605.
        ([0.6, 0.61], [True, False], (0.6 + 0.39) / 2),
        ([0.0, 0.02], [False, True], 0.49),
    ],
)
def test_expected_calibration_error_by_hand(confidence: list[float], failed: list[bool], error: float) -> None:
    bins = reliability_bins(sorted_answers(confidence, failed))
    assert expected_calibration_error(bins) == pytest.approx(error)


def test_bins_tile_the_confidence() -> None:
    bins = reliability_bins(sorted_answers([0.0, 0.25, 0.26, 0.5, 1.0], [True, False, True, False, False]), bins=4)
    assert [(q.low, q.high) for q in bins] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert [(q.shots, q.failures, q.mean_confidence) for q in bins] == [
        *((2, 1, 0.125), (2, 1, 0.38), (0, 0, None), (1, 0, 1.0))
    ]


def test_brier_score_by_hand() -> None:
    assert brier_score(sorted_answers([0.8, 0.6, 1.0], [False, True, False])) == pytest.approx((0.04 + 0.36 + 0) / 3)


@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(1, 1), (8, 1), (0.5, 0.5)]))
def test_calibrated_confidence_has_a_small_error_and_too_much_of_it_a_large_one(
    seed: int, shape: tuple[float, float]
) -> None:
    """The mean of the error over such samples is at most sqrt(15 / (4 shots)) = 0.028.

    One shot moves it by at most 1 / shots, so by McDiarmid's inequality it is above 0.08 in less than one of
    10^11 samples.
    """
    rng, shots = np.random.default_rng(seed), 5000
    confidence = rng.beta(*shape, shots)
    failed = rng.random(shots) > confidence
    assert expected_calibration_error(reliability_bins(sorted_answers(confidence, failed))) < 0.08
    often = rng.random(shots) > 0.8 * confidence
    too_sure = expected_calibration_error(reliability_bins(sorted_answers(confidence, often)))
    assert too_sure > 0.2 * confidence.mean() - 0.08


@given(answered, st.randoms(use_true_random=False))
def test_the_order_of_the_shots_changes_nothing(shots: list[tuple[float, bool]], random: object) -> None:
    def measure(rows: list[tuple[float, bool]]) -> object:
        answers = sorted_answers([c for c, _ in rows], [f for _, f in rows])
        bins = reliability_bins(answers)
        least = [least_confident(answers, share) for share in SHARES]
        return bins, expected_calibration_error(bins), brier_score(answers), least

    shuffled = list(shots)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert measure(shuffled) == measure(shots)


@given(answered, st.sampled_from([*SHARES, 0.25, 0.5, 0.99]))
def test_least_confident_shots_by_brute_force(shots: list[tuple[float, bool]], share: float) -> None:
    found = least_confident(sorted_answers([c for c, _ in shots], [f for _, f in shots]), share)
    # Of all sets {confidence below t} the largest with at most that share of the shots.
    below = [[f for c, f in shots if c < t] for t, _ in shots]
    largest = max((rows for rows in below if len(rows) <= share * len(shots)), key=len)
    assert (found.shots, found.failures) == (len(largest), sum(largest))
    assert [f for c, f in shots if c < found.threshold] == largest
    failures = sum(f for _, f in shots)
    assert (found.accepted, found.accepted_failures) == (len(shots) - found.shots, failures - found.failures)
    assert found.accepted_ler == found.accepted_failures / found.accepted
    interval = binomial_interval(found.accepted_failures, found.accepted)
    assert (found.accepted_ler_low, found.accepted_ler_high) == interval
    if failures:
        assert found.failures_share == found.failures / failures
        assert (found.failures_share_low, found.failures_share_high) == binomial_interval(found.failures, failures)
    else:
        assert found.failures_share is found.failures_share_low is found.failures_share_high is None


def test_a_whole_share_is_taken_where_no_shots_are_equal() -> None:
    answers = sorted_answers(np.arange(1, 1001) / 1001, np.arange(1000) < 7)
    for share, shots, failures in ((0.001, 1, 1), (0.005, 5, 5), (0.07, 70, 7), (0.0059, 5, 5)):
        found = least_confident(answers, share)
        assert (found.shots, found.failures) == (shots, failures)
        assert found.threshold == (shots + 1) / 1001


def test_what_cannot_be_measured_is_refused() -> None:
    for confidence, failed in (([], []), ([0.5], [True, False]), ([[0.5]], [[True]])):
        with pytest.raises(ValueError, match="must hold one value"):
            sorted_answers(confidence, failed)
    for value in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="must be a probability"):
            sorted_answers([0.5, value], [True, True])
    with pytest.raises(ValueError, match="no shot"):
        expected_calibration_error([])
    for share in (0, 1, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"must be above 0 and below 1"):
            least_confident(sorted_answers([0.5], [True]), share)


def test_points_hold_what_the_network_answers(
    experiments: list[MemoryExperiment], result: BenchmarkResult[CalibrationPoint]
) -> None:
    for experiment, point in zip(experiments, result.points, strict=True):
        samples = sample(experiment.circuit, shots=SHOTS, seed=SEED)
        decoded = NeuralDecoder.load(experiment).decode_soft(samples.detection_events, bit_packed_shots=True)
        right = (pack_bits(decoded.predictions) == samples.observable_flips).all(axis=1)
        assert 0 < point.failures == (~right).sum() < SHOTS
        assert point.mean_confidence == pytest.approx(decoded.confidence.mean(), abs=1e-6)
        assert point.brier == pytest.approx(np.mean((decoded.confidence - right) ** 2), abs=1e-6)
        assert sum(one.shots for one in point.bins) == SHOTS
        assert sum(one.failures for one in point.bins) == point.failures
        assert [one.share for one in point.least_confident] == list(SHARES)
        for least in point.least_confident:
            doubtful = decoded.confidence < least.threshold
            assert (least.shots, least.failures) == (doubtful.sum(), (doubtful & ~right).sum())


def test_failures_are_those_of_the_accuracy_benchmark(
    experiments: list[MemoryExperiment], result: BenchmarkResult[CalibrationPoint]
) -> None:
    expected = run_accuracy(experiments, ["neural"], AccuracyRun(shots=SHOTS, seed=SEED)).points
    for point, accuracy in zip(result.points, expected, strict=True):
        same = {name: value for name, value in vars(accuracy).items() if name != "seconds" and name in vars(point)}
        assert {name: getattr(point, name) for name in same} == same
        assert point.seconds > 0


def test_report_is_complete(
    result: BenchmarkResult[CalibrationPoint], experiments: list[MemoryExperiment], tmp_path: Path
) -> None:
    again = run_calibration(experiments, "neural", CalibrationRun(shots=SHOTS, seed=SEED, out=tmp_path / "r"))
    folder = tmp_path / "r"
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "results.csv", "results.md", "bins.csv", "least_confident.csv"),
        *("ler.png", "reliability.png", "least-confident.png", "accepted.png"),
    }
    points = json.loads((folder / "results.json").read_text())["points"]
    assert points == json.loads(json.dumps(again.to_json()["points"]))
    for name in ("failures", "least_confident"):
        assert [point[name] for point in points] == [
            json.loads(json.dumps(point))[name] for point in result.to_json()["points"]
        ]
    for name in ("bins", "least_confident"):
        with (folder / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        nested = [{"p": point["p"]} | entry for point in points for entry in point[name]]
        for row, entry in zip(rows, nested, strict=True):
            assert {column: row[column] for column in entry} == {
                column: "" if value is None else str(value) for column, value in entry.items()
            }
    with (folder / "results.csv").open(newline="") as file:
        assert [row["ece"] for row in csv.DictReader(file)] == [str(point["ece"]) for point in points]
    text = (folder / "results.md").read_text()
    assert f"{points[0]['failures']}/300" in text
    assert "arXiv 1706.04599" in text


def test_plots_show_bins_and_shares(result: BenchmarkResult[CalibrationPoint]) -> None:
    plots = draw_plots(result)
    assert list(plots) == ["ler.png", "reliability.png", "least-confident.png", "accepted.png"]
    rates, counts = plots["reliability.png"].axes
    filled = [one for one in result.points[0].bins if one.shots]
    drawn = rates.containers[0][0].get_xydata()
    np.testing.assert_allclose(drawn, [(q.mean_confidence, 1 - q.failures / q.shots) for q in filled])
    steps: Any = counts.patches[0]
    assert steps.get_data().values.tolist() == [one.shots for one in result.points[0].bins]
    [axes] = plots["least-confident.png"].axes
    curve = np.asarray(axes.lines[1].get_xydata())
    assert curve[-1].tolist() == [1, 1]
    for least in result.points[0].least_confident:
        if least.shots:
            [at] = curve[np.isclose(curve[:, 0], least.shots / SHOTS)]
            assert at[1] == least.failures_share
    [axes] = plots["accepted.png"].axes
    kept = [least for least in result.points[0].least_confident if least.shots and least.accepted_failures]
    assert kept
    drawn = axes.containers[0][0].get_xydata()
    shares = [(least.shots / SHOTS, least.accepted_ler) for least in kept]
    np.testing.assert_allclose(drawn, [(0, result.points[0].ler), *shares])


def test_the_table_says_what_is_left_without_the_least_confident_shots() -> None:
    failed = np.arange(1000) < 7  # the seven least confident
    least = least_confident(sorted_answers(np.arange(1, 1001) / 1001, failed), 0.005)
    none = least_confident(sorted_answers(np.arange(1, 1001) / 1001, failed), 0.01)
    point = SimpleNamespace(basis="Z", p=0.003, failures=7, shots=1000, least_confident=(least, none))
    headings, first, second = least_confident_table([point])  # type: ignore[list-item]
    low, high = (f"{100 * end:.3g} %" for end in binomial_interval(2, 995))
    assert headings[-3:] == ["accepted without them", "failures/accepted", "block LER of the accepted"]
    assert first[-3:] == ["995/1,000 (99.5 %)", "2/995", f"0.201 % ({low} to {high})"]
    assert second[-3:] == ["990/1,000 (99 %)", "0/990", f"< {100 * binomial_interval(0, 990)[1]:.3g} %"]


def test_progress_ends_with_every_shot(experiments: list[MemoryExperiment]) -> None:
    seen: list[BenchmarkProgress] = []
    run_calibration(experiments[:1], "neural", CalibrationRun(shots=70, seed=1, chunk_shots=32), progress=seen.append)
    assert [step.done for step in seen] == [32, 64, 70]
    assert list(seen[-1].failures) == ["neural"]


def test_bad_requests_are_refused_before_the_work(experiments: list[MemoryExperiment], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="not empty"):
        run_calibration(experiments, "neural", CalibrationRun(shots=10, out=tmp_path))
    with pytest.raises(ValueError, match="chunk_shots=0"):
        run_calibration(experiments, "neural", CalibrationRun(shots=10, chunk_shots=0))
    with pytest.raises(ValueError, match="'bposd' does not say how sure it is; use 'neural'"):
        run_calibration(experiments, "bposd", CalibrationRun(shots=10))
    with pytest.raises(ValueError, match="shots=0"):
        run_calibration(experiments, "neural", CalibrationRun(shots=0))
    with pytest.raises(ValueError, match="given twice"):
        run_calibration([experiments[0]] * 2, "neural", CalibrationRun(shots=10))
