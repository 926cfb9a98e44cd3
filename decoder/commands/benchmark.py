"""`tandem benchmark`: how often decoders are wrong, how long they take, and whether they know when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

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
from decoder.commands.report import report

if TYPE_CHECKING:
    from decoder.benchmark.common import BenchmarkProgress
    from decoder.benchmark.reporting.results import BenchmarkResult, CalibrationPoint, FailurePoint
    from simulation.circuits import MemoryExperiment

benchmark = typer.Typer(help="Measures decoders: failures, times, or how far their confidence can be trusted.")
benchmark.command()(report)

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
CodesOption = Annotated[
    str,
    typer.Option(
        "--code", metavar="CODE[,CODE...]", help="Code ids such as bb72 ('tandem codes' lists them), or one l,m,A,B."
    ),
]
SeveralRoundsOption = Annotated[
    str, typer.Option("--rounds", metavar="N[,N...]", help="Noisy syndrome cycles, at least 1.")
]
BasesOption = Annotated[
    str,
    typer.Option("--basis", metavar="X|Z|X,Z", help="Which logical operators are prepared, kept and read."),
]
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
    code: CodesOption,
    rounds: SeveralRoundsOption,
    basis: BasesOption,
    p: RatesOption = None,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    decoders: DecodersOption = "neural,bposd",
    shots: Annotated[int, typer.Option("--shots", help="The most shots for each point.")] = 10_000,
    max_errors: Annotated[
        int | None, typer.Option("--max-errors", help="A point ends with the block that brings so many failures.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", help="A point ends after about so much CPU time in its decoder.")
    ] = None,
    min_shots: Annotated[
        int, typer.Option("--min-shots", help="So many shots are decoded even if they take more than --max-seconds.")
    ] = 0,
    seed: SeedOption = None,
    weights: WeightsOption = None,
    processes: Annotated[
        int | None, typer.Option("--processes", help="How many, of one thread each.", show_default="one a core")
    ] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Count on a Ray cluster, or on a new 'local' one.")
    ] = None,
    discard_below: Annotated[
        float | None,
        typer.Option(
            "--discard-below",
            metavar="T",
            help="Discard shots with a smaller confidence, and count the failures of those accepted.",
        ),
    ] = None,
    out: OutOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what --out holds of this run.")] = False,
    force: ForceOption = False,
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

    experiments = [
        experiment
        for one_code in _codes(code)
        for some_rounds in listed("--rounds", rounds, int)
        for one_basis in parse_bases(basis)
        for experiment in _experiments(
            p,
            code=one_code,
            rounds=some_rounds,
            basis=one_basis,
            noise=noise,
            detectors=detectors,
            noiseless_last_cycle=noiseless_last_cycle,
        )
    ]
    with ProgressBar("decoding", unit="shots", json_output=json_output) as bar:
        result = run_accuracy(
            experiments,
            listed("--decoders", decoders, str),
            shots=shots,
            max_errors=max_errors,
            max_seconds=max_seconds,
            min_shots=min_shots,
            seed=seed,
            weights=weights,
            processes=processes,
            ray=ray,
            discard_below=discard_below,
            out=out,
            resume=resume,
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
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            metavar="N[,N...]",
            help="Shots in each call that is timed.",
            show_default="those of 1, 8, 64 and 512 that --shots allows",
        ),
    ] = None,
    shots: ShotsOption = 2_000,
    seed: SeedOption = None,
    weights: WeightsOption = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            "--deadline-ms",
            metavar="D",
            help="Pairs wait no longer for their second decoder, in worker processes, than until D ms of a call.",
        ),
    ] = None,
    out: OutOption = None,
    force: ForceOption = False,
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
            batches=None if batch is None else listed("--batch", batch, int),
            weights=weights,
            deadline_ms=deadline_ms,
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


def _codes(text: str) -> list[str]:
    """Code ids, or the one code that has commas of its own."""
    return [text] if "^" in text or "+" in text else listed("--code", text, str)


def parse_bases(text: str) -> list[Basis]:
    """The bases of an option that takes several.

    Raises:
        ValueError: there is another one.
    """
    bases = [part.strip().upper() for part in text.split(",")]
    if not set(bases) <= set(get_args(Basis)):
        raise ValueError(f"--basis takes X, Z or X,Z, not {text!r}")
    return cast(list[Basis], bases)


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


def _print_least_confident(result: BenchmarkResult[CalibrationPoint]) -> None:
    from decoder.benchmark.reporting.tables import least_confident_table

    headings, *rows = least_confident_table(result.points)
    print_table(headings, rows, title="failures among the least confident shots")
