import gc
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.benchmark.common import BenchmarkProgress
from decoder.benchmark.counting.accuracy import run_accuracy
from decoder.benchmark.reporting.results import BenchmarkResult, LatencyPoint
from decoder.benchmark.runs import AccuracyRun, LatencyRun
from decoder.benchmark.timing.latency import LEAST_TURN, run_latency, tail_quantile
from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.weights import build_network, save_weights
from simulation.circuits import MemoryExperiment

DECODERS = ["bposd-osd0", "bposd"]
COLUMNS = [
    *("code", "rounds", "basis", "p", "noise", "decoder", "detectors", "mode", "batch"),
    *("shots", "failures", "ler", "ler_low", "ler_high", "seconds", "seed"),
    *("mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us", "cores_used"),
]


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.006)


@pytest.fixture(scope="module")
def result(experiment: MemoryExperiment) -> BenchmarkResult[LatencyPoint]:
    return run_latency([experiment], DECODERS, LatencyRun(shots=100, seed=7, batches=(1, 30), warmup_calls=2))


def test_one_point_for_each_batch_and_decoder(result: BenchmarkResult[LatencyPoint]) -> None:
    points = result.to_json()["points"]
    assert [list(point) for point in points] == [COLUMNS] * 4
    assert [(point["batch"], point["shots"]) for point in points] == [(1, 100), (1, 100), (30, 90), (30, 90)]
    assert [point["decoder"] for point in points] == DECODERS * 2
    assert {point["mode"] for point in points} == {"batch"}


def test_statistics_are_those_of_the_calls(result: BenchmarkResult[LatencyPoint]) -> None:
    for point, times in zip(result.points, result.times, strict=True):
        assert len(times.microseconds) == point.shots // point.batch
        assert (times.microseconds > 0).all()
        ordered = np.sort(times.microseconds)
        assert point.max_us == ordered[-1]
        assert point.mean_us == pytest.approx(ordered.mean())
        assert point.seconds == pytest.approx(ordered.sum() / 1e6)
        assert [point.p50_us, point.p90_us] == [ordered[-(-len(ordered) * q // 10) - 1] for q in (5, 9)]
        assert point.p99_us == (ordered[98] if point.batch == 1 else None)
        assert point.p999_us is point.p9999_us is None
        assert point.failures == times.failures.sum()
        # The process cannot have computed more than on one core; others may have taken it away.
        assert 0 < point.cores_used < 1.2


@pytest.mark.parametrize("one_in", [100, 1_000, 10_000])
def test_a_quantile_far_out_takes_a_call_beyond_it(one_in: int) -> None:
    times = np.arange(one_in, dtype=np.float64)
    assert tail_quantile(times, one_in) == one_in - 2  # observed, and one call takes longer
    assert tail_quantile(times[1:], one_in) is None
    assert tail_quantile(np.arange(3.0 * one_in + 1), one_in) == 3 * one_in - 3


def test_a_decoder_that_streams_is_timed_once_more() -> None:
    noisy = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.03)  # nearly every shot fails
    decoders = ["bposd-osd0-window-3-1", "neural"]
    seen: list[BenchmarkProgress] = []
    result = run_latency(
        [noisy], decoders, LatencyRun(shots=60, seed=3, batches=(1, 8), warmup_calls=1), progress=seen.append
    )
    assert [(point.decoder, point.mode, point.batch) for point in result.points] == [
        ("bposd-osd0-window-3-1", "batch", 1),
        ("bposd-osd0-window-3-1", "streamed", 1),
        ("neural", "batch", 1),
        ("neural", "streamed", 1),
        ("bposd-osd0-window-3-1", "batch", 8),
        ("neural", "batch", 8),
    ]
    for whole, streamed in (result.times[:2], result.times[2:4]):
        assert whole.failures.sum() > 0
        np.testing.assert_array_equal(streamed.failures, whole.failures)
    assert seen[-1].done == seen[-1].total == 4 * 60 + 2 * 56
    assert list(seen[0].failures) == [name + mode for name in decoders for mode in ("", " streamed")]


@pytest.mark.timing
def test_only_what_follows_the_last_layer_is_timed(tmp_path: Path) -> None:
    """A network without belief propagation has taken 8 of 9 layers when the clock starts."""
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    model = build_network(ModelConfig(width=32, round_blocks=4, readout_blocks=1, judges=False))
    save_weights(path, model, bases="Z", rounds=(8,), calibration=Calibration(), provenance={})
    long = MemoryExperiment.create(code="bb72", basis="Z", rounds=8, p=0.002)
    whole, streamed = run_latency([long], ["neural"], LatencyRun(shots=40, seed=1, batches=(1,), weights=path)).points
    assert whole.failures == streamed.failures
    assert streamed.p50_us < 0.6 * whole.p50_us


def test_failures_are_those_of_the_accuracy_benchmark(
    experiment: MemoryExperiment, result: BenchmarkResult[LatencyPoint]
) -> None:
    expected = run_accuracy([experiment], DECODERS, AccuracyRun(shots=100, seed=7)).points
    assert [point.failures for point in result.points[:2]] == [point.failures for point in expected]


def test_runs_on_one_thread_and_puts_everything_back(experiment: MemoryExperiment) -> None:
    inside: list[tuple[int, bool]] = []

    def look(progress: BenchmarkProgress) -> None:
        inside.append((torch.get_num_threads(), gc.isenabled()))

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        began = time.perf_counter()
        result = run_latency(
            [experiment], DECODERS, LatencyRun(shots=10, seed=1, batches=(1,), warmup_calls=1), progress=look
        )
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
    run_latency(
        [experiment], DECODERS, LatencyRun(shots=10, seed=1, batches=(1, 4), warmup_calls=1), progress=seen.append
    )
    assert seen[-1].done == seen[-1].total == 2 * (10 + 8)
    assert [step.done for step in seen] == sorted(step.done for step in seen)


def test_turns_alternate_and_go_round(experiment: MemoryExperiment) -> None:
    """The first turn has LEAST_TURN calls, later ones more, and no decoder is ever ahead by more than a turn."""
    seen: list[BenchmarkProgress] = []
    run_latency(
        [experiment], DECODERS, LatencyRun(shots=200, seed=1, batches=(1,), warmup_calls=1), progress=seen.append
    )
    done = np.diff([0, *(step.done for step in seen)])
    assert len(done) >= 4
    assert done[0] == LEAST_TURN
    np.testing.assert_array_equal(done[::2], done[1::2])
    assert (done[2::2] <= 2 * done[:-2:2]).all()


def test_default_batches_are_those_that_fit(experiment: MemoryExperiment) -> None:
    points = run_latency([experiment], ["bposd-osd0"], LatencyRun(shots=70, seed=1, warmup_calls=1)).points
    assert [(point.batch, point.shots) for point in points] == [(1, 70), (8, 64), (64, 64)]


@pytest.mark.parametrize(
    ("batches", "message"), [([], "at least one batch"), ([2, 2], "each once"), ([0], "batch=0"), ([11], "batch=11")]
)
def test_bad_batches_are_refused(experiment: MemoryExperiment, batches: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_latency([experiment], DECODERS, LatencyRun(shots=10, batches=tuple(batches)))


def test_cold_timing_is_refused(experiment: MemoryExperiment) -> None:
    with pytest.raises(ValueError, match="warmup_calls=0"):
        run_latency([experiment], DECODERS, LatencyRun(shots=10, warmup_calls=0))


def test_report_holds_every_call(experiment: MemoryExperiment, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = run_latency([experiment], DECODERS, LatencyRun(shots=20, seed=2, batches=(1, 6), warmup_calls=1, out=out))
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "results.csv", "results.md", "times.npz"),
        *("ler.png", "ccdf.png", "deadline.png", "violin.png", "tradeoff.png"),
    }
    with np.load(folder / "times.npz") as saved:
        for i, times in enumerate(result.times):
            assert (saved[f"us_{i}"].dtype, saved[f"failures_{i}"].dtype) == (np.float32, np.uint8)
            np.testing.assert_allclose(saved[f"us_{i}"], times.microseconds, rtol=1e-6)
            np.testing.assert_array_equal(saved[f"failures_{i}"], times.failures)
