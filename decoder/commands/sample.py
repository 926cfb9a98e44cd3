"""`tandem sample`: shots of a memory experiment in files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.console.groups import with_groups
from decoder.console.options import ExperimentArguments, FormatOption, OutputOptions, check_outputs
from decoder.console.output import ProgressBar, print_result

if TYPE_CHECKING:
    from simulation.shots.sampling import Samples


@dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """The files that are written, in one format."""

    out: Annotated[Path, typer.Option(help="The file of detection events.")]
    obs_out: Annotated[Path | None, typer.Option(help="The file of observable flips: the right answers.")] = None
    format: FormatOption = "b8"

    def write(self, samples: Samples, *, force: bool) -> None:
        """Writes both; see `simulation.shots.files.write_shots`."""
        from simulation.shots.files import write_shots

        events, flips = samples.detection_events, samples.observable_flips
        write_shots(self.out, events, format=self.format, num_detectors=samples.num_detectors, force=force)
        if self.obs_out is not None:
            write_shots(self.obs_out, flips, format=self.format, num_observables=samples.num_observables, force=force)


@with_groups
def sample(
    *,
    described: ExperimentArguments,
    shots: Annotated[int, typer.Option(help="How many shots, at least 1.")],
    seed: Annotated[
        int | None,
        typer.Option(
            help="Repeats the same shots, with the same version of stim on the same kind of machine. "
            "Without it a fresh seed is drawn and shown."
        ),
    ] = None,
    files: SampleFiles,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes; they do not change the shots.", show_default="as it pays")
    ] = None,
    output: OutputOptions,
) -> None:
    """Draws shots of a memory experiment, or of any circuit, and writes their detection events.

    \b
    Examples:
      tandem sample bb72 --rounds 6 --p 0.002 --basis Z --shots 2000 --seed 1 \\
        --out shots.b8 --obs-out flips.b8
      tandem sample --circuit my.stim --shots 2000 --out shots.b8 --obs-out flips.b8
    """
    check_outputs(files.out, files.obs_out, force=output.force)
    from simulation.shots.sampling import sample as draw
    from simulation.shots.sampling import suggested_processes

    experiment = described.experiment()
    begun = time.perf_counter()
    if processes is None:
        processes = suggested_processes(experiment.source, shots=shots)
    with ProgressBar("sampling", total=shots, unit="shots", json_output=output.json_output) as bar:
        samples = draw(experiment.source, shots=shots, seed=seed, processes=processes, progress=bar.update)
    files.write(samples, force=output.force)
    result = {
        **experiment.parameters,
        "shots": samples.shots,
        "seed": samples.seed,
        "num_detectors": samples.num_detectors,
        "num_observables": samples.num_observables,
        "format": files.format,
        "out": str(files.out),
        "obs_out": None if files.obs_out is None else str(files.obs_out),
        "seconds": time.perf_counter() - begun,
    }
    print_result(result, title=str(experiment), json_output=output.json_output, outputs=(files.out, files.obs_out))
