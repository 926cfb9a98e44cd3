"""`tandem benchmark`: how often decoders are wrong, how long they take, and whether they know when they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.benchmark.runs import AccuracyRun, CalibrationRun, CertificateRun, LatencyRun
from decoder.commands.report import report
from decoder.console.counts import CountsSoFar
from decoder.console.groups import with_groups
from decoder.console.options import SOME_DECODERS, JsonOption, RatesOptions, SweepOptions, listed
from decoder.console.output import ProgressBar, print_json, print_table
from decoder.console.windows import WindowOptions

if TYPE_CHECKING:
    from decoder.benchmark.common import BenchmarkProgress
    from decoder.benchmark.reporting.results import BenchmarkResult

benchmark = typer.Typer(help="Measures decoders: failures, times, or how far their confidence can be trusted.")
benchmark.command()(report)

DecodersOption = Annotated[str, typer.Option("--decoders", metavar="NAME[,NAME...]", help=SOME_DECODERS)]


@benchmark.command()
@with_groups
def accuracy(
    *,
    described: SweepOptions,
    decoders: DecodersOption = "neural,bposd",
    windows: WindowOptions,
    run: AccuracyRun,
    json_output: JsonOption = False,
) -> None:
    """Counts block failures, with exact 95 % intervals.

    Every combination of code, rounds, basis, p and decoder is a point. What is counted is kept in --out as it comes,
    so that a run that was stopped or killed goes on with --resume; named beside those that it holds, further decoders
    are counted on the same shots. blocks.csv there names each shot that failed, and the first decoder is compared with
    each other one shot by shot.

    \b
    Example:
      tandem benchmark accuracy --code bb72 --rounds 6 --basis Z --p 0.002,0.003 \\
        --decoders neural,bposd --shots 10000 --seed 1 --out accuracy
    """
    from decoder.benchmark.counting.accuracy import run_accuracy

    experiments = described.experiments()
    names = windows.names(listed("--decoders", decoders, str))
    _print_paired(_run(partial(run_accuracy, experiments, names, run), json_output=json_output), json_output)


@benchmark.command()
@with_groups
def optimum(
    *,
    described: SweepOptions,
    decoders: DecodersOption = "neural,bposd",
    run: AccuracyRun,
    certify: CertificateRun,
    json_output: JsonOption = False,
) -> None:
    """Counts block failures, and how many of them the most likely error shares.

    For every shot that a decoder fails on it is proved whether the most likely
    error is wrong as well, so that the failure is intrinsic, or right, so that
    a better decoder would recover it. What is not proved in time is unknown.
    With --all-shots the failure rate of the most likely error itself is
    bounded from both sides. What was counted by accuracy is gone on with
    (--resume), and what is proved is kept as well. A proof takes from
    milliseconds at p = 0.1 % to minutes at 0.5 %, and up to a GiB of memory. It
    needs the package qldpc-certificate-benchmark, of the extra optimum.

    \b
    Example:
      tandem benchmark optimum --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --decoders serial,bposd --shots 10000 --seed 1 --out optimum
    """
    from decoder.benchmark.optimum import run_optimum

    experiments = described.experiments()
    names = listed("--decoders", decoders, str)
    _print_paired(_run(partial(run_optimum, experiments, names, run, certify), json_output=json_output), json_output)


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
    names = listed("--decoders", decoders, str)
    if batch is not None:
        run = replace(run, batches=tuple(listed("--batch", batch, int)))
    _run(partial(run_latency, experiments, names, run), json_output=json_output)


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

    result = _run(partial(run_calibration, described.experiments(), decoder, run), json_output=json_output)
    if not json_output:
        headings, *rows = least_confident_table(result.points)
        print_table(headings, rows, title="failures among the least confident shots")


def _print_paired(result: BenchmarkResult[Any], json_output: bool) -> None:
    if result.paired and not json_output:
        from decoder.benchmark.reporting.tables import paired_table

        headings, *rows = paired_table(result.paired)
        print_table(headings, rows, title="on the same shots")


def _run(measure: Callable[..., BenchmarkResult[Any]], *, json_output: bool) -> BenchmarkResult[Any]:
    """Measures below a progress bar, and prints the result."""

    def show(state: BenchmarkProgress) -> None:
        bar.update(state.done, total=state.total, details=so_far.add(state))

    so_far = CountsSoFar()
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        result = measure(progress=show)
    if json_output:
        print_json(result.to_json())
        return result
    from decoder.benchmark.reporting.tables import terminal_table

    title, (headings, *rows) = terminal_table(result.points)
    print_table(headings, rows, title=title)
    return result
