"""How often is it wrong? Block failures of several decoders on the same shots."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

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
from decoder.benchmark.results import AccuracyPoint, BenchmarkResult, experiment_columns
from simulation.circuits import MemoryExperiment
from simulation.sampling import Samples, sample


def run_accuracy(
    experiments: Sequence[MemoryExperiment],
    decoders: Sequence[str],
    *,
    shots: int,
    seed: int | None = None,
    weights: Path | None = None,
    chunk_shots: int = 1024,
    processes: int = 1,
    out: Path | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult[AccuracyPoint]:
    """Counts the block failures of each decoder on each experiment.

    A block failure is a shot in which any of the k observables is predicted wrongly. All decoders see the
    same shots, which are those that `simulation.sampling.sample` draws with this seed. A decoder's seconds
    are the time in its `decode_batch`, after one shot to warm up; sampling is not in it.

    Args:
        experiments: what to decode, such as one experiment at several p.
        decoders: names from `decoder.registry.DECODERS`.
        shots: shots for each experiment.
        seed: seed of the shots, the same for each experiment; None draws one, which the points keep.
        weights: weights of the neural decoder; None for those that are shipped.
        chunk_shots: shots decoded at once, and between two calls of `progress`.
        processes: processes that draw the shots; the decoders run in this one.
        out: a directory to write tables, plots and provenance to; see `decoder.benchmark.report`.
        force: `out` may hold files already, and those of the same names are replaced.
        progress: called after each chunk of each decoder.

    Returns:
        One point for each experiment and decoder, in that order, and their provenance.

    Raises:
        ValueError: an unknown decoder, none or one twice, no experiment or one twice, shots or chunk_shots
            below 1, or weights that do not fit.
        OSError: the weights cannot be read, or `out` holds files or cannot be written.
    """
    check_request(experiments, decoders, shots=shots)
    if chunk_shots < 1:
        raise ValueError(f"chunk_shots={chunk_shots} must be at least 1")
    if out is not None:
        prepare_directory(out, force=force)
    # All made before any shot is decoded: weights that do not fit shall not end a run of hours.
    made = [make_decoders(experiment, decoders, weights=weights) for experiment in experiments]
    report = Reporter(progress, total=len(experiments) * len(decoders) * shots)
    points: list[AccuracyPoint] = []
    for experiment, by_name in zip(experiments, made, strict=True):
        samples = sample(experiment.circuit, shots=shots, seed=seed, processes=processes)
        seed = samples.seed
        points += _decode(experiment, by_name, samples, chunk_shots=chunk_shots, report=report)
    result = BenchmarkResult(points=tuple(points), provenance=collect_provenance(experiments, made))
    if out is not None:
        write_report(result, out)
    return result


def _decode(
    experiment: MemoryExperiment,
    decoders: dict[str, Decoder],
    samples: Samples,
    *,
    chunk_shots: int,
    report: Reporter,
) -> list[AccuracyPoint]:
    seconds = dict.fromkeys(decoders, 0.0)
    failures = dict.fromkeys(decoders, 0)
    for decoder in decoders.values():
        predict(decoder, samples.detection_events[:1])
    for start in range(0, samples.shots, chunk_shots):
        events = samples.detection_events[start : start + chunk_shots]
        flips = samples.observable_flips[start : start + chunk_shots]
        for name, decoder in decoders.items():
            began = time.perf_counter()
            predictions = predict(decoder, events)
            seconds[name] += time.perf_counter() - began
            failures[name] += count_failures(predictions, flips)
            report(len(events), experiment, failures)
    return [
        AccuracyPoint(
            **experiment_columns(experiment, name),
            **failure_columns(failures[name], samples.shots),
            seconds=seconds[name],
            seed=samples.seed,
        )
        for name in decoders
    ]
