"""`tandem inspect`: what a circuit or a detector error model is, and what can decode it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from decoder.console.options import JsonOption
from decoder.console.output import print_json, print_table


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A stim circuit, or a detector error model (.dem).")],
    json_output: JsonOption = False,
) -> None:
    """Says what a circuit or a detector error model is, and which decoders take it.

    The code, its rounds and the types of its checks are found in the circuit
    itself; names and coordinates are not needed.

    \b
    Examples:
      tandem inspect my.stim
      tandem inspect my.dem --json
    """
    from decoder.inspection import inspect as inspected
    from simulation.foreign.experiment import ForeignExperiment

    experiment = ForeignExperiment.read(file, kind="dem" if file.suffix == ".dem" else "circuit")
    facts = asdict(inspected(experiment))
    if json_output:
        print_json(facts)
        return
    decoders = facts.pop("decoders")
    print_table(["", str(experiment)], [(name, _text(value)) for name, value in facts.items() if value is not None])
    rows = [(one["decoder"], "yes" if one["applies"] else "no", one["why"]) for one in decoders]
    print_table(["decoder", "applies", "how, or why not"], rows)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return str(value)
