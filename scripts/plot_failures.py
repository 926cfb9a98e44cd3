"""Draws failures of several results, such as those of two versions: against CPU time at one p, else against p.

    python scripts/plot_failures.py docs/results/comparison docs/results/comparison-before=before \
        --code bb72 --basis Z --p 0.003 --out docs/results/failures-against-time.png
    python scripts/plot_failures.py docs/results/bb72-* --code bb72 --basis Z --out docs/results/bb72-Z.png

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
from decoder.benchmark.reporting.styles import FAILURE_RATE, MARKERS, draw_curve, error_bar, numbered_style
from decoder.benchmark.reporting.tables import rows_to_csv
from decoder.console.options import check_outputs
from simulation.files import atomic_write, write_text


@dataclass(frozen=True, kw_only=True)
class Point:
    """One decoder on one experiment."""

    decoder: str
    """With what stands behind its name."""
    detectors: str
    p: float
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

    @property
    def label(self) -> str:
        """Decoder and detectors."""
        return f"{self.decoder} ({self.detectors})"

    @property
    def rate(self) -> Rate:
        """The failure rate with its exact 95 % interval."""
        return Rate(self.failures, self.ler, self.ler_low, self.ler_high)


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
    copied = ("detectors", "p", "seed", "shots", "failures", "ler", "ler_low", "ler_high")
    for point in points:
        yield Point(
            decoder=f"{point['decoder']}{behind}",
            cpu_ms=1e3 * point["seconds"] / point["shots"],
            commit=commit,
            **{name: point[name] for name in copied},
        )


def draw_against_time(points: Sequence[Point], *, title: str) -> Figure:
    """Failure rates with their intervals against CPU time."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title)
    for number, point in enumerate(points):
        rate, bar = error_bar(point.rate)
        style: dict[str, Any] = {"fmt": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}", "capsize": 3}
        axes.errorbar([point.cpu_ms], [rate], yerr=bar, uplims=not point.failures, label=point.label, **style)
    axes.set(xscale="log", yscale="log", xlabel="CPU milliseconds a shot, one thread", ylabel=FAILURE_RATE)
    axes.grid(which="major", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def draw_against_p(points: Sequence[Point], *, title: str) -> Figure:
    """A curve for each decoder, with intervals."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title)
    for number, label in enumerate(dict.fromkeys(point.label for point in points)):
        curve = sorted((point for point in points if point.label == label), key=lambda point: point.p)
        style = numbered_style(number) | {"label": label}
        draw_curve(axes, [point.p for point in curve], [point.rate for point in curve], **style)
    axes.set(xscale="log", yscale="log", xlabel="physical error rate p", ylabel=FAILURE_RATE)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def plot_failures(
    *,
    results: Annotated[list[str], typer.Argument(metavar="DIR[=NAME]...", help="Results of accuracy.")],
    code: Annotated[str, typer.Option(help="Code id.")],
    basis: Annotated[str, typer.Option(help="Memory basis.")],
    out: Annotated[Path, typer.Option(help="The plot (.png); the points go beside it (.csv).")],
    p: Annotated[float | None, typer.Option(help="The physical error rate, for a plot against CPU time.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Draws failures against CPU time or p, with exact 95 % intervals."""
    if out.suffix != ".png":
        raise ValueError(f"the plot {out} must end in .png")
    check_outputs(out, out.with_suffix(".csv"), force=force)
    wanted = {"code": code, "basis": basis} | ({} if p is None else {"p": p})
    points = read_points(results, wanted=wanted)
    write_text(out.with_suffix(".csv"), rows_to_csv([asdict(point) for point in points]), force=force)
    title = f"{code}, {basis} memory"
    figure = (
        draw_against_p(points, title=title) if p is None else draw_against_time(points, title=f"{title}, p = {p:g}")
    )
    with atomic_write(out, force=force) as partial:
        figure.savefig(partial, format="png", dpi=150)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(plot_failures)

if __name__ == "__main__":
    run_script(app)
