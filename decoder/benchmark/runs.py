"""What can be set of a benchmark's run; each field is an option of ``tandem benchmark`` where it has one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sinter import AnonTaskStats

SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Repeats the shots. Without it a fresh seed is drawn and shown.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="The network's weights (.safetensors).", show_default="those shipped"),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="A directory for tables (CSV, Markdown, JSON), plots and provenance."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
SHOTS_HELP = "Shots for each p, the same for all decoders."


@dataclass(frozen=True, kw_only=True)
class AccuracyRun:
    """How failures are counted.

    Raises:
        ValueError: a number is out of its range.
    """

    shots: Annotated[int, typer.Option("--shots", help="The most shots for each point.")] = 10_000
    max_errors: Annotated[
        int | None, typer.Option("--max-errors", help="A point ends with the block that brings so many failures.")
    ] = None
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", help="A point ends after about so much CPU time in its decoder.")
    ] = None
    """More exactly, before a block that, at the rate so far, would take longer; the first block, of 64 shots, is
    always counted."""
    min_shots: Annotated[
        int, typer.Option("--min-shots", help="So many shots are decoded even if they take more than --max-seconds.")
    ] = 0
    seed: SeedOption = None
    weights: WeightsOption = None
    processes: Annotated[
        int | None, typer.Option("--processes", help="How many, of one thread each.", show_default="one a core")
    ] = None
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Count on a Ray cluster, or on a new 'local' one.")
    ] = None
    discard_below: Annotated[
        float | None,
        typer.Option(
            "--discard-below",
            metavar="T",
            help="Discard shots with a smaller confidence, and count the failures of those accepted.",
        ),
    ] = None
    """The points are then `PostSelectedPoint`."""
    out: OutOption = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what --out holds of this run.")] = False
    force: ForceOption = False

    def __post_init__(self) -> None:
        _check_shots(self.shots)
        if self.max_errors is not None and self.max_errors < 1:
            raise ValueError(f"max_errors={self.max_errors} must be at least 1")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds={self.max_seconds} must be above 0")
        if not 0 <= self.min_shots <= self.shots:
            raise ValueError(f"min_shots={self.min_shots} must be from 0 to shots={self.shots}")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes={self.processes} must be at least 1")
        if self.discard_below is not None and not 0 < self.discard_below < 1:
            raise ValueError(f"discard_below={self.discard_below} must be a probability above 0 and below 1")

    def done(self, so_far: AnonTaskStats, *, upcoming: int) -> bool:
        """Whether a point ends with what is counted so far, rather than with so many shots more."""
        if so_far.shots == 0:
            return False
        if self.max_errors is not None and so_far.errors >= self.max_errors:
            return True
        if self.max_seconds is None or so_far.shots < self.min_shots:
            return False
        return bool(so_far.seconds * (1 + upcoming / so_far.shots) > self.max_seconds)

    def wanted(self, so_far: AnonTaskStats) -> float:
        """About how many shots more are needed."""
        shots, wanted = so_far.shots, math.inf
        if shots == 0:
            return 0 if self.max_errors is not None or self.max_seconds is not None else wanted
        if self.max_errors is not None:
            # Not too many at once, since the rate is only estimated.
            wanted = min(8 * shots, (self.max_errors - so_far.errors) * shots / (so_far.errors + 1))
        if self.max_seconds is not None and so_far.seconds > 0:
            in_time = (self.max_seconds - so_far.seconds) * shots / so_far.seconds
            wanted = min(wanted, max(in_time, self.min_shots - shots))
        return wanted


@dataclass(frozen=True, kw_only=True)
class CertificateRun:
    """Which shots are certified, and for how long each.

    Raises:
        ValueError: a time that is not above 0.
    """

    certify_seconds: Annotated[
        float, typer.Option("--certify-seconds", help="The most CPU time for the proof of one shot.")
    ] = 60.0
    all_shots: Annotated[
        bool,
        typer.Option(
            "--all-shots", help="Certify every shot, not only failures, and so bound the optimum's own failure rate."
        ),
    ] = False

    def __post_init__(self) -> None:
        if not self.certify_seconds > 0:
            raise ValueError(f"certify_seconds={self.certify_seconds} must be above 0")


@dataclass(frozen=True, kw_only=True)
class LatencyRun:
    """How calls are timed.

    Raises:
        ValueError: a batch that is below 1 or above `shots`, or given twice, or a number below 1.
    """

    shots: Annotated[int, typer.Option("--shots", help=SHOTS_HELP)] = 2_000
    """The same for all batch sizes too. A last call that would be smaller than its batch is left out."""
    batches: tuple[int, ...] | None = None
    """Shots in each call that is timed; None for those of `DEFAULT_BATCHES` up to `shots`."""
    warmup_calls: int = 20
    """Of each decoder before its times count; no more than calls that count."""
    seed: SeedOption = None
    weights: WeightsOption = None
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            "--deadline-ms",
            metavar="D",
            help="Pairs wait no longer for their second decoder, in worker processes, than until D ms of a call.",
        ),
    ] = None
    """The points are then `DeadlinePoint`. None has both decoders in this process."""
    out: OutOption = None
    force: ForceOption = False

    def __post_init__(self) -> None:
        _check_shots(self.shots)
        if self.warmup_calls < 1:
            raise ValueError(f"warmup_calls={self.warmup_calls} must be at least 1, or the first call is timed cold")
        if self.batches is None:
            return
        if not self.batches or len(set(self.batches)) != len(self.batches):
            raise ValueError(f"give at least one batch size, each once, not {list(self.batches)}")
        for batch in self.batches:
            if not 1 <= batch <= self.shots:
                raise ValueError(f"batch={batch} must be at least 1 and at most shots={self.shots}")


@dataclass(frozen=True, kw_only=True)
class CalibrationRun:
    """How confidence is compared with failures.

    Raises:
        ValueError: `chunk_shots` is below 1.
    """

    shots: Annotated[int, typer.Option("--shots", help=SHOTS_HELP)] = 20_000
    chunk_shots: int = 1024
    """Shots decoded at once, and between two calls of `progress`."""
    processes: int | None = None
    """That draw the shots; None for as many as it pays. The decoder runs in this process."""
    seed: SeedOption = None
    weights: WeightsOption = None
    out: OutOption = None
    force: ForceOption = False

    def __post_init__(self) -> None:
        _check_shots(self.shots)
        if self.chunk_shots < 1:
            raise ValueError(f"chunk_shots={self.chunk_shots} must be at least 1")


def _check_shots(shots: int) -> None:
    if shots < 1:
        raise ValueError(f"shots={shots} must be at least 1")
