"""How often is it wrong? Block failures of several decoders on the same shots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sinter

from decoder.base import Decoder
from decoder.benchmark.common import (
    ProgressCallback,
    Reporter,
    check_request,
    failure_columns,
    make_decoders,
    with_confidence,
)
from decoder.benchmark.counting.blocks import Block, Trial
from decoder.benchmark.counting.collection import collect
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
from decoder.catalog import has_weights
from simulation.circuits import MemoryExperiment
from simulation.files import write_text
from simulation.sampling import fresh_seed, usable_cores

COUNTS_FILE = "blocks.csv"
"""What is counted so far, block by block: a killed run goes on from it."""
STATS_FILE = "stats.csv"
"""The result as sinter has it, for `sinter combine` and `sinter plot`."""


def run_accuracy(
    experiments: Sequence[MemoryExperiment],
    decoders: Sequence[str],
    *,
    shots: int,
    max_errors: int | None = None,
    max_seconds: float | None = None,
    min_shots: int = 0,
    seed: int | None = None,
    weights: Path | None = None,
    processes: int | None = None,
    ray: str | None = None,
    discard_below: float | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
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
        shots: the most shots for each point.
        max_errors: a point ends with the first block after which so many shots have failed.
        max_seconds: a point ends before a block that, at the rate so far, would take the CPU time spent in its decoder
            beyond that; the first block, of 64 shots, is always counted.
        min_shots: so many shots are counted even if they take more than `max_seconds`.
        seed: seed of the shots, the same for each experiment; None draws one, which the points keep.
        weights: weights of the neural decoder; None for those that are shipped.
        processes: how many; None for one on each core.
        ray: the address of a Ray cluster to count on, or "local" for one that is started on this machine; None counts
            on this machine without Ray.
        discard_below: shots whose predicted coset has a smaller posterior probability are discarded, and failures and
            rates are those of the others; the points are then `PostSelectedPoint`. None keeps all shots.
        out: a directory to write tables, plots, counts and provenance to; see `decoder.benchmark.reporting.report`.
        resume: goes on with what an earlier call has counted in `out`.
        force: `out` may hold files already, and those of the same names are replaced.
        progress: called after each block.

    Returns:
        One point for each experiment and decoder, in that order, and their provenance.

    Raises:
        ValueError: an unknown decoder, none or one twice, no experiment or one twice, a number below 1, weights that
            do not fit, a missing package, counts in `out` that are not of this run, discard_below not above 0 and
            below 1, or with it a decoder without confidence.
        OSError: the weights cannot be read, no Ray cluster answers, or `out` holds files or cannot be written.
    """
    check_request(experiments, decoders, shots=shots)
    stop = StopRule(shots=shots, max_errors=max_errors, max_seconds=max_seconds, min_shots=min_shots)
    processes = usable_cores() if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes={processes} must be at least 1")
    if discard_below is not None and not 0 < discard_below < 1:
        raise ValueError(f"discard_below={discard_below} must be a probability above 0 and below 1")
    file = _prepare(out, resume=resume, force=force)
    if seed is None:
        seed = read_seed(file) if file is not None and file.exists() else fresh_seed()
    # All made before any shot is decoded: weights that do not fit shall not end a run of hours.
    made = [make_decoders(experiment, decoders, weights=weights) for experiment in experiments]
    if discard_below is not None:
        for name, decoder in made[0].items():
            with_confidence(decoder, name=name)
    trials = _trials(experiments, made, seed=seed, weights=weights, discard_below=discard_below)
    counts = read_counts(file, trials) if file is not None and file.exists() else {}
    report = Reporter(progress, total=len(trials) * shots)
    tallies = [_Tally(trial, stop, counts) for trial in trials]
    for tally in tallies:
        if tally.shots:
            report(tally.shots, tally.trial.experiment, {tally.trial.decoder: tally.errors})

    def counted(stats: sinter.TaskStats) -> None:
        counts[stats.strong_id] = stats
        tally = next(tally for tally in tallies if stats.strong_id in tally.ids)
        beside = [other for other in tallies if other.trial.experiment == tally.trial.experiment]
        report(stats.shots, tally.trial.experiment, {other.trial.decoder: other.all_errors for other in beside})

    while blocks := [block for tally in tallies for block in tally.next_blocks()]:
        collect(blocks, processes=processes, file=file, counted=counted, ray=ray)
    provenance = collect_provenance(experiments, made, threads=1) | {"processes": processes, "ray": ray}
    result = BenchmarkResult(points=tuple(tally.point() for tally in tallies), provenance=provenance)
    if out is not None:
        write_report(result, out)
        write_text(out / STATS_FILE, _sinter_csv(tallies), force=True)
    return result


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When a point is done.

    Raises:
        ValueError: a limit below 1 shot or error, or not above 0 seconds.
    """

    shots: int
    max_errors: int | None = None
    max_seconds: float | None = None
    min_shots: int = 0
    """Before that many the seconds do not matter."""

    def __post_init__(self) -> None:
        if self.max_errors is not None and self.max_errors < 1:
            raise ValueError(f"max_errors={self.max_errors} must be at least 1")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds={self.max_seconds} must be above 0")
        if not 0 <= self.min_shots <= self.shots:
            raise ValueError(f"min_shots={self.min_shots} must be from 0 to shots={self.shots}")

    def done(self, *, shots: int, errors: int, seconds: float, upcoming: int) -> bool:
        """Whether a point ends here, rather than with so many shots more."""
        if shots == 0:
            return False
        if self.max_errors is not None and errors >= self.max_errors:
            return True
        if self.max_seconds is None or shots < self.min_shots:
            return False
        return seconds * (1 + upcoming / shots) > self.max_seconds

    def wanted(self, *, shots: int, errors: int, seconds: float) -> float:
        """About how many shots more are needed, after some."""
        wanted = math.inf
        if shots == 0:
            return 0 if self.max_errors is not None or self.max_seconds is not None else wanted
        if self.max_errors is not None:
            # Not too many at once, since the rate is only estimated.
            wanted = min(8 * shots, (self.max_errors - errors) * shots / (errors + 1))
        if self.max_seconds is not None and seconds > 0:
            in_time = (self.max_seconds - seconds) * shots / seconds
            wanted = min(wanted, max(in_time, self.min_shots - shots))
        return wanted


class _Tally:
    """A trial's blocks, and what is counted of them."""

    def __init__(self, trial: Trial, stop: StopRule, counts: Counts) -> None:
        self.trial = trial
        self.stop = stop
        self.counts = counts
        self.blocks = trial.blocks(stop.shots)
        self.ids = {block.task.strong_id(): block for block in self.blocks}
        self.shots = self.errors = self.discards = 0
        self.seconds = 0.0
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
        wanted = self.stop.wanted(shots=self.shots, errors=self.errors, seconds=self.seconds)
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
            if self.stop.done(shots=self.shots, errors=self.errors, seconds=self.seconds, upcoming=block.shots):
                self._upcoming.clear()
            elif self._upcoming[0] in self.counts:
                stats = self.counts[self._upcoming.pop(0)]
                self.shots += stats.shots
                self.errors += stats.errors
                self.discards += stats.discards
                self.seconds += stats.seconds
            else:
                break

    def point(self) -> AccuracyPoint:
        experiment = self.trial.experiment
        accepted = self.shots - self.discards
        failures = failure_columns(self.errors, accepted)
        columns = {
            **experiment_columns(experiment, self.trial.decoder),
            **failures,
            "shots": self.shots,
            "seconds": self.seconds,
            "seed": self.trial.seed,
            **per_round_columns(failures, rounds=experiment.rounds, qubits=experiment.num_observables),
        }
        if self.trial.discard_below is None:
            return AccuracyPoint(**columns)
        return PostSelectedPoint(
            **columns, discard_below=self.trial.discard_below, discards=self.discards, accepted=accepted
        )

    def stats(self) -> sinter.TaskStats:
        """The point as sinter has it, with the id of the task that `sinter collect` makes of the circuit."""
        experiment = self.trial.experiment
        task = sinter.Task(
            circuit=experiment.circuit,
            decoder=self.trial.decoder,
            detector_error_model=experiment.dem,
            json_metadata=self.trial.metadata,
        )
        return sinter.TaskStats(
            strong_id=task.strong_id(),
            decoder=self.trial.decoder,
            json_metadata=self.trial.metadata,
            shots=self.shots,
            errors=self.errors,
            discards=self.discards,
            seconds=self.seconds,
        )


def _prepare(out: Path | None, *, resume: bool, force: bool) -> Path | None:
    """The file of counts, which is left alone if its run goes on, and else removed."""
    if out is None:
        if resume:
            raise ValueError("resume goes on with what is counted in a directory; give it with --out")
        return None
    file = out / COUNTS_FILE
    if not resume and not force and file.exists():
        raise FileExistsError(f"{out} holds counts of an earlier run; --resume goes on with them, --force begins anew")
    prepare_directory(out, force=force or resume)
    if not resume:
        file.unlink(missing_ok=True)
    return file


def _trials(
    experiments: Sequence[MemoryExperiment],
    made: Sequence[Mapping[str, Decoder]],
    *,
    seed: int,
    weights: Path | None,
    discard_below: float | None,
) -> list[Trial]:
    return [
        Trial(
            experiment=experiment,
            decoder=name,
            seed=seed,
            weights=weights if has_weights(name) else None,
            weights_sha256=_weights_sha256(decoder),
            discard_below=discard_below,
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
