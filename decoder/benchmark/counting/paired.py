"""Two decoders on the same shots: on which of them does one alone fail?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The shots that one decoder failed on."""

    decoder: str
    shots: int
    """How many it decoded: the first of the run."""
    numbers: frozenset[int]
    """Which of them failed."""


@dataclass(frozen=True, kw_only=True)
class PairedFailures:
    """The failures of two decoders on the shots of one experiment that both have decoded."""

    code: str
    rounds: int | None
    basis: str
    p: float | None
    noise: str
    first: str
    second: str
    shots: int
    """Decoded by both."""
    both: int
    """Shots on which both failed."""
    first_only: int
    second_only: int
    p_value: float
    """Of McNemar's test in its exact form, two-sided: how likely at least so uneven a split of the shots on which one
    alone fails would be, were both decoders equally good."""


def pair_with_first(about: Mapping[str, Any], failed: Sequence[Failed]) -> list[PairedFailures]:
    """Compares the first of several decoders of one experiment with each of the others.

    Args:
        about: code, rounds, basis, p and noise of the experiment.
        failed: of each decoder.
    """
    series = {name: about[name] for name in ("code", "rounds", "basis", "p", "noise")}
    return [PairedFailures(**series, **_compare(failed[0], other)) for other in failed[1:]]


def _compare(first: Failed, second: Failed) -> dict[str, Any]:
    import scipy.stats  # takes half a second to import

    shots = min(first.shots, second.shots)
    mine, others = ({number for number in one.numbers if number < shots} for one in (first, second))
    only = len(mine - others), len(others - mine)
    return {
        "first": first.decoder,
        "second": second.decoder,
        "shots": shots,
        "both": len(mine & others),
        "first_only": only[0],
        "second_only": only[1],
        "p_value": float(scipy.stats.binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0,
    }
