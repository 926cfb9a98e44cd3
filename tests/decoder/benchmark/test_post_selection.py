"""Accuracy with post-selection: failures among the shots that are accepted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sinter

from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.counting.slopes import fit_slopes
from decoder.benchmark.reporting.results import BenchmarkResult, PostSelectedPoint
from decoder.benchmark.reporting.tables import to_markdown
from decoder.benchmark.runs import AccuracyRun
from decoder.neural.decoder import NeuralDecoder
from decoder.statistics import binomial_interval
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.noise import NoiseModel
from simulation.shots.sampling import sample

SHOTS = 128


@pytest.fixture(scope="module")
def noisy() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.008)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accuracy") / "r"


@pytest.fixture(scope="module")
def result(noisy: MemoryExperiment, folder: Path) -> BenchmarkResult[PostSelectedPoint]:
    experiments = [noisy, replace(noisy, noise=NoiseModel.uniform(0.3))]  # of which one leaves nothing
    return run_accuracy(
        experiments, ["neural"], AccuracyRun(shots=SHOTS, seed=5, processes=1, discard_below=0.9, out=folder)
    )  # type: ignore[return-value]


def test_failures_are_those_of_the_accepted_shots(
    noisy: MemoryExperiment, result: BenchmarkResult[PostSelectedPoint], folder: Path
) -> None:
    samples = sample(noisy.circuit, shots=SHOTS, seed=5)
    decoded = NeuralDecoder.load(noisy).decode_soft(samples.detection_events, bit_packed_shots=True)
    wrong = (pack_bits(decoded.predictions) != samples.observable_flips).any(axis=1)
    sure = decoded.confidence >= 0.9
    failures, accepted = int((wrong & sure).sum()), int(sure.sum())
    assert 0 < failures < wrong.sum()
    point = result.points[0]
    assert (point.shots, point.accepted, point.discards) == (SHOTS, accepted, SHOTS - accepted)
    assert (point.failures, point.judged, point.ler) == (failures, accepted, failures / accepted)
    assert (point.ler_low, point.ler_high) == binomial_interval(failures, accepted)
    assert point.per_round == pytest.approx(1 - np.sqrt(1 - point.ler))
    for name in ("stats.csv", "blocks.csv"):
        both = sinter.stats_from_csv_files(folder / name)
        assert {one.json_metadata["discard_below"] for one in both} == {0.9}
        stats = [one for one in both if one.json_metadata["p"] == 0.008]
        assert sum(one.shots for one in stats) == SHOTS
        assert sum(one.discards for one in stats) == SHOTS - accepted
        assert sum(one.errors for one in stats) == failures
    text = to_markdown(result)
    assert f"| 0.9 | {accepted}/{SHOTS} ({100 * accepted / SHOTS:.4g} %) | {failures}/{accepted} |" in text
    assert json.loads((folder / "results.json").read_text())["points"][0]["accepted"] == accepted


def test_counts_of_another_threshold_are_not_mixed_in(
    noisy: MemoryExperiment, result: BenchmarkResult[PostSelectedPoint], folder: Path
) -> None:
    counts = (folder / "blocks.csv").read_bytes()
    for other in (0.8, None):
        with pytest.raises(ValueError, match="line 2, is not of this run"):
            run_accuracy(
                [noisy], ["neural"], AccuracyRun(shots=SHOTS, seed=5, discard_below=other, out=folder, resume=True)
            )
    experiments = [noisy, replace(noisy, noise=NoiseModel.uniform(0.3))]
    again = run_accuracy(
        experiments, ["neural"], AccuracyRun(shots=SHOTS, seed=5, discard_below=0.9, out=folder, resume=True)
    )
    # All are counted already. sinter's file has fewer digits of the seconds.
    assert [replace(q, seconds=0) for q in again.points] == [replace(q, seconds=0) for q in result.points]
    assert (folder / "blocks.csv").read_bytes() == counts


def test_what_cannot_be_post_selected_is_refused(noisy: MemoryExperiment) -> None:
    with pytest.raises(ValueError, match="'bposd-osd0' does not say how sure it is"):
        run_accuracy([noisy], ["neural", "bposd-osd0"], AccuracyRun(shots=10, discard_below=0.9))
    for threshold in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"discard_below=.* above 0 and below 1"):
            run_accuracy([noisy], ["neural"], AccuracyRun(shots=10, discard_below=threshold))


def test_nothing_accepted_tells_nothing(result: BenchmarkResult[PostSelectedPoint]) -> None:
    point = result.points[1]
    assert (point.accepted, point.failures) == (0, 0)
    assert (point.ler, point.ler_low, point.ler_high) == (0, 0, 1)
    assert f"| 0/{SHOTS} (0 %) | 0/0 | < 100 % |" in to_markdown(result)
    assert fit_slopes(result.points) == ()
