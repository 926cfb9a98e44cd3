"""What `tandem train` shows: a bar with curves on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from decoder.console.output import ProgressBar, note, wants_progress
from decoder.training.config import TrainingConfig

if TYPE_CHECKING:
    from decoder.training.log import Progress

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 48
LINE_SECONDS = 10.0
"""Between two lines where there is no terminal."""


class TrainingDisplay:
    """Shows the reports of a training; use it as a context manager."""

    def __init__(self, opening: Sequence[str], *, json_output: bool) -> None:
        """Starts a display.

        Args:
            opening: lines to say at first, as soon as the training has taken its settings.
            json_output: whether the results are JSON, beside which lines are left out.
        """
        self._opening = list(opening)
        self._bar = ProgressBar("training", total=1, json_output=json_output)
        self._lines = not json_output and not wants_progress(json_output=json_output)
        self._next_line = 0.0
        self._losses: list[float] = []
        self._failures: list[float] = []
        self._validation: Mapping[str, Any] = {}
        self._details = ""

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def progress(self, report: Progress) -> None:
        """Shows a row of the log."""
        validated = bool(report.validation) and report.validation is not self._validation
        if validated:
            self._validation = report.validation
            self._failures.append(total_failures(report.validation))
        self._losses.append(report.loss)
        line = (
            f"step {report.step:,}, {report.shots_per_second:,.0f} shots/s on {report.device}, "
            f"loss {report.loss:.4f}, learning rate {report.lr:.2g}"
        )
        curves = [f"loss     {curve(self._losses)} {self._losses[-1]:.4g}"] if len(self._losses) > 1 else []
        if len(self._failures) > 1:
            curves.append(f"failures {curve(self._failures)} {self._failures[-1]:,.0f}")
        found = [f"at the last validation: {described(report.validation)}"] if report.validation else []
        self._details = "\n".join([line, *curves, *found])
        if validated:
            self._line(found[0], at_once=True)
        self._line(line, at_once=report.step == 1)
        self._bar.update(report.fraction, details=self._details)

    def preparing(self, what: str, fraction: float) -> None:
        """Shows what is done besides training."""
        self._open()
        self._line(f"{what}, {fraction:.0%}" if fraction else what)
        self._bar.update(fraction, details="\n".join(filter(None, [what, self._details])))

    def _open(self) -> None:
        while self._opening:
            note(self._opening.pop(0))

    def _line(self, text: str, *, at_once: bool = False) -> None:
        self._open()
        if self._lines and (at_once or time.monotonic() >= self._next_line):
            note(text)
            self._next_line = time.monotonic() + LINE_SECONDS


def curve(values: Sequence[float]) -> str:
    """Values as a line of blocks, the lowest as the lowest block; of many, means of as many as fit into one."""
    size = -(-len(values) // CURVE_WIDTH)
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    steps = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * steps)] for mean in means)


def comparison_said(config: TrainingConfig) -> str:
    """What a training will be compared with."""
    shots = f"{config.validation_shots:,} held-out shots of each experiment"
    rates = " and ".join(f"{p:g}" for p in config.validation_p)
    if config.model.judges:
        return f"the judge will be compared with 'serial', which has no network, on {shots} whose solutions disagree"
    rival = _rival()
    return f"the network will be compared with BP-OSD ('{rival}') on {shots}: p = {rates}, {min(config.rounds)} rounds"


def described(validation: Mapping[str, Any]) -> str:
    """What a validation found, as in the weights file, in words."""
    if "shots_each" not in validation:
        return "\n".join(f"{name}: {counts}" for name, counts in _comparisons(validation).items())
    rival = validation.get(_rival(), {})
    parts = []
    for name, failures in validation["failures"].items():
        beside = " (BP-OSD: {:,} of {:,})".format(*rival[name]) if name in rival else ""
        parts.append(f"{name}: {failures:,} of {validation['shots_each']:,}{beside}")
    return f"failures {', '.join(parts)}"


def warning(validation: Mapping[str, Any]) -> str | None:
    """What to say of a network that is worse than what it is compared with."""
    if "shots_each" not in validation:
        judged = _comparisons(validation).values()
        ours, theirs = sum(found.judge for found in judged), sum(found.free_energy for found in judged)
        if ours <= theirs:
            return None
        return f"the judge chose wrongly more often than 'serial' without it: {ours:,} against {theirs:,} times"
    rival = validation.get(_rival(), {})
    worse = [
        name
        for name, (failures, shots) in rival.items()
        if validation["failures"][name] * shots > failures * validation["shots_each"]
    ]
    if not worse:
        return None
    return (
        f"the network fails more often than BP-OSD ({', '.join(worse)}): train it for longer, with --resume and more "
        "--minutes"
    )


def total_failures(validation: Mapping[str, Any]) -> int:
    """Over all experiments, those of a judge among the shots whose solutions disagree."""
    if "shots_each" in validation:
        return sum(validation["failures"].values())
    return sum(found.judge for found in _comparisons(validation).values())


def _comparisons(validation: Mapping[str, Any]) -> dict[str, Any]:
    from decoder.training.comparison import Comparison

    return {name: Comparison(**counts) for name, counts in validation.items()}


def _rival() -> str:
    from decoder.training.validation import RIVAL

    return RIVAL
