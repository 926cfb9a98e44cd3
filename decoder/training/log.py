"""What a training run reports, and the CSV file that keeps it, with curves for TensorBoard beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from decoder.training.board import Board


@dataclass(frozen=True)
class Progress:
    """One report of a running training."""

    step: int
    shots: int
    seconds: float
    shots_per_second: float
    loss: float
    lr: float
    """Muon's learning rate."""
    fraction: float
    """How much of the run is done, 0 to 1."""
    validation: Mapping[str, Any]
    """What the last validation found, as in the weights file (see `Validation.report` and `HeldOut.report`); empty
    before the first."""
    device: str = ""
    """What it runs on, and on how many threads."""


class Log:
    """A CSV file with a row a report; rows past the step that a run continues from are dropped."""

    COLUMNS = ("step", "shots", "seconds", "shots_per_second", "loss", "lr", "validation")

    def __init__(self, path: Path, *, keep_until: int) -> None:
        self.path = path
        rows: list[list[str]] = []
        if keep_until and path.exists():
            with open(path, newline="") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= keep_until]
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([list(self.COLUMNS), *rows])
        self.board = Board(path.parent / "tensorboard", keep_until=keep_until)

    def write(self, report: Progress) -> None:
        formats = {"step": "d", "shots": "d", "seconds": ".1f", "shots_per_second": ".0f", "loss": ".6f", "lr": ".3g"}
        self._append(**{name: format(getattr(report, name), form) for name, form in formats.items()})
        self.board.write({name: getattr(report, name) for name in ("loss", "lr", "shots_per_second")}, step=report.step)

    def write_validation(self, failures: Mapping[str, object], *, step: int, shots: int) -> None:
        text = "; ".join(f"{key}: {count}" for key, count in failures.items())
        self._append(step=step, shots=shots, validation=text)
        self.board.write(dict(_numbers("failures", failures)), step=step)

    def _append(self, **values: object) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.COLUMNS).writerow(values)


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    """The numbers in a value, by names such as failures/Z 0.003: itself, or those of a mapping or a dataclass."""
    if isinstance(value, int | float):
        yield name, float(value)
    elif isinstance(value, Mapping) or is_dataclass(value):
        for part, inner in (value if isinstance(value, Mapping) else vars(value)).items():
            yield from _numbers(f"{name}/{part}", inner)
