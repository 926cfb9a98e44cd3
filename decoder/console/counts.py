"""What a benchmark has counted so far, as a plot of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoder.benchmark.common import BenchmarkProgress

MOST_LINES = 16
BAR_WIDTH = 20
DECADES = 5
"""The bar of a failure rate of 1 is full, and that of 10^-5 is empty."""


class CountsSoFar:
    """The failures of each decoder on each experiment."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, tuple[int, int]]] = {}

    def add(self, state: BenchmarkProgress) -> str:
        """Takes in what a benchmark says, and returns a line for each decoder; the last ones, if there are many.

        What times decoders does not say how many shots the failures are of, and has them in one line.
        """
        if not state.shots:
            failures = ", ".join(f"{name} {count}" for name, count in state.failures.items())
            return f"{state.experiment}, failures: {failures}"
        counts = {name: (failures, state.shots[name]) for name, failures in state.failures.items()}
        self._counts.setdefault(str(state.experiment), {}).update(counts)
        width = max(len(name) for counts in self._counts.values() for name in counts)
        lines = []
        for experiment, counts in self._counts.items():
            lines.append(experiment)
            lines += [f"  {name:{width}} {_bar(*count)} {_words(*count)}" for name, count in counts.items()]
        return "\n".join(lines[-MOST_LINES:])


def _bar(failures: int, shots: int) -> str:
    share = 1 + math.log10(failures / shots) / DECADES if failures else 0.0
    return ("█" * round(BAR_WIDTH * max(0.0, share))).ljust(BAR_WIDTH, "·")


def _words(failures: int, shots: int) -> str:
    return f"{failures:,} of {shots:,}" + (f" ({failures / shots:.2g})" if shots else "")
