"""Times training: the sampler, whole optimizer steps, and a large matrix product to compare with.

    python scripts/training_speed.py --threads 1 --set compile=true --set bp_iterations=0
    python scripts/training_speed.py --set device=cuda --set autocast=true --set compile=true --set micro_batch=4096

All settings of `tandem train` may be set; the error rate is the single p_max.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from decoder.commands.settings import read_pairs, training_config
from decoder.training.runtime import device_name
from decoder.training.speed import flop_per_step, measure
from decoder.training.trainer import Trainer


def main(
    *,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A training setting.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    seconds: Annotated[float, typer.Option(help="Time to spend, after the warm-up.")] = 15.0,
) -> None:
    """Prints shots per second, operations per shot, and the share of a large product's speed, as JSON."""
    config = training_config(read_pairs(set_ or []) | {"steps": 1, "threads": threads})
    config = replace(config, p_min=config.p_max, p_points=1, curriculum_shots=0)

    def trainer(*, compiled: bool) -> Trainer:
        return Trainer(replace(config, compile=compiled), out=Path(scratch), force=True)

    with tempfile.TemporaryDirectory() as scratch:
        flop = flop_per_step(trainer(compiled=False))
        timed = trainer(compiled=config.compile)
        speed = measure(timed, flop=flop, seconds=seconds)
    report = {
        "device": device_name(timed.device),
        "parameters": sum(p.numel() for p in timed.model.parameters()),
        "sampler_shots_per_second": round(speed.sampler_shots),
        "training_shots_per_second": round(speed.training_shots),
        "training_mflop_per_shot": round(speed.flop_per_shot / 1e6, 2),
        "training_gflop_per_second": round(speed.training_shots * speed.flop_per_shot / 1e9, 1),
        "matmul_gflop_per_second": round(speed.matmul_flops / 1e9, 1),
        "share_of_matmul": round(speed.share_of_matmul, 3),
    }
    typer.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    typer.run(main)
