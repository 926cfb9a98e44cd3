"""Plots of results: failure rates, distributions of times, and confidence against failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoder.benchmark.reporting.results import (
    AccuracyPoint,
    Answers,
    BenchmarkResult,
    CalibrationPoint,
    FailurePoint,
    PostSelectedPoint,
    Rate,
    ReliabilityBin,
)
from decoder.benchmark.reporting.styles import (
    FAILURE_RATE,
    color_of,
    distinct,
    draw_curve,
    error_bar,
    label_of,
    numbered_style,
    series_of,
)
from decoder.benchmark.reporting.time_plots import draw_times
from decoder.statistics import binomial_interval

ACCEPTED_RATE = "block failures / accepted shots (arrow: none, upper bound)"


def draw_plots(result: BenchmarkResult[Any]) -> dict[str, Figure]:
    """Draws what a result can show, by file name.

    Returns:
        ``ler.png``, the failure rates with their intervals: against p where a code has several, otherwise one
        line each; for several codes or rounds also ``per-round.png``, the rates for each round. With times also
        those of `time_plots.draw_times`. For calibration also ``reliability.png``, the share decoded rightly against
        the confidence, with the number of shots in each bin, ``least-confident.png``, the share of all failures
        that the least confident shots hold, and ``accepted.png``, the failure rates of what is left without them.
    """
    plots = {"ler.png": _draw_failures(_once_each(result.points))}
    if _several_p(result.points) and _comparable(result.points):
        plots["per-round.png"] = _draw_per_round(result.points)
    if result.times:
        plots |= draw_times(result)
    if isinstance(result.points[0], CalibrationPoint):
        plots["reliability.png"] = _draw_reliability(result.points)
        plots["least-confident.png"] = _draw_least_confident(result)
        plots["accepted.png"] = _draw_accepted(result.points)
    return plots


def _once_each(points: Sequence[FailurePoint]) -> list[FailurePoint]:
    """One point of each decoder on each experiment, where latency has one for each way to hand over the shots."""
    found: dict[Any, FailurePoint] = {}
    for point in points:
        found.setdefault((series_of(point), point.p, point.decoder), point)
    return list(found.values())


def _several_p(points: Sequence[FailurePoint]) -> bool:
    return len({(series_of(point), point.p) for point in points}) > len({series_of(point) for point in points})


def _comparable(points: Sequence[FailurePoint]) -> bool:
    """Whether there are several codes or rounds, which rates for each round compare."""
    return isinstance(points[0], AccuracyPoint) and len({(point.code, point.rounds) for point in points}) > 1


def _draw_failures(points: Sequence[FailurePoint]) -> Figure:
    several = _several_p(points)
    figure, axes = _new_figure(height=4.5 if several else 1.5 + 0.35 * len(points))
    (_draw_against_p if several else _draw_rows)(axes, points)
    return figure


def _draw_per_round(points: Sequence[AccuracyPoint]) -> Figure:
    figure, axes = _new_figure()
    _draw_against_p(axes, points, rate="per_round")
    axes.set(ylabel="block failures / (shots, rounds) (arrow: none, upper bound)")
    return figure


def _draw_against_p(axes: Axes, points: Sequence[FailurePoint], *, rate: str = "ler") -> None:
    experiments = distinct(series_of(point) for point in points)
    for number, series in enumerate(experiments):
        for name in distinct(point.decoder for point in points):
            mine = [q for q in points if series_of(q) == series and q.decoder == name]
            curve = sorted(((q.p, q) for q in mine if q.p is not None), key=lambda pair: pair[0])
            if not curve:  # circuits of others may have no p
                continue
            label = label_of(curve[0][1], experiment=len(experiments) > 1)
            style = numbered_style(number) | {"color": color_of(name), "label": label}
            draw_curve(axes, [p for p, _ in curve], [Rate.of(point, rate) for _, point in curve], **style)
    axes.set(xscale="log", yscale="log", xlabel="physical error rate p", ylabel=_rate_label(points[0]))
    axes.legend(fontsize="small")


def _draw_rows(axes: Axes, points: Sequence[FailurePoint]) -> None:
    for row, point in enumerate(points):
        mark, bar = error_bar(Rate.of(point))
        style: dict[str, Any] = {"fmt": "o", "capsize": 3} if point.failures else {"fmt": "|", "xuplims": [True]}
        axes.errorbar([mark], [row], xerr=bar, color=color_of(point.decoder), **style)
    axes.set_yticks(range(len(points)), [label_of(point, experiment=True, p=True) for point in points])
    axes.set(xscale="log", xlabel=_rate_label(points[0]), ylim=(len(points) - 0.5, -0.5))


def _draw_reliability(points: Sequence[CalibrationPoint]) -> Figure:
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    rates, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    rates.plot([0, 1], [0, 1], color="0.6", ls=":", label="perfect")
    for number, point in enumerate(points):
        style = numbered_style(number)
        _draw_bins(rates, point.bins, label=f"{label_of(point, experiment=True, p=True)}: ECE {point.ece:.2g}", **style)
        edges = [*(q.low for q in point.bins), point.bins[-1].high]
        counts.stairs([q.shots for q in point.bins], edges, color=style["color"], ls=style["ls"])
    rates.set(ylabel="decoded rightly / shots", ylim=(-0.03, 1.03))
    rates.legend(fontsize="small")
    counts.set(xlabel="confidence", ylabel="shots in the bin", yscale="log", ylim=(0.7, None))
    for axes in (rates, counts):
        axes.grid(which="major", alpha=0.3)
    return figure


def _draw_bins(axes: Axes, bins: Sequence[ReliabilityBin], **style: Any) -> None:
    """The share decoded rightly in each bin that is not empty, with its exact 95 % interval."""
    filled = [one for one in bins if one.shots]
    right = np.array([1 - one.failures / one.shots for one in filled])
    ends = np.array([binomial_interval(one.shots - one.failures, one.shots) for one in filled]).T
    errors = np.abs(ends - right)
    axes.errorbar([one.mean_confidence or 0.0 for one in filled], right, yerr=errors, capsize=3, **style)


def _draw_least_confident(result: BenchmarkResult[Any]) -> Figure:
    figure, axes = _new_figure()
    fewest = min(1 / point.shots for point in result.points)
    blind = np.geomspace(fewest, 1, 100)
    axes.plot(blind, blind, color="0.6", ls=":", label="confidence that tells nothing")
    for number, (point, answers) in enumerate(zip(result.points, result.answers, strict=True)):
        if point.failures:
            style = numbered_style(number) | {"marker": ""}
            axes.plot(*_share_curve(answers), label=label_of(point, experiment=True, p=True), **style)
    axes.set(
        xscale="log",
        xlabel="least confident shots / shots",
        ylabel="failures among them / all failures",
        ylim=(-0.03, 1.03),
    )
    axes.legend(fontsize="small")
    return figure


def _draw_accepted(points: Sequence[CalibrationPoint]) -> Figure:
    figure, axes = _new_figure()
    for number, point in enumerate(points):
        # Where so few shots fit that none is discarded, there is nothing to show.
        some = [least for least in point.least_confident if least.shots]
        style = numbered_style(number) | {"label": label_of(point, experiment=True, p=True)}
        rates = [Rate.of(point), *(least.accepted_rate for least in some)]
        draw_curve(axes, [0, *(least.shots / point.shots for least in some)], rates, **style)
    axes.set(yscale="log", xlabel="discarded shots / shots, the least confident", ylabel=ACCEPTED_RATE)
    axes.legend(fontsize="small")
    return figure


def _share_curve(answers: Answers) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Shares of the shots and of the failures below each confidence that occurs, equal ones together."""
    last_of_its_confidence = np.append(np.diff(answers.confidence) > 0, True)
    shots = np.arange(1, len(answers.failed) + 1)[last_of_its_confidence]
    failures = np.cumsum(answers.failed)[last_of_its_confidence]
    return shots / len(answers.failed), failures / failures[-1]


def _new_figure(*, height: float = 4.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(which="major", alpha=0.3)
    return figure, axes


def _rate_label(point: FailurePoint) -> str:
    return ACCEPTED_RATE if isinstance(point, PostSelectedPoint) else FAILURE_RATE
