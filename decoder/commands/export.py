"""`tandem export`: a network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from decoder.console.groups import with_groups
from decoder.console.options import CODE, OutputOptions, WeightsOption
from decoder.console.output import print_result


@with_groups
def export(
    *,
    format: Annotated[Literal["onnx"], typer.Option("--format", help="What to write.")] = "onnx",
    code: Annotated[str, CODE],
    weights: WeightsOption = None,
    out: Annotated[Path, typer.Option("--out", help="A directory for step.onnx, readout.onnx and network.json.")],
    check_shots: Annotated[
        int, typer.Option("--check-shots", min=1, help="Shots on which ONNX Runtime must agree with torch.")
    ] = 10_000,
    output: OutputOptions,
) -> None:
    """Writes a network's round step and readout as ONNX, and checks them against torch.

    Both take any number of shots; network.json says what their inputs mean.
    The check is on shots of the memory in 6 rounds at p = 0.5 %. A network that judges
    the candidates of belief propagation, as the shipped one does, is checked on those
    whose candidates differ, and needs their beliefs as inputs.

    \b
    Example:
      tandem export --format onnx --code bb72 --out bb72-onnx
    """
    from decoder.neural import onnx_export
    from decoder.neural.decoder import NeuralDecoder
    from decoder.neural.weights import load_weights, shipped_weights
    from simulation.circuits import MemoryExperiment
    from simulation.shots.sampling import sample

    onnx_export.require_onnx()
    path = shipped_weights(code) if weights is None else weights
    bases = load_weights(path)[1].bases
    files = [out / name for name in (onnx_export.STEP, onnx_export.READOUT, onnx_export.DESCRIPTION)]
    existing = [file for file in files if file.exists()]
    if existing and not output.force:
        raise ValueError(f"{existing[0]} exists; give --force to replace it")
    experiment = MemoryExperiment.create(code=code, basis="Z" if "Z" in bases else "X", rounds=6, p=0.005)
    decoder = NeuralDecoder.load(experiment, weights=path)
    onnx_export.export(decoder, out, force=output.force)
    shots = sample(experiment.circuit, shots=check_shots, seed=0).unpacked_detection_events()
    check = onnx_export.check(decoder, out, shots)
    if not check.is_rounding:
        raise ValueError(
            f"log-odds of {out} differ from torch's by up to {check.largest_difference:.3g} on {check.shots} shots, "
            f"more than rounding explains ({onnx_export.TOLERANCE * check.largest:.3g}); do not use these files"
        )
    result = {
        "format": format,
        "code": code,
        "weights_sha256": decoder.info.sha256,
        "files": [str(file) for file in files],
        "shots": check.shots,
        "largest_log_odds": check.largest,
        "largest_difference": check.largest_difference,
        "differing_predictions": check.differing_predictions,
    }
    print_result(result, title=str(out), json_output=output.json_output)
