"""`tandem benchmark`: how often decoders are wrong, how long they take, and whether they know when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.commands.options import (
    SOME_DECODERS,
    Basis,
    BasisOption,
    CodeOption,
    DecoderOption,
    DetectorsOption,
    ForceOption,
    JsonOption,
    NoiseOption,
    PerfectEndOption,
    RoundsOption,
    WeightsOption,
    listed,
    make_experiment,
)
from decoder.commands.output import ProgressBar, print_json, print_table

if TYPE_CHECKING:
    from decoder.benchmark.common import BenchmarkProgress
    from decoder.benchmark.results import AccuracyPoint, BenchmarkResult, CalibrationPoint
    from simulation.circuits import MemoryExperiment

benchmark = typer.Typer(help="Measures decoders: failures, times, or how far their confidence can be trusted.")

RatesOption = Annotated[
    str | None,
    typer.Option(
        "--p",
        metavar="P[,P...]",
        help="Physical error rates, between 0 and 0.5. Not used with rates in --noise.",
    ),
]
DecodersOption = Annotated[str, typer.Option("--decoders", metavar="NAME[,NAME...]", help=SOME_DECODERS)]
ShotsOption = Annotated[int, typer.Option("--shots", help="Shots for each p, the same for all decoders.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Repeats the shots. Without it a fresh seed is drawn and shown.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="A directory for tables (CSV, Markdown, JSON), plots and provenance."),
]


@benchmark.command()
def accuracy(
    *,
    code: CodeOption,
    rounds: RoundsOption,
    basis: BasisOption,
    p: RatesOption = None,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    decoders: DecodersOption = "neural,bposd",
    shots: ShotsOption = 10_000,
    seed: SeedOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Counts block failures, with exact 95 % intervals.

    \b
    Example:
      tandem benchmark accuracy --code bb72 --rounds 6 --basis Z --p 0.002,0.003 \\
        --decoders neural,bposd --shots 10000 --seed 1 --out accuracy
    """
    from decoder.benchmark.accuracy import run_accuracy
    from simulation.sampling import suggested_processes

    experiments = _experiments(
        p,
        code=code,
        rounds=rounds,
        basis=basis,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        result = run_accuracy(
            experiments,
            listed("--decoders", decoders, str),
            shots=shots,
            seed=seed,
            weights=weights,
            processes=suggested_processes(experiments[0].circuit, shots=shots),
            out=out,
            force=force,
            progress=lambda state: _show(bar, state),
        )
    _print(result, json_output=json_output)


@benchmark.command()
def latency(
    *,
    code: CodeOption,
    rounds: RoundsOption,
    basis: BasisOption,
    p: RatesOption = None,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    decoders: DecodersOption = "neural,bposd",
    batch: Annotated[str, typer.Option("--batch", metavar="N[,N...]", help="Shots in each call that is timed.")] = "1",
    shots: ShotsOption = 2_000,
    seed: SeedOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Times every call of each decoder, on one thread.

    \b
    Example:
      tandem benchmark latency --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --decoders neural,bposd --shots 2000 --seed 1 --batch 1,32 --out latency
    """
    from decoder.benchmark.latency import run_latency

    experiments = _experiments(
        p,
        code=code,
        rounds=rounds,
        basis=basis,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        result = run_latency(
            experiments,
            listed("--decoders", decoders, str),
            shots=shots,
            seed=seed,
            batches=listed("--batch", batch, int),
            weights=weights,
            out=out,
            force=force,
            progress=lambda state: _show(bar, state),
        )
    _print(result, json_output=json_output)


@benchmark.command()
def calibration(
    *,
    code: CodeOption,
    rounds: RoundsOption,
    basis: BasisOption,
    p: RatesOption = None,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    decoder: DecoderOption = "neural",
    shots: ShotsOption = 20_000,
    seed: SeedOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Compares confidence with failures, over all shots and among the least confident.

    \b
    Example:
      tandem benchmark calibration --code bb72 --rounds 6 --basis Z --p 0.003 \\
        --shots 20000 --seed 1 --out calibration
    """
    from decoder.benchmark.calibration import run_calibration
    from simulation.sampling import suggested_processes

    experiments = _experiments(
        p,
        code=code,
        rounds=rounds,
        basis=basis,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        result = run_calibration(
            experiments,
            decoder=decoder,
            shots=shots,
            seed=seed,
            weights=weights,
            processes=suggested_processes(experiments[0].circuit, shots=shots),
            out=out,
            force=force,
            progress=lambda state: _show(bar, state),
        )
    _print(result, json_output=json_output)
    if not json_output:
        _print_least_confident(result)


def _experiments(
    rates: str | None,
    *,
    code: str,
    rounds: int,
    basis: Basis,
    noise: str,
    detectors: Any,
    noiseless_last_cycle: bool,
) -> list[MemoryExperiment]:
    return [
        make_experiment(
            code=code,
            rounds=rounds,
            basis=basis,
            p=p,
            noise=noise,
            detectors=detectors,
            noiseless_last_cycle=noiseless_last_cycle,
        )
        for p in ([None] if rates is None else listed("--p", rates, float))
    ]


def _show(bar: ProgressBar, state: BenchmarkProgress) -> None:
    failures = ", ".join(f"{name} {count}" for name, count in state.failures.items())
    bar.update(state.done, total=state.total, details=f"p={state.experiment.noise.p:g}, failures: {failures}")


def _print(result: BenchmarkResult[Any], *, json_output: bool) -> None:
    if json_output:
        print_json(result.to_json())
        return
    first = result.points[0]
    print_table(
        ["p", "decoder", *_headings(first)],
        ([f"{point.p:g}", f"{point.decoder} {point.detectors}", *_cells(point)] for point in result.points),
        title=f"{first.code} {first.basis} memory, {first.rounds} rounds, {first.noise} noise, seed {first.seed}",
    )


_RATES = ("failures/shots", "block failure rate (95 % interval)", "time a shot")
_TIMES = ("batch", "failed", "mean", "p50", "p99", "p99.9", "max")
_CALIBRATION = (*_RATES[:2], "mean confidence", "ECE", "Brier", _RATES[2])


def _headings(first: AccuracyPoint) -> tuple[str, ...]:
    from decoder.benchmark.results import CalibrationPoint, LatencyPoint

    if isinstance(first, CalibrationPoint):
        return _CALIBRATION
    return _TIMES if isinstance(first, LatencyPoint) else _RATES


def _cells(point: AccuracyPoint) -> list[str]:
    from decoder.benchmark.results import CalibrationPoint, LatencyPoint
    from decoder.benchmark.tables import format_rate, format_time

    failures = f"{point.failures:,}/{point.shots:,}"
    if isinstance(point, LatencyPoint):
        times = (point.mean_us, point.p50_us, point.p99_us, point.p999_us, point.max_us)
        return [str(point.batch), failures, *map(format_time, times)]
    time = format_time(1e6 * point.seconds / point.shots)
    if isinstance(point, CalibrationPoint):
        trust = (f"{100 * point.mean_confidence:.4g} %", f"{point.ece:.3g}", f"{point.brier:.3g}")
        return [failures, format_rate(point), *trust, time]
    return [failures, format_rate(point), time]


def _print_least_confident(result: BenchmarkResult[CalibrationPoint]) -> None:
    from decoder.benchmark.tables import least_confident_table

    headings, *rows = least_confident_table(result.points)
    print_table(headings, rows, title="failures among the least confident shots")
