"""`tandem decode`: files of detection events in, files of predicted observable flips out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.commands.groups import with_groups
from decoder.commands.options import (
    SOME_DECODERS,
    ExperimentOptions,
    FormatOption,
    OutputOptions,
    WeightsOption,
    check_outputs,
)
from decoder.commands.output import ProgressBar, print_result

if TYPE_CHECKING:
    from decoder.base import Decoder, ErrorDecoder
    from simulation.bits import PackedBits
    from simulation.experiments import Experiment

BATCH_SHOTS = 1024
"""Shots that a decoder gets at once, and the step of the progress bar."""


@dataclass(frozen=True, kw_only=True)
class ShotFiles:
    """What is read and written, all in one format."""

    in_file: Annotated[Path, typer.Option("--in", help="The file of detection events.")]
    out: Annotated[Path, typer.Option("--out", help="The file of predicted observable flips.")]
    format: FormatOption = "b8"
    obs_in: Annotated[
        Path | None, typer.Option("--obs-in", help="The file of true observable flips, to count failures.")
    ] = None
    errors_out: Annotated[
        Path | None,
        typer.Option("--errors-out", help="The file of the errors found, a bit for each error of the model in order."),
    ] = None


@with_groups
def decode(
    *,
    decoder: Annotated[str, typer.Option("--decoder", metavar="NAME", help=SOME_DECODERS)] = "neural",
    described: ExperimentOptions,
    files: ShotFiles,
    weights: WeightsOption = None,
    output: OutputOptions,
) -> None:
    """Decodes a file of shots; all files are in the same format.

    The options of the experiment must be those that the shots were made with.

    \b
    Examples:
      tandem decode --decoder bposd --code bb72 --rounds 6 --basis Z --p 0.002 \\
        --in shots.b8 --out predictions.b8 --obs-in flips.b8
      tandem decode --decoder bposd --circuit my.stim --in shots.b8 --out predictions.b8
    """
    experiment = described.experiment()
    decode_files(files, experiment, make=partial(make_here, decoder, experiment, weights=weights), output=output)


def make_here(name: str, experiment: Experiment, *, weights: Path | None) -> tuple[Decoder, Mapping[str, object]]:
    """A decoder of this process, and what to print of it. Of a pair the second works in processes on all cores."""
    from decoder.catalog import decoder_spec
    from decoder.making import make_decoder

    second = decoder_spec(name).second
    if second is None:
        return make_decoder(name, experiment, weights=weights), {"decoder": name}
    from decoder.tandem.opinions import OFFLINE_PATIENCE_SECONDS, OpinionPool
    from decoder.tandem.pairs import make_pair
    from simulation.sampling import usable_cores

    make_decoder(second, experiment)  # if it cannot be made, that is said now
    pool = OpinionPool(second, processes=usable_cores(), max_waiting=None, patience_seconds=OFFLINE_PATIENCE_SECONDS)
    pair = make_pair(second, experiment, weights=weights, pool=pool)
    return pair, {"decoder": name, "threshold": pair.threshold}


def decode_files(
    files: ShotFiles,
    experiment: Experiment,
    *,
    make: Callable[[], tuple[Decoder, Mapping[str, object]]],
    output: OutputOptions,
) -> None:
    """Decodes files of an experiment's shots, and prints what was done.

    Args:
        files: what is read and written.
        experiment: where the shots come from.
        make: makes the decoder when the files have been read; gives with it what to print of it.
        output: whether files are replaced, and how to print.

    Raises:
        ValueError: the files do not hold such shots, or not as many flips as shots.
        OSError: a file cannot be read, or cannot or must not be written.
    """
    check_outputs(files.out, files.errors_out, force=output.force, inputs=(files.in_file, files.obs_in))
    from decoder.base import ErrorDecoder
    from simulation.foreign import ForeignExperiment
    from simulation.shot_files import write_shots

    if experiment.num_observables == 0:
        raise ValueError(f"{experiment} has no observables, so there is nothing to predict; add OBSERVABLE_INCLUDE")
    shots, flips = _read(files, experiment)
    decoder, described = make()
    if files.errors_out is not None and not isinstance(decoder, ErrorDecoder):
        raise ValueError(
            f"{described['decoder']} tells no errors; leave out --errors-out, or decode with bposd or serial"
        )
    begun = time.perf_counter()
    with ProgressBar("decoding", total=len(shots), unit="shots", json_output=output.json_output) as bar:
        if files.errors_out is not None and isinstance(decoder, ErrorDecoder):
            predictions, errors, found = _find_errors(decoder, shots, bar.update)
        else:
            predictions, found = _decode_all(decoder, shots, bar.update)
    seconds = time.perf_counter() - begun
    observables = experiment.num_observables
    write_shots(files.out, predictions, format=files.format, num_observables=observables, force=output.force)
    if files.errors_out is not None:
        write_shots(
            files.errors_out,
            errors,
            format=files.format,
            num_errors=experiment.fault_model.num_instructions,
            force=output.force,
        )
        described = {**described, "errors_out": str(files.errors_out)}
    result: dict[str, object] = {
        **experiment.columns,
        **({"check_types": experiment.check_types.found} if isinstance(experiment, ForeignExperiment) else {}),
        **described,
        "shots": len(shots),
        "format": files.format,
        "out": str(files.out),
        "seconds": seconds,
        **found,
    }
    if flips is not None:
        from decoder.benchmark.common import count_failures, failure_columns

        result |= failure_columns(count_failures(predictions, flips), len(flips))
    print_result(result, title=str(experiment), json_output=output.json_output)


def _read(files: ShotFiles, experiment: Experiment) -> tuple[PackedBits, PackedBits | None]:
    """The shots, and what truly flipped."""
    from simulation.bits import unpack_bits
    from simulation.foreign import ForeignExperiment
    from simulation.shot_files import read_shots

    events, truth = files.in_file, files.obs_in
    shots = read_shots(events, format=files.format, num_detectors=experiment.num_detectors)
    if len(shots) == 0:
        raise ValueError(f"{events} holds no shots")
    if isinstance(experiment, ForeignExperiment):  # of which nobody knows whether it is the one that was measured
        from decoder.classical.explained import require_explained

        require_explained(experiment.fault_model, unpack_bits(shots, experiment.num_detectors))
    if truth is None:
        return shots, None
    flips = read_shots(truth, format=files.format, num_observables=experiment.num_observables)
    if len(flips) != len(shots):
        raise ValueError(
            f"{events} holds {len(shots)} shots, but {truth} holds the flips of {len(flips)}; "
            "give the two files of one run"
        )
    return shots, flips


def _find_errors(
    decoder: ErrorDecoder, shots: PackedBits, progress: Callable[[int], None]
) -> tuple[PackedBits, PackedBits, Mapping[str, int]]:
    """The predictions, the errors (shots, ceil(errors / 8)), and how many shots these explain."""
    import numpy as np

    from simulation.bits import pack_bits

    predictions, errors, converged = [], [], 0
    for start in range(0, len(shots), BATCH_SHOTS):
        found = decoder.decode_to_errors(shots[start : start + BATCH_SHOTS], bit_packed_shots=True)
        predictions.append(pack_bits(found.predictions))
        errors.append(pack_bits(found.errors))
        converged += int(found.converged.sum())
        progress(min(start + BATCH_SHOTS, len(shots)))
    return np.concatenate(predictions), np.concatenate(errors), {"converged": converged}


def _decode_all(
    decoder: Decoder, shots: PackedBits, progress: Callable[[int], None]
) -> tuple[PackedBits, Mapping[str, int]]:
    """The predictions, and for a pair how many shots the second decoder answered, or should have."""
    import numpy as np

    from decoder.base import predict_packed
    from decoder.tandem.decoder import TandemDecoder
    from decoder.tandem.rule import Opinion
    from simulation.bits import pack_bits

    batches, opinions = [], []
    try:
        for start in range(0, len(shots), BATCH_SHOTS):
            batch = shots[start : start + BATCH_SHOTS]
            if isinstance(decoder, TandemDecoder):
                decoded = decoder.decode_soft(batch, bit_packed_shots=True)
                batches.append(pack_bits(decoded.predictions))
                opinions.append(decoded.opinions)
            else:
                batches.append(predict_packed(decoder, batch))
            progress(min(start + BATCH_SHOTS, len(shots)))
    finally:
        if isinstance(decoder, TandemDecoder):
            decoder.close()
    counts = np.bincount(np.concatenate(opinions), minlength=len(Opinion)) if opinions else None
    return np.concatenate(batches), (
        {}
        if counts is None
        else {"second_opinions": int(counts[Opinion.SECOND]), "second_opinions_failed": int(counts[Opinion.FAILED])}
    )
