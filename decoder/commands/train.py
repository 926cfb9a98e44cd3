"""`tandem train`: weights from nothing but simulated shots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from decoder.console.groups import with_groups
from decoder.console.options import OutputOptions, listed
from decoder.console.output import note, print_result, warn
from decoder.console.settings import (
    as_toml,
    changes,
    read_pairs,
    read_settings,
    setting_docs,
    training_config,
    with_weights,
)
from decoder.console.training import TrainingDisplay, comparison_said, described, warning
from decoder.training.config import TrainingConfig, dotted

DOCS = setting_docs()


def _setting(name: str, *, metavar: str | None = None, default: str | bool = False) -> Any:
    """The option of a setting, with the help that its field has."""
    option, text = f"--{name.removeprefix('model.').replace('_', '-')}", DOCS[name]
    return typer.Option(option, metavar=metavar, help=f"{text[0].upper()}{text[1:]}.", show_default=default)


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """Settings on the command line: options count more than --set, and that more than --config."""

    code: Annotated[str | None, _setting("model.code", metavar="CODE", default="bb72")] = None
    rounds: Annotated[str | None, _setting("rounds", metavar="N[,N...]", default="the recipe's")] = None
    minutes: Annotated[float | None, _setting("minutes")] = None
    steps: Annotated[int | None, _setting("steps")] = None
    init_from: Annotated[str | None, _setting("init_from", metavar="FILE|CODE", default="the recipe's")] = None
    seed: Annotated[int | None, _setting("seed", default="0")] = None
    threads: Annotated[int | None, _setting("threads")] = None
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE|RECIPE", help="A TOML file of settings, or a recipe's name.")
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One more setting; may be given many times."),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was given, by dotted names."""
        options = dotted({name: value for name, value in vars(self).items() if value is not None})
        files, pairs = options.pop("config", None), options.pop("set_", [])
        if self.rounds is not None:
            options["rounds"] = listed("--rounds", self.rounds, int)
        return (read_settings(files) if files is not None else {}) | read_pairs(pairs) | options


@with_groups
def train(
    *,
    settings: SettingOptions,
    out: Annotated[Path | None, typer.Option("--out", help="The run's directory: weights, checkpoint and log.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with the settings it has.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as a TOML file and exit.")
    ] = False,
    output: OutputOptions,
) -> None:
    """Trains the neural decoder, and leaves weights that 'decode' and 'serve' take.

    Ctrl-C or SIGTERM ends a run early with complete files, and --resume continues it.
    Options count more than --set, --set more than --config, and that more than the
    recipe of the code (there are some for the codes whose weights are shipped) or the
    settings of a resumed run. The shape of the network is that of --init-from's weights.

    \b
    Examples:
      tandem train --code bb72 --minutes 30 --out run
      tandem train --resume --minutes 60 --out run
      tandem train --code bb144 --minutes 60 --out run144 \\
        --init-from run/weights.safetensors --set p_max=0.003
    """
    given = settings.given()
    if resume and out is not None:
        before = _settings_of_run(out)
        settings_, opening = before | given, changes(before, given, of="before")
    else:
        settings_, opening = with_weights(given)
    config = training_config(settings_)
    if print_config:
        typer.echo(as_toml(config), nl=False)
    elif out is None:
        raise ValueError("say where the weights should go; add --out, for example --out run")
    else:
        from decoder.training.trainer import WEIGHTS

        if resume and (finished := _finished(config, out)):
            note(finished)
        else:
            _run(config, out, opening=[comparison_said(config), *opening], resume=resume, output=output)
        if os.environ.get("RANK", "0") == "0":  # under torchrun the first process writes the files, and reports
            _report(out, out / WEIGHTS, output=output)


def _run(config: TrainingConfig, out: Path, *, opening: list[str], resume: bool, output: OutputOptions) -> None:
    from decoder.training.trainer import train as run

    with TrainingDisplay(opening, json_output=output.json_output) as display:
        run(
            config,
            out=out,
            resume=resume,
            force=output.force,
            progress=display.progress,
            preparing=display.preparing,
        )


def _report(out: Path, weights: Path, *, output: OutputOptions) -> None:
    from decoder.neural.weights import load_weights

    _, info = load_weights(weights)
    result = {"code": info.config.code, "out": str(out), "weights": str(weights), "sha256": info.sha256}
    result |= {key: info.provenance[key] for key in ("steps", "shots", "seconds", "device", "validation")}
    if not output.json_output:
        result["validation"] = described(info.provenance["validation"])
    print_result(result, title="trained", json_output=output.json_output)
    if message := warning(info.provenance["validation"]):
        warn(message)


def _settings_of_run(out: Path) -> dict[str, Any]:
    """The settings in a run's checkpoint."""
    from decoder.neural.weights import read_safetensors
    from decoder.training.trainer import CHECKPOINT

    checkpoint = out / CHECKPOINT
    if not checkpoint.exists():
        raise FileNotFoundError(f"there is no run in {out} to resume; leave --resume out to start one")
    header, _ = read_safetensors(checkpoint)
    return dotted(header.get("config", {}))


def _finished(config: TrainingConfig, out: Path) -> str | None:
    """What to say of a run that has come to its end, with the weights that it left, so that nothing is left to do."""
    from decoder.neural.weights import load_weights, read_safetensors
    from decoder.training.trainer import CHECKPOINT, WEIGHTS

    counters = read_safetensors(out / CHECKPOINT)[0].get("counters", {})
    step, minutes = counters.get("step", 0), counters.get("seconds", 0.0) / 60
    if not (out / WEIGHTS).exists() or load_weights(out / WEIGHTS)[1].provenance["steps"] != step:
        return None  # it was ended before it had written them
    if config.steps is not None and step >= config.steps:
        return f"the run in {out} is finished, after {step:,} of {config.steps:,} steps; more --steps go on with it"
    if config.minutes is not None and minutes >= config.minutes:
        return f"the run in {out} is finished, after {minutes:.4g} minutes; more --minutes than that go on with it"
    return None
