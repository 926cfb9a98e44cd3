"""Draws failures against CPU time of decoders of several results, such as those of two versions, on the same shots.

    python scripts/failures_against_time.py docs/results/comparison docs/results/comparison-before=before \
        --code bb72 --basis Z --p 0.003 --out docs/results/failures-against-time.png

What follows a directory's name and = stands behind the names of its decoders. Beside the plot the points go into a CSV
file of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from benchmarks.harness import run_script
from decoder.benchmark.reporting.result_tree import read_tree
from decoder.benchmark.reporting.results import Rate
from decoder.benchmark.reporting.styles import FAILURE_RATE, MARKERS, error_bar
from decoder.benchmark.reporting.tables import rows_to_csv
from decoder.commands.options import check_outputs
from simulation.files import atomic_write, write_text


@dataclass(frozen=True, kw_only=True)
class Point:
    """One decoder on one experiment."""

    decoder: str
    """With what stands behind its name."""
    detectors: str
    seed: int
    """Of the shots."""
    shots: int
    failures: int
    ler: float
    ler_low: float
    ler_high: float
    cpu_ms: float
    """CPU milliseconds a shot."""
    commit: str
    """That the result was made from."""


def read_points(described: Sequence[str], *, wanted: Mapping[str, Any]) -> list[Point]:
    """The points of one experiment in several results, each "DIR" or "DIR=what stands behind its decoders' names".

    Raises:
        ValueError: a directory holds no such point, or is not as `tandem benchmark accuracy` wrote it.
        OSError: it cannot be read.
    """
    found: list[Point] = []
    for text in described:
        name, _, behind = text.partition("=")
        [result] = read_tree(Path(name))
        mine = [point for point in result.points if all(point[key] == value for key, value in wanted.items())]
        if not mine or result.kind != "accuracy":
            raise ValueError(f"{name} holds no failures of {', '.join(f'{key} {wanted[key]}' for key in wanted)}")
        git = result.provenance["git"]
        found += _points(mine, behind=f" {behind}" if behind else "", commit=git["commit"][:7] if git else "unknown")
    return found


def _points(points: Iterable[Mapping[str, Any]], *, behind: str, commit: str) -> Iterable[Point]:
    copied = ("detectors", "seed", "shots", "failures", "ler", "ler_low", "ler_high")
    for point in points:
        yield Point(
            decoder=f"{point['decoder']}{behind}",
            cpu_ms=1e3 * point["seconds"] / point["shots"],
            commit=commit,
            **{name: point[name] for name in copied},
        )


def draw(points: Sequence[Point], *, title: str) -> Figure:
    """Failure rates with their intervals against CPU time."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title)
    for number, point in enumerate(points):
        rate, bar = error_bar(Rate(point.failures, point.ler, point.ler_low, point.ler_high))
        style: dict[str, Any] = {"fmt": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}", "capsize": 3}
        label = f"{point.decoder} ({point.detectors})"
        axes.errorbar([point.cpu_ms], [rate], yerr=bar, uplims=not point.failures, label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="CPU milliseconds a shot, one thread", ylabel=FAILURE_RATE)
    axes.grid(which="major", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def failures_against_time(
    *,
    results: Annotated[list[str], typer.Argument(metavar="DIR[=NAME]...", help="Results of accuracy.")],
    code: Annotated[str, typer.Option(help="Code id.")],
    basis: Annotated[str, typer.Option(help="Memory basis.")],
    p: Annotated[float, typer.Option(help="Physical error rate.")],
    out: Annotated[Path, typer.Option(help="The plot (.png); the points go beside it (.csv).")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Draws failures against CPU time, with exact 95 % intervals."""
    if out.suffix != ".png":
        raise ValueError(f"the plot {out} must end in .png")
    check_outputs(out, out.with_suffix(".csv"), force=force)
    points = read_points(results, wanted={"code": code, "basis": basis, "p": p})
    write_text(out.with_suffix(".csv"), rows_to_csv([asdict(point) for point in points]), force=force)
    with atomic_write(out, force=force) as partial:
        draw(points, title=f"{code}, {basis} memory, p = {100 * p:g} %").savefig(partial, format="png", dpi=150)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(failures_against_time)

if __name__ == "__main__":
    run_script(app)
