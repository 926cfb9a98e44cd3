"""`tandem decode`: files of detection events in, files of predicted observable flips out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.commands.confidence import check_confidence_file, doubts, write_confidence
from decoder.console.groups import with_groups
from decoder.console.options import (
    SOME_DECODERS,
    ExperimentOptions,
    FormatOption,
    OutputOptions,
    WeightsOption,
    check_outputs,
)
from decoder.console.output import ProgressBar, print_result, warn
from decoder.console.windows import WindowOptions

if TYPE_CHECKING:
    from decoder.base import Decoder
    from decoder.commands.decoded import Decoded
    from simulation.bits import PackedBits
    from simulation.experiments import Experiment


@dataclass(frozen=True, kw_only=True)
class ShotFiles:
    """What is read and written, all but the confidence in one format."""

    in_file: Annotated[Path, typer.Option("--in", help="The file of detection events; - is standard input.")]
    out: Annotated[Path, typer.Option("--out", help="The file of predicted observable flips; - is standard output.")]
    format: FormatOption = "b8"
    obs_in: Annotated[
        Path | None, typer.Option("--obs-in", help="The file of true observable flips, to count failures.")
    ] = None
    errors_out: Annotated[
        Path | None,
        typer.Option("--errors-out", help="The file of the errors found, a bit for each error of the model in order."),
    ] = None
    confidence_out: Annotated[
        Path | None,
        typer.Option(
            "--confidence-out",
            metavar="FILE.npz|FILE.csv",
            help="The file of each shot's confidence and of the probability that each observable flipped.",
        ),
    ] = None


@with_groups
def decode(
    *,
    decoder: Annotated[str, typer.Option("--decoder", metavar="NAME", help=SOME_DECODERS)] = "neural",
    described: ExperimentOptions,
    files: ShotFiles,
    windows: WindowOptions,
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
      tandem decode --decoder serial --window 12 --commit 6 --circuit long.stim \\
        --in shots.b8 --out predictions.b8
    """
    experiment = described.experiment()
    [name] = windows.names([decoder])
    decode_files(files, experiment, make=partial(make_here, name, experiment, weights=weights), output=output)


def make_here(name: str, experiment: Experiment, *, weights: Path | None) -> tuple[Decoder, Mapping[str, object]]:
    """A decoder of this process, and what to print of it. Of a pair the second works in processes on all cores."""
    from decoder.catalog import decoder_spec
    from decoder.making import make_decoder

    second = decoder_spec(name).second
    if second is None:
        return make_decoder(name, experiment, weights=weights), {"decoder": name}
    from decoder.tandem.opinions import OFFLINE_PATIENCE_SECONDS, OpinionPool
    from decoder.tandem.pairs import make_pair
    from simulation.shots.sampling import usable_cores

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
    check_confidence_file(files.confidence_out)
    outputs = (files.out, files.errors_out, files.confidence_out)
    check_outputs(*outputs, force=output.force, inputs=(files.in_file, files.obs_in))
    from decoder.classical.explained import FixedParities
    from decoder.windows.decoder import WindowDecoder
    from simulation.bits import unpack_bits
    from simulation.foreign.experiment import ForeignExperiment

    shots, flips = _read(files, experiment)
    decoder, described = make()
    whole = not isinstance(decoder, WindowDecoder)  # of long experiments windows alone are looked at
    if whole and isinstance(experiment, ForeignExperiment):
        # Nobody knows whether it is the one that was measured.
        FixedParities.of(experiment.fault_model).require_explained(unpack_bits(shots, experiment.num_detectors))
        described = {"check_types": experiment.check_types.found, **described}
    _check_tells(decoder, described["decoder"], files)
    begun = time.perf_counter()
    decoded = _decode(decoder, shots, errors=files.errors_out is not None, json_output=output.json_output)
    seconds = time.perf_counter() - begun
    _write(files, experiment, decoded, force=output.force)
    result: dict[str, object] = {
        **experiment.columns,
        **described,
        "shots": len(shots),
        "format": files.format,
        "out": str(files.out),
        **{name: str(path) for name in ("errors_out", "confidence_out") if (path := getattr(files, name))},
        "seconds": seconds,
        **decoded.facts,
    }
    if flips is not None:
        from decoder.benchmark.common import count_failures, failure_columns

        result |= failure_columns(count_failures(decoded.predictions, flips), len(flips))
    warnings = doubts(decoder, experiment, shots, decoded.decoding) if whole else []
    for warning in warnings:
        warn(warning)
    if output.json_output:
        result["warnings"] = warnings
    print_result(result, title=str(experiment), json_output=output.json_output, outputs=outputs)


def _decode(decoder: Decoder, shots: PackedBits, *, errors: bool, json_output: bool) -> Decoded:
    from decoder.base import ErrorDecoder
    from decoder.commands.decoded import decode_all, find_errors

    with ProgressBar("decoding", total=len(shots), unit="shots", json_output=json_output) as bar:
        if errors and isinstance(decoder, ErrorDecoder):
            return find_errors(decoder, shots, progress=bar.update)
        return decode_all(decoder, shots, progress=bar.update)


def _check_tells(decoder: Decoder, name: object, files: ShotFiles) -> None:
    """Refuses files of what a decoder does not tell."""
    from decoder.base import ErrorDecoder, SoftDecoder

    if files.errors_out is not None and not isinstance(decoder, ErrorDecoder):
        raise ValueError(f"{name} tells no errors; leave out --errors-out, or decode with bposd or serial")
    if files.confidence_out is not None and (files.errors_out is not None or not isinstance(decoder, SoftDecoder)):
        raise ValueError(
            "--confidence-out needs a decoder that says how sure it is, neural, serial or tandem, and comes without "
            "--errors-out"
        )


def _write(files: ShotFiles, experiment: Experiment, decoded: Decoded, *, force: bool) -> None:
    from simulation.shots.files import write_shots

    observables, format = experiment.num_observables, files.format
    write_shots(files.out, decoded.predictions, format=format, num_observables=observables, force=force)
    if files.errors_out is not None and decoded.errors is not None:
        errors = experiment.fault_model.num_instructions
        write_shots(files.errors_out, decoded.errors, format=format, num_errors=errors, force=force)
    if files.confidence_out is not None and decoded.decoding is not None:
        write_confidence(files.confidence_out, decoded.decoding, force=force)


def _read(files: ShotFiles, experiment: Experiment) -> tuple[PackedBits, PackedBits | None]:
    """The shots, and what truly flipped."""
    from simulation.shots.files import WrongLengthError, read_shots

    if experiment.num_observables == 0:
        raise ValueError(f"{experiment} has no observables, so there is nothing to predict; add OBSERVABLE_INCLUDE")
    events, truth = files.in_file, files.obs_in
    try:
        shots = read_shots(events, format=files.format, num_detectors=experiment.num_detectors)
    except WrongLengthError as error:
        from simulation.shots.plausibility import fitting

        others = " or ".join(fitting(error.num_bytes, experiment))
        raise ValueError(f"{error}{others and f'; it would hold {others}'}") from None
    if len(shots) == 0:
        raise ValueError(f"{events} holds no shots")
    if truth is None:
        return shots, None
    flips = read_shots(truth, format=files.format, num_observables=experiment.num_observables)
    if len(flips) != len(shots):
        raise ValueError(
            f"{events} holds {len(shots)} shots, but {truth} holds the flips of {len(flips)}; "
            "give the two files of one run"
        )
    return shots, flips
