"""Draws the failures of held-out shots against the training shots seen, from the logs of training runs.

    python scripts/learning_curve.py runs/bb72/log.csv --validation-shots 4000 --out docs/results/learning-curve.png

Beside the plot the points go into a CSV file of the same name. Several logs continue each other, in the order
given: the shots of each are added to those of the ones before.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.figure import Figure

from benchmarks.harness import run_script
from decoder.benchmark.common import failure_columns
from decoder.benchmark.reporting.results import Rate
from decoder.benchmark.reporting.styles import DASHES, FAILURE_RATE, MARKERS, draw_curve
from decoder.benchmark.reporting.tables import rows_to_csv
from decoder.console.options import check_outputs, listed
from simulation.files import atomic_write, write_text

Curve = tuple[str, float]
"""Memory basis and p."""
Curves = dict[Curve, list["Point"]]
"""The points of each basis and p, ascending in training shots."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One validation of a network in training, at one basis and p."""

    basis: str
    p: float
    training_shots: int
    """Shots that the network was trained on, over all logs."""
    shots: int
    """Held-out shots."""
    failures: int
    ler: float
    """failures / shots."""
    ler_low: float
    ler_high: float
    """Ends of the exact 95 % interval."""


def read_logs(paths: Sequence[Path], *, validation_shots: Sequence[int], start_shots: int = 0) -> Curves:
    """Reads the validations of logs that continue each other.

    Args:
        paths: logs as `decoder.training.log` writes them, the first run first.
        validation_shots: held-out shots of each basis and p: one number for all logs, or one for each.
        start_shots: training shots before the first log.

    Raises:
        ValueError: not as many numbers as logs, a number below 1, or a file that is no training log.
        OSError: a file cannot be read.
    """
    each = list(validation_shots) * len(paths) if len(validation_shots) == 1 else list(validation_shots)
    if len(each) != len(paths):
        raise ValueError(f"{len(paths)} logs need one number of validation shots or {len(paths)}, not {len(each)}")
    if min(each) < 1 or start_shots < 0:
        raise ValueError("validation shots must be at least 1, and start shots at least 0")
    points: dict[tuple[Curve, int], Point] = {}
    for path, shots in zip(paths, each, strict=True):
        seen = 0
        for line, training_shots, validation in _rows(path):
            seen = max(seen, training_shots)
            if start_shots + training_shots == 0:
                continue  # has no place on a logarithmic axis
            for curve, failures in _failures(validation, where=f"{path}, line {line}"):
                if failures > shots:
                    raise ValueError(
                        f"{path}, line {line} has {failures} failures of {shots} validation shots; "
                        "give the validation_shots that the run was trained with"
                    )
                at = start_shots + training_shots
                points[curve, at] = Point(
                    basis=curve[0], p=curve[1], training_shots=at, **failure_columns(failures, shots)
                )
        start_shots += seen
    if not points:
        raise ValueError(f"{', '.join(map(str, paths))}: no validation is in there yet")
    curves: Curves = {}
    for curve, at in sorted(points):
        curves.setdefault(curve, []).append(points[curve, at])
    return curves


def _rows(path: Path) -> Iterable[tuple[int, int, str]]:
    """Line number, shots and validation text of each row of a log."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"shots", "validation"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} is no training log: its first line lacks the columns shots and validation")
        for row in reader:
            if not (row["shots"] or "").isdigit():
                raise ValueError(f"{path}, line {reader.line_num}: {row['shots']!r} is no number of shots")
            yield reader.line_num, int(row["shots"]), row["validation"] or ""


def _failures(text: str, *, where: str) -> Iterable[tuple[Curve, int]]:
    """What "Z 0.002: 18; X 0.002: 17" says."""
    for part in filter(None, text.split("; ")):
        found = re.fullmatch(r"([XZ]) (\d[\d.e-]*): (\d+)", part)
        if found is None:
            raise ValueError(f"{where}: {part!r} is no validation such as 'Z 0.002: 18'")
        yield (found[1], float(found[2])), int(found[3])


def draw(curves: Curves) -> Figure:
    """The curves with their intervals."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    rates, bases = sorted({p for _, p in curves}), sorted({basis for basis, _ in curves}, reverse=True)
    for (basis, p), points in curves.items():
        color, number = f"C{rates.index(p) % 10}", bases.index(basis)
        style = {"color": color, "marker": MARKERS[number], "ls": DASHES[number]}
        intervals = [Rate.of(one) for one in points]
        draw_curve(axes, [one.training_shots for one in points], intervals, label=f"{basis} memory, p = {p:g}", **style)
    axes.set(xscale="log", yscale="log", xlabel="training shots seen", ylabel=FAILURE_RATE)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def learning_curve(
    *,
    logs: Annotated[list[Path], typer.Argument(help="Logs of runs that continue each other, the first one first.")],
    validation_shots: Annotated[
        str, typer.Option(metavar="N[,N...]", help="Held-out shots of each basis and p: one for all logs or one each.")
    ],
    out: Annotated[Path, typer.Option(help="The plot (.png); the points go beside it (.csv).")],
    start_shots: Annotated[int, typer.Option(help="Training shots before the first log.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Draws learning curves, with exact 95 % intervals."""
    if out.suffix != ".png":
        raise ValueError(f"the plot {out} must end in .png")
    points_file = out.with_suffix(".csv")
    check_outputs(out, points_file, force=force, inputs=tuple(logs))
    numbers = listed("--validation-shots", validation_shots, int)
    curves = read_logs(logs, validation_shots=numbers, start_shots=start_shots)
    table = rows_to_csv([asdict(point) for points in curves.values() for point in points])
    write_text(points_file, table, force=force)
    with atomic_write(out, force=force) as partial:
        draw(curves).savefig(partial, format="png", dpi=150)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(learning_curve)

if __name__ == "__main__":
    run_script(app)
