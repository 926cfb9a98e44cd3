"""`tandem circuit`: a memory experiment as a stim circuit and a detector error model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from decoder.console.groups import with_groups
from decoder.console.options import MemoryArguments, OutputOptions, check_outputs
from decoder.console.output import print_result


@with_groups
def circuit(
    *,
    described: MemoryArguments,
    out: Annotated[Path, typer.Option("-o", "--out", help="The circuit's file (.stim).")],
    dem: Annotated[Path | None, typer.Option("--dem", help="The detector error model's file (.dem).")] = None,
    output: OutputOptions,
) -> None:
    """Writes a memory experiment as a circuit that stim reads.

    \b
    Examples:
      tandem circuit bb72 --rounds 6 --p 0.002 --basis Z -o bb72.stim
      tandem circuit bb144 --rounds 12 --p 0.001 --basis X --noise si1000 \\
        -o bb144.stim --dem bb144.dem
    """
    check_outputs(out, dem, force=output.force)
    from decoder.benchmark.reporting.provenance import circuit_sha256
    from simulation.files import atomic_write

    experiment = described.experiment()
    with ExitStack() as files:
        # Both are complete before either gets its name.
        partial = files.enter_context(atomic_write(out, force=output.force))
        partial.write_text(f"{experiment.circuit}\n", encoding="utf-8")
        if dem is not None:
            partial = files.enter_context(atomic_write(dem, force=output.force))
            partial.write_text(f"{experiment.dem}\n", encoding="utf-8")
    result = {
        **experiment.parameters,
        "num_qubits": experiment.circuit.num_qubits,
        "num_detectors": experiment.num_detectors,
        "num_observables": experiment.num_observables,
        "circuit": str(out),
        "circuit_sha256": circuit_sha256(experiment),
        "dem": None if dem is None else str(dem),
        "num_mechanisms": None if dem is None else experiment.fault_model.num_mechanisms,
    }
    print_result(result, title=str(experiment), json_output=output.json_output, outputs=(out, dem))
