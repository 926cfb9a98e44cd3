"""`tandem tune`: how many shots to pass on to a second decoder, measured on held-out shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.console.groups import with_groups
from decoder.console.options import (
    BasesOption,
    CircuitsOption,
    CodeOption,
    DemsOption,
    ExperimentOptions,
    JsonOption,
    RatesOption,
    RoundsOption,
    WeightsOption,
    check_outputs,
    listed,
    parse_bases,
    read_foreign,
)
from decoder.console.output import ProgressBar, print_json, print_table

if TYPE_CHECKING:
    from decoder.neural.decoder import NeuralDecoder
    from decoder.tandem.tuning import Curve, TuningPoint
    from simulation.experiments import Experiment

SHORT_NAMES = {"serial": "serial-deep", "tesseract": "tesseract-narrow-sparsify"}
"""Short names of the second decoders of the pairs in `decoder.catalog`."""


@dataclass(frozen=True, kw_only=True)
class TuningExperiments:
    """A code's memory in several bases, at several physical error rates, or circuits that its network decodes."""

    code: CodeOption = None
    rounds: RoundsOption = None
    basis: BasesOption = "Z,X"
    p: RatesOption = None
    circuit: CircuitsOption = None
    dem: DemsOption = None

    def experiments(self) -> list[Experiment]:
        """One experiment for each error rate and basis, the bases changing fastest, or for each file."""
        if foreign := read_foreign(self, circuits=self.circuit or (), dems=self.dem or ()):
            return foreign
        if self.p is None:
            raise ValueError("--p missing: give the physical error rates to tune at, or files with --circuit or --dem")
        return [
            ExperimentOptions(code=self.code, rounds=self.rounds, basis=basis, p=p).experiment()
            for p in listed("--p", self.p, float)
            for basis in parse_bases(self.basis)
        ]


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """What is measured, and which share is chosen."""

    second: Annotated[
        str,
        typer.Option("--second", metavar="NAME", help="serial or tesseract, as in the pairs, or any decoder's name."),
    ] = "serial"
    failure_rate: Annotated[
        float | None, typer.Option("--failure-rate", help="Pass on as few shots as fail no more often than that.")
    ] = None
    shots: Annotated[int, typer.Option("--shots", help="Shots for each basis and p.")] = 20_000
    most: Annotated[
        float, typer.Option("--most", help="The share of the shots that the second decoder gets to try.")
    ] = 0.1
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the shots.", show_default="a fresh one, printed")
    ] = None
    processes: Annotated[
        int | None, typer.Option("--processes", help="Of the second decoder.", show_default="one on each core")
    ] = None
    weights: WeightsOption = None


@with_groups
def tune(
    *,
    described: TuningExperiments,
    run: TuningRun,
    out: Annotated[Path | None, typer.Option("--out", help="A file to write the curve to, as Markdown.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Chooses which share of the shots a pair passes on to its second decoder.

    Decodes fresh shots with the network, the least confident of them with the
    second decoder too, and shows the failures of the pair against the share of
    the shots that are passed on. A pair finds the confidence that belongs to a
    share by itself, for each experiment.

    \b
    Example:
      tandem tune --code bb72 --rounds 6 --p 0.003 --second tesseract
    """
    from decoder.neural.decoder import NeuralDecoder
    from decoder.tandem.tuning import SHARES, check_failure_rate, choose
    from simulation.files import write_text
    from simulation.shots.sampling import fresh_seed

    check_failure_rate(run.failure_rate)
    check_outputs(out, force=True)
    name = _second_decoder(run.second)
    seed = fresh_seed() if run.seed is None else run.seed
    experiments = described.experiments()
    firsts = [NeuralDecoder.load(experiment, weights=run.weights) for experiment in experiments]
    curves = _measure(name, list(zip(firsts, experiments, strict=True)), run, seed=seed, json_output=json_output)
    share = choose(curves, failure_rate=run.failure_rate)
    points = [curve.at(share) for curve in curves for share in SHARES if share <= run.most]
    about = {
        "second": name,
        "code": firsts[0].model_info["code"],
        "rounds": experiments[0].columns["rounds"],
        "seed": seed,
        "shots": run.shots,
    }
    headings, *rows = _table(points)
    if out is not None:
        write_text(out, _markdown(about, share, [headings, *rows]), force=True)
    if json_output:
        print_json({**about, "share": share, "points": [asdict(point) for point in points]})
        return
    title = f"network and {name}, {about['rounds']} rounds, {run.shots:,} shots each, seed {seed}"
    print_table(headings, rows, title=title)
    print(f"share {share:g}")


def _second_decoder(second: str) -> str:
    """The decoder's name in the catalog, once its package is known to be installed."""
    from decoder.catalog import decoder_spec

    name = SHORT_NAMES.get(second, second)
    settings = decoder_spec(name).settings
    if settings is not None and settings.extra is not None:
        settings.extra.require(f"the decoder {name!r}")
    return name


def _measure(
    second: str,
    decoded: Sequence[tuple[NeuralDecoder, Experiment]],
    run: TuningRun,
    *,
    seed: int,
    json_output: bool,
) -> list[Curve]:
    """Decodes the shots of each experiment with the network, and its doubtful ones with the second decoder."""
    from decoder.tandem.opinions import OFFLINE_PATIENCE_SECONDS, NoOpinionError, OpinionPool
    from decoder.tandem.tuning import measure
    from simulation.shots.sampling import usable_cores

    processes = usable_cores() if run.processes is None else run.processes
    pool = OpinionPool(second, processes=processes, max_waiting=None, patience_seconds=OFFLINE_PATIENCE_SECONDS)
    curves = []
    try:
        for first, experiment in decoded:
            with ProgressBar(str(experiment), unit="second opinions", json_output=json_output) as bar:
                curve = measure(
                    first,
                    pool,
                    experiment,
                    shots=run.shots,
                    seed=seed,
                    most=run.most,
                    progress=lambda done, total, bar=bar: bar.update(done, total=total),  # type: ignore[misc]
                )
            curves.append(curve)
    except NoOpinionError as error:
        raise ValueError(str(error)) from error
    finally:
        pool.close()
    return curves


def _table(points: Sequence[TuningPoint]) -> list[list[str]]:
    headings = ["basis", "p", "share", "threshold", "passed on", "failures/shots", "95 % interval", "network alone"]
    rows = [
        [
            point.basis,
            "-" if point.p is None else f"{point.p:g}",
            f"{100 * point.share:g} %",
            f"{point.threshold:.5f}",
            f"{100 * point.passed_on / point.shots:.3g} %",
            f"{point.failures:,}/{point.shots:,}",
            " to ".join(f"{end:.2e}" for end in point.interval),
            f"{point.first_failures:,}",
        ]
        for point in points
    ]
    return [headings, *rows]


def _markdown(about: dict[str, Any], share: float, rows: list[list[str]]) -> str:
    from decoder.benchmark.reporting.tables import markdown_table

    return (
        f"# {about['code']}: the network, then {about['second']}\n\n"
        f"{about['rounds']} rounds, uniform noise, detectors XYZ, {about['shots']:,} shots for each basis and p, "
        f"seed {about['seed']}. Chosen: second opinions on {100 * share:g} % of the shots.\n\n"
        f"{markdown_table(rows)}"
    )
