"""How often is it wrong? Block failures of several decoders on the same shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sinter

from decoder.base import Decoder
from decoder.benchmark.common import ProgressCallback, Reporter, check_request, make_decoders, with_confidence
from decoder.benchmark.counting.blocks import Trial
from decoder.benchmark.counting.collection import BlockCounted, collect
from decoder.benchmark.counting.count_file import Counts, read_counts, read_seed
from decoder.benchmark.counting.paired import PairedFailures, pair_with_first
from decoder.benchmark.counting.tally import Tally
from decoder.benchmark.reporting.provenance import collect_provenance
from decoder.benchmark.reporting.report import prepare_directory, write_report
from decoder.benchmark.reporting.results import AccuracyPoint, BenchmarkResult
from decoder.benchmark.runs import AccuracyRun
from decoder.catalog import has_weights
from simulation.experiments import Experiment
from simulation.files import write_text
from simulation.shots.sampling import fresh_seed, usable_cores

COUNTS_FILE = "blocks.csv"
"""What is counted so far, block by block: a killed run goes on from it."""
STATS_FILE = "stats.csv"
"""The result as sinter has it, for `sinter combine` and `sinter plot`."""


def run_accuracy(
    experiments: Sequence[Experiment],
    decoders: Sequence[str],
    run: AccuracyRun,
    *,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult[AccuracyPoint]:
    """Counts the block failures of each decoder on each experiment.

    A block failure is a shot in which any of the k observables is predicted wrongly. All decoders see the
    same shots, which are those that `simulation.shots.sampling.sample` draws with this seed. sinter counts them,
    block by block, in processes of one thread; a point's counts are those of the first blocks, so neither the number of
    processes nor where the blocks are counted nor interruptions change them.

    The processes are spawned, so a script must keep its own work under ``if __name__ == "__main__":``.

    Args:
        experiments: what to decode, such as one experiment at several p.
        decoders: names from `decoder.catalog.DECODERS`.
        run: how much is counted, and where it is kept.
        progress: called after each block.

    Returns:
        One point for each experiment and decoder, in that order, their provenance, and on which shots of each
        experiment the first decoder or another one alone failed.

    Raises:
        ValueError: see `count`.
        OSError: see `count`.
    """
    tallies, provenance = count(experiments, decoders, run, progress=progress)
    points = tuple(tally.point() for tally in tallies)
    result = BenchmarkResult(points=points, provenance=provenance, paired=paired_failures(tallies))
    write_report(result, run.out)
    write_stats(tallies, run.out)
    return result


def count(
    experiments: Sequence[Experiment],
    decoders: Sequence[str],
    run: AccuracyRun,
    *,
    progress: ProgressCallback | None = None,
) -> tuple[list[Tally], dict[str, Any]]:
    """Counts as `run_accuracy` does.

    Returns:
        What is counted of each experiment and decoder, in that order, and the provenance.

    Raises:
        ValueError: an unknown decoder, none or one twice, no experiment or one twice, weights that do not fit, a
            missing package, counts in `run.out` that are not of this run, or `discard_below` with a decoder without
            confidence.
        OSError: the weights cannot be read, no Ray cluster answers, or `run.out` holds files or cannot be written.
    """
    check_request(experiments, decoders)
    processes = usable_cores() if run.processes is None else run.processes
    file = _prepare(run)
    begun = file is not None and file.exists()
    seed = run.seed
    if seed is None:
        seed = read_seed(file) if file is not None and begun else fresh_seed()
    # All made before any shot is decoded: weights that do not fit shall not end a run of hours.
    made = [make_decoders(experiment, decoders, weights=run.weights) for experiment in experiments]
    if run.discard_below is not None:
        for name, decoder in made[0].items():
            with_confidence(decoder, name=name)
    trials = _trials(experiments, made, seed=seed, run=run)
    counts = read_counts(file, trials) if file is not None and begun else {}
    tallies = [Tally(trial, run, counts) for trial in trials]
    if run.out is not None:
        run.out.mkdir(parents=True, exist_ok=True)
    counted = _counting(tallies, counts, Reporter(progress, total=len(trials) * run.shots))
    while blocks := [block for tally in tallies for block in tally.next_blocks()]:
        collect(blocks, processes=processes, file=file, counted=counted, ray=run.ray)
    provenance = collect_provenance(experiments, made, threads=1) | {"processes": processes, "ray": run.ray}
    return tallies, provenance


def write_stats(tallies: Sequence[Tally], out: Path | None) -> None:
    """Writes stats.csv, the counts as sinter has them, where there is a directory.

    Raises:
        OSError: it cannot be written.
    """
    if out is not None:
        lines = [sinter.CSV_HEADER, *(tally.stats().to_csv_line() for tally in tallies)]
        write_text(out / STATS_FILE, "".join(f"{line}\n" for line in lines), force=True)


def paired_failures(tallies: Sequence[Tally]) -> tuple[PairedFailures, ...]:
    """The first decoder beside each other one; nothing where shots are discarded, or their numbers not known."""
    found: list[PairedFailures] = []
    for experiment in dict.fromkeys(tally.trial.experiment for tally in tallies):
        failed = [tally.failed() for tally in tallies if tally.trial.experiment == experiment]
        known = [one for one in failed if one is not None]
        if failed[0] is not None:
            found += pair_with_first(experiment.columns, known)
    return tuple(found)


def _counting(tallies: Sequence[Tally], counts: Counts, report: Reporter) -> BlockCounted:
    """What to call with the counts of each block: keeps them and reports, as it does now for those counted before."""
    for tally in tallies:
        if tally.total.shots:
            name, total = tally.trial.decoder, tally.total
            report(total.shots, tally.trial.experiment, {name: total.errors}, {name: total.shots})

    def counted(stats: sinter.TaskStats) -> None:
        counts[stats.strong_id] = stats
        tally = next(tally for tally in tallies if stats.strong_id in tally.ids)
        beside = [other for other in tallies if other.trial.experiment == tally.trial.experiment]
        errors = {other.trial.decoder: other.all_errors for other in beside}
        shots = {other.trial.decoder: other.all_shots for other in beside}
        report(stats.shots, tally.trial.experiment, errors, shots)

    return counted


def _prepare(run: AccuracyRun) -> Path | None:
    """The file of counts, which is left alone if its run goes on, and else removed."""
    if run.out is None:
        if run.resume:
            raise ValueError("resume goes on with what is counted in a directory; give it with --out")
        return None
    file = run.out / COUNTS_FILE
    if not run.resume and not run.force and file.exists():
        raise FileExistsError(
            f"{run.out} holds counts of an earlier run; --resume goes on with them, --force begins anew"
        )
    prepare_directory(run.out, force=run.force or run.resume)
    if not run.resume:
        file.unlink(missing_ok=True)
    return file


def _trials(
    experiments: Sequence[Experiment], made: Sequence[Mapping[str, Decoder]], *, seed: int, run: AccuracyRun
) -> list[Trial]:
    return [
        Trial(
            experiment=experiment,
            decoder=name,
            seed=seed,
            weights=run.weights if has_weights(name) else None,
            weights_sha256=_weights_sha256(decoder),
            discard_below=run.discard_below,
        )
        for experiment, by_name in zip(experiments, made, strict=True)
        for name, decoder in by_name.items()
    ]


def _weights_sha256(decoder: Decoder) -> str | None:
    info: Mapping[str, Any] = getattr(decoder, "model_info", {})
    return info.get("weights_sha256")
