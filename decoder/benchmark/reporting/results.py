"""What benchmarks return: points, one for each experiment and decoder, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from decoder.benchmark.counting.paired import PairedFailures
from decoder.catalog import detectors_used
from simulation.bases import Detectors
from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment


@dataclass(frozen=True, kw_only=True)
class FailurePoint:
    """The failures of one decoder on one experiment."""

    code: str
    """The code's id, or its polynomials; for a circuit of others its name."""
    rounds: int | None
    """None where a detector error model alone is known."""
    basis: str
    """The memory basis, X or Z; a dash for a circuit of others."""
    p: float | None
    """The physical error rate that the noise was made from; None where there is not one."""
    noise: str
    """The noise model as `NoiseModel.parse` reads it; for a circuit of others that it is in the circuit."""
    decoder: str
    detectors: str
    """XZ: the decoder used the memory basis's detectors. XYZ: those of both bases, or all that there are."""
    shots: int
    failures: int
    """Shots with any observable wrong, over all rounds."""
    ler: float
    """failures / shots."""
    ler_low: float
    """Low end of the exact 95 % interval of the block failure probability."""
    ler_high: float
    """High end; the upper bound where there were no failures."""
    seconds: float
    """Time in this decoder, for all shots."""
    seed: int
    """Seed of the shots."""

    @property
    def judged(self) -> int:
        """The shots that the failures are counted among: all of them, unless some are discarded."""
        return self.shots


Mode = Literal["batch", "streamed"]
"""batch: a call gets all detection events at once. streamed: it gets the last layer's; the others were given before."""


@dataclass(frozen=True, kw_only=True)
class AccuracyPoint(FailurePoint):
    """The failures for each round and each logical qubit, as if they were independent chances to fail.

    Without a known number of rounds they are None.

    Block, round and qubit rates of different papers are not to be compared with each other.
    """

    per_round: float | None
    """1 - (1 - ler)^(1 / rounds), as in Bravyi et al., Nature 627, 778."""
    per_round_low: float | None
    per_round_high: float | None
    per_qubit_round: float | None
    """The rate at which a single observable flips in a round, if all k do so independently:
    (1 - (2 (1 - ler)^(1 / k) - 1)^(1 / rounds)) / 2; 1/2 where ler says that they are random."""
    per_qubit_round_low: float | None
    per_qubit_round_high: float | None


@dataclass(frozen=True, kw_only=True)
class PostSelectedPoint(AccuracyPoint):
    """The failures among the shots that are accepted. All failures and rates of the point are those of them alone.

    ler is failures / accepted; where nothing is accepted it is 0, with the interval from 0 to 1.
    """

    discard_below: float
    """Shots with a smaller confidence are discarded."""
    discards: int
    accepted: int
    """shots - discards."""

    @property
    def judged(self) -> int:
        """The accepted shots."""
        return self.accepted


@dataclass(frozen=True, kw_only=True)
class LatencyPoint(FailurePoint):
    """The times of one decoder on one experiment, in microseconds for each call with `batch` shots.

    A shot's latency is that of its call: nothing of a batch is there before the whole batch is. Quantiles are
    observed times, and None where too few calls lie beyond them to tell.
    """

    mode: Mode
    """How the shots were handed over."""
    batch: int
    """Shots in each call."""
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float | None
    """None below 100 calls."""
    p999_us: float | None
    """None below 1,000 calls."""
    p9999_us: float | None
    """None below 10,000 calls."""
    max_us: float
    cores_used: float
    """CPU time of the whole process, all its threads, over the time that passed in this decoder's turns: about 1 on
    one undisturbed thread, more where a library ran others, less where the machine gave the core to someone else."""


@dataclass(frozen=True, kw_only=True)
class DeadlinePoint(LatencyPoint):
    """A latency in a run with a deadline for the second opinions of pairs."""

    deadline_ms: float | None
    """Milliseconds from the beginning of a call; None for decoders that are no pairs."""
    late: int | None
    """Shots without a second opinion by then, which keep the first decoder's answer."""


class Rate(NamedTuple):
    """A failure rate with its exact 95 % interval."""

    failures: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, point: Any, column: str = "ler") -> Rate:
        """A rate of a point, such as `per_round`, from the three columns that hold it."""
        return cls(point.failures, *(getattr(point, f"{column}{end}") for end in ("", "_low", "_high")))


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The shots whose confidence lies in (low, high]; the first bin holds confidence 0 too."""

    low: float
    high: float
    shots: int
    failures: int
    """Block failures among them; with calibrated confidence about shots * (1 - mean_confidence)."""
    mean_confidence: float | None
    """None where the bin is empty."""


@dataclass(frozen=True, kw_only=True)
class LeastConfident:
    """The least confident shots, up to a share of all, and the failures that they hold.

    Shots of equal confidence stay together: they are among the least confident if all of them fit.
    """

    share: float
    """The share of all shots that was asked for."""
    shots: int
    """Shots among the least confident: at most that share of all."""
    failures: int
    """Block failures among them."""
    failures_share: float | None
    """failures / all failures; None where nothing failed."""
    failures_share_low: float | None
    """Low end of its exact 95 % interval, given how many shots failed."""
    failures_share_high: float | None
    threshold: float
    """Exactly these shots have a confidence below it."""
    accepted: int
    """All other shots: what is left if these are discarded."""
    accepted_failures: int
    """Block failures among the accepted shots."""
    accepted_ler: float
    """accepted_failures / accepted."""
    accepted_ler_low: float
    """Low end of its exact 95 % interval."""
    accepted_ler_high: float

    @property
    def accepted_rate(self) -> Rate:
        """The failure rate of the accepted shots."""
        return Rate(self.accepted_failures, self.accepted_ler, self.accepted_ler_low, self.accepted_ler_high)


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint(FailurePoint):
    """How far the confidence of one decoder on one experiment can be trusted."""

    ece: float
    """The expected calibration error over `bins`; see `calibration.expected_calibration_error`."""
    brier: float
    """The mean of (confidence - (1 for a shot decoded rightly, 0 for a failure))^2."""
    mean_confidence: float
    """With calibrated confidence about 1 - ler."""
    bins: tuple[ReliabilityBin, ...]
    """Of equal width, from 0 to 1."""
    least_confident: tuple[LeastConfident, ...]
    """For each share of the shots, ascending."""


@dataclass(frozen=True, eq=False)
class Answers:
    """How sure the decoder was of each shot of one calibration point, the least sure first."""

    confidence: npt.NDArray[np.float64]
    """(shots,), ascending."""
    failed: npt.NDArray[np.bool_]
    """(shots,): whether the shot was a block failure; of equally sure shots the failures come last."""


@dataclass(frozen=True, eq=False)
class CallTimes:
    """Every timed call of one latency point."""

    microseconds: npt.NDArray[np.float64]
    """(calls,)."""
    failures: npt.NDArray[np.int64]
    """(calls,): block failures among the call's shots."""


EXPERIMENT_COLUMNS = ("code", "rounds", "basis", "p", "noise", "decoder", "detectors")
"""The columns that say what was decoded, and by what."""

PointT = TypeVar("PointT", bound=FailurePoint)


@dataclass(frozen=True, eq=False)
class BenchmarkResult(Generic[PointT]):
    """The outcome of a benchmark."""

    points: tuple[PointT, ...]
    provenance: Mapping[str, Any]
    """Circuits, versions, machine, weights and command; see `provenance.collect_provenance`."""
    times: tuple[CallTimes, ...] = ()
    """For latency, the calls behind each point, in the order of the points."""
    answers: tuple[Answers, ...] = ()
    """For calibration, the shots behind each point, in the order of the points."""

    paired: tuple[PairedFailures, ...] = ()
    """For accuracy with several decoders, the first of them beside each other one on the same shots."""

    def to_json(self) -> dict[str, Any]:
        """``{"points": [...], "provenance": {...}}`` of plain values, and ``"paired": [...]`` where there are any."""
        paired = {"paired": [asdict(one) for one in self.paired]} if self.paired else {}
        return {
            "points": [point_columns(point) for point in self.points],
            **paired,
            "provenance": dict(self.provenance),
        }


def point_columns(point: FailurePoint) -> dict[str, Any]:
    """A point's columns in table order: for latency mode and batch stand before the shots, times at the end."""
    values = asdict(point)
    first = [*EXPERIMENT_COLUMNS, *(name for name in ("mode", "batch") if name in values)]
    rest = [field.name for field in fields(point) if field.name not in first]
    return {name: values[name] for name in first + rest}


def experiment_columns(experiment: Experiment, decoder: str) -> dict[str, Any]:
    """The columns that say what was decoded, and by what."""
    return {
        **experiment.columns,
        "decoder": decoder,
        "detectors": _detectors(experiment, detectors_used(decoder)),
    }


def _detectors(experiment: Experiment, used: Detectors) -> Detectors:
    """Which detectors a decoder that uses these can use: of those that are not in the shots none."""
    if isinstance(experiment, MemoryExperiment):
        return "XZ" if experiment.detectors == "XZ" else used
    return used if experiment.check_types.sufficient is not None else "XYZ"


def per_round_columns(failures: Mapping[str, float], *, rounds: int | None, qubits: int) -> dict[str, Any]:
    """The columns of `AccuracyPoint` that follow from ler, ler_low and ler_high."""
    columns: dict[str, Any] = {}
    for end in ("", "_low", "_high"):
        if not rounds or not qubits:
            columns |= {f"per_round{end}": None, f"per_qubit_round{end}": None}
            continue
        ler = min(failures[f"ler{end}"], 1 - 2**-52)
        columns[f"per_round{end}"] = 0.0 - math.expm1(math.log1p(-ler) / rounds)
        of_a_qubit = -math.expm1(math.log1p(-ler) / qubits)
        odd_rounds = min(2 * of_a_qubit, 1.0)
        columns[f"per_qubit_round{end}"] = (
            0.5 if odd_rounds == 1 else 0.0 - math.expm1(math.log1p(-odd_rounds) / rounds) / 2
        )
    return columns
