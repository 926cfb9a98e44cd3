"""Shots whose solutions disagree, decoded once and kept on disk: what a judge is trained on.

One shot of a hundred is such a one at the error rates that codes are made for, so to find them costs far more than to
train on them. They are kept in shards, files that are complete or absent: a run that was ended goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from decoder import serial
from decoder.neural.candidates import Candidates
from decoder.neural.geometry import TorusGeometry
from decoder.neural.judge import CandidateDecoder
from decoder.neural.weights import read_safetensors, write_safetensors
from simulation.bases import Basis
from simulation.bits import Bits, PackedBits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import CHUNK_SHOTS, sample

FORMAT = "tandem-shots-1"
ENOUGH = 200
"""A shard ends with the chunk of `CHUNK_SHOTS` shots in which it has so many whose solutions disagree."""
MOST_CHUNKS = 32
"""It ends after so many chunks in any case."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where shots come from: a memory experiment with uniform noise, and a seed."""

    code: str
    basis: Basis
    rounds: int
    p: float
    seed: int

    @property
    def experiment(self) -> MemoryExperiment:
        """What is decoded."""
        return MemoryExperiment.create(code=self.code, basis=self.basis, rounds=self.rounds, p=self.p)


class Shots(NamedTuple):
    """B shots whose solutions disagree."""

    events: PackedBits
    """uint8 (B, ceil(detectors / 8))."""
    truth: npt.NDArray[np.int64]
    """(B,): the observables that flipped, bit o for observable o."""
    candidates: Candidates
    """What was found for them, without the faults."""
    faults: PackedBits
    """uint8 (B, C, ceil(T K N / 8)): those of the candidates, the most significant bit first."""

    @classmethod
    def joined(cls, parts: list[Shots]) -> Shots:
        """Several sets of shots, of which there is at least one, as one."""
        candidates: list[Any] = [
            np.concatenate(field) for field in zip(*(part.candidates for part in parts), strict=True)
        ]
        return cls(
            events=np.concatenate([part.events for part in parts]),
            truth=np.concatenate([part.truth for part in parts]),
            candidates=Candidates(*candidates),
            faults=np.concatenate([part.faults for part in parts]),
        )

    @property
    def right(self) -> Bits:
        """(B, C): which candidate is in the true coset; at most one of each shot."""
        right: Bits = np.isfinite(self.candidates.energies) & (self.candidates.cosets == self.truth[:, None])
        return right

    def of(self, chosen: npt.NDArray[np.integer] | Bits) -> Shots:
        """Some of the shots."""
        candidates: list[Any] = [field[chosen] for field in self.candidates]
        return Shots(self.events[chosen], self.truth[chosen], Candidates(*candidates), self.faults[chosen])

    def whole(self, *, places: int) -> Candidates:
        """The candidates with their faults, in so many places T K N."""
        faults = np.unpackbits(self.faults, axis=-1, count=places).view(np.bool_)
        return self.candidates._replace(faults=faults)


class ShotStore:
    """A folder of shards."""

    def __init__(self, folder: Path, *, candidates: int, threads: int = 1) -> None:
        """Opens a store; its folder is made when the first shard is written.

        Args:
            folder: where the shards are, or are to be.
            candidates: so many of a shot are kept at most, the likeliest ones.
            threads: how many find them.
        """
        self.folder, self.most, self.threads = folder, candidates, threads

    def shots(self, point: Point, *, wanted: int, progress: Callable[[int], None] | None = None) -> Shots:
        """So many shots of a point, or more, since shards are used whole; those that are missing are made and kept.

        Args:
            point: where they come from.
            wanted: how many.
            progress: called with their number after each shard.

        Raises:
            ValueError: no shot of a whole shard is such a one, or a file is no shard.
            OSError: a shard cannot be read or written.
        """
        parts: list[Shots] = []
        found = 0
        for part in self._shards(point):
            parts.append(part)
            found += len(part.truth)
            if progress is not None:
                progress(found)
            if found >= wanted:
                break
        return Shots.joined(parts)

    def _shards(self, point: Point) -> Iterator[Shots]:
        """One shard after the other, without end."""
        # Another belief propagation finds other candidates, and has folders of its own.
        name = "-".join(str(part) for part in asdict(point).values())
        folder = self.folder / f"{name}-{self.most}-{engine()[:12]}"
        decoder: CandidateDecoder | None = None
        first = number = 0
        while True:
            path = folder / f"{number:05d}.safetensors"
            if not path.exists():
                decoder = decoder or self._decoder(point)
                folder.mkdir(parents=True, exist_ok=True)
                self._write(path, point, decoder, first=first)
            header, shots = _read(path)
            yield shots
            first, number = first + int(header["drawn"]), number + 1

    def _decoder(self, point: Point) -> CandidateDecoder:
        experiment = point.experiment
        geometry = TorusGeometry(experiment.code)
        decoder = CandidateDecoder.of(experiment, geometry, candidates=self.most)
        decoder.threads = self.threads
        return decoder

    def _write(self, path: Path, point: Point, decoder: CandidateDecoder, *, first: int) -> None:
        """Draws chunks of shots, from number `first` on, and keeps those whose solutions disagree."""
        circuit, parts, drawn, found = point.experiment.circuit, list[Shots](), 0, 0
        while not drawn or (drawn < MOST_CHUNKS * CHUNK_SHOTS and found < ENOUGH):
            samples = sample(circuit, shots=CHUNK_SHOTS, seed=point.seed, first=first + drawn)
            differ, case = decoder.disagreeing(samples.unpacked_detection_events())
            flips = samples.unpacked_observable_flips()[differ].astype(np.int64)
            truth = (flips << np.arange(flips.shape[1])).sum(axis=1)
            bare = case.candidates._replace(faults=case.candidates.faults[..., :0])
            packed = np.packbits(case.candidates.faults, axis=-1)
            parts.append(Shots(samples.detection_events[differ], truth, bare, packed))
            drawn, found = drawn + CHUNK_SHOTS, found + len(differ)
        if not found:
            raise ValueError(
                f"of {drawn} shots of {point.code} at p={point.p:g} ({point.basis}, {point.rounds} rounds) there is "
                "none whose solutions disagree, and so nothing to judge: choose a higher p"
            )
        shots = Shots.joined(parts)
        header = {
            "format": FORMAT,
            **asdict(point),
            "candidates": self.most,
            "rules": decoder.rules._asdict(),
            "engine": engine(),
            "first": first,
            "drawn": drawn,
        }
        fields = {**shots.candidates._asdict(), "events": shots.events, "truth": shots.truth, "faults": shots.faults}
        write_safetensors(path, header, {name: torch.from_numpy(field) for name, field in fields.items()})


def _read(path: Path) -> tuple[dict[str, Any], Shots]:
    header, tensors = read_safetensors(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds no shots: remove it, or name another folder for them")
    fields = {name: tensor.numpy() for name, tensor in tensors.items()}
    events, truth, faults = (fields.pop(name) for name in ("events", "truth", "faults"))
    return header, Shots(events, truth, Candidates(**fields, faults=np.zeros((*faults.shape[:2], 0), np.bool_)), faults)


@cache
def engine() -> str:
    """The SHA-256 of all that finds candidates: other code may find others."""
    digest = hashlib.sha256()
    for path in sorted(Path(serial.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
