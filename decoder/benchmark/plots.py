"""Plots of results: failure rates, and distributions of times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoder.benchmark.common import deadline_curve
from decoder.benchmark.results import AccuracyPoint, BenchmarkResult, LatencyPoint
from decoder.registry import DECODERS

COLORS = dict(zip(DECODERS, ("C0", "C1", "C2", "C3"), strict=True))
"""A decoder has the same colour in every plot."""
MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.")

Series = tuple[str, int, str, str]
"""Code, rounds, basis and noise: what does not change along a curve."""


def draw_plots(result: BenchmarkResult[Any]) -> dict[str, Figure]:
    """Draws what a result can show, by file name.

    Returns:
        ``ler.png``, the failure rates with their intervals: against p where a code has several, otherwise one
        line each. With times also ``ccdf.png``, P(a call takes longer than t), and ``deadline.png``,
        P(wrong or later than t).
    """
    plots = {"ler.png": _draw_failures(result.points)}
    if result.times:
        plots["ccdf.png"] = _draw_ccdf(result)
        plots["deadline.png"] = _draw_deadline(result)
    return plots


def _draw_failures(points: Sequence[AccuracyPoint]) -> Figure:
    several_p = len({point.p for point in points}) > len({_series(point) for point in points})
    if several_p:
        figure, axes = _new_figure()
        _draw_against_p(axes, points)
    else:
        figure, axes = _new_figure(height=1.5 + 0.35 * len(points))
        _draw_rows(axes, points)
    return figure


def _draw_against_p(axes: Axes, points: Sequence[AccuracyPoint]) -> None:
    experiments = _distinct(_series(point) for point in points)
    for number, series in enumerate(experiments):
        for name in _distinct(point.decoder for point in points):
            curve = sorted((q for q in points if _series(q) == series and q.decoder == name), key=lambda point: point.p)
            label = _label(curve[0], experiment=len(experiments) > 1)
            style = {"color": COLORS[name], "label": label}
            style |= {"marker": MARKERS[number % len(MARKERS)], "ls": DASHES[number % len(DASHES)]}
            _draw_curve(axes, curve, **style)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="physical error rate p",
        ylabel="block failures / shots (arrow: none, upper bound)",
    )
    axes.legend(fontsize="small")


def _draw_curve(axes: Axes, points: Sequence[AccuracyPoint], **style: Any) -> None:
    """A line through the rates, with intervals; where nothing failed, an arrow down from the upper bound."""
    measured = [point for point in points if point.failures]
    below = [point.ler - point.ler_low for point in measured]
    above = [point.ler_high - point.ler for point in measured]
    x, y = [point.p for point in measured], [point.ler for point in measured]
    axes.errorbar(x, y, yerr=[below, above], capsize=3, **style)
    bounds = [(point.p, point.ler_high) for point in points if not point.failures]
    for p, bound in bounds:
        axes.errorbar([p], [bound], yerr=[[0.6 * bound], [0.0]], uplims=[True], fmt="_", color=style["color"])


def _draw_rows(axes: Axes, points: Sequence[AccuracyPoint]) -> None:
    for row, point in enumerate(points):
        color = COLORS[point.decoder]
        if point.failures:
            ends = [[point.ler - point.ler_low], [point.ler_high - point.ler]]
            axes.errorbar([point.ler], [row], xerr=ends, fmt="o", capsize=3, color=color)
        else:
            bound = point.ler_high
            axes.errorbar([bound], [row], xerr=[[0.6 * bound], [0.0]], xuplims=[True], fmt="|", color=color)
    axes.set_yticks(range(len(points)), [_label(point, experiment=True, p=True) for point in points])
    axes.set(
        xscale="log",
        xlabel="block failures / shots (arrow: none, upper bound)",
        ylim=(len(points) - 0.5, -0.5),
    )


def _draw_ccdf(result: BenchmarkResult[Any]) -> Figure:
    figure, axes = _new_figure()
    for _, times, style in _timed(result):
        slower = np.arange(len(times.microseconds), 0, -1) / len(times.microseconds)
        axes.step(np.sort(times.microseconds), slower, where="pre", **style)
    axes.set(xscale="log", yscale="log", xlabel="t (µs for each call)", ylabel="P(a call takes t or longer)")
    axes.legend(fontsize="small")
    return figure


def _draw_deadline(result: BenchmarkResult[Any]) -> Figure:
    figure, axes = _new_figure()
    for point, times, style in _timed(result):
        t, rate = deadline_curve(times.microseconds, times.failures, batch=point.batch)
        axes.step(t, np.where(rate > 0, rate, np.nan), where="post", **style)
    axes.set(xscale="log", yscale="log", xlabel="deadline t (µs for each call)", ylabel="P(wrong or later than t)")
    axes.legend(fontsize="small")
    return figure


def _timed(result: BenchmarkResult[Any]) -> list[tuple[LatencyPoint, Any, dict[str, Any]]]:
    groups = _distinct((_series(point), point.p, point.batch) for point in result.points)
    rows = []
    for point, times in zip(result.points, result.times, strict=True):
        number = groups.index((_series(point), point.p, point.batch))
        label = _label(point, experiment=len(groups) > 1, p=len(groups) > 1)
        if len(groups) > 1:
            label += f", batch {point.batch}"
        style = {"color": COLORS[point.decoder], "ls": DASHES[number % len(DASHES)], "label": label}
        rows.append((point, times, style))
    return rows


def _new_figure(*, height: float = 4.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(which="major", alpha=0.3)
    return figure, axes


def _series(point: AccuracyPoint) -> Series:
    # The rates of a custom model are those of one point, so p is not a curve's variable there.
    return point.code, point.rounds, point.basis, point.noise


def _label(point: AccuracyPoint, *, experiment: bool, p: bool = False) -> str:
    text = f"{point.decoder} ({point.detectors})"
    if experiment:
        text += f", {point.code} {point.basis} {point.rounds} rounds"
    return f"{text}, p = {point.p:g}" if p else text


def _distinct(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))
