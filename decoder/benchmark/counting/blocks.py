"""Shots that are decoded together: the pieces of a sweep, each a pure function of its description.

A block's shots are those that `simulation.shots.sampling.sample` draws with the seed of its trial, so all decoders see
the same ones, and a block that is decoded again, in whichever process, counts the same failures.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sinter
import stim

from decoder.base import Decoder, predict_packed
from decoder.benchmark.common import failed_shots, with_confidence
from decoder.benchmark.reporting.provenance import circuit_sha256
from decoder.benchmark.reporting.results import experiment_columns
from decoder.making import make_decoder
from decoder.tandem.rule import unsure
from simulation.bits import PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment
from simulation.shots.sampling import CHUNK_SHOTS, sample

FIRST_SHOTS = 64
"""The first block is small, so that soon something is known of a decoder that takes seconds for a shot."""


FAILED_SHOT = "failed_shot="
"""Begins the custom counts of sinter that name each failed shot by its number in the run."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A decoder on an experiment, and the seed of the shots."""

    experiment: Experiment
    decoder: str
    seed: int
    weights: Path | None = None
    weights_sha256: str | None = None
    """Of a network: what it has learned is part of what is measured."""
    discard_below: float | None = None
    """Shots of which the decoder is less sure are discarded; None keeps all shots."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What tells this trial from others, in plain values: sinter's json_metadata."""
        columns = experiment_columns(self.experiment, self.decoder)
        del columns["decoder"]
        if not isinstance(self.experiment, MemoryExperiment):
            columns["sha256"] = circuit_sha256(self.experiment)[:16]
        elif self.experiment.detectors == "XZ":
            columns["shots_hold"] = "XZ"
        if isinstance(self.experiment, MemoryExperiment) and self.experiment.noiseless_last_cycle:
            columns["noiseless_last_cycle"] = True
        if self.weights_sha256 is not None:
            columns["weights"] = self.weights_sha256[:16]
        if self.discard_below is not None:
            columns["discard_below"] = self.discard_below
        return columns | {"seed": self.seed}

    def blocks(self, shots: int) -> list[Block]:
        """All of the first shots, in order: blocks that double in size up to `CHUNK_SHOTS`."""
        blocks, first, size = [], 0, FIRST_SHOTS
        while first < shots:
            blocks.append(Block(self, first, min(size, shots - first)))
            first += size
            size = min(first, CHUNK_SHOTS)
        return blocks


@dataclass(frozen=True)
class Block:
    """Some consecutive shots of a trial."""

    trial: Trial
    first: int
    shots: int

    @property
    def task(self) -> sinter.Task:
        """The block for sinter, which asks `BlockSampler` for one shot and gets them all."""
        return sinter.Task(
            circuit=self.trial.experiment.circuit or stim.Circuit(),
            decoder=self.trial.decoder,
            # The decoder makes its own from the experiment; sinter would hash megabytes of text for every block.
            detector_error_model=stim.DetectorErrorModel(),
            json_metadata=self.trial.metadata | {"first_shot": self.first, "shots": self.shots},
            collection_options=sinter.CollectionOptions(max_shots=1),
            skip_validation=True,
        )

    def count(self) -> sinter.AnonTaskStats:
        """Draws the shots, decodes them and counts discards and the block failures of the others.

        The seconds are CPU time in the decoder. The custom counts name each shot that failed; see `failed_numbers`.
        """
        _warm_decoder(self.trial)
        samples = sample(self.trial.experiment.source, shots=self.shots, seed=self.trial.seed, first=self.first)
        began = time.process_time()
        predictions, accepted = self._answers(samples.detection_events)
        seconds = time.process_time() - began
        failed = np.flatnonzero(failed_shots(predictions, samples.observable_flips) & accepted)
        discards = self.shots - int(accepted.sum())
        names = Counter(f"{FAILED_SHOT}{self.first + shot}" for shot in failed)
        return sinter.AnonTaskStats(
            shots=self.shots, errors=len(failed), discards=discards, seconds=seconds, custom_counts=names
        )

    def _answers(self, events: PackedBits) -> tuple[PackedBits, npt.NDArray[np.bool_]]:
        """Bit-packed predictions, and which shots are accepted: bool (shots,)."""
        trial, decoder = self.trial, _warm_decoder(self.trial)
        if trial.discard_below is None:
            return predict_packed(decoder, events), np.ones(len(events), np.bool_)
        decoded = with_confidence(decoder, name=trial.decoder).decode_soft(events, bit_packed_shots=True)
        return pack_bits(decoded.predictions), ~unsure(decoded.confidence, trial.discard_below)


def failed_numbers(counts: sinter.AnonTaskStats) -> frozenset[int] | None:
    """The numbers of the shots that failed; None where they were counted by a version that kept no numbers."""
    numbers = frozenset(
        int(name.removeprefix(FAILED_SHOT)) for name in counts.custom_counts if name.startswith(FAILED_SHOT)
    )
    return numbers if len(numbers) == counts.errors else None


def task_stats(task: sinter.Task, counts: sinter.AnonTaskStats) -> sinter.TaskStats:
    """A task's counts as a line of sinter's CSV has them."""
    about = {"strong_id": task.strong_id(), "decoder": task.decoder, "json_metadata": task.json_metadata}
    return sinter.TaskStats(**about, **{field.name: getattr(counts, field.name) for field in fields(counts)})


@lru_cache(maxsize=4)
def _warm_decoder(trial: Trial) -> Decoder:
    decoder = make_decoder(trial.decoder, trial.experiment, weights=trial.weights)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # a process a core is enough
    predict_packed(decoder, sample(trial.experiment.source, shots=1, seed=0).detection_events)
    return decoder


class BlockSampler(sinter.Sampler):  # type: ignore[misc]
    """Counts blocks in sinter's worker processes."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks: Mapping[str, Block] = {_key(block.task): block for block in blocks}

    def __reduce__(self) -> tuple[Any, ...]:
        return _sampler_in_worker, (list(self._blocks.values()),)

    def compiled_sampler_for_task(self, task: sinter.Task) -> sinter.CompiledSampler:
        return _WholeBlock(self._blocks[_key(task)])


class _WholeBlock(sinter.CompiledSampler):  # type: ignore[misc]
    def __init__(self, block: Block) -> None:
        self._block = block

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        return self._block.count()

    def handles_throttling(self) -> bool:
        return True


def _key(task: sinter.Task) -> str:
    return json.dumps([task.decoder, task.json_metadata], sort_keys=True)


def _sampler_in_worker(blocks: list[Block]) -> BlockSampler:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return BlockSampler(blocks)


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent; sinter's workers would wait forever for one that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
