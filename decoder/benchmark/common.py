"""What the benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder.base import Decoder, SoftDecoder
from decoder.catalog import detectors_used, has_weights
from decoder.making import make_decoder
from decoder.statistics import rate_with_interval
from simulation.bits import PackedBits
from simulation.experiments import Experiment


@dataclass(frozen=True, kw_only=True)
class BenchmarkProgress:
    """How far a benchmark has come."""

    done: int
    """Shots decoded, summed over experiments, decoders and batch sizes."""
    total: int
    """Shots to decode in all."""
    experiment: Experiment
    """What is being decoded."""
    failures: dict[str, int]
    """Block failures so far with this experiment (and batch size), by decoder."""
    shots: dict[str, int] = field(default_factory=dict)
    """Of how many shots, likewise; nothing where times are measured."""


ProgressCallback = Callable[[BenchmarkProgress], None]


class Reporter:
    """Counts shots over a whole run and tells the caller."""

    def __init__(self, callback: ProgressCallback | None, *, total: int) -> None:
        self.callback = callback
        self.total = total
        self.done = 0

    def __call__(
        self, shots: int, experiment: Experiment, failures: dict[str, int], shots_of: dict[str, int] | None = None
    ) -> None:
        """Adds shots that one decoder has finished."""
        self.done += shots
        if self.callback is not None:
            self.callback(
                BenchmarkProgress(
                    done=self.done,
                    total=self.total,
                    experiment=experiment,
                    failures=dict(failures),
                    shots=dict(shots_of or {}),
                )
            )


def check_request(experiments: Sequence[Experiment], decoders: Sequence[str]) -> None:
    """Refuses what no benchmark can run.

    Raises:
        ValueError: an unknown decoder, none or one twice, or no experiment or one twice.
    """
    if not experiments or not decoders:
        raise ValueError("a benchmark needs at least one experiment and one decoder")
    for name in decoders:
        detectors_used(name)
    if len(set(decoders)) != len(decoders):
        raise ValueError(f"a decoder is named twice in {', '.join(decoders)}; name each once")
    if len(set(experiments)) != len(experiments):
        raise ValueError("an experiment is given twice; give each code, rounds, basis and p once")


def make_decoders(experiment: Experiment, names: Sequence[str], *, weights: Path | None) -> dict[str, Decoder]:
    """Makes the named decoders for one experiment; the weights go to the neural one alone.

    Raises:
        ValueError: weights without the neural decoder, or that do not fit.
        OSError: the weights cannot be read.
    """
    if weights is not None and not any(has_weights(name) for name in names):
        raise ValueError("weights are given, but the decoder 'neural' is not among those to run, nor a pair with it")
    return {name: make_decoder(name, experiment, weights=weights if has_weights(name) else None) for name in names}


def with_confidence(decoder: Decoder, *, name: str) -> SoftDecoder:
    """The decoder itself, if it says how sure it is.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(decoder, SoftDecoder):
        raise ValueError(f"the decoder {name!r} does not say how sure it is; use 'neural' or a pair with it")
    return decoder


def failed_shots(predictions: PackedBits, flips: PackedBits) -> npt.NDArray[np.bool_]:
    """bool (shots,): whether any observable is predicted wrongly; both bit-packed (shots, bytes)."""
    wrong: npt.NDArray[np.bool_] = (predictions != flips).any(axis=1)
    return wrong


def count_failures(predictions: PackedBits, flips: PackedBits) -> int:
    """Shots in which any observable is predicted wrongly; both bit-packed (shots, bytes)."""
    return int(np.count_nonzero(failed_shots(predictions, flips)))


def failure_columns(failures: int, shots: int) -> dict[str, Any]:
    """The failure rate's columns of a point."""
    ler, low, high = rate_with_interval(failures, shots)
    return {"shots": shots, "failures": failures, "ler": ler, "ler_low": low, "ler_high": high}


def deadline_curve(
    microseconds: npt.NDArray[np.float64], failures: npt.NDArray[np.int64], *, batch: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """LER(t), the probability that a shot is decoded wrongly or later than t, at each time that occurred.

    Args:
        microseconds: (calls,), the time of each call.
        failures: (calls,), the block failures in each call.
        batch: shots in each call.

    Returns:
        The times, ascending, and LER(t) at each: (calls,) both.
    """
    order = np.argsort(microseconds, kind="stable")
    calls = len(order)
    wrong_in_time = np.cumsum(failures[order]) / (calls * batch)
    late = np.arange(calls - 1, -1, -1) / calls
    return microseconds[order], wrong_in_time + late
