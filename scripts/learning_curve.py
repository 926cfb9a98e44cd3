"""Draws the failures of held-out shots against the training shots seen, from the logs of training runs.

    python scripts/learning_curve.py runs/bb72/log.csv --validation-shots 4000 --out docs/results/learning-curve.png

Beside the plot the points go into a CSV file of the same name. Several logs continue each other, in the order
given: the shots of each are added to those of the ones before. With --target 0.002=3.5e-4 a power law through the
last points of each curve tells how many shots would lead to that failure rate; that is an extrapolation.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

from benchmarks.harness import run_script
from decoder.benchmark.common import failure_columns
from decoder.benchmark.reporting.plots import DASHES, FAILURE_RATE, MARKERS, draw_curve
from decoder.benchmark.reporting.tables import rows_to_csv
from decoder.commands.options import check_outputs, listed
from decoder.commands.output import print_table
from simulation.files import atomic_write, write_text

CAUTION = (
    "Extrapolated: a power law need not hold beyond the points. The ranges (95 %) are those of the counts alone; all "
    "validations use the same shots, and a falling learning rate makes the end of a run look steeper than it is."
)
FARTHEST = 1e18
"""Training shots; what a power law puts beyond that is out of reach."""

Curve = tuple[str, float]
"""Memory basis and p."""
Curves = dict[Curve, list["Point"]]
"""The points of each basis and p, ascending in training shots."""
Laws = dict[Curve, tuple["PowerLaw", float, float]]
"""Power laws, and the training shots from and to which each is drawn."""


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


@dataclass(frozen=True)
class PowerLaw:
    """log(failure rate) = level + exponent * (log(training shots) - center)."""

    center: float
    level: float
    exponent: float
    covariance: np.ndarray
    """(2, 2), of exponent and level."""

    @property
    def exponent_error(self) -> float:
        """The standard error."""
        return math.sqrt(self.covariance[0, 0])

    def rate(self, training_shots: float) -> float:
        return math.exp(self.level + self.exponent * (math.log(training_shots) - self.center))

    def shots_for(self, rate: float) -> tuple[float, float, float] | None:
        """Training shots for a failure rate, and the ends of their 95 % range; None where the law never gets there.

        The range is where the rate lies in the law's own 95 % band (Fieller's interval). Its high end is infinite
        where the exponent may be 0 as far as the counts tell.
        """
        if self.exponent >= 0:
            return None
        distance = (math.log(rate) - self.level) / self.exponent
        if self.center + distance > math.log(FARTHEST):
            return None
        # (level - log rate + exponent x)^2 <= 1.96^2 variance(x) for x = log(shots) - center, in powers of x.
        gap, slack = self.level - math.log(rate), 1.96**2 * self.covariance
        square = self.exponent**2 - slack[0, 0]
        ends = np.roots([square, 2 * (self.exponent * gap - slack[0, 1]), gap**2 - slack[1, 1]])
        if square > 0:
            low, high = ends.real.min(), ends.real.max()
        else:
            low, high = ends.max() if np.isrealobj(ends) else -math.inf, math.inf
        with np.errstate(over="ignore"):
            middle, low, high = np.exp(np.array([distance, low, high]) + self.center).tolist()
        return middle, low, high


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


def fit_power_law(points: Sequence[Point], *, last: int) -> PowerLaw:
    """Fits the last points that have failures, each weighted by the error of its count's logarithm.

    Raises:
        ValueError: fewer than two are asked for or there.
    """
    used = [point for point in points if point.failures][-last:]
    if last < 2 or len(used) < 2:
        raise ValueError(
            f"a power law needs at least 2 points with failures, but {points[0].basis} memory at p = {points[0].p:g} "
            f"has {len(used)} and --fit-points is {last}; take more, or leave --target out"
        )
    x, y = np.log([q.training_shots for q in used]), np.log([q.ler for q in used])
    center = float(x.mean())
    weights = np.sqrt([q.failures for q in used])  # a Poisson count n has the logarithmic error 1 / sqrt(n)
    (exponent, level), covariance = np.polyfit(x - center, y, 1, w=weights, cov="unscaled")
    return PowerLaw(center=center, level=float(level), exponent=float(exponent), covariance=covariance)


def draw(curves: Curves, laws: Laws) -> Figure:
    """The curves with their intervals, and the laws."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    rates, bases = sorted({p for _, p in curves}), sorted({basis for basis, _ in curves}, reverse=True)
    for (basis, p), points in curves.items():
        color, number = f"C{rates.index(p) % 10}", bases.index(basis)
        style = {"color": color, "marker": MARKERS[number], "ls": DASHES[number]}
        draw_curve(axes, [one.training_shots for one in points], points, label=f"{basis} memory, p = {p:g}", **style)
        if (basis, p) in laws:
            law, first, last = laws[basis, p]
            x = np.geomspace(first, last, 50)
            axes.plot(x, [law.rate(shots) for shots in x], color=color, ls=":", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="training shots seen", ylabel=FAILURE_RATE)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def project(curves: Curves, targets: dict[float, float], *, last: int) -> tuple[list[list[str]], Laws]:
    """Fits each curve that has a target: the rows of a table, and the laws.

    Raises:
        ValueError: a target for a p without points, or too few points to fit.
    """
    if unknown := set(targets) - {p for _, p in curves}:
        there = ", ".join(f"{p:g}" for p in sorted({p for _, p in curves}))
        raise ValueError(f"there is a target for p = {min(unknown):g}, but the logs have validations at {there}")
    rows: list[list[str]] = []
    laws: Laws = {}
    for (basis, p), points in curves.items():
        if p not in targets:
            continue
        law = fit_power_law(points, last=last)
        reached = points[-1].training_shots
        needed = law.shots_for(targets[p])
        row = [basis, f"{p:g}", f"{points[-1].failures:,}/{points[-1].shots:,}", f"{reached:.3g}"]
        row += [f"{law.exponent:.2f} ± {law.exponent_error:.2f}", f"{targets[p]:.3g}", _projection(needed)]
        rows.append(row)
        first = [point for point in points if point.failures][-last:][0].training_shots
        laws[basis, p] = (law, first, max(reached, min(needed[0], 100 * reached) if needed else reached))
    return rows, laws


def _projection(needed: tuple[float, float, float] | None) -> str:
    if needed is None:
        return "out of reach on this trend"
    middle, low, high = needed
    return f"{middle:.2g} ({low:.2g} to {high:.2g})" if high < FARTHEST else f"{middle:.2g} (from {low:.2g} on)"


def _targets(texts: Sequence[str]) -> dict[float, float]:
    targets = {}
    for text in texts:
        try:
            p, rate = (float(part) for part in text.split("="))
        except ValueError:
            raise ValueError(f"--target {text!r} must be P=RATE, such as 0.002=3.5e-4") from None
        if not (0 < p < 1 and 0 < rate < 1):
            raise ValueError(f"--target {text!r}: p and the failure rate must be above 0 and below 1")
        targets[p] = rate
    return targets


def learning_curve(
    *,
    logs: Annotated[list[Path], typer.Argument(help="Logs of runs that continue each other, the first one first.")],
    validation_shots: Annotated[
        str, typer.Option(metavar="N[,N...]", help="Held-out shots of each basis and p: one for all logs or one each.")
    ],
    out: Annotated[Path, typer.Option(help="The plot (.png); the points go beside it (.csv).")],
    start_shots: Annotated[int, typer.Option(help="Training shots before the first log.")] = 0,
    target: Annotated[
        list[str] | None, typer.Option(metavar="P=RATE", help="Project the shots that lead to this failure rate.")
    ] = None,
    fit_points: Annotated[int, typer.Option(help="Last points of each curve that a projection uses.")] = 5,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Draws learning curves, with exact 95 % intervals."""
    if out.suffix != ".png":
        raise ValueError(f"the plot {out} must end in .png")
    points_file = out.with_suffix(".csv")
    check_outputs(out, points_file, force=force, inputs=tuple(logs))
    numbers = listed("--validation-shots", validation_shots, int)
    curves = read_logs(logs, validation_shots=numbers, start_shots=start_shots)
    rows, laws = project(curves, _targets(target or []), last=fit_points)
    table = rows_to_csv([asdict(point) for points in curves.values() for point in points])
    write_text(points_file, table, force=force)
    with atomic_write(out, force=force) as partial:
        draw(curves, laws).savefig(partial, format="png", dpi=150)
    if rows:
        headings = ("basis", "p", "failures/shots at the end", "training shots", "exponent", "target", "shots needed")
        print_table(headings, rows)
        print(CAUTION)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(learning_curve)

if __name__ == "__main__":
    run_script(app)
