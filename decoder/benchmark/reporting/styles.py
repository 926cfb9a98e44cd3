"""What all plots share: colours, labels, and how a failure rate with its interval is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from decoder.benchmark.reporting.optimum_point import OPTIMUM
from decoder.benchmark.reporting.results import FailurePoint, Rate
from decoder.benchmark.reporting.tables import decoder_label
from decoder.catalog import DECODERS

_TAB20 = color_sequences["tab20"]
PALETTE = tuple(to_hex(rgb) for rgb in (*_TAB20[::2], *_TAB20[1::2], *color_sequences["tab20b"]))
"""Forty colours: matplotlib's usual ten, the lighter ones of each, and others."""
COLORS = dict(zip(DECODERS, PALETTE, strict=False)) | {OPTIMUM: "black"}
"""A decoder has the same colour in every plot, and so has the most likely error."""


def color_of(name: str) -> str:
    """The colour of a decoder, also of one in windows, which has a name of its own."""
    return COLORS.get(name) or PALETTE[crc32(name.encode()) % len(PALETTE)]


MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.")

FAILURE_RATE = "block failures / shots (arrow: none, upper bound)"
"""The label of axes that show failure rates."""

Series = tuple[str, int | None, str, str]
"""Code, rounds, basis and noise: what does not change along a curve."""


def series_of(point: FailurePoint) -> Series:
    """The curve that a point is on; the rates of a custom noise model are those of one point alone."""
    return point.code, point.rounds, point.basis, point.noise


def label_of(point: FailurePoint, *, experiment: bool, p: bool = False) -> str:
    """Decoder and detectors, and where it takes them to tell points apart, the experiment and p."""
    text = f"{decoder_label(point)} ({point.detectors})"
    if experiment:
        text += f", {experiment_label(point)}"
    return f"{text}, p = {point.p:g}" if p and point.p is not None else text


def experiment_label(point: FailurePoint) -> str:
    """Code, basis and rounds, as far as they are known."""
    basis = "" if point.basis == "-" else f" {point.basis}"
    return f"{point.code}{basis}" + ("" if point.rounds is None else f" {point.rounds} rounds")


def numbered_style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the curve with this number."""
    return {"color": f"C{number % 10}", "marker": MARKERS[number % len(MARKERS)], "ls": DASHES[number % len(DASHES)]}


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in the order in which they first come."""
    return list(dict.fromkeys(values))


def error_bar(rate: Rate) -> tuple[float, list[list[float]]]:
    """Where a rate's mark stands and how far its bar reaches down and up; where nothing failed, of the upper bound."""
    if rate.failures:
        return rate.value, [[rate.value - rate.low], [rate.high - rate.value]]
    return rate.high, [[0.6 * rate.high], [0.0]]


def draw_curve(axes: Axes, x: Sequence[float], rates: Sequence[Rate], **style: Any) -> None:
    """Draws a line through failure rates, with intervals; where nothing failed, an arrow down from the upper bound.

    Args:
        axes: where to draw.
        x: where each rate stands.
        rates: as many.
        style: matplotlib's, with a color.
    """
    bars = [(at, rate.failures, *error_bar(rate)) for at, rate in zip(x, rates, strict=True)]
    measured = [(at, mark, bar) for at, failures, mark, bar in bars if failures]
    ends = np.array([bar for _, _, bar in measured]).reshape(-1, 2).T
    axes.errorbar([at for at, _, _ in measured], [mark for _, mark, _ in measured], yerr=ends, capsize=3, **style)
    for at, failures, bound, bar in bars:
        if not failures:
            axes.errorbar([at], [bound], yerr=bar, uplims=[True], fmt="_", color=style["color"])
