import gc
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.benchmark.accuracy import run_accuracy
from decoder.benchmark.common import BenchmarkProgress
from decoder.benchmark.latency import run_latency
from decoder.benchmark.results import BenchmarkResult, LatencyPoint
from simulation.circuits import MemoryExperiment

DECODERS = ["bposd-osd0", "bposd"]
COLUMNS = [
    *("code", "rounds", "basis", "p", "noise", "decoder", "detectors", "batch"),
    *("shots", "failures", "ler", "ler_low", "ler_high", "seconds", "seed"),
    *("mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"),
]


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.006)


@pytest.fixture(scope="module")
def result(experiment: MemoryExperiment) -> BenchmarkResult[LatencyPoint]:
    return run_latency([experiment], DECODERS, shots=100, seed=7, batches=[1, 30], warmup_calls=2)


def test_one_point_for_each_batch_and_decoder(result: BenchmarkResult[LatencyPoint]) -> None:
    points = result.to_json()["points"]
    assert [list(point) for point in points] == [COLUMNS] * 4
    assert [(point["batch"], point["shots"]) for point in points] == [(1, 100), (1, 100), (30, 90), (30, 90)]
    assert [point["decoder"] for point in points] == DECODERS * 2


def test_statistics_are_those_of_the_calls(result: BenchmarkResult[LatencyPoint]) -> None:
    for point, times in zip(result.points, result.times, strict=True):
        assert len(times.microseconds) == point.shots // point.batch
        assert (times.microseconds > 0).all()
        ordered = np.sort(times.microseconds)
        assert point.max_us == ordered[-1]
        assert point.mean_us == pytest.approx(ordered.mean())
        assert point.seconds == pytest.approx(ordered.sum() / 1e6)
        quantiles = [point.p50_us, point.p90_us, point.p99_us, point.p999_us]
        assert quantiles == [ordered[-(-len(ordered) * q // 1000) - 1] for q in (500, 900, 990, 999)]
        assert point.failures == times.failures.sum()


def test_failures_are_those_of_the_accuracy_benchmark(
    experiment: MemoryExperiment, result: BenchmarkResult[LatencyPoint]
) -> None:
    expected = run_accuracy([experiment], DECODERS, shots=100, seed=7).points
    assert [point.failures for point in result.points[:2]] == [point.failures for point in expected]


def test_runs_on_one_thread_and_puts_everything_back(experiment: MemoryExperiment) -> None:
    inside: list[tuple[int, bool]] = []

    def look(progress: BenchmarkProgress) -> None:
        inside.append((torch.get_num_threads(), gc.isenabled()))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        began = time.perf_counter()
        result = run_latency([experiment], DECODERS, shots=10, seed=1, warmup_calls=1, progress=look)
        elapsed = time.perf_counter() - began
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert gc.isenabled()
    assert set(inside) == {(1, False)}
    assert result.provenance["machine"]["threads"] == 1
    assert 0 < sum(point.seconds for point in result.points) < elapsed


def test_progress_counts_every_timed_shot(experiment: MemoryExperiment) -> None:
    seen: list[BenchmarkProgress] = []
    run_latency([experiment], DECODERS, shots=10, seed=1, batches=[1, 4], warmup_calls=1, progress=seen.append)
    assert seen[-1].done == seen[-1].total == 2 * (10 + 8)
    assert [step.done for step in seen] == sorted(step.done for step in seen)


@pytest.mark.parametrize(
    ("batches", "message"), [([], "at least one batch"), ([2, 2], "each once"), ([0], "batch=0"), ([11], "batch=11")]
)
def test_bad_batches_are_refused(experiment: MemoryExperiment, batches: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_latency([experiment], DECODERS, shots=10, batches=batches)


def test_cold_timing_is_refused(experiment: MemoryExperiment) -> None:
    with pytest.raises(ValueError, match="warmup_calls=0"):
        run_latency([experiment], DECODERS, shots=10, warmup_calls=0)


def test_report_holds_every_call(experiment: MemoryExperiment, tmp_path: Path) -> None:
    result = run_latency([experiment], DECODERS, shots=20, seed=2, warmup_calls=1, out=tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "results.csv", "results.md", "times.npz", "ler.png", "ccdf.png", "deadline.png")
    }
    with np.load(folder / "times.npz") as saved:
        for i, times in enumerate(result.times):
            np.testing.assert_array_equal(saved[f"us_{i}"], times.microseconds)
            np.testing.assert_array_equal(saved[f"failures_{i}"], times.failures)
