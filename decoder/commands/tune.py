"""`tandem tune`: when to ask a second decoder, measured on held-out shots."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.commands.benchmark import BasesOption, RatesOption, parse_bases
from decoder.commands.options import CodeOption, JsonOption, RoundsOption, WeightsOption, listed, make_experiment
from decoder.commands.output import ProgressBar, print_json, print_table

if TYPE_CHECKING:
    from decoder.tandem.tuning import TuningPoint

SHORT_NAMES = {"relay": "relay-deep", "tesseract": "tesseract-narrow-sparsify"}
"""Short names of the second decoders of the pairs that the registry has."""


def tune(
    *,
    code: CodeOption,
    rounds: RoundsOption,
    basis: BasesOption = "Z,X",
    p: RatesOption,
    second: Annotated[
        str,
        typer.Option("--second", metavar="NAME", help="relay or tesseract, those of the pairs, or any decoder's name."),
    ] = "relay",
    share: Annotated[
        float | None,
        typer.Option(
            "--share", help="The most shots to pass on, as a share of 1.", show_default="the one that fails least"
        ),
    ] = None,
    failure_rate: Annotated[
        float | None, typer.Option("--failure-rate", help="Pass on as few shots as fail no more often than that.")
    ] = None,
    shots: Annotated[int, typer.Option("--shots", help="Shots for each basis and p.")] = 20_000,
    most: Annotated[
        float, typer.Option("--most", help="The share of the shots that the second decoder gets to try.")
    ] = 0.1,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the shots.", show_default="a fresh one, printed")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", help="Of the second decoder.", show_default="one on each core")
    ] = None,
    weights: WeightsOption = None,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Write the threshold into the weights file.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="A file to write the curve to, as Markdown.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Chooses the confidence below which the network's shots go to a second decoder.

    Decodes fresh shots with the network, the least confident of them with the
    second decoder too, and shows the failures of the pair against the share of
    the shots that are passed on. --store keeps the chosen threshold in the
    weights file, where the decoders tandem and tandem-tesseract look for it.

    \b
    Example:
      tandem tune --code bb72 --rounds 6 --p 0.003 --second relay --share 0.05
    """
    from decoder.catalog import decoder_spec
    from decoder.neural.decoder import NeuralDecoder
    from decoder.neural.weights import shipped_weights, store_threshold
    from decoder.tandem.opinions import NoOpinionError, OpinionPool
    from decoder.tandem.tuning import SHARES, check_choice, choose, measure
    from simulation.files import write_text
    from simulation.sampling import fresh_seed, usable_cores

    check_choice(share=share, failure_rate=failure_rate)
    name = SHORT_NAMES.get(second, second)
    spec = decoder_spec(name)
    if spec.settings is not None and spec.settings.extra is not None:
        spec.settings.extra.require(f"the decoder {name!r}")
    seed = fresh_seed() if seed is None else seed
    rates = listed("--p", p, float) if p is not None else []
    experiments = [
        make_experiment(code=code, rounds=rounds, basis=one, p=rate, noise="uniform")
        for rate in rates
        for one in parse_bases(basis)
    ]
    weights = shipped_weights(str(experiments[0].code)) if weights is None else weights
    firsts = [NeuralDecoder.load(experiment, weights=weights) for experiment in experiments]
    pool = OpinionPool(name, processes=usable_cores() if processes is None else processes, max_waiting=None)
    try:
        curves = []
        for first, experiment in zip(firsts, experiments, strict=True):
            with ProgressBar(str(experiment), unit="second opinions", json_output=json_output) as bar:
                curve = measure(
                    first,
                    pool,
                    experiment,
                    shots=shots,
                    seed=seed,
                    most=most,
                    progress=lambda done, total, bar=bar: bar.update(done, total=total),  # type: ignore[misc]
                )
            curves.append(curve)
    except NoOpinionError as error:
        raise ValueError(str(error)) from error
    finally:
        pool.close()
    threshold = choose(curves, share=share, failure_rate=failure_rate)
    chosen = [curve.at(threshold, share=len(curve.second_failed) / shots) for curve in curves]
    points = [
        curve.at(curve.threshold(allowed), share=allowed) for curve in curves for allowed in SHARES if allowed <= most
    ]
    about: dict[str, Any] = {"second": name, "code": code, "rounds": rounds, "seed": seed, "shots": shots}
    if store:
        store_threshold(
            weights,
            name,
            {
                "threshold": threshold,
                **{key: about[key] for key in ("rounds", "seed", "shots")},
                "chosen_for": {"share": share, "failure_rate": failure_rate},
                "measured": [
                    {key: asdict(point)[key] for key in ("basis", "p", "passed_on", "failures", "first_failures")}
                    for point in chosen
                ],
            },
        )
    headings, *rows = _table([*points, *chosen], chosen=len(chosen))
    if out is not None:
        write_text(out, _markdown(about, threshold, headings, rows), force=True)
    if json_output:
        print_json({**about, "threshold": threshold, "points": [asdict(point) for point in points]})
        return
    print_table(headings, rows, title=f"network and {name}, {rounds} rounds, {shots:,} shots each, seed {seed}")
    stored = f"stored in {weights}" if store else "not stored (--store does)"
    print(f"threshold {threshold:.6g}, {stored}")


def _table(points: list[TuningPoint], *, chosen: int) -> list[list[str]]:
    rows = [["basis", "p", "share", "threshold", "passed on", "failures/shots", "95 % interval", "network alone"]]
    for number, point in enumerate(points):
        low, high = point.interval
        mark = "chosen" if number >= len(points) - chosen else f"{100 * point.share:g} %"
        rows.append(
            [
                point.basis,
                f"{point.p:g}",
                mark,
                f"{point.threshold:.5f}",
                f"{100 * point.passed_on / point.shots:.3g} %",
                f"{point.failures:,}/{point.shots:,}",
                f"{low:.2e} to {high:.2e}",
                f"{point.first_failures:,}",
            ]
        )
    return rows


def _markdown(about: dict[str, Any], threshold: float, headings: list[str], rows: list[list[str]]) -> str:
    lines = [
        f"# {about['code']}: the network, then {about['second']}",
        "",
        f"{about['rounds']} rounds, uniform noise, detectors XYZ, {about['shots']:,} shots for each basis and p, "
        f"seed {about['seed']}. Chosen: second opinions below a confidence of {threshold:.6g}.",
        "",
        *("| " + " | ".join(cells) + " |" for cells in [headings, ["---"] * len(headings), *rows]),
        "",
    ]
    return "\n".join(lines)
