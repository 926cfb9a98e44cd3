"""Plots of times: their distributions, and failures against a deadline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoder.benchmark.common import deadline_curve
from decoder.benchmark.reporting.results import BenchmarkResult, CallTimes, LatencyPoint, Rate
from decoder.benchmark.reporting.styles import (
    DASHES,
    FAILURE_RATE,
    color_of,
    distinct,
    error_bar,
    experiment_label,
    label_of,
    series_of,
)
from decoder.benchmark.reporting.tables import format_time

MORE_DASHES: tuple[Any, ...] = (*DASHES, (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
MOST_COLUMNS = 2
"""Panels side by side."""
MOST_LEVEL_NAMES = 4
"""Decoders side by side whose names do not overlap."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """The calls of one point."""

    point: LatencyPoint
    times: CallTimes
    experiment: int
    """Which experiment it is, counted from 0."""
    label: str
    """Decoder and experiment for the legend, without mode and batch."""

    @property
    def color(self) -> str:
        return color_of(self.point.decoder)


def draw_times(result: BenchmarkResult[Any]) -> dict[str, Figure]:
    """Draws the times of a latency benchmark, by file name.

    Returns:
        With a panel for each batch size ``ccdf.png``, P(a call takes t or longer), and ``deadline.png``,
        P(wrong or later than t). With a panel for each experiment ``violin.png``, the densities of log t at batch
        size 1, or at the smallest, and ``tradeoff.png``, failures against time at that batch size.
    """
    experiments = distinct((series_of(point), point.p) for point in result.points)
    several = len({series for series, _ in experiments}) > 1
    rows = [
        _Row(
            point=point,
            times=times,
            experiment=experiments.index((series_of(point), point.p)),
            label=label_of(point, experiment=several, p=len(experiments) > 1),
        )
        for point, times in zip(result.points, result.times, strict=True)
    ]
    return {
        "ccdf.png": _draw_by_batch(rows, _draw_ccdf, ylabel="P(a call takes t or longer)"),
        "deadline.png": _draw_by_batch(rows, _draw_deadline, ylabel="P(wrong or later than t)"),
        "violin.png": _draw_violins(rows),
        "tradeoff.png": _draw_tradeoff(rows),
    }


def _draw_by_batch(rows: Sequence[_Row], draw: Callable[[Axes, _Row, dict[str, Any]], None], *, ylabel: str) -> Figure:
    batches = sorted({row.point.batch for row in rows})
    kinds = distinct((row.experiment, row.point.mode) for row in rows)
    figure, panels = _panels(len(batches), share_x=False)
    lines: dict[str, Any] = {}
    for axes, batch in zip(panels, batches, strict=True):
        for row in rows:
            if row.point.batch == batch:
                dashes = MORE_DASHES[kinds.index((row.experiment, row.point.mode)) % len(MORE_DASHES)]
                label = row.label + ", streamed" * (row.point.mode == "streamed")
                draw(axes, row, {"color": row.color, "ls": dashes, "label": label})
        lines |= {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        unit = "µs for each call" if batch == 1 else f"µs for each call of {batch} shots"
        axes.set(xscale="log", yscale="log", xlabel=f"t ({unit})", ylabel=ylabel)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _draw_ccdf(axes: Axes, row: _Row, style: dict[str, Any]) -> None:
    calls = len(row.times.microseconds)
    axes.step(np.sort(row.times.microseconds), np.arange(calls, 0, -1) / calls, where="pre", **style)


def _draw_deadline(axes: Axes, row: _Row, style: dict[str, Any]) -> None:
    t, rate = deadline_curve(row.times.microseconds, row.times.failures, batch=row.point.batch)
    axes.step(t, np.where(rate > 0, rate, np.nan), where="post", **style)


def _smallest_batch(rows: Sequence[_Row]) -> tuple[int, list[list[_Row]]]:
    """The smallest batch size, and its rows by experiment."""
    batch = min(row.point.batch for row in rows)
    by_experiment: dict[int, list[_Row]] = {}
    for row in rows:
        if row.point.batch == batch:
            by_experiment.setdefault(row.experiment, []).append(row)
    return batch, list(by_experiment.values())


def _name_experiment(axes: Axes, point: LatencyPoint) -> None:
    p = "" if point.p is None else f", p = {point.p:g}"
    axes.set_title(f"{experiment_label(point)}{p}", fontsize="medium")


def _draw_tradeoff(rows: Sequence[_Row]) -> Figure:
    batch, by_experiment = _smallest_batch(rows)
    figure, panels = _panels(len(by_experiment), share_x=True)
    names: dict[str, Any] = {}
    for axes, mine in zip(panels, by_experiment, strict=True):
        for row in mine:
            # As a stream a decoder fails as often, and only its times are others.
            if row.point.mode == "batch":
                name = label_of(row.point, experiment=False)
                names[name] = _draw_mean_and_tail(axes, row.point, row.color)
        _name_experiment(axes, mine[0].point)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="µs for each shot: mean (filled), p99.9 (open)" + f", in calls of {batch}" * (batch > 1),
            ylabel=FAILURE_RATE,
        )
    figure.legend(list(names.values()), list(names), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _draw_mean_and_tail(axes: Axes, point: LatencyPoint, color: str) -> Any:
    mean = point.mean_us / point.batch
    rate, bar = error_bar(Rate.of(point))
    drawn = axes.errorbar([mean], [rate], yerr=bar, uplims=not point.failures, capsize=3, fmt="o", color=color)
    if point.p999_us is not None:
        tail = point.p999_us / point.batch
        axes.plot([mean, tail], [rate, rate], color=color, lw=1, alpha=0.5)
        axes.plot([tail], [rate], "o", color=color, mfc="white", zorder=3)
    return drawn


def _draw_violins(rows: Sequence[_Row]) -> Figure:
    batch, by_experiment = _smallest_batch(rows)
    figure, panels = _panels(len(by_experiment), share_x=True)
    for axes, mine in zip(panels, by_experiment, strict=True):
        _draw_violins_of(axes, mine)
        _name_experiment(axes, mine[0].point)
        axes.set_ylabel("time of a call" + f" of {batch} shots" * (batch > 1))
    rows = [row for mine in by_experiment for row in mine]
    _label_decades(panels, rows)
    panels[0].legend(fontsize="small")
    return figure


def _draw_violins_of(axes: Axes, rows: Sequence[_Row]) -> None:
    places = list(range(len(rows)))
    # The density belongs to log t: that of t itself, on a logarithmic axis, would hide the tail.
    logs = [np.log10(row.times.microseconds) for row in rows]
    violins: Any = axes.violinplot(logs, places, widths=0.8, points=200, showextrema=False)
    for body, row in zip(violins["bodies"], rows, strict=True):
        body.set(facecolor=row.color, edgecolor=row.color, alpha=0.35 if row.point.mode == "batch" else 0.15)
    marks: tuple[tuple[str, str, Callable[[LatencyPoint], float | None]], ...] = (
        ("p50", "o", lambda point: point.p50_us),
        ("p99", "_", lambda point: point.p99_us),
        ("max", "v", lambda point: point.max_us),
    )
    for name, marker, time_of in marks:
        marked = [(place, time, row.color) for place, row in enumerate(rows) if (time := time_of(row.point))]
        if marked:
            at, times, colors = zip(*marked, strict=True)
            axes.scatter(at, np.log10(times), c=colors, marker=marker, s=60, zorder=3)
            axes.scatter([], [], c="0.2", marker=marker, s=60, label=name)
    names = [label_of(row.point, experiment=False) for row in rows]
    names = [name + "\nstreamed" * (row.point.mode == "streamed") for name, row in zip(names, rows, strict=True)]
    crowded: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(names) > MOST_LEVEL_NAMES else {}
    axes.set_xticks(places, names, fontsize="small", **crowded)


def _label_decades(panels: Sequence[Axes], rows: Sequence[_Row]) -> None:
    """Ticks of an axis of log10(µs): times at the decades, and what lies between as on any logarithmic axis."""
    lowest = math.floor(min(float(np.log10(row.times.microseconds.min())) for row in rows))
    highest = math.ceil(max(float(np.log10(row.times.microseconds.max())) for row in rows))
    decades = range(lowest, highest + 1)
    between = [decade + math.log10(step) for decade in decades[:-1] for step in range(2, 10)]
    for axes in panels:
        axes.set_yticks(decades, [format_time(10.0**decade) for decade in decades])
        axes.set_yticks(between, minor=True)
        axes.set_ylim(lowest, highest)


def _panels(count: int, *, share_x: bool) -> tuple[Figure, list[Axes]]:
    columns = min(count, MOST_COLUMNS)
    lines = -(-count // columns)
    figure = Figure(figsize=(7 if columns == 1 else 11, 4.5 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=share_x, sharey=True)
    panels = list(grid.ravel())
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.grid(which="major", alpha=0.3)
        axes.tick_params(labelbottom=True, labelleft=True)
    return figure, panels[:count]
