"""What is counted of one decoder on one experiment, and what to count next."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import sinter
import stim

from decoder.benchmark.common import failure_columns
from decoder.benchmark.counting.blocks import Block, Trial, failed_numbers, task_stats
from decoder.benchmark.counting.count_file import Counts
from decoder.benchmark.counting.paired import Failed
from decoder.benchmark.reporting.results import AccuracyPoint, PostSelectedPoint, experiment_columns, per_round_columns
from decoder.benchmark.runs import AccuracyRun


class Tally:
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

    @property
    def all_shots(self) -> int:
        """Shots in the same blocks."""
        return sum(self.counts[i].shots for i in self.ids if i in self.counts)

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

    def failed(self) -> Failed | None:
        """Which shots failed; None where some are discarded, or where it is not known."""
        numbers = failed_numbers(self.total)
        if self.trial.discard_below is not None or numbers is None:
            return None
        return Failed(decoder=self.trial.decoder, shots=self.total.shots, numbers=numbers)

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
        return task_stats(task, replace(self.total, custom_counts=Counter()))
