"""`tandem benchmark`: how often decoders are wrong, how long they take, and whether they know when they are wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.benchmark.runs import AccuracyRun, CalibrationRun, LatencyRun
from decoder.commands.groups import with_groups
from decoder.commands.options import SOME_DECODERS, JsonOption, RatesOptions, SweepOptions, listed
from decoder.commands.output import ProgressBar, print_json, print_table
from decoder.commands.report import report

if TYPE_CHECKING:
    from decoder.benchmark.common import BenchmarkProgress
    from decoder.benchmark.reporting.results import BenchmarkResult, FailurePoint

benchmark = typer.Typer(help="Measures decoders: failures, times, or how far their confidence can be trusted.")
benchmark.command()(report)

DecodersOption = Annotated[str, typer.Option("--decoders", metavar="NAME[,NAME...]", help=SOME_DECODERS)]


@benchmark.command()
@with_groups
def accuracy(
    *,
    described: SweepOptions,
    decoders: DecodersOption = "neural,bposd",
    run: AccuracyRun,
    json_output: JsonOption = False,
) -> None:
    """Counts block failures, with exact 95 % intervals.

    Every combination of code, rounds, basis, p and decoder is a point. What is counted is kept in --out as it comes,
    so that a run that was stopped or killed goes on with --resume.

    \b
    Example:
      tandem benchmark accuracy --code bb72 --rounds 6 --basis Z --p 0.002,0.003 \\
        --decoders neural,bposd --shots 10000 --seed 1 --out accuracy
    """
    from decoder.benchmark.counting.accuracy import run_accuracy

    experiments = described.experiments()
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        names = listed("--decoders", decoders, str)
        result = run_accuracy(experiments, names, run, progress=lambda state: _show(bar, state))
    _print(result, json_output=json_output)


@benchmark.command()
@with_groups
def latency(
    *,
    described: RatesOptions,
    decoders: DecodersOption = "neural,bposd",
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N[,N...]",
            help="Shots in each call that is timed.",
            show_default="those of 1, 8, 64 and 512 that --shots allows",
        ),
    ] = None,
    run: LatencyRun,
    json_output: JsonOption = False,
) -> None:
    """Times every call of each decoder, on one thread.

    Decoders take turns on the same shots. One that can stream is timed a
    second time, from the arrival of the last layer of detection events to
    the answer. p99.9 takes 1,000 calls, p99.99 10,000.

    \b
    Example:
      tandem benchmark latency --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --decoders neural,bposd --shots 2000 --seed 1 --out latency
    """
    from decoder.benchmark.timing.latency import run_latency

    experiments = described.experiments()
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        names = listed("--decoders", decoders, str)
        if batch is not None:
            run = replace(run, batches=tuple(listed("--batch", batch, int)))
        result = run_latency(experiments, names, run, progress=lambda state: _show(bar, state))
    _print(result, json_output=json_output)


@benchmark.command()
@with_groups
def calibration(
    *,
    described: RatesOptions,
    decoder: Annotated[str, typer.Option("--decoder", metavar="NAME", help=SOME_DECODERS)] = "neural",
    run: CalibrationRun,
    json_output: JsonOption = False,
) -> None:
    """Compares confidence with failures, over all shots and among the least confident.

    \b
    Example:
      tandem benchmark calibration --code bb72 --rounds 6 --basis Z --p 0.003 \\
        --shots 20000 --seed 1 --out calibration
    """
    from decoder.benchmark.calibration import run_calibration
    from decoder.benchmark.reporting.tables import least_confident_table

    experiments = described.experiments()
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        result = run_calibration(experiments, decoder, run, progress=lambda state: _show(bar, state))
    _print(result, json_output=json_output)
    if not json_output:
        headings, *rows = least_confident_table(result.points)
        print_table(headings, rows, title="failures among the least confident shots")


def _show(bar: ProgressBar, state: BenchmarkProgress) -> None:
    failures = ", ".join(f"{name} {count}" for name, count in state.failures.items())
    bar.update(state.done, total=state.total, details=f"p={state.experiment.noise.p:g}, failures: {failures}")


def _print(result: BenchmarkResult[Any], *, json_output: bool) -> None:
    if json_output:
        print_json(result.to_json())
        return
    from decoder.benchmark.reporting.tables import decoder_label

    first = result.points[0]
    several = [name for name in ("code", "basis", "rounds") if len({getattr(q, name) for q in result.points}) > 1]
    one = {"code": first.code, "basis": f"{first.basis} memory", "rounds": f"{first.rounds} rounds"}
    title = [text for name, text in one.items() if name not in several]
    print_table(
        [*several, "p", "decoder", *_headings(first)],
        (
            [
                *(str(getattr(point, name)) for name in several),
                f"{point.p:g}",
                f"{decoder_label(point)} {point.detectors}",
                *_cells(point),
            ]
            for point in result.points
        ),
        title=", ".join([*title, f"{first.noise} noise", f"seed {first.seed}"]),
    )


_RATES = ("failures/shots", "block failure rate (95 % interval)", "CPU time a shot")
_POST_SELECTED = ("accepted", "failures/accepted", "block failure rate of the accepted (95 % interval)", _RATES[2])
_TIMES = ("mode", "batch", "failed", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max", "max/p50")
_CALIBRATION = (*_RATES[:2], "mean confidence", "ECE", "Brier", "time a shot")


def _headings(first: FailurePoint) -> tuple[str, ...]:
    from decoder.benchmark.reporting.results import CalibrationPoint, DeadlinePoint, LatencyPoint, PostSelectedPoint

    if isinstance(first, CalibrationPoint):
        return _CALIBRATION
    if isinstance(first, PostSelectedPoint):
        return _POST_SELECTED
    if isinstance(first, DeadlinePoint):
        return (*_TIMES, "late")
    return _TIMES if isinstance(first, LatencyPoint) else _RATES


def _cells(point: FailurePoint) -> list[str]:
    from decoder.benchmark.reporting.results import CalibrationPoint, DeadlinePoint, LatencyPoint, PostSelectedPoint
    from decoder.benchmark.reporting.tables import format_accepted, format_late, format_rate, format_tail, format_time

    failures = f"{point.failures:,}/{point.judged:,}"
    if isinstance(point, LatencyPoint):
        tail = (point.p99_us, point.p999_us, point.p9999_us, point.max_us)
        times = map(format_time, (point.mean_us, point.p50_us, point.p90_us, *tail))
        late = [format_late(point)] if isinstance(point, DeadlinePoint) else []
        return [point.mode, str(point.batch), failures, *times, format_tail(point), *late]
    time = format_time(1e6 * point.seconds / point.shots)
    if isinstance(point, CalibrationPoint):
        trust = (f"{100 * point.mean_confidence:.4g} %", f"{point.ece:.3g}", f"{point.brier:.3g}")
        return [failures, format_rate(point), *trust, time]
    if isinstance(point, PostSelectedPoint):
        return [format_accepted(point.accepted, point.shots), failures, format_rate(point), time]
    return [failures, format_rate(point), time]
