"""`tandem decode`: files of detection events in, files of predicted observable flips out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.commands.options import (
    BasisOption,
    CodeOption,
    DecoderOption,
    DetectorsOption,
    ForceOption,
    FormatOption,
    JsonOption,
    NoiseOption,
    PerfectEndOption,
    POption,
    RoundsOption,
    WeightsOption,
    check_outputs,
    make_experiment,
)
from decoder.commands.output import ProgressBar, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from decoder.base import Decoder, PackedBits

BATCH_SHOTS = 1024
"""Shots that a decoder gets at once, and the step of the progress bar."""


def decode(
    *,
    decoder: DecoderOption = "neural",
    code: CodeOption,
    rounds: RoundsOption,
    basis: BasisOption,
    p: POption = None,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    in_file: Annotated[Path, typer.Option("--in", help="The file of detection events.")],
    out: Annotated[Path, typer.Option("--out", help="The file of predicted observable flips.")],
    format: FormatOption = "b8",
    obs_in: Annotated[
        Path | None, typer.Option("--obs-in", help="The file of true observable flips, to count failures.")
    ] = None,
    weights: WeightsOption = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Decodes a file of shots; all files are in the same format.

    The options of the experiment must be those that the shots were made with.

    \b
    Example:
      tandem decode --decoder bposd --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --in shots.b8 --out predictions.b8 --obs-in flips.b8
    """
    check_outputs(out, force=force, inputs=(in_file, obs_in))
    from decoder.registry import make_decoder
    from simulation.shot_files import read_shots, write_shots

    experiment = make_experiment(
        code=code,
        rounds=rounds,
        basis=basis,
        p=p,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )
    shots = read_shots(in_file, format=format, num_detectors=experiment.num_detectors)
    if len(shots) == 0:
        raise ValueError(f"{in_file} holds no shots")
    flips = None
    if obs_in is not None:
        flips = read_shots(obs_in, format=format, num_observables=experiment.num_observables)
        if len(flips) != len(shots):
            raise ValueError(
                f"{in_file} holds {len(shots)} shots, but {obs_in} holds the flips of {len(flips)}; "
                "give the two files of one run"
            )
    made = make_decoder(decoder, experiment, weights=weights)
    begun = time.perf_counter()
    with ProgressBar("decoding", total=len(shots), unit="shots", json_output=json_output) as bar:
        predictions = _decode_all(made, shots, bar.update)
    seconds = time.perf_counter() - begun
    write_shots(out, predictions, format=format, num_observables=experiment.num_observables, force=force)
    result: dict[str, object] = {
        "code": str(experiment.code),
        "rounds": rounds,
        "basis": basis,
        "p": experiment.noise.p,
        "noise": str(experiment.noise),
        "decoder": decoder,
        "shots": len(shots),
        "format": format,
        "out": str(out),
        "seconds": seconds,
    }
    if flips is not None:
        from decoder.benchmark.common import count_failures, failure_columns

        result |= failure_columns(count_failures(predictions, flips), len(flips))
    if json_output:
        print_json(result)
    else:
        print_table(["", str(experiment)], result.items())


def _decode_all(decoder: Decoder, shots: PackedBits, progress: Callable[[int], None]) -> PackedBits:
    import numpy as np

    from decoder.benchmark.common import predict

    batches = []
    for start in range(0, len(shots), BATCH_SHOTS):
        batches.append(predict(decoder, shots[start : start + BATCH_SHOTS]))
        progress(min(start + BATCH_SHOTS, len(shots)))
    return np.concatenate(batches)
