"""How long does it take? Every call of several decoders is timed, on the same shots, on one thread."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt

from decoder.base import Decoder
from decoder.benchmark.common import (
    ProgressCallback,
    Reporter,
    check_request,
    count_failures,
    failure_columns,
    make_decoders,
)
from decoder.benchmark.reporting.provenance import collect_provenance
from decoder.benchmark.reporting.report import prepare_directory, write_report
from decoder.benchmark.reporting.results import (
    BenchmarkResult,
    CallTimes,
    DeadlinePoint,
    LatencyPoint,
    experiment_columns,
)
from decoder.benchmark.runs import LatencyRun
from decoder.benchmark.timing.callers import Caller, callers_of
from decoder.benchmark.timing.pairs_in_time import pairs_in_time
from simulation.experiments import Experiment
from simulation.shots.sampling import Samples, sample

DEFAULT_BATCHES = (1, 8, 64, 512)
TURN_SECONDS = 0.5
"""How long one decoder runs before the next has its turn, so that all meet the same state of the machine."""
LEAST_TURN = 8
"""The fewest calls of a turn: beside a slow decoder a fast one would otherwise seldom run with warm caches."""


def run_latency(
    experiments: Sequence[Experiment],
    decoders: Sequence[str],
    run: LatencyRun,
    *,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult[LatencyPoint]:
    """Times each call of each decoder on each experiment.

    A call takes bit-packed shots and returns bit-packed predictions; it is timed with `time.perf_counter`,
    checks and packing included. A decoder that can stream (`decoder.base.StreamingDecoder`) is timed twice at batch
    size 1: with all detection events at once, and streamed, from the arrival of the last layer, the others having been
    folded in before the clock started, to the answer.

    Decoders take turns of about `TURN_SECONDS` on the same shots, each first to go as often as the others, so whatever
    the machine does hits all of them. Each turn begins with a call that does not count, because the others have had
    the caches. Python's garbage collector rests.

    One thread is asked of torch (and by it of the network's belief propagation), and of numba and OpenMP in serial
    and BP-OSD by how they are made. Threads that other libraries may start, such as numpy's BLAS, are not forbidden but
    seen: the points' `cores_used` is then above 1.

    Args:
        experiments: what to decode.
        decoders: names from `decoder.catalog.DECODERS`.
        run: how many shots and calls, and where results are written.
        progress: called after each turn of each decoder.

    Returns:
        One point for each experiment, batch size, decoder and mode, in that order, and the time of every call.

    Raises:
        ValueError: an unknown decoder, none or one twice, no experiment or one twice, weights that do not fit, a
            deadline that is not above 0 or has no pair to keep it, or the second decoder of such a pair cannot be made.
        OSError: the weights cannot be read, or `run.out` holds files or cannot be written.
    """
    check_request(experiments, decoders)
    prepare_directory(run.out, force=run.force)
    with ExitStack() as stack:
        if run.deadline_ms is None:
            made = [make_decoders(experiment, decoders, weights=run.weights) for experiment in experiments]
        else:
            pairs = pairs_in_time(experiments, decoders, weights=run.weights, deadline_ms=run.deadline_ms)
            made = stack.enter_context(pairs)
        result = _measure(experiments, made, run, progress)
    write_report(result, run.out)
    return result


def _measure(
    experiments: Sequence[Experiment],
    made: Sequence[Mapping[str, Decoder]],
    run: LatencyRun,
    progress: ProgressCallback | None,
) -> BenchmarkResult[LatencyPoint]:
    shots, seed = run.shots, run.seed
    batches = [batch for batch in DEFAULT_BATCHES if batch <= shots] if run.batches is None else run.batches
    callers = [{batch: callers_of(by_name, batch=batch) for batch in batches} for by_name in made]
    report = Reporter(progress, total=sum(shots // b * b * len(each) for by in callers for b, each in by.items()))
    points: list[LatencyPoint] = []
    times: list[CallTimes] = []
    with _one_thread():
        provenance = collect_provenance(experiments, made)  # now, for the load that the machine has without this run
        for experiment, by_batch in zip(experiments, callers, strict=True):
            samples = sample(experiment.source, shots=shots, seed=seed)
            seed = samples.seed
            for batch, each in by_batch.items():
                timing = _Timing(experiment, each, samples, batch=batch, report=report)
                timing.warm_up(run.warmup_calls)
                timing.time_all()
                points += [timing.point(record) for record in timing.records]
                times += [record.times for record in timing.records]
    return BenchmarkResult(points=tuple(points), provenance=provenance, times=tuple(times))


class _Record:
    """What is known of one caller's calls."""

    def __init__(self, caller: Caller, calls: int) -> None:
        self.caller = caller
        self.times = CallTimes(np.zeros(calls, np.float64), np.zeros(calls, np.int64))
        self.failures = 0
        self.late = 0
        self.turn_seconds = 0.0
        self.cpu_seconds = 0.0
        """Of the whole process, in this caller's turns."""

    @property
    def name(self) -> str:
        return self.caller.decoder + " streamed" * (self.caller.mode == "streamed")


class _Timing:
    """The calls of all decoders on one experiment with one batch size."""

    def __init__(
        self,
        experiment: Experiment,
        callers: Sequence[Caller],
        samples: Samples,
        *,
        batch: int,
        report: Reporter,
    ) -> None:
        self.experiment = experiment
        self.samples = samples
        self.batch = batch
        self.report = report
        self.calls = samples.shots // batch
        self.records = [_Record(caller, self.calls) for caller in callers]

    def warm_up(self, calls: int) -> None:
        """Lets every decoder compile and fill its caches."""
        for record in self.records:
            for call in range(min(calls, self.calls)):
                record.caller.prepare(self.samples.detection_events[self._shots(call)])()

    def time_all(self) -> None:
        start = turn = 0
        size = LEAST_TURN
        with _collector_resting():
            while start < self.calls:
                end = min(start + size, self.calls)
                first = turn % len(self.records)
                for record in self.records[first:] + self.records[:first]:
                    self._take_turn(record, range(start, end))
                start, turn = end, turn + 1
                slowest = max(record.turn_seconds for record in self.records) / end
                # Not more than twice the last turn: the first few shots may have been easy ones.
                size = max(LEAST_TURN, min(2 * size, int(TURN_SECONDS / slowest)))

    def _take_turn(self, record: _Record, calls: range) -> None:
        caller, times = record.caller, record.times
        events, flips = self.samples.detection_events, self.samples.observable_flips
        caller.prepare(events[self._shots(calls[-1])])()
        began, cpu_began = time.perf_counter(), time.process_time()
        for call in calls:
            prepared = caller.prepare(events[self._shots(call)])
            called = time.perf_counter()
            predictions, late = prepared()
            times.microseconds[call] = (time.perf_counter() - called) * 1e6
            times.failures[call] = count_failures(predictions, flips[self._shots(call)])
            record.late += late
        record.turn_seconds += time.perf_counter() - began
        record.cpu_seconds += time.process_time() - cpu_began
        record.failures += int(times.failures[calls.start : calls.stop].sum())
        self.report(len(calls) * self.batch, self.experiment, {other.name: other.failures for other in self.records})

    def _shots(self, call: int) -> slice:
        return slice(call * self.batch, (call + 1) * self.batch)

    def point(self, record: _Record) -> LatencyPoint:
        ordered = np.sort(record.times.microseconds)
        point = LatencyPoint(
            **experiment_columns(self.experiment, record.caller.decoder),
            **failure_columns(record.failures, self.calls * self.batch),
            seconds=float(ordered.sum()) / 1e6,
            seed=self.samples.seed,
            mode=record.caller.mode,
            batch=self.batch,
            mean_us=float(ordered.mean()),
            p50_us=_quantile(ordered, 50, 100),
            p90_us=_quantile(ordered, 90, 100),
            p99_us=tail_quantile(ordered, 100),
            p999_us=tail_quantile(ordered, 1_000),
            p9999_us=tail_quantile(ordered, 10_000),
            max_us=float(ordered[-1]),
            cores_used=record.cpu_seconds / record.turn_seconds,
        )
        if all(other.caller.deadline_ms is None for other in self.records):
            return point
        deadline_ms = record.caller.deadline_ms
        return DeadlinePoint(**vars(point), deadline_ms=deadline_ms, late=None if deadline_ms is None else record.late)


def _quantile(ordered: npt.NDArray[np.float64], numerator: int, denominator: int) -> float:
    """An observed time, the least that this fraction of the calls does not exceed; nothing is interpolated."""
    return float(ordered[max(0, -(-len(ordered) * numerator // denominator) - 1)])


def tail_quantile(ordered: npt.NDArray[np.float64], one_in: int) -> float | None:
    """The time that one call in `one_in` exceeds; None where there are fewer calls than that."""
    return _quantile(ordered, one_in - 1, one_in) if len(ordered) >= one_in else None


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
    """Keeps Python's garbage collector from running during a call that is timed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
