"""Trains variants of the network with equal arithmetic and tabulates how they fare on the same held-out shots.

    python scripts/ablation.py --out runs/ablation --teraflop 6 --results docs/results/bb72-ablation

Every variant sees the same stream of shots (same seed) for as many steps as the budget of floating-point
operations lasts, forward and backward, counted by torch. Variants that are done already are not trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.harness import command, markdown_table, write_text
from decoder.benchmark.reporting.tables import rows_to_csv
from decoder.neural.config import ModelConfig
from decoder.neural.weights import build_network, load_weights
from decoder.training.config import TrainingConfig
from decoder.training.trainer import WEIGHTS, Trainer, train
from decoder.training.validation import Validation
from scripts.training_speed import flop_per_step

NETWORK = ModelConfig(bp_iterations=0)
BASE = TrainingConfig(
    model=NETWORK,
    micro_batch=128,
    p_min=0.0005,
    p_max=0.004,
    p_points=7,
    curriculum_shots=30_000,
    warmup_steps=50,
    ema_decay=0.995,
    validate_every=0,
    validation_shots=2000,
    validation_p=(0.001, 0.002, 0.003),
    threads=1,
    seed=1,
)
"""What each variant departs from."""


def network(**changes: Any) -> Mapping[str, Any]:
    return {"model": replace(NETWORK, **changes)}


VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "base": ("convolution in round step and readout, Muon", {}),
    "round-attention": ("attention instead, in the round step", network(round_mixing="attention")),
    "attention": ("attention instead, everywhere", network(round_mixing="attention", readout_mixing="attention")),
    "round-both": ("attention beside it, in the round step", network(round_mixing="both")),
    "readout-both": ("attention beside it, in the readout", network(readout_mixing="both")),
    "blue": ("the architecture `blue`", network(architecture="blue", readout_blocks=1)),
    "blocks-2": ("2 blocks a round", network(round_blocks=2)),
    "blocks-3": ("3 blocks a round", network(round_blocks=3)),
    "width-48": ("width 48", network(width=48)),
    "width-96": ("width 96", network(width=96)),
    "adamw": ("AdamW for all, 0.002", {"optimizer": "adamw"}),
    "muon-0.02": ("Muon at 0.02", {"muon_lr": 0.02}),
    "muon-0.005": ("Muon at 0.005", {"muon_lr": 0.005}),
    "coset": ("the coset's cross-entropy added, weight 0.1", {"coset_weight": 0.1}),
    "basis": ("12 outputs that form a basis, not all 108", network(outputs="basis")),
    "one-basis": ("Z memory alone", {"bases": "Z"}),
    "rounds": ("2, 4, 6 and 8 rounds mixed", {"rounds": (2, 4, 6, 8)}),
    "bp": ("belief propagation read, 600 iterations at most (not counted)", network(bp_iterations=600)),
    "bp-first": ("the same, its first solution alone", network(bp_iterations=600, bp_solutions=1)),
    "half": ("only the least sure half", {"hard_share": 0.5}),
}


def run(name: str, *, teraflop: float, out: Path, console: Console) -> dict[str, object]:
    """Trains one variant if it is not done, and validates it: a row of the table."""
    change, settings = VARIANTS[name]
    config = replace(BASE, **settings)
    weights = out / name / WEIGHTS
    scratch = Trainer(replace(config, steps=1), out=out / "scratch", force=True)
    per_step = flop_per_step(scratch)
    config = replace(config, steps=max(1, int(teraflop * 1e12 / per_step)))
    mflop = f"{per_step / config.step_shots / 1e6:.1f}"
    if not (weights.exists() and load_weights(weights)[1].provenance["steps"] == config.steps):
        console.print(f"{name}: {config.steps} steps, {mflop} MFLOP a shot")
        started = time.monotonic()
        train(config, out=out / name, force=True)
        console.print(f"{name}: {time.monotonic() - started:.0f} s")
    network, info = load_weights(weights)
    validation = Validation(replace(BASE, bases=config.bases), torch.device("cpu"))
    failures = validation.failures(network)
    curves = [f"{basis} {p:g}" for basis in "ZX" for p in BASE.validation_p]
    return {
        "variant": name,
        "change": change,
        "parameters": sum(p.numel() for p in build_network(info.config).parameters()),
        "MFLOP/shot": mflop,
        "shots": info.provenance["shots"],
        "seconds": f"{info.provenance['seconds']:.0f}",
        **{f"failures {curve}": failures.get(curve, "") for curve in curves},
        "nats/shot": f"{validation.negative_log_likelihood(network):.4f}",
    }


def write(rows: list[dict[str, object]], results: Path, *, teraflop: float) -> None:
    """Writes the table as CSV and Markdown."""
    write_text(results.with_suffix(".csv"), rows_to_csv(rows))
    shots = BASE.validation_shots
    text = (
        f"bb72, 6 rounds, both bases; {teraflop:g} TFLOP of matrix products each, seed {BASE.seed}; failures of\n"
        f"{shots:,} held-out shots (made by stim, uniform circuit noise, XYZ). nats/shot: mean negative\n"
        f"log-likelihood of the true coset at the best calibration.\n\n    {command()}\n\n"
    )
    write_text(results.with_suffix(".md"), text + markdown_table([rows[0], *(row.values() for row in rows)]) + "\n")


def main(
    *,
    out: Annotated[Path, typer.Option(help="A directory for the runs.")],
    results: Annotated[Path, typer.Option(help="Where the table goes, without suffix.")],
    teraflop: Annotated[float, typer.Option(help="Budget of each variant.")] = 6.0,
    variants: Annotated[str, typer.Option(help="Names, separated by commas; all without it.")] = "",
) -> None:
    """Trains the variants one after the other; the table is written after each."""
    console = Console()
    names = variants.split(",") if variants else list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise typer.BadParameter(f"unknown variant {unknown[0]!r}; use of {', '.join(VARIANTS)}")
    rows: list[dict[str, object]] = []
    for name in names:
        rows.append(run(name, teraflop=teraflop, out=out, console=console))
        write(rows, results, teraflop=teraflop)
        console.print(rows[-1])


if __name__ == "__main__":
    typer.run(main)
