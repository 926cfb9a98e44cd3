"""`tandem train`: weights from nothing but simulated shots."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoder.commands.options import ForceOption, JsonOption, listed
from decoder.commands.output import ProgressBar, print_json, print_table
from decoder.commands.settings import as_toml, read_pairs, read_settings, training_config, with_recipe
from decoder.training.config import dotted

if TYPE_CHECKING:
    from decoder.training.log import Progress


def train(
    *,
    code: Annotated[
        str | None, typer.Option("--code", metavar="CODE", help="Code id, or l,m,A,B.", show_default="bb72")
    ] = None,
    rounds: Annotated[
        str | None,
        typer.Option("--rounds", metavar="N[,N...]", help="Numbers of rounds to mix.", show_default="the recipe's"),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="End after so many minutes, all resumed runs together.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many optimizer steps.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run's directory: weights, checkpoint and log.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with the settings it has.")
    ] = False,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE|RECIPE", help="A TOML file of settings, or a recipe's name.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One more setting; may be given many times."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as a TOML file and exit.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="FILE|CODE",
            help="Weights to start from, of this or another code; a code for those shipped, '' for none.",
            show_default="the recipe's",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights and of all shots.", show_default="0")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="torch's choice")] = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Trains the neural decoder, and leaves weights that 'decode' and 'serve' take.

    Ctrl-C or SIGTERM ends a run early with complete files, and --resume continues it.
    Options count more than --set, --set more than --config, and that more than the
    recipe of the code (there are some for the codes whose weights are shipped) or the
    settings of a resumed run.

    \b
    Examples:
      tandem train --code bb72 --minutes 30 --out run
      tandem train --resume --minutes 60 --out run
      tandem train --code bb144 --minutes 60 --out run144 \\
        --init-from run/weights.safetensors --set p_max=0.003
    """
    options = {
        "model.code": code,
        "init_from": init_from,
        "rounds": None if rounds is None else listed("--rounds", rounds, int),
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "threads": threads,
    }
    settings = (read_settings(config) if config is not None else {}) | read_pairs(set_ or [])
    settings |= {name: value for name, value in options.items() if value is not None}
    made = training_config(_settings_of_run(out) | settings if resume and out is not None else with_recipe(settings))
    if print_config:
        typer.echo(as_toml(made), nl=False)
        return
    if out is None:
        raise ValueError("say where the weights should go; add --out, for example --out run")
    from decoder.neural.weights import load_weights
    from decoder.training.trainer import train as run

    with ProgressBar("training", total=1, json_output=json_output) as bar:
        weights = run(
            made,
            out=out,
            resume=resume,
            force=force,
            progress=lambda report: bar.update(report.fraction, details=_describe(report)),
        )
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process writes the files, and reports
    _, info = load_weights(weights)
    result = {"code": info.config.code, "out": str(out), "weights": str(weights), "sha256": info.sha256}
    result |= {key: info.provenance[key] for key in ("steps", "shots", "seconds", "device", "validation")}
    if json_output:
        print_json(result)
    else:
        print_table(["", "trained"], (result | {"validation": _failures(info.provenance["validation"])}).items())


def _settings_of_run(out: Path) -> dict[str, Any]:
    """The settings in a run's checkpoint."""
    from decoder.neural.weights import read_safetensors
    from decoder.training.trainer import CHECKPOINT

    checkpoint = out / CHECKPOINT
    if not checkpoint.exists():
        raise FileNotFoundError(f"there is no run in {out} to resume; leave --resume out to start one")
    header, _ = read_safetensors(checkpoint)
    return dotted(header.get("config", {}))


def _describe(report: Progress) -> str:
    line = (
        f"step {report.step:,}, {report.shots_per_second:,.0f} shots/s, "
        f"loss {report.loss:.4f}, learning rate {report.lr:.2g}"
    )
    if not report.validation:
        return line
    return f"{line}\nat the last validation: {_listed_failures(report.validation)}"


def _failures(validation: Mapping[str, Any]) -> str:
    return f"of {validation['shots_each']:,} shots each, {_listed_failures(validation['failures'])}"


def _listed_failures(failures: Mapping[str, int]) -> str:
    return "failures " + ", ".join(f"{name}: {count}" for name, count in failures.items())
