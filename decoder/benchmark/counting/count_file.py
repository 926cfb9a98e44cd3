"""The file that keeps what is counted, block by block, so that a run that was killed goes on. It is one of sinter's."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import sinter

from decoder.benchmark.counting.blocks import Block, Trial

Counts = dict[str, sinter.TaskStats]
"""What is known of blocks, by the strong ids of their tasks."""


def read_counts(file: Path, trials: Iterable[Trial]) -> Counts:
    """What an earlier run with the same trials has counted.

    Raises:
        ValueError: a line is not sinter's, or belongs to another experiment, decoder, seed or version of the circuit.
        OSError: the file cannot be read.
    """
    known = {_signature(trial.decoder, trial.metadata): trial for trial in trials}
    counts: Counts = {}
    for number, stats in _read_lines(file):
        metadata = stats.json_metadata
        block = dict(metadata) if isinstance(metadata, dict) else {}
        first, shots = block.pop("first_shot", None), block.pop("shots", None)
        trial = known.get(_signature(stats.decoder, block))
        if trial is None:
            raise ValueError(
                f"{file}, line {number}, is not of this run but of {stats.decoder} with {json.dumps(metadata)}; "
                "name all that the file holds (experiments, decoders, seed, weights), or choose another --out"
            )
        if stats.strong_id != Block(trial, first, shots).task.strong_id() or stats.shots != shots:
            raise ValueError(
                f"{file}, line {number}, was made with another circuit or other shots than this version makes; "
                "choose another --out"
            )
        if stats.strong_id in counts:
            raise ValueError(f"{file}, line {number}, counts shots that an earlier line has counted; delete it")
        counts[stats.strong_id] = stats
    return counts


def read_seed(file: Path) -> int:
    """The seed of the shots that a file has counted.

    Raises:
        ValueError: a line is not sinter's, or there is no seed or several; OSError: the file cannot be read.
    """
    seeds = {stats.json_metadata["seed"] for _, stats in _read_lines(file) if isinstance(stats.json_metadata, dict)}
    if len(seeds) != 1:
        raise ValueError(f"{file} does not tell the seed of the run; give it with --seed")
    return int(seeds.pop())


def append_line(file: Path, stats: sinter.TaskStats) -> None:
    """Adds a line to a sinter CSV, which is begun if there is none.

    Raises:
        OSError: the file cannot be written.
    """
    new = not file.exists()
    with file.open("a", encoding="utf-8") as out:
        if new:
            print(sinter.CSV_HEADER, file=out)
        print(stats.to_csv_line(), file=out)


def _read_lines(file: Path) -> list[tuple[int, sinter.TaskStats]]:
    """The lines of a sinter CSV, numbered as an editor numbers them."""
    header, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    found = []
    for number, line in zip(itertools.count(2), lines, strict=False):
        if not line.strip():
            continue
        try:
            [stats] = sinter.stats_from_csv_files(io.StringIO(f"{header}\n{line}\n"))
        except Exception:  # sinter raises whatever the parsing of a field raises
            raise ValueError(
                f"{file}, line {number}, is not a whole line of sinter's CSV; delete that line, and its shots are "
                "decoded again"
            ) from None
        found.append((number, stats))
    if not found and header.strip() != sinter.CSV_HEADER.strip():
        raise ValueError(f"{file} is not a CSV of sinter; choose another --out")
    return found


def _signature(decoder: str, metadata: object) -> str:
    return json.dumps([decoder, metadata], sort_keys=True)
