"""`tandem sample`: shots of a memory experiment in files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from decoder.commands.options import (
    BasisOption,
    CodeArgument,
    DetectorsOption,
    ForceOption,
    FormatOption,
    JsonOption,
    NoiseOption,
    PerfectEndOption,
    POption,
    RoundsOption,
    check_outputs,
    make_experiment,
)
from decoder.commands.output import ProgressBar, print_json, print_table


def sample(
    *,
    code: CodeArgument,
    rounds: RoundsOption,
    p: POption = None,
    basis: BasisOption,
    noise: NoiseOption = "uniform",
    detectors: DetectorsOption = "XYZ",
    noiseless_last_cycle: PerfectEndOption = False,
    shots: Annotated[int, typer.Option(help="How many shots, at least 1.")],
    seed: Annotated[
        int | None,
        typer.Option(
            help="Repeats the same shots, with the same version of stim on the same kind of machine. "
            "Without it a fresh seed is drawn and shown."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of detection events.")],
    obs_out: Annotated[Path | None, typer.Option(help="The file of observable flips: the right answers.")] = None,
    format: FormatOption = "b8",
    processes: Annotated[
        int | None, typer.Option(help="Worker processes; they do not change the shots.", show_default="as it pays")
    ] = None,
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Draws shots of a memory experiment and writes their detection events.

    \b
    Example:
      tandem sample bb72 --rounds 6 --p 0.002 --basis Z --shots 2000 --seed 1 \\
        --out shots.b8 --obs-out flips.b8
    """
    check_outputs(out, obs_out, force=force)
    from simulation.sampling import sample as draw
    from simulation.sampling import suggested_processes
    from simulation.shot_files import write_shots

    experiment = make_experiment(
        code=code,
        rounds=rounds,
        basis=basis,
        p=p,
        noise=noise,
        detectors=detectors,
        noiseless_last_cycle=noiseless_last_cycle,
    )
    begun = time.perf_counter()
    if processes is None:
        processes = suggested_processes(experiment.circuit, shots=shots)
    with ProgressBar("sampling", total=shots, unit="shots", json_output=json_output) as bar:
        samples = draw(experiment.circuit, shots=shots, seed=seed, processes=processes, progress=bar.update)
    write_shots(out, samples.detection_events, format=format, num_detectors=samples.num_detectors, force=force)
    if obs_out is not None:
        write_shots(
            obs_out,
            samples.observable_flips,
            format=format,
            num_observables=samples.num_observables,
            force=force,
        )
    result = {
        "code": str(experiment.code),
        "rounds": rounds,
        "basis": basis,
        "p": experiment.noise.p,
        "noise": str(experiment.noise),
        "detectors": detectors,
        "noiseless_last_cycle": noiseless_last_cycle,
        "shots": samples.shots,
        "seed": samples.seed,
        "num_detectors": samples.num_detectors,
        "num_observables": samples.num_observables,
        "format": format,
        "out": str(out),
        "obs_out": None if obs_out is None else str(obs_out),
        "seconds": time.perf_counter() - begun,
    }
    if json_output:
        print_json(result)
    else:
        print_table(["", str(experiment)], ((key, value) for key, value in result.items() if value is not None))
