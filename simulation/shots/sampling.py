"""Shots of a circuit or a model: detection events, and the observable flips that a decoder has to predict."""

from __future__ import annotations

import multiprocessing
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import stim

from simulation import interrupts
from simulation.bits import Bits, PackedBits, packed_size, unpack_bits
from simulation.foreign.experiment import Source

CHUNK_SHOTS = 1024
"""Shots drawn from one seed. Part of what a seed means: another value gives other shots."""

CHUNKS_PER_TASK = 16
"""Chunks that a worker process is handed at once, so that handing over costs little."""

PROCESSES_PAY_FROM = 500_000_000
"""Detector bits, some seconds of one core; below that, starting processes takes longer than they save."""


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Shots, bit-packed little-endian as in stim's b8: bit j of a shot is ``row[j // 8] >> (j % 8) & 1``."""

    detection_events: PackedBits
    """uint8 (shots, ceil(num_detectors / 8))."""
    observable_flips: PackedBits
    """uint8 (shots, ceil(num_observables / 8))."""
    num_detectors: int
    num_observables: int
    seed: int
    """The seed that draws these shots again; a fresh one where the caller gave none."""

    @property
    def shots(self) -> int:
        """How many there are."""
        return int(self.detection_events.shape[0])

    def __repr__(self) -> str:
        return (
            f"<Samples: {self.shots:,} shots of {self.num_detectors} detectors and "
            f"{self.num_observables} observables, seed {self.seed}>"
        )

    def unpacked_detection_events(self) -> Bits:
        """bool (shots, num_detectors)."""
        return unpack_bits(self.detection_events, self.num_detectors)

    def unpacked_observable_flips(self) -> Bits:
        """bool (shots, num_observables)."""
        return unpack_bits(self.observable_flips, self.num_observables)


def sample(
    source: Source,
    *,
    shots: int,
    seed: int | None = None,
    first: int = 0,
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Draws shots of detectors and observables.

    Shot i depends on the source, the seed and i alone: neither the number of processes nor that of shots
    changes it, so the first shots of a longer run are those of a shorter one. It also depends on stim, which
    promises the same shots for a seed only with the same version, on machines with the same vector
    instructions. Keep the files where shots must last.

    Args:
        source: Any stim circuit or detector error model with at least one detector.
        shots: How many, at least 1.
        seed: Any whole number from 0 up; None draws a fresh one, which `Samples.seed` keeps.
        first: The number of the first shot, to draw a part of a longer run.
        processes: Worker processes; with 1 the calling process samples. The workers are spawned, so a script
            that asks for more must keep its own work under ``if __name__ == "__main__":``.
        progress: Called with the number of shots drawn so far.

    Raises:
        ValueError: shots or processes below 1, a negative seed or first shot, or a source without detectors.
    """
    if shots < 1:
        raise ValueError(f"shots={shots} must be at least 1")
    if processes < 1:
        raise ValueError(f"processes={processes} must be at least 1")
    if seed is not None and seed < 0:
        raise ValueError(f"seed={seed} must be 0 or more")
    if first < 0:
        raise ValueError(f"first={first} must be 0 or more")
    if source.num_detectors == 0:
        raise ValueError("there are no detectors, so the shots hold nothing to decode")
    if seed is None:
        seed = fresh_seed()
    detection_events = np.empty((shots, packed_size(source.num_detectors)), dtype=np.uint8)
    observable_flips = np.empty((shots, packed_size(source.num_observables)), dtype=np.uint8)
    numbers = range(first // CHUNK_SHOTS, -(-(first + shots) // CHUNK_SHOTS))
    with _chunks(source, seed, numbers, processes=processes) as chunks:
        done, skipped = 0, first % CHUNK_SHOTS
        for events, flips in chunks:
            end = min(done + CHUNK_SHOTS - skipped, shots)
            wanted = slice(skipped, skipped + end - done)
            detection_events[done:end] = events[wanted]
            observable_flips[done:end] = flips[wanted]
            done, skipped = end, 0
            if progress is not None:
                progress(done)
    return Samples(
        detection_events=detection_events,
        observable_flips=observable_flips,
        num_detectors=source.num_detectors,
        num_observables=source.num_observables,
        seed=seed,
    )


def suggested_processes(source: Source, *, shots: int) -> int:
    """Every core that this process may use for a long run, 1 for a short one."""
    if shots * source.num_detectors < PROCESSES_PAY_FROM:
        return 1
    return usable_cores()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fresh_seed() -> int:
    """A seed that nobody has used, short enough to be exact in every JSON reader."""
    return secrets.randbits(48)


@contextmanager
def _chunks(
    source: Source, seed: int, numbers: range, *, processes: int
) -> Iterator[Iterator[tuple[PackedBits, PackedBits]]]:
    draw = partial(_sample_chunk, source)
    # The children that SeedSequence(seed).spawn would return.
    seeds = (np.random.SeedSequence(seed, spawn_key=(i,)) for i in numbers)
    processes = min(processes, -(-len(numbers) // CHUNKS_PER_TASK))
    if processes == 1:
        yield map(draw, seeds)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=interrupts.leave_to_the_parent)
    try:
        with interrupts.held_back():
            chunks = pool.map(draw, seeds, chunksize=CHUNKS_PER_TASK)  # starts the processes
        yield chunks
    finally:
        pool.shutdown(cancel_futures=True)


def _sample_chunk(source: Source, seed: np.random.SeedSequence) -> tuple[PackedBits, PackedBits]:
    # Always a whole chunk: stim's stream depends on the number of shots asked for.
    number = int(seed.generate_state(1, np.uint64)[0])
    if isinstance(source, stim.DetectorErrorModel):
        events, flips, _ = source.compile_sampler(seed=number).sample(CHUNK_SHOTS, bit_packed=True)
    else:
        sampler = source.compile_detector_sampler(seed=number)
        events, flips = sampler.sample(CHUNK_SHOTS, separate_observables=True, bit_packed=True)
    return events, flips
