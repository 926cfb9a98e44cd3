"""How long does it take? Every call of several decoders is timed, on the same shots, on one thread."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from decoder.base import Decoder
from decoder.benchmark.common import (
    ProgressCallback,
    Reporter,
    check_request,
    count_failures,
    failure_columns,
    make_decoders,
    predict,
)
from decoder.benchmark.provenance import collect_provenance
from decoder.benchmark.report import prepare_directory, write_report
from decoder.benchmark.results import BenchmarkResult, CallTimes, LatencyPoint, experiment_columns
from simulation.circuits import MemoryExperiment
from simulation.sampling import Samples, sample

BLOCK_SECONDS = 0.5
"""How long one decoder runs before the next has its turn, so that all meet the same state of the machine."""


def run_latency(
    experiments: Sequence[MemoryExperiment],
    decoders: Sequence[str],
    *,
    shots: int,
    seed: int | None = None,
    batches: Sequence[int] = (1,),
    weights: Path | None = None,
    warmup_calls: int = 20,
    out: Path | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult[LatencyPoint]:
    """Times each call of each decoder on each experiment.

    A call takes bit-packed shots and returns bit-packed predictions; it is timed with `time.perf_counter`,
    checks and packing included. Decoders take turns, each first to go as often as the others. torch and
    BP-OSD run on one thread, and Python's garbage collector rests.

    Args:
        experiments: what to decode.
        decoders: names from `decoder.registry.DECODERS`.
        shots: shots for each experiment, the same for all decoders and batch sizes. A last call that would be
            smaller than its batch is left out.
        seed: seed of the shots; None draws one, which the points keep.
        batches: shots in each call; one point for each.
        weights: weights of the neural decoder; None for those that are shipped.
        warmup_calls: calls of each decoder before its times count, at least 1.
        out: a directory to write tables, plots, times and provenance to; see `decoder.benchmark.report`.
        force: `out` may hold files already, and those of the same names are replaced.
        progress: called after each turn of each decoder.

    Returns:
        One point for each experiment, batch size and decoder, in that order, and the time of every call.

    Raises:
        ValueError: an unknown decoder, none or one twice, no experiment or one twice, shots or warmup_calls
            below 1, a batch that is below 1 or above shots, or weights that do not fit.
        OSError: the weights cannot be read, or `out` holds files or cannot be written.
    """
    check_request(experiments, decoders, shots=shots)
    _check_batches(batches, shots)
    if warmup_calls < 1:
        raise ValueError(f"warmup_calls={warmup_calls} must be at least 1, or the first call is timed cold")
    if out is not None:
        prepare_directory(out, force=force)
    made = [make_decoders(experiment, decoders, weights=weights) for experiment in experiments]
    timed_shots = sum(shots // batch * batch for batch in batches)
    report = Reporter(progress, total=len(experiments) * len(decoders) * timed_shots)
    points: list[LatencyPoint] = []
    times: list[CallTimes] = []
    with _one_thread():
        for experiment, by_name in zip(experiments, made, strict=True):
            samples = sample(experiment.circuit, shots=shots, seed=seed)
            seed = samples.seed
            for batch in batches:
                run = _Run(experiment, by_name, samples, batch=batch, report=report)
                run.warm_up(warmup_calls)
                run.time_all()
                points += run.points()
                times += run.times.values()
        provenance = collect_provenance(experiments, made)
    result = BenchmarkResult(points=tuple(points), provenance=provenance, times=tuple(times))
    if out is not None:
        write_report(result, out)
    return result


def _check_batches(batches: Sequence[int], shots: int) -> None:
    if not batches or len(set(batches)) != len(batches):
        raise ValueError(f"give at least one batch size, each once, not {list(batches)}")
    for batch in batches:
        if not 1 <= batch <= shots:
            raise ValueError(f"batch={batch} must be at least 1 and at most shots={shots}")


class _Run:
    """The calls of all decoders on one experiment with one batch size."""

    def __init__(
        self,
        experiment: MemoryExperiment,
        decoders: dict[str, Decoder],
        samples: Samples,
        *,
        batch: int,
        report: Reporter,
    ) -> None:
        self.experiment = experiment
        self.decoders = decoders
        self.samples = samples
        self.batch = batch
        self.report = report
        self.calls = samples.shots // batch
        self.times = {
            name: CallTimes(np.zeros(self.calls, np.float64), np.zeros(self.calls, np.int64)) for name in decoders
        }
        self.block = self.calls

    def warm_up(self, calls: int) -> None:
        """Lets every decoder compile and fill its caches, and finds out how many calls make a turn."""
        slowest = 0.0
        for decoder in self.decoders.values():
            for call in range(calls):
                began = time.perf_counter()
                predict(decoder, self._events(call % self.calls))
                elapsed = time.perf_counter() - began
            slowest = max(slowest, elapsed)
        self.block = max(1, min(self.calls, int(BLOCK_SECONDS / max(slowest, 1e-6))))

    def time_all(self) -> None:
        names = list(self.decoders)
        with _collector_resting():
            for turn, start in enumerate(range(0, self.calls, self.block)):
                first = turn % len(names)
                for name in names[first:] + names[:first]:
                    self._take_turn(name, range(start, min(start + self.block, self.calls)))

    def _take_turn(self, name: str, calls: range) -> None:
        decoder, times = self.decoders[name], self.times[name]
        for call in calls:
            events = self._events(call)
            began = time.perf_counter()
            predictions = predict(decoder, events)
            times.microseconds[call] = (time.perf_counter() - began) * 1e6
            flips = self.samples.observable_flips[call * self.batch : (call + 1) * self.batch]
            times.failures[call] = count_failures(predictions, flips)
        failures = {other: int(found.failures.sum()) for other, found in self.times.items()}
        self.report(len(calls) * self.batch, self.experiment, failures)

    def _events(self, call: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return self.samples.detection_events[call * self.batch : (call + 1) * self.batch]

    def points(self) -> list[LatencyPoint]:
        return [self._point(name, times) for name, times in self.times.items()]

    def _point(self, name: str, times: CallTimes) -> LatencyPoint:
        # Observed values, not interpolated ones: a tail may be a few calls long.
        p50, p90, p99, p999 = np.percentile(times.microseconds, [50, 90, 99, 99.9], method="inverted_cdf").tolist()
        return LatencyPoint(
            **experiment_columns(self.experiment, name),
            **failure_columns(int(times.failures.sum()), self.calls * self.batch),
            seconds=float(times.microseconds.sum()) / 1e6,
            seed=self.samples.seed,
            batch=self.batch,
            mean_us=float(times.microseconds.mean()),
            p50_us=p50,
            p90_us=p90,
            p99_us=p99,
            p999_us=p999,
            max_us=float(times.microseconds.max()),
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch to one thread, where a decoder has imported it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _collector_resting() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
