"""`tandem benchmark`: how often decoders are wrong, and how long they take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.commands.options import (
    Basis,
    BasisOption,
    CodeOption,
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
    from decoder.benchmark.results import AccuracyPoint, BenchmarkResult
    from simulation.circuits import MemoryExperiment

benchmark = typer.Typer(help="Measures decoders on the same shots: failures, or times.")

RatesOption = Annotated[
    str | None,
    typer.Option(
        "--p",
        metavar="P[,P...]",
        help="Physical error rates, between 0 and 0.5. Not used with rates in --noise.",
    ),
]
DecodersOption = Annotated[
    str,
    typer.Option("--decoders", metavar="NAME[,NAME...]", help="Of neural, bposd, bposd-xyz and bposd-osd0."),
]
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
    from decoder.benchmark.results import LatencyPoint

    first = result.points[0]
    columns = _TIMES if isinstance(first, LatencyPoint) else _RATES
    print_table(
        ["p", "decoder", *columns],
        ([f"{point.p:g}", f"{point.decoder} {point.detectors}", *_cells(point)] for point in result.points),
        title=f"{first.code} {first.basis} memory, {first.rounds} rounds, {first.noise} noise, seed {first.seed}",
    )


_RATES = ("failures/shots", "block failure rate (95 % interval)", "time a shot")
_TIMES = ("batch", "failed", "mean", "p50", "p99", "p99.9", "max")


def _cells(point: AccuracyPoint) -> list[str]:
    from decoder.benchmark.results import LatencyPoint
    from decoder.benchmark.tables import format_rate, format_time

    failures = f"{point.failures:,}/{point.shots:,}"
    if isinstance(point, LatencyPoint):
        times = (point.mean_us, point.p50_us, point.p99_us, point.p999_us, point.max_us)
        return [str(point.batch), failures, *map(format_time, times)]
    return [failures, format_rate(point), format_time(1e6 * point.seconds / point.shots)]
