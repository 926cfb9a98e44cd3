"""`tandem warm-up`: compiles beforehand what the first shot would otherwise wait for."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from decoder.console.options import JsonOption
from decoder.console.output import print_result

COMPILED = ("neural", "serial", "serial-1")
"""Decoders whose kernels numba compiles; together they have all of them."""


def warm_up(
    code: Annotated[str, typer.Option("--code", metavar="CODE", help="A code that the network decodes.")] = "bb72",
    json_output: JsonOption = False,
) -> None:
    """Compiles the decoders' kernels for this machine, so that the first shot need not wait.

    They are kept for later processes, and compiled anew only after an update.

    \b
    Example:
      tandem warm-up
    """
    from decoder.making import make_decoder
    from simulation.circuits import MemoryExperiment
    from simulation.shots.sampling import sample

    # With so much noise the solutions of some shots disagree, and the network is asked.
    experiment = MemoryExperiment.create(code=code, basis="Z", rounds=2, p=0.015)
    shots = sample(experiment.circuit, shots=64, seed=1).detection_events
    seconds = {}
    for name in COMPILED:
        begun = time.perf_counter()
        make_decoder(name, experiment).decode_batch(shots, bit_packed_shots=True)
        seconds[name] = time.perf_counter() - begun
    print_result(seconds, title="seconds until the first shots were decoded", json_output=json_output)
