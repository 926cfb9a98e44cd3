"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from simulation.files import is_standard_output

QUIET_SECONDS = 2.0
"""No progress bar before that: what ends sooner needs none."""

DRAWING_SECONDS = 0.1
"""Between two drawings of a progress bar."""

WIDTH_OF_FILES = 200
"""Columns of a table that goes into a file or a pipe, where rich would assume 80 and cut."""


def print_json(value: Any, *, file: TextIO | None = None) -> None:
    """Prints one JSON document, with NaN and infinities refused, on stdout unless another file is given."""
    (file or sys.stdout).write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, file: TextIO | None = None
) -> None:
    """Prints rows of values below their headings, on stdout unless another file is given."""
    file = file or sys.stdout
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console(file=file, width=None if file.isatty() else WIDTH_OF_FILES, markup=False).print(table)


def print_result(
    result: Mapping[str, object], *, title: str, json_output: bool, outputs: Iterable[Path | None] = ()
) -> None:
    """Prints what a command did: JSON, or below a title a line for each value that is not None.

    Args:
        result: the values.
        title: the heading of the table.
        json_output: whether to print JSON.
        outputs: files that the command has written; if standard output is one, this goes to stderr.
    """
    file = sys.stderr if any(is_standard_output(path) for path in outputs) else sys.stdout
    if json_output:
        print_json(result, file=file)
    else:
        print_table(["", title], ((key, value) for key, value in result.items() if value is not None), file=file)


def note(message: str) -> None:
    """Prints a line on stderr: what is good to know."""
    print(f"tandem: {message}", file=sys.stderr)


def warn(message: str) -> None:
    """Prints a line on stderr: what looks wrong, though the command goes on."""
    note(f"warning: {message}")


def wants_progress(*, json_output: bool) -> bool:
    """Whether somebody watches: stderr is a terminal, and the results are not piped into a program."""
    return sys.stderr.isatty() and not (json_output and not sys.stdout.isatty())


class _BarWithDetails(Progress):
    """A progress bar with lines of text below it, which narrow terminals wrap."""

    details = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.details:
            yield Text(self.details)


class ProgressBar:
    """A bar on stderr that appears once the work has taken a while; use it as a context manager."""

    def __init__(
        self, description: str, *, unit: str | None = None, json_output: bool, total: float | None = None
    ) -> None:
        """Counts `unit` up to `total`, or percents where there is no unit."""
        amount: tuple[ProgressColumn, ...] = (
            (MofNCompleteColumn(), TextColumn(unit)) if unit else (TaskProgressColumn(),)
        )
        self._bar = _BarWithDetails(
            TextColumn("{task.description}"),
            BarColumn(),
            *amount,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,  # a thread that draws would disturb what is being timed
        )
        self._task = self._bar.add_task(description, total=total)
        self._wanted = wants_progress(json_output=json_output)
        self._next_drawing = time.monotonic() + QUIET_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def update(self, done: float, *, total: float | None = None, details: str = "") -> None:
        """Says how much is done, and what has changed besides."""
        if not self._wanted or (now := time.monotonic()) < self._next_drawing:
            return
        self._next_drawing = now + DRAWING_SECONDS
        self._bar.update(self._task, completed=done, total=total)
        self._bar.details = details
        if not self._bar.live.is_started:
            self._bar.start()
        self._bar.refresh()
