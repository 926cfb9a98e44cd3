"""How often is it wrong? Block failures of several decoders on the same shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sinter
import stim

from decoder.base import Decoder
from decoder.benchmark.common import (
    ProgressCallback,
    Reporter,
    check_request,
    failure_columns,
    make_decoders,
    with_confidence,
)
from decoder.benchmark.counting.blocks import Block, Trial, task_stats
from decoder.benchmark.counting.collection import BlockCounted, collect
from decoder.benchmark.counting.count_file import Counts, read_counts, read_seed
from decoder.benchmark.reporting.provenance import collect_provenance
from decoder.benchmark.reporting.report import prepare_directory, write_report
from decoder.benchmark.reporting.results import (
    AccuracyPoint,
    BenchmarkResult,
    PostSelectedPoint,
    experiment_columns,
    per_round_columns,
)
from decoder.benchmark.runs import AccuracyRun
from decoder.catalog import has_weights
from simulation.experiments import Experiment
from simulation.files import write_text
from simulation.sampling import fresh_seed, usable_cores

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
    same shots, which are those that `simulation.sampling.sample` draws with this seed. sinter counts them, block by
    block, in processes of one thread; a point's counts are those of the first blocks, so neither the number of
    processes nor where the blocks are counted nor interruptions change them.

    The processes are spawned, so a script must keep its own work under ``if __name__ == "__main__":``.

    Args:
        experiments: what to decode, such as one experiment at several p.
        decoders: names from `decoder.catalog.DECODERS`.
        run: how much is counted, and where it is kept.
        progress: called after each block.

    Returns:
        One point for each experiment and decoder, in that order, and their provenance.

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
    tallies = [_Tally(trial, run, counts) for trial in trials]
    counted = _counting(tallies, counts, Reporter(progress, total=len(trials) * run.shots))
    while blocks := [block for tally in tallies for block in tally.next_blocks()]:
        collect(blocks, processes=processes, file=file, counted=counted, ray=run.ray)
    provenance = collect_provenance(experiments, made, threads=1) | {"processes": processes, "ray": run.ray}
    result = BenchmarkResult(points=tuple(tally.point() for tally in tallies), provenance=provenance)
    write_report(result, run.out)
    if run.out is not None:
        write_text(run.out / STATS_FILE, _sinter_csv(tallies), force=True)
    return result


def _counting(tallies: Sequence[_Tally], counts: Counts, report: Reporter) -> BlockCounted:
    """What to call with the counts of each block: keeps them and reports, as it does now for those counted before."""
    for tally in tallies:
        if tally.total.shots:
            report(tally.total.shots, tally.trial.experiment, {tally.trial.decoder: tally.total.errors})

    def counted(stats: sinter.TaskStats) -> None:
        counts[stats.strong_id] = stats
        tally = next(tally for tally in tallies if stats.strong_id in tally.ids)
        beside = [other for other in tallies if other.trial.experiment == tally.trial.experiment]
        report(stats.shots, tally.trial.experiment, {other.trial.decoder: other.all_errors for other in beside})

    return counted


class _Tally:
    """A trial's blocks, and what is counted of them."""

    def __init__(self, trial: Trial, run: AccuracyRun, counts: Counts) -> None:
        self.trial = trial
        self.run = run
        self.counts = counts
        self.blocks = trial.blocks(run.shots)
        self.ids = {block.task.strong_id(): block for block in self.blocks}
        self.total = sinter.AnonTaskStats()
        """Of the blocks that count for the point."""
        self._upcoming = list(self.ids)
        self._add_counted()

    @property
    def all_errors(self) -> int:
        """Failures in all blocks counted, also those whose predecessors are not."""
        return sum(self.counts[i].errors for i in self.ids if i in self.counts)

    def next_blocks(self) -> list[Block]:
        """What to count next; nothing when the point is done."""
        self._add_counted()
        if not self._upcoming:
            return []
        wanted = self.run.wanted(self.total)
        blocks: list[Block] = []
        for strong_id in self._upcoming:
            if blocks and sum(block.shots for block in blocks) >= wanted:
                break
            if strong_id not in self.counts:
                blocks.append(self.ids[strong_id])
        return blocks

    def _add_counted(self) -> None:
        """Adds blocks in their order, up to the first that is not counted or that the rule leaves out."""
        while self._upcoming:
            block = self.ids[self._upcoming[0]]
            if self.run.done(self.total, upcoming=block.shots):
                self._upcoming.clear()
            elif self._upcoming[0] in self.counts:
                self.total += self.counts[self._upcoming.pop(0)].to_anon_stats()
            else:
                break

    def point(self) -> AccuracyPoint:
        experiment = self.trial.experiment
        total, discard_below = self.total, self.trial.discard_below
        accepted = total.shots - total.discards
        failures = failure_columns(total.errors, accepted)
        columns = {
            **experiment_columns(experiment, self.trial.decoder),
            **failures,
            "shots": total.shots,
            "seconds": total.seconds,
            "seed": self.trial.seed,
            **per_round_columns(failures, rounds=experiment.columns["rounds"], qubits=experiment.num_observables),
        }
        if discard_below is None:
            return AccuracyPoint(**columns)
        return PostSelectedPoint(**columns, discard_below=discard_below, discards=total.discards, accepted=accepted)

    def stats(self) -> sinter.TaskStats:
        """The point as sinter has it, with the id of the task that `sinter collect` makes of the circuit."""
        experiment = self.trial.experiment
        task = sinter.Task(
            circuit=experiment.circuit or stim.Circuit(),
            decoder=self.trial.decoder,
            detector_error_model=experiment.dem,
            json_metadata=self.trial.metadata,
            skip_validation=True,  # of an error model alone there is no circuit to compare with
        )
        return task_stats(task, self.total)


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


def _sinter_csv(tallies: Sequence[_Tally]) -> str:
    lines = [sinter.CSV_HEADER, *(tally.stats().to_csv_line() for tally in tallies)]
    return "".join(f"{line}\n" for line in lines)
