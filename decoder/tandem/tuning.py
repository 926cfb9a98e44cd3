"""Choosing a pair's share: its failures against the share of the shots that the second decoder gets, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder.base import Decoding, SoftDecoder
from decoder.statistics import binomial_interval, shots_in_share
from decoder.tandem.opinions import OpinionPool
from decoder.tandem.pairs import threshold_of
from decoder.tandem.rule import merge
from simulation.experiments import Experiment
from simulation.shots.sampling import sample

SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
CHUNK_SHOTS = 1024

Progress = Callable[[int, int], None]
"""Called with the number of second opinions that have come, and of all that are asked for."""


@dataclass(frozen=True, kw_only=True)
class TuningPoint:
    """A pair on one experiment that passes on at most a share of the shots."""

    basis: str
    p: float | None
    share: float
    """The share of the shots that was allowed."""
    threshold: float
    """Of the confidence: exactly the shots passed on have less."""
    passed_on: int
    """Shots that the second decoder answered."""
    failures: int
    """Block failures of the pair."""
    shots: int
    first_failures: int
    """Block failures of the first decoder alone."""
    seconds_per_opinion: float | None
    """Time of a worker for each shot passed on, the pool's overhead included; None where none was."""

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the pair's failure rate."""
        return binomial_interval(self.failures, self.shots)


@dataclass(frozen=True, eq=False)
class Curve:
    """Which shots of one experiment each of the two decoders got wrong, in the order of the first one's confidence."""

    experiment: Experiment
    confidence: npt.NDArray[np.float64]
    """(shots,), ascending."""
    first_failed: npt.NDArray[np.bool_]
    """(shots,)."""
    second_failed: npt.NDArray[np.bool_]
    """(asked,): for the least confident shots, which the second decoder was asked for."""
    seconds_per_opinion: float | None

    def at(self, share: float) -> TuningPoint:
        """The pair that passes on a share, or as much of it as the second has seen."""
        fits = min(shots_in_share(share, len(self.confidence)), len(self.second_failed))
        threshold = threshold_of(self.confidence, share=fits / len(self.confidence))
        passed = int(np.searchsorted(self.confidence, threshold, side="left"))
        return TuningPoint(
            basis=self.experiment.columns["basis"],
            p=self.experiment.columns["p"],
            share=share,
            threshold=threshold,
            passed_on=passed,
            failures=int(self.second_failed[:passed].sum() + self.first_failed[passed:].sum()),
            shots=len(self.confidence),
            first_failures=int(self.first_failed.sum()),
            seconds_per_opinion=self.seconds_per_opinion,
        )


def measure(
    first: SoftDecoder,
    pool: OpinionPool,
    experiment: Experiment,
    *,
    shots: int,
    seed: int,
    most: float = SHARES[-1],
    progress: Progress | None = None,
) -> Curve:
    """Decodes shots with the first decoder and the least confident of them with the second.

    Args:
        first: the first decoder, for this experiment.
        pool: the second decoder.
        experiment: where the shots come from.
        shots: how many are drawn.
        seed: of the shots.
        most: the share of the shots that the second decoder gets.
        progress: called after each second opinion.

    Raises:
        ValueError: no shots, or a share that is not above 0 and at most 1.
        NoOpinionError: the second decoder cannot be made, or crashed or hung at each shot. Where that happened at some,
            the first decoder's answer counts, as it does in the pair.
    """
    if shots < 1:
        raise ValueError(f"shots={shots} must be at least 1")
    if not 0 < most <= 1:
        raise ValueError(f"the share of the shots that are passed on, {most}, must be above 0 and at most 1")
    samples = sample(experiment.source, shots=shots, seed=seed)
    events, truth = samples.detection_events, samples.unpacked_observable_flips()
    batches = range(0, shots, CHUNK_SHOTS)
    decoded = Decoding.concatenate(
        [first.decode_soft(events[start : start + CHUNK_SHOTS], bit_packed_shots=True) for start in batches]
    )
    order = np.argsort(decoded.confidence, kind="stable")
    asked = order[: shots_in_share(most, shots)]
    if len(asked):
        pool.warm_up(experiment)
    began = time.perf_counter()
    futures = pool.ask(experiment, events[asked])
    for done, _ in enumerate(as_completed(futures), 1):
        if progress is not None:
            progress(done, len(asked))
    seconds = time.perf_counter() - began
    if futures and all(future.exception() for future in futures):
        futures[0].result()  # raises why
    predictions, _ = merge(decoded.predictions[asked], futures)
    return Curve(
        experiment,
        decoded.confidence[order],
        (decoded.predictions != truth).any(axis=1)[order],
        (predictions != truth[asked]).any(axis=1),
        seconds * pool.processes / len(asked) if len(asked) else None,
    )


def choose(curves: Sequence[Curve], *, failure_rate: float | None = None) -> float:
    """The share of `SHARES` that suits all experiments.

    Args:
        curves: of each experiment.
        failure_rate: the smallest share with at most these failures a shot, over all experiments; None for the share
            with the fewest failures, the smallest of several.

    Raises:
        ValueError: see `check_failure_rate`, or no share fails so rarely.
    """
    check_failure_rate(failure_rate)
    rates = [_failure_rate(curves, share) for share in SHARES]
    if failure_rate is None:
        return SHARES[int(np.argmin(rates))]
    for share, rate in zip(SHARES, rates, strict=True):
        if rate <= failure_rate:
            return share
    raise ValueError(
        f"no share of up to {SHARES[-1]:.0%} of the shots fails as rarely as {failure_rate:g} a shot; "
        f"the best fails {min(rates):.3g} times"
    )


def check_failure_rate(failure_rate: float | None) -> None:
    """Refuses a rate that is none, before the curves are measured.

    Raises:
        ValueError: it is not from 0 to 1.
    """
    if failure_rate is not None and not 0 <= failure_rate <= 1:
        raise ValueError(f"failure_rate={failure_rate} must be from 0 to 1")


def _failure_rate(curves: Sequence[Curve], share: float) -> float:
    points = [curve.at(share) for curve in curves]
    return sum(point.failures for point in points) / sum(point.shots for point in points)
