"""Failures beside those of the most likely error."""

from __future__ import annotations

from dataclasses import dataclass

from decoder.benchmark.reporting.results import AccuracyPoint

OPTIMUM = "optimum"
"""What a point of the most likely error itself has in the place of a decoder's name."""


@dataclass(frozen=True, kw_only=True)
class OptimumPoint(AccuracyPoint):
    """The failures of one decoder, split by what the most likely error of each failed shot does.

    That of the most likely error itself, under the name `OPTIMUM`, has proved failures alone as its failures; the high
    end of its interval is that of all shots that are not proved to be right, and seconds are those of the proofs.
    """

    intrinsic: int
    """Failures on shots on which the most likely error is wrong too."""
    recoverable: int
    """Failures on shots on which the most likely error is right."""
    unknown: int
    """Failures on shots of which neither is proved, in the time or because both are equally likely; of the most likely
    error itself, all such shots."""
